/** What runs tasks: the contract; the runtimes themselves are in `host` and `engine`. */
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
export { EngineRuntime, type EngineRuntimeConfig } from './engine/index.js';
export { type HostRuntimeOptions, openHostRuntime } from './host/index.js';
