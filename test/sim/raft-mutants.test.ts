import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { loadMutant } from '../support/mutate.js';
import { MUTANTS, type Mutant } from './raft/mutants.js';
import type { RaftClass } from './raft/node.js';
import { runSeed } from './raft/run.js';

// Half a minute of computing, which on a busy machine is several.
t.setTimeout(600_000);

const TARGET = { core: 'src/control/raft/core', entry: 'raft', name: 'Raft' };
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** The first seed of some size that shows it, and what it shows. */
function hunt(raft: RaftClass, { lie }: Mutant, seeds: number, guards: boolean): string {
  for (let seed = 1; seed <= seeds; seed++) {
    for (const nodeCount of [3, 5]) {
      const { failure } = runSeed(seed, nodeCount, {
        raft,
        guards,
        amend: (config) => ({ ...config, disk: { ...config.disk, lie } }),
      });
      if (failure !== undefined) return `seed ${seed} of ${nodeCount} nodes: ${failure}`;
    }
  }
  return '';
}

/** A mutant that only throws was not caught by what this is about. */
const CRASH = /ReferenceError|SyntaxError|TypeError/;

for (const mutant of MUTANTS) {
  t.test(`it is noticed when ${mutant.name}`, async (t) => {
    const raft = await loadMutant<RaftClass>(
      root,
      join(t.testdir(), 'mutant'),
      TARGET,
      mutant.edits,
    );
    const look = (seeds: number, guards: boolean) => {
      const found = hunt(raft, mutant, seeds, guards);
      const where = guards ? 'inside' : 'outside';
      t.not(found, '', `within ${seeds} seeds, ${where}`);
      t.notMatch(found, CRASH, 'for what it does');
      t.comment(`${where}: ${found}`);
    };
    look(mutant.seeds, true);
    if (mutant.outsideSeeds !== undefined) look(mutant.outsideSeeds, false);
  });
}
