import type { TaskObject } from '../../../base/service-model.js';
import type { Draft } from './draft.js';

/** Whether the policy wants another task after this one. @param rows All tasks of its slot. */
export function shouldRestart(
  draft: Draft,
  task: TaskObject,
  rows: readonly TaskObject[],
): boolean {
  const { condition = 'any', maxAttempts = 0, windowMs = 0 } = task.spec.restart ?? {};
  if (condition === 'none') return false;
  const isComplete = task.status.state === 'complete';
  if (isComplete && (condition === 'on-failure' || draft.isJob)) return false;
  if (maxAttempts === 0) return true;
  // The reaper keeps as many tasks as this needs, so that every leader counts the same.
  const attempts = rows.filter(
    (row) => row.specVersion === task.specVersion && row.jobIteration === task.jobIteration,
  );
  const restarts = attempts.slice(1);
  if (windowMs === 0) return restarts.length < maxAttempts;
  const endedAtMs = task.endedAtMs ?? draft.nowMs;
  const recent = restarts.filter(
    ({ createdAtMs }) => createdAtMs > endedAtMs - windowMs && createdAtMs <= endedAtMs,
  );
  return recent.length < maxAttempts;
}
