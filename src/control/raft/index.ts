export type {
  FollowerStatus,
  LogIndex,
  Member,
  MemberChange,
  Membership,
  RaftId,
  RaftRole,
  RaftStatus,
  SnapshotMeta,
  Term,
} from './core/types.js';
export type { StateMachine } from './io/applier.js';
export { RaftError, type RaftErrorDetail } from './io/raft-error.js';
export {
  PROPOSAL_BYTES_MAX,
  RaftNode,
  type RaftNodeConfig,
  type RaftNodeStatus,
  type RaftPurpose,
} from './io/raft-node.js';
export type { RaftStorage, StorageStats } from './io/storage.js';
