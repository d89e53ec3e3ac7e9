/**
 * The control plane: up to a handful of managers hold the same state by raft; every node, the
 * managers' own included, has a `ManagerSession` to one of them.
 */
export { ControlError, type ControlErrorDetail } from './core/control-error.js';
export type { Logger } from './core/logger.js';
export type { ClusterFacts, MembershipState, NodeEntry, SessionEnd } from './dispatch/index.js';
export {
  type ApiCertificate,
  type ApiCertificateRequest,
  type GivenRoot,
  JoinAttempt,
  type Joined,
  type JoinOptions,
  loadIdentity,
  type NodeIdentity,
  saveIdentity,
} from './identity/index.js';
export { forgetSwarm } from './io/forget.js';
export { type BlobChange, type ClusterChange, Manager, type ManagerStats } from './io/manager.js';
export {
  loadedBy,
  openVault,
  readMember,
  removeState,
  removeVault,
  savedBy,
} from './io/manager-disk.js';
export type { ManagerHolds, ManagerPlace } from './io/manager-group.js';
export {
  createManager,
  joinManagers,
  type ManagerCreation,
  openManager,
} from './io/manager-open.js';
export {
  type Assignments,
  type AttachOptions,
  ManagerSession,
  type ManagerSessionConfig,
  type TaskBlob,
} from './io/manager-session.js';
export {
  describeSnapshot,
  forceNewGroup,
  identityOf,
  parseSnapshotFile,
  restoreGroup,
  saveSnapshotFile,
  settleRecovered,
} from './io/recovery.js';
export { RaftStorageError, Vault } from './raft/index.js';
export type { Change as StoreChange } from './store/index.js';
export type { KeyedAttachment } from './wire/attachment.js';
export type { ControlAddress, NodeRegistration, NodeSelfDescription } from './wire/model.js';
export { CLIENT_NAME } from './wire/protocol.js';
export type { AssignedTask, TaskReport } from './wire/task-model.js';
