import {
  compareTaskStates,
  type ServiceObject,
  type TaskObject,
  type TaskState,
  type TaskStatus,
} from '../../../base/service-model.js';
import type { NodeId, NodeObject, TaskId } from '../../../base/swarm-model.js';
import type { NodeLoads } from './node-load.js';
import type { Place } from './scheduler.js';
import type { CommandGroup, NewTask, OrchestrateCommand, View } from './view.js';

export interface DraftScope {
  readonly view: View;
  readonly nowMs: number;
  readonly newTaskId: () => TaskId;
  /** When this leader first saw a task that is to start later. */
  readonly firstSeenMs: (task: TaskObject) => number;
  /** Tasks that may not stay on their nodes. */
  readonly misplaced: ReadonlySet<TaskId>;
  /** Tasks that this pass may make or place still: the leader has other things to do, too. */
  readonly budget: { left: number };
}

interface Creation {
  readonly kind: 'task_create';
  task: NewTask;
}

/** What is wanted beyond the defaults of a new task. */
export interface TaskWish {
  readonly slot: number;
  readonly nodeId?: NodeId;
  readonly desiredState: TaskState;
  readonly startsAtMs?: number;
}

/** Loads as they will be, for the rest of one pass. */
export class Trial {
  readonly #loads: NodeLoads;
  readonly #moves: (readonly [TaskObject | undefined, TaskObject | undefined])[] = [];

  constructor(loads: NodeLoads) {
    this.#loads = loads;
  }

  move(before: TaskObject | undefined, after: TaskObject | undefined): void {
    this.#loads.move(before, after);
    this.#moves.push([before, after]);
  }

  /** What is committed comes back as changes, and is counted then. */
  undo(): void {
    for (const [before, after] of this.#moves.toReversed()) this.#loads.move(after, before);
    this.#moves.length = 0;
  }
}

/**
 * One service during one pass: its tasks as they are to be, and the commands which make them so.
 * All decisions of the pass read the tasks here, so each sees what those before it have decided.
 */
export class Draft {
  readonly service: ServiceObject;
  readonly scope: DraftScope;
  readonly tasks: Map<TaskId, TaskObject>;
  readonly #trial: Trial;
  readonly #groups: OrchestrateCommand[][] = [];
  readonly #creations = new Map<TaskId, Creation>();
  #open: OrchestrateCommand[] | undefined;
  #wakeAtMs: number | undefined;

  constructor(service: ServiceObject, scope: DraftScope, trial: Trial) {
    this.service = service;
    this.scope = scope;
    this.tasks = new Map();
    for (const task of scope.view.tasksOfService(service.id)) this.tasks.set(task.id, task);
    this.#trial = trial;
  }

  get nowMs(): number {
    return this.scope.nowMs;
  }

  get isJob(): boolean {
    return this.service.job !== undefined;
  }

  get groups(): readonly CommandGroup[] {
    return this.#groups;
  }

  /** When the service is to be looked at again even if nothing happens; absent: never. */
  get wakeAtMs(): number | undefined {
    return this.#wakeAtMs;
  }

  wakeAt(atMs: number): void {
    this.#wakeAtMs = Math.min(this.#wakeAtMs ?? atMs, atMs);
  }

  nodeOf(task: TaskObject): NodeObject | undefined {
    return task.nodeId && this.scope.view.node(task.nodeId);
  }

  isMisplaced(task: TaskObject): boolean {
    return this.scope.misplaced.has(task.id);
  }

  /** Commands of `decide` are done together or not at all. */
  together(decide: () => void): void {
    this.#open = [];
    this.#groups.push(this.#open);
    decide();
    if (this.#open.length === 0) this.#groups.pop();
    this.#open = undefined;
  }

  push(command: OrchestrateCommand): void {
    if (this.#open === undefined) this.#groups.push([command]);
    else this.#open.push(command);
  }

  /** A desired state never goes back. */
  desire(task: TaskObject, desiredState: TaskState): void {
    if (compareTaskStates(task.desiredState, desiredState) >= 0) return;
    this.push({ kind: 'task_desired', id: task.id, desiredState });
    this.#set(task, { ...task, desiredState });
  }

  /** Whether this pass may do one thing more of those that are done to very many tasks. */
  mayGoOn(): boolean {
    const { budget } = this.scope;
    if (budget.left > 0) {
      budget.left--;
      return true;
    }
    this.wakeAt(this.nowMs);
    return false;
  }

  create({ slot, nodeId, desiredState, startsAtMs }: TaskWish): TaskObject {
    const { service, nowMs } = this;
    const task: NewTask = {
      id: this.scope.newTaskId(),
      serviceId: service.id,
      slot,
      ...(nodeId !== undefined && { nodeId }),
      specVersion: service.specVersion,
      desiredState,
      status: { state: 'pending', atMs: nowMs, message: 'pending task scheduling' },
      ...(startsAtMs !== undefined && { startsAtMs }),
    };
    const creation: Creation = { kind: 'task_create', task };
    this.#creations.set(task.id, creation);
    this.push(creation);
    const made: TaskObject = {
      ...task,
      version: 0,
      createdAtMs: nowMs,
      updatedAtMs: nowMs,
      serviceName: service.spec.name,
      serviceLabels: service.spec.labels,
      spec: service.spec.task,
      ...(service.job && { jobIteration: service.job.iteration }),
      networks: [],
      ports: service.endpoint.ports,
    };
    this.#set(undefined, made);
    return made;
  }

  /** Tells where a task is to run. */
  place(task: TaskObject, { nodeId, assignedResources }: Place): void {
    const message =
      task.nodeId === undefined
        ? 'scheduler assigned task to node'
        : 'scheduler confirmed task can run on preassigned node';
    const status: TaskStatus = { state: 'assigned', atMs: this.nowMs, message };
    const placed = {
      nodeId,
      status,
      ...(assignedResources.length > 0 && { assignedResources }),
    };
    const creation = this.#creations.get(task.id);
    if (creation !== undefined) creation.task = { ...creation.task, ...placed };
    else this.push({ kind: 'task_assign', id: task.id, nodeId, assignedResources, status });
    this.#set(task, { ...task, ...placed });
  }

  setStatus(task: TaskObject, status: TaskStatus): void {
    const creation = this.#creations.get(task.id);
    if (creation !== undefined) creation.task = { ...creation.task, status };
    else this.push({ kind: 'task_status', id: task.id, status });
    this.#set(task, { ...task, status });
  }

  remove(task: TaskObject): void {
    this.push({ kind: 'task_remove', id: task.id });
    this.#trial.move(task, undefined);
    this.tasks.delete(task.id);
  }

  #set(before: TaskObject | undefined, after: TaskObject): void {
    this.tasks.set(after.id, after);
    this.#trial.move(before, after);
  }
}
