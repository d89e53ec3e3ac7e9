/** The cluster's objects: changed by commands only, the same on every manager. */
export type {
  ClusterTrust,
  Command,
  CommandBody,
  CommandKind,
  NewTask,
  NodeObservation,
  Transaction,
} from './core/command.js';
export { isCommand } from './core/command.js';
export { checkClusterSpec } from './core/decide-cluster.js';
export { lackingIngress } from './core/decide-ingress.js';
export { networkOf } from './core/decide-network.js';
export { isNews } from './core/decide-task.js';
export type { HistoryEntry, HistoryObjectKind } from './core/history.js';
export {
  type ChangeListener,
  type CommandResult,
  encodeBatch,
  inspectSnapshot,
  type MachineEntry,
  type SnapshotSummary,
  StoreMachine,
  type StoreMachineConfig,
  type StoreMachineStats,
} from './core/machine.js';
export type {
  ClusterSecrets,
  RemovedNode,
  SecretRow,
  TableName,
} from './core/rows.js';
export { type Change, ONLY_ROW, type ReadonlyState } from './core/state.js';
export { checkDefaultPools } from './core/subnets.js';
export type { BatchItem } from './wire/batch.js';
