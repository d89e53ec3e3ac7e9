import {
  compareTaskStates,
  isTerminal,
  type ServiceObject,
  type TaskObject,
} from '../../../src/base/service-model.js';
import type { NodeId, ServiceId, TaskId } from '../../../src/base/swarm-model.js';
import type { ViewChange } from '../../../src/control/orchestrate/core/view.js';
import type { CommandBody } from '../../../src/control/store/core/command.js';
import { Violation } from '../raft/violation.js';
import type { SimNode } from './node.js';
import type { ClusterWorld } from './world.js';

/** A node that was out of reach within this time may run what the managers have given up. */
const CUT_MS = 75_000;

/** What must hold at every moment. */
export class Checker {
  readonly #world: ClusterWorld;
  /** Tasks whose programs run in truth, by slot. */
  readonly #running = new Map<string, Map<TaskId, { task: TaskObject; node: SimNode }>>();
  /** The replacement of each slot that the update has taken down. */
  readonly #replaced = new Map<ServiceId, Map<string, TaskId>>();
  readonly services = new Set<ServiceId>();
  replacements = 0;
  restarts = 0;
  doubles = 0;

  constructor(world: ClusterWorld) {
    this.#world = world;
  }

  onChanges(changes: readonly ViewChange[], commands: readonly CommandBody[]): void {
    const slots = new Map<string, TaskObject>();
    for (const change of changes) {
      if (change.table === 'service') this.#onService(change.before, change.after);
      if (change.table !== 'task') continue;
      const { before, after } = change;
      if (before && after) neverBack(before, after);
      if (after !== undefined) slots.set(slotOf(after), after);
    }
    this.#countUpdates(commands);
    for (const task of slots.values()) this.#oneWanted(task);
  }

  #onService(before: ServiceObject | undefined, after: ServiceObject | undefined): void {
    const id = (after ?? before)?.id;
    if (id === undefined) return;
    if (after !== undefined) {
      this.services.add(id);
      return;
    }
    this.services.delete(id);
    if (before?.pendingDelete !== true) throw new Violation(`service ${id} is lost`);
    if ([...this.#world.store.tasksOfService(id)].length > 0)
      throw new Violation(`service ${id} is forgotten before its tasks`);
  }

  /** Of one slot one task is to run; two while an update lets the new one start first. */
  #oneWanted(task: TaskObject): void {
    const { store } = this.#world;
    const service = store.service(task.serviceId);
    const wanted = [...store.tasksOfService(task.serviceId)].filter(
      (other) =>
        slotOf(other) === slotOf(task) &&
        (other.desiredState === 'running' || other.desiredState === 'complete') &&
        !isTerminal(other.status.state),
    );
    if (wanted.length < 2) return;
    const specs = new Set(wanted.map(({ specVersion }) => specVersion));
    if (isStartFirst(service) && wanted.length === 2 && specs.size === 2) return;
    throw new Violation(
      `${slotOf(task)} is to have ${wanted.length} tasks: ${wanted.map(({ id }) => id).join(' ')}`,
    );
  }

  /** What an update takes down at a time. */
  #countUpdates(commands: readonly CommandBody[]): void {
    const { store } = this.#world;
    for (const [i, command] of commands.entries()) {
      if (command.kind !== 'task_create') continue;
      const task = store.task(command.task.id);
      if (task === undefined) continue;
      const before = commands[i - 1];
      const old = before?.kind === 'task_desired' ? store.task(before.id) : undefined;
      const service = store.service(task.serviceId);
      const isRestart = old !== undefined && isTerminal(old.status.state);
      if (isRestart) this.restarts++;
      const node = old?.nodeId && store.node(old.nodeId);
      if (old === undefined || service === undefined || slotOf(old) !== slotOf(task)) continue;
      if (isRestart || old.specVersion === task.specVersion) continue;
      // It may not stay where it is, whatever updates may do.
      if (old.status.message === 'task rejected by constraint enforcer') continue;
      if (!node || node.state === 'down' || node.spec.availability === 'drain') continue;
      if (task.specVersion !== service.specVersion || old.status.state !== 'running') continue;
      this.#onReplaced(service, task);
    }
  }

  #onReplaced(service: ServiceObject, task: TaskObject): void {
    this.replacements++;
    const slots = this.#replaced.get(service.id) ?? new Map<string, TaskId>();
    this.#replaced.set(service.id, slots);
    slots.set(slotOf(task), task.id);
    const { store } = this.#world;
    for (const [slot, id] of slots) {
      const row = store.task(id);
      const node = row?.nodeId && store.node(row.nodeId);
      const isOver =
        row === undefined ||
        row.specVersion !== service.specVersion ||
        compareTaskStates(row.status.state, 'running') >= 0 ||
        compareTaskStates(row.desiredState, 'running') > 0 ||
        node?.state === 'down';
      if (isOver) slots.delete(slot);
    }
    const isRollback = service.updateStatus?.state.startsWith('rollback') ?? false;
    const config = isRollback ? service.spec.rollback : service.spec.update;
    const { parallelism = 1, order = 'stop-first' } = config ?? {};
    if (order === 'stop-first' && parallelism > 0 && slots.size > parallelism)
      throw new Violation(
        `an update of ${service.spec.name} has taken down ${slots.size}, and may take ${parallelism}: ${[...slots.values()].join(' ')}`,
      );
  }

  onRunning(node: SimNode, task: TaskObject, isRunning: boolean): void {
    const slot = slotOf(task);
    const running = this.#running.get(slot) ?? new Map();
    this.#running.set(slot, running);
    if (!isRunning) {
      running.delete(task.id);
      return;
    }
    running.set(task.id, { task, node });
    if (isStartFirst(this.#world.store.service(task.serviceId))) return;
    const nowMs = this.#world.time.nowMs;
    const known = [...running.values()].filter(
      (one) => one.node.isReachable && nowMs - one.node.cutAtMs > CUT_MS,
    );
    if (known.length > 1) {
      this.doubles++;
      throw new Violation(
        `${slot} runs ${known.length} times: ${known.map((one) => `${one.task.id} on ${one.node.id}`).join(', ')}`,
      );
    }
  }

  /** Programs that run in truth, of a service. */
  runningOf(id: ServiceId): readonly { task: TaskObject; node: SimNode }[] {
    return [...this.#running.values()].flatMap((slot) =>
      [...slot.values()].filter(({ task }) => task.serviceId === id),
    );
  }

  get runningServices(): ReadonlySet<ServiceId> {
    const ids = new Set<ServiceId>();
    for (const slot of this.#running.values())
      for (const { task } of slot.values()) ids.add(task.serviceId);
    return ids;
  }
}

function neverBack(before: TaskObject, after: TaskObject): void {
  if (compareTaskStates(after.status.state, before.status.state) < 0)
    throw new Violation(
      `task ${after.id} went back from ${before.status.state} to ${after.status.state}`,
    );
  if (compareTaskStates(after.desiredState, before.desiredState) < 0)
    throw new Violation(
      `task ${after.id} was wanted ${before.desiredState}, and is wanted ${after.desiredState}`,
    );
  if (before.nodeId !== undefined && before.nodeId !== after.nodeId)
    throw new Violation(`task ${after.id} moved from ${before.nodeId} to ${after.nodeId}`);
}

function isStartFirst(service: ServiceObject | undefined): boolean {
  return (
    service?.spec.update?.order === 'start-first' || service?.spec.rollback?.order === 'start-first'
  );
}

export function slotOf({
  serviceId,
  slot,
  nodeId,
}: Pick<TaskObject, 'serviceId' | 'slot'> & { readonly nodeId?: NodeId }): string {
  return `${serviceId} ${slot > 0 ? slot : nodeId}`;
}
