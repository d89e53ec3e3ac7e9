/** Places that an entry may be in. */
const WAYS = 4;
/** Client 0-3, task 4-7, ports or identification, segment slot. */
export const RETURN_WORDS = 10;
export const RETURN_NUMBER = 8;
export const RETURN_SLOT = 9;

/** State of a place that nobody has. */
export const RETURN_FREE = 0;

/** MACs by what packets say: bounded, and of those that could have a place the longest silent is displaced. */
export class ReturnTable {
  readonly #seed: number;
  readonly #sets: number;
  #words = new Int32Array(0);
  macHigh = new Uint16Array(0);
  macLow = new Int32Array(0);
  lastMs = new Float64Array(0);
  state = new Uint8Array(0);

  /** @param capacity A power of 2. */
  constructor(seed: number, capacity: number) {
    this.#seed = seed;
    this.#sets = capacity / WAYS;
  }

  /** @returns -1: it has no place. */
  find(key: Int32Array): number {
    if (this.state.length === 0) return -1;
    const first = this.#set(key) * WAYS;
    for (let at = first; at < first + WAYS; at++)
      if (this.state[at] !== RETURN_FREE && this.#isAt(at, key)) return at;
    return -1;
  }

  /** A place for what has none: a free one, or that of the longest silent. */
  claim(key: Int32Array, state: number): number {
    if (this.state.length === 0) this.#allocate();
    const first = this.#set(key) * WAYS;
    let best = first;
    for (let at = first; at < first + WAYS; at++) {
      if (this.state[at] === RETURN_FREE) {
        best = at;
        break;
      }
      if ((this.lastMs[at] as number) < (this.lastMs[best] as number)) best = at;
    }
    for (let i = 0; i < RETURN_WORDS; i++) this.#words[best * RETURN_WORDS + i] = key[i] as number;
    this.state[best] = state;
    return best;
  }

  #isAt(at: number, key: Int32Array): boolean {
    for (let i = RETURN_WORDS - 1; i >= 0; i--)
      if (this.#words[at * RETURN_WORDS + i] !== key[i]) return false;
    return true;
  }

  #set(key: Int32Array): number {
    let hash = this.#seed | 0;
    for (let i = 0; i < RETURN_WORDS; i++) {
      const word = key[i] as number;
      hash = Math.imul(hash ^ word ^ (word >>> 15), 0x2c1b_3c6d);
      hash = (hash << 13) | (hash >>> 19);
    }
    return ((hash ^ (hash >>> 15)) >>> 0) & (this.#sets - 1);
  }

  /** With the first entry: most nodes' networks have none. */
  #allocate(): void {
    const n = this.#sets * WAYS;
    this.#words = new Int32Array(n * RETURN_WORDS);
    this.macHigh = new Uint16Array(n);
    this.macLow = new Int32Array(n);
    this.lastMs = new Float64Array(n);
    this.state = new Uint8Array(n);
  }
}
