import { assert } from '../../../base/assert.js';

/** What a look-up answers when there is no such key. */
export const ABSENT = -1;

/** Slots per entry are between 4/3 and 8: a look-up ends after a few of them. */
const FILL_MAX = 0.75;
const CAPACITY_MIN = 16;

/**
 * A hash table from keys of five 32-bit words to numbers of 0 and above, without allocation on
 * look-up: open addressing over typed arrays, linear probing, deletion by shifting back, growth by
 * rebuilding at twice the size.
 *
 * The hash is seeded because the keys (MAC and IP addresses) are chosen by others, who must not be
 * able to choose colliding ones.
 */
export class WordTable {
  readonly #seed: number;
  readonly #entriesMax: number;
  #mask = CAPACITY_MIN - 1;
  #keys = new Int32Array(CAPACITY_MIN * 5);
  #values = new Float64Array(CAPACITY_MIN).fill(ABSENT);
  #size = 0;

  /** @param entriesMax Most entries; `set` refuses a new key beyond. */
  constructor(entriesMax: number, seed: number) {
    this.#entriesMax = entriesMax;
    this.#seed = seed | 0;
  }

  get size(): number {
    return this.#size;
  }

  /** The value of the key (a, b, c, d, e), each any number whose low 32 bits count; or `ABSENT`. */
  get(a: number, b: number, c: number, d: number, e: number): number {
    return this.#values[this.#slotOf(a | 0, b | 0, c | 0, d | 0, e | 0)] as number;
  }

  /** @param value 0 or above. @returns False, and nothing is changed, when the table is full. */
  set(a: number, b: number, c: number, d: number, e: number, value: number): boolean {
    assert(value >= 0, 'value is distinct from absence');
    let slot = this.#slotOf(a | 0, b | 0, c | 0, d | 0, e | 0);
    if (this.#values[slot] === ABSENT) {
      if (this.#size >= this.#entriesMax) return false;
      if (this.#size + 1 > (this.#mask + 1) * FILL_MAX) {
        this.#grow();
        slot = this.#slotOf(a | 0, b | 0, c | 0, d | 0, e | 0);
      }
      this.#size += 1;
    }
    this.#keys.set([a, b, c, d, e], slot * 5);
    this.#values[slot] = value;
    return true;
  }

  /** Removes the key; one that is not there is ignored. */
  delete(a: number, b: number, c: number, d: number, e: number): void {
    let hole = this.#slotOf(a | 0, b | 0, c | 0, d | 0, e | 0);
    if (this.#values[hole] === ABSENT) return;
    this.#size -= 1;
    // Closes the gap: an entry may move back if its home does not lie between the hole and itself.
    for (
      let at = (hole + 1) & this.#mask;
      this.#values[at] !== ABSENT;
      at = (at + 1) & this.#mask
    ) {
      const home = this.#homeOfSlot(at);
      if (((at - home) & this.#mask) < ((at - hole) & this.#mask)) continue;
      this.#keys.copyWithin(hole * 5, at * 5, at * 5 + 5);
      this.#values[hole] = this.#values[at] as number;
      hole = at;
    }
    this.#values[hole] = ABSENT;
  }

  #slotOf(a: number, b: number, c: number, d: number, e: number): number {
    const keys = this.#keys;
    let slot = this.#home(a, b, c, d, e);
    while (this.#values[slot] !== ABSENT) {
      const at = slot * 5;
      if (
        keys[at] === a &&
        keys[at + 1] === b &&
        keys[at + 2] === c &&
        keys[at + 3] === d &&
        keys[at + 4] === e
      )
        break;
      slot = (slot + 1) & this.#mask;
    }
    return slot;
  }

  #home(a: number, b: number, c: number, d: number, e: number): number {
    let hash = mix(this.#seed, a);
    hash = mix(hash, b);
    hash = mix(hash, c);
    hash = mix(hash, d);
    hash = mix(hash, e);
    hash = Math.imul(hash ^ (hash >>> 16), 0x7feb_352d);
    return (hash ^ (hash >>> 15)) & this.#mask;
  }

  #homeOfSlot(slot: number): number {
    const [a, b, c, d, e] = this.#keys.subarray(slot * 5, slot * 5 + 5) as unknown as Key;
    return this.#home(a, b, c, d, e);
  }

  #grow(): void {
    const keys = this.#keys;
    const values = this.#values;
    const capacity = (this.#mask + 1) * 2;
    this.#mask = capacity - 1;
    this.#keys = new Int32Array(capacity * 5);
    this.#values = new Float64Array(capacity).fill(ABSENT);
    for (let old = 0; old < values.length; old++) {
      if (values[old] === ABSENT) continue;
      const [a, b, c, d, e] = keys.subarray(old * 5, old * 5 + 5) as unknown as Key;
      const slot = this.#slotOf(a, b, c, d, e);
      this.#keys.set([a, b, c, d, e], slot * 5);
      this.#values[slot] = values[old] as number;
    }
  }
}

type Key = readonly [number, number, number, number, number];

function mix(hash: number, word: number): number {
  const scrambled = Math.imul(word ^ (word >>> 15), 0x2c1b_3c6d);
  return Math.imul(hash ^ scrambled, 0x297a_2d39) + ((hash << 13) | (hash >>> 19));
}
