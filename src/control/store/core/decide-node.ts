import { unreachable } from '../../../base/assert.js';
import type { NodeId, NodeObject, NodeSpec } from '../../../base/swarm-model.js';
import type { NodeObservation } from './command.js';
import { type CommandOf, change, type Decision, newMeta, touched } from './decision.js';
import { invalid, refuse, unsupported } from './refuse.js';
import type { Change, ReadonlyState } from './state.js';

/** Nodes of one swarm, dead ones included. */
export const NODES_MAX = 16_384;

type NodeCommand = CommandOf<
  | 'node_create'
  | 'node_update'
  | 'node_observe'
  | 'nodes_forget_state'
  | 'node_leave'
  | 'node_remove'
>;

export function decideNode(state: ReadonlyState, command: NodeCommand): Decision {
  switch (command.kind) {
    case 'node_create':
      return create(state, command);
    case 'node_update':
      return update(state, command);
    case 'node_observe':
      return {
        id: command.nodeId,
        changes: observed(state, nodeOf(state, command.nodeId), command.observation, command.atMs),
      };
    case 'nodes_forget_state':
      return forgetStates(state, command);
    case 'node_leave':
      return leave(state, command);
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
  const node = { ...command.node, ...newMeta(state, command.atMs) };
  return { id: node.id, changes: [change(state, 'node', node.id, node)] };
}

function update(state: ReadonlyState, command: CommandOf<'node_update'>): Decision {
  const node = nodeOf(state, command.nodeId);
  if (command.version !== node.version)
    throw refuse({ code: 'SWARM_OUT_OF_SEQUENCE' }, 'update out of sequence');
  checkRole(state, node, command.spec);
  const after = { ...touched(state, node, command.atMs), spec: command.spec };
  return { id: node.id, changes: [change(state, 'node', node.id, after)] };
}

function checkRole(state: ReadonlyState, node: NodeObject, spec: NodeSpec): void {
  if (spec.role === node.spec.role) return;
  const managers = [...state.rows('node')].filter((other) => other.spec.role === 'manager');
  if (spec.role === 'worker' && managers.length <= 1)
    throw invalid('attempting to demote the last manager of the swarm');
  throw unsupported(
    'this swarm keeps its state on one manager for now: the role of a node cannot be changed',
  );
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

function forgetStates(state: ReadonlyState, command: CommandOf<'nodes_forget_state'>): Decision {
  const observation = { state: 'unknown', stateMessage: command.stateMessage } as const;
  const changes = [...state.rows('node')]
    .filter((node) => node.state === 'ready' && node.id !== command.except)
    .flatMap((node) => observed(state, node, observation, command.atMs));
  return { id: command.except, changes };
}

/** The node says itself that it goes: nothing of it is left on any network. */
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
  if (node.spec.role === 'manager')
    throw invalid(
      `node ${node.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal`,
    );
  if (node.state !== 'down' && !command.force)
    throw refuse(
      { code: 'SWARM_NODE_NOT_DOWN', nodeId: node.id },
      `node ${node.id} is not down and can't be removed`,
    );
  return {
    id: node.id,
    changes: [...releaseAll(state, node.id), change(state, 'node', node.id, undefined)],
  };
}

function releaseAll(state: ReadonlyState, node: NodeId): Change[] {
  return [...state.attachmentsOf(node)].map((id) => change(state, 'attachment', id, undefined));
}

/** @throws SwarmError `SWARM_NOT_FOUND`. */
export function nodeOf(state: ReadonlyState, id: NodeId): NodeObject {
  const node = state.row('node', id);
  if (node === undefined)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'node', ref: id }, `node ${id} not found`);
  return node;
}
