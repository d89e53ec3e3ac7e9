import { hashAddress } from '../../core/balance/hash.js';
import { reduceToClient } from './client-words.js';

/** Clients of one published port whose new flows are counted; beyond, the one that was silent longest is forgotten. */
const RATE_CLIENTS_MAX = 8192;
const WAYS = 4;

/**
 * Lets each client begin so many flows a second, and as many at once: a cache of fixed size, four places
 * for each hash. Of IPv6 a client is a /64, of which he may use any address. What is remembered of a client is the time up to which its flows have used the rate up.
 */
export class ClientRates {
  readonly #seed: number;
  readonly #perSecond: number;
  readonly #keys = new Int32Array(RATE_CLIENTS_MAX * 4);
  readonly #client = new Int32Array(4);
  readonly #usedMs = new Float64Array(RATE_CLIENTS_MAX).fill(Number.NEGATIVE_INFINITY);

  /** @param seed Hard to guess, so that nobody picks addresses that push others out. */
  constructor(perSecond: number, seed: number) {
    this.#perSecond = perSecond;
    this.#seed = seed;
  }

  get perSecond(): number {
    return this.#perSecond;
  }

  /** @returns Whether this client, an address in four words, may begin one more. */
  take(client: Int32Array, nowMs: number): boolean {
    this.#client.set(client);
    reduceToClient(this.#client);
    const place = this.#placeOf(this.#client);
    const stepMs = 1000 / this.#perSecond;
    const usedMs = Math.max(this.#usedMs[place] as number, nowMs - 1000);
    // Sums of fractions: a hair's breadth is no flow.
    if (usedMs + stepMs > nowMs + 1e-6) return false;
    this.#usedMs[place] = usedMs + stepMs;
    return true;
  }

  #placeOf(client: Int32Array): number {
    const buckets = RATE_CLIENTS_MAX / WAYS;
    const bucket = ((hashAddress(client, this.#seed) >>> 0) % buckets) * WAYS;
    const keys = this.#keys;
    let oldest = bucket;
    for (let place = bucket; place < bucket + WAYS; place++) {
      const at = place * 4;
      if (
        keys[at] === client[0] &&
        keys[at + 1] === client[1] &&
        keys[at + 2] === client[2] &&
        keys[at + 3] === client[3]
      )
        return place;
      if ((this.#usedMs[place] as number) < (this.#usedMs[oldest] as number)) oldest = place;
    }
    keys.set(client, oldest * 4);
    this.#usedMs[oldest] = Number.NEGATIVE_INFINITY;
    return oldest;
  }
}
