import {
  compareTaskStates,
  isTerminal,
  type ServiceObject,
  type ServiceSpec,
  type TaskObject,
  type TaskStatus,
} from '../../../src/base/service-model.js';
import type { NodeId, NodeObject, ServiceId, TaskId } from '../../../src/base/swarm-model.js';
import type {
  OrchestrateCommand,
  View,
  ViewChange,
} from '../../../src/control/orchestrate/core/view.js';

/** What users, dispatchers and the orchestrator ask of the store. */
export type ClusterCommand =
  | OrchestrateCommand
  | { readonly kind: 'node_put'; readonly node: NodeObject }
  | { readonly kind: 'node_remove'; readonly id: NodeId }
  | { readonly kind: 'service_create'; readonly id: ServiceId; readonly spec: ServiceSpec }
  | { readonly kind: 'service_update'; readonly id: ServiceId; readonly spec: ServiceSpec }
  | { readonly kind: 'service_undo'; readonly id: ServiceId }
  | { readonly kind: 'service_remove'; readonly id: ServiceId };

export class Refused extends Error {
  override readonly name = 'Refused';
}

/** The store's rows and rules, as far as they concern orchestration. */
export class ModelStore implements View {
  taskHistoryRetentionLimit = 5;
  strategy: string | undefined;
  version = 0;
  readonly #nodes = new Map<NodeId, NodeObject>();
  readonly #services = new Map<ServiceId, ServiceObject>();
  readonly #tasks = new Map<TaskId, TaskObject>();
  readonly #ofService = new Map<ServiceId, Map<TaskId, TaskObject>>();
  readonly #onNode = new Map<NodeId, Map<TaskId, TaskObject>>();

  node(id: NodeId): NodeObject | undefined {
    return this.#nodes.get(id);
  }
  nodes(): Iterable<NodeObject> {
    return this.#nodes.values();
  }
  service(id: ServiceId): ServiceObject | undefined {
    return this.#services.get(id);
  }
  services(): Iterable<ServiceObject> {
    return this.#services.values();
  }
  task(id: TaskId): TaskObject | undefined {
    return this.#tasks.get(id);
  }
  tasks(): Iterable<TaskObject> {
    return this.#tasks.values();
  }
  tasksOfService(id: ServiceId): Iterable<TaskObject> {
    return this.#ofService.get(id)?.values() ?? [];
  }
  tasksOnNode(id: NodeId): Iterable<TaskObject> {
    return this.#onNode.get(id)?.values() ?? [];
  }
  networkDriver(): string | undefined {
    return 'overlay';
  }

  /** All or none. @throws Refused */
  apply(commands: readonly ClusterCommand[], atMs: number): readonly ViewChange[] {
    const changes: ViewChange[] = [];
    try {
      for (const command of commands) this.#do(command, atMs, changes);
    } catch (error) {
      for (const change of changes.toReversed()) this.#put(swapped(change));
      throw error;
    }
    return changes;
  }

  #do(command: ClusterCommand, atMs: number, changes: ViewChange[]): void {
    const change = this.#decide(command, atMs);
    if (change === undefined) return;
    changes.push(change);
    this.#put(change);
  }

  #decide(command: ClusterCommand, atMs: number): ViewChange | undefined {
    switch (command.kind) {
      case 'node_put':
        return node(this.#nodes.get(command.node.id), command.node);
      case 'node_remove':
        return node(this.#nodes.get(command.id), undefined);
      case 'service_create':
        return service(undefined, {
          id: command.id,
          ...this.#meta(atMs),
          spec: command.spec,
          specVersion: 1,
          endpoint: endpointOf(command.spec),
          ...(command.spec.mode.kind.endsWith('job') && {
            job: { iteration: 0, lastExecutionMs: atMs },
          }),
        });
      case 'service_update': {
        const before = this.#serviceOf(command.id);
        const { updateStatus: _, ...rest } = before;
        return service(before, {
          ...this.#touched(rest, atMs),
          spec: command.spec,
          specVersion: this.version + 1,
          previousSpec: before.spec,
          previousSpecVersion: before.specVersion,
          endpoint: endpointOf(command.spec),
          ...(before.job && {
            job: { iteration: before.job.iteration + 1, lastExecutionMs: atMs },
          }),
        });
      }
      case 'service_undo': {
        const before = this.#serviceOf(command.id);
        if (before.previousSpec === undefined || before.previousSpecVersion === undefined)
          throw new Refused('no previous spec');
        return service(before, {
          ...this.#touched(before, atMs),
          spec: before.previousSpec,
          specVersion: before.previousSpecVersion,
          previousSpec: before.spec,
          previousSpecVersion: before.specVersion,
          updateStatus: {
            state: 'rollback_started',
            startedAtMs: atMs,
            message: 'manually requested rollback',
          },
        });
      }
      case 'service_remove': {
        const before = this.#serviceOf(command.id);
        return service(before, { ...this.#touched(before, atMs), pendingDelete: true });
      }
      case 'service_purge': {
        const before = this.#services.get(command.id);
        if (before === undefined) return undefined;
        if ([...this.tasksOfService(command.id)].length > 0) throw new Refused('it has tasks');
        return service(before, undefined);
      }
      case 'service_status': {
        const before = this.#services.get(command.id);
        if (before === undefined || before.specVersion !== command.specVersion) return undefined;
        const { updateStatus } = command;
        return service(before, { ...this.#touched(before, atMs), updateStatus });
      }
      case 'service_rollback': {
        const before = this.#services.get(command.id);
        if (before === undefined || before.specVersion !== command.specVersion) return undefined;
        const { previousSpec, previousSpecVersion, ...rest } = before;
        if (previousSpec === undefined || previousSpecVersion === undefined) return undefined;
        return service(before, {
          ...this.#touched(rest, atMs),
          spec: previousSpec,
          specVersion: previousSpecVersion,
          updateStatus: command.updateStatus,
        });
      }
      case 'task_create': {
        const { serviceId, nodeId } = command.task;
        this.#serviceOf(serviceId);
        if (nodeId !== undefined && !this.#nodes.has(nodeId)) throw new Refused('no such node');
        return task(undefined, { ...command.task, ...this.#meta(atMs), networks: [] });
      }
      case 'task_assign': {
        const before = this.#tasks.get(command.id);
        if (before === undefined || compareTaskStates(before.status.state, 'assigned') >= 0)
          return undefined;
        if (!this.#nodes.has(command.nodeId)) throw new Refused('no such node');
        const { nodeId, assignedResources, status } = command;
        return task(before, {
          ...this.#touched(before, atMs),
          nodeId,
          assignedResources,
          status,
        });
      }
      case 'task_desired': {
        const before = this.#tasks.get(command.id);
        if (before === undefined) return undefined;
        if (compareTaskStates(before.desiredState, command.desiredState) >= 0) return undefined;
        const { desiredState } = command;
        return task(before, { ...this.#touched(before, atMs), desiredState });
      }
      case 'task_status': {
        const before = this.#tasks.get(command.id);
        if (before === undefined) return undefined;
        if (compareTaskStates(before.status.state, command.status.state) > 0) return undefined;
        return task(before, withStatus(this.#touched(before, atMs), command.status, atMs));
      }
      case 'task_remove':
        return task(this.#tasks.get(command.id), undefined);
    }
  }

  #serviceOf(id: ServiceId): ServiceObject {
    const found = this.#services.get(id);
    if (found === undefined || found.pendingDelete) throw new Refused(`service ${id} not found`);
    return found;
  }

  #meta(atMs: number) {
    return { version: this.version + 1, createdAtMs: atMs, updatedAtMs: atMs };
  }

  #touched<Row extends object>(row: Row, atMs: number): Row {
    return { ...row, version: this.version + 1, updatedAtMs: atMs };
  }

  #put(change: ViewChange): void {
    this.version++;
    if (change.table === 'cluster') return;
    const { before, after } = change;
    const id = (after ?? before)?.id;
    if (id === undefined) return;
    if (change.table === 'node') set(this.#nodes, id as NodeId, change.after);
    else if (change.table === 'service') set(this.#services, id as ServiceId, change.after);
    else {
      const { before, after } = change;
      set(this.#tasks, id as TaskId, after);
      if (before !== undefined) {
        this.#ofService.get(before.serviceId)?.delete(before.id);
        if (before.nodeId !== undefined) this.#onNode.get(before.nodeId)?.delete(before.id);
      }
      if (after === undefined) return;
      putIn(this.#ofService, after.serviceId, after);
      if (after.nodeId !== undefined) putIn(this.#onNode, after.nodeId, after);
    }
  }
}

function withStatus(row: TaskObject, status: TaskStatus, atMs: number): TaskObject {
  const { state } = status;
  return {
    ...row,
    status,
    ...(state === 'running' && row.runningAtMs === undefined && { runningAtMs: atMs }),
    ...(isTerminal(state) && row.endedAtMs === undefined && { endedAtMs: atMs }),
  };
}

function endpointOf(spec: ServiceSpec): ServiceObject['endpoint'] {
  const { mode = 'vip', ports = [] } = spec.endpoint ?? {};
  return {
    spec: { mode, ports },
    ports: ports.map((port, i) => ({ ...port, publishedPort: port.publishedPort ?? 30_000 + i })),
    virtualIps: [],
  };
}

const node = (before: NodeObject | undefined, after: NodeObject | undefined) =>
  ({ table: 'node', ...(before && { before }), ...(after && { after }) }) as const;
const service = (before: ServiceObject | undefined, after: ServiceObject | undefined) =>
  ({ table: 'service', ...(before && { before }), ...(after && { after }) }) as const;
const task = (before: TaskObject | undefined, after: TaskObject | undefined) =>
  ({ table: 'task', ...(before && { before }), ...(after && { after }) }) as const;

function swapped(change: ViewChange): ViewChange {
  if (change.table === 'cluster') return change;
  const { table, before, after } = change;
  return { table, ...(after && { before: after }), ...(before && { after: before }) } as ViewChange;
}

function set<Key, Row>(table: Map<Key, Row>, key: Key, row: Row | undefined): void {
  if (row === undefined) table.delete(key);
  else table.set(key, row);
}

function putIn<Key>(index: Map<Key, Map<TaskId, TaskObject>>, key: Key, row: TaskObject): void {
  const rows = index.get(key);
  if (rows === undefined) index.set(key, new Map([[row.id, row]]));
  else rows.set(row.id, row);
}
