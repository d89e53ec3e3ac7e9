import { DEFAULT_CLUSTER_CA } from '../../base/swarm-defaults.js';
import type { ClusterObject, ClusterSpec } from '../../base/swarm-model.js';
import type { LocalSwarm } from './records.js';
import { formatTimeMs, nanosecondsOf } from './time.js';

/** The cluster without its join tokens: what `docker info` carries. */
export function clusterInfoJson(cluster: ClusterObject) {
  const { spec } = cluster;
  return {
    ID: cluster.id,
    Version: { Index: cluster.version },
    CreatedAt: formatTimeMs(cluster.createdAtMs),
    UpdatedAt: formatTimeMs(cluster.updatedAtMs),
    Spec: {
      Name: spec.name,
      Labels: spec.labels,
      Orchestration: { TaskHistoryRetentionLimit: spec.taskHistoryRetentionLimit },
      Raft: {
        SnapshotInterval: spec.raft.snapshotInterval,
        KeepOldSnapshots: spec.raft.keepOldSnapshots,
        LogEntriesForSlowFollowers: spec.raft.logEntriesForSlowFollowers,
        ElectionTick: spec.raft.electionTick,
        HeartbeatTick: spec.raft.heartbeatTick,
      },
      Dispatcher: { HeartbeatPeriod: nanosecondsOf(spec.dispatcherHeartbeatMs) },
      CAConfig: caJson(spec),
      TaskDefaults: {},
      EncryptionConfig: { AutoLockManagers: spec.autolock },
    },
    TLSInfo: {
      TrustRoot: cluster.rootCaPem,
      CertIssuerSubject: cluster.certIssuerSubject,
      CertIssuerPublicKey: cluster.certIssuerPublicKey,
    },
    RootRotationInProgress: cluster.rootRotationInProgress,
    DefaultAddrPool: cluster.defaultAddressPool.length === 0 ? null : cluster.defaultAddressPool,
    SubnetSize: cluster.subnetSize,
    DataPathPort: cluster.dataPathPort,
  };
}

function caJson({ nodeCertExpiryMs, ca }: ClusterSpec) {
  const { forceRotate, externalCas } = ca ?? DEFAULT_CLUSTER_CA;
  return {
    NodeCertExpiry: nanosecondsOf(nodeCertExpiryMs),
    ...(externalCas.length > 0 && {
      ExternalCAs: externalCas.map(({ protocol, url, options, caCertPem }) => ({
        Protocol: protocol,
        URL: url,
        Options: options,
        CACert: caCertPem,
      })),
    }),
    ...(forceRotate > 0 && { ForceRotate: forceRotate }),
  };
}

/** `GET /swarm`. */
export function clusterJson(cluster: ClusterObject) {
  return {
    ...clusterInfoJson(cluster),
    JoinTokens: { Worker: cluster.joinTokens.worker, Manager: cluster.joinTokens.manager },
  };
}

const TWO_MANAGERS_WARNING = `WARNING: Running Swarm in a two-manager configuration. This configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.`;

export function swarmWarnings(local: LocalSwarm): readonly string[] {
  return local.controlAvailable && local.managers === 2 ? [TWO_MANAGERS_WARNING] : [];
}

/** The `Swarm` section of `GET /info`. */
export function localSwarmJson(local: LocalSwarm) {
  const warnings = swarmWarnings(local);
  return {
    NodeID: local.nodeId,
    NodeAddr: local.nodeAddress,
    LocalNodeState: local.state,
    ControlAvailable: local.controlAvailable,
    Error: local.error,
    RemoteManagers:
      local.remoteManagers.length === 0
        ? null
        : local.remoteManagers.map(({ nodeId, address }) => ({ NodeID: nodeId, Addr: address })),
    ...(local.nodes === undefined ? {} : { Nodes: local.nodes }),
    ...(local.managers === undefined ? {} : { Managers: local.managers }),
    ...(local.cluster === undefined ? {} : { Cluster: clusterInfoJson(local.cluster) }),
    ...(warnings.length === 0 ? {} : { Warnings: warnings }),
  };
}

/** Value of the `Swarm` header of a ping. */
export function swarmHeaderOf(local: LocalSwarm): string {
  if (local.state !== 'active') return local.state;
  return local.controlAvailable ? 'active/manager' : 'active/worker';
}
