import t, { type Test } from 'tap';
import type { SnapshotReceiverStats } from '../../../../src/control/raft/io/snapshot-receiver.js';
import {
  CHUNK_BYTES_MAX,
  encodeHello,
  encodeSnapshotFrame,
} from '../../../../src/control/raft/io/stream-frames.js';
import { Cluster, type Host, idOf, until } from './cluster.js';
import { Pipe } from './pipe.js';

/** A third of a chunk each, so that a few make several chunks. */
const large = (name: string) => Buffer.from(name.padEnd(90_000, '.'));
const CHUNK = CHUNK_BYTES_MAX;

async function three(t: Test, options = {}): Promise<Cluster> {
  const cluster = new Cluster({ snapshotEntries: 1_000_000, keepEntries: 2, ...options });
  t.teardown(() => cluster.closeAll());
  await cluster.bootstrap(1, 2, 3);
  return cluster;
}

/** A leader, and a member that is down and has missed what the leader has compacted since. */
async function leftBehind(cluster: Cluster, count: number) {
  const leader = await cluster.leader();
  const late = cluster.up.find((host) => host !== leader) as Host;
  await leader.running.propose(Buffer.from('before'));
  await cluster.settled();
  cluster.kill(late.id);
  for (let i = 0; i < count; i++) await leader.running.propose(large(`c${i}`));
  await leader.running.snapshot();
  await leader.running.propose(Buffer.from('after'));
  return { leader, late };
}

const received = (host: Host): SnapshotReceiverStats => host.running.status().snapshots.receiving;

t.test('a snapshot is taken when enough is applied, and the log before it goes', async (t) => {
  const cluster = await three(t, { snapshotEntries: 50, keepEntries: 10 });
  const leader = await cluster.leader();
  for (let i = 0; i < 200; i++) await leader.running.propose(Buffer.from(`c${i}`));
  const { storage } = leader;
  await until('compacted', () => (storage?.compactedIndex ?? 0) > 30);
  const { saved, lastIndex } = leader.running.status().snapshots;
  t.ok(saved >= 1 && saved <= 5, `${saved} snapshots`);
  t.ok((storage?.compactedIndex ?? 0) <= lastIndex - 10, 'some are kept for slow followers');
  for (const id of [1, 2, 3]) cluster.kill(id);
  for (const id of [1, 2, 3]) await cluster.start(id);
  const next = await cluster.leader();
  await next.running.propose(Buffer.from('after'));
  await cluster.settled();
  for (const { machine } of cluster.up) {
    t.equal(machine.commands.length, 201);
    t.equal(machine.commands[199], 'c199');
  }
});

t.test('a snapshot is of the moment when it was begun, while applies go on', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  for (let i = 0; i < 500; i++) void leader.running.propose(Buffer.from(`c${i}`));
  await leader.running.propose(Buffer.from('last'));
  const taking = leader.running.snapshot();
  const going = Array.from({ length: 50 }, () => leader.running.propose(Buffer.from('more')));
  const meta = await taking;
  await Promise.all(going);
  const lines = leader.disk.snapshot?.content.toString().split('\n') ?? [];
  t.equal(meta.index, leader.disk.snapshot?.meta.index);
  t.equal(lines.at(-2), 'last');
  t.equal(meta.members.length, 3);
});

t.test('snapshots asked for while one is taken wait for one that begins later', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  await leader.running.propose(Buffer.from('a'));
  const first = leader.running.snapshot();
  await leader.running.propose(Buffer.from('b'));
  const [one, two, three3] = await Promise.all([
    first,
    leader.running.snapshot(),
    leader.running.snapshot(),
  ]);
  t.ok(two.index > one.index);
  t.strictSame(two, three3, 'shared');
});

t.test('a member that missed what is compacted gets a snapshot, then the log', async (t) => {
  const cluster = await three(t);
  const { leader, late } = await leftBehind(cluster, 20);
  await cluster.start(late.id);
  await cluster.settled();
  t.strictSame(late.machine.commands, leader.machine.commands);
  t.equal(late.machine.restores, 1);
  t.ok(received(late).receivedBytes > 6 * CHUNK);
  // By another leader than the first, if the machine is busy.
  await until('a sender is told', () =>
    cluster.up.some(({ running }) => running.status().snapshots.sending.sent > 0),
  );
  // And it holds after a restart.
  cluster.kill(late.id);
  await cluster.start(late.id);
  await cluster.settled();
  t.strictSame(late.machine.commands, leader.machine.commands);
});

t.test('a transmission that is cut goes on where it was', async (t) => {
  const cluster = await three(t);
  const { leader, late } = await leftBehind(cluster, 30);
  let cuts = 0;
  cluster.onLine = ({ purpose, pipe }) => {
    if (purpose !== 'snapshot') return;
    const limit = 3 * CHUNK;
    pipe.onChunk = () => {
      if (pipe.bytes < limit || cuts >= 3) return;
      cuts++;
      pipe.cut();
    };
  };
  await cluster.start(late.id);
  await cluster.settled(20_000);
  t.equal(cuts, 3);
  t.strictSame(late.machine.commands, leader.machine.commands);
  const { resumedBytes, receivedBytes } = received(late);
  const sizeBytes = leader.disk.snapshot?.content.length ?? 0;
  t.ok(resumedBytes > 2 * CHUNK, `${resumedBytes} bytes were there already`);
  t.equal(receivedBytes, sizeBytes, 'no byte was received twice');
});

t.test('a receiver that ends in the middle goes on after its restart', async (t) => {
  const cluster = await three(t);
  const { leader, late } = await leftBehind(cluster, 30);
  let pipe: Pipe | undefined;
  cluster.onLine = (line) => {
    if (line.purpose !== 'snapshot') return;
    pipe = line.pipe;
    line.pipe.onChunk = () => {
      if (line.pipe.bytes > 4 * CHUNK) line.pipe.mode = 'stuck';
    };
  };
  await cluster.start(late.id);
  await until('some of it is there', () => pipe?.mode === 'stuck');
  cluster.onLine = undefined;
  await cluster.close(late.id);
  (pipe as unknown as Pipe).cut();
  await cluster.start(late.id);
  await cluster.settled(20_000);
  t.strictSame(late.machine.commands, leader.machine.commands);
  t.ok(received(late).resumedBytes > CHUNK);
});

t.test('the log goes on to the others while a snapshot is stuck', async (t) => {
  const cluster = await three(t);
  const { leader, late } = await leftBehind(cluster, 20);
  let pipe: Pipe | undefined;
  cluster.onLine = (line) => {
    if (line.purpose !== 'snapshot' || pipe !== undefined) return;
    pipe = line.pipe;
    line.pipe.onChunk = () => {
      if (line.pipe.bytes > CHUNK) line.pipe.mode = 'stuck';
    };
  };
  await cluster.start(late.id);
  await until('it is stuck', () => pipe?.mode === 'stuck');
  const { term } = leader.running.status();
  for (let i = 0; i < 50; i++) await leader.running.propose(Buffer.from(`m${i}`));
  t.equal(late.running.status().leader, leader.id, 'heartbeats come through');
  const stuck = pipe as unknown as Pipe;
  stuck.onChunk = undefined;
  stuck.mode = 'open';
  await cluster.settled();
  t.equal(leader.running.status().term, term);
  t.strictSame(late.machine.commands, leader.machine.commands);
});

t.test('a new leader sends its own snapshot when the old one ends in the middle', async (t) => {
  const cluster = await three(t);
  const { leader, late } = await leftBehind(cluster, 30);
  const other = cluster.up.find((host) => host !== leader) as Host;
  await other.running.snapshot();
  let seen = false;
  cluster.onLine = (line) => {
    if (line.purpose !== 'snapshot' || seen) return;
    line.pipe.onChunk = () => {
      if (line.pipe.bytes < 2 * CHUNK || seen) return;
      seen = true;
      setImmediate(() => cluster.kill(leader.id));
    };
  };
  await cluster.start(late.id);
  await until('the leader is killed', () => seen);
  await cluster.leader(10_000, leader.id);
  await cluster.settled();
  t.strictSame(late.machine.commands, other.machine.commands);
});

t.test('a second snapshot waits until the first is in the log of a slow disk', async (t) => {
  const cluster = await three(t);
  const { leader, late } = await leftBehind(cluster, 5);
  let offers = 0;
  cluster.onLine = ({ to, purpose }) => {
    if (purpose === 'snapshot' && to === late.id) offers++;
  };
  const node = await cluster.start(late.id);
  late.disk.full = true;
  const sending = () => leader.running.status().snapshots.sending;
  await until('the first is there', () => received(late).received === 1 && sending().sent === 1);
  // It cannot enter the log now, and soon the leader has no entries left that follow it.
  cluster.part(leader.id, late.id);
  for (let i = 0; i < 20; i++) await leader.running.propose(large(`d${i}`));
  await leader.running.snapshot();
  const before = offers;
  cluster.part(leader.id, late.id, false);
  await until('a second is offered', () => offers > before);
  // It would be there within a few turns of the event loop.
  const later = performance.now() + 300;
  await until('time passes', () => performance.now() > later);
  t.equal(received(late).received, 1);
  late.disk.full = false;
  await cluster.settled();
  t.equal(late.fatal, undefined);
  t.equal(late.node, node);
  t.strictSame(late.machine.commands, leader.machine.commands);
});

t.test('a sender that is never told that all arrived does not wait for long', async (t) => {
  const cluster = await three(t);
  const { leader, late } = await leftBehind(cluster, 5);
  let lines = 0;
  cluster.onLine = ({ to, purpose, pipe }) => {
    if (purpose !== 'snapshot' || to !== late.id) return;
    if (++lines > 1) return;
    pipe.onChunk = () => {
      if (pipe.bytes > CHUNK) pipe.mode = 'lost';
    };
  };
  await cluster.start(late.id);
  const start = performance.now();
  await cluster.settled();
  t.ok(performance.now() - start < 6_000);
  t.equal(lines, 2);
  t.strictSame(late.machine.commands, leader.machine.commands);
});

t.test('a joiner of a group with a compacted log begins with a snapshot', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  for (let i = 0; i < 50; i++) await leader.running.propose(Buffer.from(`c${i}`));
  await leader.running.snapshot();
  await cluster.start(4);
  await leader.running.addVoter(idOf(4), 'host-4');
  await cluster.settled();
  t.strictSame(cluster.host(4).machine.commands, leader.machine.commands);
  t.equal(cluster.host(4).machine.restores, 1);
});

t.test('a chunk that is damaged, or out of place, is not taken', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const target = cluster.up.find((host) => host !== leader) as Host;
  await cluster.settled();
  const { term, members } = target.running.status();
  const content = Buffer.alloc(1_000, 'x');
  const offer = encodeSnapshotFrame({
    kind: 'offer',
    term,
    meta: { index: 1_000, term, members },
    sizeBytes: content.length,
    digest: new Uint8Array(32),
  });
  const good = encodeSnapshotFrame({ kind: 'chunk', offsetBytes: 0, data: content });
  const flipped = Buffer.from(good);
  flipped[good.length - 1] = 0;
  const displaced = encodeSnapshotFrame({ kind: 'chunk', offsetBytes: 5, data: content });
  const bad = [
    [offer, flipped],
    [offer, displaced],
    // Whole, but not what was announced.
    [offer, good],
    [good],
    [encodeSnapshotFrame({ kind: 'done' })],
  ];
  for (const frames of bad) {
    const before = received(target);
    const pipe = new Pipe();
    pipe.a.on('error', () => {});
    pipe.a.resume();
    target.running.accept(pipe.b, 'snapshot', leader.id);
    pipe.a.write(encodeHello({ from: leader.id, to: target.id }));
    for (const frame of frames) pipe.a.write(frame);
    await until('it is refused', () => received(target).failed === before.failed + 1);
    await until('it is cut', () => !pipe.alive);
  }
  t.equal(received(target).received, 0);
  t.equal(target.machine.restores, 0);
  await leader.running.propose(Buffer.from('still there'));
});

t.test('a snapshot of a leader that was is refused', async (t) => {
  const cluster = await three(t);
  const leader = await cluster.leader();
  const target = cluster.up.find((host) => host !== leader) as Host;
  await cluster.settled();
  const pipe = new Pipe();
  const answers: Buffer[] = [];
  pipe.a.on('data', (chunk: Buffer) => answers.push(chunk));
  pipe.a.on('error', () => {});
  target.running.accept(pipe.b, 'snapshot', leader.id);
  pipe.a.write(encodeHello({ from: leader.id, to: target.id }));
  pipe.a.write(
    encodeSnapshotFrame({
      kind: 'offer',
      term: 0,
      meta: { index: 1_000, term: 1, members: [] },
      sizeBytes: 1,
      digest: new Uint8Array(32),
    }),
  );
  await until('it is cut', () => !pipe.alive);
  const refusal = encodeSnapshotFrame({ kind: 'refuse', why: 'stale' });
  t.ok(Buffer.concat(answers).includes(Buffer.from(refusal)));
});
