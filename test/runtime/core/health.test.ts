import fc from 'fast-check';
import t from 'tap';
import type { HealthConfig } from '../../../src/base/service-model.js';
import {
  HEALTH_DEFAULTS,
  HealthMonitor,
  hasHealthCheck,
  healthCommand,
  healthTimeoutMs,
} from '../../../src/runtime/core/health.js';

const TEST = ['CMD', 'check'];

/** A monitor on a clock of its own, which is moved to each deadline. */
class Bench {
  readonly monitor: HealthMonitor;
  nowMs = 0;
  readonly changes: string[] = [];

  constructor(config: HealthConfig, startedMs = 0) {
    this.monitor = new HealthMonitor({ test: TEST, ...config }, startedMs, 0);
  }

  /** Goes to the next check, and answers it after `tookMs`. */
  check(exitCode: number | undefined, tookMs = 0): number {
    const dueMs = this.monitor.nextDeadlineMs() ?? Number.NaN;
    this.nowMs = dueMs;
    this.monitor.step({ kind: 'timeout' }, this.nowMs);
    t.equal(this.monitor.takeReady().probe, true, 'a check is due');
    t.equal(this.monitor.nextDeadlineMs(), undefined, 'one at a time');
    this.nowMs += tookMs;
    this.monitor.step({ kind: 'result', exitCode, output: `at ${this.nowMs}` }, this.nowMs);
    const { change } = this.monitor.takeReady();
    if (change !== undefined) this.changes.push(`${change.health} ${change.output}`);
    return dueMs;
  }
}

t.test('docker’s defaults', async (t) => {
  const bench = new Bench({});
  t.equal(bench.check(1), 30_000, 'the first check is an interval after the start');
  t.equal(bench.check(1), 60_000);
  t.strictSame(bench.changes, []);
  t.equal(bench.check(1), 90_000);
  t.strictSame(bench.changes, ['unhealthy at 90000'], 'three failures in a row');
  t.equal(healthTimeoutMs({}), HEALTH_DEFAULTS.timeoutMs);
  t.equal(healthTimeoutMs({ timeoutMs: 0 }), HEALTH_DEFAULTS.timeoutMs, 'zero is the default too');
  t.equal(healthTimeoutMs({ timeoutMs: 7 }), 7);
});

t.test('the interval counts from the end of a check', async (t) => {
  const bench = new Bench({ intervalMs: 100 });
  t.equal(bench.check(0, 40), 100);
  t.equal(bench.check(0), 240);
});

t.test(
  'one success makes healthy, retries in a row unhealthy, one success healthy again',
  async (t) => {
    const bench = new Bench({ intervalMs: 10, retries: 2 });
    for (const code of [0, 1, 0, 1, 1, 1, 0]) bench.check(code);
    t.strictSame(bench.changes, ['healthy at 10', 'unhealthy at 50', 'healthy at 70']);
  },
);

t.test('what could not be run, or was late, failed', async (t) => {
  const bench = new Bench({ intervalMs: 10, retries: 1 });
  bench.check(undefined);
  t.strictSame(bench.changes, ['unhealthy at 10']);
});

t.test('within the start period failures do not count, and checks are quicker', async (t) => {
  const config = { intervalMs: 100, startPeriodMs: 35, startIntervalMs: 10, retries: 1 };
  const bench = new Bench(config);
  t.equal(bench.check(1), 10);
  t.equal(bench.check(1), 20);
  t.equal(bench.check(1), 30);
  t.strictSame(bench.changes, []);
  t.equal(bench.check(1), 40, 'begun outside: it counts');
  t.strictSame(bench.changes, ['unhealthy at 40']);

  const quick = new Bench({ ...config, startPeriodMs: 1000 });
  t.equal(quick.check(0), 10);
  t.equal(quick.check(1), 110, 'healthy once, the start is over');
  t.strictSame(quick.changes, ['healthy at 10', 'unhealthy at 110']);

  const over = new Bench({ ...config, startIntervalMs: 0, startPeriodMs: 60_000 });
  t.equal(over.check(1), HEALTH_DEFAULTS.startIntervalMs);
});

t.test('the start period is that of the task, not of the agent', async (t) => {
  const bench = new Bench({ intervalMs: 10, startPeriodMs: 1000, retries: 1 }, -995);
  t.equal(bench.monitor.nextDeadlineMs(), HEALTH_DEFAULTS.startIntervalMs);
  bench.check(1);
  t.strictSame(bench.changes, [`unhealthy at ${HEALTH_DEFAULTS.startIntervalMs}`]);
});

t.test('an agent goes on where the one before it was', async (t) => {
  const config = { test: TEST, intervalMs: 10, retries: 3 };
  const next = new HealthMonitor(config, -500, 0, { health: 'healthy', failingStreak: 2 });
  next.step({ kind: 'timeout' }, 10);
  next.takeReady();
  next.step({ kind: 'result', exitCode: 1, output: '' }, 10);
  t.match(next.takeReady().change, { health: 'unhealthy', failingStreak: 3 });
});

t.test('which tests are checks, and what they run', async (t) => {
  const cases: readonly (readonly [readonly string[] | undefined, boolean, readonly string[]])[] = [
    [undefined, false, []],
    [[], false, []],
    [['NONE'], false, []],
    [['CMD'], false, []],
    [['CMD', 'true', 'x'], true, ['true', 'x']],
    [['CMD-SHELL', 'a || b'], true, ['/bin/sh', '-c', 'a || b']],
  ];
  for (const [test, want, command] of cases) {
    const config: HealthConfig | undefined = test === undefined ? undefined : { test };
    t.equal(hasHealthCheck(config), want, String(test));
    if (want && config !== undefined) t.strictSame(healthCommand(config), command);
  }
});

t.test('property: unhealthy exactly at retries failures in a row after the start', async (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { maxLength: 40 }),
      fc.integer({ min: 1, max: 5 }),
      (results, retries) => {
        const monitor = new HealthMonitor({ test: TEST, intervalMs: 1, retries }, 0, 0);
        let streak = 0;
        let model = 'starting';
        let nowMs = 0;
        for (const isGood of results) {
          nowMs += 1;
          monitor.step({ kind: 'timeout' }, nowMs);
          monitor.step({ kind: 'result', exitCode: isGood ? 0 : 1, output: '' }, nowMs);
          const before = model;
          streak = isGood ? 0 : streak + 1;
          if (isGood) model = 'healthy';
          else if (streak >= retries) model = 'unhealthy';
          const { change } = monitor.takeReady();
          if (change?.health !== (model === before ? undefined : model)) return false;
          if (monitor.state.health !== model) return false;
        }
        return true;
      },
    ),
  );
  t.pass('holds');
});
