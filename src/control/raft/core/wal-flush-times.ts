/** The last so many flushes. */
const KEPT = 256;

/** How long flushes took of late. */
export class FlushTimes {
  readonly #ms = new Float64Array(KEPT);
  #count = 0;

  add(ms: number): void {
    this.#ms[this.#count++ % KEPT] = ms;
  }

  /** Milliseconds; zeros when there was none. */
  summary(): { readonly p50Ms: number; readonly maxMs: number } {
    const sorted = this.#ms.slice(0, Math.min(this.#count, KEPT)).sort();
    return {
      p50Ms: sorted[Math.floor(sorted.length / 2)] ?? 0,
      maxMs: sorted[sorted.length - 1] ?? 0,
    };
  }
}
