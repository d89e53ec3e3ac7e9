import { assert } from '../../../base/assert.js';
import { nowMs } from '../../../base/io/driver.js';
import type { LogEntry, LogIndex, Membership, SnapshotMeta, Term } from '../core/types.js';
import { decodeMembers } from '../wire/members.js';
import { RaftError } from './raft-error.js';
import type { RaftStorage } from './storage.js';

/** The event loop gets its turn after so long, however much is to be applied. */
const SLICE_MS = 10;
/** The clock is looked at after so many entries. */
const SLICE_ENTRIES = 16;
/** Read from the disk at once while restoring. */
const READ_BYTES_MAX = 1 << 20;

/** The application: its state is what the log amounts to. Deterministic: it runs on every member. */
export interface StateMachine {
  /** In order, each index once, if not always all of them. The result goes to the proposer. Must not throw. */
  apply(entry: {
    readonly index: LogIndex;
    readonly term: Term;
    readonly data: Uint8Array;
  }): unknown;
  /** After a batch of applies, for watches. */
  applied?(index: LogIndex): void;
  /** An immutable capture, taken synchronously; encoded chunk by chunk later, while applies go on. */
  capture(): Iterable<Uint8Array>;
  restore(data: Uint8Array, meta: SnapshotMeta): void;
}

export interface ApplierConfig {
  readonly machine: StateMachine;
  readonly storage: RaftStorage;
  /** What the machine was restored from when the member started. */
  readonly snapshot: SnapshotMeta;
  /** From where on the core hands over entries. */
  readonly handedIndex: LogIndex;
  /** After each entry. @param result `undefined` for one that is not the machine's. */
  readonly onApplied: (entry: LogEntry, result: unknown) => void;
  readonly onRestored: (meta: SnapshotMeta) => void;
  /** After a stretch of applies, or a restore. */
  readonly onProgress: () => void;
  readonly onFailed: (error: unknown) => void;
}

type Work =
  | { readonly kind: 'entries'; readonly entries: readonly LogEntry[] }
  | { readonly kind: 'restore'; readonly meta: SnapshotMeta };

/** Brings committed entries and received snapshots into the state machine, in order, in short slices. */
export class Applier {
  readonly #config: ApplierConfig;
  readonly #work: Work[] = [];
  /** How far the core has handed over; a restored snapshot may be ahead of that for a while. */
  #handedIndex: LogIndex;
  /** Entries of `#work[0]` that are applied. */
  #done = 0;
  #appliedIndex: LogIndex;
  #appliedTerm: Term;
  #members: Membership;
  #bytes = 0;
  #busy = false;
  #restoring = false;
  #stopped = false;

  constructor(config: ApplierConfig) {
    this.#config = config;
    this.#handedIndex = config.handedIndex;
    this.#appliedIndex = config.snapshot.index;
    this.#appliedTerm = config.snapshot.term;
    this.#members = config.snapshot.members;
  }

  get appliedIndex(): LogIndex {
    return this.#appliedIndex;
  }

  /** How far the core may be told that the machine is. */
  get knownIndex(): LogIndex {
    return Math.min(this.#appliedIndex, this.#handedIndex);
  }

  /** What a snapshot of the machine as it is now stands for. */
  get meta(): SnapshotMeta {
    return { index: this.#appliedIndex, term: this.#appliedTerm, members: this.#members };
  }

  /** A snapshot is to replace the machine's state, and has not yet. */
  get restoring(): boolean {
    return this.#restoring || this.#work.some(({ kind }) => kind === 'restore');
  }

  /** Entry bytes applied since the start. */
  get appliedBytes(): number {
    return this.#bytes;
  }

  apply(entries: readonly LogEntry[]): void {
    const last = entries.at(-1);
    if (last === undefined) return;
    this.#handedIndex = last.index;
    this.#work.push({ kind: 'entries', entries });
    this.#pump();
  }

  /** The snapshot is the storage's latest, or an even later one is. */
  restore(meta: SnapshotMeta): void {
    this.#handedIndex = meta.index;
    this.#work.push({ kind: 'restore', meta });
    this.#pump();
  }

  stop(): void {
    this.#stopped = true;
  }

  #pump(): void {
    if (this.#busy || this.#stopped) return;
    try {
      this.#applySome();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#stopped = true;
    this.#config.onFailed(error);
  }

  /** What fits into a slice. */
  #applySome(): void {
    const untilMs = nowMs() + SLICE_MS;
    for (let work = this.#work[0]; work !== undefined; work = this.#work[0]) {
      if (work.kind === 'restore') {
        this.#work.shift();
        this.#busy = true;
        this.#restoring = true;
        void this.#restore(work.meta);
        return;
      }
      if (!this.#applySlice(work.entries, untilMs)) {
        this.#busy = true;
        setImmediate(() => {
          this.#busy = false;
          this.#pump();
        });
        break;
      }
      this.#work.shift();
      this.#done = 0;
    }
    this.#report();
  }

  /** False: time is up. */
  #applySlice(entries: readonly LogEntry[], untilMs: number): boolean {
    while (this.#done < entries.length) {
      const stop = Math.min(this.#done + SLICE_ENTRIES, entries.length);
      while (this.#done < stop) this.#applyOne(entries[this.#done++] as LogEntry);
      if (this.#done < entries.length && nowMs() > untilMs) return false;
    }
    return true;
  }

  #applyOne(entry: LogEntry): void {
    // A snapshot that was restored may have been ahead of what was asked for.
    if (entry.index <= this.#appliedIndex) return;
    assert(entry.index === this.#appliedIndex + 1, 'entries are applied without gaps');
    const { machine, onApplied } = this.#config;
    let result: unknown;
    if (entry.kind === 'command') result = machine.apply(entry);
    else if (entry.kind === 'members') {
      const members = decodeMembers(entry.data);
      assert(members !== undefined, 'a committed membership can be read');
      this.#members = members;
    }
    this.#appliedIndex = entry.index;
    this.#appliedTerm = entry.term;
    this.#bytes += entry.data.length;
    onApplied(entry, result);
  }

  #report(): void {
    this.#config.machine.applied?.(this.#appliedIndex);
    this.#config.onProgress();
  }

  async #restore(wanted: SnapshotMeta): Promise<void> {
    try {
      if (wanted.index > this.#appliedIndex) {
        const { meta, data } = await readSnapshot(this.#config.storage, wanted);
        if (this.#stopped) return;
        this.#config.machine.restore(data, meta);
        this.#appliedIndex = meta.index;
        this.#appliedTerm = meta.term;
        this.#members = meta.members;
        this.#config.onRestored(meta);
      }
      this.#busy = false;
      this.#restoring = false;
      this.#report();
      this.#pump();
    } catch (error) {
      this.#fail(error);
    }
  }
}

/**
 * The latest stored snapshot, which is `wanted` or one after it.
 *
 * @throws RaftError RAFT_SNAPSHOT_MISSING, or what the storage throws for a damaged one.
 */
export async function readSnapshot(
  storage: RaftStorage,
  wanted: SnapshotMeta,
): Promise<{ readonly meta: SnapshotMeta; readonly data: Uint8Array }> {
  const reader = await storage.openSnapshot();
  try {
    if (reader === undefined || reader.meta.index < wanted.index)
      throw new RaftError(
        { code: 'RAFT_SNAPSHOT_MISSING' },
        `the snapshot of index ${wanted.index} is missing: restore this manager's files from a copy`,
      );
    const data = new Uint8Array(reader.sizeBytes);
    for (let at = 0; at < data.length; ) {
      const chunk = await reader.read(at, READ_BYTES_MAX);
      assert(chunk.length > 0, 'a snapshot is as long as it says');
      data.set(chunk, at);
      at += chunk.length;
    }
    return { meta: reader.meta, data };
  } finally {
    await reader?.close();
  }
}
