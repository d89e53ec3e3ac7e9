import t from 'tap';
import {
  changed,
  MembershipHistory,
  membershipsIn,
} from '../../../../src/control/raft/core/membership.js';
import type { MemberChange } from '../../../../src/control/raft/core/types.js';
import { encodeMembers } from '../../../../src/control/raft/wire/members.js';
import { membersOf, raftId } from '../group.js';
import { membersText } from '../transcript.js';

const id = raftId;

t.test('a change is one step, or makes no sense', async (t) => {
  const cases: readonly (readonly [string, MemberChange, string | undefined])[] = [
    ['a new learner', { kind: 'add_learner', id: id(4), context: 'm4' }, '1 2 3? 4?'],
    ['a member again', { kind: 'add_learner', id: id(3), context: 'm3' }, undefined],
    ['a learner may vote', { kind: 'promote', id: id(3) }, '1 2 3'],
    ['a voter already', { kind: 'promote', id: id(2) }, undefined],
    ['a stranger may not', { kind: 'promote', id: id(9) }, undefined],
    ['a voter goes', { kind: 'remove', id: id(2) }, '1 3?'],
    ['a learner goes', { kind: 'remove', id: id(3) }, '1 2'],
    ['a stranger goes', { kind: 'remove', id: id(9) }, undefined],
    ['another address', { kind: 'describe', id: id(2), context: 'x' }, '1 2(x) 3?'],
    ['the same address', { kind: 'describe', id: id(2), context: 'm2' }, undefined],
    ['a stranger’s address', { kind: 'describe', id: id(9), context: 'x' }, undefined],
    [
      'too much of an address',
      { kind: 'describe', id: id(2), context: 'x'.repeat(2_000) },
      undefined,
    ],
  ];
  for (const [name, change, want] of cases) {
    const next = changed(membersOf([1, 2, 3], [3]), change);
    t.equal(next && membersText(next), want, name);
  }
});

t.test('the last voter stays, whatever learners there are', async (t) => {
  t.equal(changed(membersOf([1, 2], [2]), { kind: 'remove', id: id(1) }), undefined);
});

t.test('there are so many members and no more', async (t) => {
  const many = membersOf(Array.from({ length: 64 }, (_, i) => i + 1));
  t.equal(changed(many, { kind: 'add_learner', id: id(99), context: '' }), undefined);
});

t.test('the latest membership counts, and a cut brings back the one before', async (t) => {
  const history = new MembershipHistory({ index: 5, term: 1, members: membersOf([1, 2, 3]) });
  history.add({ index: 7, members: membersOf([1, 2, 3, 4], [4]) });
  history.add({ index: 9, members: membersOf([1, 2, 3, 4]) });
  t.strictSame([history.index, history.voters], [9, [1, 2, 3, 4]]);
  t.ok(history.isVoter(id(4)));
  history.cutFrom(10);
  t.equal(history.index, 9, 'what is before the cut stays');
  history.cutFrom(9);
  t.strictSame([history.index, history.voters], [7, [1, 2, 3]]);
  t.equal(history.find(id(4))?.voter, false);
  history.cutFrom(6);
  t.equal(membersText(history.current), '1 2 3');
  history.cutFrom(1);
  t.equal(membersText(history.current), '1 2 3', 'the base is never cut off');
});

t.test('compaction keeps what is in effect at the new base', async (t) => {
  const history = new MembershipHistory({ index: 0, term: 0, members: membersOf([1]) });
  for (const index of [3, 6, 9]) history.add({ index, members: membersOf([1, index], [index]) });
  history.compactTo(7);
  history.cutFrom(8);
  t.equal(membersText(history.current), '1 6?');
  history.reset({ index: 20, term: 4, members: membersOf([8]) });
  t.strictSame([history.index, history.voters], [20, [8]]);
});

t.test('elections may need a removed voter until its removal is committed', async (t) => {
  const history = new MembershipHistory({ index: 0, term: 0, members: membersOf([1, 2, 3], [3]) });
  history.add({ index: 4, members: membersOf([2, 3], [3]) });
  t.ok(history.mayBeNeeded(id(2), 0));
  t.ok(history.mayBeNeeded(id(1), 3));
  t.notOk(history.mayBeNeeded(id(1), 4));
  t.notOk(history.mayBeNeeded(id(3), 3), 'a learner never');
});

t.test('memberships are read from the log, all or nothing', async (t) => {
  const entry = (index: number, data: Uint8Array) =>
    ({ index, term: 1, kind: 'members', data }) as const;
  const command = { index: 1, term: 1, kind: 'command', data: Buffer.of(9) } as const;
  const good = encodeMembers(membersOf([1, 2]));
  const steps = membershipsIn([command, entry(2, good)]);
  t.strictSame(steps, [{ index: 2, members: membersOf([1, 2]) }]);
  t.equal(membershipsIn([entry(2, good), entry(3, Buffer.of(1))]), undefined);
  t.equal(membershipsIn([entry(2, encodeMembers([]))]), undefined, 'nobody votes');
});
