import type {
  HardState,
  LogEntry,
  LogIndex,
  SnapshotMeta,
  Term,
} from '../../../src/control/raft/core/types.js';
import type { StorageWrite } from '../../../src/control/raft/io/storage.js';
import { Violation } from './violation.js';

const NO_STATE: HardState = { term: 0, vote: 0, commitIndex: 0 };

/** What a sequence of writes amounts to: a log after some base, and a hard state. */
export class LogImage {
  hardState: HardState = NO_STATE;
  base: SnapshotMeta;
  entries: LogEntry[] = [];

  constructor(base: SnapshotMeta) {
    this.base = base;
  }

  get lastIndex(): LogIndex {
    return this.base.index + this.entries.length;
  }

  get lastTerm(): Term {
    return this.entries.at(-1)?.term ?? this.base.term;
  }

  /** 0: not in the log. */
  termAt(index: LogIndex): Term {
    if (index === this.base.index) return this.base.term;
    return this.entries[index - this.base.index - 1]?.term ?? 0;
  }

  /** Whether it has that entry, or a snapshot in its place. */
  has(index: LogIndex, term: Term): boolean {
    return index <= this.base.index || this.termAt(index) === term;
  }

  apply({ reset, entries, hardState }: StorageWrite): void {
    if (hardState !== undefined) this.hardState = hardState;
    if (reset !== undefined) {
      this.base = reset;
      this.entries = [];
    }
    const first = entries[0];
    if (first === undefined) return;
    const keep = first.index - this.base.index - 1;
    if (keep < 0) throw new Violation(`entry ${first.index} is written at or below the log's base`);
    if (keep > this.entries.length) throw new Violation(`a gap in the log before ${first.index}`);
    this.entries.length = keep;
    for (const entry of entries) {
      if (entry.index !== this.lastIndex + 1) throw new Violation(`a gap at ${entry.index}`);
      this.entries.push(entry);
    }
  }

  /** Forgets what a snapshot stands for. */
  compact(meta: SnapshotMeta): void {
    if (meta.index <= this.base.index) return;
    this.entries = this.entries.slice(meta.index - this.base.index);
    this.base = meta;
  }
}
