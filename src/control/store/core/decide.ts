import { unreachable } from '../../../base/assert.js';
import type { Command, SingleCommand } from './command.js';
import { decideBlob } from './decide-blob.js';
import { decideCluster } from './decide-cluster.js';
import { decideIngress } from './decide-ingress.js';
import { decideAttachment, decideNetwork } from './decide-network.js';
import { decideNode } from './decide-node.js';
import { decideService } from './decide-service.js';
import { decideTask } from './decide-task.js';
import type { Decision } from './decision.js';
import { invalid } from './refuse.js';
import type { ReadonlyState, State } from './state.js';

/** Commands of one transaction. */
const TRANSACTION_COMMANDS_MAX = 1_024;

/**
 * What a command changes in a state: a pure function, which changes nothing itself.
 *
 * @throws SwarmError the refusal; the state is as it was.
 */
export function decide(state: ReadonlyState, command: SingleCommand): Decision {
  switch (command.kind) {
    case 'cluster_create':
    case 'cluster_update':
    case 'ca_rotation_start':
    case 'ca_rotation_finish':
    case 'gossip_keys_rotate':
      return decideCluster(state, command);
    case 'node_create':
    case 'node_update':
    case 'node_observe':
    case 'nodes_forget_state':
    case 'node_leave':
    case 'node_role':
    case 'node_remove':
      return decideNode(state, command);
    case 'network_create':
    case 'network_remove':
      return decideNetwork(state, command);
    case 'ingress_create':
    case 'ingress_attach':
      return decideIngress(state, command);
    case 'attachment_create':
    case 'attachment_remove':
      return decideAttachment(state, command);
    case 'secret_create':
    case 'secret_update':
    case 'secret_remove':
    case 'config_create':
    case 'config_update':
    case 'config_remove':
      return decideBlob(state, command);
    case 'service_create':
    case 'service_update':
    case 'service_remove':
    case 'service_purge':
    case 'service_status':
    case 'service_rollback':
      return decideService(state, command);
    case 'task_create':
    case 'task_assign':
    case 'task_desired':
    case 'task_status':
    case 'task_remove':
      return decideTask(state, command);
    default:
      return unreachable(command);
  }
}

/** What a command did, or one part of a transaction. */
export interface Applied extends Decision {
  readonly command: SingleCommand;
  /** Of the state, afterwards. */
  readonly version: number;
}

/**
 * Decides and commits: the reducer of a replicated log.
 *
 * @throws SwarmError the refusal, of a transaction that of its first part which is refused; the
 *   state is as it was.
 */
export function apply(state: State, command: Command): readonly Applied[] {
  const commands = command.kind === 'transaction' ? partsOf(command) : [command];
  const done: Applied[] = [];
  try {
    for (const one of commands) {
      const decision = decide(state, one);
      state.commit(decision.changes);
      done.push({ ...decision, command: one, version: state.version });
    }
  } catch (error) {
    for (const { changes } of done.toReversed()) state.revert(changes);
    throw error;
  }
  return done;
}

function partsOf(command: Extract<Command, { kind: 'transaction' }>): readonly SingleCommand[] {
  const { commands, kind: _, ...given } = command;
  if (commands.length > TRANSACTION_COMMANDS_MAX)
    throw invalid(`a transaction has at most ${TRANSACTION_COMMANDS_MAX} commands`);
  return commands.map((body) => ({ ...body, ...given }));
}
