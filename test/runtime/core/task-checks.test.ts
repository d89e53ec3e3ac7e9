import fc from 'fast-check';
import t from 'tap';
import { readCheck } from '../../../src/base/check-labels.js';
import { CHECKS_AT_ONCE_MAX, TaskChecks } from '../../../src/runtime/core/task-checks.js';

const PORTS = [{ protocol: 'tcp', targetPort: 80 }];

function checkOf(labels: Readonly<Record<string, string>> = {}) {
  const { check } = readCheck({ 'shoal.check': 'tcp', ...labels }, PORTS);
  if (check === undefined) throw new Error('labels are wrong');
  return check;
}

/** Runs until `endMs`; each check ends at once. Tells when and what was told. */
function play(checks: TaskChecks, endMs: number, isGood: (id: string, nowMs: number) => boolean) {
  const told: { readonly id: string; readonly isFailing: boolean; readonly nowMs: number }[] = [];
  const started: number[] = [];
  for (;;) {
    const nowMs = checks.nextDeadlineMs();
    if (nowMs === undefined || nowMs > endMs) return { told, started };
    checks.step({ kind: 'timeout' }, nowMs);
    for (let { starts } = checks.takeReady(); starts.length > 0; ) {
      for (const { run, task } of starts) {
        started.push(nowMs);
        checks.step({ kind: 'result', run, isGood: isGood(task.id, nowMs) }, nowMs);
      }
      const ready = checks.takeReady();
      told.push(...ready.changes.map((change) => ({ ...change, nowMs })));
      starts = ready.starts as never;
    }
  }
}

t.test(
  'so many failures in a row and a task fails, so many successes and it does not',
  async (t) => {
    const checks = new TaskChecks(1);
    const check = checkOf({
      'shoal.check.interval': '1s',
      'shoal.check.fall': '3',
      'shoal.check.rise': '2',
    });
    checks.step({ kind: 'tasks', tasks: [{ id: 'a', check }] }, 0);
    const results = [false, false, true, false, false, false, true, false, true, true];
    const { told, started } = play(checks, 10_500, () => results.shift() ?? true);
    t.match(told, [
      { id: 'a', isFailing: true, nowMs: started[5] as number },
      { id: 'a', isFailing: false, nowMs: started[9] as number },
    ]);
    for (const [i, atMs] of started.slice(1).entries()) {
      const betweenMs = atMs - (started[i] as number);
      t.ok(betweenMs >= 900 && betweenMs <= 1100, `${betweenMs} ms`);
    }
    t.match(checks.totals, { bad: 6 });
  },
);

t.test('a task that is not checked any more does not fail', async (t) => {
  const checks = new TaskChecks(1);
  const check = checkOf({ 'shoal.check.interval': '1s' });
  checks.step({ kind: 'tasks', tasks: [{ id: 'a', check }] }, 0);
  play(checks, 5000, () => false);
  t.strictSame(checks.counts, { checked: 1, failing: 1 });
  checks.step({ kind: 'tasks', tasks: [] }, 5000);
  t.strictSame(checks.takeReady().changes, [{ id: 'a', isFailing: false }]);
  t.equal(checks.nextDeadlineMs(), undefined);
});

t.test('never more at once than the limit, one for each task, and each has its turn', async () => {
  const input = fc.oneof(
    fc.record({ end: fc.nat(), isGood: fc.boolean() }),
    fc.record({ tasks: fc.nat(80) }),
    fc.record({ waitMs: fc.nat(3000) }),
  );
  fc.assert(
    fc.property(fc.integer(), fc.array(input, { maxLength: 100 }), (seed, inputs) => {
      const checks = new TaskChecks(seed);
      const check = checkOf({ 'shoal.check.interval': '1s' });
      const running = new Map<number, string>();
      let nowMs = 0;
      let known = new Set<string>();
      for (const each of inputs) {
        if ('tasks' in each) {
          const tasks = Array.from({ length: each.tasks }, (_, i) => ({ id: `${i}`, check }));
          known = new Set(tasks.map(({ id }) => id));
          checks.step({ kind: 'tasks', tasks }, nowMs);
        } else if ('waitMs' in each) {
          nowMs += each.waitMs;
          checks.step({ kind: 'timeout' }, nowMs);
        } else {
          const run = [...running.keys()][each.end % Math.max(1, running.size)] ?? 9999;
          running.delete(run);
          checks.step({ kind: 'result', run, isGood: each.isGood }, nowMs);
        }
        for (const { run, task } of checks.takeReady().starts) {
          if (!known.has(task.id)) return false;
          running.set(run, task.id);
        }
        if (running.size > CHECKS_AT_ONCE_MAX) return false;
        const isIdle = running.size < CHECKS_AT_ONCE_MAX;
        if (isIdle && (checks.nextDeadlineMs() ?? Number.POSITIVE_INFINITY) <= nowMs) return false;
      }
      return true;
    }),
  );
});
