import { setTimeout as delay } from 'node:timers/promises';
import { AgentClient } from '../agent-client.js';
import { CliError } from '../error.js';
import type { LabNode } from './state.js';

const CONTROL_PORT = 2377;
const POLL_INTERVAL_MS = 100;
/** Patience with one request: joining waits for the manager. */
const REQUEST_TIMEOUT_MS = 60_000;
/** What all nodes may take to be ready, ms. */
const READY_TIMEOUT_MS = 60_000;

interface Info {
  readonly Swarm?: {
    readonly LocalNodeState?: string;
    readonly NodeID?: string;
    readonly ControlAvailable?: boolean;
  };
}

interface SwarmNode {
  readonly ID: string;
  readonly Version?: { readonly Index?: number };
  readonly Spec?: { readonly Role?: string };
  readonly Description?: { readonly Hostname?: string };
  readonly Status?: { readonly State?: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability?: string };
}

/** What the managers say of a node. */
export interface NodeAtManager {
  /** `ready`, `down`, … */
  readonly state: string;
  readonly role: string;
  /** `leader`, `reachable`, `unreachable`; `undefined`: it is no manager. */
  readonly manager: string | undefined;
}

async function swarmOf(node: LabNode, timeoutMs: number): Promise<NonNullable<Info['Swarm']>> {
  const info = (await new AgentClient(node.socket, timeoutMs).call('GET', '/info')) as Info;
  return info.Swarm ?? {};
}

/** `inactive`, `pending`, `active`, …, as in `docker info`. */
export async function localState(node: LabNode, timeoutMs = 10_000): Promise<string> {
  return (await swarmOf(node, timeoutMs)).LocalNodeState ?? 'inactive';
}

/**
 * Makes one swarm of all nodes, with the first ones as managers. What is in a swarm already stays;
 * of those that are to be managers, a worker is promoted, and nobody is ever demoted.
 *
 * @param managers `undefined`: one, where there is no swarm yet.
 */
export async function formSwarm(
  nodes: readonly LabNode[],
  managers: number | undefined,
  signal?: AbortSignal,
): Promise<void> {
  const [first] = nodes;
  if (first === undefined) return;
  const states = await Promise.all(nodes.map((node) => settledState(node, signal)));
  refuseLocked(nodes, states);
  const isInactive = (node: LabNode) => states[nodes.indexOf(node)] === 'inactive';
  if (nodes.every(isInactive)) {
    await clientOf(first, signal).call('POST', '/swarm/init', {
      ListenAddr: `0.0.0.0:${CONTROL_PORT}`,
      AdvertiseAddr: first.address,
    });
  }
  const manager = await anyManager(nodes);
  const client = clientOf(manager, signal);
  const swarm = (await client.call('GET', '/swarm')) as {
    JoinTokens?: { Worker?: string; Manager?: string };
  };
  const { Worker = '', Manager = '' } = swarm.JoinTokens ?? {};
  const toManage = nodes.slice(0, managers ?? 1);
  const newcomers = nodes.filter((node) => node !== manager && isInactive(node));
  await Promise.all(
    newcomers.map((node) =>
      join(node, manager, toManage.includes(node) ? Manager : Worker, signal),
    ),
  );
  await untilReady(client, nodes, signal);
  if (managers !== undefined) await promote(client, toManage, signal);
}

function clientOf(node: LabNode, signal: AbortSignal | undefined): AgentClient {
  return new AgentClient(node.socket, REQUEST_TIMEOUT_MS, signal);
}

function refuseLocked(nodes: readonly LabNode[], states: readonly string[]): void {
  const locked = nodes.find((_, i) => states[i] === 'locked');
  if (locked === undefined) return;
  const message = `${locked.name} is locked: 'shoal lab exec ${locked.name} -- docker swarm unlock' opens it`;
  throw new CliError({ code: 'LAB_STATE' }, message);
}

/** The first node that is a manager of the swarm. */
async function anyManager(nodes: readonly LabNode[]): Promise<LabNode> {
  for (const node of nodes)
    if ((await swarmOf(node, 10_000)).ControlAvailable === true) return node;
  throw new CliError({ code: 'LAB_STATE' }, 'no node of the lab is a manager of its swarm');
}

/** Waits while the node is on its way in, or back in after its agent was started anew. */
async function settledState(node: LabNode, signal: AbortSignal | undefined): Promise<string> {
  const deadlineMs = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    signal?.throwIfAborted();
    const state = await localState(node);
    if (state !== 'pending' || performance.now() >= deadlineMs) return state;
    await delay(POLL_INTERVAL_MS);
  }
}

async function join(
  node: LabNode,
  manager: LabNode,
  token: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  await clientOf(node, signal).call('POST', '/swarm/join', {
    RemoteAddrs: [`${manager.address}:${CONTROL_PORT}`],
    JoinToken: token,
    AdvertiseAddr: node.address,
    ListenAddr: `0.0.0.0:${CONTROL_PORT}`,
  });
}

/** Makes managers of those that are workers, and waits until all of them are reachable. */
async function promote(
  client: AgentClient,
  nodes: readonly LabNode[],
  signal: AbortSignal | undefined,
): Promise<void> {
  await waitFor('managers', nodes, signal, async () => {
    const all = (await client.call('GET', '/nodes')) as SwarmNode[];
    const known = byName(all);
    for (const node of nodes) {
      const found = known.get(node.name);
      if (found?.Spec?.Role !== 'worker') continue;
      const body = { ...found.Spec, Role: 'manager' };
      await client.call('POST', `/nodes/${found.ID}/update?version=${found.Version?.Index}`, body);
    }
    return (node) => known.get(node.name)?.ManagerStatus?.Reachability ?? 'no manager yet';
  });
}

/** State of each node as a manager sees it, by host name. */
export async function statesAtManager(manager: LabNode): Promise<ReadonlyMap<string, string>> {
  const all = await nodesAt(manager);
  return new Map([...all].map(([name, { state }]) => [name, state]));
}

/** What a manager says of the nodes, by host name. */
async function nodesAt(manager: LabNode): Promise<ReadonlyMap<string, NodeAtManager>> {
  const nodes = (await new AgentClient(manager.socket, 5_000).call('GET', '/nodes')) as SwarmNode[];
  return new Map(
    [...byName(nodes)].map(([name, { Spec, Status, ManagerStatus }]) => [
      name,
      {
        state: Status?.State ?? 'unknown',
        role: Spec?.Role ?? 'unknown',
        manager: ManagerStatus?.Leader === true ? 'leader' : ManagerStatus?.Reachability,
      },
    ]),
  );
}

/** What the managers among these nodes say: one that knows a leader before one that does not. */
export async function nodesAtManagers(
  nodes: readonly LabNode[],
): Promise<ReadonlyMap<string, NodeAtManager>> {
  const answers = await Promise.all(
    nodes.map((node) =>
      nodesAt(node).catch((error: unknown) => {
        if (error instanceof CliError) return undefined;
        throw error;
      }),
    ),
  );
  const known = answers.filter((answer) => answer !== undefined);
  const led = known.find((all) => [...all.values()].some(({ manager }) => manager === 'leader'));
  return led ?? known[0] ?? new Map();
}

/** The newest of several objects of one name: a node that was reset joins again under another id. */
function byName(nodes: readonly SwarmNode[]): ReadonlyMap<string, SwarmNode> {
  const found = new Map<string, SwarmNode>();
  for (const node of nodes) {
    const name = node.Description?.Hostname ?? node.ID;
    if (found.get(name)?.Status?.State !== 'ready') found.set(name, node);
  }
  return found;
}

async function untilReady(
  client: AgentClient,
  nodes: readonly LabNode[],
  signal: AbortSignal | undefined,
): Promise<void> {
  await waitFor('ready', nodes, signal, async () => {
    const known = byName((await client.call('GET', '/nodes')) as SwarmNode[]);
    return (node) => {
      const found = known.get(node.name);
      if (found === undefined) return 'not joined';
      const isManager = found.Spec?.Role === 'manager';
      const { State = 'unknown' } = found.Status ?? {};
      // One that joins as a manager is a member before it can be one of the group.
      return State === 'ready' && isManager ? (found.ManagerStatus?.Reachability ?? State) : State;
    };
  });
}

const SETTLED: Readonly<Record<string, readonly string[]>> = {
  ready: ['ready', 'reachable', 'unreachable'],
  managers: ['reachable'],
};

/** Looks until all nodes are `what`. @throws CliError LAB_AGENT_FAILED with what each one is instead. */
async function waitFor(
  what: 'ready' | 'managers',
  nodes: readonly LabNode[],
  signal: AbortSignal | undefined,
  look: () => Promise<(node: LabNode) => string>,
): Promise<void> {
  const deadlineMs = performance.now() + READY_TIMEOUT_MS;
  let said: readonly string[] = [];
  for (;;) {
    signal?.throwIfAborted();
    let waiting: readonly LabNode[] = nodes;
    try {
      const stateOf = await look();
      waiting = nodes.filter((node) => !(SETTLED[what] ?? []).includes(stateOf(node)));
      said = waiting.map((node) => `${node.name} (${stateOf(node)})`);
    } catch (error) {
      // The leader changes while managers come: refused once is not refused for ever.
      if (!(error instanceof CliError) || performance.now() >= deadlineMs) throw error;
    }
    if (waiting.length === 0) return;
    if (performance.now() >= deadlineMs) {
      const message = `not ${what} within ${READY_TIMEOUT_MS / 1000} s: ${said.join(', ')}`;
      throw new CliError({ code: 'LAB_AGENT_FAILED', node: waiting[0]?.name ?? '' }, message);
    }
    await delay(POLL_INTERVAL_MS);
  }
}
