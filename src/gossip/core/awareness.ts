/**
 * A member's opinion of its own health (Lifeguard §IV.A): 0 is healthy. A member that misses
 * answers, is accused, or wakes up late raises it and gives others more time before blaming them.
 */
export class Awareness {
  readonly #scoreMax: number;
  #score = 0;

  constructor(scoreMax: number) {
    this.#scoreMax = scoreMax;
  }

  get score(): number {
    return this.#score;
  }

  change(delta: number): void {
    this.#score = Math.min(this.#scoreMax, Math.max(0, this.#score + delta));
  }

  /** A timeout as long as our health suggests. */
  stretch(timeoutMs: number): number {
    return timeoutMs * (1 + this.#score);
  }
}
