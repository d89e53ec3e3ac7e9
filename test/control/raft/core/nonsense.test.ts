import fc from 'fast-check';
import t from 'tap';
import { RAFT_DROPS } from '../../../../src/control/raft/core/drops.js';
import type { LogEntry } from '../../../../src/control/raft/core/types.js';
import { encodeMembers } from '../../../../src/control/raft/wire/members.js';
import type { MessageBody } from '../../../../src/control/raft/wire/records.js';
import { membersOf, raftId } from '../group.js';
import { messageArb, runs } from '../wire/arbitrary.js';
import { append, heartbeat, logOf, Single } from './single.js';

const entry = (index: number, term: number, of: Partial<LogEntry> = {}): LogEntry => ({
  index,
  term,
  kind: 'command',
  data: Buffer.of(1),
  ...of,
});

const membersEntry = (data: Uint8Array) => entry(1, 1, { kind: 'members', data });
const accepted = (index: number): MessageBody => ({
  kind: 'append_reply',
  index,
  accepted: true,
  hintIndex: 0,
  hintTerm: 0,
});

t.test('a follower takes no nonsense, and counts it by reason', async (t) => {
  const cases: readonly (readonly [string, MessageBody, (typeof RAFT_DROPS)[number]])[] = [
    ['a gap before', append([0, 0], [entry(2, 1)]), 'entries_invalid'],
    ['a gap within', append([0, 0], [entry(1, 1), entry(3, 1)]), 'entries_invalid'],
    ['the same twice', append([0, 0], [entry(1, 1), entry(1, 1)]), 'entries_invalid'],
    ['terms that decrease', append([0, 0], [entry(1, 2), entry(2, 1)]), 'entries_invalid'],
    ['a term of the future', append([0, 0], [entry(1, 4)]), 'entries_invalid'],
    ['a previous term of the future', append([3, 9]), 'entries_invalid'],
    [
      'members that cannot be read',
      append([0, 0], [membersEntry(Buffer.of(9))]),
      'members_invalid',
    ],
    [
      'members without a voter',
      append([0, 0], [membersEntry(encodeMembers(membersOf([1], [1])))]),
      'members_invalid',
    ],
    [
      'a snapshot without a voter',
      { kind: 'snapshot', meta: { index: 9, term: 1, members: [] } },
      'snapshot_invalid',
    ],
    [
      'a snapshot of the future',
      { kind: 'snapshot', meta: { index: 9, term: 4, members: membersOf([1]) } },
      'snapshot_invalid',
    ],
    ['a commit index beyond the log', heartbeat(7), 'beyond_log'],
    ['an answer to an append', accepted(1), 'unexpected'],
    ['an answer to a heartbeat', { kind: 'heartbeat_reply', readRound: 0 }, 'unexpected'],
    ['a vote', { kind: 'vote_reply', granted: true }, 'unexpected'],
    ['an answer to a read', { kind: 'read_index_reply', request: 3, index: 1 }, 'unexpected'],
    ['a question for the leader', { kind: 'read_index', request: 3 }, 'unexpected'],
  ];
  for (const [name, body, drop] of cases) {
    const member = new Single([1, 2, 3], { hardState: { term: 3 } });
    member.hear(2, 3, body);
    t.equal(member.raft.lastIndex, 0, name);
    t.equal(member.status.commitIndex, 0, name);
    t.equal(member.raft.drops[drop], 1, name);
  }
});

t.test('what is committed is not replaced, whoever says so', async (t) => {
  const options = { entries: logOf(1, 1, 1), hardState: { commitIndex: 2 } };
  const member = new Single([1, 2, 3], options);
  member.hear(2, 5, append([2, 3], [entry(3, 4)]));
  t.equal(member.raft.drops.committed_conflict, 1);
  t.strictSame(member.terms, [1, 1, 1]);
  // What is committed is not compared again, for it is the same everywhere; but what comes after must fit it.
  member.hear(2, 5, append([1, 1], [entry(2, 4), entry(3, 4)]));
  t.equal(member.raft.drops.committed_conflict, 2);
  t.strictSame(member.terms, [1, 1, 1]);
});

t.test('an append from before what is committed is answered by that', async (t) => {
  const options = { entries: logOf(1, 1, 1), hardState: { commitIndex: 3 } };
  const member = new Single([1, 2, 3], options);
  member.hear(2, 1, append([0, 0], logOf(1, 1)));
  member.flush();
  t.match(member.takeSent().at(-1)?.body, accepted(3));
  member.hear(2, 1, append([1, 1], logOf(1, 1, 1, 1).slice(1)));
  t.strictSame(member.terms, [1, 1, 1, 1], 'what reaches further is taken');
});

t.test('a second leader of one term is not believed', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, heartbeat());
  member.hear(3, 1, append([0, 0], logOf(1)));
  t.match(member.status, { leader: 2 });
  t.equal(member.raft.drops.second_leader, 1);
  t.equal(member.raft.lastIndex, 0);
});

t.test('a leader takes no nonsense either', async (t) => {
  const cases: readonly (readonly [string, number, MessageBody, (typeof RAFT_DROPS)[number]])[] = [
    ['more than its log', 2, accepted(99), 'beyond_log'],
    ['a round that never was', 2, { kind: 'heartbeat_reply', readRound: 5 }, 'beyond_log'],
    ['an answer of a stranger', 9, accepted(1), 'unknown_sender'],
    ['a heartbeat of a stranger', 9, { kind: 'heartbeat_reply', readRound: 0 }, 'unknown_sender'],
    ['a read of a stranger', 9, { kind: 'read_index', request: 1 }, 'unknown_sender'],
    ['an append of its own term', 3, append([0, 0]), 'second_leader'],
    ['to stand', 2, { kind: 'timeout_now' }, 'unexpected'],
  ];
  for (const [name, from, body, drop] of cases) {
    const leader = new Single([1, 2, 3]);
    leader.lead(2, 3);
    const before = { ...leader.raft.drops };
    leader.hear(from, 1, body);
    t.match(leader.status, { role: 'leader', commitIndex: 0 }, name);
    t.equal(leader.raft.drops[drop], before[drop] + 1, name);
  }
});

t.test('votes of strangers and learners elect nobody', async (t) => {
  for (const kind of ['pre_vote_reply', 'vote_reply'] as const) {
    const member = new Single([1, 2, 3]);
    member.step({ kind: 'campaign' });
    if (kind === 'vote_reply') {
      member.hear(2, 1, { kind: 'pre_vote_reply', granted: true });
      member.flush();
    }
    const { role } = member.status;
    for (const from of [7, 8, 9]) member.hear(from, 1, { kind, granted: true });
    t.equal(member.status.role, role, kind);
    t.equal(member.raft.drops.unknown_sender, 3, kind);
  }
});

t.test('messages to others or from this member itself are dropped', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(1, 9, heartbeat());
  const stray = { from: raftId(2), to: raftId(3), term: 9, kind: 'timeout_now' } as const;
  member.step({ kind: 'message', message: stray });
  t.equal(member.raft.drops.misaddressed, 2);
  t.equal(member.status.term, 0);
});

t.test('a leader has no use for a snapshot of an earlier term', async (t) => {
  const leader = new Single([1, 2, 3], { entries: logOf(1, 2) });
  leader.lead(2);
  const meta = { index: 9, term: 2, members: membersOf([7, 8]) };
  leader.hear(2, 2, { kind: 'snapshot', meta });
  t.match(leader.status, { role: 'leader', commitIndex: 0 });
  t.equal(leader.raft.drops.stale_term, 1);
});

t.test('every reason has a counter, which begins at 0', async (t) => {
  const { drops } = new Single([1, 2, 3]).raft;
  t.strictSame(Object.keys(drops).sort(), [...RAFT_DROPS].sort());
  t.ok(Object.values(drops).every((count) => count === 0));
});

t.test('no message that can be decoded makes a member throw or forget', async () => {
  const near = fc.tuple(
    messageArb,
    fc.record({ from: fc.integer({ min: 1, max: 4 }), term: fc.integer({ min: 1, max: 5 }) }),
  );
  fc.assert(
    fc.property(fc.array(near, { maxLength: 40 }), fc.nat(2), (messages, start) => {
      const options = { entries: logOf(1, 1, 2), hardState: { commitIndex: 1 } };
      const member = new Single([1, 2, 3], options);
      if (start > 0) member.step({ kind: 'campaign' });
      if (start > 1) member.lead(2);
      let committed = member.status.commitIndex;
      for (const [message, { from, term }] of messages) {
        const close = { ...message, from: raftId(from), to: raftId(1), term };
        member.step({ kind: 'message', message: close });
        if (member.status.commitIndex < committed) return false;
        committed = member.status.commitIndex;
        member.flush();
      }
      return true;
    }),
    runs(300),
  );
});
