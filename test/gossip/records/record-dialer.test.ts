import fc from 'fast-check';
import t from 'tap';
import { Prng } from '../../../src/base/prng.js';
import {
  type DialTarget,
  RecordDialer,
  ringNeighbours,
} from '../../../src/gossip/core/record-dialer.js';

const targetsOf = (...ids: string[]) =>
  new Map(ids.map((id): [string, DialTarget] => [id, { id, address: id, port: 7946 }]));
const dialled = (dialer: RecordDialer) => dialer.takeReady().dials.map(({ id }) => id);

t.test('the ring makes any set one connected graph of small degree', async (t) => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 2, maxLength: 60 }),
      (ids) => {
        const edges = new Map(
          ids.map((id) => [
            id,
            ringNeighbours(
              id,
              ids.filter((other) => other !== id),
              4,
            ),
          ]),
        );
        const reached = new Set([ids[0] ?? '']);
        for (const id of reached) for (const next of edges.get(id) ?? []) reached.add(next);
        t.equal(reached.size, ids.length);
        for (const [id, next] of edges) {
          t.ok(next.length <= 4 && !next.includes(id));
          t.equal(next.length, Math.min(4, ids.length - 1));
        }
      },
    ),
    { numRuns: 50 },
  );
});

t.test('a member is dialled again within a second, and at once when it recovers', async (t) => {
  const dialer = new RecordDialer('a', new Prng(1));
  dialer.plan(targetsOf('b'), [], 0);
  dialer.timeout(0);
  t.same(dialled(dialer), ['b'], 'the lesser id dials at once');
  let nowMs = 0;
  for (let i = 0; i < 12; i++) {
    dialer.onDisconnected('b', nowMs);
    const nextMs = dialer.nextDeadlineMs() ?? Number.NaN;
    t.ok(nextMs > nowMs && nextMs <= nowMs + 1_000);
    nowMs = nextMs;
    dialer.timeout(nowMs);
    t.same(dialled(dialer), ['b']);
  }
  dialer.onDisconnected('b', nowMs);
  dialer.hurry('b', nowMs);
  t.equal(dialer.nextDeadlineMs(), nowMs);
  dialer.plan(targetsOf(), [], nowMs);
  t.equal(dialer.nextDeadlineMs(), undefined, 'the dead are not dialled');
});

t.test('the greater id waits, so that two make one connection', async (t) => {
  const dialer = new RecordDialer('b', new Prng(1));
  dialer.plan(targetsOf('a'), [], 0);
  dialer.timeout(0);
  t.same(dialled(dialer), []);
  dialer.onConnected('a', false, 100);
  dialer.timeout(1_000);
  t.same(dialled(dialer), []);
  t.same(dialer.connected(), ['a']);
});

t.test('a connection of ours that serves no ring is hung up after a while', async (t) => {
  const dialer = new RecordDialer('a', new Prng(1));
  dialer.plan(targetsOf('b'), [], 0);
  dialer.onConnected('b', true, 0);
  dialer.plan(targetsOf(), [], 1_000);
  dialer.timeout(30_999);
  t.same(dialer.takeReady().hangUps, []);
  dialer.timeout(31_000);
  t.same(dialer.takeReady().hangUps, ['b']);
  const theirs = new RecordDialer('a', new Prng(1));
  theirs.onConnected('b', false, 0);
  t.equal(theirs.nextDeadlineMs(), undefined, 'theirs is theirs to close');
});

t.test('no more is wanted than the limit of connections bears', async (t) => {
  const ids = Array.from({ length: 300 }, (_, i) => `m${i}`);
  const dialer = new RecordDialer('self', new Prng(1));
  const topics = ids.map((_, i) => ids.slice(i, i + 20));
  dialer.plan(targetsOf(...ids), topics, 0);
  dialer.timeout(1_000);
  t.equal(dialled(dialer).length, 40);
});

t.test('a dial from before a recovery is ended, not waited for', async (t) => {
  const dialer = new RecordDialer('a', new Prng(1));
  dialer.plan(targetsOf('b'), [], 0);
  dialer.timeout(0);
  t.same(dialled(dialer), ['b']);
  dialer.hurry('b', 3_000);
  t.same(dialer.takeReady().hangUps, ['b']);
  dialer.onDisconnected('b', 3_001);
  const nextMs = dialer.nextDeadlineMs() ?? Number.NaN;
  t.ok(nextMs <= 3_101, 'and made anew');
});

t.test(
  'a connection that something else goes through is kept, and hung up after that',
  async (t) => {
    const dialer = new RecordDialer('a', new Prng(1));
    dialer.hold('b', true, 0);
    dialer.onConnected('b', true, 0);
    t.equal(dialer.nextDeadlineMs(), undefined);
    dialer.timeout(100_000);
    t.same(dialer.takeReady().hangUps, []);
    dialer.hold('b', false, 100_000);
    t.equal(dialer.nextDeadlineMs(), 130_000);
    dialer.timeout(130_000);
    t.same(dialer.takeReady().hangUps, ['b']);
  },
);
