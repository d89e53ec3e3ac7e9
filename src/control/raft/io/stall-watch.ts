import { nowMs } from '../../../base/io/driver.js';

const INTERVAL_MS = 50;

/** Finds out, afterwards, that the event loop did not run for a while: long work, a stopped or starved process. */
export class StallWatch {
  readonly #timer: NodeJS.Timeout;
  #lastMs = nowMs();

  /** @param onStall Once for each stall longer than `thresholdMs`, with how long it was. */
  constructor(thresholdMs: number, onStall: (stalledMs: number) => void) {
    this.#timer = setInterval(() => {
      const now = nowMs();
      const stalledMs = now - this.#lastMs - INTERVAL_MS;
      this.#lastMs = now;
      if (stalledMs > thresholdMs) onStall(stalledMs);
    }, INTERVAL_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}
