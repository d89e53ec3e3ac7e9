import t from 'tap';
import { assert } from '../../../../src/base/assert.js';
import { Group, raftId } from '../group.js';
import { append, ask, heartbeat, logOf, Single } from './single.js';

/** Statement by statement through what "Consensus: Bridging Theory and Practice" (2014) adds to the paper. */

t.test('3.10: a leader stops taking proposals while it hands over', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.accept(2, 1);
  leader.propose('before');
  leader.step({ kind: 'transfer', to: raftId(2) });
  leader.propose('after');
  t.strictSame(leader.last?.proposals, [{ token: 0, refused: 'transferring' }]);
});

t.test('3.10: it brings the heir up to date, and only then tells it to stand', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.accept(2, 1);
  leader.propose('x');
  leader.takeSent();
  leader.step({ kind: 'transfer', to: raftId(2) });
  t.strictSame(leader.takeSent(), []);
  leader.accept(2, 2);
  t.match(leader.takeSent()[0], { to: 2, body: { kind: 'timeout_now' } });
});

t.test('3.10: the heir stands at once, in a new term, and the others help it', async (t) => {
  const heir = new Single([1, 2, 3]);
  heir.hear(2, 1, heartbeat());
  heir.hear(2, 1, { kind: 'timeout_now' });
  t.match(heir.status, { role: 'candidate', term: 2 });
  heir.flush();
  t.match(heir.takeSent().at(-1)?.body, { kind: 'vote', transfer: true });

  const voter = new Single([1, 2, 3]);
  voter.hear(2, 1, heartbeat());
  voter.hear(3, 2, ask('vote', 0, 0, true));
  voter.flush();
  t.match(voter.takeSent().at(-1)?.body, { kind: 'vote_reply', granted: true });
});

t.test('3.10: a transfer that takes an election timeout is given up', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2, 3);
  leader.accept(2, 1);
  leader.accept(3, 1);
  leader.step({ kind: 'transfer', to: raftId(2) });
  leader.nowMs = 499;
  leader.hear(2, 1, { kind: 'heartbeat_reply', readRound: 0 });
  leader.propose('early');
  t.match(leader.last?.proposals, [{ refused: 'transferring' }]);
  leader.nowMs = 500;
  leader.step({ kind: 'timeout' });
  leader.propose('late');
  t.match(leader.last?.proposals, [{ index: 2 }]);
});

t.test('3.10: learners, strangers and the leader itself inherit nothing', async (t) => {
  const group = new Group([1, 2, 3], { learners: [3] });
  group.elect(1);
  for (const to of [1, 3, 9]) {
    group.step(1, { kind: 'transfer', to: raftId(to) });
    group.propose(1, 'goes on');
    t.match(group.member(1).proposals.pop(), { term: 1 }, `${to}`);
  }
});

t.test('4.1: a membership is in effect as soon as it is in the log', async (t) => {
  const group = new Group([1, 2, 3]);
  group.elect(1);
  group.step(1, { kind: 'propose_members', token: 1, change: { kind: 'remove', id: raftId(3) } });
  t.strictSame(
    group
      .raft(1)
      .status()
      .members.map(({ id }) => id),
    [1, 2],
  );
  group.deliver(({ to }) => to === 2);
  t.strictSame(
    group
      .raft(2)
      .status()
      .members.map(({ id }) => id),
    [1, 2],
  );
  t.equal(group.raft(2).status().commitIndex, 1, 'committed or not');
});

t.test('4.1: a new voter counts from the moment it is in the log', async (t) => {
  const group = new Group([1, 2], { learners: [2] });
  group.elect(1);
  group.settle();
  group.step(1, { kind: 'propose_members', token: 1, change: { kind: 'promote', id: raftId(2) } });
  t.equal(group.raft(1).status().commitIndex, 1, 'two are needed now');
  group.settle();
  t.equal(group.raft(1).status().commitIndex, 2);
});

t.test('4.1: a change waits until the one before is committed', async (t) => {
  const group = new Group([1, 2, 3]);
  group.elect(1);
  const remove = (id: number) =>
    group.step(1, {
      kind: 'propose_members',
      token: id,
      change: { kind: 'remove', id: raftId(id) },
    });
  remove(3);
  remove(2);
  t.match(group.member(1).proposals, [
    { token: 3, index: 2 },
    { token: 2, refused: 'members_busy' },
  ]);
  group.settle();
  remove(2);
  t.match(group.member(1).proposals.at(-1), { token: 2, index: 3 });
});

t.test(
  '4.1: the bug of 2015: no change before an entry of the own term is committed',
  async (t) => {
    const leader = new Single([1, 2, 3], { entries: logOf(1, 1), hardState: { commitIndex: 2 } });
    leader.lead(2);
    const change = { kind: 'remove', id: raftId(3) } as const;
    leader.step({ kind: 'propose_members', token: 1, change });
    t.match(leader.last?.proposals, [{ refused: 'members_busy' }]);
    leader.accept(2, 3);
    leader.step({ kind: 'propose_members', token: 2, change });
    t.match(leader.last?.proposals, [{ token: 2, index: 4 }]);
  },
);

t.test(
  '4.1: servers listen to leaders and candidates that are not in their membership',
  async (t) => {
    const member = new Single([1, 2, 3]);
    member.hear(9, 1, append([0, 0], logOf(1)));
    t.match(member.status, { leader: 9, term: 1 });
    t.equal(member.raft.lastIndex, 1);
    member.hear(8, 2, ask('vote', 5, 1, true));
    member.flush();
    t.match(member.takeSent().at(-1), { to: 8, body: { kind: 'vote_reply', granted: true } });
  },
);

t.test('4.2.1: a new server has no vote until it has caught up', async (t) => {
  const group = new Group([1], { config: { learnerLagMax: 3 } });
  group.elect(1);
  group.propose(1, 'a', 'b', 'c', 'd', 'e');
  group.add(2);
  const change = { kind: 'add_learner', id: raftId(2), context: '' } as const;
  group.step(1, { kind: 'propose_members', token: 1, change });
  t.equal(group.raft(1).status().commitIndex, 7, 'it is not waited for');
  const promote = { kind: 'promote', id: raftId(2) } as const;
  group.step(1, { kind: 'propose_members', token: 2, change: promote });
  t.match(group.member(1).proposals.at(-1), { refused: 'learner_behind' });
  group.settle();
  group.step(1, { kind: 'propose_members', token: 3, change: promote });
  t.match(group.member(1).proposals.at(-1), { index: 8 });
});

t.test('4.2.1: a learner that is silent is not promoted, however near it was', async (t) => {
  const group = new Group([1, 2, 3], { learners: [3] });
  group.elect(1);
  group.crash(3);
  group.run(700);
  const change = { kind: 'promote', id: raftId(3) } as const;
  group.step(1, { kind: 'propose_members', token: 1, change });
  t.match(group.member(1).proposals.at(-1), { refused: 'learner_behind' });
});

t.test(
  '4.2.2: a leader that removes itself does not count itself, and steps down in the end',
  async (t) => {
    const leader = new Single([1, 2, 3]);
    leader.lead(2, 3);
    leader.accept(2, 1);
    leader.accept(3, 1);
    leader.step({ kind: 'propose_members', token: 1, change: { kind: 'remove', id: raftId(1) } });
    leader.flush();
    leader.accept(2, 2);
    t.match(
      leader.status,
      { role: 'leader', commitIndex: 1 },
      'itself and one are no majority of two',
    );
    leader.accept(3, 2);
    t.match(leader.status, { role: 'follower', commitIndex: 2 });
  },
);

t.test(
  '4.2.2: who is not in its own latest membership still stands while that may be needed',
  async (t) => {
    const group = new Group([1, 2]);
    group.elect(1);
    group.step(1, { kind: 'propose_members', token: 1, change: { kind: 'remove', id: raftId(1) } });
    group.drop();
    group.crash(1);
    group.restart(1);
    group.run(5_000);
    t.match(group.raft(2).status(), { role: 'leader' });
    t.strictSame(
      group
        .raft(2)
        .status()
        .members.map(({ id }) => id),
      [2],
    );
    t.equal(group.raft(1).status().role, 'follower', 'and no longer once it is committed');
  },
);

t.test(
  '4.2.3: who hears a leader neither votes nor takes over the term of a candidate',
  async (t) => {
    for (const kind of ['vote', 'pre_vote'] as const) {
      const member = new Single([1, 2, 3]);
      member.hear(2, 1, heartbeat());
      member.nowMs = 499;
      member.hear(3, 7, ask(kind, 9, 6));
      t.match(member.status, { term: 1, leader: 2 }, kind);
      t.equal(member.raft.drops.leader_alive, 1, kind);
      member.nowMs = 500;
      member.hear(3, 7, ask(kind, 9, 6));
      member.flush();
      t.match(
        member.takeSent().at(-1)?.body,
        { granted: true },
        `${kind} an election timeout later`,
      );
    }
  },
);

t.test('5.1: a snapshot replaces the log that it covers', async (t) => {
  const member = new Single([1, 2, 3], { entries: logOf(1, 1) });
  const meta = { index: 9, term: 2, members: new Single([2, 3]).status.members };
  member.hear(2, 3, { kind: 'snapshot', meta });
  t.strictSame(member.last?.restore, meta);
  t.strictSame(member.last?.persist?.reset, meta);
  t.equal(member.raft.lastIndex, 9);
  t.equal(member.raft.termAt(9), 2);
  t.strictSame(member.status.members, meta.members);
  t.equal(member.status.commitIndex, 9);
  member.flush();
  t.match(member.takeSent().at(-1)?.body, { kind: 'append_reply', accepted: true, index: 9 });
});

t.test(
  '5.1: a snapshot of what the log has already changes nothing but the commit index',
  async (t) => {
    const member = new Single([1, 2, 3], { entries: logOf(1, 1, 1) });
    const meta = { index: 2, term: 1, members: member.status.members };
    member.hear(2, 1, { kind: 'snapshot', meta });
    t.equal(member.last?.restore, undefined);
    t.equal(member.raft.lastIndex, 3, 'what comes after stays');
    t.equal(member.status.commitIndex, 2);
    member.hear(2, 1, { kind: 'snapshot', meta: { ...meta, index: 1 } });
    t.equal(member.status.commitIndex, 2, 'an older one does nothing at all');
  },
);

t.test('5.1: a snapshot of an earlier term is as good, whoever leads now', async (t) => {
  const member = new Single([1, 2, 3], { entries: logOf(1), hardState: { term: 4 } });
  const meta = { index: 5, term: 2, members: member.status.members };
  member.hear(2, 3, { kind: 'snapshot', meta });
  t.strictSame(member.last?.restore, meta);
  t.match(member.status, { term: 4, leader: 0, commitIndex: 5 });
});

t.test('6.2: a leader that hears no majority for an election timeout steps down', async (t) => {
  const leader = new Single([1, 2, 3, 4, 5]);
  leader.lead(2, 3);
  leader.nowMs = 400;
  leader.hear(2, 1, { kind: 'heartbeat_reply', readRound: 0 });
  leader.nowMs = 500;
  leader.step({ kind: 'timeout' });
  t.match(leader.status, { role: 'follower', term: 1, leader: 0 });
});

t.test('6.2: answers of learners keep nobody in office', async (t) => {
  const group = new Group([1, 2, 3], { learners: [3] });
  group.elect(1);
  group.crash(2);
  group.run(1_100);
  t.not(group.raft(1).status().role, 'leader');
});

t.test('6.2: a leader that stood still itself judges nobody by that', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2, 3);
  leader.nowMs = 2_000;
  leader.step({ kind: 'timeout' });
  t.equal(leader.status.role, 'leader', 'their answers may be waiting to be read');
  leader.nowMs = 2_500;
  leader.step({ kind: 'timeout' });
  t.equal(leader.status.role, 'follower', 'but now they are not');
});

t.test(
  '6.4: a new leader waits for an entry of its own term before it answers reads',
  async (t) => {
    const leader = new Single([1, 2, 3]);
    leader.lead(2);
    leader.step({ kind: 'read', request: 1 });
    leader.hear(2, 1, { kind: 'heartbeat_reply', readRound: 0 });
    t.strictSame(leader.last?.reads, []);
    leader.accept(2, 1);
    leader.hear(2, 1, { kind: 'heartbeat_reply', readRound: 1 });
    t.strictSame(leader.last?.reads, [{ request: 1, index: 1 }]);
  },
);

t.test(
  '6.4: a read index is what was committed when the read was asked for, or later',
  async (t) => {
    const leader = new Single([1, 2, 3]);
    leader.lead(2);
    leader.accept(2, 1);
    leader.step({ kind: 'read', request: 1 });
    leader.propose('x');
    leader.flush();
    leader.accept(2, 2);
    leader.step({ kind: 'read', request: 2 });
    leader.hear(2, 1, { kind: 'heartbeat_reply', readRound: 1 });
    t.strictSame(
      leader.last?.reads,
      [{ request: 1, index: 1 }],
      'the second needs a round of its own',
    );
    leader.hear(2, 1, { kind: 'heartbeat_reply', readRound: 2 });
    t.strictSame(leader.last?.reads, [{ request: 2, index: 2 }]);
  },
);

t.test('6.4: one round serves all reads that were asked for before it', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.accept(2, 1);
  leader.takeSent();
  for (let request = 1; request <= 50; request++)
    leader.raft.step({ kind: 'read', request }, leader.nowMs);
  leader.take();
  t.equal(leader.takeSent().length, 2, 'one heartbeat for each follower');
  leader.hear(3, 1, { kind: 'heartbeat_reply', readRound: 1 });
  t.equal(leader.last?.reads.length, 50);
});

t.test('6.4: the only voter has nobody to ask', async (t) => {
  const leader = new Single([1]);
  leader.lead();
  leader.step({ kind: 'read', request: 1 });
  t.strictSame(leader.last?.reads, [{ request: 1, index: 1 }]);
});

/** The number of the one question that it has sent. */
function questionOf(follower: Single): number {
  const [question, ...others] = follower.takeSent();
  assert(question?.body.kind === 'read_index' && others.length === 0, 'one question');
  return question.body.request;
}

t.test('6.4: the reads of a follower share one question, which is never asked again', async (t) => {
  const follower = new Single([1, 2, 3]);
  follower.hear(2, 1, heartbeat());
  follower.takeSent();
  for (const request of [1, 2]) follower.raft.step({ kind: 'read', request }, follower.nowMs);
  follower.take();
  const first = questionOf(follower);
  follower.hear(2, 1, { kind: 'read_index_reply', request: first, index: 0 });
  t.strictSame(follower.last?.reads, [
    { request: 1, index: 0 },
    { request: 2, index: 0 },
  ]);
  follower.step({ kind: 'read', request: 3 });
  t.not(questionOf(follower), first);
  follower.hear(2, 1, { kind: 'read_index_reply', request: first, index: 0 });
  t.strictSame(follower.last?.reads, [], 'the old answer is to no question');
  t.equal(follower.raft.drops.unexpected, 1);
});

t.test('6.4: after a restart the questions have other numbers', async (t) => {
  const requests = [1, 2].map((seed) => {
    const follower = new Single([1, 2, 3], { config: { seed } });
    follower.hear(2, 1, heartbeat());
    follower.step({ kind: 'read', request: 1 });
    follower.sent = follower.sent.filter(({ kind }) => kind === 'read_index');
    return questionOf(follower);
  });
  t.not(requests[0], requests[1], 'an answer from before must not pass for one to a new question');
});

t.test('9.6: a pre-vote changes neither term nor vote, of the asker or the asked', async (t) => {
  const asker = new Single([1, 2, 3], { hardState: { term: 3 } });
  asker.wake();
  t.match(asker.status, { role: 'pre_candidate', term: 3 });
  t.equal(asker.last?.persist, undefined);
  t.match(asker.takeSent(), [
    { to: 2, term: 4, body: { kind: 'pre_vote' } },
    { to: 3, term: 4 },
  ]);

  const asked = new Single([1, 2, 3], { hardState: { term: 3, vote: raftId(3) } });
  asked.hear(2, 4, ask('pre_vote', 0, 0));
  t.equal(asked.status.term, 3);
  t.equal(asked.last?.persist, undefined);
  t.match(asked.takeSent(), [{ to: 2, term: 4, body: { kind: 'pre_vote_reply', granted: true } }]);
  asked.hear(3, 4, ask('pre_vote', 0, 0));
  t.match(asked.takeSent(), [{ to: 3, body: { granted: true } }], 'any number of them');
});

t.test('9.6: who would not win begins no term', async (t) => {
  const member = new Single([1, 2, 3]);
  member.wake();
  member.hear(2, 1, { kind: 'pre_vote_reply', granted: false });
  t.equal(member.status.term, 1, 'the other is in that term already');
  member.wake();
  for (const from of [2, 3]) member.hear(from, 1, { kind: 'pre_vote_reply', granted: false });
  t.match(member.status, { role: 'follower', term: 1 });
});

t.test('9.6: answers to an earlier pre-vote do not count', async (t) => {
  const member = new Single([1, 2, 3]);
  member.wake();
  member.hear(2, 4, { kind: 'pre_vote_reply', granted: true });
  t.equal(member.status.role, 'pre_candidate');
  t.equal(member.status.term, 0);
  member.hear(2, 1, { kind: 'pre_vote_reply', granted: true });
  t.equal(member.status.role, 'candidate');
});

t.test('9.6: a pre-candidate of an earlier term is told of the present one', async (t) => {
  const member = new Single([1, 2, 3], { hardState: { term: 5 } });
  member.hear(2, 3, ask('pre_vote', 0, 0));
  t.match(member.takeSent(), [
    { to: 2, term: 5, body: { kind: 'pre_vote_reply', granted: false } },
  ]);
});

t.test(
  '10.2.1: a leader sends before its own disk has the entry, and counts itself after',
  async (t) => {
    const leader = new Single([1, 2, 3]);
    leader.lead(2);
    leader.accept(2, 1);
    leader.takeSent();
    leader.propose('x');
    t.match(leader.takeSent(), [{ to: 2, body: { kind: 'append' } }]);
    leader.accept(2, 2);
    t.equal(leader.status.commitIndex, 1, 'on one disk of three');
    leader.flush();
    t.equal(leader.status.commitIndex, 2);
  },
);

t.test('10.2.1: even the only voter waits for its disk', async (t) => {
  const leader = new Single([1]);
  leader.lead();
  leader.propose('x');
  t.equal(leader.status.commitIndex, 1);
  t.strictSame(leader.last?.committed, []);
  leader.flush();
  t.equal(leader.status.commitIndex, 2);
});

t.test(
  '10.2.2: appends are streamed, each taken for delivered as soon as it is sent',
  async (t) => {
    const leader = new Single([1, 2]);
    leader.lead(2);
    leader.accept(2, 1);
    leader.takeSent();
    for (const text of ['a', 'b', 'c']) leader.propose(text);
    t.match(leader.takeSent(), [
      { body: { prevIndex: 1, entries: [{ index: 2 }] } },
      { body: { prevIndex: 2, entries: [{ index: 3 }] } },
      { body: { prevIndex: 3, entries: [{ index: 4 }] } },
    ]);
  },
);

t.test('10.2.2: what was proposed together is one append and one write', async (t) => {
  const leader = new Single([1, 2]);
  leader.lead(2);
  leader.accept(2, 1);
  leader.takeSent();
  for (const text of ['a', 'b', 'c'])
    leader.raft.step({ kind: 'propose', token: 0, data: Buffer.from(text) }, leader.nowMs);
  const ready = leader.take();
  t.equal(ready.persist?.entries.length, 3);
  t.match(leader.takeSent(), [{ body: { entries: [{ index: 2 }, { index: 3 }, { index: 4 }] } }]);
});
