import type { ClusterCaSpec, ClusterSpec } from './swarm-model.js';

/** The swarm's own CA, as it was made. */
export const DEFAULT_CLUSTER_CA: ClusterCaSpec = { forceRotate: 0, externalCas: [] };

/** Settings of a new swarm where the user names none: Docker's own. */
export const DEFAULT_CLUSTER_SPEC: ClusterSpec = {
  name: 'default',
  labels: {},
  taskHistoryRetentionLimit: 5,
  raft: {
    snapshotInterval: 10_000,
    keepOldSnapshots: 0,
    logEntriesForSlowFollowers: 500,
    electionTick: 10,
    heartbeatTick: 1,
  },
  dispatcherHeartbeatMs: 5_000,
  nodeCertExpiryMs: 90 * 86_400_000,
  ca: DEFAULT_CLUSTER_CA,
  autolock: false,
};

/** Prefix length of the subnets that are cut from the default address pool. */
export const DEFAULT_SUBNET_SIZE = 24;
