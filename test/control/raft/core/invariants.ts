import { assert } from '../../../../src/base/assert.js';
import type { Group, GroupMember } from '../group.js';

/** What the Raft paper's figure 3 promises, and that reads are linearizable, looked at after every step. */
export class Invariants {
  readonly counts = { leaders: 0, applied: 0, reads: 0, restores: 0, memberships: 0 };
  readonly #group: Group;
  readonly #leaderOf = new Map<number, number>();
  /** Term and content of every entry that any member applied. */
  readonly #applied = new Map<number, string>();
  #appliedTo = 0;
  readonly #checkedTo = new Map<
    number,
    { readonly raft: unknown; commit: number; applied: number }
  >();
  /** The commit index that a read must cover, by member and request. */
  readonly #readFloor = new Map<string, number>();

  constructor(group: Group) {
    this.#group = group;
    for (const member of group.members.values()) this.#wrap(member);
  }

  /** Does something with the group, and checks. */
  watch(act: () => void): void {
    const before = this.#group.members.size;
    act();
    if (this.#group.members.size > before)
      for (const member of this.#group.members.values()) this.#wrap(member);
    for (const member of this.#group.members.values()) if (member.up) this.#check(member);
  }

  /** The group is at rest: one leader, and everybody who is a member has the same. */
  checkRest(): void {
    const group = this.#group;
    const leaders = [...group.members.values()].filter(
      ({ raft }) => raft.status().role === 'leader',
    );
    const [leader] = leaders;
    assert(leader !== undefined, 'there is a leader');
    const status = leader.raft.status();
    group.step(leader.id, { kind: 'propose', token: -1, data: Buffer.from('at rest') });
    group.run(500);
    assert(leader.appliedIndex === leader.raft.lastIndex, 'the last proposal is applied');
    for (const { id } of status.members) {
      const { raft, appliedIndex } = group.member(id);
      assert(appliedIndex === leader.appliedIndex, `member ${id} has what the leader has`);
      for (let index = raft.lastIndex; raft.termAt(index) !== undefined && index > 0; index--) {
        const other = leader.raft.termAt(index);
        assert(
          other === undefined || other === raft.termAt(index),
          `${id} has the log at ${index}`,
        );
      }
    }
  }

  #check(member: GroupMember): void {
    const { raft, id } = member;
    const status = raft.status();
    if (status.role === 'leader') this.#checkLeader(member, status.term);
    const known = this.#checkedTo.get(id);
    const last = known?.raft === raft ? known : { raft, commit: 0, applied: 0 };
    this.#checkedTo.set(id, last);
    assert(status.commitIndex >= last.commit, `${id}: the commit index goes back`);
    last.commit = status.commitIndex;
    this.#checkApplied(member, last);
    this.#checkReads(member);
  }

  #checkLeader({ id, raft }: GroupMember, term: number): void {
    const known = this.#leaderOf.get(term);
    assert(known === undefined || known === id, `term ${term} has two leaders`);
    if (known !== undefined) return;
    this.#leaderOf.set(term, id);
    this.counts.leaders++;
    for (const [index, entry] of this.#applied) {
      const own = raft.termAt(index);
      const isCovered = own === undefined && index < raft.status().commitIndex;
      assert(isCovered || entry.startsWith(`${own} `), `leader ${id} lacks applied entry ${index}`);
    }
  }

  #checkApplied(member: GroupMember, last: { applied: number }): void {
    const { applied, appliedIndex, disk } = member;
    if ((applied[0]?.index ?? appliedIndex) > last.applied + 1 && last.applied > 0)
      this.counts.restores++;
    for (const entry of applied) {
      if (entry.index <= last.applied) continue;
      const { index, term, kind } = entry;
      const text = `${term} ${kind} ${Buffer.from(entry.data).toString('hex')}`;
      const known = this.#applied.get(index);
      assert(known === undefined || known === text, `two entries are applied at ${index}`);
      this.#applied.set(index, text);
      assert(disk.termAt(index) === term, `${member.id} applied ${index} before it had it on disk`);
      this.counts.applied++;
      if (kind === 'members') this.counts.memberships++;
    }
    last.applied = appliedIndex;
    this.#appliedTo = Math.max(this.#appliedTo, appliedIndex);
  }

  #checkReads({ id, reads }: GroupMember): void {
    for (const { request, index } of reads.splice(0)) {
      const floor = this.#readFloor.get(`${id}/${request}`);
      assert(floor !== undefined, 'an answer is to a question');
      this.#readFloor.delete(`${id}/${request}`);
      assert(index === undefined || index >= floor, `${id} reads the past: ${index} of ${floor}`);
      if (index !== undefined) this.counts.reads++;
    }
  }

  /** Notes for every read what anybody had applied when it was asked for. */
  #wrap(member: GroupMember): void {
    member.onInput = (input) => {
      if (input.kind === 'read')
        this.#readFloor.set(`${member.id}/${input.request}`, this.#appliedTo);
    };
  }
}
