import { assert } from '../../base/assert.js';
import type { PacketIoStats } from '../core/packet-io.js';
import { readStats, STATS_FIELDS } from './native.js';

export type StatName = keyof PacketIoStats;

const INDEX = Object.freeze(
  Object.fromEntries(STATS_FIELDS.map((name, index) => [name, index])),
) as Readonly<Record<StatName, number>>;

/** The counters of a driver written in TypeScript, in the order of `STATS_FIELDS`. */
export class StatsCounter {
  readonly #values: Float64Array;

  /** @param values Where to count; on shared memory, others can read it meanwhile. */
  constructor(values: Float64Array = new Float64Array(STATS_FIELDS.length)) {
    assert(values.length >= STATS_FIELDS.length, 'every counter has its place');
    this.#values = values;
  }

  /** Counts `amount` more. */
  add(name: StatName, amount: number): void {
    const index = INDEX[name];
    this.#values[index] = (this.#values[index] as number) + amount;
  }

  /** For what the system counts. */
  set(name: StatName, value: number): void {
    this.#values[INDEX[name]] = value;
  }

  snapshot(): PacketIoStats {
    return readStats(this.#values);
  }
}
