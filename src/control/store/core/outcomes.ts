import type { Refusal } from '../../wire/refusal.js';

/** What became of a command, as it is remembered. */
export type Outcome = { readonly ids: readonly string[] } | { readonly refusal: Refusal };

/**
 * Outcomes that are remembered, of all proposers together. A proposer that asks again does so within
 * seconds, in which no leader gets through more commands than this with somebody still waiting.
 */
const OUTCOMES_MAX = 4_096;

/** The latest outcomes by what their proposers call them; the same on every manager. */
export class Outcomes {
  readonly #byDedupe = new Map<string, Outcome>();

  get(dedupe: string): Outcome | undefined {
    return this.#byDedupe.get(dedupe);
  }

  /** An empty `dedupe` is nobody's, and is not remembered. */
  add(dedupe: string, outcome: Outcome): void {
    if (dedupe === '') return;
    this.#byDedupe.set(dedupe, outcome);
    if (this.#byDedupe.size <= OUTCOMES_MAX) return;
    const [oldest] = this.#byDedupe.keys();
    if (oldest !== undefined) this.#byDedupe.delete(oldest);
  }

  /** The oldest first. */
  entries(): readonly (readonly [string, Outcome])[] {
    return [...this.#byDedupe];
  }

  replace(entries: Iterable<readonly [string, Outcome]>): void {
    this.#byDedupe.clear();
    for (const [dedupe, outcome] of entries) this.add(dedupe, outcome);
  }
}
