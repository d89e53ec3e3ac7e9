import { assert, unreachable } from '../../../base/assert.js';
import {
  compareTaskStates,
  isTerminal,
  type TaskObject,
  type TaskStatus,
} from '../../../base/service-model.js';
import { SwarmError } from '../../../base/swarm-error.js';
import type { TaskId } from '../../../base/swarm-model.js';
import { type CommandOf, change, type Decision, newMeta, touched } from './decision.js';
import { TASKS_MAX } from './limits.js';
import { refuse } from './refuse.js';
import type { Change, ReadonlyState } from './state.js';
import { placesOf, releases } from './task-places.js';

type TaskCommand = CommandOf<
  'task_create' | 'task_assign' | 'task_desired' | 'task_status' | 'task_remove'
>;

/**
 * What is asked of a task that is gone, or that has got further already, is no mistake: the leader
 * that asked knew less, or another one asked before. Nothing is done then, and nothing refused, so
 * that it does not take a whole transaction with it.
 */
export function decideTask(state: ReadonlyState, command: TaskCommand): Decision {
  switch (command.kind) {
    case 'task_create':
      return create(state, command);
    case 'task_assign':
      return assign(state, command);
    case 'task_desired':
      return desire(state, command);
    case 'task_status':
      return report(state, command);
    case 'task_remove':
      return remove(state, command.id);
    default:
      return unreachable(command);
  }
}

function remove(state: ReadonlyState, id: TaskId): Decision {
  const row = state.row('task', id);
  if (row === undefined) return { id, changes: [] };
  return { id, changes: [...releases(state, row), change(state, 'task', id, undefined)] };
}

/** Placed on a node, and not only meant for one. */
export function isPlaced({ nodeId, status }: Pick<TaskObject, 'nodeId' | 'status'>): boolean {
  return nodeId !== undefined && compareTaskStates(status.state, 'assigned') >= 0;
}

/** Made of the service as it is now: the same spec, by reference, for all tasks of a version. */
function create(state: ReadonlyState, { task, atMs }: CommandOf<'task_create'>): Decision {
  const { id, serviceId, slot, nodeId, desiredState, status } = task;
  const { assignedResources, startsAtMs } = task;
  const service = state.row('service', serviceId);
  const isLate =
    service === undefined ||
    service.pendingDelete === true ||
    service.specVersion !== task.specVersion ||
    (nodeId !== undefined && state.row('node', nodeId) === undefined) ||
    state.row('task', id) !== undefined;
  if (isLate) return { id, changes: [] };
  if (state.size('task') >= TASKS_MAX)
    throw refuse(
      { code: 'SWARM_EXHAUSTED', what: 'task' },
      `the swarm has ${TASKS_MAX} tasks, and no room for more`,
    );
  const row: TaskObject = {
    id,
    ...newMeta(state, atMs),
    serviceId,
    serviceName: service.spec.name,
    serviceLabels: service.spec.labels,
    slot,
    ...(nodeId !== undefined && { nodeId }),
    spec: service.spec.task,
    specVersion: service.specVersion,
    ...(service.job && { jobIteration: service.job.iteration }),
    desiredState,
    status,
    networks: [],
    ports: service.endpoint.ports,
    ...(assignedResources !== undefined && { assignedResources }),
    ...(startsAtMs !== undefined && { startsAtMs }),
  };
  if (!isPlaced(row)) return { id, changes: [change(state, 'task', id, row)] };
  return placed(state, { ...row, status: { ...status, state: 'pending' } }, row, atMs);
}

function assign(state: ReadonlyState, command: CommandOf<'task_assign'>): Decision {
  const { id, nodeId, status, assignedResources = [] } = command;
  const row = state.row('task', id);
  const isLate =
    row === undefined ||
    isPlaced(row) ||
    isTerminal(row.status.state) ||
    (row.nodeId !== undefined && row.nodeId !== nodeId) ||
    state.row('node', nodeId) === undefined;
  if (isLate) return { id, changes: [] };
  const after: TaskObject = {
    ...touched(state, row, command.atMs),
    nodeId,
    status,
    ...(assignedResources.length > 0 && { assignedResources }),
  };
  return placed(state, touched(state, row, command.atMs), after, command.atMs);
}

/**
 * A task for which there is no place on one of its networks waits, and says why: it is not refused,
 * since others of the same transaction may well have theirs.
 *
 * @param row As it is while it waits. @param after As it is on its node.
 */
function placed(state: ReadonlyState, row: TaskObject, after: TaskObject, atMs: number): Decision {
  const { id, nodeId } = after;
  assert(nodeId !== undefined, 'a task is placed on a node');
  if (isTerminal(after.status.state)) return { id, changes: [change(state, 'task', id, after)] };
  try {
    const { networks, changes } = placesOf(state, after, nodeId, atMs);
    return { id, changes: [...changes, change(state, 'task', id, { ...after, networks })] };
  } catch (error) {
    if (!(error instanceof SwarmError)) throw error;
    const { atMs: sinceMs } = row.status;
    const status = { ...row.status, message: 'waiting for addresses', error: error.message };
    const same = JSON.stringify({ ...status, atMs: sinceMs }) === JSON.stringify(row.status);
    const isNew = state.row('task', id) === undefined;
    return { id, changes: same && !isNew ? [] : [change(state, 'task', id, { ...row, status })] };
  }
}

/** What is wished of a task only ever gets further. */
function desire(state: ReadonlyState, command: CommandOf<'task_desired'>): Decision {
  const { id, desiredState, atMs } = command;
  const row = state.row('task', id);
  if (row === undefined || compareTaskStates(desiredState, row.desiredState) <= 0)
    return { id, changes: [] };
  return {
    id,
    changes: [change(state, 'task', id, { ...touched(state, row, atMs), desiredState })],
  };
}

/** One version for all of them; a task that is named twice is what was said of it last. */
function report(state: ReadonlyState, command: CommandOf<'task_status'>): Decision {
  const { nodeId, reports, atMs } = command;
  const rows = new Map<string, TaskObject>();
  for (const { taskId, status } of reports) {
    const row = rows.get(taskId) ?? state.row('task', taskId);
    if (row === undefined || !isNews(row, status, nodeId)) continue;
    rows.set(taskId, { ...touched(state, row, atMs), status, ...milestones(row, status, atMs) });
  }
  const changes: Change[] = [...rows].flatMap(([id, row]) => [
    ...(isTerminal(row.status.state) ? releases(state, row) : []),
    change(state, 'task', id, row),
  ]);
  return { id: reports.at(-1)?.taskId ?? '', changes };
}

/** By the clock of whoever leads, since those of the nodes may differ. */
function milestones(
  row: TaskObject,
  { state }: TaskStatus,
  atMs: number,
): Pick<TaskObject, 'runningAtMs' | 'endedAtMs'> {
  return {
    ...(state === 'running' && row.runningAtMs === undefined && { runningAtMs: atMs }),
    ...(isTerminal(state) && row.endedAtMs === undefined && { endedAtMs: atMs }),
  };
}

/**
 * Whether a report tells something: of a task that is the reporter's own and has not got further,
 * nor ended otherwise.
 *
 * @param nodeId The node that says so; absent: the leader.
 */
export function isNews(row: TaskObject, status: TaskStatus, nodeId: TaskObject['nodeId']): boolean {
  if (nodeId !== undefined && row.nodeId !== nodeId) return false;
  // Only where it is placed a task gets on; before that it waits, or is over.
  const isOnNode = compareTaskStates(status.state, 'assigned') >= 0 && !isTerminal(status.state);
  if (!isPlaced(row) && (nodeId !== undefined || isOnNode)) return false;
  const order = compareTaskStates(status.state, row.status.state);
  if (order < 0 || (order > 0 && isTerminal(row.status.state))) return false;
  return order > 0 || JSON.stringify(status) !== JSON.stringify(row.status);
}
