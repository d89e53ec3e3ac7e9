import t from 'tap';
import { Raft } from '../../src/control/raft/core/raft.js';
import { fuzzRuns } from '../support/fuzz.js';
import { runSeed } from './raft/run.js';
import { Sights } from './raft/sights.js';

// Half a minute of computing, which on a busy machine is several.
t.setTimeout(600_000);

/** How to see one again: `npm run sim -- raft --seed N --nodes 3 --trace`. */
const SEEDS = [
  { nodeCount: 3, seeds: 80 },
  { nodeCount: 5, seeds: 30 },
  { nodeCount: 7, seeds: 15 },
] as const;

const seen = new Sights();

for (const { nodeCount, seeds } of SEEDS) {
  t.test(`${nodeCount} managers keep their promises whatever happens to them`, async (t) => {
    let acknowledged = 0;
    let elections = 0;
    for (let seed = 1; seed <= fuzzRuns(seeds); seed++) {
      const result = runSeed(seed, nodeCount, { raft: Raft });
      acknowledged += result.acknowledged;
      elections += result.elections;
      for (const [sight, count] of result.sights) seen.see(sight, count);
      if (result.failure !== undefined) t.fail(`seed ${seed}: ${result.failure}`);
    }
    t.ok(elections > seeds * 2, `${elections} elections`);
    t.ok(acknowledged > seeds * 30, `${acknowledged} operations were acknowledged`);
  });
}

t.test('the runs before came upon everything that may go wrong', async (t) => {
  for (const [sight, count] of seen.counts) t.ok(count >= 10, `${sight}: ${count}`);
});

t.test('seeds that once failed stay mended', async (t) => {
  const seeds = [
    // Appends that overtook each other had the window sent again, faster than it could be answered.
    { seed: 4910, nodeCount: 5 },
  ];
  for (const { seed, nodeCount } of seeds)
    t.equal(runSeed(seed, nodeCount, { raft: Raft }).failure, undefined, `seed ${seed}`);
});

t.test('a seed is a run: twice the same is the same to the last message', async (t) => {
  for (const seed of [3, 14, 15]) {
    const lines: string[] = [];
    const first = runSeed(seed, 5, { raft: Raft, trace: (line) => lines.push(line) });
    const second = runSeed(seed, 5, { raft: Raft });
    t.strictSame(second, first, `seed ${seed}: and looking on changes nothing`);
    t.ok(lines.length > first.messages, 'the trace tells every message');
  }
});
