import t, { type Test } from 'tap';
import { RaftError } from '../../../../src/control/raft/io/raft-error.js';
import { Cluster, type Host, ListMachine, until } from './cluster.js';

const bytes = (text: string) => Buffer.from(text);

async function three(t: Test, options = {}): Promise<Cluster> {
  const cluster = new Cluster(options);
  t.teardown(() => cluster.closeAll());
  await cluster.bootstrap(1, 2, 3);
  return cluster;
}

const others = (cluster: Cluster, leader: Host) => cluster.up.filter((host) => host !== leader);

const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'fulfilled',
    (error: unknown) => (error instanceof RaftError ? error.code : String(error)),
  );

function block(ms: number): void {
  const until = performance.now() + ms;
  while (performance.now() < until);
}

t.test(
  'a follower that reads nothing neither stalls the leader nor grows its memory',
  async (t) => {
    const cluster = await three(t);
    const leader = await cluster.leader();
    await cluster.settled();
    const slow = others(cluster, leader)[0] as Host;
    const stick = () => {
      for (const pipe of cluster.lines(leader.id, slow.id)) pipe.mode = 'stuck';
    };
    cluster.onLine = stick;
    stick();
    const { term } = leader.running.status();
    const value = Buffer.alloc(64 << 10, 'v');
    for (let i = 0; i < 40; i++)
      await Promise.all(Array.from({ length: 10 }, () => leader.running.propose(value)));
    const waiting = cluster
      .lines(leader.id, slow.id)
      .reduce((sum, pipe) => sum + pipe.a.writableLength, 0);
    t.ok(waiting < 10 << 20, `${waiting} bytes wait for it`);
    t.equal(leader.running.status().term, term);
    cluster.onLine = undefined;
    for (const pipe of cluster.lines(leader.id, slow.id)) pipe.mode = 'open';
    await cluster.settled();
    t.equal(slow.machine.commands.length, 400);
  },
);

t.test('a disk that fails stops the member at once', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  await cluster.settled();
  leader.disk.failure = new Error('input/output error');
  const proposal = codeOf(leader.running.propose(bytes('x')));
  await until('it has stopped', () => leader.fatal !== undefined);
  t.equal(leader.fatal?.message, 'input/output error');
  t.equal(await proposal, 'RAFT_OUTCOME_UNKNOWN');
  t.equal(await codeOf(leader.running.propose(bytes('y'))), 'RAFT_CLOSED');
  t.equal(await codeOf(leader.running.read()), 'RAFT_CLOSED');
  t.strictSame(leader.running.status().peers, []);
  leader.life.alive = false;
  const next = await cluster.leader(10_000, leader.id);
  await next.running.propose(bytes('z'));
});

t.test('a follower whose disk fails acknowledges nothing any more', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  await cluster.settled();
  const [one, two] = others(cluster, leader) as [Host, Host];
  cluster.kill(two.id);
  one.disk.failure = new Error('input/output error');
  const outcome = codeOf(leader.running.propose(bytes('x')));
  await until('it has stopped', () => one.fatal !== undefined);
  one.life.alive = false;
  await until('the leader has no quorum', () => leader.running.status().role !== 'leader');
  t.equal(leader.running.status().commitIndex < leader.running.status().lastIndex, true);
  t.equal(await outcome, 'RAFT_OUTCOME_UNKNOWN');
});

t.test('a leader whose disk is full hands over, and goes on when there is room', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  await cluster.settled();
  leader.disk.full = true;
  const outcome = codeOf(leader.running.propose(bytes('x')));
  const next = await cluster.leader(10_000, leader.id);
  t.ok(leader.running.status().readOnly);
  t.match(await outcome, /^(fulfilled|RAFT_LOST|RAFT_OUTCOME_UNKNOWN)$/);
  for (let i = 0; i < 20; i++) await next.running.propose(bytes(`c${i}`));
  leader.disk.full = false;
  await until('it writes again', () => !leader.running.status().readOnly);
  await cluster.settled();
  t.strictSame(leader.machine.commands, next.machine.commands);
  t.equal(leader.fatal, undefined);
});

t.test('a lone member whose disk is full refuses, and loses nothing', async (t) => {
  const cluster = new Cluster();
  t.teardown(() => cluster.closeAll());
  await cluster.bootstrap(1);
  const leader = await cluster.leader();
  await leader.running.propose(bytes('before'));
  leader.disk.full = true;
  const caught = leader.running.propose(bytes('caught'));
  await until('it refuses', () => leader.running.status().readOnly);
  t.equal(await codeOf(leader.running.propose(bytes('refused'))), 'RAFT_READ_ONLY');
  await leader.running.read();
  leader.disk.full = false;
  await caught;
  await until('it takes proposals again', () => !leader.running.status().readOnly);
  await leader.running.propose(bytes('after'));
  t.strictSame(leader.machine.commands, ['before', 'caught', 'after']);
});

t.test('a state machine that throws stops the member', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  leader.machine.apply = () => {
    throw new Error('a bug');
  };
  void codeOf(leader.running.propose(bytes('x')));
  await until('it has stopped', () => leader.fatal !== undefined);
  t.equal(leader.fatal?.message, 'a bug');
});

t.test('more proposals than can wait are refused, and the others hold', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const value = Buffer.alloc(1 << 20);
  const outcomes = await Promise.all(
    Array.from({ length: 80 }, () => codeOf(leader.running.propose(value))),
  );
  const refused = outcomes.filter((outcome) => outcome === 'RAFT_OVERLOADED').length;
  const done = outcomes.filter((outcome) => outcome === 'fulfilled').length;
  t.ok(refused >= 16, `${refused} refused`);
  t.equal(done + refused, 80);
});

t.test('a leader cut off from the others steps down; after healing all is one again', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  await cluster.settled();
  const rest = others(cluster, leader);
  for (const host of rest) cluster.part(leader.id, host.id);
  await until('it has stepped down', () => leader.running.status().role !== 'leader');
  const next = await cluster.leader(10_000, leader.id);
  await next.running.propose(bytes('x'));
  t.equal(await codeOf(leader.running.read()), 'RAFT_NO_LEADER');
  const start = performance.now();
  for (const host of rest) cluster.part(leader.id, host.id, false);
  await cluster.settled();
  t.ok(performance.now() - start < 4_000);
  t.strictSame(leader.machine.commands, ['x']);
});

t.test('a leader whose event loop stood still says so, and after a second gives way', async (t) => {
  const warnings: object[] = [];
  const quiet = () => {};
  const log = {
    debug: quiet,
    info: quiet,
    error: quiet,
    warn: (fields: object, message: string) => {
      if (message === 'the leader stood still') warnings.push(fields);
    },
  };
  // All members share this loop, so none of them sees another one missing.
  const cluster = await three(t, { log, electionTimeoutMs: 2_000, heartbeatMs: 100 });
  const leader = await cluster.leader();
  await cluster.settled();
  block(500);
  await until('a warning', () => warnings.length === 1);
  t.ok((warnings[0] as { stalledMs: number }).stalledMs >= 300);
  t.equal(leader.running.status().stalls, 1);
  t.equal(leader.running.status().role, 'leader');
  block(1_300);
  await until('a warning', () => warnings.length === 2);
  await cluster.leader(2_000, leader.id);
});

t.test('what a restarted member has to apply leaves the event loop its turns', async (t) => {
  const count = 5_000;
  const cluster = new Cluster();
  t.teardown(() => cluster.closeAll());
  await cluster.bootstrap(1);
  const leader = await cluster.leader();
  await Promise.all(Array.from({ length: count }, (_, i) => leader.running.propose(bytes(`${i}`))));
  cluster.kill(1);
  const { apply } = ListMachine.prototype;
  t.teardown(() => {
    ListMachine.prototype.apply = apply;
  });
  ListMachine.prototype.apply = function (this: ListMachine, entry) {
    block(0.04);
    return apply.call(this, entry);
  };
  const seen = new Set<number>();
  const node = await cluster.start(1);
  while (node.status().appliedIndex < count) {
    await new Promise((resolve) => setImmediate(resolve));
    seen.add(node.status().appliedIndex);
  }
  // 200 ms of work in all, in slices of ten; on a busy machine they are the shorter.
  t.ok(seen.size >= 8, `${seen.size} slices`);
  await until('all is applied', () => cluster.host(1).machine.commands.length === count);
  t.strictSame(
    cluster.host(1).machine.commands,
    Array.from({ length: count }, (_, i) => `${i}`),
  );
});

t.test('a removed member that is down leaves no dials behind', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const gone = others(cluster, leader)[0] as Host;
  cluster.kill(gone.id);
  await leader.running.changeMembers({ kind: 'remove', id: gone.id });
  await until('nobody knows it any more', () =>
    leader.running.status().peers.every(({ id }) => id !== gone.id),
  );
  const { dials } = cluster;
  const later = performance.now() + 1_200;
  await until('time passes', () => performance.now() > later);
  t.equal(cluster.dials, dials);
});
