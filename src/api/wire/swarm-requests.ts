import { z } from 'zod';
import { DEFAULT_CLUSTER_SPEC, DEFAULT_SUBNET_SIZE } from '../../base/swarm-defaults.js';
import type { ClusterSpec, NodeSpec } from '../../base/swarm-model.js';
import { badRequest } from './errors.js';
import {
  count,
  flag,
  isCidr,
  labels,
  listOf,
  objectOf,
  optionalCount,
  read,
  refuseUnsupported,
  text,
} from './fields.js';
import type { InitRequest, JoinRequest } from './records.js';
import { durationMsOf } from './time.js';

const DEFAULT_LISTEN_ADDRESS = '0.0.0.0:2377';
const DEFAULT_DATA_PATH_PORT = 4789;
const DATA_PATH_PORT_MIN = 1024;
const DATA_PATH_PORT_MAX = 49_151;

const availability = text.pipe(
  z
    .enum(['', 'active', 'pause', 'drain'], {
      error: (issue) => `invalid Availability: "${String(issue.input)}"`,
    })
    .transform((value) => (value === '' ? 'active' : value)),
);
const role = z.enum(['worker', 'manager'], {
  error: (issue) => `invalid Role: "${String(issue.input ?? '')}"`,
});

const clusterSpec = z.object({
  Name: text,
  Labels: labels,
  Orchestration: objectOf({ TaskHistoryRetentionLimit: optionalCount }),
  Raft: objectOf({
    SnapshotInterval: optionalCount,
    KeepOldSnapshots: optionalCount,
    LogEntriesForSlowFollowers: optionalCount,
    ElectionTick: optionalCount,
    HeartbeatTick: optionalCount,
  }),
  Dispatcher: objectOf({ HeartbeatPeriod: optionalCount }),
  CAConfig: objectOf({
    NodeCertExpiry: optionalCount,
    ForceRotate: optionalCount,
    ExternalCAs: listOf(z.unknown(), 64),
    SigningCACert: text,
    SigningCAKey: text,
  }),
  EncryptionConfig: objectOf({ AutoLockManagers: flag }),
});

/** What is absent or zero keeps its value in `base`: so does Docker merge a spec. */
function clusterSpecOf(body: z.output<typeof clusterSpec>, base: ClusterSpec): ClusterSpec {
  const { Raft: raft, Orchestration: orchestration, CAConfig: ca, Dispatcher: dispatcher } = body;
  refuseUnsupported(
    (ca?.ExternalCAs.length ?? 0) > 0,
    'shoal keeps its own CA: external CAs are not supported',
  );
  refuseUnsupported(
    (ca?.SigningCACert ?? '') !== '' || (ca?.SigningCAKey ?? '') !== '',
    'shoal makes its own CA: a given CA certificate or key is not supported',
  );
  const period = dispatcher?.HeartbeatPeriod;
  const expiry = ca?.NodeCertExpiry;
  return {
    name: body.Name === '' ? base.name : body.Name,
    labels: body.Labels,
    taskHistoryRetentionLimit:
      orchestration?.TaskHistoryRetentionLimit ?? base.taskHistoryRetentionLimit,
    raft: {
      snapshotInterval: raft?.SnapshotInterval || base.raft.snapshotInterval,
      keepOldSnapshots: raft?.KeepOldSnapshots ?? base.raft.keepOldSnapshots,
      logEntriesForSlowFollowers:
        raft?.LogEntriesForSlowFollowers ?? base.raft.logEntriesForSlowFollowers,
      electionTick: raft?.ElectionTick || base.raft.electionTick,
      heartbeatTick: raft?.HeartbeatTick || base.raft.heartbeatTick,
    },
    dispatcherHeartbeatMs: period ? durationMsOf(period) : base.dispatcherHeartbeatMs,
    nodeCertExpiryMs: expiry ? durationMsOf(expiry) : base.nodeCertExpiryMs,
    autolock: body.EncryptionConfig?.AutoLockManagers ?? base.autolock,
  };
}

const initBody = z.object({
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  DataPathPort: count
    .nullish()
    .transform((value) => value ?? 0)
    .refine(
      (port) => port === 0 || (port >= DATA_PATH_PORT_MIN && port <= DATA_PATH_PORT_MAX),
      `expected a port from ${DATA_PATH_PORT_MIN} to ${DATA_PATH_PORT_MAX}`,
    ),
  DefaultAddrPool: listOf(
    z.string().refine(isCidr, 'expected an address block in CIDR notation'),
    64,
  ),
  SubnetSize: count
    .nullish()
    .transform((value) => value ?? 0)
    .refine((size) => size <= 128, 'expected a prefix length'),
  ForceNewCluster: flag,
  AutoLockManagers: flag,
  Availability: availability,
  Spec: clusterSpec.nullish(),
});

export function readInit(body: unknown): InitRequest {
  const init = read(initBody, body);
  const spec =
    init.Spec == null ? DEFAULT_CLUSTER_SPEC : clusterSpecOf(init.Spec, DEFAULT_CLUSTER_SPEC);
  return {
    listenAddress: init.ListenAddr || DEFAULT_LISTEN_ADDRESS,
    advertiseAddress: init.AdvertiseAddr,
    dataPathAddress: init.DataPathAddr,
    dataPathPort: init.DataPathPort || DEFAULT_DATA_PATH_PORT,
    defaultAddressPool: init.DefaultAddrPool,
    subnetSize: init.SubnetSize || DEFAULT_SUBNET_SIZE,
    forceNewCluster: init.ForceNewCluster,
    autolock: init.AutoLockManagers || spec.autolock,
    availability: init.Availability,
    spec: { ...spec, autolock: init.AutoLockManagers || spec.autolock },
  };
}

const joinBody = z.object({
  ListenAddr: text,
  AdvertiseAddr: text,
  DataPathAddr: text,
  RemoteAddrs: listOf(z.string(), 64),
  JoinToken: text,
  Availability: availability,
});

export function readJoin(body: unknown): JoinRequest {
  const join = read(joinBody, body);
  if (join.RemoteAddrs.length === 0) {
    throw badRequest('at least 1 RemoteAddr is required to join');
  }
  return {
    listenAddress: join.ListenAddr || DEFAULT_LISTEN_ADDRESS,
    advertiseAddress: join.AdvertiseAddr,
    dataPathAddress: join.DataPathAddr,
    remoteAddresses: join.RemoteAddrs,
    joinToken: join.JoinToken,
    availability: join.Availability,
  };
}

/** `rootCa`: `docker swarm ca --rotate` raises a counter which Shoal always shows as zero. */
export function readClusterSpec(
  body: unknown,
  base: ClusterSpec,
): { readonly spec: ClusterSpec; readonly rootCa: boolean } {
  const wire = read(clusterSpec, body);
  return { spec: clusterSpecOf(wire, base), rootCa: (wire.CAConfig?.ForceRotate ?? 0) > 0 };
}

const nodeSpecBody = z.object({
  Name: text,
  Labels: labels,
  Role: role,
  Availability: availability,
});

export function readNodeSpec(body: unknown): NodeSpec {
  const spec = read(nodeSpecBody, body);
  return {
    name: spec.Name,
    labels: spec.Labels,
    role: spec.Role,
    availability: spec.Availability,
  };
}
