import type { Prng } from '../../base/prng.js';

/** Waiting times between attempts: doubling from `firstMs` to `maxMs`, each shortened by up to a half. */
export class Backoff {
  readonly #firstMs: number;
  readonly #maxMs: number;
  readonly #prng: Prng;
  #nextMs: number;

  constructor(firstMs: number, maxMs: number, prng: Prng) {
    this.#firstMs = firstMs;
    this.#maxMs = maxMs;
    this.#prng = prng;
    this.#nextMs = firstMs;
  }

  /** How long to wait before the next attempt. */
  take(): number {
    const waitMs = this.#nextMs * (0.5 + this.#prng.nextFloat() / 2);
    this.#nextMs = Math.min(this.#maxMs, this.#nextMs * 2);
    return waitMs;
  }

  /** After a success. */
  reset(): void {
    this.#nextMs = this.#firstMs;
  }
}
