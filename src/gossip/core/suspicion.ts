import type { MemberId } from '../wire/claim.js';
import type { SwimConfig } from './config.js';

/** The shortest suspicion, that of a member whom enough others suspect. */
export function suspicionMsMin(
  config: Pick<SwimConfig, 'suspicionMult' | 'probeIntervalMs'>,
  membersCount: number,
): number {
  const scale = Math.max(1, Math.log10(Math.max(1, membersCount)));
  return config.suspicionMult * scale * config.probeIntervalMs;
}

/**
 * How long a suspicion lasts from its start (Lifeguard §IV.B): from `msMax` without confirmations
 * it falls, ever more slowly, to `msMin` at `wanted` confirmations.
 */
export function suspicionMs(
  confirmations: number,
  wanted: number,
  msMin: number,
  msMax: number,
): number {
  if (wanted < 1) return msMin;
  const share = Math.log(confirmations + 1) / Math.log(wanted + 1);
  return Math.max(msMin, Math.floor(msMax - share * (msMax - msMin)));
}

/** The wait between silence and death of one member, at one incarnation. */
export class Suspicion {
  readonly #wanted: number;
  readonly #msMin: number;
  readonly #msMax: number;
  /** First come, first kept; at most `wanted` + 1. */
  readonly #reporters = new Set<MemberId>();
  readonly #goneReporters = new Set<MemberId>();
  readonly #goneReportersMax: number;
  #startMs: number;
  /** Absolute time that brings death forward: evidence, or others' verdict. */
  #cappedAtMs = Number.POSITIVE_INFINITY;
  readonly #lastCallMs: number;
  #calledAtMs: number | undefined;

  /** @param membersCount Members that could confirm, the accused not among them. */
  constructor(config: SwimConfig, membersCount: number, nowMs: number) {
    const wanted = config.suspicionMult - 2;
    // Too few members for the confirmations wanted: nobody waits for them.
    this.#wanted = membersCount - 1 < wanted ? 0 : wanted;
    this.#msMin = suspicionMsMin(config, membersCount + 1);
    this.#msMax = this.#wanted === 0 ? this.#msMin : config.suspicionMaxMult * this.#msMin;
    this.#goneReportersMax = Math.min(config.evidenceReportersCount, Math.max(1, membersCount));
    this.#lastCallMs = config.probeTimeoutMs;
    this.#startMs = nowMs;
  }

  get startMs(): number {
    return this.#startMs;
  }

  /** Whether anybody found the member's process gone. */
  get isEvident(): boolean {
    return this.#goneReporters.size > 0;
  }

  /**
   * Whether enough found it gone. In a group of two there is no second witness to wait for.
   */
  get isProven(): boolean {
    return this.#goneReporters.size >= this.#goneReportersMax;
  }

  /** Whoever reported first, to be named when the suspicion is passed on. */
  get reporter(): MemberId | undefined {
    for (const reporter of this.#goneReporters) return reporter;
    for (const reporter of this.#reporters) return reporter;
    return undefined;
  }

  /** Whether this report said something new that others should hear, too. */
  confirm(reporter: MemberId, gone: boolean): boolean {
    let isNews = false;
    const goneMax = this.#goneReportersMax;
    if (gone && this.#goneReporters.size < goneMax && !this.#goneReporters.has(reporter)) {
      this.#goneReporters.add(reporter);
      isNews = true;
    }
    if (this.#reporters.size <= this.#wanted && !this.#reporters.has(reporter)) {
      this.#reporters.add(reporter);
      isNews = true;
    }
    return isNews;
  }

  /** Death comes at `atMs` at the latest. */
  capAt(atMs: number): void {
    this.#cappedAtMs = Math.min(this.#cappedAtMs, atMs);
  }

  /** The time that we ourselves slept is not held against the suspect. */
  shift(byMs: number): void {
    this.#startMs += byMs;
    this.#cappedAtMs += byMs;
    if (this.#calledAtMs !== undefined) this.#calledAtMs += byMs;
  }

  /** The suspect was asked once more, directly; it has `probeTimeoutMs` to say that it lives. */
  called(nowMs: number): void {
    this.#calledAtMs ??= nowMs;
  }

  get isCalled(): boolean {
    return this.#calledAtMs !== undefined;
  }

  /** When to make the last call, or, once it is made, when to declare the suspect dead. */
  deadlineMs(): number {
    const deathMs = this.#deathMs();
    if (this.isProven) return deathMs;
    if (this.#calledAtMs === undefined) return deathMs - this.#lastCallMs;
    return Math.max(deathMs, this.#calledAtMs + this.#lastCallMs);
  }

  #deathMs(): number {
    const confirmations = Math.max(0, this.#reporters.size - 1);
    const waitMs = suspicionMs(confirmations, this.#wanted, this.#msMin, this.#msMax);
    return Math.min(this.#startMs + waitMs, this.#cappedAtMs);
  }
}
