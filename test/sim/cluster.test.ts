import t from 'tap';
import { Orchestrator } from '../../src/control/orchestrate/core/orchestrator.js';
import { fuzzRuns } from '../support/fuzz.js';
import { runSeed } from './cluster/run.js';

// A minute of computing, which on a busy machine is several.
t.setTimeout(600_000);

/** How to see one again: `npm run sim -- cluster --seed N --trace`. */
const SEEDS = 300;

t.test('services become as they are wanted, whatever happens to nodes and leaders', async (t) => {
  const sums = { restarts: 0, replacements: 0, leaders: 0 };
  const faults = new Map<string, number>();
  for (let seed = 1; seed <= fuzzRuns(SEEDS); seed++) {
    const result = runSeed(seed, { orchestrator: Orchestrator });
    sums.restarts += result.restarts;
    sums.replacements += result.replacements;
    sums.leaders += result.leaders;
    for (const [name, count] of result.faults) faults.set(name, (faults.get(name) ?? 0) + count);
    if (result.failure !== undefined) t.fail(`seed ${seed}: ${result.failure}`);
  }
  t.ok(sums.restarts > SEEDS, `${sums.restarts} restarts`);
  t.ok(sums.replacements > SEEDS, `${sums.replacements} replacements`);
  t.ok(sums.leaders > SEEDS * 2, `${sums.leaders} leaders`);
  for (const [name, count] of faults) t.ok(count > 20, `${name}: ${count}`);
});

t.test('a seed is a run: twice the same is the same', async (t) => {
  for (const seed of [3, 14, 15]) {
    const lines: string[] = [];
    const first = runSeed(seed, { orchestrator: Orchestrator, trace: (line) => lines.push(line) });
    t.strictSame(runSeed(seed, { orchestrator: Orchestrator }), first, `seed ${seed}`);
    t.ok(lines.length > first.commits, 'the trace tells every change');
  }
});
