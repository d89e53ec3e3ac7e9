import type { ServiceEntry, ServiceObject } from '../../../base/service-model.js';
import type {
  AttachmentId,
  ClusterObject,
  NetworkId,
  NetworkObject,
  NodeId,
  NodeObject,
  ServiceId,
  TaskId,
} from '../../../base/swarm-model.js';
import type { GossipKeyText } from '../../wire/gossip-key.js';
import type { ControlAddress } from '../../wire/model.js';
import type { AssignmentsChange, ClusterFacts, NodeEntry, TableChange } from '../wire/messages.js';
import { type OwnAssignments, referencesOf } from './own-assignments.js';
import type { Removal } from './removals.js';

/** What all nodes are told alike. Rows are never altered, so the same row is no change. */
export interface SharedAssignments {
  /** Raised when the state was put back to an earlier one; versions count within an era. */
  readonly era: number;
  /** Version of the cluster's state that this is made of. */
  readonly version: number;
  readonly cluster: ClusterFacts;
  /** First seals, all open. */
  readonly gossipKeys: readonly GossipKeyText[];
  readonly networks: ReadonlyMap<NetworkId, NetworkObject>;
  readonly nodes: ReadonlyMap<NodeId, NodeEntry>;
  readonly services: ReadonlyMap<ServiceId, ServiceEntry>;
}

/** All that an agent needs for doing its part, also when no manager can be reached. */
export interface Assignments extends SharedAssignments, OwnAssignments {}

/** What assignments are made of. */
export interface AssignmentsSource {
  /** Raised when a swarm is made anew of what one manager, or a copy, still has; 0 if absent. */
  readonly era?: number;
  readonly version: number;
  /** The manager that leads, if that is known: agents leave it to the others if they can. */
  readonly leader?: NodeId | undefined;
  readonly cluster: ClusterObject;
  readonly gossipKeys: readonly GossipKeyText[];
  readonly networks: Iterable<NetworkObject>;
  readonly nodes: Iterable<NodeObject>;
  readonly services: Iterable<ServiceObject>;
}

const entries = new WeakMap<NodeObject, NodeEntry>();

/**
 * The same node object gives the same entry, for the comparison by identity; and so does another
 * that differs only in what nodes are not told, such as who serves it.
 */
function entryOf(node: NodeObject, before: NodeEntry | undefined): NodeEntry {
  const known = entries.get(node);
  if (known !== undefined) return known;
  const entry: NodeEntry = {
    id: node.id,
    hostname: node.description.hostname,
    role: node.spec.role,
    availability: node.spec.availability,
    state: node.state,
    peerId: node.peerId,
    address: node.address,
    dataPathAddress: node.dataPathAddress,
    gossipAddress: node.gossipAddress,
    gossipPort: node.gossipPort,
  };
  const kept = before !== undefined && isSameEntry(before, entry) ? before : entry;
  entries.set(node, kept);
  return kept;
}

function isSameEntry(a: NodeEntry, b: NodeEntry): boolean {
  return (Object.keys(b) as (keyof NodeEntry)[]).every((field) => a[field] === b[field]);
}

const serviceEntries = new WeakMap<ServiceObject, ServiceEntry>();

/** As `entryOf`. `version` is of the service when it became what the entry says. */
function serviceEntryOf(service: ServiceObject, before: ServiceEntry | undefined): ServiceEntry {
  const known = serviceEntries.get(service);
  if (known !== undefined) return known;
  const { id, version, spec, endpoint } = service;
  const entry: ServiceEntry = {
    id,
    version,
    name: spec.name,
    labels: spec.labels,
    endpointMode: endpoint.spec.mode,
    virtualIps: endpoint.virtualIps,
    ports: endpoint.ports.filter(({ publishMode }) => publishMode === 'ingress'),
    networks: networksOf(spec),
  };
  const kept = before !== undefined && same({ ...entry, version: before.version }, before);
  serviceEntries.set(service, kept ? before : entry);
  return kept ? before : entry;
}

/** Wherever the user has named them. */
function networksOf({ task, networks = [] }: ServiceObject['spec']): ServiceEntry['networks'] {
  return (task.networks?.length ?? 0) > 0 ? (task.networks ?? []) : networks;
}

/** `host:port`, with brackets around IPv6. */
export function parseControlAddress(text: string): ControlAddress | undefined {
  const match = /^(?:\[([^[\]]+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text);
  const address = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  return address === undefined || port > 65_535 ? undefined : { address, port };
}

export function formatControlAddress({ address, port }: ControlAddress): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** @param before What was projected last, whose entries are used again where they still hold. */
export function projectShared(
  source: AssignmentsSource,
  before?: SharedAssignments,
): SharedAssignments {
  const nodes = [...source.nodes];
  const { id, dataPathPort, rootCaPem, spec } = source.cluster;
  const managerAt = ({ manager }: NodeObject) => manager && parseControlAddress(manager.address);
  const leader = nodes.find((node) => node.id === source.leader);
  const leaderAddress = leader && managerAt(leader);
  return {
    era: source.era ?? 0,
    version: source.version,
    cluster: {
      id,
      dataPathPort,
      rootCaPem,
      heartbeatMs: spec.dispatcherHeartbeatMs,
      managers: nodes.flatMap((node) => managerAt(node) ?? []),
      ...(leaderAddress && { leader: leaderAddress }),
    },
    gossipKeys: source.gossipKeys,
    networks: new Map([...source.networks].map((network) => [network.id, network])),
    nodes: new Map(nodes.map((node) => [node.id, entryOf(node, before?.nodes.get(node.id))])),
    services: new Map(
      [...source.services]
        .filter((service) => service.pendingDelete !== true)
        .map((service) => [service.id, serviceEntryOf(service, before?.services.get(service.id))]),
    ),
  };
}

function diffTable<Id, Row>(
  before: ReadonlyMap<Id, Row>,
  after: ReadonlyMap<Id, Row>,
): TableChange<Id, Row> | undefined {
  const put: Row[] = [];
  for (const [id, row] of after) if (before.get(id) !== row) put.push(row);
  const remove = [...before.keys()].filter((id) => !after.has(id));
  return put.length + remove.length === 0 ? undefined : { put, remove };
}

/** `undefined`: nothing that nodes are told is different. */
export function diffShared(
  before: SharedAssignments,
  after: SharedAssignments,
): AssignmentsChange | undefined {
  const networks = diffTable(before.networks, after.networks);
  const nodes = diffTable(before.nodes, after.nodes);
  const services = diffTable(before.services, after.services);
  const cluster = same(before.cluster, after.cluster) ? undefined : after.cluster;
  const gossipKeys = same(before.gossipKeys, after.gossipKeys) ? undefined : after.gossipKeys;
  if (!networks && !nodes && !services && !cluster && !gossipKeys) return undefined;
  return {
    era: after.era,
    version: after.version,
    ...(cluster && { cluster }),
    ...(gossipKeys && { gossipKeys }),
    ...(networks && { networks }),
    ...(nodes && { nodes }),
    ...(services && { services }),
  };
}

/** Tables of a node's own, as parts of a change. */
type OwnChange = Pick<AssignmentsChange, 'attachments' | 'tasks' | 'secrets' | 'configs'>;

/** Contents that no task refers to any more the node forgets by itself. */
export function diffOwn(before: OwnAssignments, after: OwnAssignments): OwnChange | undefined {
  const attachments = diffTable(before.attachments, after.attachments);
  const tasks = diffTable(before.tasks, after.tasks);
  const secrets = additions(before.secrets, after.secrets);
  const configs = additions(before.configs, after.configs);
  if (!attachments && !tasks && !secrets && !configs) return undefined;
  return {
    ...(attachments && { attachments }),
    ...(tasks && { tasks }),
    ...(secrets && { secrets }),
    ...(configs && { configs }),
  };
}

function additions<Id, Row>(
  before: ReadonlyMap<Id, Row>,
  after: ReadonlyMap<Id, Row>,
): TableChange<Id, Row> | undefined {
  const change = diffTable(before, after);
  return change === undefined || change.put.length === 0 ? undefined : { ...change, remove: [] };
}

function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** Characters of one part's rows, as JSON: even at three bytes each they fit into one frame. */
const PART_CHARS_MAX = 1 << 20;

/** Everything, as a change from nothing. */
export function fullChange(assignments: Assignments): AssignmentsChange {
  const { era, version, cluster, gossipKeys, networks, nodes, services } = assignments;
  return {
    era,
    version,
    cluster,
    gossipKeys,
    networks: { put: [...networks.values()], remove: [] },
    nodes: { put: [...nodes.values()], remove: [] },
    services: { put: [...services.values()], remove: [] },
    ...fullOwnChange(assignments),
  };
}

export function fullOwnChange({ attachments, tasks, secrets, configs }: OwnAssignments): OwnChange {
  return {
    attachments: { put: [...attachments.values()], remove: [] },
    tasks: { put: [...tasks.values()], remove: [] },
    secrets: { put: [...secrets.values()], remove: [] },
    configs: { put: [...configs.values()], remove: [] },
  };
}

/** What an agent that has assignments of an earlier version is told. */
export interface Since {
  readonly version: number;
  readonly self: NodeId;
  readonly removals: readonly Removal[];
  /** The agent has none of the contents of its secrets, which are on no disk. */
  readonly bare: boolean;
}

/**
 * What is different since an earlier version for a node that has these assignments now: the rows that
 * are younger, and what was removed meanwhile. May repeat what the node knows, and never lacks anything.
 */
export function changeSince(
  { version, self, removals, bare }: Since,
  assignments: Assignments,
  source: Pick<AssignmentsSource, 'networks' | 'nodes' | 'services'>,
): AssignmentsChange {
  const { era, cluster, gossipKeys, networks, nodes, services } = assignments;
  // The source may be younger than the assignments: what came since is told as a change later.
  const younger = <Id, Row>(
    rows: Iterable<{ readonly id: Id; readonly version: number }>,
    table: ReadonlyMap<Id, Row>,
  ) => [...rows].flatMap((row) => (row.version > version ? (table.get(row.id) ?? []) : []));
  const removed = <Name extends Removal['table']>(
    table: Name,
    present: ReadonlyMap<string, unknown>,
  ) =>
    removals.flatMap((one) => {
      const isOthers = 'nodeId' in one && one.nodeId !== self;
      const id = one.id as Extract<Removal, { readonly table: Name }>['id'];
      return one.table === table && !isOthers && !present.has(id) ? [id] : [];
    });
  return {
    era,
    version: assignments.version,
    cluster,
    gossipKeys,
    networks: { put: younger(source.networks, networks), remove: removed('network', networks) },
    nodes: { put: younger(source.nodes, nodes), remove: removed('node', nodes) },
    services: { put: younger(source.services, services), remove: removed('service', services) },
    ...ownSince(version, bare, assignments, {
      attachments: removed('attachment', assignments.attachments),
      tasks: removed('task', assignments.tasks),
    }),
  };
}

function ownSince(
  version: number,
  bare: boolean,
  own: OwnAssignments,
  removed: { readonly attachments: readonly AttachmentId[]; readonly tasks: readonly TaskId[] },
): OwnChange {
  const tasks = [...own.tasks.values()].filter((row) => row.version > version);
  const { secretIds, configIds } = referencesOf(tasks);
  return {
    attachments: {
      put: [...own.attachments.values()].filter((row) => row.version > version),
      remove: removed.attachments,
    },
    tasks: { put: tasks, remove: removed.tasks },
    secrets: {
      put: [...own.secrets.values()].filter(({ id }) => bare || secretIds.has(id)),
      remove: [],
    },
    configs: { put: [...own.configs.values()].filter(({ id }) => configIds.has(id)), remove: [] },
  };
}

/**
 * The same change in parts that fit into frames. The first has all but the rows of tables; tasks come
 * before what they refer to, which an agent would otherwise take to be of no use.
 */
export function splitChange(change: AssignmentsChange): readonly AssignmentsChange[] {
  const { networks, nodes, services, attachments, tasks, secrets, configs, ...rest } = change;
  const { era, version } = change;
  return [
    rest,
    ...splitTable(networks).map((part) => ({ era, version, networks: part })),
    ...splitTable(nodes).map((part) => ({ era, version, nodes: part })),
    ...splitTable(services).map((part) => ({ era, version, services: part })),
    ...splitTable(attachments).map((part) => ({ era, version, attachments: part })),
    ...splitTable(tasks).map((part) => ({ era, version, tasks: part })),
    ...splitTable(secrets).map((part) => ({ era, version, secrets: part })),
    ...splitTable(configs).map((part) => ({ era, version, configs: part })),
  ];
}

function splitTable<Id, Row>(change: TableChange<Id, Row> | undefined): TableChange<Id, Row>[] {
  if (change === undefined) return [];
  const parts: TableChange<Id, Row>[] = [];
  let put: Row[] = [];
  let chars = 0;
  for (const row of change.put) {
    const rowChars = JSON.stringify(row).length;
    if (put.length > 0 && chars + rowChars > PART_CHARS_MAX) {
      parts.push({ put, remove: [] });
      put = [];
      chars = 0;
    }
    put.push(row);
    chars += rowChars;
  }
  return [...parts, { put, remove: change.remove }];
}

/**
 * The assignments after a change. Without earlier ones (a reset) the change must name the cluster
 * and the keys: `undefined` if it does not.
 */
export function applyChange(
  before: Assignments | undefined,
  change: AssignmentsChange,
): Assignments | undefined {
  const cluster = change.cluster ?? before?.cluster;
  const gossipKeys = change.gossipKeys ?? before?.gossipKeys;
  if (cluster === undefined || gossipKeys === undefined) return undefined;
  return {
    era: change.era,
    version: change.version,
    cluster,
    gossipKeys,
    networks: applyTable(before?.networks, change.networks),
    nodes: applyTable(before?.nodes, change.nodes),
    services: applyTable(before?.services, change.services),
    ...applyOwn(before, change),
  };
}

function applyOwn(before: OwnAssignments | undefined, change: OwnChange): OwnAssignments {
  const tasks = applyTable(before?.tasks, change.tasks);
  const after = {
    attachments: applyTable(before?.attachments, change.attachments),
    tasks,
    secrets: applyTable(before?.secrets, change.secrets),
    configs: applyTable(before?.configs, change.configs),
  };
  if (!change.tasks && !change.secrets && !change.configs) return after;
  const { secretIds, configIds } = referencesOf(tasks.values());
  return {
    ...after,
    secrets: kept(after.secrets, secretIds),
    configs: kept(after.configs, configIds),
  };
}

function kept<Id, Row>(table: ReadonlyMap<Id, Row>, ids: ReadonlySet<Id>): ReadonlyMap<Id, Row> {
  if ([...table.keys()].every((id) => ids.has(id))) return table;
  return new Map([...table].filter(([id]) => ids.has(id)));
}

function applyTable<Id, Row extends { readonly id: Id }>(
  before: ReadonlyMap<Id, Row> | undefined,
  change: TableChange<Id, Row> | undefined,
): ReadonlyMap<Id, Row> {
  if (change === undefined) return before ?? new Map();
  const after = new Map(before);
  for (const id of change.remove) after.delete(id);
  for (const row of change.put) after.set(row.id, row);
  return after;
}
