import {
  isTerminal,
  type ServiceObject,
  type TaskObject,
  type UpdateConfig,
  type UpdateStatus,
} from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import type { Draft } from './draft.js';
import { hasEndedByItself, isUnderWay, isWanted } from './facts.js';
import { Outdated } from './outdated.js';
import type { Slot } from './slots.js';

const MONITOR_MS = 5_000;
/** A delay as long as the time of monitoring would end it before the last task's delay is over. */
const AFTER_DELAY_MS = 1_000;

type Config = Required<UpdateConfig>;

/** What became of one slot in the update that is under way. */
interface Progress {
  readonly slot: Slot;
  readonly isOutdated: boolean;
  /** The task that the update has put in the place of an outdated one, and that one. */
  readonly update?: TaskObject;
  readonly replaced?: TaskObject;
  /** When that one ran, or failed; absent: it has not come so far. */
  readonly doneAtMs?: number;
}

/**
 * Brings tasks to the service's spec, some at a time. Nothing is remembered: how far an update is
 * can be read off the tasks, so that the next leader goes on where this one was.
 *
 * @param frozen Slots that are not to be touched now, but may be on their way.
 * @returns Tasks that tell how far it is, and must not be forgotten yet.
 */
export function update(
  draft: Draft,
  slots: readonly Slot[],
  frozen: readonly Slot[] = [],
): ReadonlySet<TaskId> {
  const { service } = draft;
  const status = service.updateStatus;
  const config = configOf(service);
  const outdated = new Outdated(draft);
  for (const slot of slots) settleDoubles(draft, slot, outdated, config);
  if (status?.state === 'paused' || status?.state === 'rollback_paused') return new Set();

  const progress = [
    ...slots.map((slot) => progressOf(draft, slot, outdated)),
    ...frozen.map((slot) => ({ ...progressOf(draft, slot, outdated), isOutdated: false })),
  ];
  const left = progress.filter(({ isOutdated }) => isOutdated);
  if (isUnderWay(status) && isGivenUp(draft, progress, status, config)) return keptOf(progress);
  if (left.length === 0) complete(draft, progress, config);
  else {
    if (status === undefined) startUpdate(draft);
    replaceSome(draft, progress, outdated, config);
  }
  return keptOf(progress);
}

function configOf({ spec, updateStatus }: ServiceObject): Config {
  const isRollback = updateStatus?.state.startsWith('rollback') ?? false;
  return {
    parallelism: 1,
    delayMs: 0,
    failureAction: 'pause',
    monitorMs: MONITOR_MS,
    maxFailureRatio: 0,
    order: 'stop-first',
    ...(isRollback ? spec.rollback : spec.update),
  };
}

/** Where an up-to-date task has taken over, the others go. */
function settleDoubles(draft: Draft, slot: Slot, outdated: Outdated, config: Config): void {
  if (slot.live.length < 2) return;
  const current = slot.live.filter((task) => !outdated.has(task));
  const keep = current.find(isRunning) ?? current[0];
  if (keep === undefined) return;
  // With start-first the outdated one serves until the other does.
  const isTakenOver = isRunning(keep) || config.order === 'stop-first';
  for (const task of slot.live)
    if (task !== keep && (isTakenOver || current.includes(task) || !isRunning(task)))
      draft.desire(task, 'shutdown');
}

function isRunning(task: TaskObject): boolean {
  return task.status.state === 'running';
}

function progressOf(draft: Draft, slot: Slot, outdated: Outdated): Progress {
  const { service, nowMs } = draft;
  const { rows, live } = slot;
  const isOutdated = live.every((task) => outdated.has(task));
  const lastOutdated = rows.findLastIndex(
    (row) => row.specVersion !== service.specVersion && outdated.has(row),
  );
  const replaced = rows[lastOutdated];
  if (replaced === undefined) return { slot, isOutdated };
  // The first one counts, also when it has failed and another has taken its place since. What was
  // ended from outside, or lost with its node, was followed by another that counts in its stead.
  const { startedAtMs = 0 } = service.updateStatus ?? {};
  const update = rows
    .slice(lastOutdated + 1)
    .find(
      (task) =>
        task.specVersion === service.specVersion &&
        (isWanted(task) || (hasEndedByItself(task) && task.createdAtMs >= startedAtMs)),
    );
  if (update === undefined) return { slot, isOutdated };
  if (!isDone(update)) return { slot, isOutdated, update, replaced };
  const doneAtMs = update.runningAtMs ?? update.endedAtMs ?? update.createdAtMs;
  return { slot, isOutdated, update, replaced, doneAtMs: Math.min(nowMs, doneAtMs) };
}

function isDone(task: TaskObject): boolean {
  return task.runningAtMs !== undefined || isRunning(task) || isTerminal(task.status.state);
}

/** The rows by which the next leader, or the next look, finds out how far the update is. */
function keptOf(progress: readonly Progress[]): ReadonlySet<TaskId> {
  const kept = new Set<TaskId>();
  for (const { update, replaced } of progress) {
    if (update === undefined || replaced === undefined) continue;
    kept.add(update.id);
    kept.add(replaced.id);
  }
  return kept;
}

function replaceSome(
  draft: Draft,
  progress: readonly Progress[],
  outdated: Outdated,
  config: Config,
): void {
  const { nowMs } = draft;
  const left = progress.filter(({ isOutdated }) => isOutdated);
  const limit = config.parallelism > 0 ? config.parallelism : left.length;
  let busy = 0;
  for (const { update, doneAtMs, isOutdated } of progress) {
    if (update === undefined || isOutdated) continue;
    const freeAtMs = doneAtMs === undefined ? undefined : doneAtMs + config.delayMs;
    if (freeAtMs !== undefined && freeAtMs <= nowMs) continue;
    busy++;
    if (freeAtMs !== undefined) draft.wakeAt(freeAtMs);
  }
  // Those that serve nobody anyway come first: replacing them costs nothing.
  const serves = ({ slot }: Progress) => slot.live.some(isRunning);
  const order = [...left.filter((each) => !serves(each)), ...left.filter(serves)];
  for (const { slot } of order.slice(0, Math.max(0, limit - busy)))
    replace(draft, slot, outdated, config);
}

function replace(draft: Draft, slot: Slot, outdated: Outdated, { order }: Config): void {
  const [first] = slot.live;
  if (first === undefined) return;
  const keeps = order === 'start-first' ? slot.live.find(isRunning) : undefined;
  draft.together(() => {
    for (const task of slot.live)
      if (task !== keeps && outdated.has(task)) draft.desire(task, 'shutdown');
    draft.create({
      slot: first.slot,
      ...(first.slot === 0 && first.nodeId !== undefined && { nodeId: first.nodeId }),
      desiredState: 'ready',
    });
  });
}

/** Too many of the new tasks have failed: the update pauses, or what was before comes back. */
function isGivenUp(
  draft: Draft,
  progress: readonly Progress[],
  status: UpdateStatus,
  { failureAction, maxFailureRatio, monitorMs }: Config,
): boolean {
  if (failureAction === 'continue') return false;
  const failed = progress.flatMap(({ update }) =>
    update !== undefined && hasFailed(update, monitorMs) ? [update] : [],
  );
  const total = progress.filter(
    ({ update, isOutdated }) => update !== undefined || isOutdated,
  ).length;
  if (failed.length === 0 || failed.length / total <= maxFailureRatio) return false;
  const last = failed.reduce((a, b) => ((b.endedAtMs ?? 0) > (a.endedAtMs ?? 0) ? b : a));
  const why = `due to failure or early termination of task ${last.id}`;
  const { service } = draft;
  const of = { id: service.id, specVersion: service.specVersion };
  // A rollback is never rolled back.
  if (status.state === 'rollback_started')
    draft.push({
      kind: 'service_status',
      ...of,
      updateStatus: { ...status, state: 'rollback_paused', message: `rollback paused ${why}` },
    });
  else if (failureAction === 'rollback' && service.previousSpec !== undefined)
    draft.push({
      kind: 'service_rollback',
      ...of,
      updateStatus: {
        ...status,
        state: 'rollback_started',
        message: `update rolled back ${why}`,
      },
    });
  else
    draft.push({
      kind: 'service_status',
      ...of,
      updateStatus: { ...status, state: 'paused', message: `update paused ${why}` },
    });
  return true;
}

/** By itself, and not because it was told to end or its node was lost. */
function hasFailed(task: TaskObject, monitorMs: number): boolean {
  const { runningAtMs, endedAtMs = 0 } = task;
  if (!hasEndedByItself(task)) return false;
  return runningAtMs === undefined || endedAtMs - runningAtMs <= monitorMs;
}

function startUpdate(draft: Draft): void {
  const { service, nowMs } = draft;
  draft.push({
    kind: 'service_status',
    id: service.id,
    specVersion: service.specVersion,
    updateStatus: { state: 'updating', startedAtMs: nowMs, message: 'update in progress' },
  });
}

/** No slot is left to be replaced; the last ones are watched for a while. */
function complete(
  draft: Draft,
  progress: readonly Progress[],
  { delayMs, monitorMs }: Config,
): void {
  const { service, nowMs } = draft;
  const status = service.updateStatus;
  if (!isUnderWay(status)) return;
  const updated = progress.filter(({ update }) => update !== undefined);
  let endMs = 0;
  for (const { doneAtMs, slot } of updated) {
    // Also while an outdated one is there still.
    if (doneAtMs === undefined || slot.live.length > 1) return;
    endMs = Math.max(endMs, doneAtMs + delayMs);
  }
  endMs += delayMs >= monitorMs ? delayMs + AFTER_DELAY_MS : monitorMs;
  if (updated.length > 0 && endMs > nowMs) {
    draft.wakeAt(endMs);
    return;
  }
  const isRollback = status.state === 'rollback_started';
  draft.push({
    kind: 'service_status',
    id: service.id,
    specVersion: service.specVersion,
    updateStatus: {
      ...status,
      state: isRollback ? 'rollback_completed' : 'completed',
      completedAtMs: nowMs,
      message: isRollback ? 'rollback completed' : 'update completed',
    },
  });
}
