import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import t from 'tap';
import { skipUnless } from './support/lab.js';
import { run } from './support/process.js';

/** `npm run chaos` for a short while; and that it would notice what it is there to notice. */

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const skip = skipUnless('nsenter');
const SECONDS = 25;

interface Report {
  readonly operations: number;
  readonly outcomes: Readonly<Record<string, number>>;
  readonly gaps: Readonly<Record<string, { readonly count: number; readonly worstMs: number }>>;
  readonly copies: { readonly taken: number };
  readonly events: readonly { readonly kind: string; readonly gapMs?: number }[];
  readonly violations: readonly string[];
}

t.test('leaders are killed under load, and nothing is lost or done twice', { skip }, async (t) => {
  const flags = ['--minutes', String(SECONDS / 60), '--power-cut', '--no-targets', '--json'];
  const argv = [process.execPath, join(root, 'scripts/chaos.mjs'), ...flags];
  // Longer than it takes by far: it takes its lab down itself.
  const { code, stdout, stderr } = await run(argv, { timeoutMs: 110_000 });
  t.equal(code, 0, stderr);
  const report = JSON.parse(stdout) as Report;
  t.strictSame(report.violations, []);
  t.ok(report.operations > 300, `${report.operations} operations`);
  t.ok((report.outcomes['done'] ?? 0) > 200, 'most of them succeed');
  t.ok(report.events.length > 0, 'there were faults');
  t.ok(report.copies.taken > 3, `${report.copies.taken} copies of disks were opened`);
  t.comment(JSON.stringify({ ...report, events: report.events.length }));
});

/** The scripts have no types. */
const historyOf = async () =>
  (await import(pathToFileURL(join(root, 'scripts/chaos/history.mjs')).href)).History;

t.test('a history that no order explains is noticed', async (t) => {
  const History = await historyOf();
  const good = new History();
  good.add('object', 'a', { kind: 'create', data: 'x' }, 1, 'done', 'done');
  good.add('object', 'a', { kind: 'read' }, 2, 'done', 'x');
  good.add('object', 'b', { kind: 'create', data: 'y' }, 3, 'unknown');
  good.add('register', 'r', { kind: 'swap', from: '-', to: '1' }, 4, 'done', 'done');
  good.add('register', 'r', { kind: 'read' }, 5, 'done', '1');
  t.strictSame(await good.checkOrder(), []);
  t.strictSame(good.checkFinal(new Map([['a', ['x']]])), []);

  t.match(good.checkFinal(new Map()), [/^lost: a was acknowledged and is gone$/]);
  t.match(good.checkFinal(new Map([['a', ['x', 'x']]])), [/^a is there 2 times$/]);
  t.match(good.checkFinal(new Map([['a', ['z']]])), [/^a holds z, and x was acknowledged$/]);
  good.refuse('c', 'no leader');
  const there = new Map([
    ['a', ['x']],
    ['c', ['x']],
  ]);
  t.match(good.checkFinal(there), [/^c was made, though it was refused: no leader$/]);
  good.add('object', 'a', { kind: 'create', data: 'x' }, 5, 'done', 'done');
  t.match(good.checkFinal(new Map([['a', ['x']]])), [/^a was acknowledged 2 times$/]);
  t.match(await good.checkOrder(), [/^object a: violation/]);

  const lost = new History();
  const swap = (from: string, to: string) => ({ kind: 'swap', from, to });
  lost.add('register', 'r', swap('-', '1'), 1, 'done', 'done');
  lost.add('register', 'r', swap('-', '2'), 2, 'done', 'done');
  t.match(await lost.checkOrder(), [/^register r: violation/], 'two from the same value');
});

t.test('what an answer says of a change', async (t) => {
  const api = join(root, 'scripts/chaos/api.mjs');
  const { outcomeOf } = await import(pathToFileURL(api).href);
  const answer = (status: number, message = '', stale = false) =>
    outcomeOf({ kind: 'answer', status, value: { message }, stale });
  t.equal(answer(201), 'done');
  t.equal(answer(409), 'exists');
  t.equal(answer(404), 'missing');
  t.equal(answer(404, '', true), 'refused', 'old knowledge proves nothing');
  t.equal(answer(500, 'rpc error: update out of sequence'), 'conflict');
  t.equal(answer(500, 'The swarm does not have a leader.'), 'refused');
  t.equal(answer(500, 'the managers lost each other'), 'unknown');
  t.equal(outcomeOf({ kind: 'unsent' }), 'refused');
  t.equal(outcomeOf({ kind: 'unknown' }), 'unknown');
});
