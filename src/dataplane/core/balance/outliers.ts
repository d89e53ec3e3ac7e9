import { grown } from './backend-set.js';
import { EJECTION_MS_MAX, type OutlierConfig } from './config.js';

/** Another backend that answered so lately shows that the service does answer. */
const ANSWERED_LATELY_MS = 1000;

/**
 * Which backends fail where others do not: ejected for a time, then let in with one flow on
 * probation, whose end decides. By slot of a `BackendSet`.
 */
export class Outliers {
  config: OutlierConfig;
  #failures = new Int32Array(0);
  /** How often in a row it was ejected. */
  #ejections = new Int32Array(0);
  /** 0: not ejected. Past: on probation. */
  #ejectedUntilMs = new Float64Array(0);
  #isOnTrial = new Uint8Array(0);
  /** Passed over because its checks fail, for as long as they do. */
  #isFailing = new Uint8Array(0);
  #failingCount = 0;
  #ejectedCount = 0;
  /** Of the two backends that answered last, the later one first. */
  #answeredSlot = -1;
  #answeredMs = Number.NEGATIVE_INFINITY;
  #otherAnsweredMs = Number.NEGATIVE_INFINITY;
  /** Since the start. */
  ejectionsTotal = 0;

  constructor(config: OutlierConfig) {
    this.config = config;
  }

  /** Makes room for so many slots. */
  reserve(capacity: number): void {
    this.#failures = grown(this.#failures, capacity);
    this.#ejections = grown(this.#ejections, capacity);
    this.#ejectedUntilMs = grown(this.#ejectedUntilMs, capacity);
    this.#isOnTrial = grown(this.#isOnTrial, capacity);
    this.#isFailing = grown(this.#isFailing, capacity);
  }

  /** Ejected or on probation now, by what became of flows. */
  get ejectedCount(): number {
    return this.#ejectedCount;
  }

  /** Passed over because their checks fail. */
  get failingCount(): number {
    return this.#failingCount;
  }

  isEjected(slot: number): boolean {
    return this.#ejectedUntilMs[slot] !== 0 || this.isFailing(slot);
  }

  isFailing(slot: number): boolean {
    return this.#isFailing[slot] === 1;
  }

  /**
   * Those that fail their checks, in an order of preference, are passed over until they do not any more: as many as the
   * ceiling allows, together with those that are ejected already. Each is judged by one of the two only.
   */
  setFailing(slots: readonly number[], readyCount: number): void {
    for (const slot of slots) if (this.#ejectedUntilMs[slot] !== 0) this.forget(slot);
    const most = Math.floor(readyCount * this.config.ceiling) - this.#ejectedCount;
    this.#isFailing.fill(0);
    this.#failingCount = Math.max(0, Math.min(slots.length, most));
    for (const slot of slots.slice(0, this.#failingCount)) this.#isFailing[slot] = 1;
  }

  /** Whether a new flow may go there. */
  isOpen(slot: number, nowMs: number): boolean {
    if (this.isFailing(slot)) return false;
    const untilMs = this.#ejectedUntilMs[slot] as number;
    return untilMs === 0 || (untilMs <= nowMs && this.#isOnTrial[slot] === 0);
  }

  /** A flow goes there. */
  chosen(slot: number): void {
    if (this.#ejectedUntilMs[slot] !== 0) this.#isOnTrial[slot] = 1;
  }

  /** It answered. */
  succeeded(slot: number, nowMs: number): void {
    if (slot !== this.#answeredSlot) {
      this.#otherAnsweredMs = this.#answeredMs;
      this.#answeredSlot = slot;
    }
    this.#answeredMs = nowMs;
    this.#failures[slot] = 0;
    if (this.#ejectedUntilMs[slot] !== 0) this.forget(slot);
  }

  /**
   * It lets a client wait for its first byte. A failure while others answer; where none does, that is how the
   * service is.
   */
  silent(slot: number, readyCount: number, nowMs: number): void {
    const othersMs = slot === this.#answeredSlot ? this.#otherAnsweredMs : this.#answeredMs;
    if (nowMs - othersMs <= ANSWERED_LATELY_MS) this.failed(slot, readyCount, nowMs);
  }

  /** A flow ended that says nothing about the backend. */
  ended(slot: number): void {
    this.#isOnTrial[slot] = 0;
  }

  /** @param readyCount Backends that are ready, ejected ones among them. */
  failed(slot: number, readyCount: number, nowMs: number): void {
    if (this.isFailing(slot)) return;
    const isProbation = this.#ejectedUntilMs[slot] !== 0;
    this.#failures[slot] = (this.#failures[slot] as number) + 1;
    if (isProbation && (this.#ejectedUntilMs[slot] as number) > nowMs) return;
    if (!isProbation) {
      const { failures, ceiling } = this.config;
      if (failures === 0 || (this.#failures[slot] as number) < failures) return;
      const passedOver = this.#ejectedCount + this.#failingCount;
      if (passedOver + 1 > Math.floor(readyCount * ceiling)) return;
      this.#ejectedCount += 1;
    }
    const times = this.#ejections[slot] as number;
    const lastsMs = Math.min(this.config.ejectionMs * 2 ** Math.min(times, 20), EJECTION_MS_MAX);
    this.#ejections[slot] = times + 1;
    this.#ejectedUntilMs[slot] = nowMs + lastsMs;
    this.#isOnTrial[slot] = 0;
    this.#failures[slot] = 0;
    this.ejectionsTotal += 1;
  }

  /** Another backend has the slot, or this one a clean record. */
  forget(slot: number): void {
    if (this.#ejectedUntilMs[slot] !== 0) this.#ejectedCount -= 1;
    this.#failures[slot] = 0;
    this.#ejections[slot] = 0;
    this.#ejectedUntilMs[slot] = 0;
    this.#isOnTrial[slot] = 0;
  }
}
