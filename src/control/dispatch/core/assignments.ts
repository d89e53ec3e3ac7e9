import type {
  AttachmentId,
  ClusterObject,
  NetworkId,
  NetworkObject,
  NodeId,
  NodeObject,
} from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import type { GossipKeyText } from '../../wire/gossip-key.js';
import type { ControlAddress } from '../../wire/model.js';
import type { AssignmentsChange, ClusterFacts, NodeEntry, TableChange } from '../wire/messages.js';
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
}

/** All that an agent needs for doing its part, also when no manager can be reached. */
export interface Assignments extends SharedAssignments {
  /** The node's own. */
  readonly attachments: ReadonlyMap<AttachmentId, KeyedAttachment>;
}

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
  const cluster = same(before.cluster, after.cluster) ? undefined : after.cluster;
  const gossipKeys = same(before.gossipKeys, after.gossipKeys) ? undefined : after.gossipKeys;
  if (!networks && !nodes && !cluster && !gossipKeys) return undefined;
  return {
    era: after.era,
    version: after.version,
    ...(cluster && { cluster }),
    ...(gossipKeys && { gossipKeys }),
    ...(networks && { networks }),
    ...(nodes && { nodes }),
  };
}

export function diffAttachments(
  before: ReadonlyMap<AttachmentId, KeyedAttachment>,
  after: ReadonlyMap<AttachmentId, KeyedAttachment>,
): TableChange<AttachmentId, KeyedAttachment> | undefined {
  return diffTable(before, after);
}

function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** Characters of one part's rows, as JSON: even at three bytes each they fit into one frame. */
const PART_CHARS_MAX = 1 << 20;

/** Everything, as a change from nothing. */
export function fullChange(assignments: Assignments): AssignmentsChange {
  const { era, version, cluster, gossipKeys, networks, nodes, attachments } = assignments;
  return {
    era,
    version,
    cluster,
    gossipKeys,
    networks: { put: [...networks.values()], remove: [] },
    nodes: { put: [...nodes.values()], remove: [] },
    attachments: { put: [...attachments.values()], remove: [] },
  };
}

/**
 * What is different since `version` for a node that has these assignments now: the rows that are
 * younger, and what was removed meanwhile. May repeat what the node knows, and never lacks anything.
 */
export function changeSince(
  version: number,
  assignments: Assignments,
  source: Pick<AssignmentsSource, 'networks' | 'nodes'>,
  self: NodeId,
  removals: readonly Removal[],
): AssignmentsChange {
  const { era, cluster, gossipKeys, networks, nodes, attachments } = assignments;
  // The source may be younger than the assignments: what came since is told as a change later.
  const younger = <Id, Row>(
    rows: Iterable<{ readonly id: Id; readonly version: number }>,
    table: ReadonlyMap<Id, Row>,
  ) => [...rows].flatMap((row) => (row.version > version ? (table.get(row.id) ?? []) : []));
  const removed = {
    networks: removals.flatMap((one) =>
      one.table === 'network' && !networks.has(one.id) ? [one.id] : [],
    ),
    nodes: removals.flatMap((one) => (one.table === 'node' && !nodes.has(one.id) ? [one.id] : [])),
    attachments: removals.flatMap((one) =>
      one.table === 'attachment' && one.nodeId === self && !attachments.has(one.id) ? [one.id] : [],
    ),
  };
  return {
    era,
    version: assignments.version,
    cluster,
    gossipKeys,
    networks: { put: younger(source.networks, networks), remove: removed.networks },
    nodes: { put: younger(source.nodes, nodes), remove: removed.nodes },
    attachments: {
      put: [...attachments.values()].filter((row) => row.version > version),
      remove: removed.attachments,
    },
  };
}

/** The same change in parts that fit into frames. The first has all but the rows of tables. */
export function splitChange(change: AssignmentsChange): readonly AssignmentsChange[] {
  const { networks, nodes, attachments, ...rest } = change;
  const { era, version } = change;
  return [
    rest,
    ...splitTable(networks).map((part) => ({ era, version, networks: part })),
    ...splitTable(nodes).map((part) => ({ era, version, nodes: part })),
    ...splitTable(attachments).map((part) => ({ era, version, attachments: part })),
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
    attachments: applyTable(before?.attachments, change.attachments),
  };
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
