import t from 'tap';
import {
  RecordCore,
  type RecordInput,
  type RecordReady,
} from '../../../src/gossip/core/record-core.js';
import { DIRECTORY } from '../../../src/gossip/wire/record-delta.js';
import { sha256 } from '../../sim/records-world.js';

const NET = 'net';
const OTHERS = ['b', 'c', 'd'];

/** A core whose Readies are kept, on a clock that a test turns. */
class Bench {
  readonly core: RecordCore;
  nowMs = 1_000;
  readonly readies: RecordReady[] = [];

  constructor(self: string) {
    this.core = new RecordCore({ self, epoch: 5_000, seed: 1, hash: sha256 });
    this.give({ kind: 'admitted', ids: new Set(['a', ...OTHERS]) });
  }

  give(...inputs: RecordInput[]): void {
    for (const input of inputs) {
      this.core.step(input, this.nowMs);
      this.readies.push(this.core.takeReady());
    }
  }

  /** Lets time pass, waking the core when it asks to be. */
  pass(ms: number): void {
    const untilMs = this.nowMs + ms;
    for (;;) {
      const nextMs = this.core.nextDeadlineMs() ?? untilMs;
      if (nextMs > untilMs) break;
      this.nowMs = Math.max(this.nowMs, nextMs);
      this.give({ kind: 'timeout' });
      if (nextMs === untilMs) break;
    }
    this.nowMs = untilMs;
  }

  /** What was to be done since the last call. */
  take<Field extends keyof RecordReady>(field: Field): RecordReady[Field][number][] {
    return this.readies.splice(0).flatMap((ready) => [...ready[field]]);
  }
}

/** `a`, connected with all others by connections that they opened, and quiet for a while. */
function settled(): Bench {
  const a = new Bench('a');
  a.give({ kind: 'subscribe', topic: NET });
  for (const member of OTHERS) a.give({ kind: 'connected', member, ours: false });
  a.pass(20_000);
  for (let i = 1; i < 100; i++) a.give({ kind: 'exchange_closed', exchange: i });
  a.pass(8_000);
  for (let i = 1; i < 100; i++) a.give({ kind: 'exchange_closed', exchange: i });
  a.take('opens');
  return a;
}

/** What `b` would announce of the topic, one delta per write. */
function deltasOfB(...keys: string[]) {
  const b = new Bench('b');
  b.give({ kind: 'subscribe', topic: NET });
  b.pass(100);
  for (const key of keys) {
    b.give({ kind: 'publish', topic: NET, key, value: Buffer.from('v') });
    b.pass(20);
  }
  return b.take('gossip').filter(({ topic, to }) => topic === NET && to > 0);
}

t.test('writes of 10 ms travel as one message, of the last value of each key', async (t) => {
  const a = settled();
  for (const value of ['1', '2', '3']) {
    a.give({ kind: 'publish', topic: NET, key: 'k', value: Buffer.from(value) });
    a.pass(3);
  }
  t.same(a.take('gossip'), []);
  a.pass(1);
  const sent = a.take('gossip');
  t.same(
    sent.map(({ from, to, events }) => [from, to, events.length]),
    [[0, 3, 1]],
  );
  a.give({ kind: 'publish', topic: NET, key: 'k', value: Buffer.from('3') });
  a.pass(20);
  t.same(a.take('gossip'), [], 'the same value again is no write');
});

t.test('a burst is cut into messages of bounded size', async (t) => {
  const a = settled();
  for (let i = 0; i < 100; i++) {
    a.give({ kind: 'publish', topic: NET, key: `k${i}`, value: Buffer.alloc(4_000) });
  }
  a.pass(10);
  const sent = a.take('gossip');
  t.ok(sent.length >= 6 && sent.every(({ events }) => events.length <= 16));
  t.same(
    sent.map(({ from }) => from),
    [0, ...sent.map(({ to }) => to)].slice(0, -1),
    'no gap',
  );
});

t.test('a gap is asked for from the owner, unless it closes by itself', async (t) => {
  const [one, two] = deltasOfB('k', 'l');
  t.ok(one && two);
  if (one === undefined || two === undefined) return;
  const a = settled();
  a.give({ kind: 'gossip', delta: two });
  t.same(a.take('opens'), [], 'it may be a reordering');
  a.pass(60);
  t.same(
    a.take('opens').map(({ member }) => member),
    ['b'],
  );
  a.give({ kind: 'gossip', delta: one });
  t.equal(a.core.table.records(NET).length, 2);
});

t.test('a write that nobody heard is offered to who shares the topic', async (t) => {
  const b = new Bench('b');
  b.give({ kind: 'subscribe', topic: NET });
  b.pass(20);
  const directory = b.take('gossip').find(({ topic }) => topic === DIRECTORY);
  t.ok(directory);
  if (directory === undefined) return;
  const a = settled();
  a.give({ kind: 'unheard', topic: NET });
  a.pass(60);
  t.same(a.take('opens'), [], 'nobody is known to share it');
  a.give({ kind: 'gossip', delta: directory }, { kind: 'unheard', topic: NET });
  a.pass(60);
  t.same(
    a.take('opens').map(({ member }) => member),
    ['b'],
  );
});

t.test('news of an exchange travel on to others, and only news', async (t) => {
  const [delta] = deltasOfB('k');
  t.ok(delta);
  if (delta === undefined) return;
  const { events, ...head } = delta;
  const hear = (a: Bench, exchange: number) => {
    a.give({ kind: 'exchange_opened', exchange, member: 'c' });
    const digest = Buffer.alloc(32);
    a.give(
      {
        kind: 'exchange_message',
        exchange,
        message: { kind: 'digests', topics: [{ topic: NET, digest }] },
      },
      {
        kind: 'exchange_message',
        exchange,
        message: {
          kind: 'vectors',
          topics: [{ topic: NET, owners: a.core.table.vector(NET) }],
          partial: false,
        },
      },
      {
        kind: 'exchange_message',
        exchange,
        message: { kind: 'page', parts: [{ head, events, final: true }], last: true },
      },
    );
    a.pass(200);
    return a
      .take('opens')
      .map(({ member }) => member)
      .sort();
  };
  const a = settled();
  t.same(hear(a, -1), ['b', 'd'], 'all but the one who told');
  for (let i = 1; i < 200; i++) a.give({ kind: 'exchange_closed', exchange: i });
  const again = settled();
  again.give({ kind: 'gossip', delta });
  again.take('opens');
  t.same(hear(again, -1), [], 'it was known');
});

t.test('silence on a connection is forgiven once, and not after a recovery', async (t) => {
  const silent = (a: Bench) => {
    a.give({ kind: 'unheard', topic: NET });
    a.readies.splice(0);
    a.pass(6_000);
    return a.take('hangUps');
  };
  const member = (id: string, state: 'alive' | 'suspect') => ({ id, address: id, port: 1, state });
  const a = new Bench('a');
  a.give({ kind: 'members', members: [member('b', 'suspect')] });
  a.give({ kind: 'connected', member: 'b', ours: true });
  t.same(silent(a), [], 'the first exchange times out');
  t.same(a.core.counters.get('exchange_timeout'), 1);
  a.pass(12_000);
  t.equal(a.take('hangUps')[0], 'b', 'and so does the next');

  const r = new Bench('a');
  r.give({ kind: 'members', members: [member('b', 'suspect')] });
  r.give({ kind: 'connected', member: 'b', ours: false });
  r.give({ kind: 'members', members: [member('b', 'alive')] });
  t.same(silent(r), ['b']);
});
