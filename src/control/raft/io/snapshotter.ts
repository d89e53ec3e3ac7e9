import { nowMs } from '../../../base/io/driver.js';
import type { Logger } from '../../core/logger.js';
import type { LogIndex, SnapshotMeta } from '../core/types.js';
import type { Applier, StateMachine } from './applier.js';
import { closedError } from './raft-error.js';
import type { RaftStorage } from './storage.js';

/** Encoding gives the event loop its turn after so long. */
const SLICE_MS = 5;
/** Snapshots take at most one part in so many of the time, unless the log grows far beyond its measure. */
const SHARE = 10;
const OVERDUE = 10;
/** After a failure, mostly a full disk. */
const RETRY_MS = 5_000;

export interface SnapshotterConfig {
  readonly machine: StateMachine;
  readonly applier: Applier;
  readonly storage: RaftStorage;
  readonly log: Logger;
  /** A snapshot is due after so many entries, or entry bytes, since the last. */
  readonly snapshotEntries: number;
  readonly snapshotBytes: number;
  /** Of the latest snapshot when the member started. */
  readonly lastIndex: LogIndex;
  /** It is durable. */
  readonly onSaved: (meta: SnapshotMeta) => void;
}

export interface SnapshotterStats {
  readonly saved: number;
  readonly failed: number;
  readonly lastIndex: LogIndex;
  readonly lastDurationMs: number;
}

/** Takes snapshots of the own state machine beside the work: captured at once, encoded and written in slices. */
export class Snapshotter {
  readonly #config: SnapshotterConfig;
  #lastIndex: LogIndex;
  #lastBytes = 0;
  #notBeforeMs = 0;
  #lastDurationMs = 0;
  #saved = 0;
  #failed = 0;
  /** Since the last that was saved. */
  #failures = 0;
  #running: Promise<SnapshotMeta> | undefined;
  #next: Promise<SnapshotMeta> | undefined;
  #stopped = false;

  constructor(config: SnapshotterConfig) {
    this.#config = config;
    this.#lastIndex = config.lastIndex;
  }

  stats(): SnapshotterStats {
    return {
      saved: this.#saved,
      failed: this.#failed,
      lastIndex: this.#lastIndex,
      lastDurationMs: this.#lastDurationMs,
    };
  }

  /** To be called after applies. */
  poll(): void {
    const { applier, snapshotEntries, snapshotBytes, log } = this.#config;
    const size = Math.max(
      (applier.appliedIndex - this.#lastIndex) / snapshotEntries,
      (applier.appliedBytes - this.#lastBytes) / snapshotBytes,
    );
    if (size < 1 || this.#running !== undefined || this.#stopped) return;
    const overdue = size >= OVERDUE && this.#failures === 0;
    if (!overdue && nowMs() < this.#notBeforeMs) return;
    this.take().catch((error: unknown) => {
      if (!this.#stopped) log.warn({ err: error }, 'snapshot not taken, will be tried again');
    });
  }

  /** A snapshot came from a leader: the own log begins after it now. */
  onRestored(meta: SnapshotMeta): void {
    this.#lastIndex = Math.max(this.#lastIndex, meta.index);
    this.#lastBytes = this.#config.applier.appliedBytes;
  }

  /** One that begins after this call. @throws RaftError RAFT_CLOSED, or what the storage throws. */
  take(): Promise<SnapshotMeta> {
    if (this.#stopped) return Promise.reject(closedError());
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = undefined;
        return this.take();
      });
    return this.#next;
  }

  /** Resolves when nothing is being written any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running?.catch(() => {});
  }

  #start(): Promise<SnapshotMeta> {
    const running = this.#save().finally(() => {
      this.#running = undefined;
    });
    this.#running = running;
    return running;
  }

  async #save(): Promise<SnapshotMeta> {
    const { applier, machine, storage, onSaved } = this.#config;
    const { meta, appliedBytes } = applier;
    // Nothing was ever applied, so there is nothing to keep.
    if (meta.index === 0) return meta;
    const startMs = nowMs();
    const capture = machine.capture();
    try {
      await storage.saveSnapshot(meta, this.#paced(capture));
    } catch (error) {
      this.#failed++;
      this.#failures++;
      this.#notBeforeMs = nowMs() + RETRY_MS;
      throw error;
    }
    if (this.#stopped) throw closedError();
    this.#saved++;
    this.#failures = 0;
    this.#lastDurationMs = nowMs() - startMs;
    this.#notBeforeMs = nowMs() + SHARE * this.#lastDurationMs;
    this.#lastIndex = Math.max(this.#lastIndex, meta.index);
    this.#lastBytes = Math.max(this.#lastBytes, appliedBytes);
    onSaved(meta);
    return meta;
  }

  async *#paced(capture: Iterable<Uint8Array>): AsyncIterable<Uint8Array> {
    let sinceMs = nowMs();
    for (const chunk of capture) {
      yield chunk;
      if (this.#stopped) throw closedError();
      if (nowMs() - sinceMs < SLICE_MS) continue;
      await new Promise((resolve) => setImmediate(resolve));
      sinceMs = nowMs();
    }
  }
}
