import { assert } from '../../../base/assert.js';
import { decodeMembers, membersFit } from '../wire/members.js';
import type {
  LogEntry,
  LogIndex,
  Member,
  MemberChange,
  Membership,
  RaftId,
  SnapshotMeta,
} from './types.js';

/** A membership and the entry it came with. */
export interface MembershipStep {
  readonly index: LogIndex;
  readonly members: Membership;
}

/**
 * The memberships of the log, the latest of which is in effect whether committed or not; so one that is cut
 * off the log takes its effect with it (thesis, 4.1).
 */
export class MembershipHistory {
  /** Oldest first; the first one is that of the log's base. Never empty. */
  #steps: MembershipStep[];
  #voters: readonly RaftId[] = [];

  constructor(base: SnapshotMeta) {
    this.#steps = [{ index: base.index, members: base.members }];
    this.#refresh();
  }

  get current(): Membership {
    return this.#latest.members;
  }

  /** Where the membership in effect is in the log. */
  get index(): LogIndex {
    return this.#latest.index;
  }

  get voters(): readonly RaftId[] {
    return this.#voters;
  }

  find(id: RaftId): Member | undefined {
    return this.current.find((member) => member.id === id);
  }

  isVoter(id: RaftId): boolean {
    return this.#voters.includes(id);
  }

  /**
   * Whether elections may need `id`: as a voter, or as one that is removed by a membership which is not committed
   * yet. Only its log may have that membership, and then nobody else could be elected (thesis, 4.2.2).
   */
  mayBeNeeded(id: RaftId, commitIndex: LogIndex): boolean {
    if (this.isVoter(id)) return true;
    const before = this.index > commitIndex ? this.#steps.at(-2) : undefined;
    return before?.members.some((member) => member.id === id && member.voter) ?? false;
  }

  add(step: MembershipStep): void {
    assert(step.index > this.index, 'memberships come in the order of the log');
    this.#steps.push(step);
    this.#refresh();
  }

  cutFrom(index: LogIndex): void {
    while (this.index >= index && this.#steps.length > 1) this.#steps.pop();
    this.#refresh();
  }

  compactTo(index: LogIndex): void {
    while (this.#steps.length > 1 && (this.#steps[1] as MembershipStep).index <= index)
      this.#steps.shift();
  }

  reset(base: SnapshotMeta): void {
    this.#steps = [{ index: base.index, members: base.members }];
    this.#refresh();
  }

  get #latest(): MembershipStep {
    return this.#steps.at(-1) as MembershipStep;
  }

  #refresh(): void {
    this.#voters = this.current.filter(({ voter }) => voter).map(({ id }) => id);
  }
}

/** The memberships among entries; `undefined`: one of them is nonsense. */
export function membershipsIn(entries: readonly LogEntry[]): MembershipStep[] | undefined {
  const steps: MembershipStep[] = [];
  for (const { index, kind, data } of entries) {
    if (kind !== 'members') continue;
    const members = decodeMembers(data);
    if (members === undefined || !isUsable(members)) return undefined;
    steps.push({ index, members });
  }
  return steps;
}

/** Without a voter nothing could ever be decided again. */
export function isUsable(members: Membership): boolean {
  return members.some(({ voter }) => voter);
}

/**
 * One step from `members`. At most one voter comes or goes, so that a quorum before the change and one after it
 * always share a member. `undefined`: it makes no sense, or is no change.
 */
export function changed(members: Membership, change: MemberChange): Membership | undefined {
  const next = applied(members, change);
  return next !== undefined && isUsable(next) && membersFit(next) ? next : undefined;
}

function applied(members: Membership, change: MemberChange): Membership | undefined {
  const { id } = change;
  const old = members.find((member) => member.id === id);
  const replaced = (by: Partial<Member>) =>
    members.map((member) => (member.id === id ? { ...member, ...by } : member));
  if (change.kind === 'add_learner') {
    if (old !== undefined) return undefined;
    return [...members, { id, voter: false, context: change.context }];
  }
  if (old === undefined) return undefined;
  if (change.kind === 'remove') return members.filter((member) => member.id !== id);
  if (change.kind === 'describe')
    return old.context === change.context ? undefined : replaced({ context: change.context });
  return old.voter ? undefined : replaced({ voter: true });
}
