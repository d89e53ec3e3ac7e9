/**
 * What runs tasks: the contract, and the worker that does with it what managers want; the runtimes
 * themselves are in `host` and `engine`.
 */
export { chooseRuntime } from './core/choice.js';
export type {
  KnownTask,
  LogQuery,
  LogRecord,
  PreparedTask,
  RunningTask,
  Runtime,
  RuntimeDescription,
  RuntimeEvent,
  RuntimeTask,
} from './core/runtime.js';
export { RuntimeError, type RuntimeErrorDetail } from './core/runtime-error.js';
export { type ChecksReady, TaskChecks } from './core/task-checks.js';
export type { EndpointState, PublishedTask } from './core/task-input.js';
export {
  EngineRuntime,
  type EngineRuntimeConfig,
  partCreate,
  SHORT_ID_CHARS,
  type ShownPlace,
  shownInList,
  shownInspect,
  type UserContainer,
  UserContainers,
  type UserPort,
  userPorts,
} from './engine/index.js';
export { type HostRuntimeOptions, openHostRuntime } from './host/index.js';
export { type TaskNetworks, TaskWorker, WORKER_CONFIG } from './io/worker.js';
