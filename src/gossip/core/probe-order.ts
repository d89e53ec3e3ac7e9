import type { Prng } from '../../base/prng.js';
import type { MemberId } from '../wire/claim.js';

/**
 * Round-robin over a shuffled list, shuffled anew at each wrap (SWIM §4.3): every member is probed
 * within twice as many rounds as there are members, and nobody can tell when.
 */
export class ProbeOrder {
  readonly #prng: Prng;
  readonly #list: MemberId[] = [];
  readonly #known = new Set<MemberId>();
  #next = 0;

  constructor(prng: Prng) {
    this.#prng = prng;
  }

  /** At a random place of what is left of the round, so that news is not always probed last. */
  add(member: MemberId): void {
    if (this.#known.has(member)) return;
    this.#known.add(member);
    this.#list.push(member);
    const last = this.#list.length - 1;
    const place = this.#next + this.#prng.nextBelow(last + 1 - this.#next);
    this.#list[last] = this.#list[place] as MemberId;
    this.#list[place] = member;
  }

  /** It leaves the list when its turn comes. */
  remove(member: MemberId): void {
    this.#known.delete(member);
  }

  next(): MemberId | undefined {
    for (let looked = 0; looked <= this.#list.length; looked++) {
      if (this.#next >= this.#list.length) this.#wrap();
      const member = this.#list[this.#next];
      this.#next += 1;
      if (member !== undefined && this.#known.has(member)) return member;
    }
    return undefined;
  }

  #wrap(): void {
    this.#list.length = 0;
    this.#list.push(...this.#known);
    this.#prng.shuffle(this.#list);
    this.#next = 0;
  }
}
