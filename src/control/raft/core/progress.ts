import { assert } from '../../../base/assert.js';
import { Inflights } from './inflights.js';
import type { LogIndex, RaftConfig } from './types.js';

/**
 * What a leader knows of one follower.
 *
 * Invariant: `matchIndex < nextIndex`. What is up to `matchIndex` is durable there; what is from `nextIndex` on
 * was not sent; between them is what is on its way, or lost.
 *
 * - `probe`: it is not known where the logs part, so one append at a time.
 * - `replicate`: they match; appends are streamed, each taken for delivered as soon as it is sent.
 * - `snapshot`: what it needs first is compacted; nothing is sent until the snapshot is over.
 */
export class Progress {
  mode: 'probe' | 'replicate' | 'snapshot' = 'probe';
  matchIndex: LogIndex = 0;
  nextIndex: LogIndex;
  /** When it was last heard of, in this leadership. */
  heardMs: number;
  /** The latest round of reads that it confirmed. */
  readRound = 0;
  /** What it was told of the commit index in an append. */
  commitSent: LogIndex = 0;
  /** An empty append is due: if something was lost on the way, its refusal tells. */
  nudge = false;
  readonly inflights: Inflights;
  /** Probing: an append is on its way, and until it is answered (or a heartbeat is) no other is sent. */
  #probing = false;
  /** Where the snapshot that is being sent ends, at least. */
  #snapshotIndex: LogIndex = 0;
  /**
   * Appends that may be on their way at a time. Halved when a stream was refused and raised by every
   * append that brings something new, as TCP does: where appends overtake each other, each refusal
   * would otherwise have the whole window sent again, and its stragglers be refused in turn, for ever.
   */
  #windowMessages: number;
  readonly #windowMessagesMax: number;

  constructor(config: RaftConfig, nextIndex: LogIndex, nowMs: number) {
    assert(nextIndex > 0, 'the first index is 1');
    this.nextIndex = nextIndex;
    this.heardMs = nowMs;
    this.#windowMessagesMax = config.inflightMessagesMax;
    this.#windowMessages = config.inflightMessagesMax;
    this.inflights = new Inflights(config.inflightMessagesMax, config.inflightBytesMax);
  }

  get paused(): boolean {
    if (this.mode === 'probe') return this.#probing;
    if (this.mode === 'snapshot' || this.inflights.full) return true;
    return this.inflights.count >= this.#windowMessages;
  }

  probe(): void {
    const beyond = this.mode === 'snapshot' ? this.#snapshotIndex : 0;
    this.#enter('probe');
    this.nextIndex = Math.max(this.matchIndex, beyond) + 1;
  }

  replicate(): void {
    this.#enter('replicate');
    this.nextIndex = this.matchIndex + 1;
  }

  snapshot(index: LogIndex): void {
    this.#enter('snapshot');
    this.#snapshotIndex = index;
  }

  /** The transmission has ended. Either way the next append waits for a sign of life. */
  snapshotSent(ok: boolean): void {
    if (this.mode !== 'snapshot') return;
    if (!ok) this.#snapshotIndex = 0;
    this.probe();
    this.#probing = true;
  }

  sent(lastIndex: LogIndex, bytes: number): void {
    if (this.mode === 'probe') {
      this.#probing = true;
      return;
    }
    if (lastIndex < this.nextIndex) return;
    this.nextIndex = lastIndex + 1;
    this.inflights.add(lastIndex, bytes);
  }

  matched(index: LogIndex): void {
    this.#probing = false;
    this.inflights.freeTo(index);
    if (index > this.matchIndex)
      this.#windowMessages = Math.min(this.#windowMessages + 1, this.#windowMessagesMax);
    this.nextIndex = Math.max(this.nextIndex, index + 1);
    this.matchIndex = Math.max(this.matchIndex, index);
  }

  /**
   * An append after `index` was refused, and no later place than `candidate` can match. Answers to appends that
   * have been overtaken since say nothing.
   */
  refused(index: LogIndex, candidate: LogIndex): void {
    if (this.mode === 'replicate' && index > this.matchIndex) {
      this.#windowMessages = Math.max(1, Math.floor(this.#windowMessages / 2));
      this.probe();
    } else if (this.mode === 'probe' && this.nextIndex - 1 === index) {
      this.nextIndex = Math.max(Math.min(index, candidate + 1), this.matchIndex + 1);
      this.#probing = false;
    }
  }

  heartbeatAnswered(lastIndex: LogIndex): void {
    this.#probing = false;
    this.nudge = this.mode === 'replicate' && this.matchIndex < lastIndex;
  }

  #enter(mode: Progress['mode']): void {
    this.mode = mode;
    this.#probing = false;
    this.nudge = false;
    this.inflights.clear();
  }
}
