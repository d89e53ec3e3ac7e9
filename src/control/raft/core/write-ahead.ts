import { assert } from '../../../base/assert.js';
import type { RaftLog } from './log.js';
import type { HardState, LogIndex, RaftMessage, RaftPersist, SnapshotMeta } from './types.js';

interface Flight {
  readonly persistId: number;
  readonly hardState: HardState | undefined;
  /** The log up to here is durable after this write, as long as none of it is cut off meanwhile. */
  stableIndex: LogIndex;
}

/**
 * What was handed to the disk, and what of it is known to be there.
 *
 * Writes are done in order, so a message that waits for the newest of them waits for all it may depend on.
 */
export class WriteAhead {
  #stableIndex: LogIndex;
  #handedIndex: LogIndex;
  #handed: HardState;
  #durable: HardState;
  #reset: SnapshotMeta | undefined;
  #messages: RaftMessage[] = [];
  readonly #flights: Flight[] = [];
  #lastPersistId = 0;

  /** @param lastIndex Of the log that was found on disk, all of which is durable. */
  constructor(hardState: HardState, lastIndex: LogIndex) {
    this.#handed = hardState;
    this.#durable = hardState;
    this.#stableIndex = lastIndex;
    this.#handedIndex = lastIndex;
  }

  /** The log is on this disk up to here. */
  get stableIndex(): LogIndex {
    return this.#stableIndex;
  }

  get durable(): HardState {
    return this.#durable;
  }

  /** To be sent once all that this member holds now is on disk. */
  sendAfter(message: RaftMessage): void {
    this.#messages.push(message);
  }

  /** The log is no longer what it was from `index` on: writes under way make durable only what is before. */
  cutFrom(index: LogIndex): void {
    this.#stableIndex = Math.min(this.#stableIndex, index - 1);
    this.#handedIndex = Math.min(this.#handedIndex, index - 1);
    // Without this, an entry that is cut off and then comes back (by a leader of a third term) would be
    // taken for durable on account of its first write, while the second undoes that.
    for (const flight of this.#flights)
      flight.stableIndex = Math.min(flight.stableIndex, index - 1);
  }

  /** The log begins anew after a snapshot, which is durable. */
  reset(meta: SnapshotMeta): void {
    this.cutFrom(meta.index + 1);
    this.#reset = meta;
    this.#stableIndex = meta.index;
    this.#handedIndex = meta.index;
  }

  /** What is to be written. `at once`: nothing is, and these messages need not wait. */
  take(log: RaftLog, now: HardState): RaftPersist | { readonly atOnce: readonly RaftMessage[] } {
    const entries = log.slice(this.#handedIndex + 1, log.lastIndex);
    const reset = this.#reset;
    const hardState = this.#isDue(now, entries.length > 0 || reset !== undefined) ? now : undefined;
    const messages = this.#messages;
    this.#messages = [];
    const idle = entries.length === 0 && reset === undefined && hardState === undefined;
    if (idle && (messages.length === 0 || this.#flights.length === 0)) return { atOnce: messages };

    const persistId = ++this.#lastPersistId;
    this.#flights.push({ persistId, hardState, stableIndex: log.lastIndex });
    this.#handedIndex = log.lastIndex;
    this.#reset = undefined;
    if (hardState !== undefined) this.#handed = hardState;
    return { persistId, entries, reset, hardState, messages };
  }

  persisted(persistId: number): void {
    assert(persistId <= this.#lastPersistId, 'only what was handed over becomes durable');
    while (this.#flights.length > 0 && (this.#flights[0] as Flight).persistId <= persistId) {
      const { stableIndex, hardState } = this.#flights.shift() as Flight;
      this.#stableIndex = Math.max(this.#stableIndex, stableIndex);
      if (hardState !== undefined) this.#durable = hardState;
    }
  }

  /** The commit index alone is not worth a flush; it goes along with others. */
  #isDue(now: HardState, anyway: boolean): boolean {
    const { term, vote, commitIndex } = this.#handed;
    return now.term !== term || now.vote !== vote || (anyway && now.commitIndex !== commitIndex);
  }
}
