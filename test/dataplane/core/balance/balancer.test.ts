import fc from 'fast-check';
import t from 'tap';
import { BACKENDS_MAX, NO_BACKEND } from '../../../../src/dataplane/core/balance/backend-set.js';
import { BALANCE_METHODS, DEFAULT_BALANCE } from '../../../../src/dataplane/core/balance/config.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { balancerOf, client, entries, entry, pick, shares } from './support.js';

const times = <Result>(count: number, what: (i: number) => Result) =>
  Array.from({ length: count }, (_, i) => what(i));

t.test('as many flows in a row as there are backends reach each of them', async (t) => {
  for (const count of [1, 2, 3, 5, 8]) {
    const balancer = balancerOf({}, entries(count));
    const picked = times(count * 3, () => pick(balancer));
    for (let at = 0; at + count <= picked.length; at++)
      t.equal(new Set(picked.slice(at, at + count)).size, count, `${count} from ${at}`);
  }
});

t.test('nodes go round in orders of their own', async (t) => {
  const orders = times(8, (seed) =>
    times(5, () => pick(balancers[seed] as (typeof balancers)[number])).join(),
  );
  t.ok(new Set(orders).size > 4, 'few orders are the same');
});
const balancers = times(8, (seed) => balancerOf({}, entries(5), seed));

t.test('the round goes on where it was when backends come and go', async (t) => {
  const balancer = balancerOf({}, entries(5));
  const first = [pick(balancer), pick(balancer)];
  const rest = entries(5).filter(({ key }) => !first.includes(key));
  // One that had its turn goes: the others that had none are next.
  balancer.replace(
    entries(5).filter(({ key }) => key !== first[1]),
    1,
  );
  const next = times(3, () => pick(balancer));
  t.strictSame(new Set(next), new Set(rest.map(({ key }) => key)));
});

t.test('the same table again changes nothing', async (t) => {
  const told = balancerOf({}, entries(5));
  const untold = balancerOf({}, entries(5));
  const picked = times(20, () => {
    told.replace(entries(5).reverse(), 1);
    return pick(told);
  });
  t.strictSame(
    picked,
    times(20, () => pick(untold)),
  );
});

t.test(
  'no method gives a new flow to what drains, starts or is gone; all keep to the set',
  async () => {
    const states = fc.constantFrom('ready', 'draining', 'starting', 'gone') as fc.Arbitrary<
      'ready' | 'draining' | 'starting' | 'gone'
    >;
    fc.assert(
      fc.property(
        fc.constantFrom(...BALANCE_METHODS),
        fc.array(fc.array(states, { minLength: 1, maxLength: 12 }), { minLength: 1, maxLength: 8 }),
        fc.boolean(),
        fc.boolean(),
        fc.boolean(),
        (method, tables, affinity, preferLocal, slow) => {
          const config = {
            method,
            affinityMs: affinity ? 1000 : 0,
            preferLocal,
            slowStartMs: slow ? 5000 : 0,
          };
          const balancer = balancerOf(config, []);
          let now = 0;
          for (const table of tables) {
            now += 700;
            const held = table.flatMap((state, i) =>
              state === 'gone' ? [] : [entry(`t${i}`, state, i % 3 === 0, 1 + (i % 4))],
            );
            balancer.replace(held, now);
            const ready = new Set(held.filter((b) => b.state === 'ready').map((b) => b.key));
            for (let i = 0; i < 30; i++) {
              const ticket = balancer.choose(client(i), i, now);
              if (
                ready.size === 0 ? ticket !== NO_BACKEND : !ready.has(balancer.keyOf(ticket) ?? '')
              )
                return false;
              if (i % 2 === 0) balancer.ended(ticket);
            }
          }
          return true;
        },
      ),
      { numRuns: fuzzRuns(300) },
    );
  },
);

t.test('weights are shares, and turns are spread', async (t) => {
  const backends = [entry('a', 'ready', false, 5), entry('b'), entry('c')];
  const balancer = balancerOf({ method: 'wrr' }, backends);
  const picked = times(7, () => pick(balancer));
  t.equal(picked.join(''), 'aabacaa'.split('').join(''), 'the smooth order for 5, 1, 1');
  for (const method of ['p2c', 'lc', 'sh', 'maglev'] as const) {
    const weighted = balancerOf({ method }, backends);
    const counts = new Map<string, number>();
    for (let i = 0; i < 7000; i++) {
      const key = pick(weighted, i, 0, i) ?? '';
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    const share = (counts.get('a') ?? 0) / 7000;
    t.ok(Math.abs(share - 5 / 7) < 0.08, `${method}: ${share}`);
  }
});

t.test('the least loaded gets the flow, and equals take turns', async (t) => {
  const balancer = balancerOf({ method: 'lc' }, entries(3));
  const tickets = times(9, (i) => balancer.choose(client(i), 0, 0));
  t.strictSame(
    entries(3).map(({ key }) => balancer.activeOf(key)),
    [3, 3, 3],
  );
  const emptied = balancer.keyOf(tickets[0] as number);
  for (const ticket of tickets) if (balancer.keyOf(ticket) === emptied) balancer.ended(ticket);
  t.strictSame(
    times(3, () => pick(balancer)),
    [emptied, emptied, emptied],
  );
});

t.test('two choices keep the load even without a herd', async (t) => {
  const balancer = balancerOf({ method: 'p2c' }, entries(10));
  for (let i = 0; i < 10_000; i++) pick(balancer, i);
  for (const { key } of entries(10)) {
    const flows = balancer.activeOf(key);
    t.ok(Math.abs(flows - 1000) < 20, `${key} has ${flows}`);
  }
});

t.test('the quick are preferred by latency', async (t) => {
  const balancer = balancerOf({ method: 'latency' }, entries(4));
  const counts = new Map<string, number>();
  for (let i = 0; i < 2000; i++) {
    const ticket = balancer.choose(client(i), 0, 0);
    const key = balancer.keyOf(ticket) ?? '';
    counts.set(key, (counts.get(key) ?? 0) + 1);
    balancer.connected(ticket, key === 'task0' ? 50 : 2);
    balancer.ended(ticket);
  }
  t.ok((counts.get('task0') ?? 0) < 50, `the slow one had ${counts.get('task0')}`);
});

t.test('a client keeps to one backend by hash, on every node', async (t) => {
  for (const method of ['sh', 'maglev'] as const) {
    const one = balancerOf({ method }, entries(7), 1);
    const other = balancerOf({ method }, entries(7).reverse(), 2);
    for (let i = 0; i < 300; i++) t.equal(pick(one, i, 0, 5), pick(other, i, 0, 5));
  }
});

t.test('shares by hash are even', async (t) => {
  // 3.29 standard deviations of a binomial share.
  const wanted = 20_000 / 10;
  const slack = 3.29 * Math.sqrt(20_000 * 0.1 * 0.9);
  for (const method of ['sh', 'maglev'] as const) {
    for (const [key, count] of shares(balancerOf({ method }, entries(10)), 20_000))
      t.ok(Math.abs(count - wanted) < slack * 1.5, `${method} ${key}: ${count}`);
  }
});

t.test('one backend less moves its own share, and by maglev little else', async (t) => {
  for (const [method, elseMax] of [
    ['sh', 0],
    ['maglev', 0.03],
  ] as const) {
    const before = balancerOf({ method }, entries(20));
    const after = balancerOf(
      { method },
      entries(20).filter(({ key }) => key !== 'task3'),
    );
    let moved = 0;
    for (let i = 0; i < 5000; i++) {
      const was = pick(before, i, 0, i);
      if (was !== 'task3' && was !== pick(after, i, 0, i)) moved += 1;
    }
    t.ok(moved / 5000 <= elseMax, `${method}: ${moved} of 5000 moved needlessly`);
  }
});

t.test('affinity holds while its lifetime is renewed, also when backends are added', async (t) => {
  const balancer = balancerOf({ affinityMs: 1000 }, entries(3));
  const had = times(50, (i) => pick(balancer, i, 0));
  t.equal(new Set(had).size, 3, 'clients are spread');
  balancer.replace(entries(9), 500);
  t.strictSame(
    times(50, (i) => pick(balancer, i, 900)),
    had,
  );
  t.strictSame(
    times(50, (i) => pick(balancer, i, 1800)),
    had,
    'renewed by each flow',
  );
  const late = times(50, (i) => pick(balancer, i, 9000));
  t.notSame(late, had, 'chosen anew after it');
});

t.test('a client whose backend drains goes elsewhere, and stays there', async (t) => {
  const balancer = balancerOf({ affinityMs: 10_000 }, entries(3));
  const had = pick(balancer, 1, 0) ?? '';
  balancer.replace(
    entries(3).map((b) => (b.key === had ? entry(b.key, 'draining') : b)),
    10,
  );
  const now = pick(balancer, 1, 20);
  t.not(now, had);
  balancer.replace(entries(3), 30);
  t.equal(pick(balancer, 1, 40), now);
});

t.test('local backends are preferred until they are full, eject or drain', async (t) => {
  const backends = [entry('near', 'ready', true), entry('far1'), entry('far2')];
  const balancer = balancerOf({ preferLocal: true, overflowAt: 3 }, backends);
  const tickets = times(5, () => balancer.choose(client(1), 0, 0));
  t.strictSame(
    tickets.slice(0, 3).map((ticket) => balancer.keyOf(ticket)),
    times(3, () => 'near'),
  );
  t.strictSame(
    new Set(tickets.slice(3).map((ticket) => balancer.keyOf(ticket))),
    new Set(['far1', 'far2']),
  );
  balancer.ended(tickets[0] as number);
  t.equal(pick(balancer), 'near');
  balancer.replace([entry('near', 'draining', true), ...backends.slice(1)], 1);
  t.not(pick(balancer), 'near');
});

t.test('a newcomer reaches its full share slowly, under every method that counts', async (t) => {
  for (const method of ['rr', 'wrr'] as const) {
    const balancer = balancerOf({ method, slowStartMs: 10_000 }, entries(4));
    t.equal(shares(balancer, 400, 0).get('task0'), 100, 'the first ones start at once');
    balancer.replace(entries(5), 20_000);
    const early = shares(balancer, 4100, 21_000).get('task4') ?? 0;
    t.ok(Math.abs(early - 100) <= 3, `${method}: ${early} of 4100 at a tenth`);
    const halfway = shares(balancer, 4500, 25_000).get('task4') ?? 0;
    t.ok(Math.abs(halfway - 500) <= 3, `${method}: ${halfway} of 4500 at half`);
    t.equal(shares(balancer, 500, 30_000).get('task4'), 100, 'full in the end');
  }
});

t.test(
  'one that fails again and again is ejected, tried by one flow after the other, and taken back',
  async (t) => {
    const outlier = { failures: 3, ejectionMs: 1000, ceiling: 0.5, slowFactor: 5 };
    const balancer = balancerOf({ outlier }, entries(4));
    const run = (count: number, nowMs: number, works: boolean) => {
      let met = 0;
      for (let i = 0; i < count; i++) {
        const ticket = balancer.choose(client(1), 0, nowMs);
        if (balancer.keyOf(ticket) === 'task1') met += 1;
        if (balancer.keyOf(ticket) === 'task1' && !works) balancer.failed(ticket, nowMs);
        else balancer.succeeded(ticket, nowMs);
        balancer.ended(ticket);
      }
      return met;
    };
    t.equal(run(40, 0, false), 3, 'three failures, then no more');
    t.ok(balancer.isEjected('task1'));
    t.equal(run(40, 999, false), 0);
    t.equal(run(40, 1000, false), 1, 'one flow on probation');
    t.equal(run(40, 2999, false), 0, 'twice as long');
    t.equal(run(4, 3000, true), 1);
    t.ok(balancer.isEjected('task1'), 'one alone is not enough');
    t.equal(run(8, 3000, true), 2, 'probation passed');
    t.notOk(balancer.isEjected('task1'));
  },
);

t.test('silence is a failure where others answer, and only there', async (t) => {
  const outlier = { failures: 3, ejectionMs: 1000, ceiling: 0.5, slowFactor: 5 };
  const rounds = (quick: readonly string[], stepMs: number) => {
    const balancer = balancerOf({ outlier }, entries(4));
    for (let i = 0; i < 40; i++) {
      const ticket = balancer.choose(client(1), 0, i * stepMs);
      if (quick.includes(balancer.keyOf(ticket) ?? '')) balancer.succeeded(ticket, i * stepMs);
      else balancer.silent(ticket, i * stepMs);
      balancer.ended(ticket);
    }
    return ['task0', 'task1', 'task2', 'task3'].filter((key) => balancer.isEjected(key));
  };
  t.strictSame(rounds(['task0', 'task2', 'task3'], 10), ['task1']);
  t.strictSame(rounds([], 10), [], 'a service that answers nobody');
  t.strictSame(rounds(['task0'], 2000), [], 'the others answered too long ago to tell');
  t.strictSame(rounds(['task0'], 10).length, 2, 'no more than the ceiling');
});

t.test('where nobody answers, who has refused comes back by taking flows', async (t) => {
  const outlier = { failures: 3, ejectionMs: 1000, ceiling: 0.5, slowFactor: 5 };
  for (const [name, othersAnswer, isBack] of [
    ['a sink of logs, connections without an end', false, true],
    ['a service that answers', true, false],
  ] as const) {
    const balancer = balancerOf({ outlier }, entries(3));
    for (let i = 0; i < 80; i++) {
      const nowMs = i * 100;
      const ticket = balancer.choose(client(1), 0, nowMs);
      const isSick = balancer.keyOf(ticket) === 'task1';
      if (isSick && nowMs < 900) balancer.failed(ticket, nowMs);
      else if (othersAnswer && !isSick) balancer.succeeded(ticket, nowMs, 5);
      else balancer.silent(ticket, nowMs);
      if (nowMs === 900) t.ok(balancer.isEjected('task1'), name);
    }
    t.equal(balancer.isEjected('task1'), !isBack, name);
  }
});

t.test('silence at one port is compared with answers at it alone', async (t) => {
  const outlier = { failures: 3, ejectionMs: 1000, ceiling: 0.5, slowFactor: 0 };
  const ejectedBy = (silentPort: number, answeredPorts: readonly number[]) => {
    const balancer = balancerOf({ outlier }, entries(2));
    for (let i = 0; i < 40; i++) {
      const ticket = balancer.choose(client(1), 0, i);
      if (balancer.keyOf(ticket) === 'task1') balancer.silent(ticket, i, silentPort);
      else for (const port of answeredPorts) balancer.succeeded(ticket, i, 5, port);
    }
    return balancer.ejectionsTotal;
  };
  t.equal(ejectedBy(514, [80]), 0, 'a sink of logs beside an API');
  t.equal(ejectedBy(80, [514, 80]), 1);
  t.equal(ejectedBy(1, [1, ...times(15, (i) => 100 + i)]), 1, 'sixteen ports are remembered');
  t.equal(ejectedBy(1, [1, ...times(40, (i) => 100 + i)]), 0, 'of more, some are not');
});

t.test('while one flow is on probation no other goes there', async (t) => {
  const outlier = { failures: 1, ejectionMs: 1000, ceiling: 0.5, slowFactor: 5 };
  const balancer = balancerOf({ outlier }, entries(2));
  let failing = balancer.choose(client(1), 0, 0);
  while (balancer.keyOf(failing) !== 'task0') failing = balancer.choose(client(1), 0, 0);
  balancer.failed(failing, 0);
  const later = times(10, () => pick(balancer, 1, 1500));
  t.equal(later.filter((key) => key === 'task0').length, 1);
});

t.test('never more than the ceiling is ejected, and a lone backend never', async () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 12 }),
      fc.integer({ min: 0, max: 100 }),
      fc.array(fc.nat(11), { maxLength: 200 }),
      (count, percent, failing) => {
        const outlier = { failures: 2, ejectionMs: 1000, ceiling: percent / 100, slowFactor: 5 };
        const balancer = balancerOf({ outlier }, entries(count));
        for (const [i, index] of failing.entries()) {
          const ticket = balancer.choose(client(1), 0, i * 50);
          if (ticket === NO_BACKEND) return false;
          if (balancer.keyOf(ticket) === `task${index % count}`) balancer.failed(ticket, i * 50);
          balancer.ended(ticket);
          const { ejected, ready } = balancer.counts;
          if (ejected > Math.floor((ready * percent) / 100)) return false;
        }
        return true;
      },
    ),
    { numRuns: fuzzRuns(200) },
  );
});

t.test(
  'those that fail their checks are passed over, up to the ceiling, with those that are ejected',
  async () => {
    const step = fc.record({ failing: fc.nat(255), refuses: fc.nat(255), flows: fc.nat(20) });
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.constantFrom(...BALANCE_METHODS),
        fc.integer({ min: 0, max: 100 }),
        fc.array(step, { maxLength: 20 }),
        (count, method, percent, steps) => {
          const outlier = { failures: 1, ejectionMs: 1000, ceiling: percent / 100, slowFactor: 5 };
          const balancer = balancerOf({ outlier, method }, entries(count));
          const most = Math.floor((count * percent) / 100);
          return steps.every(({ failing, refuses, flows }, nowMs) => {
            const isIn = (mask: number, key = '') => (mask >> Number(key.slice(4))) % 2 === 1;
            const all = entries(count).map((e) => ({ ...e, isFailing: isIn(failing, e.key) }));
            balancer.replace(all, nowMs);
            for (let i = 0; i < flows; i++) {
              const ticket = balancer.choose(client(i), i, nowMs);
              const key = balancer.keyOf(ticket);
              const passedOver = all.filter((e) => balancer.isEjected(e.key));
              // All that is left was passed over.
              if (key === undefined || passedOver.length > most) return false;
              if (passedOver.length < count && isIn(failing, key) && balancer.isEjected(key))
                return false;
              if (isIn(refuses, key)) balancer.failed(ticket, nowMs);
              balancer.ended(ticket);
            }
            const isFull = balancer.counts.ejected >= most;
            return isFull || all.every((e) => !e.isFailing || balancer.isEjected(e.key));
          });
        },
      ),
      { numRuns: fuzzRuns(200) },
    );
  },
);

t.test('choices ahead are taken back with their turns where some fail their checks', async () => {
  fc.assert(
    fc.property(
      fc.constantFrom('rr' as const, 'wrr' as const),
      fc.array(fc.boolean(), { minLength: 1, maxLength: 8 }),
      fc.nat(20),
      (method, failing, ahead) => {
        const outlier = { failures: 1, ejectionMs: 1000, ceiling: 0.5, slowFactor: 5 };
        const all = failing.map((isFailing, i) => ({
          ...entry(`task${i}`, 'ready', false, i + 1),
          isFailing,
        }));
        const [one, other] = [
          balancerOf({ outlier, method }, all),
          balancerOf({ outlier, method }, all),
        ];
        if (!one.foresees(0)) return false;
        const given = times(ahead, () => one.choose(client(1), 0, 0));
        for (const ticket of given.reverse()) one.withdraw(ticket);
        return times(30, () => pick(one)).join() === times(30, () => pick(other)).join();
      },
    ),
    { numRuns: fuzzRuns(200) },
  );
});

t.test('what was tried is not chosen again, unless nothing else is left to say', async (t) => {
  const balancer = balancerOf({}, entries(3));
  const tried: number[] = [];
  for (let i = 0; i < 3; i++) tried.push(balancer.choose(client(1), 0, 0, tried));
  t.equal(new Set(tried).size, 3);
  t.equal(balancer.choose(client(1), 0, 0, tried), NO_BACKEND);
});

t.test(
  'a ticket of a backend that is gone is nobody, also when its slot is taken again',
  async (t) => {
    const balancer = balancerOf({}, [entry('old')]);
    const ticket = balancer.choose(client(1), 0, 0);
    balancer.replace([entry('new')], 1);
    t.equal(balancer.keyOf(ticket), undefined);
    t.equal(balancer.stateOf(ticket), undefined);
    balancer.choose(client(1), 0, 1);
    balancer.ended(ticket);
    balancer.failed(ticket, 2);
    t.equal(balancer.activeOf('new'), 1, 'the newcomer is not charged with it');
  },
);

t.test('a set has an end', async (t) => {
  const balancer = balancerOf({ method: 'maglev' }, entries(BACKENDS_MAX + 10));
  t.equal(balancer.counts.ready, BACKENDS_MAX);
  t.equal(balancer.counts.refused, 10);
  t.type(pick(balancer), 'string');
});

t.test('a new method takes over with the flows that there are', async (t) => {
  const balancer = balancerOf({}, entries(3));
  for (let i = 0; i < 4; i++) pick(balancer);
  balancer.configure({ ...DEFAULT_BALANCE, method: 'lc' });
  pick(balancer);
  pick(balancer);
  t.strictSame(
    entries(3).map(({ key }) => balancer.activeOf(key)),
    [2, 2, 2],
  );
});

t.test('choices made ahead and taken back leave no trace in the round', async () => {
  fc.assert(
    fc.property(
      fc.constantFrom('rr' as const, 'wrr' as const),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 7 }),
      fc.array(fc.tuple(fc.nat({ max: 20 }), fc.nat({ max: 20 })), { maxLength: 6 }),
      (method, weights, steps) => {
        const backends = weights.map((weight, i) => entry(`task${i}`, 'ready', false, weight));
        const hasty = balancerOf({ method }, backends);
        const calm = balancerOf({ method }, backends);
        for (const [used, spare] of steps) {
          if (!hasty.foresees(0)) return false;
          const ahead = times(used + spare, () => hasty.choose(client(1), 0, 0));
          const picked = ahead.slice(0, used).map((ticket) => hasty.keyOf(ticket));
          for (const ticket of ahead.slice(used).reverse()) hasty.withdraw(ticket);
          if (times(used, () => pick(calm)).join() !== picked.join()) return false;
          if (backends.some(({ key }) => hasty.activeOf(key) !== calm.activeOf(key))) return false;
        }
        return true;
      },
    ),
    { numRuns: fuzzRuns(200) },
  );
});

t.test('nothing is foreseen that depends on clients, load, time or failures', async (t) => {
  for (const method of BALANCE_METHODS)
    t.equal(balancerOf({ method }, entries(3)).foresees(0), method === 'rr' || method === 'wrr');
  t.notOk(balancerOf({ affinityMs: 1000 }, entries(3)).foresees(0));
  t.notOk(balancerOf({ preferLocal: true, overflowAt: 2 }, entries(3)).foresees(0));
  const failing = balancerOf({}, entries(4));
  const ticket = failing.choose(client(1), 0, 0);
  times(5, () => failing.failed(ticket, 0));
  t.notOk(failing.foresees(0), 'one is ejected');
  const slow = balancerOf({ slowStartMs: 100 }, entries(1));
  slow.replace(entries(2), 10);
  t.notOk(slow.foresees(50));
  t.ok(slow.foresees(110));
});
