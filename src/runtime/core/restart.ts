import type { TaskObject } from '../../base/service-model.js';

/** As long as Docker waits where the user says nothing. */
const RESTART_DELAY_MS = 5000;

/** How many restarts are remembered for a policy that counts them within a window. */
export const RESTARTS_REMEMBERED_MAX = 100;

/**
 * When a task that has ended is started again in its place, while no manager is heard who would
 * replace it; `undefined`: it is not.
 *
 * @param restartsMs When it was restarted before, oldest first.
 */
export function restartAtMs(
  task: Pick<TaskObject, 'spec' | 'jobIteration'>,
  hasFailed: boolean,
  restartsMs: readonly number[],
  nowMs: number,
): number | undefined {
  const {
    condition = 'any',
    delayMs = RESTART_DELAY_MS,
    maxAttempts = 0,
    windowMs = 0,
  } = task.spec.restart ?? {};
  // A job that was done is done.
  const onlyFailed = condition === 'on-failure' || task.jobIteration !== undefined;
  if (condition === 'none' || (onlyFailed && !hasFailed)) return undefined;
  if (maxAttempts > 0) {
    const counted =
      windowMs > 0 ? restartsMs.filter((atMs) => atMs > nowMs - windowMs) : restartsMs;
    if (counted.length >= Math.min(maxAttempts, RESTARTS_REMEMBERED_MAX)) return undefined;
  }
  return nowMs + delayMs;
}
