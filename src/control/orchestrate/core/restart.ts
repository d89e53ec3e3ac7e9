import { isTerminal, type TaskObject } from '../../../base/service-model.js';
import type { Draft } from './draft.js';
import { isFinished, isInvalid, isLost, isWanted, keyOf, slotRows } from './facts.js';
import { shouldRestart } from './policy.js';

const RESTART_DELAY_MS = 5_000;
/** A task waits no longer than this for the one before it to end, or than that has grace to stop. */
const PREDECESSOR_MS_MAX = 60_000;
/** Beyond the grace: for the kill, and for the news of it. */
const STOP_MARGIN_MS = 10_000;

/**
 * The task is over, or its node is: another takes its place, if the restart policy says so, and both
 * are one change.
 */
export function restart(draft: Draft, task: TaskObject, rows: readonly TaskObject[]): void {
  const { nowMs } = draft;
  if (task.desiredState === 'ready' && isTerminal(task.status.state)) {
    // It failed before it was its turn: the delay is there to be waited for.
    const startsAtMs = startOf(draft, task);
    if (startsAtMs > nowMs) {
      draft.wakeAt(startsAtMs);
      return;
    }
  }
  draft.together(() => {
    draft.desire(task, 'shutdown');
    if (isReplaced(draft, task, rows) || !shouldRestart(draft, task, rows)) return;
    const node = draft.nodeOf(task);
    // The delay is for what fails by itself, and not for what was lost with its node.
    const isMoved = isInvalid(node) || draft.isMisplaced(task);
    const delayMs = isMoved ? 0 : (task.spec.restart?.delayMs ?? RESTART_DELAY_MS);
    draft.create({
      slot: task.slot,
      ...(task.slot === 0 && task.nodeId !== undefined && { nodeId: task.nodeId }),
      desiredState: 'ready',
      startsAtMs: nowMs + delayMs,
    });
  });
}

/** An update has put another in the place, or it is the other, and the one before serves until then. */
function isReplaced({ service }: Draft, task: TaskObject, rows: readonly TaskObject[]): boolean {
  const isCurrent = task.specVersion === service.specVersion;
  return rows.some(
    (other) =>
      other.id !== task.id &&
      isWanted(other) &&
      (!isCurrent || other.specVersion === service.specVersion),
  );
}

/** Tasks that were made ready begin, when their delay is over and the one before them has ended. */
export function startReady(draft: Draft): void {
  const slots = slotRows(draft);
  for (const task of draft.tasks.values()) {
    if (task.desiredState !== 'ready' || isTerminal(task.status.state)) continue;
    const startsAtMs = Math.max(startOf(draft, task), predecessorsEnd(draft, task, slots));
    if (startsAtMs > draft.nowMs) draft.wakeAt(startsAtMs);
    else draft.desire(task, draft.isJob ? 'complete' : 'running');
  }
}

/** Another leader's clock may be ahead of ours: nobody waits longer than the delay was meant to be. */
function startOf({ scope }: Draft, task: TaskObject): number {
  const { startsAtMs = task.createdAtMs, createdAtMs } = task;
  const delayMs = Math.max(0, startsAtMs - createdAtMs);
  return Math.min(startsAtMs, scope.firstSeenMs(task) + delayMs);
}

/** Until when to wait for tasks of the slot that have been told to end. */
function predecessorsEnd(
  draft: Draft,
  task: TaskObject,
  slots: ReadonlyMap<unknown, readonly TaskObject[]>,
): number {
  let endMs = 0;
  for (const other of slots.get(keyOf(task)) ?? []) {
    if (isWanted(other) || isFinished(other) || isLost(draft.nodeOf(other))) continue;
    const graceMs = (other.spec.container.stopGracePeriodMs ?? 0) + STOP_MARGIN_MS;
    const limitMs = Math.max(PREDECESSOR_MS_MAX, graceMs);
    const sinceMs = Math.min(task.createdAtMs, draft.scope.firstSeenMs(task));
    endMs = Math.max(endMs, sinceMs + limitMs);
  }
  return endMs;
}
