import type { WalHead, WalRecord } from '../wire/wal-record.js';
import type { HardState, LogEntry, LogIndex, RaftRestart, SnapshotMeta, Term } from './types.js';
import type { SegmentEnd } from './wal-scan.js';

/** A segment as far as it could be read; see `SegmentScan`. */
export interface RecoveredSegment {
  readonly file: string;
  readonly sequence: number;
  readonly head: WalHead;
  readonly records: readonly { readonly offsetBytes: number; readonly record: WalRecord }[];
  readonly link: number;
  readonly endCrc: number;
  readonly usedBytes: number;
  readonly end: SegmentEnd;
}

/** Where the log stands, as the head of the next segment will say it. */
export interface LogState {
  readonly hardState: HardState;
  readonly base: SnapshotMeta;
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
}

export type WalRecovery =
  | {
      readonly kind: 'restart';
      readonly restart: RaftRestart;
      readonly state: LogState;
      /** The log is behind the snapshot or contradicts it, and begins anew after it. */
      readonly begins: boolean;
      /** The last segment ends here; what follows is not whole and was never acknowledged. */
      readonly torn: { readonly file: string; readonly offsetBytes: number } | undefined;
    }
  | {
      readonly kind: 'refused';
      readonly file: string;
      readonly offsetBytes: number;
      readonly reason: string;
    };

export const NO_SNAPSHOT: SnapshotMeta = { index: 0, term: 0, members: [] };
export const NO_HARD_STATE: HardState = { term: 0, vote: 0, commitIndex: 0 };

/** Whether segments before the one with this head are of no concern to a restart from `snapshot`. */
export function standsAlone(head: WalHead, snapshot: SnapshotMeta): boolean {
  return head.begins || head.lastIndex <= snapshot.index;
}

/**
 * What a member restarts with: the newest snapshot that is whole, and the log after it.
 *
 * @param segments In order, without spares: from one that `standsAlone` on, or all there are.
 */
export function recover(
  segments: readonly RecoveredSegment[],
  snapshot: SnapshotMeta,
): WalRecovery {
  const [first] = segments;
  if (first === undefined) return refused('', 0, 'the log is missing');
  const joined = checkJoints(segments, snapshot);
  if (joined !== undefined) return joined;

  const replay = new Replay(first.head);
  for (const { file, head, records } of segments) {
    if (head.begins) replay.begin(head);
    for (const { offsetBytes, record } of records) {
      const wrong = replay.take(record);
      if (wrong !== undefined) return refused(file, offsetBytes, wrong);
    }
  }
  const last = segments[segments.length - 1] ?? first;
  if (replay.hardState.commitIndex > replay.lastIndex)
    return refused(last.file, last.usedBytes, 'committed entries are missing');
  if (replay.base.index > snapshot.index)
    return refused(last.file, 0, 'the snapshot that the log begins with is missing');
  return restartOf(replay, snapshot, last);
}

function refused(file: string, offsetBytes: number, reason: string): WalRecovery {
  return { kind: 'refused', file, offsetBytes, reason };
}

/** That each segment is whole, goes on where the one before ended, and that none is missing. */
function checkJoints(
  segments: readonly RecoveredSegment[],
  snapshot: SnapshotMeta,
): WalRecovery | undefined {
  let before: RecoveredSegment | undefined;
  for (const [i, segment] of segments.entries()) {
    const { file, end, head, link } = segment;
    if (end.kind === 'damaged' || (end.kind === 'torn' && i < segments.length - 1))
      return refused(file, end.offsetBytes, 'the log is damaged');
    if (before === undefined) {
      if (!standsAlone(head, snapshot))
        return refused(file, 0, `the log before entry ${head.lastIndex + 1} is missing`);
    } else if (segment.sequence !== before.sequence + 1) {
      return refused(file, 0, `segment ${before.sequence + 1} of the log is missing`);
    } else if (link !== before.endCrc) {
      return refused(before.file, before.usedBytes, 'the end of the segment is missing');
    }
    before = segment;
  }
  return undefined;
}

function restartOf(replay: Replay, snapshot: SnapshotMeta, last: RecoveredSegment): WalRecovery {
  const { base } = replay;
  // A group that has no snapshot yet begins with members that only the log knows.
  const start = base.index === snapshot.index ? base : snapshot;
  const term = replay.termAt(start.index);
  if (term !== undefined && term !== start.term && replay.hardState.commitIndex >= start.index)
    return refused(last.file, 0, 'what was committed contradicts the snapshot');
  const begins = term !== start.term;
  const entries = begins ? [] : replay.entriesAfter(start.index);
  const hardState = notBehind(replay.hardState, start);
  const end = entries[entries.length - 1] ?? start;
  const torn =
    last.end.kind === 'torn' ? { file: last.file, offsetBytes: last.end.offsetBytes } : undefined;
  return {
    kind: 'restart',
    restart: { hardState, snapshot: start, entries },
    state: {
      hardState,
      base: begins ? start : base,
      lastIndex: end.index,
      lastTerm: end.term,
    },
    begins,
    torn,
  };
}

/**
 * A received snapshot is durable before the hard state that goes with it is. In a term that it had not heard
 * of, this member has voted for nobody.
 */
function notBehind({ term, vote, commitIndex }: HardState, snapshot: SnapshotMeta): HardState {
  return {
    term: Math.max(term, snapshot.term),
    vote: snapshot.term > term ? 0 : vote,
    commitIndex: Math.max(commitIndex, snapshot.index),
  };
}

/** Follows the records: later entries replace those from their index on. */
class Replay {
  hardState: HardState;
  base: SnapshotMeta;
  /** Contiguous, and the end of the log. */
  #entries: LogEntry[] = [];
  /** Of the entry before the first of `#entries`. */
  #beforeIndex: LogIndex;
  #beforeTerm: Term;

  constructor(head: WalHead) {
    this.hardState = head.hardState;
    this.base = head.base;
    this.#beforeIndex = head.lastIndex;
    this.#beforeTerm = head.lastTerm;
  }

  get lastIndex(): LogIndex {
    return this.#beforeIndex + this.#entries.length;
  }

  begin(head: WalHead): void {
    this.hardState = head.hardState;
    this.base = head.base;
    this.#entries = [];
    this.#beforeIndex = head.lastIndex;
    this.#beforeTerm = head.lastTerm;
  }

  /** @returns What is wrong with it. */
  take(record: WalRecord): string | undefined {
    if (record.kind === 'hard_state') this.hardState = record.hardState;
    if (record.kind !== 'entries') return undefined;
    const [first] = record.entries;
    if (first === undefined) return undefined;
    if (first.index > this.lastIndex + 1)
      return `entries ${this.lastIndex + 1} to ${first.index - 1} are missing`;
    if (first.index <= this.#beforeIndex) {
      // Replaces more than this run of segments has; all of that is before some snapshot.
      this.#entries = [];
      this.#beforeIndex = first.index - 1;
      this.#beforeTerm = 0;
    }
    this.#entries.length = first.index - this.#beforeIndex - 1;
    for (const entry of record.entries) this.#entries.push(entry);
    return undefined;
  }

  termAt(index: LogIndex): Term | undefined {
    if (index === this.base.index) return this.base.term;
    if (index === this.#beforeIndex) return this.#beforeTerm;
    return this.#entries[index - this.#beforeIndex - 1]?.term;
  }

  entriesAfter(index: LogIndex): LogEntry[] {
    return this.#entries.slice(Math.max(0, index - this.#beforeIndex));
  }
}
