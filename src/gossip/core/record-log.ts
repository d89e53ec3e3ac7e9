import { assert } from '../../base/assert.js';
import type { Delta, RecordEvent } from '../wire/record-delta.js';

interface Held {
  readonly seq: number;
  /** `undefined`: a tombstone. */
  readonly value: Uint8Array | undefined;
  /** When a tombstone was laid, by this node's clock. */
  readonly laidMs: number;
}

/** What became of a delta. `gap`: writes before it are missing. */
export type Fit = 'fits' | 'stale' | 'gap';

/**
 * One owner's records of one topic.
 *
 * Invariant: the state is exactly the fold of all the owner's writes 1..`seq` of `epoch`, never of
 * a subset. So two nodes with the same (epoch, seq) hold the same live records, a version vector
 * says everything there is to say about a table, and a deleted record cannot come back: whoever
 * still has it has a lower `seq`, and loses.
 */
export class RecordLog {
  epoch: number;
  seq = 0;
  /** Tombstones up to here may be forgotten: who knows less must be given the whole state. */
  floor = 0;
  liveCount = 0;
  liveBytes = 0;
  /** By ascending sequence: a rewritten key moves to the end. */
  readonly #held = new Map<string, Held>();

  constructor(epoch: number) {
    this.epoch = epoch;
  }

  get tombstoneCount(): number {
    return this.#held.size - this.liveCount;
  }

  *live(): IterableIterator<readonly [key: string, value: Uint8Array]> {
    for (const [key, { value }] of this.#held) if (value !== undefined) yield [key, value];
  }

  valueOf(key: string): Uint8Array | undefined {
    return this.#held.get(key)?.value;
  }

  /** The owner's own next write. */
  write(key: string, value: Uint8Array | undefined, nowMs: number): void {
    this.seq += 1;
    this.#put({ key, seq: this.seq, value }, nowMs);
  }

  /** Whether `delta` may be merged now, of an owner that has no log yet if `log` is undefined. */
  static fit(log: RecordLog | undefined, delta: Delta): Fit {
    if (log === undefined) return delta.from === 0 ? 'fits' : 'gap';
    if (delta.epoch < log.epoch) return 'stale';
    if (delta.epoch === log.epoch && delta.to <= log.seq) return 'stale';
    if (delta.from === 0) return 'fits';
    return delta.epoch === log.epoch && delta.from <= log.seq ? 'fits' : 'gap';
  }

  /** How many live records there would be after `merge`. */
  liveCountAfter(delta: Delta): number {
    const whole = delta.from === 0;
    let count = whole ? 0 : this.liveCount;
    for (const { key, seq, value } of delta.events) {
      if (whole) count += value === undefined ? 0 : 1;
      else if (seq > this.seq) {
        count += (value === undefined ? 0 : 1) - (this.valueOf(key) === undefined ? 0 : 1);
      }
    }
    return count;
  }

  /** Only for a delta that fits. */
  merge(delta: Delta, nowMs: number): void {
    assert(RecordLog.fit(this, delta) === 'fits', 'only a delta that fits is merged');
    if (delta.from === 0) {
      this.#held.clear();
      this.liveCount = 0;
      this.liveBytes = 0;
      this.epoch = delta.epoch;
      this.seq = 0;
      this.floor = delta.to;
    }
    for (const event of delta.events) {
      if (event.seq <= this.seq) continue;
      // The whole state replaces what was here, so its tombstones have nothing to bury.
      if (delta.from === 0 && event.value === undefined) this.#drop(event.key);
      else this.#put(event, nowMs);
    }
    this.seq = delta.to;
  }

  /** What one who knows `seq` of `epoch` lacks; `undefined`: nothing. The values are shared. */
  deltaSince(epoch: number, seq: number): Omit<Delta, 'topic' | 'owner'> | undefined {
    if (epoch > this.epoch || (epoch === this.epoch && seq >= this.seq)) return undefined;
    const from = epoch === this.epoch && seq >= this.floor ? seq : 0;
    const events: RecordEvent[] = [];
    for (const [key, held] of this.#held) {
      if (held.seq <= from || (from === 0 && held.value === undefined)) continue;
      events.push({ key, seq: held.seq, value: held.value });
    }
    return { epoch: this.epoch, from, to: this.seq, events };
  }

  /** Forgets tombstones laid at or before `beforeMs`, and the oldest of more than `countMax`. */
  forget(beforeMs: number, countMax: number): void {
    // By halves: one at a time, each deletion in a full table would walk all of it.
    let excess = this.tombstoneCount > countMax ? this.tombstoneCount - (countMax >> 1) : 0;
    for (const [key, { seq, value, laidMs }] of this.#held) {
      if (value !== undefined) continue;
      if (excess <= 0 && laidMs > beforeMs) break;
      excess -= 1;
      this.#held.delete(key);
      this.floor = seq;
    }
  }

  #put({ key, seq, value }: RecordEvent, nowMs: number): void {
    this.#drop(key);
    // A view would keep the whole message of the peer alive for as long as the record.
    const own = value === undefined ? undefined : new Uint8Array(value);
    this.#held.set(key, { seq, value: own, laidMs: nowMs });
    if (own === undefined) return;
    this.liveCount += 1;
    this.liveBytes += own.length;
  }

  #drop(key: string): void {
    const held = this.#held.get(key);
    if (held === undefined) return;
    this.#held.delete(key);
    if (held.value === undefined) return;
    this.liveCount -= 1;
    this.liveBytes -= held.value.length;
  }
}
