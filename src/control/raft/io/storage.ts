import type { HardState, LogEntry, LogIndex, RaftRestart, SnapshotMeta } from '../core/types.js';

/** What one flush makes durable; see `RaftPersist`. All of a write survives a crash, or nothing does. */
export interface StorageWrite {
  /** Contiguous; they begin at most one after the last entry that was written (or after `reset`). */
  readonly entries: readonly LogEntry[];
  readonly reset: SnapshotMeta | undefined;
  /** Its `commitIndex` is at most the last index that the log has with this write. */
  readonly hardState: HardState | undefined;
}

/** `full`: nothing of the write (or of any queued after it) is on disk, and writing may be tried again later. */
export type StorageFailure =
  | { readonly kind: 'full' }
  | { readonly kind: 'failed'; readonly error: Error };

/**
 * The disk of one member: its log, its hard state, its snapshots. Write-ahead: nothing is acknowledged
 * before `durable` is called for it.
 */
export interface RaftStorage {
  /** What was found at `open`, repaired where only the torn tail of an unacknowledged write was bad. */
  readonly restart: RaftRestart;
  /**
   * Queues a write. Writes become durable in order; those that wait share one flush. `durable` is called once,
   * in order, never before `write` has returned. After `failed` the process must end: what the disk holds is
   * not known (fsync is never retried).
   */
  write(write: StorageWrite, durable: (failure?: StorageFailure) => void): void;
  /**
   * Makes a snapshot of the own state machine durable, atomically; older ones are dropped beyond `keep`.
   * @throws RaftStorageError RAFT_STORAGE_FULL: nothing was changed.
   */
  saveSnapshot(
    meta: SnapshotMeta,
    data: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void>;
  /** The latest snapshot, opened for reading; undefined: there is none yet. */
  openSnapshot(): Promise<SnapshotReader | undefined>;
  /**
   * Begins, or goes on with, receiving a snapshot of a leader. One at a time: an earlier writer that was
   * not finished is abandoned.
   *
   * @param digest SHA-256 of the content, as the sender's reader has it. Without it nothing is resumed, since
   * two leaders may have encoded the same state differently.
   */
  receiveSnapshot(
    meta: SnapshotMeta,
    sizeBytes: number,
    digest?: Uint8Array,
  ): Promise<SnapshotWriter>;
  /** Segments that hold nothing above `index` may go, since a snapshot and a tail cover them. */
  compact(index: LogIndex): void;
  stats(): StorageStats;
  /** What was queued is finished first. */
  close(): Promise<void>;
}

export interface SnapshotReader {
  readonly meta: SnapshotMeta;
  /** Of the plain (decrypted) content. */
  readonly sizeBytes: number;
  /** SHA-256 of the plain content: goes to the receiver with `meta` and `sizeBytes`. */
  readonly digest: Uint8Array;
  /** Up to `lengthBytes` from `offsetBytes`; empty at the end. @throws Error when damaged. */
  read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array>;
  close(): Promise<void>;
}

export interface SnapshotWriter {
  /** Content bytes that are here already, from an attempt that was cut off. */
  readonly offsetBytes: number;
  write(chunk: Uint8Array): Promise<void>;
  /** Durable and in place when this resolves. @throws Error when the content is not what was announced. */
  finish(): Promise<void>;
  /** Keeps what is there for another attempt. */
  abandon(): Promise<void>;
}

export interface StorageStats {
  readonly segments: number;
  readonly bytes: number;
  readonly flushes: number;
  readonly entriesWritten: number;
  /** Milliseconds of the last flushes: median and worst. */
  readonly flushMsP50: number;
  readonly flushMsMax: number;
  readonly full: boolean;
}
