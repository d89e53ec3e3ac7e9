import { crc32 } from 'node:zlib';
import type {
  HardState,
  LogEntry,
  RaftRestart,
  SnapshotMeta,
} from '../../src/control/raft/core/types.js';
import type { StorageWrite } from '../../src/control/raft/io/storage.js';
import type { KeySource, StorageKey } from '../../src/control/raft/io/wal-seal.js';

/** What a log amounts to, in memory: the measure of the one on disk. */
export interface ModelState {
  readonly hardState: HardState;
  readonly base: SnapshotMeta;
  /** From `base.index + 1` on. */
  readonly entries: readonly LogEntry[];
}

export const EMPTY: ModelState = {
  hardState: { term: 0, vote: 0, commitIndex: 0 },
  base: { index: 0, term: 0, members: [] },
  entries: [],
};

export function lastIndexOf({ base, entries }: ModelState): number {
  return base.index + entries.length;
}

export function termOf(state: ModelState, index: number): number | undefined {
  if (index === state.base.index) return state.base.term;
  return state.entries[index - state.base.index - 1]?.term;
}

export function modelAfter(state: ModelState, write: StorageWrite): ModelState {
  const base = write.reset ?? state.base;
  const kept = write.reset === undefined ? state.entries : [];
  const first = write.entries[0]?.index ?? base.index + kept.length + 1;
  return {
    base,
    entries: [...kept.slice(0, first - base.index - 1), ...write.entries],
    hardState: write.hardState ?? state.hardState,
  };
}

/** What a restart with that log and that newest snapshot must find. */
export function modelRestart(state: ModelState, newest: SnapshotMeta | undefined): RaftRestart {
  const snapshot = newest !== undefined && newest.index > state.base.index ? newest : state.base;
  const agrees = termOf(state, snapshot.index) === snapshot.term;
  const { term, vote, commitIndex } = state.hardState;
  return {
    snapshot,
    entries: agrees ? state.entries.slice(snapshot.index - state.base.index) : [],
    hardState: {
      term: Math.max(term, snapshot.term),
      vote: snapshot.term > term ? 0 : vote,
      commitIndex: Math.max(commitIndex, snapshot.index),
    },
  };
}

/** Two restarts as texts that are equal if they are. */
export function describe({ hardState, snapshot, entries }: RaftRestart): string {
  const { term, vote, commitIndex } = hardState;
  const members = snapshot.members.map(({ id, voter, context }) => [id, voter, context]);
  return JSON.stringify([
    [term, vote, commitIndex],
    [snapshot.index, snapshot.term, members],
    entries.map(({ index, term, kind, data }) => [
      index,
      term,
      kind,
      data.length,
      crc32(Buffer.from(data)),
    ]),
  ]);
}

/** Keys of nobody. */
export class TestKeys implements KeySource {
  readonly #keys: StorageKey[] = [];

  constructor() {
    this.rotate();
  }

  rotate(): void {
    const number = this.#keys.length + 1;
    this.#keys.push({
      id: number.toString(16).padStart(16, '0'),
      secret: Buffer.alloc(32, number),
    });
  }

  currentKey(): StorageKey {
    return this.#keys[this.#keys.length - 1] as StorageKey;
  }

  keyById(id: string): StorageKey | undefined {
    return this.#keys.find((key) => key.id === id);
  }

  forgetAllBut(ids: ReadonlySet<string>): void {
    const kept = this.#keys.filter(({ id }) => ids.has(id) || id === this.currentKey().id);
    this.#keys.splice(0, this.#keys.length, ...kept);
  }
}

export const SILENT = { debug() {}, info() {}, warn() {}, error() {} };
