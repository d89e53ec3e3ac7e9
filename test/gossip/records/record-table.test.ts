import fc from 'fast-check';
import t from 'tap';
import { RECORD_LIMITS, RecordTable } from '../../../src/gossip/core/record-table.js';
import { type Delta, DIRECTORY } from '../../../src/gossip/wire/record-delta.js';
import { sha256 } from '../../sim/records-world.js';

const RUNS = { numRuns: 150 * Number(process.env['FUZZ_FACTOR'] ?? 1) };
const NET = 'net';
const bytes = (value: string) => Buffer.from(value);

function tableOf(self: string, epoch = 1_000, limits = RECORD_LIMITS): RecordTable {
  const table = new RecordTable(self, epoch, sha256, limits);
  table.setAdmitted(new Set(['a', 'b', 'c', 'd']));
  return table;
}

const shown = (table: RecordTable, topic = NET) =>
  table
    .records(topic)
    .map(({ owner, key, value }) => `${owner}/${key}=${Buffer.from(value).toString()}`)
    .sort();

type Write = { readonly key: string; readonly value: string | undefined };
const writes: fc.Arbitrary<Write[]> = fc.array(
  fc.record({
    key: fc.constantFrom('k', 'l', 'm'),
    value: fc.option(fc.constantFrom('1', '2', '3'), { nil: undefined }),
  }),
  { maxLength: 12 },
);

/** All that an owner ever announced of the topic: a delta per flush, over several boots. */
function announcements(boots: readonly (readonly Write[][])[]): { deltas: Delta[]; end: string[] } {
  const deltas: Delta[] = [];
  let end: string[] = [];
  boots.forEach((flushes, boot) => {
    const table = tableOf('a', 1_000 * (boot + 1));
    table.subscribe(NET, 0);
    for (const flush of [[], ...flushes]) {
      for (const { key, value } of flush)
        table.publish(NET, key, value === undefined ? value : bytes(value), 0);
      const delta = table.takeAnnouncement(NET);
      if (delta !== undefined) deltas.push(delta);
    }
    end = shown(table);
  });
  return { deltas, end };
}

t.test('merging is idempotent and commutes: the order of deltas does not matter', async (t) => {
  const boots = fc.array(fc.array(writes, { maxLength: 4 }), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(boots, fc.infiniteStream(fc.nat()), (boots, dice) => {
      const { deltas, end } = announcements(boots);
      const order = [...deltas, ...deltas]
        .map((delta) => ({ delta, place: dice.next().value as number }))
        .sort((x, y) => x.place - y.place);
      const table = tableOf('b', 1, { ...RECORD_LIMITS, waitingPerOwnerMax: 100 });
      table.subscribe(NET, 0);
      for (const { delta } of order) table.merge(delta, 0);
      t.same(shown(table), end);
      t.equal(table.waitingCount, 0, 'nothing waits any more');
      const before = table.recordsDigest(NET);
      for (const { delta } of order) t.not(table.merge(delta, 0), 'merged');
      t.equal(table.recordsDigest(NET), before);
    }),
    RUNS,
  );
});

t.test(
  'a delta for whoever lacks something brings it level, even past forgotten tombstones',
  async (t) => {
    fc.assert(
      fc.property(writes, writes, fc.boolean(), (first, second, forget) => {
        const limits = { ...RECORD_LIMITS, tombstoneMsMax: 10 };
        const a = tableOf('a', 1_000, limits);
        const b = tableOf('b');
        for (const table of [a, b]) table.subscribe(NET, 0);
        const level = () => {
          const have = b.vector(NET).find(({ owner }) => owner === 'a');
          t.equal(a.knowsMore(NET, 'a', have), a.deltaFor(NET, 'a', have) !== undefined);
          const delta = a.deltaFor(NET, 'a', have);
          if (delta !== undefined) t.equal(b.merge(delta, 0), 'merged');
          t.same(shown(b), shown(a));
          t.equal(b.recordsDigest(NET), a.recordsDigest(NET));
        };
        for (const list of [first, second]) {
          for (const { key, value } of list)
            a.publish(NET, key, value === undefined ? value : bytes(value), 0);
          if (forget) a.sweep(100);
          level();
        }
      }),
      RUNS,
    );
  },
);

t.test('digests tell vectors and records apart', async (t) => {
  const a = tableOf('a');
  const b = tableOf('b');
  for (const table of [a, b]) table.subscribe(NET, 0);
  const sync = (from: RecordTable, to: RecordTable, owner: string) => {
    const delta = from.deltaFor(
      NET,
      owner,
      to.vector(NET).find((v) => v.owner === owner),
    );
    if (delta !== undefined) to.merge(delta, 0);
  };
  t.equal(a.recordsDigest(NET), b.recordsDigest(NET), 'no records');
  t.notSame(a.vectorDigest(NET), b.vectorDigest(NET), 'but each has been heard by itself only');
  a.publish(NET, 'k', bytes('v'), 0);
  t.not(a.recordsDigest(NET), b.recordsDigest(NET));
  sync(a, b, 'a');
  sync(b, a, 'b');
  t.same(a.vectorDigest(NET), b.vectorDigest(NET));
  t.equal(a.recordsDigest(NET), b.recordsDigest(NET));
  b.setSuspended(new Set(['a']));
  t.equal(a.recordsDigest(NET), b.recordsDigest(NET), 'suspended records count');
  t.same(
    b.records(NET).map(({ suspended }) => suspended),
    [true],
  );
  t.same(b.takeChanged(), [NET]);
});

t.test('a gap parks a delta until what is before it comes', async (t) => {
  const a = tableOf('a');
  const b = tableOf('b');
  for (const table of [a, b]) table.subscribe(NET, 0);
  const flush = (value: string) => {
    a.publish(NET, value, bytes(value), 0);
    const delta = a.takeAnnouncement(NET);
    t.ok(delta);
    return delta as Delta;
  };
  const [one, two, three] = [flush('1'), flush('2'), flush('3')];
  t.equal(b.merge(three, 0), 'gap');
  t.equal(b.merge(two, 0), 'gap');
  t.same(shown(b), []);
  t.equal(b.waitingCount, 2);
  t.equal(b.merge(one, 0), 'merged');
  t.same(shown(b), ['a/1=1', 'a/2=2', 'a/3=3']);
  t.equal(b.waitingCount, 0);
  t.equal(b.merge(two, 0), 'stale');
  t.equal(b.merge({ ...three, from: 9, to: 10, events: [] }, 0), 'gap');
  b.sweep(RECORD_LIMITS.waitingMsMax);
  t.equal(b.waitingCount, 0, 'nobody waits for ever');
});

/** Hands what `from` announces to `to`. */
function tell(from: RecordTable, to: RecordTable, ...topics: string[]): void {
  for (const topic of topics) {
    const delta = from.takeAnnouncement(topic);
    if (delta !== undefined) to.merge(delta, 0);
  }
}

t.test('the directory voids what an owner does not stand for any more', async (t) => {
  const b = tableOf('b');
  b.subscribe(NET, 0);
  const a = tableOf('a');
  a.subscribe(NET, 0);
  a.publish(NET, 'k', bytes('v'), 0);
  const late = a.deltaFor(NET, 'a', undefined) as Delta;
  tell(a, b, DIRECTORY, NET);
  t.same(b.subscribersOf(NET), ['a']);
  t.same(shown(b), ['a/k=v']);

  a.unsubscribe(NET, 0);
  tell(a, b, DIRECTORY);
  t.same(b.subscribersOf(NET), []);
  t.same(shown(b), [], 'left');
  t.equal(b.merge(late, 0), 'epoch_void', 'a straggler changes nothing');

  a.subscribe(NET, 0);
  a.publish(NET, 'k', bytes('w'), 0);
  tell(a, b, NET, DIRECTORY);
  t.same(shown(b), ['a/k=w'], 'came back');

  const again = tableOf('a', 5_000);
  again.subscribe('other', 0);
  tell(again, b, DIRECTORY);
  t.same(shown(b), [], 'restarted, and did not enter this topic');
  t.equal(b.merge(late, 0), 'epoch_void');
});

t.test('writes in our own name are outbid, within reason', async (t) => {
  const a = tableOf('a', 1_000);
  a.subscribe(NET, 0);
  a.publish(NET, 'k', bytes('v'), 0);
  const own = a.takeAnnouncement(NET) as Delta;
  t.equal(a.merge(own, 0), 'own_echo');
  const forged = { ...own, epoch: 90_000 };
  t.equal(a.merge(forged, 0), 'own_ahead');
  t.same(shown(a), ['a/k=v'], 'not believed');
  t.ok(a.outbid(forged.epoch, 0));
  t.equal(a.merge(forged, 0), 'own_echo');

  const b = tableOf('b');
  b.subscribe(NET, 0);
  b.merge({ ...forged, events: [{ key: 'forged', seq: 1, value: bytes('x') }] }, 0);
  tell(a, b, DIRECTORY, NET);
  t.same(shown(b), ['a/k=v']);
  t.notOk(a.outbid(2 ** 47, 0), 'not beyond any clock');
});

t.test('limits are kept', async (t) => {
  const limits = {
    ...RECORD_LIMITS,
    topicsMax: 3,
    keysPerOwnerMax: 2,
    ownersMax: 2,
    waitingMax: 1,
  };
  const b = tableOf('b', 1_000, limits);
  t.ok(b.subscribe(NET, 0));
  t.ok(b.subscribe('net2', 0));
  t.notOk(b.subscribe('net3', 0), 'topics, the directory among them');
  t.ok(b.publish(NET, 'k', bytes('v'), 0));
  t.ok(b.publish(NET, 'l', bytes('v'), 0));
  t.notOk(b.publish(NET, 'm', bytes('v'), 0), 'own keys');
  t.ok(b.publish(NET, 'l', bytes('w'), 0), 'a rewrite is no new key');

  const event = (key: string, seq: number) => ({ key, seq, value: bytes('v') });
  const delta = (owner: string, ...events: Delta['events'][number][]): Delta => {
    return { topic: NET, owner, epoch: 9, from: 0, to: 9, events };
  };
  t.equal(b.merge(delta('a', event('k', 1), event('l', 2), event('m', 3)), 0), 'keys_over_limit');
  t.equal(b.merge(delta('a', event('k', 1)), 0), 'merged');
  t.equal(b.merge(delta('c', event('k', 1)), 0), 'owners_over_limit');
  t.equal(b.merge(delta('x', event('k', 1)), 0), 'owner_not_admitted');
  t.equal(b.merge({ ...delta('a'), topic: 'net9' }, 0), 'topic_unknown');
  t.equal(b.merge({ ...delta('a'), from: 20, to: 21 }, 0), 'gap');
  t.equal(b.merge({ ...delta('a'), from: 30, to: 31 }, 0), 'waiting_over_limit');
  b.setAdmitted(new Set(['b']));
  t.equal(b.waitingCount, 0);
  t.same(shown(b), ['b/k=v', 'b/l=w'], 'who is not admitted is forgotten');
});

t.test('tombstones are bounded, and deletions are final all the same', async (t) => {
  const limits = { ...RECORD_LIMITS, tombstonesPerOwnerMax: 4 };
  const a = tableOf('a', 1_000, limits);
  const b = tableOf('b');
  for (const table of [a, b]) table.subscribe(NET, 0);
  for (let i = 0; i < 20; i++) a.publish(NET, `k${i}`, bytes('v'), 0);
  tell(a, b, NET);
  t.equal(shown(b).length, 20);
  for (let i = 0; i < 20; i++) a.publish(NET, `k${i}`, undefined, 0);
  t.ok(a.counts().tombstones <= 4);
  const delta = a.deltaFor(
    NET,
    'a',
    b.vector(NET).find(({ owner }) => owner === 'a'),
  ) as Delta;
  t.equal(delta.from, 0, 'whole, since the tombstones are gone');
  b.merge(delta, 0);
  t.same(shown(b), []);
});
