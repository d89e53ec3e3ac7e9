import { assert, unreachable } from '../../../base/assert.js';
import type { ClusterObject, ClusterSpec } from '../../../base/swarm-model.js';
import type { GossipKeyText } from '../../wire/gossip-key.js';
import {
  type CommandOf,
  change,
  checkVersion,
  clusterOf,
  type Decision,
  newMeta,
  secretsOf,
  touched,
} from './decision.js';
import { invalid, unsupported } from './refuse.js';
import type { ClusterSecrets } from './rows.js';
import { type Change, ONLY_ROW, type ReadonlyState } from './state.js';
import { checkDefaultPools } from './subnets.js';

const CERT_EXPIRY_MIN_MS = 3_600_000;
const HEARTBEAT_MAX_MS = 3_600_000;
/** Every manager and every reader of `docker info` gets the spec, so it may not be huge. */
const SPEC_CHARS_MAX = 65_536;

type ClusterCommand = CommandOf<
  | 'cluster_create'
  | 'cluster_update'
  | 'ca_rotation_start'
  | 'ca_rotation_finish'
  | 'gossip_keys_rotate'
>;

export function decideCluster(state: ReadonlyState, command: ClusterCommand): Decision {
  switch (command.kind) {
    case 'cluster_create':
      return create(state, command);
    case 'cluster_update':
      return update(state, command);
    case 'ca_rotation_start':
    case 'ca_rotation_finish':
      return changeCa(state, command);
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
  checkVersion(cluster, command.version);
  checkClusterSpec(command.spec);
  const after: ClusterObject = {
    ...touched(state, cluster, command.atMs),
    spec: command.spec,
    joinTokens: { ...cluster.joinTokens, ...command.joinTokens },
  };
  return {
    id: cluster.id,
    changes: [change(state, 'cluster', ONLY_ROW, after), ...changeLock(state, command)],
  };
}

/** There is a key if and only if autolock is on. */
function changeLock(state: ReadonlyState, command: CommandOf<'cluster_update'>): Change[] {
  const { unlockKey: present, ...secrets } = secretsOf(state);
  const wanted = command.spec.autolock ? (command.unlockKey ?? present) : undefined;
  if (command.spec.autolock && wanted === undefined)
    throw invalid('autolock cannot be turned on without a key');
  if (wanted === present) return [];
  const after: ClusterSecrets = wanted === undefined ? secrets : { ...secrets, unlockKey: wanted };
  return [change(state, 'secrets', ONLY_ROW, after)];
}

/** Versioned where it ends: another change of the root may have begun in the meantime. */
function changeCa(
  state: ReadonlyState,
  command: CommandOf<'ca_rotation_start' | 'ca_rotation_finish'>,
): Decision {
  const cluster = clusterOf(state);
  if (command.kind === 'ca_rotation_finish') checkVersion(cluster, command.version);
  const { rootCaPem, certIssuerSubject, certIssuerPublicKey, rootRotationInProgress } =
    command.trust;
  const after: ClusterObject = {
    ...touched(state, cluster, command.atMs),
    rootCaPem,
    certIssuerSubject,
    certIssuerPublicKey,
    rootRotationInProgress,
    ...(command.kind === 'ca_rotation_finish' && { joinTokens: command.joinTokens }),
  };
  return {
    id: cluster.id,
    changes: [
      change(state, 'cluster', ONLY_ROW, after),
      change(state, 'secrets', ONLY_ROW, { ...secretsOf(state), ca: command.ca }),
    ],
  };
}

/** @throws SwarmError `SWARM_INVALID` or `SWARM_UNSUPPORTED`, with one sentence. */
export function checkClusterSpec(spec: ClusterSpec): void {
  if (JSON.stringify(spec).length > SPEC_CHARS_MAX)
    throw invalid('the settings of the swarm are too large: use fewer or shorter labels');
  if (!(spec.dispatcherHeartbeatMs > 0))
    throw invalid('heartbeat time period cannot be a negative duration');
  if (spec.dispatcherHeartbeatMs > HEARTBEAT_MAX_MS)
    throw invalid('the heartbeat period is too long: use one hour or less');
  if (!(spec.nodeCertExpiryMs >= CERT_EXPIRY_MIN_MS))
    throw invalid('minimum certificate expiry time must be: 1h0m0s');
  if ((spec.ca?.externalCas.length ?? 0) > 0)
    throw unsupported('certificates by an external CA are not supported: leave it out');
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
