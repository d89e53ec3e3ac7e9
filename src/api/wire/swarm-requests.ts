import { z } from 'zod';
import { DEFAULT_CLUSTER_SPEC, DEFAULT_SUBNET_SIZE } from '../../base/swarm-defaults.js';
import type { ClusterSpec, ExternalCa, NodeSpec } from '../../base/swarm-model.js';
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
  text,
} from './fields.js';
import type { InitRequest, JoinRequest, Rotation } from './records.js';
import { durationMsOf } from './time.js';

const DEFAULT_LISTEN_ADDRESS = '0.0.0.0:2377';
const DEFAULT_DATA_PATH_PORT = 4789;
const DATA_PATH_PORT_MIN = 1024;
const DATA_PATH_PORT_MAX = 49_151;
const EXTERNAL_CAS_MAX = 64;

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

const externalCa = z.object({ Protocol: text, URL: text, Options: labels, CACert: text }).transform(
  (ca): ExternalCa => ({
    protocol: ca.Protocol === '' ? 'cfssl' : ca.Protocol,
    url: ca.URL,
    options: ca.Options,
    caCertPem: ca.CACert,
  }),
);

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
    ExternalCAs: listOf(externalCa, EXTERNAL_CAS_MAX),
    SigningCACert: text,
    SigningCAKey: text,
  }),
  EncryptionConfig: objectOf({ AutoLockManagers: flag }),
});

/** What is absent or zero keeps its value in `base`: so does Docker merge a spec. */
function clusterSpecOf(body: z.output<typeof clusterSpec>, base: ClusterSpec): ClusterSpec {
  const { Raft: raft, Orchestration: orchestration, CAConfig: ca, Dispatcher: dispatcher } = body;
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
    ca: {
      forceRotate: ca?.ForceRotate ?? base.ca?.forceRotate ?? 0,
      externalCas: ca?.ExternalCAs ?? base.ca?.externalCas ?? [],
    },
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

/**
 * `root`: `docker swarm ca --rotate` raises a counter, or brings a root along. Its key is no part of
 * the spec, which everyone may read.
 */
export function readClusterSpec(
  body: unknown,
  base: ClusterSpec,
): { readonly spec: ClusterSpec; readonly root: Pick<Rotation, 'rootCa' | 'givenRoot'> } {
  const wire = read(clusterSpec, body);
  const spec = clusterSpecOf(wire, base);
  const { SigningCACert: certPem = '', SigningCAKey: keyPem = '' } = wire.CAConfig ?? {};
  if (certPem === '' && keyPem !== '')
    throw badRequest('if a signing CA key is provided, the signing CA cert must also be provided');
  const isRaised = (spec.ca?.forceRotate ?? 0) !== (base.ca?.forceRotate ?? 0);
  if (certPem === '') return { spec, root: { rootCa: isRaised } };
  const givenRoot = { certPem, ...(keyPem !== '' && { keyPem }) };
  return { spec, root: { rootCa: true, givenRoot } };
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
