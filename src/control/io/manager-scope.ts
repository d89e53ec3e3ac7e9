import { assert } from '../../base/assert.js';
import type { ClusterId, ClusterObject, NodeId } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import { type CaState, type NodeIdentity, parseCaState } from '../identity/index.js';
import { type ClusterSecrets, type CommandBody, ONLY_ROW } from '../store/index.js';
import type { LeaderClient } from './leader-client.js';
import type { Replica } from './replica.js';

/** What the parts of a manager share. */
export interface ManagerScope {
  readonly log: Logger;
  readonly self: NodeId;
  readonly clusterId: ClusterId;
  readonly replica: Replica;
  readonly leader: LeaderClient;
  /** Milliseconds since the Unix epoch. */
  readonly now: () => number;
  /** As renewed last. */
  readonly identity: () => NodeIdentity;
  /** Answers when the command holds, here too. */
  readonly propose: (body: CommandBody) => Promise<{ readonly id: string }>;
}

/** Raised above what an agent has seen when a swarm is made anew; see `AssignmentsSource.era`. */
export function clusterOf({ replica }: Pick<ManagerScope, 'replica'>): ClusterObject {
  const cluster = replica.state.row('cluster', ONLY_ROW);
  assert(cluster !== undefined, 'a manager has a cluster');
  return cluster;
}

export function secretsOf({ replica }: Pick<ManagerScope, 'replica'>): ClusterSecrets {
  const secrets = replica.state.row('secrets', ONLY_ROW);
  assert(secrets !== undefined, 'a manager has the secrets of the cluster');
  return secrets;
}

export function caOf(scope: Pick<ManagerScope, 'replica'>): CaState {
  const state = parseCaState(secretsOf(scope).ca);
  assert(state !== undefined, 'the state of the CA is its own');
  return state;
}
