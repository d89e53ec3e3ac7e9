import fc from 'fast-check';
import t from 'tap';
import type { Prng } from '../../../../src/base/prng.js';
import { DEFAULT_BALANCE } from '../../../../src/dataplane/core/balance/config.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { SlowWorld, type Wait } from '../../../support/slow-world.js';
import { balancerOf, client, entries, entry } from './support.js';

const around = (ms: number, prng: Prng) => ms * (0.8 + 0.4 * prng.nextFloat());
const about =
  (ms: number): Wait =>
  (_nowMs, prng) =>
    around(ms, prng);
/** A share of the flows takes longer. */
const mixed =
  (share: number, slowMs: number): Wait =>
  (_nowMs, prng) =>
    around(prng.chance(share) ? slowMs : 5, prng);
const between =
  (fromMs: number, toMs: number, then: Wait, else_: Wait): Wait =>
  (nowMs, prng) =>
    (nowMs >= fromMs && nowMs < toMs ? then : else_)(nowMs, prng);
/** Every so often it does nothing for a while: flows that begin then wait for its end. */
const pausing =
  (everyMs: number, pauseMs: number): Wait =>
  (nowMs) =>
    Math.max(5, pauseMs - (nowMs % everyMs));
const all = (count: number, wait: Wait): Wait[] => Array.from({ length: count }, () => wait);
const outlierOf = (slowFactor: number) => ({ ...DEFAULT_BALANCE.outlier, slowFactor });

t.test('who is passed over', async (t) => {
  for (const [name, waits, rate, slow] of [
    ['one of four', [about(500), ...all(3, about(5))], 200, [0]],
    ['one of two', [about(300), about(5)], 200, [0]],
    ['one of two at little load', [about(300), about(5)], 4, [0]],
    ['two of eight', [about(500), about(400), ...all(6, about(5))], 400, [0, 1]],
    ['in a service held up as a whole', [about(900), ...all(3, about(150))], 200, []],
    ['whose every second answer is slow', [mixed(0.5, 400), ...all(2, about(5))], 200, [0]],
    ['slow for a service with long polls', [about(600), ...all(3, mixed(0.1, 5000))], 300, [0]],
    ['hanging in such a service', [about(60_000), ...all(3, mixed(0.2, 5000))], 300, [0]],
    ['most of three', [about(500), about(500), about(5)], 200, []],
    ['all', [about(500), about(600), about(400)], 200, []],
    ['a lone one', [about(900)], 200, []],
    ['none that is fast enough for people', [about(70), about(5), about(5)], 200, []],
    ['four times as slow', [about(800), about(200), about(200)], 200, []],
    ['pauses', [pausing(5000, 350), about(5), about(5)], 300, []],
    ['now and then', [mixed(0.2, 700), ...all(2, mixed(0.01, 700))], 200, []],
  ] as const) {
    for (const seed of [1, 2, 3]) {
      const world = new SlowWorld(waits, { rate, seed }).run(15_000);
      t.strictSame(world.everEjected, slow, `${name}, seed ${seed}`);
    }
  }
});

t.test('within two seconds of load, and back when it is over, slowly', async (t) => {
  for (const ms of [150, 400, 900, 60_000])
    for (const [count, rate] of [
      [2, 100],
      [6, 333],
      [12, 1000],
    ] as const) {
      const waits = [between(10_000, 19_000, about(ms), about(5)), ...all(count - 1, about(5))];
      const world = new SlowWorld(waits, { rate, seed: ms });
      world.run(18_000);
      const name = `${ms} ms, one of ${count}`;
      t.strictSame(world.ejected, [0], name);
      const lastMs = (world.lastMs[0] as number) - 10_000;
      t.ok(lastMs < 2000, `${name}: the last flow came after ${lastMs} ms`);
      world.run(20_000);
      const before = world.given[0] as number;
      world.run(25_000);
      t.strictSame(world.ejected, [], `${name}: it is back`);
      const share = ((world.given[0] as number) - before) / ((rate * 5) / count);
      t.ok(share > 0.2 && share < 0.9, `${name}: it had ${share} of its share`);
    }
});

t.test(
  'a service that is slow as a whole ejects nobody, now or then, nor what comes and goes at all',
  async (t) => {
    const rows: [string, Wait][] = [
      ['slower from now on', between(9000, Infinity, about(400), about(5))],
      ['nearly silent from now on', between(9000, Infinity, about(950), about(5))],
      ['silent from now on', between(9000, Infinity, about(3000), about(5))],
      ['slow every other second', (nowMs, prng) => around(nowMs % 2000 < 1000 ? 500 : 5, prng)],
      ['pauses of all at once', pausing(6000, 900)],
      ...[0.01, 0.1, 0.3, 0.5, 0.7].flatMap((share): [string, Wait][] => [
        [`${share} of the flows are slow`, mixed(share, 700)],
        [`${share} of the flows are long polls`, mixed(share, 5000)],
      ]),
    ];
    for (const [name, wait] of rows)
      for (const [count, rate] of [
        [2, 300],
        [3, 40],
        [6, 300],
      ] as const)
        for (let seed = 0; seed < fuzzRuns(2); seed++) {
          const world = new SlowWorld(all(count, wait), { rate, seed }).run(20_000);
          t.equal(world.balancer.ejectionsTotal, 0, `${name}, ${count} tasks, seed ${seed}`);
        }
  },
);

t.test('whoever is not several times as slow as most others is never passed over', async () => {
  // None so slow that some of its flows pass for silent.
  const figure = fc.integer({ min: 1, max: 830 });
  fc.assert(
    fc.property(
      fc.array(figure, { minLength: 1, maxLength: 8 }),
      fc.constantFrom(20, 100, 500),
      fc.integer(),
      (typical, rate, seed) => {
        const world = new SlowWorld(typical.map(about), { rate, seed }).run(4000);
        const inOrder = [...typical].sort((a, b) => a - b);
        // Of two in the middle the quicker one: the slower one is among those that are judged.
        const middle = inOrder[(typical.length - 1) >> 1] as number;
        return world.everEjected.every((i) => (typical[i] as number) > 3 * middle);
      },
    ),
    { numRuns: fuzzRuns(60), examples: [[[98, 446, 1, 957, 1], 100, -15]] },
  );
});

t.test('never more than the ceiling, nor a lone one, whatever waits', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom(1, 5, 300, 900, 5000), { minLength: 1, maxLength: 8 }),
      fc.integer({ min: 0, max: 100 }),
      fc.integer(),
      (typical, percent, seed) => {
        const outlier = { ...outlierOf(2), ejectionMs: 1000, ceiling: percent / 100 };
        const world = new SlowWorld(typical.map(about), { rate: 300, seed, config: { outlier } });
        const most = Math.floor((typical.length * percent) / 100);
        for (let untilMs = 0; untilMs < 4000; untilMs += 250)
          if (world.run(untilMs).ejected.length > most) return false;
        return true;
      },
    ),
    { numRuns: fuzzRuns(40) },
  );
});

t.test(
  'when the others become as slow, it is tried at once; in vain, its time goes on',
  async (t) => {
    for (const [ownMs, comesBack] of [
      [400, true],
      [900, false],
    ] as const) {
      const waits = [about(ownMs), ...all(3, between(5000, Infinity, about(300), about(5)))];
      const world = new SlowWorld(waits, { rate: 300, seed: 1 });
      t.strictSame(world.run(5000).ejected, [0]);
      t.strictSame(world.run(8000).ejected, comesBack ? [] : [0], 'long before its time');
    }
    const waits = [
      between(0, 11_000, about(900), about(5)),
      ...all(3, between(5000, 6500, about(500), about(5))),
    ];
    const world = new SlowWorld(waits, { rate: 300, seed: 1 }).run(5000);
    const before = world.given[0] as number;
    world.run(10_000);
    t.ok((world.given[0] as number) - before <= 2, 'it was tried, and was slow');
    t.equal(world.balancer.ejectionsTotal, 1);
    t.strictSame(world.run(13_000).ejected, [], 'after ten seconds as without that');
  },
);

t.test('factor 0 turns it off, and a higher factor makes it harder', async (t) => {
  const waits = [about(900), ...all(3, about(30))];
  for (const [factor, slow] of [
    [0, []],
    [5, [0]],
    [20, [0]],
    [40, []],
  ] as const) {
    const config = { outlier: outlierOf(factor) };
    const world = new SlowWorld(waits, { rate: 300, seed: 1, config }).run(5000);
    t.strictSame(world.everEjected, slow, `factor ${factor}`);
  }
});

t.test('a new task may warm up, and is compared with nobody meanwhile', async (t) => {
  const balancer = balancerOf({}, entries(3));
  balancer.replace([...entries(3), entry('task3')], 1);
  let seen: number | undefined;
  for (let nowMs = 2; nowMs < 14_000 && seen === undefined; nowMs += 5) {
    const ticket = balancer.choose(client(1), 0, nowMs);
    balancer.succeeded(ticket, nowMs, balancer.keyOf(ticket) === 'task3' ? 600 : 5);
    balancer.ended(ticket);
    if (balancer.isEjected('task3')) seen = nowMs;
  }
  t.ok(seen !== undefined && seen > 10_000 && seen < 11_000, `it was ejected after ${seen} ms`);
});
