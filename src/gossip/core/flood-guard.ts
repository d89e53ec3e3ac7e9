/** Limits of `FloodGuard`; all rates are per second. */
export interface FloodLimits {
  /** Below this many failures from everybody together, nothing is refused. */
  readonly failuresFree: number;
  /** In a flood, a source is refused after this many failures within the second. */
  readonly failuresPerSourceMax: number;
  /** Sources with failures told apart; the others share one allowance. */
  readonly sourcesMax: number;
}

export const FLOOD_LIMITS: FloodLimits = {
  failuresFree: 500,
  failuresPerSourceMax: 10,
  sourcesMax: 1_024,
};

const WINDOW_MS = 1_000;
/** Windows for which a source that once sent something genuine keeps its privilege. */
const GOOD_WINDOWS = 60;
const GOOD_SOURCES_MAX = 20_000;

/**
 * Whether a datagram is worth the cost of opening its seal.
 *
 * Opening is the one expensive step that a stranger can make us do. In quiet times everything is
 * opened. In a flood of forgeries, sources of forgeries are refused for the rest of the second,
 * and sources that were genuine lately are heard whatever the strangers do. Somebody who forges
 * the very address and port of a member can silence that path for as long as the flood lasts;
 * indirect probes and gossip then take another.
 */
export class FloodGuard {
  readonly #limits: FloodLimits;
  #windowStartMs = 0;
  #failures = 0;
  #failuresBefore = 0;
  #windows = 0;
  /** Failures within this window. */
  readonly #bySource = new Map<string, number>();
  #otherFailures = 0;
  #good = new Set<string>();
  #goodBefore = new Set<string>();

  constructor(limits: FloodLimits) {
    this.#limits = limits;
  }

  allows(source: string, nowMs: number): boolean {
    this.#turn(nowMs);
    const { failuresFree, failuresPerSourceMax, sourcesMax } = this.#limits;
    if (Math.max(this.#failures, this.#failuresBefore) < failuresFree) return true;
    const failures = this.#bySource.get(source);
    if (failures !== undefined) return failures < failuresPerSourceMax;
    if (this.#good.has(source) || this.#goodBefore.has(source)) return true;
    return this.#bySource.size < sourcesMax || this.#otherFailures < failuresPerSourceMax;
  }

  opened(source: string): void {
    if (this.#good.size < GOOD_SOURCES_MAX) this.#good.add(source);
  }

  failed(source: string, nowMs: number): void {
    this.#turn(nowMs);
    this.#failures += 1;
    const failures = this.#bySource.get(source);
    if (failures !== undefined || this.#bySource.size < this.#limits.sourcesMax) {
      this.#bySource.set(source, (failures ?? 0) + 1);
    } else {
      this.#otherFailures += 1;
    }
  }

  #turn(nowMs: number): void {
    if (nowMs - this.#windowStartMs < WINDOW_MS) return;
    const isNext = nowMs - this.#windowStartMs < 2 * WINDOW_MS;
    this.#failuresBefore = isNext ? this.#failures : 0;
    this.#failures = 0;
    this.#otherFailures = 0;
    this.#bySource.clear();
    this.#windowStartMs = nowMs;
    this.#windows += 1;
    if (this.#windows % GOOD_WINDOWS !== 0) return;
    this.#goodBefore = this.#good;
    this.#good = new Set();
  }
}
