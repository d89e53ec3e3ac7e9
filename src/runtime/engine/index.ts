export { EngineRuntime, type EngineRuntimeConfig } from './io/engine-runtime.js';
export {
  type UserContainer,
  UserContainers,
} from './io/user-containers.js';
export {
  partCreate,
  SHORT_ID_CHARS,
  type ShownPlace,
  shownInList,
  shownInspect,
  type UserPort,
  userPorts,
} from './wire/user-container.js';
