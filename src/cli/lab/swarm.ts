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
  readonly Swarm?: { readonly LocalNodeState?: string; readonly NodeID?: string };
}

interface SwarmNode {
  readonly ID: string;
  readonly Description?: { readonly Hostname?: string };
  readonly Status?: { readonly State?: string };
}

/** `inactive`, `pending`, `active`, …, as in `docker info`. */
export async function localState(node: LabNode, timeoutMs = 10_000): Promise<string> {
  const info = (await new AgentClient(node.socket, timeoutMs).call('GET', '/info')) as Info;
  return info.Swarm?.LocalNodeState ?? 'inactive';
}

/** Makes one swarm of all nodes, with the first as manager. What is in a swarm already stays. */
export async function formSwarm(nodes: readonly LabNode[], signal?: AbortSignal): Promise<void> {
  const [manager, ...workers] = nodes;
  if (manager === undefined) return;
  const client = new AgentClient(manager.socket, REQUEST_TIMEOUT_MS, signal);
  if ((await settledState(manager, signal)) === 'inactive') {
    await client.call('POST', '/swarm/init', {
      ListenAddr: `0.0.0.0:${CONTROL_PORT}`,
      AdvertiseAddr: manager.address,
    });
  }
  const swarm = (await client.call('GET', '/swarm')) as { JoinTokens?: { Worker?: string } };
  const token = swarm.JoinTokens?.Worker ?? '';
  await Promise.all(workers.map((node) => join(node, manager, token, signal)));
  await untilReady(client, nodes, signal);
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
  if ((await settledState(node, signal)) !== 'inactive') return;
  const client = new AgentClient(node.socket, REQUEST_TIMEOUT_MS, signal);
  await client.call('POST', '/swarm/join', {
    RemoteAddrs: [`${manager.address}:${CONTROL_PORT}`],
    JoinToken: token,
    AdvertiseAddr: node.address,
    ListenAddr: `0.0.0.0:${CONTROL_PORT}`,
  });
}

/** State of each node as the manager sees it, by host name. */
export async function statesAtManager(manager: LabNode): Promise<ReadonlyMap<string, string>> {
  const nodes = (await new AgentClient(manager.socket, 5_000).call('GET', '/nodes')) as SwarmNode[];
  return stateByName(nodes);
}

/** The newest of several objects of one name: a node that was reset joins again under another id. */
function stateByName(nodes: readonly SwarmNode[]): ReadonlyMap<string, string> {
  const states = new Map<string, string>();
  for (const node of nodes) {
    const name = node.Description?.Hostname ?? node.ID;
    const state = node.Status?.State ?? 'unknown';
    if (states.get(name) !== 'ready') states.set(name, state);
  }
  return states;
}

async function untilReady(
  client: AgentClient,
  nodes: readonly LabNode[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const deadlineMs = performance.now() + READY_TIMEOUT_MS;
  for (;;) {
    signal?.throwIfAborted();
    const states = stateByName((await client.call('GET', '/nodes')) as SwarmNode[]);
    const waiting = nodes.filter((node) => states.get(node.name) !== 'ready');
    if (waiting.length === 0) return;
    if (performance.now() >= deadlineMs) {
      const list = waiting.map((n) => `${n.name} (${states.get(n.name) ?? 'not joined'})`);
      const message = `not ready within ${READY_TIMEOUT_MS / 1000} s: ${list.join(', ')}`;
      throw new CliError({ code: 'LAB_AGENT_FAILED', node: waiting[0]?.name ?? '' }, message);
    }
    await delay(POLL_INTERVAL_MS);
  }
}
