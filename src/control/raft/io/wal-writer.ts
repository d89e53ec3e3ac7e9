import { assert } from '../../../base/assert.js';
import { FlushTimes } from '../core/wal-flush-times.js';
import type { LogState } from '../core/wal-recovery.js';
import { entriesBytes } from '../wire/entry.js';
import { encodeWalRecords, type WalHead, type WalRecord } from '../wire/wal-record.js';
import type { SegmentPool, Spare } from './segment-pool.js';
import type { StorageFailure, StorageWrite } from './storage.js';
import { isSpaceError } from './wal-files.js';
import type { KeySource } from './wal-seal.js';
import { Segment } from './wal-segment.js';

/** What a flush takes along of what waits; a single write may be larger. */
const FLUSH_BYTES_MAX = 1024 * 1024;
/**
 * The last part of a segment, and an eighth at most, is for votes alone when there is no next one: a manager
 * whose disk is full can still vote.
 */
const RESERVE_BYTES = 256 * 1024;

interface Queued {
  readonly write: StorageWrite;
  readonly durable: (failure?: StorageFailure) => void;
}

/** A segment that is written to no more. */
export interface ClosedSegment {
  readonly sequence: number;
  readonly path: string;
  readonly sizeBytes: number;
  readonly keyId: string;
  /** The largest index of an entry in it; 0: it holds none that counts. */
  readonly lastIndex: number;
}

export interface WalWriterConfig {
  readonly pool: SegmentPool;
  readonly keys: KeySource;
  readonly segmentBytes: number;
  /** As recovered: what the first segment's head says. */
  readonly state: LogState;
  /** The log begins anew with the first segment. */
  readonly begins: boolean;
  /** Of the next segment. */
  readonly sequence: number;
  readonly link: number;
  /** How long after a write was refused for want of space it is looked whether there is some. */
  readonly spaceRetryMs: number;
  /** Called when the disk is full, and when it has room again. */
  readonly onDiskSpace: (free: boolean) => void;
  readonly onClosed: (segment: ClosedSegment) => void;
  /** All segments before the one with this number are void. */
  readonly onBegun: (sequence: number) => void;
}

/**
 * Group commit: what is queued while a flush is under way goes into the next one together. A flush is one
 * frame, sealed and written at once.
 */
export class WalWriter {
  readonly #config: WalWriterConfig;
  readonly #reserveBytes: number;
  readonly #times = new FlushTimes();
  readonly #queue: Queued[] = [];
  #running = false;
  #closed = false;
  readonly #idle: (() => void)[] = [];
  #state: LogState;
  /** Of the log with all that is queued. */
  #queuedIndex: number;
  #begins: boolean;
  #segment: Segment | undefined;
  /** Of the segment that is being begun, which `segment` is not yet. */
  #beginningKeyId: string | undefined;
  #segmentLastIndex = 0;
  #sequence: number;
  readonly #link: number;
  #failure: Error | undefined;
  #full = false;
  #retry: NodeJS.Timeout | undefined;
  #flushes = 0;
  #entriesWritten = 0;

  constructor(config: WalWriterConfig) {
    this.#config = config;
    this.#reserveBytes = Math.min(RESERVE_BYTES, Math.floor(config.segmentBytes / 8));
    this.#state = config.state;
    this.#queuedIndex = config.state.lastIndex;
    this.#begins = config.begins;
    this.#sequence = config.sequence;
    this.#link = config.link;
  }

  get full(): boolean {
    return this.#full;
  }

  /** The one that is written to; `undefined`: nothing was written yet. */
  get segment(): Segment | undefined {
    return this.#segment;
  }

  /** What the log is being sealed with. */
  keyIds(): string[] {
    return [this.#segment?.keyId, this.#beginningKeyId].filter((id) => id !== undefined);
  }

  counters() {
    const { p50Ms, maxMs } = this.#times.summary();
    return {
      flushes: this.#flushes,
      entriesWritten: this.#entriesWritten,
      flushMsP50: p50Ms,
      flushMsMax: maxMs,
      full: this.#full,
    };
  }

  write(write: StorageWrite, durable: (failure?: StorageFailure) => void): void {
    assert(!this.#closed, 'nothing is written after close');
    if (this.#failure === undefined) this.#check(write);
    this.#queue.push({ write, durable });
    this.#start();
  }

  /** Makes the head of a new log durable, so that a folder that was opened once is never empty again. */
  writeHead(): Promise<StorageFailure | undefined> {
    return this.#flush([]);
  }

  async close(): Promise<void> {
    if (this.#running) await new Promise<void>((resolve) => this.#idle.push(resolve));
    this.#closed = true;
    clearTimeout(this.#retry);
    await this.#config.pool.close();
    await this.#segment?.close();
  }

  #check({ entries, reset, hardState }: StorageWrite): void {
    if (reset !== undefined) this.#queuedIndex = reset.index;
    const [first] = entries;
    if (first !== undefined) {
      assert(first.index <= this.#queuedIndex + 1, 'the log has no gaps');
      this.#queuedIndex = first.index + entries.length - 1;
    }
    if (hardState !== undefined)
      assert(hardState.commitIndex <= this.#queuedIndex, 'what is committed is in the log');
  }

  #start(): void {
    if (this.#running) return;
    this.#running = true;
    // Later writes of the same turn come along.
    queueMicrotask(() => void this.#run());
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#takeBatch();
      const failure = this.#failure === undefined ? await this.#flush(batch) : this.#failed();
      if (failure !== undefined) {
        // What was queued meanwhile builds on what failed.
        batch.push(...this.#queue.splice(0));
        this.#queuedIndex = this.#state.lastIndex;
      }
      for (const { durable } of batch) durable(failure);
    }
    this.#running = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** A write that resets the log comes first in its batch, since it begins a segment. */
  #takeBatch(): Queued[] {
    let count = 0;
    let sizeBytes = 0;
    for (const { write } of this.#queue) {
      sizeBytes += entriesBytes(write.entries);
      const fits = write.reset === undefined && sizeBytes <= FLUSH_BYTES_MAX;
      if (count > 0 && !fits) break;
      count++;
    }
    return this.#queue.splice(0, count);
  }

  async #flush(batch: readonly Queued[]): Promise<StorageFailure | undefined> {
    const startMs = performance.now();
    const reset = batch[0]?.write.reset;
    let state = this.#state;
    if (reset !== undefined)
      state = { ...state, base: reset, lastIndex: reset.index, lastTerm: reset.term };
    const begun = state;
    const records: WalRecord[] = [];
    for (const { write } of batch) {
      state = stateAfter(state, write);
      const { hardState, entries } = write;
      if (hardState !== undefined) records.push({ kind: 'hard_state', hardState });
      if (entries.length > 0) records.push({ kind: 'entries', entries });
    }
    if (records.length === 0 && reset === undefined && batch.length > 0) return undefined;
    try {
      const begins = this.#begins || reset !== undefined;
      const content = encodeWalRecords(records);
      if (!(await this.#append(content, begun, begins, isSmall(batch)))) {
        this.#setFull(true);
        return { kind: 'full' };
      }
    } catch (error) {
      if (isSpaceError(error)) {
        this.#setFull(true);
        return { kind: 'full' };
      }
      this.#failure = error instanceof Error ? error : new Error(String(error));
      return this.#failed();
    }
    this.#state = state;
    for (const { write } of batch) {
      const end = write.entries[write.entries.length - 1]?.index ?? 0;
      this.#segmentLastIndex = Math.max(this.#segmentLastIndex, end);
      this.#entriesWritten += write.entries.length;
    }
    this.#flushes++;
    this.#times.add(performance.now() - startMs);
    return undefined;
  }

  /** @returns False: there is no room. */
  async #append(
    content: Uint8Array,
    state: LogState,
    begins: boolean,
    small: boolean,
  ): Promise<boolean> {
    const { pool, keys } = this.#config;
    const current = this.#segment;
    const key = keys.currentKey();
    const usable = current !== undefined && !begins;
    const fits = current?.hasRoom(content.length, small ? 0 : this.#reserveBytes) === true;
    if (usable && fits && current.keyId === key.id) {
      await current.append([content]);
      return true;
    }
    this.#beginningKeyId = key.id;
    const spare = await this.#takeSpare();
    if (spare === undefined) {
      if (!usable || !small || !fits) return false;
      await current.append([content]);
      return true;
    }
    const next = new Segment(spare, key, this.#linkNow());
    const { hardState, base, lastIndex, lastTerm } = state;
    const head: WalHead = { begins, lastIndex, lastTerm, hardState, base };
    try {
      await next.append([encodeWalRecords([{ kind: 'head', head }]), content]);
    } catch (error) {
      if (isSpaceError(error)) await pool.discard(spare);
      throw error;
    }
    await this.#switchTo(next, begins);
    return true;
  }

  async #takeSpare(): Promise<Spare | undefined> {
    const { pool } = this.#config;
    const spare = await pool.take();
    // When there is known to be no space, every write would try in vain to fill a segment.
    if (spare !== undefined || this.#full) return spare;
    await pool.prepare(this.#sequence);
    return pool.take();
  }

  async #switchTo(next: Segment, begins: boolean): Promise<void> {
    const before = this.#segment;
    this.#segment = next;
    this.#beginningKeyId = undefined;
    this.#begins = false;
    this.#sequence = next.sequence + 1;
    void this.#config.pool.prepare(this.#sequence);
    if (before !== undefined) {
      const { sequence, sizeBytes, keyId, spare } = before;
      const lastIndex = begins ? 0 : this.#segmentLastIndex;
      this.#config.onClosed({ sequence, path: spare.path, sizeBytes, keyId, lastIndex });
      await before.close();
    }
    this.#segmentLastIndex = 0;
    if (begins) this.#config.onBegun(next.sequence);
  }

  #linkNow(): number {
    return this.#segment?.endCrc ?? this.#link;
  }

  #failed(): StorageFailure {
    assert(this.#failure !== undefined, 'asked only after a failure');
    return { kind: 'failed', error: this.#failure };
  }

  #setFull(full: boolean): void {
    if (full && this.#retry === undefined && !this.#closed) {
      this.#retry = setTimeout(() => void this.#tryAgain(), this.#config.spaceRetryMs);
      this.#retry.unref();
    }
    if (full === this.#full) return;
    this.#full = full;
    this.#config.onDiskSpace(!full);
  }

  /** A next segment is what proves that there is space again. */
  async #tryAgain(): Promise<void> {
    const { pool } = this.#config;
    await pool.prepare(this.#sequence);
    this.#retry = undefined;
    if (!this.#closed) this.#setFull(!pool.hasSpare);
  }
}

function stateAfter(state: LogState, write: StorageWrite): LogState {
  const end = write.entries[write.entries.length - 1];
  return {
    base: state.base,
    hardState: write.hardState ?? state.hardState,
    lastIndex: end?.index ?? state.lastIndex,
    lastTerm: end?.term ?? state.lastTerm,
  };
}

function isSmall(batch: readonly Queued[]): boolean {
  return batch.every(({ write }) => write.entries.length === 0 && write.reset === undefined);
}
