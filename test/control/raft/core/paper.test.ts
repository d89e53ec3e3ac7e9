import t from 'tap';
import { Group, raftId } from '../group.js';
import { append, ask, heartbeat, logOf, Single } from './single.js';

/** Statement by statement through section 5 of "In Search of an Understandable Consensus Algorithm" (2014). */

const granted = (member: Single) =>
  member
    .takeSent()
    .filter(({ body }) => body.kind === 'vote_reply')
    .map(({ body }) => body.kind === 'vote_reply' && body.granted);

t.test('5.1: servers update their term to a larger one that they see', async (t) => {
  for (const body of [append([0, 0]), heartbeat(), ask('vote', 0, 0)]) {
    const member = new Single([1, 2, 3]);
    member.hear(2, 4, body);
    t.equal(member.status.term, 4, body.kind);
    t.equal(member.status.role, 'follower', body.kind);
  }
});

t.test('5.1: a candidate or leader whose term is out of date becomes a follower', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.hear(3, 2, heartbeat());
  t.match(leader.status, { role: 'follower', term: 2, leader: 3 });

  const candidate = new Single([1, 2, 3]);
  candidate.step({ kind: 'campaign' });
  candidate.hear(2, 1, { kind: 'pre_vote_reply', granted: true });
  t.equal(candidate.status.role, 'candidate');
  candidate.hear(3, 2, { kind: 'vote_reply', granted: false });
  t.match(candidate.status, { role: 'follower', term: 2, leader: 0 });
});

t.test('5.1: a request with a stale term is rejected', async (t) => {
  const member = new Single([1, 2, 3], { hardState: { term: 5 } });
  member.hear(2, 4, append([0, 0], logOf(4)));
  t.equal(member.raft.lastIndex, 0);
  t.match(member.takeSent(), [{ to: 2, term: 5, body: { kind: 'append_reply', accepted: false } }]);
  member.hear(2, 4, ask('vote', 9, 4));
  t.match(member.takeSent(), [{ to: 2, term: 5, body: { kind: 'vote_reply', granted: false } }]);
  t.equal(member.status.leader, 0);
});

t.test('5.2: servers start up as followers', async (t) => {
  t.equal(new Single([1, 2, 3]).status.role, 'follower');
  t.equal(new Single([1]).status.role, 'follower');
});

t.test('5.2: a follower stays one as long as it hears a leader', async (t) => {
  const member = new Single([1, 2, 3]);
  for (let i = 0; i < 50; i++) {
    member.nowMs += 400;
    member.hear(2, 1, heartbeat());
    member.step({ kind: 'timeout' });
  }
  t.match(member.status, { role: 'follower', term: 1, leader: 2 });
});

t.test('5.2: a leader sends heartbeats to all followers to keep its place', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.takeSent();
  t.equal(leader.raft.nextDeadlineMs(), 100);
  leader.wake();
  const sent = leader.takeSent().map(({ to, body }) => [to, body.kind]);
  t.strictSame(sent, [
    [2, 'heartbeat'],
    [3, 'heartbeat'],
  ]);
});

t.test('5.2: an election begins when no leader is heard of for the timeout', async (t) => {
  const member = new Single([1, 2, 3]);
  const atMs = member.raft.nextDeadlineMs() as number;
  member.nowMs = atMs - 1;
  member.step({ kind: 'timeout' });
  t.equal(member.status.role, 'follower', 'and not 1 ms before');
  member.nowMs = atMs;
  member.step({ kind: 'timeout' });
  t.equal(member.status.role, 'pre_candidate');
});

t.test('5.2: a candidate raises its term, votes for itself and asks all others', async (t) => {
  const member = new Single([1, 2, 3], { entries: logOf(1, 1), hardState: { term: 3 } });
  member.wake();
  member.hear(2, 4, { kind: 'pre_vote_reply', granted: true });
  t.strictSame(member.last?.persist?.hardState, { term: 4, vote: 1, commitIndex: 0 });
  member.takeSent();
  member.flush();
  const body = { kind: 'vote', lastIndex: 2, lastTerm: 1, transfer: false };
  t.strictSame(member.takeSent(), [
    { to: 2, term: 4, body },
    { to: 3, term: 4, body },
  ]);
});

t.test('5.2: it wins with the votes of a majority of all, and not with fewer', async (t) => {
  const cases: readonly (readonly [voters: number, grants: number, refusals: number, string])[] = [
    [3, 0, 0, 'candidate'],
    [3, 1, 0, 'leader'],
    [3, 1, 1, 'leader'],
    [3, 0, 2, 'follower'],
    [4, 1, 0, 'candidate'],
    [4, 2, 0, 'leader'],
    [5, 1, 2, 'candidate'],
    [5, 2, 0, 'leader'],
    [5, 1, 3, 'follower'],
    [7, 3, 3, 'leader'],
  ];
  for (const [size, grants, refusals, role] of cases) {
    const others = Array.from({ length: size - 1 }, (_, i) => i + 2);
    const member = new Single([1, ...others]);
    member.step({ kind: 'campaign' });
    for (const other of others) member.hear(other, 1, { kind: 'pre_vote_reply', granted: true });
    member.flush();
    for (const [i, other] of others.slice(0, grants + refusals).entries())
      member.hear(other, 1, { kind: 'vote_reply', granted: i < grants });
    t.equal(member.status.role, role, `${grants} of ${size}, ${refusals} refuse`);
  }
});

t.test('5.2: the votes of one voter count once, whatever it says', async (t) => {
  const member = new Single([1, 2, 3, 4, 5]);
  member.step({ kind: 'campaign' });
  for (const other of [2, 3]) member.hear(other, 1, { kind: 'pre_vote_reply', granted: true });
  member.flush();
  for (let i = 0; i < 5; i++) member.hear(2, 1, { kind: 'vote_reply', granted: true });
  t.equal(member.status.role, 'candidate');
});

t.test('5.2: each server votes for at most one candidate in a term, the first', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, ask('vote', 0, 0));
  member.flush();
  t.strictSame(granted(member), [true]);
  member.hear(3, 1, ask('vote', 0, 0));
  t.strictSame(granted(member), [false]);
  member.hear(2, 1, ask('vote', 0, 0));
  t.strictSame(granted(member), [true], 'the same again');
  member.hear(3, 2, ask('vote', 0, 0));
  member.flush();
  t.strictSame(granted(member), [true], 'in another term');
});

t.test('5.2: a candidate that hears the leader of its term becomes its follower', async (t) => {
  for (const body of [heartbeat(), append([0, 0])]) {
    const member = new Single([1, 2, 3]);
    member.step({ kind: 'campaign' });
    member.hear(2, 1, { kind: 'pre_vote_reply', granted: true });
    t.equal(member.status.role, 'candidate');
    member.hear(3, 1, body);
    t.match(member.status, { role: 'follower', term: 1, leader: 3 }, body.kind);
  }
});

t.test('5.2: election timeouts are random, from one timeout to two', async (t) => {
  const waits = new Set<number>();
  for (let seed = 1; seed <= 200; seed++) {
    const member = new Single([1, 2, 3], { config: { seed } });
    waits.add(member.raft.nextDeadlineMs() as number);
  }
  t.ok(waits.size > 100, `${waits.size} different ones`);
  t.ok(Math.min(...waits) >= 500 && Math.max(...waits) < 1_000);
  t.ok(Math.min(...waits) < 520 && Math.max(...waits) > 980, 'all of the range');
});

t.test('5.2: after a split vote each candidate waits a new random time', async (t) => {
  const member = new Single([1, 2, 3]);
  const waits: number[] = [];
  for (let i = 0; i < 10; i++) {
    const beforeMs = member.nowMs;
    member.wake();
    waits.push(member.nowMs - beforeMs);
  }
  t.ok(new Set(waits).size > 5, waits.join(' '));
});

t.test('5.3: the leader appends a command to its log and sends it to all', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.accept(2, 1);
  leader.accept(3, 1);
  leader.takeSent();
  leader.propose('x');
  t.equal(leader.raft.lastIndex, 2);
  const sent = leader.takeSent();
  t.match(sent, [{ to: 2 }, { to: 3 }]);
  for (const { body } of sent)
    t.match(body, { kind: 'append', prevIndex: 1, prevTerm: 1, entries: [{ index: 2, term: 1 }] });
});

t.test('5.3: an entry is committed once the leader has it on a majority', async (t) => {
  const cases: readonly (readonly [voters: number, acks: number, isCommitted: boolean])[] = [
    [1, 0, true],
    [2, 0, false],
    [2, 1, true],
    [3, 0, false],
    [3, 1, true],
    [4, 1, false],
    [4, 2, true],
    [5, 1, false],
    [5, 2, true],
  ];
  for (const [size, acks, isCommitted] of cases) {
    const others = Array.from({ length: size - 1 }, (_, i) => i + 2);
    const leader = new Single([1, ...others]);
    leader.lead(...others);
    for (const other of others) leader.accept(other, 1);
    leader.propose('x');
    leader.flush();
    for (const other of others.slice(0, acks)) leader.accept(other, 2);
    t.equal(leader.status.commitIndex, isCommitted ? 2 : 1, `${acks} of ${size}`);
  }
});

t.test('5.3: committing an entry commits all before it, also those of other leaders', async (t) => {
  const leader = new Single([1, 2, 3], { entries: logOf(1, 2, 2) });
  leader.lead(2);
  t.equal(leader.status.commitIndex, 0);
  leader.accept(2, 4);
  t.equal(leader.status.commitIndex, 4);
  t.strictSame(
    leader.last?.committed.map(({ index, term }) => [index, term]),
    [
      [1, 1],
      [2, 2],
      [3, 2],
      [4, 3],
    ],
  );
});

t.test('5.3: followers learn of the commit index and apply in the order of the log', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, append([0, 0], logOf(1, 1, 1), 2));
  member.flush();
  t.strictSame(
    member.last?.committed.map(({ index }) => index),
    [1, 2],
  );
  member.hear(2, 1, heartbeat(3));
  t.strictSame(
    member.last?.committed.map(({ index }) => index),
    [3],
  );
});

t.test('5.3: a follower commits no further than the entries it was sent', async (t) => {
  const member = new Single([1, 2, 3], { entries: logOf(1, 1, 1, 1) });
  // Entries 3 and 4 may differ from the leader's; it said nothing of them yet.
  member.hear(2, 2, append([2, 1], [], 9));
  t.equal(member.status.commitIndex, 2);
});

t.test('5.3: a follower without the previous entry refuses the new ones', async (t) => {
  const cases: readonly (readonly [terms: number[], prev: [number, number], accepts: boolean])[] = [
    [[], [0, 0], true],
    [[1], [1, 1], true],
    [[1, 2], [1, 1], true],
    [[1], [2, 1], false],
    [[1, 2], [2, 1], false],
    [[], [1, 1], false],
  ];
  for (const [terms, prev, accepts] of cases) {
    const member = new Single([1, 2, 3], { entries: logOf(...terms), hardState: { term: 3 } });
    member.hear(2, 3, append(prev));
    member.flush();
    t.match(
      member.takeSent().at(-1)?.body,
      { kind: 'append_reply', accepted: accepts, index: prev[0] },
      `${terms} after ${prev}`,
    );
  }
});

t.test('5.3: conflicting entries are replaced, and with them all that follow', async (t) => {
  const fresh = (first: number, ...terms: number[]) =>
    logOf(...Array(first - 1).fill(1), ...terms).slice(first - 1);
  const cases: readonly (readonly [
    number[],
    [number, number],
    ReturnType<typeof logOf>,
    number[],
  ])[] = [
    [[1, 1, 1], [1, 1], fresh(2, 2), [1, 2]],
    [[1, 1, 1], [1, 1], fresh(2, 1), [1, 1, 1]],
    [[1, 1, 1], [1, 1], fresh(2, 1, 3), [1, 1, 3]],
    [[1, 1, 1], [3, 1], fresh(4, 3, 3), [1, 1, 1, 3, 3]],
    [[1, 1, 1], [0, 0], fresh(1, 2), [2]],
    [[1, 1, 1], [2, 1], [], [1, 1, 1]],
    [[], [0, 0], fresh(1, 1, 2), [1, 2]],
  ];
  for (const [before, prev, entries, after] of cases) {
    const member = new Single([1, 2, 3], { entries: logOf(...before), hardState: { term: 3 } });
    member.hear(2, 3, append(prev, entries));
    t.strictSame(member.terms, after, `${before} after ${prev}: ${entries.map((e) => e.term)}`);
  }
});

t.test('5.3: an old append that comes late removes nothing that came after', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, append([0, 0], logOf(1, 1, 1)));
  member.hear(2, 1, append([0, 0], logOf(1)));
  t.strictSame(member.terms, [1, 1, 1]);
});

t.test('5.3: figure 7: a leader brings every kind of wrong log to its own', async (t) => {
  const leaderLog = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
  const wrong: Readonly<Record<string, number[]>> = {
    a: [1, 1, 1, 4, 4, 5, 5, 6, 6],
    b: [1, 1, 1, 4],
    c: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
    d: [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
    e: [1, 1, 1, 4, 4, 4, 4],
    f: [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
  };
  for (const [name, terms] of Object.entries(wrong)) {
    const group = new Group([1, 2, 3]);
    for (const id of [1, 2, 3]) {
      const { disk } = group.member(id);
      disk.entries = logOf(...(id === 2 ? terms : leaderLog));
      disk.hardState = { term: 7, vote: 0, commitIndex: 0 };
      group.restart(id);
    }
    // Member 3 alone votes for it where member 2 has more.
    group.elect(1);
    group.run(300);
    const all = (id: number) => logOf(...Array(11)).map((_, i) => group.raft(id).termAt(i + 1));
    t.strictSame(all(2), [...leaderLog, 8], `follower ${name}`);
    t.equal(group.raft(2).lastIndex, 11, name);
  }
});

t.test('5.3: a leader never overwrites or removes entries of its own log', async (t) => {
  const leader = new Single([1, 2, 3], { entries: logOf(1, 1) });
  leader.lead(2);
  leader.hear(3, 2, append([0, 0], logOf(2)));
  leader.hear(2, 2, {
    kind: 'append_reply',
    index: 2,
    accepted: false,
    hintIndex: 0,
    hintTerm: 0,
  });
  t.strictSame(leader.terms, [1, 1, 2]);
  t.equal(leader.raft.drops.second_leader, 1);
});

t.test('5.4.1: a voter refuses who has a less up-to-date log than its own', async (t) => {
  const cases: readonly (readonly [own: number[], last: [number, number], votes: boolean])[] = [
    [[], [0, 0], true],
    [[1], [0, 0], false],
    [[1], [1, 1], true],
    [[1, 1], [1, 1], false],
    [[1, 1], [1, 2], true],
    [[1, 2], [5, 1], false],
    [[2], [3, 2], true],
  ];
  for (const [own, [lastIndex, lastTerm], votes] of cases) {
    const member = new Single([1, 2, 3], { entries: logOf(...own), hardState: { term: 3 } });
    member.hear(2, 4, ask('vote', lastIndex, lastTerm));
    member.flush();
    t.strictSame(granted(member), [votes], `${own} and ${lastIndex}@${lastTerm}`);
  }
});

t.test('5.4.2: entries of earlier terms are not committed by counting', async (t) => {
  const leader = new Single([1, 2, 3], { entries: logOf(1, 2) });
  leader.lead(2);
  leader.accept(2, 2);
  t.equal(leader.status.commitIndex, 0, 'on a majority, and yet not');
  leader.accept(2, 3);
  t.equal(leader.status.commitIndex, 3);
});

t.test('5.5: requests are idempotent: the same append twice changes nothing', async (t) => {
  const member = new Single([1, 2, 3]);
  const body = append([0, 0], logOf(1, 1), 1);
  member.hear(2, 1, body);
  member.flush();
  const first = member.takeSent();
  member.hear(2, 1, body);
  t.strictSame(member.terms, [1, 1]);
  t.strictSame(member.takeSent(), first, 'and is answered alike');
  t.equal(member.last?.persist, undefined);
});

t.test('figure 2: term, vote and log are on disk before a request is answered', async (t) => {
  const member = new Single([1, 2, 3]);
  member.hear(2, 1, append([0, 0], logOf(1)));
  t.strictSame(member.takeSent(), [], 'no answer yet');
  member.flush();
  t.match(member.takeSent(), [{ body: { kind: 'append_reply', accepted: true, index: 1 } }]);

  member.hear(3, 2, ask('vote', 1, 1, true));
  t.strictSame(member.takeSent(), [], 'no vote yet');
  member.flush();
  t.match(member.takeSent(), [{ body: { kind: 'vote_reply', granted: true } }]);
});

t.test(
  'figure 2: a vote in a term that the voter is in already waits for the disk as well',
  async (t) => {
    const member = new Single([1, 2, 3], { hardState: { term: 2 } });
    member.hear(3, 2, ask('vote', 0, 0));
    t.strictSame(member.takeSent(), []);
    t.strictSame(member.last?.persist?.hardState, { term: 2, vote: 3, commitIndex: 0 });
    member.flush();
    t.strictSame(granted(member), [true]);
  },
);

t.test('8: a new leader commits an entry of nothing at the start of its term', async (t) => {
  const leader = new Single([1, 2, 3], { entries: logOf(1) });
  leader.lead(2);
  const [entry] = leader
    .takeSent()
    .flatMap(({ body }) => (body.kind === 'append' ? body.entries : []));
  t.match(entry, { index: 2, term: 2, kind: 'noop' });
  t.equal(entry?.data.length, 0);
});

t.test('8: a leader answers reads only after a majority answered a heartbeat', async (t) => {
  const leader = new Single([1, 2, 3]);
  leader.lead(2);
  leader.accept(2, 1);
  leader.step({ kind: 'read', request: 5 });
  t.strictSame(leader.last?.reads, []);
  leader.hear(2, 1, { kind: 'heartbeat_reply', readRound: 0 });
  t.strictSame(leader.last?.reads, [], 'an answer to an earlier heartbeat says nothing');
  leader.hear(3, 1, { kind: 'heartbeat_reply', readRound: 1 });
  t.strictSame(leader.last?.reads, [{ request: 5, index: 1 }]);
});

t.test('an identifier says who, not where: messages to others are nobody’s business', async (t) => {
  const member = new Single([1, 2, 3]);
  const message = { ...heartbeat(), from: raftId(2), to: raftId(3), term: 1 } as const;
  member.step({ kind: 'message', message: message as never });
  t.equal(member.status.term, 0);
  t.equal(member.raft.drops.misaddressed, 1);
});
