export { type HostRuntimeOptions, openHostRuntime } from './io/host-runtime.js';
