/**
 * The control plane in its first form: one `Manager` holds the cluster's state on its disk; every
 * node, the manager's own included, has a `ManagerSession` to it.
 */
export { ControlError, type ControlErrorDetail } from './core/control-error.js';
export type { Logger } from './core/logger.js';
export type { ClusterFacts, MembershipState, NodeEntry, SessionEnd } from './dispatch/index.js';
export {
  JoinAttempt,
  type Joined,
  type JoinOptions,
  loadIdentity,
  type NodeIdentity,
} from './identity/index.js';
export { forgetSwarm } from './io/forget.js';
export {
  Manager,
  type ManagerCreation,
  type ManagerPlace,
  type ManagerStats,
} from './io/manager.js';
export {
  type Assignments,
  type AttachOptions,
  ManagerSession,
  type ManagerSessionConfig,
} from './io/manager-session.js';
export type { KeyedAttachment } from './wire/attachment.js';
export type { ControlAddress, NodeRegistration, NodeSelfDescription } from './wire/model.js';
