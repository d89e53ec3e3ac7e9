import fc from 'fast-check';
import t from 'tap';
import { parseDurationMs } from '../../../../src/base/duration.js';
import { DEFAULT_BALANCE, sameBalance } from '../../../../src/dataplane/core/balance/config.js';
import { balanceOfLabels } from '../../../../src/dataplane/core/balance/labels.js';

t.test('durations are as Docker writes them', async (t) => {
  for (const [text, want] of [
    ['3h', 10_800_000],
    ['1m30s', 90_000],
    ['250ms', 250],
    ['1.5s', 1500],
    ['0', 0],
    ['', undefined],
    ['5', undefined],
    ['-1s', undefined],
    ['1s ', undefined],
  ] as const)
    t.equal(parseDurationMs(text), want, text);
});

t.test('every label is read', async (t) => {
  const { balance, problems } = balanceOfLabels({
    'shoal.balance': 'p2c',
    'shoal.balance.weights': '1=5, 2=3',
    'shoal.affinity': 'client-ip',
    'shoal.affinity.lifetime': '10m',
    'shoal.locality': 'prefer-local',
    'shoal.locality.overflow': '100',
    'shoal.slow-start': '30s',
    'shoal.outlier.failures': '7',
    'shoal.outlier.ejection': '20s',
    'shoal.outlier.ceiling': '30%',
    'shoal.outlier.slow': '10',
    'com.example.other': 'x',
  });
  t.strictSame(problems, []);
  t.strictSame(balance, {
    method: 'p2c',
    weights: new Map([
      [1, 5],
      [2, 3],
    ]),
    affinityMs: 600_000,
    preferLocal: true,
    overflowAt: 100,
    slowStartMs: 30_000,
    outlier: { failures: 7, ejectionMs: 20_000, ceiling: 0.3, slowFactor: 10 },
  });
});

t.test('without labels it is Docker’s own way; `off` turns ejection off', async (t) => {
  t.ok(sameBalance(balanceOfLabels({}).balance, DEFAULT_BALANCE));
  t.equal(balanceOfLabels({ 'shoal.outlier': 'off' }).balance.outlier.failures, 0);
});

t.test('a label that is not understood is named, and its default holds', async (t) => {
  const { balance, problems } = balanceOfLabels({
    'shoal.balance': 'best',
    'shoal.balance.weights': '1=0',
    'shoal.outlier.ceiling': '120',
    'shoal.outlier.slow': '1',
  });
  t.ok(sameBalance(balance, DEFAULT_BALANCE));
  t.equal(problems.length, 4);
  t.match(problems[0], 'label shoal.balance=best is ignored: it must be rr, wrr');
});

t.test('how long connections of a task that stops may go on', async (t) => {
  for (const [label, want] of [
    [undefined, 5000],
    ['0', 0],
    ['1m', 60_000],
    ['61s', 5000],
  ] as const)
    t.equal(balanceOfLabels(label === undefined ? {} : { 'shoal.drain': label }).drainMs, want);
});

t.test('any text is survived', async () => {
  const names = fc.constantFrom('shoal.balance', 'shoal.balance.weights', 'shoal.slow-start');
  fc.assert(
    fc.property(fc.dictionary(names, fc.string()), (labels) => {
      const { balance } = balanceOfLabels(labels);
      return balance.slowStartMs >= 0 && [...balance.weights.values()].every((w) => w >= 1);
    }),
  );
});

t.test(
  'slowness says nothing where each task has clients of its own, unless it is asked for',
  async (t) => {
    for (const [labels, factor] of [
      [{}, 5],
      [{ 'shoal.balance': 'p2c' }, 5],
      [{ 'shoal.balance': 'sh' }, 0],
      [{ 'shoal.affinity': 'client-ip' }, 0],
      [{ 'shoal.affinity': 'client-ip', 'shoal.outlier.slow': '3' }, 3],
      [{ 'shoal.outlier.slow': 'off' }, 0],
      [{ 'shoal.outlier': 'off', 'shoal.outlier.slow': '3' }, 0],
    ] as const)
      t.equal(balanceOfLabels(labels).balance.outlier.slowFactor, factor, JSON.stringify(labels));
  },
);
