import t from 'tap';
import { Prng } from '../../../src/base/prng.js';
import {
  type KnownManagers,
  ManagerChoice,
} from '../../../src/control/dispatch/core/manager-choice.js';

const at = (n: number) => ({ address: `10.0.0.${n}`, port: 2377 });
const KNOWN: KnownManagers = {
  local: undefined,
  listed: [at(1), at(2), at(3), at(4), at(5)],
  leader: at(2),
  others: [at(9), at(1)],
};

function round(choice: ManagerChoice, known: KnownManagers): string[] {
  const order: string[] = [];
  for (let remote = choice.next(known); remote !== undefined; remote = choice.next(known))
    order.push(remote.address.split('.')[3] ?? '');
  return order;
}

t.test('each is tried once: listed ones first, the leader after them, others last', async (t) => {
  for (let seed = 0; seed < 50; seed++) {
    const order = round(new ManagerChoice(new Prng(seed)), KNOWN);
    t.strictSame(order.slice(0, 4).sort(), ['1', '3', '4', '5']);
    t.strictSame(order.slice(4), ['2', '9']);
  }
});

t.test('agents spread over the managers that do not lead', async (t) => {
  const counts = new Map<string, number>();
  for (let seed = 0; seed < 4_000; seed++) {
    const [first = ''] = round(new ManagerChoice(new Prng(seed)), KNOWN);
    counts.set(first, (counts.get(first) ?? 0) + 1);
  }
  t.strictSame([...counts.keys()].sort(), ['1', '3', '4', '5']);
  for (const count of counts.values()) t.ok(count > 850 && count < 1_150, `${count} of 4000`);
});

t.test('the manager on the same node is first, though it leads', async (t) => {
  const order = round(new ManagerChoice(new Prng(1)), { ...KNOWN, local: at(2) });
  t.equal(order[0], '2');
});

t.test('the one that was lost is last in the next round, and only in that', async (t) => {
  const choice = new ManagerChoice(new Prng(1));
  round(choice, KNOWN);
  choice.startRound(at(3));
  t.equal(round(choice, KNOWN).at(-1), '3');
  choice.startRound();
  t.equal(round(choice, KNOWN).at(-1), '9');
});

t.test('one that is to be skipped is not tried in this round', async (t) => {
  const choice = new ManagerChoice(new Prng(1));
  choice.skip(at(3));
  t.notOk(round(choice, KNOWN).includes('3'));
  choice.startRound();
  t.ok(round(choice, KNOWN).includes('3'));
});

t.test('whoever was listed once is tried when nobody else answers, once each', async (t) => {
  const choice = new ManagerChoice(new Prng(1));
  round(choice, KNOWN);
  choice.startRound();
  const moved = { ...KNOWN, listed: [at(21)], leader: undefined, others: [] };
  t.strictSame(round(choice, moved)[0], '21');
  t.equal(choice.all(moved).length, 6);
  for (let n = 30; n < 100; n++) choice.all({ ...moved, listed: [at(n)] });
  t.equal(choice.all(moved).length, 32, 'and no more than so many');
  choice.startRound();
  t.strictSame(
    round(choice, { local: undefined, listed: [], leader: undefined, others: [] }).length,
    32,
  );
});
