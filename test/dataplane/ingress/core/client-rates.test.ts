import fc from 'fast-check';
import t from 'tap';
import { ClientRates } from '../../../../src/dataplane/ingress/core/client-rates.js';

const v4 = (last: number) => Int32Array.from([0, 0, 0xffff, last]);

t.test(
  'in no time does a client get more than its rate and what it may begin at once',
  async () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 20 }),
        fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 200 }),
        (perSecond, gaps) => {
          const rates = new ClientRates(perSecond, 7);
          const taken: number[] = [];
          let nowMs = 0;
          for (const gap of gaps) {
            nowMs += gap;
            if (rates.take(v4(1), nowMs)) taken.push(nowMs);
          }
          return taken.every((from, first) =>
            taken.slice(first).every((to, count) => {
              const most = perSecond + ((to - from) / 1000) * perSecond;
              return count + 1 <= most + 1e-3;
            }),
          );
        },
      ),
    );
  },
);

t.test('whoever keeps to the rate is never refused', async (t) => {
  const rates = new ClientRates(3, 7);
  for (let i = 0; i < 1000; i++) if (!rates.take(v4(1), (i * 1000) / 3)) t.fail(`flow ${i}`);
});

t.test('addresses of one IPv6 network are one client, IPv4 addresses are not', async (t) => {
  const rates = new ClientRates(1, 7);
  t.ok(rates.take(Int32Array.from([1, 2, 3, 4]), 0));
  t.notOk(rates.take(Int32Array.from([1, 2, 30, 40]), 0));
  t.ok(rates.take(Int32Array.from([1, 3, 3, 4]), 0));
  t.ok(rates.take(v4(1), 0));
  t.ok(rates.take(v4(2), 0));
});

t.test(
  'a flood of clients takes no more memory, and does not free one that was just refused',
  async (t) => {
    const rates = new ClientRates(1, 7);
    let admitted = 0;
    for (let i = 0; i < 100_000; i++) if (rates.take(v4(i), i / 1000)) admitted += 1;
    t.equal(admitted, 100_000, 'each is new');
    t.notOk(rates.take(v4(99_999), 100));
  },
);
