import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import fc from 'fast-check';
import t from 'tap';
import { type Ask, Conversations } from '../../../../src/dataplane/names/io/conversations.js';
import {
  frameMessage,
  MessageSplitter,
} from '../../../../src/dataplane/names/io/stream-messages.js';

type Teardown = { teardown(work: () => unknown): unknown };
const SOON_MS = 10_000;

async function until(what: string, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + SOON_MS;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`not in time: ${what}`);
    await new Promise((done) => setImmediate(done));
  }
}

interface Bed {
  readonly conversations: Conversations;
  /** A client's connection, which the server has taken. */
  open(): Promise<Socket>;
}

async function makeBed(t: Teardown, ask: Ask, queryTimeoutMs?: number): Promise<Bed> {
  const conversations = new Conversations(ask, queryTimeoutMs);
  let taken = 0;
  const server = createServer((socket) => {
    taken += 1;
    conversations.add(socket);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    conversations.close();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const open = async () => {
    const before = taken;
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => undefined);
    t.teardown(() => socket.destroy());
    await until('it is taken', () => taken > before);
    return socket;
  };
  return { conversations, open };
}

const echo: Ask = (query, send) => send(Buffer.from(query));
const query = (number: number, bytes = 20) => {
  const message = Buffer.alloc(bytes);
  message.writeUInt32BE(number, 0);
  return frameMessage(message);
};

/** Numbers of the answers that come. */
function answersOf(socket: Socket): readonly number[] {
  const splitter = new MessageSplitter();
  const numbers: number[] = [];
  socket.on('data', (chunk) => {
    splitter.push(chunk);
    for (let next = splitter.take(); next !== undefined; next = splitter.take())
      numbers.push(next.readUInt32BE(0));
  });
  return numbers;
}

const isClosed = (socket: Socket) => socket.closed || socket.readableEnded;

t.test('however it is cut, a stream holds the same messages', async (t) => {
  const messages = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 20 });
  fc.assert(
    fc.property(messages, fc.array(fc.integer({ min: 1, max: 500 })), (sent, cuts) => {
      const wire = Buffer.concat(sent.map((message) => frameMessage(Buffer.from(message))));
      const splitter = new MessageSplitter(300);
      const taken: Buffer[] = [];
      let at = 0;
      for (const cut of [...cuts, wire.length]) {
        splitter.push(wire.subarray(at, at + cut));
        at += cut;
        for (let next = splitter.take(); next !== undefined; next = splitter.take())
          taken.push(next);
      }
      return (
        taken.length === sent.length &&
        taken.every((message, index) => message.equals(sent[index] ?? Buffer.alloc(0)))
      );
    }),
    { numRuns: 200 * Number(process.env['FUZZ_FACTOR'] ?? 1) },
  );
  const splitter = new MessageSplitter(300);
  splitter.push(Buffer.concat([query(1), Buffer.from([0x01, 0x2d]), Buffer.alloc(301)]));
  t.equal(splitter.isOversized, false);
  t.equal(splitter.take()?.length, 20);
  t.equal(splitter.take(), undefined, 'too long, though it is whole');
  t.equal(splitter.isOversized, true);
});

t.test('no bytes end more than their own conversation', async (t) => {
  const { conversations, open } = await makeBed(t, echo);
  const asking = await open();
  const answers = answersOf(asking);
  const noise = fc.array(fc.uint8Array({ minLength: 1, maxLength: 2000 }), { maxLength: 5 });
  let sent = 0;
  for (const chunks of fc.sample(noise, { numRuns: 100, seed: 7 })) {
    const socket = await open();
    for (const chunk of chunks) socket.write(chunk);
    socket.resume();
    socket.end();
    sent += 1;
    asking.write(query(sent));
    await until('the other is answered', () => answers.length === sent);
  }
  t.ok(conversations.counters.queriesOversized > 0, 'some announced too much');
  await until('all are gone', () => conversations.size === 1);
});

t.test('one more than there may be ends the one that asked nothing for longest', async (t) => {
  const { conversations, open } = await makeBed(t, echo);
  const first = await open();
  const answers = answersOf(first);
  const idle: Socket[] = [];
  for (let count = 1; count < 64; count++) idle.push(await open());
  first.write(query(1));
  await until('it is answered', () => answers.length === 1);
  t.equal(conversations.counters.connectionsEvicted, 0);

  for (let count = 0; count < 200; count++) {
    const late = await open();
    const heard = answersOf(late);
    late.write(query(count));
    await until('who comes is answered', () => heard.length === 1);
    if (count % 10 === 0) {
      first.write(query(2));
      await until('so is who goes on asking', () => answers.length === 2 + count / 10);
    }
    t.ok(conversations.size <= 64);
  }
  t.equal(conversations.counters.connectionsEvicted, 200);
  await until('the idle are gone', () =>
    idle.every((socket) => socket.destroyed || isClosed(socket.resume())),
  );
  t.notOk(first.destroyed);
});

t.test('who says half of something, or one byte at a time, is not waited for', async (t) => {
  const { conversations, open } = await makeBed(t, echo, 1000);
  const half = await open();
  half.write(query(1).subarray(0, 10));
  const slow = await open();
  const silent = await open();
  for (const socket of [half, slow, silent]) socket.resume();
  let at = 0;
  const wire = query(1, 2000);
  const timer = setInterval(() => {
    slow.write(wire.subarray(at, at + 1));
    at += 1;
  }, 20);
  t.teardown(() => clearInterval(timer));
  const busy = await open();
  const answers = answersOf(busy);
  const asking = setInterval(() => busy.write(query(2)), 20);
  t.teardown(() => clearInterval(asking));
  await until('the three are ended', () => conversations.counters.connectionsExpired === 3);
  t.ok(answers.length > 3, 'who asks goes on');
  t.notOk(busy.destroyed);
  t.equal(conversations.size, 1);
});

t.test('a query that is announced to be long ends its conversation at once', async (t) => {
  const { conversations, open } = await makeBed(t, echo);
  const socket = await open();
  const answers = answersOf(socket);
  socket.write(Buffer.concat([query(1), Buffer.from([0xff, 0xff, 0, 0])]));
  await until('it is ended', () => socket.destroyed);
  t.strictSame(answers, [1], 'what came before is answered');
  t.equal(conversations.counters.queriesOversized, 1);
});

t.test('who does not read is not answered on and on', async (t) => {
  let asked = 0;
  const large = Buffer.alloc(16_000);
  const { conversations, open } = await makeBed(t, (message, send) => {
    asked += 1;
    const reply = Buffer.from(large);
    message.copy(reply, 0, 0, 4);
    send(reply);
  });
  const socket = await open();
  const COUNT = 20_000;
  socket.write(Buffer.concat(Array.from({ length: COUNT }, (_, at) => query(at))));
  socket.pause();
  let last = -1;
  await until('it comes to rest', () => {
    const isStill = asked > 0 && asked === last;
    last = asked;
    return isStill;
  });
  const other = await open();
  const heard = answersOf(other);
  other.write(query(1));
  await until('others are answered', () => heard.length === 1);
  // 320 MB are asked for; the kernel's buffers take some of it.
  t.ok(asked < COUNT / 4, `${asked} of ${COUNT} are answered`);

  const answers = answersOf(socket);
  socket.resume();
  await until('all are answered when he reads', () => answers.length === COUNT);
  t.ok(
    answers.every((number, at) => number === at),
    'in turn',
  );
  t.equal(conversations.size, 2);
});

t.test('queries that wait for upstreams are few for each conversation', async (t) => {
  const waiting: (() => void)[] = [];
  const { open } = await makeBed(t, (message, send) => {
    waiting.push(() => send(Buffer.from(message)));
  });
  const socket = await open();
  const answers = answersOf(socket);
  socket.write(Buffer.concat(Array.from({ length: 100 }, (_, at) => query(at))));
  await until('some are asked', () => waiting.length === 16);
  const other = await open();
  other.write(query(1));
  await until('another’s is asked too', () => waiting.length === 17);
  t.equal(waiting.length, 17, 'and no more');
  for (let done = 0; answers.length < 100; done++) {
    await until('there is one to answer', () => waiting.length > done);
    waiting[done]?.();
    await until('it came', () => answers.length >= Math.min(done, 100));
  }
  t.equal(answers.length, 100);
});

t.test('others have their turn while one has much to ask', async (t) => {
  const order: number[] = [];
  const { open } = await makeBed(t, (message, send) => {
    order.push(message.readUInt32BE(0));
    send(Buffer.from(message));
  });
  const [greedy, modest] = [await open(), await open()];
  for (const socket of [greedy, modest]) socket.resume();
  greedy.write(Buffer.concat(Array.from({ length: 2000 }, () => query(1))));
  modest.write(query(2));
  await until('all are asked', () => order.length === 2001);
  t.ok(order.indexOf(2) < 1000, `after ${order.indexOf(2)} of the other’s`);
});

t.test('a client that ends still has what it asked for', async (t) => {
  const { conversations, open } = await makeBed(t, echo);
  const socket = await open();
  const answers = answersOf(socket);
  socket.end(Buffer.concat([query(1), query(2)]));
  await until('both are answered', () => answers.length === 2);
  await until('and it is gone', () => conversations.size === 0);
});
