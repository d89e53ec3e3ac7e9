import t from 'tap';
import { raftConfig } from '../../../../src/control/raft/core/config.js';
import { Raft } from '../../../../src/control/raft/core/raft.js';
import type { RaftRestart } from '../../../../src/control/raft/core/types.js';
import { encodeMembers } from '../../../../src/control/raft/wire/members.js';
import { Group, membersOf, raftId } from '../group.js';
import { append, heartbeat, logOf, Single } from './single.js';

const NOTHING = { term: 0, vote: 0, commitIndex: 0 } as const;

const restarted = (restart: Partial<RaftRestart>) =>
  new Raft(
    raftConfig({ id: raftId(1), seed: 1 }),
    {
      hardState: NOTHING,
      snapshot: { index: 0, term: 0, members: membersOf([1, 2, 3]) },
      entries: [],
      ...restart,
    },
    0,
  );

t.test('a restart knows what the disk knew, and applies what was committed then', async (t) => {
  const hardState = { term: 4, vote: raftId(2), commitIndex: 2 };
  const raft = restarted({ hardState, entries: logOf(1, 1, 3) });
  t.match(raft.status(), { role: 'follower', term: 4, leader: 0, commitIndex: 2 });
  const ready = raft.takeReady();
  t.strictSame(
    ready.committed.map(({ index }) => index),
    [1, 2],
  );
  t.equal(ready.persist, undefined, 'nothing of that is written again');
  t.ok(ready.status, 'the first Ready says how things are');
});

t.test('a restart after a snapshot goes on from there', async (t) => {
  const snapshot = { index: 10, term: 3, members: membersOf([1, 2]) };
  const [entry] = logOf(3);
  const raft = restarted({ snapshot, entries: [{ ...entry, index: 11 } as never] });
  t.match(raft.status(), { term: 3, commitIndex: 10, members: snapshot.members });
  t.strictSame([raft.lastIndex, raft.termAt(10), raft.termAt(9)], [11, 3, undefined]);
  t.strictSame(raft.takeReady().committed, []);
});

t.test('the memberships of the log are in effect again', async (t) => {
  const data = encodeMembers(membersOf([1, 2]));
  const entries = [...logOf(1), { index: 2, term: 1, kind: 'members', data } as const];
  t.strictSame(restarted({ entries }).status().members, membersOf([1, 2]));
});

t.test('a hard state that the log has overtaken gave no vote in that term', async (t) => {
  const raft = restarted({
    hardState: { term: 2, vote: raftId(3), commitIndex: 9 },
    entries: logOf(1, 5),
  });
  t.match(raft.status(), { term: 5, commitIndex: 2 });
  raft.step({ kind: 'campaign' }, 0);
  t.equal(raft.takeReady().messages[0]?.term, 6);
});

t.test('the only voter stands at once; others wait; who is no voter never stands', async (t) => {
  const deadline = (ids: readonly number[], learners: readonly number[] = []) =>
    restarted({
      snapshot: { index: 0, term: 0, members: membersOf(ids, learners) },
    }).nextDeadlineMs() as number;
  t.equal(deadline([1]), 0);
  t.equal(deadline([1, 2], [2]), 0);
  t.ok(deadline([1, 2]) >= 500);

  const joiner = new Single([]);
  for (let i = 0; i < 5; i++) joiner.wake();
  t.match(joiner.status, { role: 'follower', term: 0 });
  t.strictSame(joiner.takeSent(), []);
});

t.test('a leader without followers never needs to wake', async (t) => {
  const leader = new Single([1]);
  leader.lead();
  t.equal(leader.raft.nextDeadlineMs(), undefined);
});

t.test('a Ready is handed over once, and an idle one is empty', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.propose('x');
  t.strictSame(leader.take(), {
    messages: [],
    persist: undefined,
    restore: undefined,
    committed: [],
    proposals: [],
    reads: [],
    snapshots: [],
    status: undefined,
  });
});

t.test('what is taken from a Ready does not change afterwards', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, append([0, 0], logOf(1, 1), 2));
  const ready = member.last;
  const before = JSON.stringify(ready);
  member.hear(2, 1, append([2, 1], logOf(1, 1, 1).slice(2), 3));
  member.hear(3, 2, append([1, 1], logOf(1, 2).slice(1)));
  member.flush();
  t.equal(JSON.stringify(ready), before);
});

t.test('entries are applied only when this member’s own disk has them', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, append([0, 0], logOf(1, 1), 2));
  t.equal(member.status.commitIndex, 2);
  t.strictSame(member.last?.committed, []);
  member.flush();
  t.equal(member.last?.committed.length, 2);
});

t.test('heartbeats are answered at once, whatever the disk does', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, append([0, 0], logOf(1)));
  member.hear(2, 1, heartbeat(0, 3));
  t.match(member.takeSent(), [{ body: { kind: 'heartbeat_reply', readRound: 3 } }]);
});

t.test('a member that stood still hears a leader before it judges it', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, heartbeat());
  member.nowMs = 60_000;
  member.hear(2, 1, heartbeat());
  member.step({ kind: 'timeout' });
  t.equal(member.status.role, 'follower');
});

t.test('when the leader’s process is known to be gone, somebody stands soon', async (t) => {
  for (let seed = 1; seed <= 50; seed++) {
    const member = new Single([1, 2, 3], { config: { seed } });
    member.hear(2, 1, heartbeat());
    member.step({ kind: 'peer_gone', peer: raftId(3) });
    t.ok((member.raft.nextDeadlineMs() as number) >= 500, 'another member’s end is nothing');
    member.step({ kind: 'peer_gone', peer: raftId(2) });
    t.equal(member.status.leader, 0);
    if ((member.raft.nextDeadlineMs() as number) >= 125) t.fail(`seed ${seed} waits too long`);
  }
});

t.test('a full disk: no proposals, no candidacy, and the place is given away', async (t) => {
  const group = new Group([1, 2, 3]);
  group.elect(1);
  group.step(1, { kind: 'read_only', on: true });
  group.propose(1, 'x');
  t.match(group.member(1).proposals, [{ refused: 'transferring' }]);
  group.settle();
  t.equal(group.raft(2).status().role, 'leader');
  t.equal(group.raft(1).status().readOnly, true);
  group.crash(2);
  group.crash(3);
  group.run(5_000);
  t.match(group.raft(1).status(), { role: 'follower', term: 2 }, 'it waits for the others');
  group.step(1, { kind: 'read_only', on: false });
  group.run(1_500);
  t.equal(group.raft(1).status().role, 'pre_candidate');
});

t.test('a full disk of the only voter: it leads on, and takes nothing', async (t) => {
  const group = new Group([1]);
  group.run(1);
  group.step(1, { kind: 'read_only', on: true });
  group.propose(1, 'x');
  t.match(group.member(1).proposals, [{ refused: 'read_only' }]);
  group.step(1, { kind: 'read', request: 1 });
  t.match(group.member(1).reads, [{ request: 1, index: 1 }]);
});

t.test('a leader with a full disk tries again if its heir does not take over', async (t) => {
  const group = new Group([1, 2, 3]);
  group.elect(1);
  group.step(1, { kind: 'read_only', on: true });
  group.drop(({ kind }) => kind === 'timeout_now');
  group.run(700);
  t.not(group.raft(1).status().role, 'leader');
});

t.test('the best heir is a voter that is there and has most of the log', async (t) => {
  const group = new Group([1, 2, 3, 4], { learners: [4] });
  group.elect(1);
  group.settle();
  group.propose(1, 'x');
  group.deliver(({ to }) => to === 3 || to === 4);
  group.deliver(({ from }) => from === 3 || from === 4);
  group.drop();
  group.step(1, { kind: 'transfer' });
  group.settle();
  t.equal(group.raft(3).status().role, 'leader');
});

t.test('a tail stays after compaction, so that a slow follower needs no snapshot', async (t) => {
  const group = new Group([1, 2, 3]);
  group.elect(1);
  group.crash(3);
  group.propose(1, 'a', 'b', 'c', 'd');
  group.settle();
  group.compact(1, 10);
  t.equal(group.raft(1).termAt(1), 1, 'all of it is in the tail');
  group.compact(1, 4);
  t.strictSame([group.raft(1).termAt(1), group.raft(1).termAt(2)], [1, 1], 'the base is known');
  t.equal(group.raft(1).termAt(0), undefined);
  group.restart(3);
  group.run(500);
  t.strictSame(group.commandsOf(3), ['a', 'b', 'c', 'd']);
  t.strictSame(group.member(1).snapshotsWanted, []);
});

t.test(
  'a learner that joins behind a compacted log gets a snapshot and what follows',
  async (t) => {
    const group = new Group([1]);
    group.run(1);
    group.propose(1, 'a', 'b', 'c');
    group.compact(1);
    group.add(2);
    const change = { kind: 'add_learner', id: raftId(2), context: 'm2' } as const;
    group.step(1, { kind: 'propose_members', token: 1, change });
    group.settle();
    t.strictSame(group.member(1).snapshotsWanted, [2]);
    group.sendSnapshot(1, 2);
    group.run(300);
    t.equal(group.raft(2).lastIndex, group.raft(1).lastIndex);
    t.strictSame(group.raft(2).status().members, membersOf([1, 2], [2]));
  },
);

t.test('misuse by our own shell is a bug, and says so', async (t) => {
  const cases: readonly (readonly [string, (raft: Raft) => void])[] = [
    ['time goes back', (raft) => raft.step({ kind: 'timeout' }, -1)],
    ['an unknown write', (raft) => raft.step({ kind: 'persisted', persistId: 9 }, 0)],
    ['applied too much', (raft) => raft.step({ kind: 'applied', index: 9 }, 0)],
    [
      'a snapshot of what is not applied',
      (raft) =>
        raft.step({ kind: 'compact', meta: { index: 9, term: 1, members: [] }, keepEntries: 0 }, 0),
    ],
  ];
  for (const [name, misuse] of cases)
    t.throws(() => misuse(restarted({})), { name: 'AssertionFailed' }, name);
});
