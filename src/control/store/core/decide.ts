import { unreachable } from '../../../base/assert.js';
import type { Command } from './command.js';
import { decideCluster } from './decide-cluster.js';
import { decideAttachment, decideNetwork } from './decide-network.js';
import { decideNode } from './decide-node.js';
import type { Decision } from './decision.js';
import type { Change, ReadonlyState, State } from './state.js';

/**
 * What a command changes in a state: a pure function, which changes nothing itself.
 *
 * @throws SwarmError the refusal; the state is as it was.
 */
export function decide(state: ReadonlyState, command: Command): Decision {
  switch (command.kind) {
    case 'cluster_create':
    case 'cluster_update':
    case 'gossip_keys_rotate':
      return decideCluster(state, command);
    case 'node_create':
    case 'node_update':
    case 'node_observe':
    case 'nodes_forget_state':
    case 'node_leave':
    case 'node_remove':
      return decideNode(state, command);
    case 'network_create':
    case 'network_remove':
      return decideNetwork(state, command);
    case 'attachment_create':
    case 'attachment_remove':
      return decideAttachment(state, command);
    default:
      return unreachable(command);
  }
}

/** Decides and commits: the reducer, as journal replay and a replicated log use it. */
export function apply(state: State, command: Command): readonly Change[] {
  const { changes } = decide(state, command);
  state.commit(changes);
  return changes;
}
