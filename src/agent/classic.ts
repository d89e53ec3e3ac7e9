import { connect } from 'node:net';
import type { Duplex } from 'node:stream';
import {
  CLASSIC_STRATEGIES,
  type ClassicBackend,
  type ClassicFallback,
  type ClassicMember,
  ClassicServer,
  discoveryLabel,
  isDiscoveryLabel,
  parseDiscovery,
} from '../api/classic/index.js';
import { type ClassicVerbs, HOP_HEADER, type Upstream } from '../api/index.js';
import { Prng } from '../base/prng.js';
import { SwarmError } from '../base/swarm-error.js';
import type { NodeView } from '../base/swarm-model.js';
import { secureEntrance } from './api-entrances.js';
import { type AgentConfig, type ClassicConfig, ConfigError, refuseOpen } from './config.js';
import { nodeUpstream } from './containers.js';
import type { StaticFacts } from './facts.js';
import type { Log } from './log.js';
import { ENGINE_PREFIX } from './node-api.js';
import type { StateFile } from './state-file.js';
import type { SwarmNode } from './swarm-node.js';

const NANO = 1e9;
/** By which the write-ups show nodes; they are reached through tunnels. */
const ENGINE_PORT = 2376;
/** Groups that one node is in. */
export const DISCOVERY_GROUPS_MAX = 64;

export interface ClassicParts {
  readonly config: AgentConfig;
  readonly facts: StaticFacts;
  readonly node: SwarmNode;
  readonly state: StateFile;
  readonly docker: ClassicFallback;
  readonly log: Log;
  /** Those that are open on this node, the oldest first: it keeps the promises that are made of all. */
  readonly endpoints: Set<symbol>;
}

export interface OpenClassic {
  readonly port: number;
  close(): Promise<void>;
}

/**
 * Opens the classic Swarm's endpoint on this node, which answers while it is a manager.
 *
 * @throws ApiError API_SOCKET_TAKEN, API_SOCKET_REFUSED; ConfigError
 */
export async function openClassic(
  parts: ClassicParts,
  { address, tls, strategy, discovery }: ClassicConfig,
): Promise<OpenClassic> {
  const { config, node, docker } = parts;
  const log = parts.log.child({ part: 'classic' });
  const self = Symbol('endpoint');
  const isFirst = () => [...parts.endpoints][0] === self;
  const server = await ClassicServer.open(address, tls === undefined ? 'none' : 'tls', {
    backend: classicBackend(parts, discovery, isFirst),
    fallback: docker,
    strategy,
    prng: new Prng(Date.now()),
    log,
  });
  parts.endpoints.add(self);
  let endTls = () => {};
  try {
    if (tls !== undefined) endTls = secureEntrance({ config, node, log }, tls.files, server);
  } catch (error) {
    parts.endpoints.delete(self);
    await server.close();
    throw error;
  }
  const roster = new Roster(log);
  const look = () => roster.see(groupOf(node, discovery));
  let isClosed = false;
  node.onManager((manager) =>
    manager.onChange((changes) => {
      if (!isClosed && changes.some(({ table }) => table === 'node')) look();
    }),
  );
  look();
  log.info(
    { addr: `${address.host}:${server.port}`, proto: 'tcp', strategy },
    'Listening for HTTP: all engines of the cluster as one',
  );
  if (tls === undefined)
    log.warn(address, 'whoever reaches this port is root of all nodes: it is open without TLS');
  return {
    port: server.port,
    async close() {
      isClosed = true;
      parts.endpoints.delete(self);
      endTls();
      await server.close();
    },
  };
}

/** Nodes of a group of the classic Swarm's discovery, by which they are asked for, and back. */
class Discovery {
  readonly #parts: Pick<ClassicParts, 'node' | 'state'>;

  constructor(parts: Pick<ClassicParts, 'node' | 'state'>) {
    this.#parts = parts;
  }

  /** This node is in the group from now on. @throws SwarmError SWARM_INVALID, SWARM_EXHAUSTED */
  join(token: string, address: string): string {
    const { node, state } = this.#parts;
    const { active } = node;
    if (active === undefined)
      throw new SwarmError(
        { code: 'SWARM_INVALID' },
        'this node is in no swarm, and discovery is inside the cluster: join it to the swarm first (docker swarm join --token …), then to the group',
      );
    const groups = state.discovery;
    if (!Object.hasOwn(groups, token) && Object.keys(groups).length >= DISCOVERY_GROUPS_MAX)
      throw new SwarmError(
        { code: 'SWARM_EXHAUSTED', what: 'groups' },
        `this node is in ${DISCOVERY_GROUPS_MAX} groups already: leave one first`,
      );
    const shown = address === '' ? `${state.swarm?.advertise.address}:${ENGINE_PORT}` : address;
    state.setDiscovery({ ...groups, [token]: shown });
    active.session.refreshRegistration();
    return shown;
  }

  leave(token: string): void {
    const { node, state } = this.#parts;
    const { [token]: _, ...rest } = state.discovery;
    state.setDiscovery(rest);
    node.active?.session.refreshRegistration();
  }

  /** Addresses of all that are in it. @throws SwarmError SWARM_INACTIVE, SWARM_NOT_MANAGER */
  list(token: string): string[] {
    const label = discoveryLabel(token);
    const nodes = this.#parts.node.manager.nodes();
    return nodes.flatMap(({ description }) => description.engineLabels[label] ?? []).sort();
  }
}

/** What `shoal swarm` asks for, by the words that users have for it. */
export function classicVerbs(parts: ClassicParts): ClassicVerbs {
  const discovery = new Discovery(parts);
  return {
    joinGroup: (text, address) => discovery.join(mustParse(text), address),
    leaveGroup: (text) => discovery.leave(mustParse(text)),
    listGroup: (text) => discovery.list(mustParse(text)),
    async manage({ host, port, plain, strategy, discovery: text, files }) {
      // Whoever waits on a worker would wait for nothing.
      void parts.node.manager;
      const chosen = CLASSIC_STRATEGIES.find((one) => one === strategy);
      if (chosen === undefined)
        throw invalid(`strategy '${strategy}' is none of ${CLASSIC_STRATEGIES.join(', ')}`);
      const address = { host, port };
      try {
        if (plain) refuseOpen('tcp', address, parts.config.tcpInsecure, 'do without --no-tls');
        return await openClassic(parts, {
          address,
          ...(plain ? {} : { tls: files === undefined ? {} : { files } }),
          strategy: chosen,
          ...(text === '' ? {} : { discovery: mustParse(text) }),
        });
      } catch (error) {
        throw error instanceof ConfigError ? invalid(error.message) : error;
      }
    },
  };
}

const invalid = (message: string) => new SwarmError({ code: 'SWARM_INVALID' }, message);

function mustParse(text: string): string {
  const parsed = parseDiscovery(text);
  if (typeof parsed === 'string') throw invalid(parsed);
  return parsed.token;
}

function classicBackend(
  { config, facts, node }: ClassicParts,
  discovery: string | undefined,
  isFirst: () => boolean,
): ClassicBackend {
  return {
    get self() {
      return node.manager.identity.nodeId;
    },
    members: () => node.manager.nodes().flatMap((one) => memberOf(one, discovery)),
    upstream: (id) =>
      id === node.active?.identity.nodeId
        ? ownUpstream(config)
        : nodeUpstream(node, id, ENGINE_PREFIX),
    isFirst: () => {
      const { nodeId } = node.manager.identity;
      return (
        isFirst() &&
        node.manager.nodes().some(({ id, manager }) => id === nodeId && manager?.leader === true)
      );
    },
    facts: () => ({
      id: facts.id,
      name: config.hostname,
      version: `swarm/${facts.agentVersion}`,
      kernelVersion: facts.kernelVersion,
      operatingSystem: 'linux',
      architecture: facts.architecture,
      swarm: { LocalNodeState: 'inactive' },
      role: 'primary',
    }),
  };
}

/** This node alone, as its own clients see it. */
function ownUpstream({ socket: path }: AgentConfig): Upstream {
  return {
    name: 'this node',
    prefix: '',
    apiVersion: '1.45',
    headers: { [HOP_HEADER]: '1' },
    connect: (signal) =>
      new Promise<Duplex>((resolve, reject) => {
        const socket = connect({ path, allowHalfOpen: true, signal });
        socket.once('error', reject);
        socket.once('connect', () => {
          socket.off('error', reject);
          resolve(socket);
        });
      }),
  };
}

function groupOf(node: SwarmNode, discovery: string | undefined): readonly ClassicMember[] {
  const nodes = node.active?.manager?.nodes() ?? [];
  return nodes.flatMap((one) => memberOf(one, discovery));
}

function memberOf(node: NodeView, discovery: string | undefined): ClassicMember[] {
  const { id, description, spec, state, stateMessage, address: ip } = node;
  const labels = description.engineLabels;
  const registered = discovery === undefined ? undefined : labels[discoveryLabel(discovery)];
  if (discovery !== undefined && registered === undefined) return [];
  const shown = Object.entries({ ...labels, ...spec.labels }).filter(
    ([label]) => !isDiscoveryLabel(label),
  );
  return [
    {
      id,
      name: description.hostname,
      ip,
      address: registered ?? `${ip.includes(':') ? `[${ip}]` : ip}:${ENGINE_PORT}`,
      cpus: description.nanoCpus / NANO,
      memoryBytes: description.memoryBytes,
      labels: Object.fromEntries(shown),
      ...(state === 'ready' ? {} : { trouble: stateMessage || `the node is ${state}` }),
      isActive: spec.availability === 'active',
    },
  ];
}

/** Tells the log who has come and gone, in the words that the classic Swarm had for it. */
class Roster {
  readonly #log: Log;
  #members = new Map<string, ClassicMember>();

  constructor(log: Log) {
    this.#log = log;
  }

  see(members: readonly ClassicMember[]): void {
    const now = new Map(members.map((member) => [member.id, member]));
    for (const [id, { name, address, trouble }] of now) {
      const before = this.#members.get(id);
      const wasWell = before !== undefined && before.trouble === undefined;
      if (before === undefined)
        this.#log.info({ id, name }, `Registered Engine ${name} at ${address}`);
      if (trouble !== undefined && wasWell)
        this.#log.error({ id, name }, `Flagging engine as dead. ${trouble}`);
      if (trouble === undefined && before?.trouble !== undefined)
        this.#log.info({ id, name }, `Engine ${name} came back to life`);
    }
    for (const [id, { name }] of this.#members)
      if (!now.has(id)) this.#log.info({ id, name }, `Removed Engine ${name}`);
    this.#members = now;
  }
}
