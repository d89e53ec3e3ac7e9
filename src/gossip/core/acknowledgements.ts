import { unreachable } from '../../base/assert.js';
import type { Core } from '../../base/core.js';

/** Questions to one member at a time: one may be held there, and others must not wait for it. */
const ASKS_MAX = 4;
/** Facts of one question. */
export const ASKED_FACTS_MAX = 256;
/** A question that is not answered is asked anew; the other end answers sooner, if only with nothing. */
const ASK_MS_MAX = 4000;
/** After a member could not be asked, or knew nothing: doubled each time. */
const RETRY_MS = 50;
const RETRY_MS_MAX = 1000;
/** Waits at a time; a further one is over at once, as if its time had passed. */
export const ACKNOWLEDGEMENT_WAITS_MAX = 8192;

export type AcknowledgementInput =
  | { readonly kind: 'timeout' }
  /** Until all members say that all of these are so, but no longer than `forMs`. `id` is new. */
  | {
      readonly kind: 'wait';
      readonly id: number;
      readonly facts: readonly string[];
      readonly forMs: number;
    }
  /** Nobody waits any more; it is not told as settled. */
  | { readonly kind: 'cancel'; readonly id: number }
  /** Who is to be asked: those that are alive, or may be. */
  | { readonly kind: 'members'; readonly ids: readonly string[] }
  /** Of the facts asked for, these are so; the others are not yet. */
  | { readonly kind: 'answer'; readonly ask: number; readonly facts: readonly string[] }
  | { readonly kind: 'failed'; readonly ask: number };

/** What the shell must now do, in this order. */
export interface AcknowledgementReady {
  readonly asks: readonly {
    readonly ask: number;
    readonly member: string;
    readonly facts: readonly string[];
  }[];
  /** Waits that are over; `missing`: members that had not said so when the time was up. */
  readonly settled: readonly { readonly id: number; readonly missing: readonly string[] }[];
}

interface Wait {
  readonly facts: readonly string[];
  readonly deadlineMs: number;
}

interface Member {
  /** Facts that it has acknowledged, of those that somebody waits for. */
  readonly known: Set<string>;
  readonly asks: Map<number, { readonly facts: readonly string[]; readonly deadlineMs: number }>;
  retryAtMs: number;
  failures: number;
}

/**
 * Finds out when something is so on all live members: that they have applied what this node
 * published, say. Each member is asked until it says so, is found dead, or the time is up.
 *
 * A fact is a text to it. It must be one that, once so, stays so for the life of that member.
 */
export class Acknowledgements implements Core<AcknowledgementInput, AcknowledgementReady> {
  readonly #waits = new Map<number, Wait>();
  /** Who waits for a fact. */
  readonly #waiting = new Map<string, Set<number>>();
  readonly #members = new Map<string, Member>();
  /** Whom a question was put to. */
  readonly #askedOf = new Map<number, string>();
  #askCount = 0;
  #asks: AcknowledgementReady['asks'][number][] = [];
  #settled: AcknowledgementReady['settled'][number][] = [];

  get waitCount(): number {
    return this.#waits.size;
  }

  step(input: AcknowledgementInput, nowMs: number): void {
    switch (input.kind) {
      case 'timeout':
        break;
      case 'wait':
        this.#onWait(input.id, input.facts, nowMs + input.forMs);
        break;
      case 'cancel':
        this.#drop(input.id);
        break;
      case 'members':
        this.#onMembers(input.ids);
        break;
      case 'answer':
        this.#onAnswer(input.ask, input.facts, nowMs);
        break;
      case 'failed':
        this.#onFailed(input.ask, nowMs);
        break;
      default:
        unreachable(input);
    }
    this.#onTime(nowMs);
  }

  takeReady(): AcknowledgementReady {
    const ready = { asks: this.#asks, settled: this.#settled };
    this.#asks = [];
    this.#settled = [];
    return ready;
  }

  nextDeadlineMs(): number | undefined {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const { deadlineMs } of this.#waits.values()) nextMs = Math.min(nextMs, deadlineMs);
    for (const member of this.#members.values()) {
      for (const { deadlineMs } of member.asks.values()) nextMs = Math.min(nextMs, deadlineMs);
      if (member.asks.size < ASKS_MAX && this.#lacks(member, 1).length > 0)
        nextMs = Math.min(nextMs, member.retryAtMs);
    }
    return nextMs === Number.POSITIVE_INFINITY ? undefined : nextMs;
  }

  #onWait(id: number, facts: readonly string[], deadlineMs: number): void {
    if (this.#waits.size >= ACKNOWLEDGEMENT_WAITS_MAX) {
      this.#settled.push({ id, missing: [...this.#members.keys()] });
      return;
    }
    this.#waits.set(id, { facts, deadlineMs });
    for (const fact of facts) {
      const ids = this.#waiting.get(fact) ?? new Set();
      this.#waiting.set(fact, ids.add(id));
    }
    this.#settleIfDone(id);
  }

  #onMembers(ids: readonly string[]): void {
    const named = new Set(ids);
    for (const [id, { asks }] of this.#members) {
      if (named.has(id)) continue;
      this.#members.delete(id);
      for (const ask of asks.keys()) this.#askedOf.delete(ask);
    }
    for (const id of named)
      if (!this.#members.has(id))
        this.#members.set(id, { known: new Set(), asks: new Map(), retryAtMs: 0, failures: 0 });
    for (const id of [...this.#waits.keys()]) this.#settleIfDone(id);
  }

  #onAnswer(ask: number, facts: readonly string[], nowMs: number): void {
    const { member, asked } = this.#answered(ask);
    if (member === undefined) return;
    const wanted = new Set(asked);
    const isNews = facts.some((fact) => wanted.has(fact));
    if (isNews) member.failures = 0;
    else this.#pause(member, nowMs);
    for (const fact of facts) {
      const ids = wanted.has(fact) ? this.#waiting.get(fact) : undefined;
      if (ids === undefined) continue;
      member.known.add(fact);
      for (const id of [...ids]) this.#settleIfDone(id);
    }
  }

  #onFailed(ask: number, nowMs: number): void {
    const { member } = this.#answered(ask);
    if (member !== undefined) this.#pause(member, nowMs);
  }

  #answered(ask: number): { readonly member?: Member; readonly asked?: readonly string[] } {
    const member = this.#members.get(this.#askedOf.get(ask) ?? '');
    const asked = member?.asks.get(ask)?.facts;
    this.#askedOf.delete(ask);
    if (member === undefined || asked === undefined) return {};
    member.asks.delete(ask);
    return { member, asked };
  }

  #pause(member: Member, nowMs: number): void {
    const pauseMs = Math.min(RETRY_MS * 2 ** member.failures, RETRY_MS_MAX);
    member.failures = Math.min(member.failures + 1, 10);
    member.retryAtMs = nowMs + pauseMs;
  }

  #onTime(nowMs: number): void {
    for (const [id, { deadlineMs }] of this.#waits)
      if (deadlineMs <= nowMs) this.#settle(id, this.#missingOf(id));
    for (const [name, member] of this.#members) {
      for (const [ask, { deadlineMs }] of member.asks)
        if (deadlineMs <= nowMs) this.#onFailed(ask, nowMs);
      if (member.retryAtMs <= nowMs) this.#ask(name, member, nowMs);
    }
  }

  #ask(name: string, member: Member, nowMs: number): void {
    while (member.asks.size < ASKS_MAX) {
      const facts = this.#lacks(member, ASKED_FACTS_MAX);
      if (facts.length === 0) return;
      this.#askCount += 1;
      member.asks.set(this.#askCount, { facts, deadlineMs: nowMs + ASK_MS_MAX });
      this.#askedOf.set(this.#askCount, name);
      this.#asks.push({ ask: this.#askCount, member: name, facts });
    }
  }

  /** What a member is still to be asked for. */
  #lacks(member: Member, countMax: number): readonly string[] {
    const asked = new Set([...member.asks.values()].flatMap(({ facts }) => facts));
    const lacking: string[] = [];
    for (const fact of this.#waiting.keys()) {
      if (lacking.length >= countMax) break;
      if (!member.known.has(fact) && !asked.has(fact)) lacking.push(fact);
    }
    return lacking;
  }

  #missingOf(id: number): readonly string[] {
    const facts = this.#waits.get(id)?.facts ?? [];
    const missing: string[] = [];
    for (const [name, { known }] of this.#members)
      if (!facts.every((fact) => known.has(fact))) missing.push(name);
    return missing;
  }

  #settleIfDone(id: number): void {
    if (this.#waits.has(id) && this.#missingOf(id).length === 0) this.#settle(id, []);
  }

  #settle(id: number, missing: readonly string[]): void {
    this.#drop(id);
    this.#settled.push({ id, missing });
  }

  #drop(id: number): void {
    const facts = this.#waits.get(id)?.facts ?? [];
    this.#waits.delete(id);
    for (const fact of facts) {
      const ids = this.#waiting.get(fact);
      ids?.delete(id);
      if (ids === undefined || ids.size > 0) continue;
      this.#waiting.delete(fact);
      for (const { known } of this.#members.values()) known.delete(fact);
    }
  }
}
