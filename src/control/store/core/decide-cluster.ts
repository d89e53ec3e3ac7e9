import { assert, unreachable } from '../../../base/assert.js';
import type { ClusterSpec } from '../../../base/swarm-model.js';
import type { GossipKeyText } from '../../wire/gossip-key.js';
import {
  type CommandOf,
  change,
  clusterOf,
  type Decision,
  newMeta,
  secretsOf,
  touched,
} from './decision.js';
import { invalid, refuse, unsupported } from './refuse.js';
import { ONLY_ROW, type ReadonlyState } from './state.js';
import { checkDefaultPools } from './subnets.js';

const CERT_EXPIRY_MIN_MS = 3_600_000;
const HEARTBEAT_MAX_MS = 3_600_000;

type ClusterCommand = CommandOf<'cluster_create' | 'cluster_update' | 'gossip_keys_rotate'>;

export function decideCluster(state: ReadonlyState, command: ClusterCommand): Decision {
  switch (command.kind) {
    case 'cluster_create':
      return create(state, command);
    case 'cluster_update':
      return update(state, command);
    case 'gossip_keys_rotate':
      return rotate(state, command);
    default:
      return unreachable(command);
  }
}

function create(state: ReadonlyState, command: CommandOf<'cluster_create'>): Decision {
  assert(state.row('cluster', ONLY_ROW) === undefined, 'a store holds one cluster');
  checkClusterSpec(command.cluster.spec);
  checkDefaultPools(command.cluster.defaultAddressPool, command.cluster.subnetSize);
  const cluster = { ...command.cluster, ...newMeta(state, command.atMs) };
  return {
    id: cluster.id,
    changes: [
      change(state, 'cluster', ONLY_ROW, cluster),
      change(state, 'secrets', ONLY_ROW, command.secrets),
    ],
  };
}

function update(state: ReadonlyState, command: CommandOf<'cluster_update'>): Decision {
  const cluster = clusterOf(state);
  if (command.version !== cluster.version)
    throw refuse({ code: 'SWARM_OUT_OF_SEQUENCE' }, 'update out of sequence');
  checkClusterSpec(command.spec);
  const after = {
    ...touched(state, cluster, command.atMs),
    spec: command.spec,
    joinTokens: { ...cluster.joinTokens, ...command.joinTokens },
  };
  return { id: cluster.id, changes: [change(state, 'cluster', ONLY_ROW, after)] };
}

/** @throws SwarmError `SWARM_INVALID` or `SWARM_UNSUPPORTED`, with one sentence. */
export function checkClusterSpec(spec: ClusterSpec): void {
  if (!(spec.dispatcherHeartbeatMs > 0))
    throw invalid('heartbeat time period cannot be a negative duration');
  if (spec.dispatcherHeartbeatMs > HEARTBEAT_MAX_MS)
    throw invalid('the heartbeat period is too long: use one hour or less');
  if (!(spec.nodeCertExpiryMs >= CERT_EXPIRY_MIN_MS))
    throw invalid('minimum certificate expiry time must be: 1h0m0s');
  if (spec.autolock) throw unsupported('autolock is not supported yet: leave it off');
}

/**
 * Three keys are kept: the one that seals, the one before it, and the one announced for next time.
 * After a whole period nobody can lack the announced one, so then it may seal.
 */
function rotate(state: ReadonlyState, command: CommandOf<'gossip_keys_rotate'>): Decision {
  const secrets = secretsOf(state);
  const announced = secrets.gossipKeys.at(-1);
  const sealing = secrets.gossipKeys[0];
  assert(announced !== undefined && sealing !== undefined, 'there is always a key');
  const next: GossipKeyText = { id: (announced.id + 1) % 256, secret: command.secret };
  const gossipKeys = announced === sealing ? [sealing, next] : [announced, sealing, next];
  const after = { ...secrets, gossipKeys, gossipKeysRotatedAtMs: command.atMs };
  return { id: ONLY_ROW, changes: [change(state, 'secrets', ONLY_ROW, after)] };
}
