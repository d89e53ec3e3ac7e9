import { assert } from '../../../base/assert.js';
import type { LogEntry, LogIndex, Term } from './types.js';

/** What an entry costs beside its data, in memory and in messages: empty ones are not free. */
const ENTRY_OVERHEAD_BYTES = 64;

/** Of an entry with this data, for every bound that counts the bytes of entries. */
export function bytesOf(data: Uint8Array): number {
  return ENTRY_OVERHEAD_BYTES + data.length;
}

/** A place in a log: two logs that share one are the same up to there (Raft paper, figure 3: log matching). */
export interface LogPlace {
  readonly index: LogIndex;
  readonly term: Term;
}

/**
 * The log since the last compaction, all of it in memory.
 *
 * `base` is the last place before the entries; what it covers is in a snapshot. Invariant: `entries[i].index`
 * is `base.index + 1 + i`, and terms never decrease.
 */
export class RaftLog {
  #base: LogPlace;
  #entries: LogEntry[];

  constructor(base: LogPlace, entries: readonly LogEntry[]) {
    this.#base = { index: base.index, term: base.term };
    this.#entries = [];
    for (const entry of entries) this.append(entry);
  }

  get base(): LogPlace {
    return this.#base;
  }

  get lastIndex(): LogIndex {
    return this.#base.index + this.#entries.length;
  }

  get lastTerm(): Term {
    return this.#entries.at(-1)?.term ?? this.#base.term;
  }

  /** `undefined`: compacted, or not there yet. */
  termAt(index: LogIndex): Term | undefined {
    if (index === this.#base.index) return this.#base.term;
    return this.#entries[index - this.#base.index - 1]?.term;
  }

  has(place: LogPlace): boolean {
    return this.termAt(place.index) === place.term;
  }

  /** From `first` up to and including `last`, both in the log; empty if `last` is before `first`. */
  slice(first: LogIndex, last: LogIndex): readonly LogEntry[] {
    if (last < first) return [];
    assert(first > this.#base.index && last <= this.lastIndex, 'the entries are in the log');
    return this.#entries.slice(first - this.#base.index - 1, last - this.#base.index);
  }

  /** From `first` on: as many as fit, but at least one if there is one. */
  batch(first: LogIndex, bytesMax: number): readonly LogEntry[] {
    const start = first - this.#base.index - 1;
    assert(start >= 0, 'the entries are in the log');
    let end = start;
    for (let bytes = 0; end < this.#entries.length; end++) {
      bytes += bytesOf((this.#entries[end] as LogEntry).data);
      if (bytes > bytesMax && end > start) break;
    }
    return this.#entries.slice(start, end);
  }

  append(entry: LogEntry): void {
    assert(entry.index === this.lastIndex + 1, 'entries have no gaps');
    assert(entry.term >= this.lastTerm, 'terms never decrease');
    this.#entries.push(entry);
  }

  /** Drops the entries from `index` on. */
  cutFrom(index: LogIndex): void {
    assert(index > this.#base.index, 'what is compacted is committed');
    this.#entries.length = Math.min(this.#entries.length, index - this.#base.index - 1);
  }

  /** Forgets the entries up to and including `index`, which a snapshot covers. */
  compactTo(index: LogIndex): void {
    const term = this.termAt(index);
    assert(term !== undefined, 'only what is there is compacted');
    this.#entries = this.#entries.slice(index - this.#base.index);
    this.#base = { index, term };
  }

  /** Begins anew after a snapshot. */
  reset(base: LogPlace): void {
    this.#base = { index: base.index, term: base.term };
    this.#entries = [];
  }

  /** Whether a log that ends at `other` holds all that may be committed here (Raft paper, 5.4.1). */
  isCoveredBy(other: LogPlace): boolean {
    return (
      other.term > this.lastTerm || (other.term === this.lastTerm && other.index >= this.lastIndex)
    );
  }

  /**
   * The last place up to `limit.index` whose term is at most `limit.term`: no later one can be shared with
   * a log that has `limit`. Follower and leader both skip by it, so that a probe rejects a whole term and not
   * an entry. Term 0: compacted, hence unknown.
   */
  lastCandidate(limit: LogPlace): LogPlace {
    let index = Math.min(limit.index, this.lastIndex);
    while (index > this.#base.index && (this.termAt(index) as Term) > limit.term) index--;
    const term = this.termAt(index);
    return { index, term: term === undefined || term > limit.term ? 0 : term };
  }

  /** The first of `entries` that is not in this log; they follow a place that is. */
  firstNew(entries: readonly LogEntry[]): LogEntry | undefined {
    return entries.find((entry) => !this.has(entry));
  }
}
