/** Lets `perSecond` things happen per second, and `burst` at once. Time comes in as milliseconds. */
export class TokenBucket {
  readonly #perMs: number;
  readonly #burst: number;
  #tokens: number;
  #filledMs: number;

  /** @param nowMs Monotonic milliseconds; the bucket starts full. */
  constructor(perSecond: number, burst: number, nowMs: number) {
    this.#perMs = perSecond / 1000;
    this.#burst = burst;
    this.#tokens = burst;
    this.#filledMs = nowMs;
  }

  /** Takes one token. @returns Whether there was one. */
  take(nowMs: number): boolean {
    const elapsedMs = nowMs - this.#filledMs;
    if (elapsedMs > 0) {
      this.#tokens = Math.min(this.#burst, this.#tokens + elapsedMs * this.#perMs);
      this.#filledMs = nowMs;
    }
    if (this.#tokens < 1) return false;
    this.#tokens -= 1;
    return true;
  }
}
