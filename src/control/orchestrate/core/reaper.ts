import { compareTaskStates, isTerminal, type TaskObject } from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import type { Draft } from './draft.js';
import { isFinished, isWanted, slotRows } from './facts.js';

/** Forgets tasks that have ended: all that are to be removed, and of each slot the oldest beyond what is kept. */
export function reap(draft: Draft, kept: ReadonlySet<TaskId>): void {
  for (const task of [...draft.tasks.values()])
    if (task.desiredState === 'remove' && isFinished(task)) draft.remove(task);
  const limit = limitOf(draft);
  if (limit < 0) return;
  for (const rows of slotRows(draft).values()) {
    let beyond = rows.length - limit;
    // The last one tells what became of the slot: whether another is to follow, among other things.
    for (const task of rows.slice(0, -1)) {
      if (beyond <= 0) break;
      if (!isForgettable(draft, task) || kept.has(task.id)) continue;
      draft.remove(task);
      beyond--;
    }
  }
}

/** The restart policy counts attempts by the tasks that are there. */
function limitOf({ service, scope }: Draft): number {
  const { maxAttempts = 0 } = service.spec.task.restart ?? {};
  return maxAttempts > 0 ? maxAttempts + 1 : scope.view.taskHistoryRetentionLimit;
}

function isForgettable({ service }: Draft, task: TaskObject): boolean {
  const { state } = task.status;
  // A job is done by having done it.
  if (task.jobIteration !== undefined && state === 'complete')
    return task.jobIteration !== service.job?.iteration;
  const willNeverRun = compareTaskStates(state, 'assigned') < 0 && !isWanted(task);
  return isTerminal(state) || willNeverRun;
}
