import t from 'tap';
import { bytesOf, type LogPlace, RaftLog } from '../../../../src/control/raft/core/log.js';
import type { LogEntry } from '../../../../src/control/raft/core/types.js';

/** A log whose entries follow `base` and have these terms. */
function logAfter(base: LogPlace, ...terms: readonly number[]): RaftLog {
  const entries = terms.map((term, i) => entry(base.index + 1 + i, term));
  return new RaftLog(base, entries);
}

const entry = (index: number, term: number, size = 0): LogEntry => ({
  index,
  term,
  kind: 'command',
  data: Buffer.alloc(size),
});

const START = { index: 0, term: 0 };
const COMPACTED = { index: 10, term: 3 };
const indexes = (entries: readonly LogEntry[]) => entries.map(({ index }) => index);

t.test('places are found from the base to the end, and nowhere else', async (t) => {
  const log = logAfter(COMPACTED, 3, 5);
  t.equal(log.lastIndex, 12);
  t.equal(log.lastTerm, 5);
  const terms = [9, 10, 11, 12, 13].map((index) => log.termAt(index));
  t.strictSame(terms, [undefined, 3, 3, 5, undefined]);
  t.ok(log.has({ index: 12, term: 5 }));
  t.notOk(log.has({ index: 12, term: 4 }));
  t.notOk(log.has({ index: 13, term: 5 }));
  const empty = logAfter(COMPACTED);
  t.strictSame([empty.lastIndex, empty.lastTerm], [10, 3], 'an empty log ends at its base');
});

t.test('a slice is of what is there; an empty one may be anywhere', async (t) => {
  const log = logAfter(COMPACTED, 3, 3, 4);
  t.strictSame(indexes(log.slice(11, 12)), [11, 12]);
  t.strictSame(indexes(log.slice(14, 13)), []);
  t.strictSame(indexes(log.slice(2, 1)), []);
  t.throws(() => log.slice(10, 12));
  t.throws(() => log.slice(12, 14));
});

t.test('a batch holds as much as fits, and at least one entry', async (t) => {
  const log = new RaftLog(START, [entry(1, 1, 100), entry(2, 1, 100), entry(3, 1, 100)]);
  const each = bytesOf(Buffer.alloc(100));
  const cases: readonly (readonly [bytesMax: number, number[]])[] = [
    [1, [1]],
    [each, [1]],
    [2 * each - 1, [1]],
    [2 * each, [1, 2]],
    [99 * each, [1, 2, 3]],
  ];
  for (const [bytesMax, want] of cases)
    t.strictSame(indexes(log.batch(1, bytesMax)), want, `${bytesMax} bytes`);
  t.strictSame(indexes(log.batch(4, 999)), [], 'at the end there is none');
  t.ok(each > 100, 'an entry costs more than its data');
});

t.test('entries join without gaps and without going back in term', async (t) => {
  const log = logAfter(START, 1, 2);
  t.throws(() => log.append(entry(4, 2)), { message: 'entries have no gaps' });
  t.throws(() => log.append(entry(2, 2)));
  t.throws(() => log.append(entry(3, 1)), { message: 'terms never decrease' });
  log.append(entry(3, 2));
  t.equal(log.lastIndex, 3);
});

t.test('cutting, compacting and resetting keep the rest in place', async (t) => {
  const log = logAfter(START, 1, 1, 2, 2, 3);
  log.cutFrom(5);
  t.strictSame([log.lastIndex, log.lastTerm], [4, 2]);
  log.cutFrom(9);
  t.equal(log.lastIndex, 4, 'cutting beyond the end does nothing');
  log.compactTo(3);
  t.strictSame(log.base, { index: 3, term: 2 });
  t.strictSame(indexes(log.slice(4, 4)), [4]);
  t.throws(() => log.cutFrom(3), { message: 'what is compacted is committed' });
  t.throws(() => log.compactTo(9));
  log.compactTo(4);
  t.strictSame([log.lastIndex, log.lastTerm], [4, 2]);
  log.reset({ index: 40, term: 7 });
  t.strictSame([log.lastIndex, log.lastTerm, log.termAt(4)], [40, 7, undefined]);
});

t.test('one log covers another by its last term, then by its length', async (t) => {
  const log = logAfter(START, 1, 2, 2);
  const cases: readonly (readonly [LogPlace, boolean])[] = [
    [{ index: 3, term: 2 }, true],
    [{ index: 4, term: 2 }, true],
    [{ index: 2, term: 2 }, false],
    [{ index: 1, term: 3 }, true],
    [{ index: 9, term: 1 }, false],
  ];
  for (const [place, want] of cases)
    t.equal(log.isCoveredBy(place), want, `${place.index}@${place.term}`);
});

t.test('the last place that may match is found by term', async (t) => {
  const log = logAfter(COMPACTED, 3, 3, 5, 5, 5);
  const cases: readonly (readonly [string, LogPlace, LogPlace])[] = [
    ['itself', { index: 14, term: 5 }, { index: 14, term: 5 }],
    ['before a later term', { index: 14, term: 4 }, { index: 12, term: 3 }],
    ['not beyond the limit', { index: 12, term: 9 }, { index: 12, term: 3 }],
    ['not beyond the end', { index: 99, term: 9 }, { index: 15, term: 5 }],
    ['the base', { index: 14, term: 2 }, { index: 10, term: 0 }],
    ['before the base nothing is known', { index: 4, term: 9 }, { index: 4, term: 0 }],
  ];
  for (const [name, limit, want] of cases) t.strictSame(log.lastCandidate(limit), want, name);
});

t.test('of entries that follow a shared place, the first that differs is new', async (t) => {
  const log = logAfter(START, 1, 1, 2);
  const first = (...entries: LogEntry[]) => log.firstNew(entries)?.index;
  t.equal(first(entry(2, 1), entry(3, 2)), undefined);
  t.equal(first(entry(2, 1), entry(3, 3)), 3);
  t.equal(first(entry(3, 2), entry(4, 2)), 4);
  t.equal(first(), undefined);
});
