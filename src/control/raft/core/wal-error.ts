import { AgentError } from '../../../base/error.js';

/** Why the log, the snapshots or the keys of a manager cannot be used. */
export type RaftStorageErrorDetail =
  /** Not retryable: what was acknowledged is damaged. The others have it: join anew; or restore a copy. */
  | { readonly code: 'RAFT_STORAGE_CORRUPT'; readonly file: string; readonly offsetBytes: number }
  /** Not retryable: a newer version has written the file. */
  | { readonly code: 'RAFT_STORAGE_SCHEMA'; readonly file: string; readonly version: number }
  /** The swarm is locked: unlock with the key that the operator has. */
  | { readonly code: 'RAFT_STORAGE_LOCKED'; readonly file: string }
  /** The key does not open the file: a wrong unlock key, or the keys of another manager. */
  | { readonly code: 'RAFT_STORAGE_KEY'; readonly file: string }
  /** The disk is full: nothing was changed; free some space, then try again. */
  | { readonly code: 'RAFT_STORAGE_FULL'; readonly file: string };

export class RaftStorageError extends AgentError<RaftStorageErrorDetail> {}

export function corrupt(file: string, offsetBytes: number, what: string): RaftStorageError {
  return new RaftStorageError(
    { code: 'RAFT_STORAGE_CORRUPT', file, offsetBytes },
    `${what} in ${file} at byte ${offsetBytes}; if other managers are left, remove this one from the swarm and let it join again, else restore its data folder from a copy`,
  );
}

export function newerSchema(file: string, version: number): RaftStorageError {
  return new RaftStorageError(
    { code: 'RAFT_STORAGE_SCHEMA', file, version },
    `${file} has format version ${version}, which a newer shoal has written; start that version again`,
  );
}

export function locked(file: string): RaftStorageError {
  return new RaftStorageError(
    { code: 'RAFT_STORAGE_LOCKED', file },
    'the swarm is encrypted and needs to be unlocked before it can be used; run "docker swarm unlock" with the unlock key',
  );
}

export function wrongKey(file: string, what: string): RaftStorageError {
  return new RaftStorageError({ code: 'RAFT_STORAGE_KEY', file }, what);
}

export function diskFull(file: string, cause?: unknown): RaftStorageError {
  return new RaftStorageError(
    { code: 'RAFT_STORAGE_FULL', file },
    `no space is left on the disk for ${file}; free some, then try again`,
    { cause },
  );
}
