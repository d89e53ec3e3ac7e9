import type { Edit } from '../../support/mutate.js';

/** A way to be wrong, which the simulation must notice. */
export interface Mutant {
  readonly name: string;
  readonly edits: readonly Edit[];
  /** Seeds within which it is found; some five times what it took. */
  readonly seeds: number;
}

const edit = (file: string, find: string, put: string): readonly Edit[] => [{ file, find, put }];

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'the next task does not wait for the one before to end',
    edits: edit('restart.ts', 'isWanted(other) || isFinished(other) ||', 'true ||'),
    seeds: 50,
  },
  {
    name: 'an update does not count what it has begun',
    edits: edit('updater.ts', 'busy++;', ''),
    seeds: 60,
  },
  {
    name: 'an update is complete while some are left',
    edits: edit('updater.ts', 'if (left.length === 0) complete', 'if (left.length <= 1) complete'),
    seeds: 60,
  },
  {
    name: 'tasks that were made ready never begin',
    edits: edit('restart.ts', "draft.desire(task, draft.isJob ? 'complete' : 'running');", ''),
    seeds: 60,
  },
  {
    name: 'the history is never cut',
    edits: edit('reaper.ts', 'let beyond = rows.length - limit;', 'let beyond = 0;'),
    seeds: 100,
  },
  {
    name: 'one replica too many is kept',
    edits: edit('services.ts', 'of order.slice(replicas))', 'of order.slice(replicas + 1))'),
    seeds: 100,
  },
  {
    name: 'an update starts the new before the old is told to end',
    edits: edit('updater.ts', 'if (task !== keeps && outdated.has(task))', 'if (false)'),
    seeds: 60,
  },
  {
    name: 'a pass begins before the one before is committed',
    edits: edit('orchestrator.ts', 'this.#isBusy = this.#groups.length > 0;', ''),
    seeds: 60,
  },
];
