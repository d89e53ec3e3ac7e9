import fc from 'fast-check';
import t from 'tap';
import {
  durationMsOf,
  formatTimeMs,
  formatTimeNs,
  nanosecondsOf,
} from '../../../src/api/wire/time.js';
import { runs } from '../runs.js';

t.test('a time reads as Go prints it', async (t) => {
  const cases: readonly (readonly [number, string])[] = [
    [0, '0001-01-01T00:00:00Z'],
    [1, '1970-01-01T00:00:00.001Z'],
    [Date.UTC(2026, 10, 20, 16, 1, 46, 169), '2026-11-20T16:01:46.169Z'],
    [Date.UTC(2026, 10, 20, 16, 1, 46, 170), '2026-11-20T16:01:46.17Z'],
    [Date.UTC(2026, 10, 20, 16, 1, 46), '2026-11-20T16:01:46Z'],
    [Date.UTC(2028, 1, 29, 23, 59, 59, 999), '2028-02-29T23:59:59.999Z'],
    [Number.NaN, '0001-01-01T00:00:00Z'],
  ];
  for (const [ms, text] of cases) t.equal(formatTimeMs(ms), text);
});

t.test('every time is read back as itself', async () => {
  fc.assert(
    fc.property(fc.integer({ min: -62_000_000_000_000, max: 253_000_000_000_000 }), (ms) => {
      return ms === 0 || Date.parse(formatTimeMs(ms)) === ms;
    }),
    { numRuns: runs(500) },
  );
});

t.test('nanoseconds of today keep their digits', async (t) => {
  t.equal(formatTimeNs(1_795_190_742_798), '1795190742798000000');
});

t.test('durations go from nanoseconds to milliseconds and back', async (t) => {
  t.equal(durationMsOf(5_000_000_000), 5000);
  t.equal(nanosecondsOf(90 * 86_400_000), 7_776_000_000_000_000);
  t.equal(JSON.stringify(nanosecondsOf(3650 * 86_400_000)), '315360000000000000');
});
