import type { Duplex } from 'node:stream';
import t, { type Test } from 'tap';
import { Prng } from '../../../../src/base/prng.js';
import type { Member, RaftId, RaftMessage } from '../../../../src/control/raft/core/types.js';
import { encodeFrames, FRAME_BYTES_MAX } from '../../../../src/control/raft/io/message-frames.js';
import { encodeHello } from '../../../../src/control/raft/io/stream-frames.js';
import { Transport } from '../../../../src/control/raft/io/transport.js';
import { idOf, until } from './cluster.js';
import { Pipe } from './pipe.js';

const SILENCE_MS = 300;
const members: readonly Member[] = [1, 2].map((n) => ({
  id: idOf(n),
  voter: true,
  context: `host-${n}`,
}));

const heartbeat = (from: number, to: number, readRound = 0): RaftMessage => ({
  kind: 'heartbeat',
  from: idOf(from),
  to: idOf(to),
  term: 1,
  commitIndex: 0,
  readRound,
});

const append = (from: number, to: number, bytes: number): RaftMessage => ({
  kind: 'append',
  from: idOf(from),
  to: idOf(to),
  term: 1,
  prevIndex: 0,
  prevTerm: 0,
  commitIndex: 0,
  entries: [{ index: 1, term: 1, kind: 'command', data: new Uint8Array(bytes) }],
});

/** One end, whose dials end as `answer` says. */
class Side {
  readonly id: RaftId;
  readonly transport: Transport;
  readonly received: RaftMessage[] = [];
  readonly gone: RaftId[] = [];
  losses = 0;
  dials = 0;
  answer: (signal: AbortSignal) => Promise<Duplex> = () => Promise.reject(new Error('nobody'));
  readonly #ticker: NodeJS.Timeout;

  constructor(t: Test, id: number) {
    this.id = idOf(id);
    this.transport = new Transport({
      self: this.id,
      prng: new Prng(id),
      silenceMs: SILENCE_MS,
      frameMs: SILENCE_MS,
      dial: (_member, signal) => {
        this.dials++;
        return this.answer(signal);
      },
      onMessage: (message) => this.received.push(message),
      onGone: (peer) => this.gone.push(peer),
      onLoss: () => this.losses++,
    });
    this.#ticker = setInterval(() => this.transport.tick(), 20);
    t.teardown(() => this.stop());
  }

  send(...messages: RaftMessage[]): void {
    for (const message of messages) this.transport.send(message);
    this.transport.flush();
  }

  stop(): void {
    clearInterval(this.#ticker);
    this.transport.stop(false);
  }
}

const refused = () => Promise.reject(Object.assign(new Error('refused'), { code: 'ECONNREFUSED' }));

/** Two sides that can dial each other; `pipes` are what the first one has dialled. */
function pair(t: Test) {
  const one = new Side(t, 1);
  const two = new Side(t, 2);
  const pipes: Pipe[] = [];
  one.answer = async () => {
    const pipe = new Pipe();
    pipes.push(pipe);
    two.transport.accept(pipe.b, one.id);
    return pipe.a;
  };
  two.answer = async () => {
    const pipe = new Pipe();
    one.transport.accept(pipe.b, two.id);
    return pipe.a;
  };
  return { one, two, pipes };
}

/** An incoming connection to `side`, whose bytes the test writes. */
function incoming(side: Side, from?: RaftId): Pipe {
  const pipe = new Pipe();
  pipe.a.on('error', () => {});
  side.transport.accept(pipe.b, from);
  return pipe;
}

t.test('messages arrive in order, also those sent while the connection is made', async (t) => {
  const { one, two } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2, 1), heartbeat(1, 2, 2));
  one.send(heartbeat(1, 2, 3));
  await until('all arrived', () => two.received.length === 3);
  t.strictSame(
    two.received.map((message) => message.kind === 'heartbeat' && message.readRound),
    [1, 2, 3],
  );
  t.strictSame(one.losses, 0);
});

t.test('a member that knows nobody answers on the connection that it was dialled on', async (t) => {
  const { one, two } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2));
  await until('it arrived', () => two.received.length === 1);
  two.send(heartbeat(2, 1));
  await until('the answer arrived', () => one.received.length === 1);
  t.equal(two.dials, 0);
});

t.test('many large messages are cut into frames that the other side takes', async (t) => {
  const { one, two } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2));
  await until('connected', () => two.received.length === 1);
  one.send(...Array.from({ length: 8 }, () => append(1, 2, 1 << 20)));
  await until('all arrived', () => two.received.length === 9);
  t.strictSame(two.transport.dropped, {});
});

t.test('a peer that does not read costs a bounded backlog, and is heard of as lossy', async (t) => {
  const { one, two, pipes } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2));
  await until('connected', () => two.received.length === 1);
  const pipe = pipes[0] as Pipe;
  pipe.mode = 'stuck';
  for (let i = 0; i < 100; i++) one.send(append(1, 2, 256 << 10));
  t.ok(pipe.a.writableLength < 5 << 20, `${pipe.a.writableLength} bytes wait`);
  t.ok((one.transport.dropped.slow_peer ?? 0) > 50);
  t.ok(one.losses > 50);
  await until('it is given up', () => !pipe.alive || pipe.a.destroyed);
  t.equal(one.transport.dropped.silent, 1);
  await until('dialled anew', () => pipes.length === 2);
  one.send(heartbeat(1, 2, 7));
  await until('it works again', () =>
    two.received.some((message) => message.kind === 'heartbeat' && message.readRound === 7),
  );
});

t.test('a half-dead connection is found by what is not answered', async (t) => {
  const { one, two, pipes } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2));
  await until('connected', () => two.received.length === 1);
  (pipes[0] as Pipe).mode = 'lost';
  one.send(heartbeat(1, 2));
  const start = performance.now();
  await until('dialled anew', () => pipes.length === 2);
  t.ok(performance.now() - start >= SILENCE_MS - 50);
  t.equal(one.transport.dropped.silent, 1);
});

t.test('a quiet connection is left alone', async (t) => {
  const { one, two, pipes } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2));
  await until('connected', () => two.received.length === 1);
  const until3 = performance.now() + 3 * SILENCE_MS;
  await until('time passes', () => performance.now() > until3);
  t.equal(pipes.length, 1);
  t.strictSame(one.transport.dropped, {});
});

t.test('a peer whose process ended is gone; one that only vanished is not', async (t) => {
  const { one, two, pipes } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2));
  await until('connected', () => two.received.length === 1);
  one.answer = () => new Promise(() => {});
  pipes[0]?.cut();
  await until('lost', () => one.losses === 1);
  t.strictSame(one.gone, [], 'no answer is no proof');
  const connect = pair(t);
  connect.one.transport.setMembers(members);
  connect.one.send(heartbeat(1, 2));
  await until('connected', () => connect.two.received.length === 1);
  connect.one.answer = refused;
  connect.pipes[0]?.cut();
  await until('gone', () => connect.one.gone.length === 1);
  await until('many more dials', () => connect.one.dials > 4);
  t.equal(connect.one.gone.length, 1, 'told once');
});

t.test('a peer that was never there is not gone', async (t) => {
  const one = new Side(t, 1);
  one.answer = refused;
  one.transport.setMembers(members);
  await until('some dials', () => one.dials > 3);
  t.strictSame(one.gone, []);
});

t.test('a peer that dials is dialled at once', async (t) => {
  const { one, two, pipes } = pair(t);
  const answer = one.answer;
  one.answer = () => Promise.reject(new Error('unreachable'));
  one.transport.setMembers(members);
  await until('some dials', () => one.dials >= 5);
  one.answer = answer;
  two.transport.setMembers(members);
  const start = performance.now();
  await until('dialled', () => pipes.length === 1);
  t.ok(performance.now() - start < 200, 'sooner than the wait had become');
});

t.test('a member whose address changed is dialled anew', async (t) => {
  const { one, two, pipes } = pair(t);
  one.transport.setMembers(members);
  one.send(heartbeat(1, 2));
  await until('connected', () => two.received.length === 1);
  one.transport.setMembers(members.map((member) => ({ ...member, context: 'elsewhere' })));
  await until('dialled anew', () => pipes.length === 2);
  t.notOk(pipes[0]?.alive);
});

const frames: readonly (readonly [string, () => Uint8Array, string])[] = [
  ['an oversized frame', () => Buffer.from([0xff, 0, 0, 0]), 'oversized_frame'],
  ['garbage', () => Buffer.from([0, 0, 0, 3, 1, 2, 3]), 'malformed_frame'],
  ['the beginning of a frame, and no more', () => Buffer.from([0, 0, 1, 0, 1]), 'slow_frame'],
];
for (const [what, bytes, counter] of frames)
  t.test(`${what} ends the connection and is counted`, async (t) => {
    const side = new Side(t, 1);
    const pipe = incoming(side, idOf(2));
    pipe.a.write(encodeHello({ from: idOf(2), to: idOf(1) }));
    for (const frame of encodeFrames([heartbeat(2, 1)])) pipe.a.write(frame);
    await until('a good one arrives', () => side.received.length === 1);
    pipe.a.write(bytes());
    await until('it is cut', () => !pipe.alive);
    t.strictSame(side.transport.dropped, { [counter]: 1 });
    t.equal(side.received.length, 1);
  });

const hellos: readonly (readonly [string, Uint8Array, string])[] = [
  ['garbage', Buffer.from([0, 0, 0, 3, 1, 2, 3]), 'malformed_hello'],
  [
    'another version',
    Buffer.from([0, 0, 0, 15, 0x53, 0x52, 99, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 1]),
    'malformed_hello',
  ],
  ['a greeting to another member', encodeHello({ from: idOf(2), to: idOf(3) }), 'wrong_hello'],
  ['a greeting of another member', encodeHello({ from: idOf(3), to: idOf(1) }), 'wrong_hello'],
  ['a greeting of this member', encodeHello({ from: idOf(1), to: idOf(1) }), 'wrong_hello'],
];
for (const [what, bytes, counter] of hellos)
  t.test(`a connection that begins with ${what} is refused`, async (t) => {
    const side = new Side(t, 1);
    const pipe = incoming(side, idOf(2));
    pipe.a.write(bytes);
    for (const frame of encodeFrames([heartbeat(2, 1)])) pipe.a.write(frame);
    await until('it is cut', () => !pipe.alive);
    t.equal(side.transport.dropped[counter as 'wrong_hello'], 1);
    t.strictSame(side.received, []);
  });

t.test('connections that say nothing are bounded, and cut after a while', async (t) => {
  const side = new Side(t, 1);
  const pipes = Array.from({ length: 70 }, () => incoming(side));
  await until('some are refused', () => (side.transport.dropped.too_many_connections ?? 0) === 6);
  await until('all are cut', () => pipes.every((pipe) => !pipe.alive));
  t.equal(side.transport.dropped.late_hello, 64);
});

t.test('a peer speaks for itself only, and sends no snapshots as messages', async (t) => {
  const side = new Side(t, 1);
  const pipe = incoming(side, idOf(2));
  pipe.a.write(encodeHello({ from: idOf(2), to: idOf(1) }));
  const snapshot: RaftMessage = {
    kind: 'snapshot',
    from: idOf(2),
    to: idOf(1),
    term: 5,
    meta: { index: 9, term: 4, members },
  };
  const messages = [heartbeat(3, 1), heartbeat(2, 4), snapshot, heartbeat(2, 1, 9)];
  for (const frame of encodeFrames(messages)) pipe.a.write(frame);
  await until('the good one arrives', () => side.received.length > 0);
  t.match(side.received, [{ kind: 'heartbeat', readRound: 9 }]);
  t.equal(side.transport.dropped.misdirected_message, 3);
});

t.test('a newer connection of a peer takes the place of the older one', async (t) => {
  const side = new Side(t, 1);
  const [first, second] = [incoming(side, idOf(2)), incoming(side, idOf(2))] as const;
  first.a.write(encodeHello({ from: idOf(2), to: idOf(1) }));
  await until('connected', () => side.transport.connectedTo(idOf(2)));
  second.a.write(encodeHello({ from: idOf(2), to: idOf(1) }));
  await until('the first is cut', () => !first.alive);
  side.send(heartbeat(1, 2));
  t.ok(second.alive);
  t.strictSame(side.transport.dropped, { replaced: 1 });
});

t.test('frames are cut so that none is too large', async (t) => {
  const messages = Array.from({ length: 30 }, () => append(1, 2, 400 << 10));
  const cut = encodeFrames(messages);
  t.ok(cut.length > 2);
  for (const frame of cut) t.ok(frame.length <= FRAME_BYTES_MAX + 4);
});
