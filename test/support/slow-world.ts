import { Prng } from '../../src/base/prng.js';
import type { Ticket } from '../../src/dataplane/core/balance/backend-set.js';
import type { BalanceConfig } from '../../src/dataplane/core/balance/config.js';
import { SILENCE_MS } from '../../src/dataplane/core/balance/config.js';
import { balancerOf, client, entries } from '../dataplane/core/balance/support.js';

/** How long a backend takes for a flow that begins now. */
export type Wait = (nowMs: number, prng: Prng) => number;

interface WorldOptions {
  readonly config?: Partial<BalanceConfig>;
  /** New flows a second, of all backends together. */
  readonly rate: number;
  readonly seed: number;
}

type Due = { readonly ticket: Ticket; readonly waitedMs: number };

/**
 * A service in virtual time: flows that begin by chance, and backends that take their time, told to a balancer as
 * drivers do. Backends are `task0` and so on.
 */
export class SlowWorld {
  readonly #waits: readonly Wait[];
  readonly #prng: Prng;
  readonly #rate: number;
  readonly #due = new Map<number, Due[]>();
  readonly balancer;
  readonly given: number[];
  readonly lastMs: number[];
  readonly ejectedAtMs: (number | undefined)[];
  #nowMs = 0;
  #nextMs = 0;

  constructor(waits: readonly Wait[], { config = {}, rate, seed }: WorldOptions) {
    this.#waits = waits;
    this.#prng = new Prng(seed);
    this.#rate = rate;
    this.balancer = balancerOf(config, entries(waits.length), seed);
    this.given = waits.map(() => 0);
    this.lastMs = waits.map(() => Number.NEGATIVE_INFINITY);
    this.ejectedAtMs = waits.map(() => undefined);
  }

  get ejected(): number[] {
    return this.#waits.flatMap((_, i) => (this.balancer.isEjected(`task${i}`) ? [i] : []));
  }

  /** Those that were ejected at any time. */
  get everEjected(): number[] {
    return this.ejectedAtMs.flatMap((atMs, i) => (atMs === undefined ? [] : [i]));
  }

  run(untilMs: number): this {
    for (; this.#nowMs < untilMs; this.#nowMs += 1) {
      const due = this.#due.get(this.#nowMs);
      if (due !== undefined) this.#answer(due);
      this.#due.delete(this.#nowMs);
      for (; this.#nextMs <= this.#nowMs; this.#nextMs += this.#gapMs()) this.#begin();
    }
    return this;
  }

  #gapMs(): number {
    return (-Math.log(1 - this.#prng.nextFloat()) * 1000) / this.#rate;
  }

  #begin(): void {
    const { balancer } = this;
    const ticket = balancer.choose(client(this.#prng.nextBelow(1000)), 0, this.#nowMs);
    const index = Number(balancer.keyOf(ticket)?.slice(4));
    const waitedMs = Math.max(1, Math.round((this.#waits[index] as Wait)(this.#nowMs, this.#prng)));
    this.given[index] = (this.given[index] as number) + 1;
    this.lastMs[index] = this.#nowMs;
    if (waitedMs > SILENCE_MS) this.#at(this.#nowMs + SILENCE_MS, { ticket, waitedMs: Infinity });
    this.#at(this.#nowMs + waitedMs, { ticket, waitedMs });
  }

  #at(ms: number, due: Due): void {
    const others = this.#due.get(ms);
    if (others === undefined) this.#due.set(ms, [due]);
    else others.push(due);
  }

  #answer(due: readonly Due[]): void {
    for (const { ticket, waitedMs } of due) {
      if (waitedMs === Infinity) this.balancer.silent(ticket, this.#nowMs);
      else if (waitedMs <= SILENCE_MS) this.balancer.succeeded(ticket, this.#nowMs, waitedMs);
      if (waitedMs !== Infinity) this.balancer.ended(ticket);
      const index = Number(this.balancer.keyOf(ticket)?.slice(4));
      if (this.balancer.isEjected(`task${index}`)) this.ejectedAtMs[index] ??= this.#nowMs;
    }
  }
}
