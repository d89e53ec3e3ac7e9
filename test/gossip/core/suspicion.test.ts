import t from 'tap';
import { Awareness } from '../../../src/gossip/core/awareness.js';
import { lanConfig, localConfig, wanConfig } from '../../../src/gossip/core/config.js';
import { Suspicion, suspicionMs, suspicionMsMin } from '../../../src/gossip/core/suspicion.js';
import type { MemberId } from '../../../src/gossip/wire/claim.js';

const lan = lanConfig();

t.test('the shortest suspicion grows with the logarithm of the group', async (t) => {
  const cases = [
    [1, 4_000],
    [10, 4_000],
    [100, 8_000],
    [1_000, 12_000],
  ] as const;
  for (const [members, want] of cases) {
    t.equal(Math.round(suspicionMsMin(lan, members)), want, `${members} members`);
  }
});

t.test('confirmations shorten a suspicion, the first one most', async (t) => {
  // As memberlist's formula: max - log(c + 1) / log(k + 1) * (max - min).
  const cases = [
    [0, 3, 30_000],
    [1, 3, 16_000],
    [2, 3, 7_810],
    [3, 3, 2_000],
    [4, 3, 2_000],
    [0, 0, 2_000],
    [5, 0, 2_000],
  ] as const;
  for (const [confirmations, wanted, want] of cases) {
    t.equal(
      suspicionMs(confirmations, wanted, 2_000, 30_000),
      want,
      `${confirmations} of ${wanted}`,
    );
  }
});

t.test('the last call comes before death, and is answered or not', async (t) => {
  const suspicion = new Suspicion(lan, 1, 1_000);
  t.equal(suspicion.deadlineMs(), 1_000 + 4_000 - 500, 'too few members to wait for: the minimum');
  suspicion.called(4_500);
  t.equal(suspicion.deadlineMs(), 5_000);

  const late = new Suspicion(lan, 1, 1_000);
  late.called(9_000);
  t.equal(late.deadlineMs(), 9_500, 'a late call leaves its time, too');
});

t.test('two who found it gone prove it; one does, in a group of two', async (t) => {
  const b = new Suspicion(lan, 9, 0);
  t.ok(b.confirm('x' as MemberId, true));
  t.notOk(b.confirm('x' as MemberId, true), 'the same witness again is no news');
  t.notOk(b.isProven);
  t.equal(b.reporter, 'x');
  t.ok(b.confirm('y' as MemberId, true));
  t.ok(b.isProven);
  b.capAt(300);
  t.equal(b.deadlineMs(), 300, 'proven: no last call');

  const pair = new Suspicion(lan, 1, 0);
  pair.confirm('x' as MemberId, true);
  t.ok(pair.isProven);
});

t.test('only as many reporters as are needed are news', async (t) => {
  const suspicion = new Suspicion(lan, 99, 0);
  const news = ['a', 'b', 'c', 'd', 'e'].map((id) => suspicion.confirm(id as MemberId, false));
  t.strictSame(news, [true, true, true, false, false]);
  t.equal(Math.round(suspicion.deadlineMs()), 8_000 - 500);
});

t.test('time slept is not held against the suspect', async (t) => {
  const suspicion = new Suspicion(lan, 1, 0);
  suspicion.capAt(2_000);
  suspicion.called(100);
  suspicion.shift(10_000);
  t.equal(suspicion.deadlineMs(), 12_000);
});

t.test('awareness stays within its bounds and stretches timeouts', async (t) => {
  const awareness = new Awareness(8);
  awareness.change(-3);
  t.equal(awareness.stretch(500), 500);
  awareness.change(3);
  t.equal(awareness.stretch(500), 2_000);
  awareness.change(99);
  t.equal(awareness.score, 8);
});

t.test('profiles differ where they say', async (t) => {
  t.equal(wanConfig().packetBytesMax, 1_280);
  t.equal(wanConfig().membersMax, lan.membersMax);
  t.equal(localConfig().probeTimeoutMs, 200);
  t.equal(localConfig().probeIntervalMs, lan.probeIntervalMs);
});
