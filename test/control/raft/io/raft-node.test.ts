import t, { type Test } from 'tap';
import { RaftError } from '../../../../src/control/raft/io/raft-error.js';
import type { RaftNode } from '../../../../src/control/raft/io/raft-node.js';
import { Cluster, type Host, idOf, until } from './cluster.js';

const bytes = (text: string) => Buffer.from(text);

async function three(t: Test, options = {}): Promise<Cluster> {
  const cluster = new Cluster(options);
  t.teardown(() => cluster.closeAll());
  await cluster.bootstrap(1, 2, 3);
  return cluster;
}

const others = (cluster: Cluster, leader: Host) => cluster.up.filter((host) => host !== leader);

async function rejection(promise: Promise<unknown>): Promise<RaftError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof RaftError) return error;
    throw error;
  }
  throw new Error('was not rejected');
}

t.test('three members elect a leader and apply what it is given, in one order', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const results = await Promise.all(
    Array.from({ length: 100 }, (_, i) => leader.running.propose(bytes(`c${i}`))),
  );
  t.equal(results.length, 100);
  t.strictSame(
    results,
    [...results].sort((a, b) => Number(a) - Number(b)),
    'in the order of the proposals',
  );
  await cluster.settled();
  const [first, ...rest] = cluster.up.map(({ machine }) => machine.commands);
  t.equal(first?.length, 100);
  for (const commands of rest) t.strictSame(commands, first);
});

t.test('proposals of one turn share a flush', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  await cluster.settled();
  const before = leader.disk.flushes;
  await Promise.all(Array.from({ length: 256 }, (_, i) => leader.running.propose(bytes(`c${i}`))));
  t.ok(leader.disk.flushes - before <= 3, `${leader.disk.flushes - before} flushes`);
});

t.test('a lone proposal waits for no timer', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const start = performance.now();
  for (let i = 0; i < 100; i++) await leader.running.propose(bytes('x'));
  const each = (performance.now() - start) / 100;
  t.ok(each < 20, `${each.toFixed(2)} ms each, far below a heartbeat`);
});

t.test('a follower refuses proposals and names the leader', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const follower = others(cluster, leader)[0] as Host;
  await until('it knows the leader', () => follower.running.status().leader === leader.id);
  const { detail } = await rejection(follower.running.propose(bytes('x')));
  t.strictSame(detail, { code: 'RAFT_NOT_LEADER', leader: leader.id });
});

t.test('a proposal that is too large is refused', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const { code } = await rejection(leader.running.propose(new Uint8Array(1_536 * 1_024 + 1)));
  t.equal(code, 'RAFT_TOO_LARGE');
  t.type(await leader.running.propose(new Uint8Array(1_536 * 1_024)), 'string');
});

t.test('a read on any member sees what was acknowledged before', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  for (let i = 0; i < 30; i++) {
    await leader.running.propose(bytes(`c${i}`));
    for (const { running, machine } of cluster.up) {
      await running.read();
      t.ok(machine.commands.includes(`c${i}`), `c${i}`);
    }
  }
});

t.test('reads without a quorum are refused within about an election', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  for (const host of others(cluster, leader)) cluster.kill(host.id);
  const start = performance.now();
  const { code } = await rejection(leader.running.read());
  t.equal(code, 'RAFT_NO_LEADER');
  t.ok(performance.now() - start < 2_000);
});

t.test('a read that is asked for while there is no leader waits for the next one', async (t) => {
  const cluster = await three(t, { electionTimeoutMs: 400 });
  const leader = await cluster.leader();
  const acknowledged = `${await leader.running.propose(bytes('x'))}`;
  const [one] = others(cluster, leader) as [Host];
  await until('it knows the leader', () => one.running.status().leader === leader.id);
  cluster.kill(leader.id);
  // The other process has ended, so nobody waits for an election timeout.
  await one.running.read();
  t.ok(one.machine.commands.includes('x'), acknowledged);
  t.not(one.running.status().leader, leader.id);
});

t.test('what was acknowledged survives the end of leaders, one after another', async (t) => {
  const cluster = await three(t);
  const acknowledged: string[] = [];
  const unknown = new Set<string>();
  let running = true;
  const client = async (name: string) => {
    for (let i = 0; running; i++) {
      const command = `${name}-${i}`;
      const host = cluster.up.find(({ node }) => node?.status().role === 'leader');
      try {
        await host?.running.propose(bytes(command));
        if (host === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
        else acknowledged.push(command);
      } catch {
        unknown.add(command);
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    }
  };
  const clients = ['a', 'b', 'c', 'd'].map(client);
  for (let round = 0; round < 4; round++) {
    const before = acknowledged.length;
    await until('progress', () => acknowledged.length > before + 20);
    const leader = await cluster.leader();
    cluster.kill(leader.id);
    await cluster.leader(10_000, leader.id);
    await cluster.start(leader.id);
  }
  const before = acknowledged.length;
  await until('progress at the end', () => acknowledged.length > before + 20);
  running = false;
  await Promise.all(clients);
  await cluster.settled();
  for (const { id, machine } of cluster.up) {
    const count = new Map<string, number>();
    for (const command of machine.commands) count.set(command, (count.get(command) ?? 0) + 1);
    const lost = acknowledged.filter((command) => count.get(command) !== 1);
    t.strictSame(lost, [], `member ${id} has every acknowledged command once`);
  }
  t.ok(acknowledged.length > 100, `${acknowledged.length} acknowledged, ${unknown.size} not`);
});

t.test('all members restart and go on from their disks', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  for (let i = 0; i < 20; i++) await leader.running.propose(bytes(`c${i}`));
  for (const id of [1, 2, 3]) cluster.kill(id);
  for (const id of [1, 2, 3]) await cluster.start(id);
  const next = await cluster.leader();
  await next.running.propose(bytes('after'));
  await cluster.settled();
  for (const { machine } of cluster.up)
    t.strictSame(machine.commands, [...Array.from({ length: 20 }, (_, i) => `c${i}`), 'after']);
});

t.test('the end of a leader is noticed before an election timeout', async (t) => {
  const cluster = await three(t, { electionTimeoutMs: 1_500, heartbeatMs: 50 });
  const first = await cluster.leader();
  await cluster.settled();
  await until('connections', () =>
    cluster.up.every(({ running }) => running.status().peers.every((peer) => peer.connected)),
  );
  const start = performance.now();
  cluster.kill(first.id);
  await cluster.leader(10_000, first.id);
  const tookMs = Math.round(performance.now() - start);
  t.ok(tookMs < 1_400, `${tookMs} ms`);
});

t.test('leadership is transferred when asked, to whom it is asked', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const heir = others(cluster, leader)[1] as Host;
  const pending = Array.from({ length: 50 }, (_, i) => leader.running.propose(bytes(`c${i}`)));
  await leader.running.transferLeadership(heir.id);
  await until('the heir leads', () => heir.running.status().role === 'leader');
  t.equal(leader.running.status().leader, heir.id);
  const outcomes = await Promise.allSettled(pending);
  await heir.running.propose(bytes('after'));
  await cluster.settled();
  for (const [i, outcome] of outcomes.entries())
    if (outcome.status === 'fulfilled')
      t.ok(leader.machine.commands.includes(`c${i}`), 'acknowledged and there');
  t.equal(heir.machine.commands.at(-1), 'after');
});

t.test('a leader that closes gives its place away, and answers what was proposed', async (t) => {
  const cluster = await three(t, { electionTimeoutMs: 1_000 });
  const leader = await cluster.leader();
  const pending = Promise.allSettled(
    Array.from({ length: 20 }, (_, i) => leader.running.propose(bytes(`c${i}`))),
  );
  const start = performance.now();
  await cluster.close(leader.id);
  t.ok(performance.now() - start < 1_500);
  await pending;
  await cluster.leader(900, leader.id);
  t.equal(
    (
      await rejection(
        (leader.node as RaftNode | undefined)?.propose(bytes('x')) ??
          Promise.reject(new RaftError({ code: 'RAFT_CLOSED' }, 'closed')),
      )
    ).code,
    'RAFT_CLOSED',
  );
});

t.test(
  'a proposal that a lost leader had taken up is told apart from one that holds',
  async (t) => {
    const cluster = await three(t);
    const leader = await cluster.leader();
    await cluster.settled();
    for (const host of others(cluster, leader)) cluster.part(leader.id, host.id);
    const proposal = rejection(leader.running.propose(bytes('lost')));
    const next = await cluster.leader(10_000, leader.id);
    await next.running.propose(bytes('kept'));
    for (const host of others(cluster, leader)) cluster.part(leader.id, host.id, false);
    const { code } = await proposal;
    t.match(code, /^RAFT_(LOST|OUTCOME_UNKNOWN)$/);
    await cluster.settled();
    for (const { machine } of cluster.up) t.strictSame(machine.commands, ['kept']);
  },
);

t.test('members come as learners and are promoted, and go', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  for (let i = 0; i < 200; i++) void leader.running.propose(bytes(`c${i}`));
  await cluster.start(4);
  await leader.running.addVoter(idOf(4), 'host-4');
  const four = leader.running.status().members.find(({ id }) => id === 4);
  t.strictSame(four, { id: 4, voter: true, context: 'host-4' });
  await cluster.settled();
  t.equal(cluster.host(4).machine.commands.length, 200);
  const gone = others(cluster, leader).find(({ id }) => id !== 4) as Host;
  await leader.running.changeMembers({ kind: 'remove', id: gone.id });
  t.equal(leader.running.status().members.length, 3);
  cluster.kill(gone.id);
  await leader.running.propose(bytes('last'));
  await cluster.settled();
  const { detail } = await rejection(leader.running.changeMembers({ kind: 'remove', id: gone.id }));
  t.strictSame(detail, { code: 'RAFT_MEMBERS', reason: 'members_invalid' });
});

t.test('a leader that removes itself leaves the rest at work', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  await leader.running.changeMembers({ kind: 'remove', id: leader.id });
  const next = await cluster.leader(10_000, leader.id);
  await next.running.propose(bytes('x'));
  t.equal(next.running.status().members.length, 2);
});
