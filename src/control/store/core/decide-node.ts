import { unreachable } from '../../../base/assert.js';
import { isTerminal } from '../../../base/service-model.js';
import type { NodeId, NodeObject, NodeSpec } from '../../../base/swarm-model.js';
import type { NodeObservation } from './command.js';
import {
  type CommandOf,
  change,
  checkVersion,
  clusterOf,
  type Decision,
  newMeta,
  touched,
} from './decision.js';
import { invalid, precondition, refuse } from './refuse.js';
import type { Change, ReadonlyState } from './state.js';

/** Nodes of one swarm, dead ones included. */
export const NODES_MAX = 16_384;
/** More managers tolerate more losses, and make every write wait for more of them. */
const MANAGERS_MAX = 7;
/** Removed nodes that are remembered; beyond, those are forgotten whose certificates end first. */
const REMOVED_NODES_MAX = 16_384;
/** All that is shown of a node goes to every reader of the list, so it may not be huge. */
const SPEC_CHARS_MAX = 65_536;

/** Swarmkit's words. */
const DELETED_TEXT = 'Task belonged to a node that has been deleted';

type NodeCommand = CommandOf<
  | 'node_create'
  | 'node_update'
  | 'node_observe'
  | 'nodes_forget_state'
  | 'node_leave'
  | 'node_role'
  | 'node_remove'
>;

export function decideNode(state: ReadonlyState, command: NodeCommand): Decision {
  switch (command.kind) {
    case 'node_create':
      return create(state, command);
    case 'node_update':
      return update(state, command);
    case 'node_observe':
      return observe(state, command);
    case 'nodes_forget_state':
      return forgetStates(state, command);
    case 'node_leave':
      return leave(state, command);
    case 'node_role':
      return settleRole(state, command);
    case 'node_remove':
      return remove(state, command);
    default:
      return unreachable(command);
  }
}

function create(state: ReadonlyState, command: CommandOf<'node_create'>): Decision {
  // The answer to a join was lost and the node asks again: it is the same node.
  const known = state.nodeByPeerId(command.node.peerId);
  if (known !== undefined) return { id: known, changes: [] };
  if (state.size('node') >= NODES_MAX)
    throw refuse(
      { code: 'SWARM_EXHAUSTED', what: 'node' },
      `the swarm has ${NODES_MAX} nodes, and no room for more: remove some that are down`,
    );
  if (command.node.spec.role === 'manager') checkManagers(state);
  const node: NodeObject = {
    ...command.node,
    ...newMeta(state, command.atMs),
    observedRole: command.node.spec.role,
  };
  return { id: node.id, changes: [change(state, 'node', node.id, node)] };
}

function update(state: ReadonlyState, command: CommandOf<'node_update'>): Decision {
  const node = nodeOf(state, command.nodeId);
  checkVersion(node, command.version);
  if (JSON.stringify(command.spec).length > SPEC_CHARS_MAX)
    throw invalid('the description of the node is too large: use fewer or shorter labels');
  checkRole(state, node, command.spec);
  const after = { ...touched(state, node, command.atMs), spec: command.spec };
  return { id: node.id, changes: [change(state, 'node', node.id, after)] };
}

function checkRole(state: ReadonlyState, node: NodeObject, spec: NodeSpec): void {
  if (spec.role === node.spec.role) return;
  if (spec.role === 'manager') checkManagers(state);
  else if (managersOf(state) <= 1)
    throw precondition('attempting to demote the last manager of the swarm');
}

function checkManagers(state: ReadonlyState): void {
  if (managersOf(state) >= MANAGERS_MAX)
    throw precondition(
      `the swarm has ${MANAGERS_MAX} managers, and more would only be slower: demote one first`,
    );
}

function managersOf(state: ReadonlyState): number {
  let count = 0;
  for (const { spec } of state.rows('node')) if (spec.role === 'manager') count++;
  return count;
}

/** What comes of a session that is not the node's latest says nothing of the node any more. */
function observe(state: ReadonlyState, command: CommandOf<'node_observe'>): Decision {
  const { observation, ifSession } = command;
  const node = nodeOf(state, command.nodeId);
  const latest = node.session?.number ?? 0;
  const late =
    (ifSession !== undefined && ifSession !== latest) ||
    (observation.session?.number ?? latest) < latest;
  return { id: node.id, changes: late ? [] : observed(state, node, observation, command.atMs) };
}

/** No change at all if nothing differs, so that a session that comes back costs no write. */
function observed(
  state: ReadonlyState,
  node: NodeObject,
  observation: NodeObservation,
  atMs: number,
): Change[] {
  const differs = Object.entries(observation).some(
    ([field, value]) => JSON.stringify(node[field as keyof NodeObject]) !== JSON.stringify(value),
  );
  if (!differs) return [];
  return [change(state, 'node', node.id, { ...touched(state, node, atMs), ...observation })];
}

/** The role that is certified, and the place in the raft group, follow the role that is wished. */
function settleRole(state: ReadonlyState, command: CommandOf<'node_role'>): Decision {
  const node = nodeOf(state, command.nodeId);
  const { manager: before, ...rest } = node;
  const same =
    node.observedRole === command.role &&
    JSON.stringify(before ?? null) === JSON.stringify(command.manager ?? null);
  if (same) return { id: node.id, changes: [] };
  const after: NodeObject = {
    ...touched(state, rest, command.atMs),
    observedRole: command.role,
    ...(command.manager !== undefined && { manager: command.manager }),
  };
  return { id: node.id, changes: [change(state, 'node', node.id, after)] };
}

function forgetStates(state: ReadonlyState, command: CommandOf<'nodes_forget_state'>): Decision {
  const observation = { state: 'unknown', stateMessage: command.stateMessage } as const;
  const changes = [...state.rows('node')]
    .filter((node) => node.state === 'ready' && node.id !== command.except)
    .flatMap((node) => observed(state, node, observation, command.atMs));
  return { id: command.except, changes };
}

/**
 * The node says itself that it goes: nothing of it is left on any network. Its tasks keep what was last
 * reported of them, as Docker shows it, and run elsewhere, since the node is down.
 */
function leave(state: ReadonlyState, command: CommandOf<'node_leave'>): Decision {
  const node = nodeOf(state, command.nodeId);
  const observation = { state: 'down', stateMessage: 'the node left the swarm' } as const;
  return {
    id: node.id,
    changes: [...releaseAll(state, node.id), ...observed(state, node, observation, command.atMs)],
  };
}

function remove(state: ReadonlyState, command: CommandOf<'node_remove'>): Decision {
  const node = nodeOf(state, command.nodeId);
  // Force passes over a demotion that the node, being gone, can take no notice of.
  if (node.spec.role === 'manager' || (node.manager !== undefined && !command.force))
    throw precondition(
      `node ${node.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
    );
  if (node.state !== 'down' && !command.force)
    throw refuse(
      { code: 'SWARM_NODE_NOT_DOWN', nodeId: node.id },
      `node ${node.id} is not down and can't be removed`,
    );
  return {
    id: node.id,
    changes: [
      ...releaseAll(state, node.id),
      ...orphaned(state, node.id, DELETED_TEXT, command.atMs),
      change(state, 'node', node.id, undefined),
      ...remember(state, command),
    ],
  };
}

/** Sorted, so that the history is the same on every manager. */
function releaseAll(state: ReadonlyState, node: NodeId): Change[] {
  const ids = [...state.attachmentsOf(node)].sort();
  return ids.map((id) => change(state, 'attachment', id, undefined));
}

/** Nobody will ever tell what became of them. */
function orphaned(state: ReadonlyState, node: NodeId, message: string, atMs: number): Change[] {
  const ids = [...state.tasksOnNode(node)].sort();
  return ids.flatMap((id) => {
    const task = state.row('task', id);
    if (task === undefined || isTerminal(task.status.state)) return [];
    const status = { ...task.status, state: 'orphaned', atMs, message } as const;
    return [change(state, 'task', id, { ...touched(state, task, atMs), status, endedAtMs: atMs })];
  });
}

/** The node's certificate is void until it would expire; what has expired is forgotten with it. */
function remember(state: ReadonlyState, command: CommandOf<'node_remove'>): Change[] {
  const { nodeId, atMs } = command;
  const expiresAtMs = command.certExpiresAtMs ?? atMs + clusterOf(state).spec.nodeCertExpiryMs;
  const held = [...state.rows('removed')].filter((one) => one.nodeId !== nodeId);
  const valid = held
    .filter((one) => one.expiresAtMs > atMs)
    .sort((a, b) => a.expiresAtMs - b.expiresAtMs || (a.nodeId < b.nodeId ? -1 : 1));
  const kept = new Set(valid.slice(-(REMOVED_NODES_MAX - 1)));
  return [
    ...held
      .filter((one) => !kept.has(one))
      .map((one) => change(state, 'removed', one.nodeId, undefined)),
    change(state, 'removed', nodeId, { nodeId, atMs, expiresAtMs }),
  ];
}

/** @throws SwarmError `SWARM_NOT_FOUND`. */
export function nodeOf(state: ReadonlyState, id: NodeId): NodeObject {
  const node = state.row('node', id);
  if (node === undefined)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'node', ref: id }, `node ${id} not found`);
  return node;
}
