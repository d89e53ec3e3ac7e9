export { EngineRuntime, type EngineRuntimeConfig } from './io/engine-runtime.js';
