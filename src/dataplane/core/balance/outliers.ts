import { grown } from './backend-set.js';
import { EJECTION_MS_MAX, type OutlierConfig, SILENCE_MS } from './config.js';
import { LastAnswers } from './last-answers.js';

/** Of the room for ejected backends, slow ones may have this share, but one always. */
const SLOW_ROOM = 0.5;
/** Before the next slow one is ejected, it is seen how the others bear its load. */
const SLOW_APART_MS = 1000;
/** So many flows on probation must go well, one after the other. */
const TRIALS = 3;

/**
 * Which backends fail where others do not: ejected for a time, then let in with a few flows on
 * probation, one after the other, whose ends decide. By slot of a `BackendSet`.
 */
export class Outliers {
  config: OutlierConfig;
  #failures = new Int32Array(0);
  /** How often in a row it was ejected. */
  #ejections = new Int32Array(0);
  /** 0: not ejected. Past: on probation. */
  #ejectedUntilMs = new Float64Array(0);
  #ejectedAtMs = new Float64Array(0);
  #isOnTrial = new Uint8Array(0);
  /** Flows on probation that went well. */
  #passed = new Uint8Array(0);
  /** For how long it let clients wait, where it was ejected for that; else 0. */
  #slowMs = new Float64Array(0);
  /** When its ejection would have ended that was cut short. */
  #relievedMs = new Float64Array(0);
  /** Passed over because its checks fail, for as long as they do. */
  #isFailing = new Uint8Array(0);
  #failingCount = 0;
  #ejectedCount = 0;
  #slowEjectedMs = Number.NEGATIVE_INFINITY;
  readonly #answers = new LastAnswers();
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
    this.#ejectedAtMs = grown(this.#ejectedAtMs, capacity);
    this.#isOnTrial = grown(this.#isOnTrial, capacity);
    this.#passed = grown(this.#passed, capacity);
    this.#slowMs = grown(this.#slowMs, capacity);
    this.#relievedMs = grown(this.#relievedMs, capacity);
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

  /**
   * It answered.
   *
   * @param askedMs When the client asked.
   * @param port Of the service.
   * @returns Whether that ends its probation.
   */
  succeeded(slot: number, askedMs: number, port: number): boolean {
    this.#answers.note(port, slot, askedMs);
    this.#failures[slot] = 0;
    return this.#pass(slot);
  }

  #pass(slot: number): boolean {
    // Flows from before its ejection say nothing of how it is now.
    if (this.#ejectedUntilMs[slot] === 0 || this.#isOnTrial[slot] === 0) return false;
    this.#isOnTrial[slot] = 0;
    this.#passed[slot] = (this.#passed[slot] as number) + 1;
    if ((this.#passed[slot] as number) < TRIALS) return false;
    this.forget(slot);
    return true;
  }

  /**
   * It lets a client wait for its first byte. A failure where another has answered one who asked no sooner; where none
   * has, that is how the service is.
   */
  silent(slot: number, readyCount: number, nowMs: number, port: number): void {
    if (nowMs - this.#answers.ofOthersMs(port, slot) <= SILENCE_MS)
      this.failed(slot, readyCount, nowMs);
  }

  /**
   * It is on probation and silent, as all are: nobody else has answered since it was ejected, so that it does well by
   * taking flows.
   *
   * @returns Whether that ends its probation.
   */
  silentAsAll(slot: number, port: number): boolean {
    if (this.#answers.ofOthersMs(port, slot) >= (this.#ejectedAtMs[slot] as number)) return false;
    return this.#pass(slot);
  }

  /** A flow ended that says nothing about the backend. */
  ended(slot: number): void {
    this.#isOnTrial[slot] = 0;
  }

  /** @param readyCount Backends that are ready, ejected ones among them. */
  failed(slot: number, readyCount: number, nowMs: number): void {
    if (this.isFailing(slot)) return;
    this.#failures[slot] = (this.#failures[slot] as number) + 1;
    const untilMs = this.#ejectedUntilMs[slot] as number;
    if (untilMs > nowMs) return;
    const { failures } = this.config;
    if (untilMs === 0 && (failures === 0 || (this.#failures[slot] as number) < failures)) return;
    this.#eject(slot, readyCount, nowMs);
  }

  /**
   * It lets clients wait for far longer than others do.
   *
   * @returns Whether a time out of the round begins for that.
   */
  slow(slot: number, waitedMs: number, readyCount: number, nowMs: number): boolean {
    if (this.isFailing(slot) || (this.#ejectedUntilMs[slot] as number) > nowMs) return false;
    if (this.#ejectedUntilMs[slot] === 0) {
      const most = Math.max(1, Math.floor(readyCount * this.config.ceiling * SLOW_ROOM));
      if (this.#ejectedCount + this.#failingCount >= most) return false;
      if (nowMs - this.#slowEjectedMs < SLOW_APART_MS) return false;
    }
    if (!this.#eject(slot, readyCount, nowMs)) return false;
    this.#slowEjectedMs = nowMs;
    this.#slowMs[slot] = waitedMs;
    return true;
  }

  /**
   * Others have become as slow by now, perhaps since they have its flows as well: what was not much slower is tried at
   * once, one time.
   */
  relieve(slots: Int32Array, asSlowMs: number, nowMs: number): void {
    for (let at = 0; this.#ejectedCount > 0 && at < slots.length; at++) {
      const slot = slots[at] as number;
      const slowMs = this.#slowMs[slot] as number;
      if (slowMs === 0 || slowMs > asSlowMs) continue;
      const untilMs = this.#ejectedUntilMs[slot] as number;
      if (untilMs <= nowMs) continue;
      this.#slowMs[slot] = 0;
      this.#relievedMs[slot] = untilMs;
      this.#ejectedUntilMs[slot] = nowMs;
    }
  }

  /** @returns Whether that begins a time out of the round. */
  #eject(slot: number, readyCount: number, nowMs: number): boolean {
    if (this.#ejectedUntilMs[slot] === 0) {
      const passedOver = this.#ejectedCount + this.#failingCount;
      if (passedOver + 1 > Math.floor(readyCount * this.config.ceiling)) return false;
      this.#ejectedCount += 1;
    }
    this.#isOnTrial[slot] = 0;
    this.#passed[slot] = 0;
    this.#slowMs[slot] = 0;
    this.#failures[slot] = 0;
    this.#ejectedAtMs[slot] = nowMs;
    const relievedMs = this.#relievedMs[slot] as number;
    this.#relievedMs[slot] = 0;
    if (relievedMs > nowMs) {
      this.#ejectedUntilMs[slot] = relievedMs;
      return false;
    }
    const times = this.#ejections[slot] as number;
    const lastsMs = Math.min(this.config.ejectionMs * 2 ** Math.min(times, 20), EJECTION_MS_MAX);
    this.#ejections[slot] = times + 1;
    this.#ejectedUntilMs[slot] = nowMs + lastsMs;
    this.ejectionsTotal += 1;
    return true;
  }

  /** Another backend has the slot, or this one a clean record. */
  forget(slot: number): void {
    if (this.#ejectedUntilMs[slot] !== 0) this.#ejectedCount -= 1;
    this.#failures[slot] = 0;
    this.#ejections[slot] = 0;
    this.#ejectedUntilMs[slot] = 0;
    this.#isOnTrial[slot] = 0;
    this.#passed[slot] = 0;
    this.#slowMs[slot] = 0;
    this.#relievedMs[slot] = 0;
  }
}
