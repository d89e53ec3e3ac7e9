/** A key for one direction between two nodes, as derived from a key of the swarm's ring. */
export interface SealKey {
  /** 24 bits, derived with the key: two keys with one id are told apart by trying. */
  readonly id: number;
  /** 32 bytes. */
  readonly secret: Uint8Array;
  /** 4 bytes: the beginning of every nonce. */
  readonly salt: Uint8Array;
}

/** What datagrams to one VTEP are sealed with, and what those from it are opened with. */
export interface SealKeys {
  readonly seals: SealKey;
  /** The ring's previous, present and next one; at most `SEAL_KEYS_MAX`. */
  readonly opens: readonly SealKey[];
}

export const SEAL_KEYS_MAX = 3;
export const SEAL_SECRET_BYTES = 32;
export const SEAL_SALT_BYTES = 4;

/** How far behind the newest datagram of a key another may come. */
export const REPLAY_WINDOW_MAX = 8_128;
/** One more word than the window needs, as RFC 6479 has it; a power of 2. */
const WORDS = 256;
const WORD_BITS = 32;

/**
 * Which counters of a key were seen, RFC 6479: a ring of bits that moves on by whole words, so that
 * nothing is ever shifted.
 */
export class ReplayWindow {
  readonly #bits = new Uint32Array(WORDS);
  #newest: bigint | undefined;

  /** Whether `accept` would take it: asked before the work of opening. */
  isNew(counter: bigint): boolean {
    const newest = this.#newest;
    if (newest === undefined || counter > newest) return true;
    if (newest - counter >= BigInt(REPLAY_WINDOW_MAX)) return false;
    return ((this.#bits[wordOf(counter)] as number) & maskOf(counter)) === 0;
  }

  /**
   * Notes a counter; only of a datagram that was opened, or anybody could move the window.
   *
   * @returns Whether it had not been seen before.
   */
  accept(counter: bigint): boolean {
    if (!this.isNew(counter)) return false;
    const newest = this.#newest;
    if (newest === undefined || counter > newest) {
      const bits = BigInt(WORD_BITS);
      const steps = newest === undefined ? 0n : counter / bits - newest / bits;
      const cleared = steps > BigInt(WORDS) ? WORDS : Number(steps);
      for (let i = 0; i < cleared; i++) this.#bits[(wordOf(counter) - i + WORDS) & (WORDS - 1)] = 0;
      this.#newest = counter;
    }
    const word = wordOf(counter);
    this.#bits[word] = (this.#bits[word] as number) | maskOf(counter);
    return true;
  }
}

function wordOf(counter: bigint): number {
  return Number((counter / BigInt(WORD_BITS)) & BigInt(WORDS - 1));
}

function maskOf(counter: bigint): number {
  return (1 << Number(counter & BigInt(WORD_BITS - 1))) >>> 0;
}
