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
export { RaftStorageError } from './core/wal-error.js';
export type { StateMachine } from './io/applier.js';
export { RaftError, type RaftErrorDetail } from './io/raft-error.js';
export { PROPOSAL_BYTES_MAX, RaftNode } from './io/raft-node.js';
export type { RaftNodeConfig, RaftNodeStatus, RaftPurpose } from './io/raft-node-config.js';
export { type LogEnd, logEndOf, seedMembership } from './io/seed.js';
export type { RaftStorage, StorageStats } from './io/storage.js';
export { generateUnlockKey, Vault } from './io/vault.js';
export { type DiskStorage, openRaftStorage } from './io/wal-storage.js';
