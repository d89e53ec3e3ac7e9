import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeFileAtomically } from '../base/io/atomic-file.js';

const FILE = 'seal-counter';
/** Counters that are reserved at a time: datagrams of days, even in a flood. */
const RESERVED = 2 ** 40;
const MILLISECOND_BITS = 20n;

/**
 * Where the counters of sealed datagrams begin: no process of this node ever uses one that another has
 * used, however it ended, and wherever the clock went.
 *
 * They begin at the clock's milliseconds times 2^20, which no sender catches up with. For clocks that go
 * back there is a mark on the disk, ahead of all that may be used: it is moved before that is.
 */
export class SealCounter {
  readonly first: bigint;
  readonly #path: string;
  #allowed = 0;

  /**
   * Reserves the first counters.
   *
   * @throws Error if the mark cannot be read or moved: without it nothing may be sealed.
   */
  constructor(dataDir: string, nowMs: number) {
    this.#path = join(dataDir, FILE);
    const byClock = BigInt(Math.max(0, Math.floor(nowMs))) << MILLISECOND_BITS;
    const mark = readMark(this.#path);
    this.first = mark > byClock ? mark : byClock;
    this.#reserve(RESERVED);
  }

  /** How many counters from `first` may be used. */
  get allowed(): number {
    return this.#allowed;
  }

  /**
   * Reserves more when half of the last are used.
   *
   * @returns Whether more are allowed now.
   */
  extend(used: number): boolean {
    if (used < this.#allowed - RESERVED / 2) return false;
    this.#reserve(this.#allowed + RESERVED);
    return true;
  }

  #reserve(count: number): void {
    writeFileAtomically(this.#path, `${this.first + BigInt(count)}\n`);
    this.#allowed = count;
  }
}

function readMark(path: string): bigint {
  let text: string;
  try {
    text = readFileSync(path, 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0n;
    throw error;
  }
  if (!/^\d{1,20}$/.test(text)) {
    throw new Error(
      `${path} does not hold a number: write one there that is larger than any before, such as ${2n ** 62n}`,
    );
  }
  return BigInt(text);
}
