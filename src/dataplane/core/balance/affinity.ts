import { NO_BACKEND, type Ticket } from './backend-set.js';
import { hashAddress } from './hash.js';

/** Clients that one service remembers; beyond, the one whose time is over first is forgotten. */
export const AFFINITY_CLIENTS_MAX = 16_384;
const WAYS = 4;
const BUCKETS = AFFINITY_CLIENTS_MAX / WAYS;

/** Which backend a client had: a cache of fixed size, four places for each hash. */
export class AffinityTable {
  readonly #seed: number;
  readonly #keys = new Int32Array(AFFINITY_CLIENTS_MAX * 4);
  readonly #tickets = new Int32Array(AFFINITY_CLIENTS_MAX);
  readonly #expiresMs = new Float64Array(AFFINITY_CLIENTS_MAX);
  /** Clients forgotten before their time. */
  evictedCount = 0;

  constructor(seed: number) {
    this.#seed = seed;
  }

  get(client: Int32Array, nowMs: number): Ticket {
    const place = this.#find(client);
    return place !== -1 && (this.#expiresMs[place] as number) > nowMs
      ? (this.#tickets[place] as number)
      : NO_BACKEND;
  }

  set(client: Int32Array, ticket: Ticket, nowMs: number, lifetimeMs: number): void {
    let place = this.#find(client);
    if (place === -1) {
      place = this.#oldest(this.#bucket(client));
      if ((this.#expiresMs[place] as number) > nowMs) this.evictedCount += 1;
      this.#keys.set(client, place * 4);
    }
    this.#tickets[place] = ticket;
    this.#expiresMs[place] = nowMs + lifetimeMs;
  }

  #bucket(client: Int32Array): number {
    return ((hashAddress(client, this.#seed) >>> 0) % BUCKETS) * WAYS;
  }

  #find(client: Int32Array): number {
    const bucket = this.#bucket(client);
    const keys = this.#keys;
    for (let place = bucket; place < bucket + WAYS; place++) {
      const at = place * 4;
      if (
        this.#expiresMs[place] !== 0 &&
        keys[at] === client[0] &&
        keys[at + 1] === client[1] &&
        keys[at + 2] === client[2] &&
        keys[at + 3] === client[3]
      )
        return place;
    }
    return -1;
  }

  #oldest(bucket: number): number {
    let oldest = bucket;
    for (let place = bucket + 1; place < bucket + WAYS; place++) {
      if ((this.#expiresMs[place] as number) < (this.#expiresMs[oldest] as number)) oldest = place;
    }
    return oldest;
  }
}
