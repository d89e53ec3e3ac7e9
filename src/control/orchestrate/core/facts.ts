import {
  compareTaskStates,
  isTerminal,
  type TaskObject,
  type UpdateStatus,
} from '../../../base/service-model.js';
import type { NodeId, NodeObject } from '../../../base/swarm-model.js';
import type { Draft } from './draft.js';
import { isActive } from './node-load.js';

/** A replica's number, or the node of a global service's task. */
export type SlotKey = number | NodeId;

export function keyOf(task: TaskObject): SlotKey {
  return task.slot > 0 ? task.slot : ((task.nodeId ?? '') as NodeId);
}

/** All tasks that followed each other in one place, the oldest first. */
export function slotRows(draft: Draft): Map<SlotKey, TaskObject[]> {
  const slots = new Map<SlotKey, TaskObject[]>();
  for (const task of draft.tasks.values()) {
    const key = keyOf(task);
    const rows = slots.get(key);
    if (rows === undefined) slots.set(key, [task]);
    else rows.push(task);
  }
  for (const rows of slots.values())
    if (rows.length > 1)
      rows.sort((a, b) => a.createdAtMs - b.createdAtMs || a.version - b.version);
  return slots;
}

/** To run, or to be made ready for it. */
export function isWanted(task: TaskObject): boolean {
  return compareTaskStates(task.desiredState, 'running') <= 0 || isWantedJob(task);
}

function isWantedJob(task: TaskObject): boolean {
  return task.jobIteration !== undefined && isActive(task);
}

/** Nothing of the task is there any more, or ever was. */
export function isFinished(task: TaskObject): boolean {
  return isTerminal(task.status.state) || compareTaskStates(task.status.state, 'assigned') < 0;
}

/** The node's tasks are lost, or are to go elsewhere. */
export function isInvalid(node: NodeObject | undefined): boolean {
  return isLost(node) || node?.spec.availability === 'drain';
}

export function isLost(node: NodeObject | undefined): boolean {
  return node === undefined || node.state === 'down';
}

export function isUnderWay(status: UpdateStatus | undefined): status is UpdateStatus {
  return status?.state === 'updating' || status?.state === 'rollback_started';
}

/** Whether anything of these may still run although it is to end. */
export function isClearing(draft: Draft, rows: readonly TaskObject[]): boolean {
  return rows.some((row) => !isWanted(row) && !isFinished(row) && !isLost(draft.nodeOf(row)));
}

export function hasEndedByItself({ status }: TaskObject): boolean {
  return status.state === 'complete' || status.state === 'failed' || status.state === 'rejected';
}
