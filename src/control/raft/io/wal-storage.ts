import { join } from 'node:path';
import type { Logger } from '../../core/logger.js';
import { errnoOf } from '../../io/files.js';
import type { LogIndex, RaftRestart, SnapshotMeta } from '../core/types.js';
import { corrupt, diskFull } from '../core/wal-error.js';
import { NO_HARD_STATE, NO_SNAPSHOT, recover, type WalRecovery } from '../core/wal-recovery.js';
import { SegmentPool } from './segment-pool.js';
import { SnapshotStore } from './snapshot-store.js';
import type {
  RaftStorage,
  SnapshotReader,
  SnapshotWriter,
  StorageFailure,
  StorageStats,
  StorageWrite,
} from './storage.js';
import { type FileLayer, isSpaceError, realFiles } from './wal-files.js';
import { type ScannedLog, scanLog, settleLast, takeSpare } from './wal-open.js';
import type { KeySource } from './wal-seal.js';
import { type ClosedSegment, WalWriter } from './wal-writer.js';

const SEGMENT_BYTES = 16 * 1024 * 1024;
/** A second snapshot, with the log after it, stands in for one that turns out to be damaged. */
const KEEP_SNAPSHOTS = 2;
const SPACE_RETRY_MS = 1_000;

export interface RaftStorageConfig {
  /** Made, with mode 0700, if it is not there. Nobody else may use it. */
  readonly dir: string;
  readonly keys: KeySource;
  readonly log: Logger;
  readonly segmentBytes?: number;
  readonly keepSnapshots?: number;
  /** Called when a write was refused for want of space (false), and when there is space again (true). */
  readonly onDiskSpace?: (free: boolean) => void;
  /** On a full disk: how often it is looked whether there is space again. */
  readonly spaceRetryMs?: number;
  readonly files?: FileLayer;
}

/** The storage on a disk. */
export interface DiskStorage extends RaftStorage {
  /** Keys that something on the disk is sealed with: all others may be forgotten. */
  keyIds(): ReadonlySet<string>;
}

/**
 * @throws RaftStorageError RAFT_STORAGE_CORRUPT, RAFT_STORAGE_SCHEMA, RAFT_STORAGE_KEY, RAFT_STORAGE_LOCKED,
 * RAFT_STORAGE_FULL (a new one, for which there is no room).
 */
export async function openRaftStorage(config: RaftStorageConfig): Promise<DiskStorage> {
  // A locked vault refuses here, before anything is looked at.
  config.keys.currentKey();
  const files = config.files ?? realFiles;
  try {
    return await openStorage(config, files);
  } catch (error) {
    throw isSpaceError(error) ? diskFull(config.dir, error) : error;
  }
}

async function openStorage(config: RaftStorageConfig, files: FileLayer): Promise<DiskStorage> {
  const { dir, keys, log } = config;
  const segmentBytes = config.segmentBytes ?? SEGMENT_BYTES;
  const folder = join(dir, 'log');
  await files.makeFolder(folder);
  const tools = { folder, files, keys };
  const snapshots = await SnapshotStore.open({
    folder: join(dir, 'snapshots'),
    files,
    keys,
    log,
    keep: config.keepSnapshots ?? KEEP_SNAPSHOTS,
  });
  const scanned = await scanLog(tools, snapshots.newest);
  const recovered = decide(scanned, snapshots, folder);
  const last = scanned.run[scanned.run.length - 1];
  if (last !== undefined) await settleLast(tools, log, last);
  const spare = await takeSpare(tools, scanned, segmentBytes);
  const pool = new SegmentPool(folder, files, segmentBytes, spare);
  const sequence = (last?.sequence ?? 0) + 1;
  const storage = new WalStorage(config, files, snapshots, pool, recovered, scanned, sequence);
  if (last === undefined) await storage.begin();
  else void pool.prepare(sequence);
  return storage;
}

type Restarted = Extract<WalRecovery, { readonly kind: 'restart' }>;

function decide({ run }: ScannedLog, snapshots: SnapshotStore, folder: string): Restarted {
  if (run.length === 0 && snapshots.newest.index === 0 && snapshots.damage === undefined) {
    const state = { hardState: NO_HARD_STATE, base: NO_SNAPSHOT, lastIndex: 0, lastTerm: 0 };
    const restart = { hardState: NO_HARD_STATE, snapshot: NO_SNAPSHOT, entries: [] };
    return { kind: 'restart', restart, state, begins: true, torn: undefined };
  }
  const recovery = recover(run, snapshots.newest);
  if (recovery.kind === 'restart') return recovery;
  // What is missing was in the snapshot that is damaged.
  if (snapshots.damage !== undefined) throw snapshots.damage;
  throw corrupt(recovery.file || folder, recovery.offsetBytes, recovery.reason);
}

class WalStorage implements DiskStorage {
  readonly restart: RaftRestart;
  readonly #dir: string;
  readonly #files: FileLayer;
  readonly #log: Logger;
  readonly #snapshots: SnapshotStore;
  readonly #writer: WalWriter;
  /** Oldest first. */
  #segments: ClosedSegment[];
  /** Removals, one after another. */
  #removing: Promise<void> = Promise.resolve();

  constructor(
    config: RaftStorageConfig,
    files: FileLayer,
    snapshots: SnapshotStore,
    pool: SegmentPool,
    recovered: Restarted,
    scanned: ScannedLog,
    sequence: number,
  ) {
    this.restart = recovered.restart;
    this.#dir = config.dir;
    this.#files = files;
    this.#log = config.log;
    this.#snapshots = snapshots;
    this.#segments = closedOf(scanned);
    this.#writer = new WalWriter({
      pool,
      keys: config.keys,
      segmentBytes: config.segmentBytes ?? SEGMENT_BYTES,
      state: recovered.state,
      begins: recovered.begins,
      sequence,
      link: scanned.run[scanned.run.length - 1]?.endCrc ?? 0,
      spaceRetryMs: config.spaceRetryMs ?? SPACE_RETRY_MS,
      onDiskSpace: (free) => this.#onDiskSpace(free, config.onDiskSpace),
      onClosed: (segment) => void this.#segments.push(segment),
      onBegun: (first) => this.#removeWhere((segment) => segment.sequence < first),
    });
  }

  /** Of a new storage: what makes it one. */
  async begin(): Promise<void> {
    const failure = await this.#writer.writeHead();
    if (failure === undefined) return;
    await this.#writer.close();
    throw failure.kind === 'failed' ? failure.error : diskFull(this.#dir);
  }

  write(write: StorageWrite, durable: (failure?: StorageFailure) => void): void {
    this.#writer.write(write, durable);
  }

  saveSnapshot(
    meta: SnapshotMeta,
    data: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    return this.#snapshots.save(meta, data);
  }

  openSnapshot(): Promise<SnapshotReader | undefined> {
    return this.#snapshots.openNewest();
  }

  receiveSnapshot(
    meta: SnapshotMeta,
    sizeBytes: number,
    digest?: Uint8Array,
  ): Promise<SnapshotWriter> {
    return this.#snapshots.receive(meta, sizeBytes, digest);
  }

  compact(index: LogIndex): void {
    // The oldest snapshot that is kept needs what comes after it.
    const floor = Math.min(index, this.#snapshots.oldestIndex);
    const kept = this.#segments.findIndex((segment) => segment.lastIndex > floor);
    const first = this.#segments[kept]?.sequence ?? Number.MAX_SAFE_INTEGER;
    this.#removeWhere((segment) => segment.sequence < first);
  }

  stats(): StorageStats {
    const current = this.#writer.segment;
    const bytes = this.#segments.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    return {
      segments: this.#segments.length + (current === undefined ? 0 : 1),
      bytes: bytes + (current?.sizeBytes ?? 0) + this.#snapshots.bytes,
      ...this.#writer.counters(),
    };
  }

  keyIds(): ReadonlySet<string> {
    const ids = new Set(this.#snapshots.keyIds());
    for (const { keyId } of this.#segments) ids.add(keyId);
    for (const keyId of this.#writer.keyIds()) ids.add(keyId);
    ids.delete('');
    return ids;
  }

  async close(): Promise<void> {
    await this.#writer.close();
    await this.#snapshots.close();
    await this.#removing;
  }

  #removeWhere(gone: (segment: ClosedSegment) => boolean): void {
    const removed = this.#segments.filter(gone);
    if (removed.length === 0) return;
    this.#segments = this.#segments.filter((segment) => !gone(segment));
    // A crash may leave some of them, in any order: none of them is needed.
    this.#removing = this.#removing.then(async () => {
      try {
        for (const { path } of removed) await this.#files.remove(path);
      } catch (error) {
        this.#log.warn({ errno: errnoOf(error) }, 'an old segment of the log cannot be removed');
      }
    });
  }

  #onDiskSpace(free: boolean, listener: ((free: boolean) => void) | undefined): void {
    if (free) this.#log.info({ dir: this.#dir }, 'the log has space again');
    else this.#log.error({ dir: this.#dir }, 'the log has no space left on its disk');
    listener?.(free);
  }
}

function closedOf({ older, run }: ScannedLog): ClosedSegment[] {
  const [first] = run;
  const closed: ClosedSegment[] = [];
  // What was not read is before where the run begins.
  const covered = first === undefined || first.head.begins ? 0 : first.head.lastIndex;
  for (const segment of older) closed.push({ ...segment, lastIndex: covered });
  for (const { sequence, file, usedBytes, keyId, head, records } of run) {
    let lastIndex = head.lastIndex;
    for (const { record } of records) {
      const end = record.kind === 'entries' ? record.entries[record.entries.length - 1] : undefined;
      lastIndex = Math.max(lastIndex, end?.index ?? 0);
    }
    closed.push({ sequence, path: file, sizeBytes: usedBytes, keyId, lastIndex });
  }
  return closed;
}
