import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { loadMutant } from '../support/mutate.js';
import { MUTANTS } from './cluster/mutants.js';
import { runSeed } from './cluster/run.js';
import type { OrchestratorClass } from './cluster/world.js';

// Half a minute of computing, which on a busy machine is several.
t.setTimeout(600_000);

const TARGET = {
  core: 'src/control/orchestrate/core',
  entry: 'orchestrator',
  name: 'Orchestrator',
};
const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** A mutant that only throws was not caught by what this is about. */
const CRASH = /ReferenceError|SyntaxError|TypeError/;

for (const { name, edits, seeds } of MUTANTS) {
  t.test(`it is noticed when ${name}`, async (t) => {
    const folder = join(t.testdir(), 'mutant');
    const orchestrator = await loadMutant<OrchestratorClass>(root, folder, TARGET, edits);
    let found: string | undefined;
    for (let seed = 1; seed <= seeds && found === undefined; seed++) {
      const { failure } = runSeed(seed, { orchestrator });
      if (failure !== undefined) found = `seed ${seed}: ${failure}`;
    }
    t.ok(found, `within ${seeds} seeds`);
    t.notMatch(found, CRASH, 'for what it does');
    t.comment(found);
  });
}
