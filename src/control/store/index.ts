/** The cluster's objects: changed by commands only, durable before anyone hears of a change. */
export type { Command, CommandBody, NodeObservation } from './core/command.js';
export { checkClusterSpec } from './core/decide-cluster.js';
export { networkOf } from './core/decide-network.js';
export {
  type Change,
  type ClusterSecrets,
  ONLY_ROW,
  type ReadonlyState,
} from './core/state.js';
export { checkDefaultPools } from './core/subnets.js';
export { Store, type StoreConfig } from './io/store.js';
