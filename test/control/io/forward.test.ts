import { duplexPair } from 'node:stream';
import fc from 'fast-check';
import t from 'tap';
import { SwarmError } from '../../../src/base/swarm-error.js';
import { ForwardServer, NotLeader } from '../../../src/control/io/forward-server.js';
import {
  FORWARD_BYTES_MAX,
  type ProposeOutcome,
  parseForwardRequest,
  parseForwardResponse,
} from '../../../src/control/wire/forward-messages.js';
import { encodeFrame } from '../../../src/control/wire/frame.js';
import { silent } from '../support.js';
import { echo, ME, OTHER, Pair, until } from './forward-support.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const COMMAND = { kind: 'network_remove', ref: 'x', atMs: 1 };
const SOON = { timeoutMs: 5_000 };

/** A proposer that answers when it is told to. */
function stalled() {
  const asked: { dedupe: string; command: unknown; answer: (o: ProposeOutcome) => void }[] = [];
  return {
    asked,
    propose: (dedupe: string, command: unknown) =>
      new Promise<ProposeOutcome>((answer) => asked.push({ dedupe, command, answer })),
  };
}

t.test('each outcome arrives as it was', async (t) => {
  const outcomes: ProposeOutcome[] = [
    { kind: 'done', id: 'abc', index: 12 },
    { kind: 'refused', refusal: { detail: { code: 'SWARM_OUT_OF_SEQUENCE' }, message: 'm' } },
    { kind: 'not_leader' },
    { kind: 'not_leader', leader: { nodeId: OTHER, address: { address: 'fd00::1', port: 2377 } } },
    { kind: 'busy', reason: 'the disk is full' },
    { kind: 'unknown' },
  ];
  const left = [...outcomes];
  const pair = new Pair(async () => left.shift() as ProposeOutcome);
  for (const outcome of outcomes) {
    const { request: _, ...seen } = (await pair.client.propose('d', COMMAND, SOON)) as {
      request?: number;
    };
    t.strictSame(seen, outcome);
  }
  t.equal(pair.dials, 1, 'on one connection');
  pair.close();
});

t.test('many at once: the command and its id go there, and answers may overtake', async (t) => {
  const server = stalled();
  const pair = new Pair(server.propose);
  const answers = Array.from({ length: 300 }, (_, n) =>
    pair.client.propose(`d${n}`, { ...COMMAND, ref: `r${n}` }, SOON),
  );
  await until('all are asked', () => server.asked.length === 300);
  t.strictSame(server.asked[17]?.command, { ...COMMAND, ref: 'r17' });
  t.strictSame(
    server.asked.map(({ dedupe }) => dedupe),
    answers.map((_, n) => `d${n}`),
    'in the order of asking',
  );
  for (const { dedupe, answer } of server.asked.toReversed())
    answer({ kind: 'done', id: dedupe, index: 1 });
  const ids = (await Promise.all(answers)).map((answer) => 'id' in answer && answer.id);
  t.strictSame(
    ids,
    answers.map((_, n) => `d${n}`),
  );
  t.equal(pair.client.stats().outstanding, 0);
  pair.close();
});

t.test('no more is sent than may be unanswered, and the rest waits its turn', async (t) => {
  const server = stalled();
  const pair = new Pair(server.propose);
  const answers = Array.from({ length: 1_500 }, (_, n) =>
    pair.client.propose(`d${n}`, COMMAND, SOON),
  );
  await until('the window is full', () => server.asked.length === 1_024);
  t.match(pair.client.stats(), { outstanding: 1_024, waiting: 476 });
  for (const { answer } of server.asked.splice(0, 100)) answer({ kind: 'unknown' });
  await until('as many more came', () => server.asked.length === 1_024);
  await until('all came', () => {
    for (const { answer } of server.asked.splice(0)) answer({ kind: 'unknown' });
    return pair.client.stats().waiting === 0 && pair.client.stats().outstanding === 0;
  });
  await Promise.all(answers);
  pair.close();
});

t.test('large commands pass, one at a time if need be; too large ones are refused', async (t) => {
  const server = stalled();
  const pair = new Pair(server.propose);
  const large = { ...COMMAND, ref: 'x'.repeat(3 << 20) };
  const answers = [1, 2, 3, 4].map((n) => pair.client.propose(`d${n}`, large, SOON));
  await until('two are there', () => server.asked.length === 2);
  t.match(pair.client.stats(), { outstanding: 2, waiting: 2 });
  await until('all came', () => {
    for (const { answer } of server.asked.splice(0)) answer({ kind: 'unknown' });
    return pair.client.stats().outstanding === 0;
  });
  t.ok((await Promise.all(answers)).every(({ kind }) => kind === 'unknown'));
  t.match(
    await pair.client.propose('d', { ...COMMAND, ref: 'x'.repeat(FORWARD_BYTES_MAX) }, SOON),
    { kind: 'refused', refusal: { detail: { code: 'SWARM_INVALID' } } },
  );
  pair.close();
});

t.test('a lost connection leaves what was sent open, and only that', async (t) => {
  const server = stalled();
  const pair = new Pair(server.propose);
  const sent = pair.client.propose('sent', COMMAND, SOON);
  await until('it is there', () => server.asked.length === 1);
  pair.dialTrouble = new Error('refused');
  pair.cut();
  t.match(await sent, { kind: 'unanswered', sent: true });
  const waits = pair.client.propose('waits', COMMAND, SOON);
  t.match(await pair.client.propose('late', COMMAND, { timeoutMs: 50 }), {
    kind: 'unanswered',
    sent: false,
  });
  await until('it was dialled again and again', () => pair.dials >= 3);
  pair.dialTrouble = undefined;
  await until('it came', () => server.asked.length === 2);
  t.equal(server.asked[1]?.dedupe, 'waits');
  server.asked[1]?.answer({ kind: 'unknown' });
  t.match(await waits, { kind: 'unknown' });
  pair.close();
});

t.test('a manager that owes an answer and is silent is given up; a slow one is not', async (t) => {
  const server = stalled();
  const pair = new Pair(server.propose, {}, 150);
  const slow = pair.client.propose('slow', COMMAND, SOON);
  await until('it is there', () => server.asked.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 400));
  server.asked[0]?.answer({ kind: 'unknown' });
  t.match(await slow, { kind: 'unknown' }, 'it answered pings meanwhile');
  t.equal(pair.dials, 1);
  const frozen = pair.client.propose('frozen', COMMAND, SOON);
  for (const [, far] of pair.pipes) far.pause();
  t.match(await frozen, { kind: 'unanswered', sent: true });
  pair.close();
});

t.test('who does not wait any more is forgotten on both sides', async (t) => {
  const server = stalled();
  let aborted = false;
  const pair = new Pair(server.propose, {
    wait: (_params, _from, signal) =>
      new Promise((_, reject) => {
        signal.addEventListener('abort', () => {
          aborted = true;
          reject(new Error('aborted'));
        });
      }),
  });
  const cancel = new AbortController();
  const call = pair.client.call('wait', null, { ...SOON, signal: cancel.signal });
  const proposal = pair.client.propose('d', COMMAND, { ...SOON, signal: cancel.signal });
  await until('it is there', () => server.asked.length === 1);
  cancel.abort();
  t.match(await call, { kind: 'unanswered', sent: true, why: 'cancelled' });
  t.match(await proposal, { kind: 'unanswered', sent: true });
  await until('the method knows', () => aborted);
  server.asked[0]?.answer({ kind: 'unknown' });
  t.match(await pair.client.propose('e', COMMAND, { timeoutMs: 20 }), { kind: 'unanswered' });
  t.match(pair.client.stats(), { outstanding: 0, waiting: 0, connected: true });
  t.match(await pair.client.propose('e', COMMAND, { ...SOON, signal: cancel.signal }), {
    sent: false,
  });
  pair.close();
  t.match(await pair.client.propose('e', COMMAND, SOON), { kind: 'unanswered', why: 'closed' });
});

t.test('calls go to methods by name, with the name of who asks', async (t) => {
  const pair = new Pair(echo, {
    add: async (params, from) => ({ sum: (params as number[]).reduce((a, b) => a + b), from }),
    nothing: async () => undefined,
    refuse: async () => {
      throw new SwarmError({ code: 'SWARM_NOT_FOUND', kind: 'node', ref: 'x' }, 'node x not found');
    },
    lead: async () => {
      throw new NotLeader({ nodeId: OTHER, address: { address: '10.0.0.1', port: 2377 } });
    },
    fail: async () => {
      throw new Error('of mine');
    },
    big: async () => 'x'.repeat(FORWARD_BYTES_MAX),
  });
  const call = (method: string, params?: unknown) => pair.client.call(method, params, SOON);
  t.match(await call('add', [1, 2, 3]), { kind: 'result', result: { sum: 6, from: ME } });
  t.match(await call('nothing'), { kind: 'result', result: null });
  t.match(await call('refuse'), { kind: 'refused', refusal: { message: 'node x not found' } });
  t.match(await call('lead'), { kind: 'not_leader', leader: { nodeId: OTHER } });
  t.match(await call('fail'), { kind: 'busy', reason: 'of mine' });
  t.match(await call('big'), { kind: 'busy', reason: 'the answer is too large' });
  for (const absent of ['absent', 'toString', '__proto__'])
    t.match(await call(absent), {
      kind: 'refused',
      refusal: { detail: { code: 'SWARM_UNSUPPORTED' } },
    });
  pair.close();
});

t.test('a second connection of a manager ends the first; nonsense ends its own', async (t) => {
  const server = new ForwardServer({ log: silent, propose: echo, methods: {} });
  const connect = (from = ME) => {
    const [near, far] = duplexPair();
    let closed = false;
    far.on('close', () => {
      closed = true;
    });
    near.on('data', () => {});
    server.accept(far, from);
    return { near, closed: () => closed };
  };
  const first = connect();
  const second = connect();
  await until('the first is gone', first.closed);
  t.notOk(second.closed());
  const other = connect(OTHER);
  const ask = encodeFrame({ kind: 'call', request: 1, method: 'x', params: null });
  for (const bytes of [
    encodeFrame({ kind: 'propose', request: -1, dedupe: 'd', command: {} }),
    encodeFrame(null),
    Buffer.from([0x7f, 0xff, 0xff, 0xff, 1]),
  ]) {
    const bad = connect();
    bad.near.write(ask);
    bad.near.write(bytes);
    await until('it is gone', bad.closed);
  }
  t.notOk(other.closed());
  t.match(server.stats(), { connections: 1, refusedConnections: 2 });
  server.close();
  await until('all are gone', other.closed);
});

t.test('the same question number twice is nonsense', async (t) => {
  const waiting = stalled();
  const server = new ForwardServer({ log: silent, propose: waiting.propose, methods: {} });
  const [near, far] = duplexPair();
  server.accept(far, ME);
  const frame = encodeFrame({ kind: 'propose', request: 1, dedupe: 'd', command: COMMAND });
  near.write(Buffer.concat([frame, frame]));
  await until('it is gone', () => far.destroyed);
  t.equal(waiting.asked.length, 1);
});

t.test('messages are judged without a throw', async (t) => {
  fc.assert(
    fc.property(fc.oneof(fc.anything(), fc.jsonValue()), (value) => {
      parseForwardRequest(value);
      parseForwardResponse(value);
      return true;
    }),
    { numRuns: 300 * FUZZ_FACTOR },
  );
  t.equal(parseForwardRequest({ kind: 'propose', request: 1, dedupe: 'd', command: 5 }), undefined);
  t.equal(parseForwardResponse({ kind: 'done', request: 1, id: 'x', index: 1.5 }), undefined);
});
