import { isTerminal, type TaskObject } from '../../../base/service-model.js';
import type { NodeId, TaskId } from '../../../base/swarm-model.js';
import type { Draft } from './draft.js';
import {
  hasEndedByItself,
  isClearing,
  isInvalid,
  isWanted,
  type SlotKey,
  slotRows,
} from './facts.js';
import { isAllowed } from './outdated.js';
import { restart } from './restart.js';
import { type Slot, slotsOf } from './slots.js';
import { update } from './updater.js';

/** @returns Tasks that must not be forgotten yet. */
export function reconcileReplicated(draft: Draft, replicas: number): ReadonlySet<TaskId> {
  for (const rows of slotRows(draft).values())
    for (const task of rows) if (isWanted(task) && isOver(draft, task)) restart(draft, task, rows);

  const { filled, dead } = slotsOf(draft);
  filled.sort((a, b) => Number(a.key) - Number(b.key));
  const order = filled.length > replicas ? mostDispensableLast(filled) : filled;
  const used = new Set<SlotKey>(filled.map(({ key }) => key));
  for (let missing = replicas - filled.length, slot = 1; missing > 0; slot++) {
    if (used.has(slot)) continue;
    missing--;
    used.add(slot);
    fill(draft, { slot }, dead.get(slot) ?? []);
  }
  for (const rows of dead.values())
    if (!used.has(rows[0]?.slot ?? 0)) for (const task of rows) draft.desire(task, 'remove');
  for (const { live } of order.slice(replicas))
    for (const task of live) draft.desire(task, 'remove');
  return update(draft, order.slice(0, replicas));
}

/** A task for each node that the constraints allow; those elsewhere end. */
export function reconcileGlobal(draft: Draft): ReadonlySet<TaskId> {
  const { view } = draft.scope;
  for (const rows of slotRows(draft).values())
    for (const task of rows) {
      const node = draft.nodeOf(task);
      // Nobody asks for the history of a node that is no more.
      if (node === undefined) draft.desire(task, 'remove');
      else if (!isWanted(task)) continue;
      else if (isInvalid(node) || !isAllowed(draft, node)) draft.desire(task, 'shutdown');
      else if (!isTerminal(task.status.state)) continue;
      else if (node.spec.availability === 'pause') draft.desire(task, 'shutdown');
      else restart(draft, task, rows);
    }

  const { filled, dead } = slotsOf(draft);
  const slots = new Map<SlotKey, Slot>(filled.map((slot) => [slot.key, slot]));
  const updatable: Slot[] = [];
  const frozen: Slot[] = [];
  for (const node of view.nodes()) {
    if (isInvalid(node) || !isAllowed(draft, node)) continue;
    const slot = slots.get(node.id);
    if (node.spec.availability === 'pause') frozen.push(...(slot ? [slot] : []));
    else if (slot !== undefined) updatable.push(slot);
    else fill(draft, { slot: 0, nodeId: node.id }, dead.get(node.id) ?? []);
  }
  return update(draft, updatable, frozen);
}

/** What is to be done so many times, so many at once. */
export function reconcileReplicatedJob(
  draft: Draft,
  { maxConcurrent, totalCompletions }: { maxConcurrent: number; totalCompletions: number },
): void {
  endFormerIterations(draft);
  let running = 0;
  let settled = 0;
  const free: number[] = [];
  for (const rows of slotRows(draft).values())
    for (const task of rows)
      if (isOfIteration(draft, task) && isWanted(task) && isOver(draft, task))
        restart(draft, task, rows);

  const after = slotRows(draft);
  for (let slot = 1; slot <= totalCompletions; slot++) {
    const rows = (after.get(slot) ?? []).filter((task) => isOfIteration(draft, task));
    if (rows.some(({ status }) => status.state === 'complete')) settled++;
    else if (rows.some(isWanted)) running++;
    // One that has failed for good takes its place with it: the job ends without it.
    else if (rows.length > 0) settled++;
    else free.push(slot);
  }
  const limit = maxConcurrent > 0 ? maxConcurrent : totalCompletions;
  const wanted = Math.min(limit - running, totalCompletions - settled - running);
  for (const slot of free.slice(0, Math.max(0, wanted)))
    fill(draft, { slot }, after.get(slot) ?? []);
}

/** What is to be done once on every node. */
export function reconcileGlobalJob(draft: Draft): void {
  endFormerIterations(draft);
  for (const rows of slotRows(draft).values())
    for (const task of rows) {
      if (!isOfIteration(draft, task) || !isWanted(task) || task.status.state === 'complete')
        continue;
      const node = draft.nodeOf(task);
      if (isInvalid(node) || draft.isMisplaced(task)) draft.desire(task, 'shutdown');
      else if (isTerminal(task.status.state)) restart(draft, task, rows);
    }
  const slots = slotRows(draft);
  for (const node of draft.scope.view.nodes()) {
    const isCandidate = node.spec.availability === 'active' && node.state === 'ready';
    if (!isCandidate || !isAllowed(draft, node)) continue;
    const rows = slots.get(node.id) ?? [];
    // Where the task was ended with its node, it is done when the node is back.
    const isSettled = rows.some(
      (task) => isOfIteration(draft, task) && (isWanted(task) || hasEndedByItself(task)),
    );
    if (!isSettled) fill(draft, { slot: 0, nodeId: node.id }, rows);
  }
}

/** What the former run of a job has left running; what has ended stays as its history. */
function endFormerIterations(draft: Draft): void {
  for (const task of [...draft.tasks.values()])
    if (!isOfIteration(draft, task) && !isTerminal(task.status.state)) draft.desire(task, 'remove');
}

function isOfIteration({ service }: Draft, task: TaskObject): boolean {
  return task.jobIteration === service.job?.iteration;
}

/** It has ended, or must not stay where it is. */
function isOver(draft: Draft, task: TaskObject): boolean {
  if (draft.isJob && task.status.state === 'complete') return false;
  if (isTerminal(task.status.state) || draft.isMisplaced(task)) return true;
  return task.nodeId !== undefined && isInvalid(draft.nodeOf(task));
}

/** @param rows What was in the place before, and may still be ending. */
function fill(
  draft: Draft,
  place: { readonly slot: number; readonly nodeId?: NodeId },
  rows: readonly TaskObject[],
): void {
  if (!draft.mayGoOn()) return;
  const running = draft.isJob ? 'complete' : 'running';
  draft.create({ ...place, desiredState: isClearing(draft, rows) ? 'ready' : running });
}

/**
 * When replicas are taken away: first those that do not run, then those of which a node has the most,
 * and of these the latest.
 */
function mostDispensableLast(slots: readonly Slot[]): readonly Slot[] {
  const runs = ({ live }: Slot) => live.some(({ status }) => status.state === 'running');
  const sorted = [...slots].sort(
    (a, b) => Number(runs(b)) - Number(runs(a)) || Number(a.key) - Number(b.key),
  );
  const onNode = new Map<NodeId, number>();
  const ranked = sorted.map((slot) => {
    const nodeId = slot.live.length === 1 ? slot.live[0]?.nodeId : undefined;
    if (nodeId === undefined) return { slot, nth: Number.POSITIVE_INFINITY };
    const nth = (onNode.get(nodeId) ?? 0) + 1;
    onNode.set(nodeId, nth);
    return { slot, nth };
  });
  return ranked.sort((a, b) => (a.nth === b.nth ? 0 : a.nth - b.nth)).map(({ slot }) => slot);
}
