import type { Change } from '../core/membership.js';
import type { RoundTrip } from '../core/probe.js';
import type { Claim, MemberState } from '../wire/claim.js';

/** A member of the group, ourselves included. */
export interface Member {
  readonly id: string;
  readonly address: string;
  readonly port: number;
  readonly state: MemberState;
  readonly incarnation: number;
  /** Smoothed round trip in milliseconds; absent before the first direct probe was answered. */
  readonly rttMs?: number;
}

export interface MemberChange {
  /** As it is now. */
  readonly member: Member;
  /**
   * State before; `undefined`: new. The same as now: only the address changed, or, of ourselves,
   * the incarnation.
   */
  readonly from: MemberState | undefined;
  /** Long dead or left, and no longer in the book. */
  readonly forgotten: boolean;
}

/** The main thread's copy of the member table. */
export class MemberBook {
  readonly #members = new Map<string, Member>();
  readonly #listeners = new Set<(change: MemberChange) => void>();

  constructor(self: Member) {
    this.#members.set(self.id, self);
  }

  all(): Member[] {
    return [...this.#members.values()];
  }

  countByState(): Record<MemberState, number> {
    const counts = { alive: 0, suspect: 0, dead: 0, left: 0 };
    for (const { state } of this.#members.values()) counts[state] += 1;
    return counts;
  }

  onChange(listener: (change: MemberChange) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  onChanges(changes: readonly Change[]): void {
    for (const { claim, from, forgotten } of changes) {
      const member = memberOf(claim, this.#members.get(claim.member)?.rttMs);
      if (forgotten) this.#members.delete(member.id);
      else this.#members.set(member.id, member);
      for (const listener of this.#listeners) listener({ member, from, forgotten });
    }
  }

  onRoundTrips(news: readonly RoundTrip[]): void {
    for (const { member: id, rttMs } of news) {
      const member = this.#members.get(id);
      if (member !== undefined) this.#members.set(id, { ...member, rttMs });
    }
  }
}

function memberOf(claim: Claim, rttMs: number | undefined): Member {
  const { member: id, state, incarnation } = claim;
  return { id, ...claim.endpoint, state, incarnation, ...(rttMs === undefined ? {} : { rttMs }) };
}
