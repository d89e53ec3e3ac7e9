import { unreachable } from '../../base/assert.js';
import type { ServiceObject, TaskObject } from '../../base/service-model.js';
import type { NodeId, NodeObject, ServiceId, TaskId } from '../../base/swarm-model.js';
import {
  type OrchestrateCommand,
  STRATEGY_LABEL,
  type View,
  type ViewChange,
} from '../orchestrate/index.js';
import { type Change, type CommandBody, ONLY_ROW, type ReadonlyState } from '../store/index.js';

/** The store as orchestration sees it. */
export class StoreView implements View {
  readonly #state: ReadonlyState;

  constructor(state: ReadonlyState) {
    this.#state = state;
  }

  get taskHistoryRetentionLimit(): number {
    return this.#state.row('cluster', ONLY_ROW)?.spec.taskHistoryRetentionLimit ?? 0;
  }

  get strategy(): string | undefined {
    return this.#state.row('cluster', ONLY_ROW)?.spec.labels[STRATEGY_LABEL];
  }

  node(id: NodeId): NodeObject | undefined {
    return this.#state.row('node', id);
  }

  nodes(): Iterable<NodeObject> {
    return this.#state.rows('node');
  }

  service(id: ServiceId): ServiceObject | undefined {
    return this.#state.row('service', id);
  }

  services(): Iterable<ServiceObject> {
    return this.#state.rows('service');
  }

  task(id: TaskId): TaskObject | undefined {
    return this.#state.row('task', id);
  }

  tasks(): Iterable<TaskObject> {
    return this.#state.rows('task');
  }

  tasksOfService(id: ServiceId): Iterable<TaskObject> {
    return this.#rows(this.#state.tasksOfService(id));
  }

  tasksOnNode(id: NodeId): Iterable<TaskObject> {
    return this.#rows(this.#state.tasksOnNode(id));
  }

  networkDriver(id: string): string | undefined {
    return this.#state.row('network', id)?.spec.driver;
  }

  *#rows(ids: Iterable<TaskId>): Iterable<TaskObject> {
    for (const id of ids) {
      const task = this.#state.row('task', id);
      if (task !== undefined) yield task;
    }
  }
}

/** Of changes of the store those that concern orchestration. */
export function viewChanges(changes: readonly Change[]): readonly ViewChange[] {
  return changes.flatMap((change): readonly ViewChange[] => {
    const { table } = change;
    if (table === 'cluster') return [{ table }];
    if (table !== 'node' && table !== 'service' && table !== 'task') return [];
    const { before, after } = change;
    return [{ table, ...(before && { before }), ...(after && { after }) } as ViewChange];
  });
}

export function commandOf(command: OrchestrateCommand): CommandBody {
  switch (command.kind) {
    case 'task_status': {
      const { id, status } = command;
      return { kind: 'task_status', reports: [{ taskId: id, status }] };
    }
    case 'task_assign': {
      const { assignedResources, ...rest } = command;
      return assignedResources.length > 0 ? { ...rest, assignedResources } : rest;
    }
    case 'task_create':
    case 'task_desired':
    case 'task_remove':
    case 'service_status':
    case 'service_rollback':
    case 'service_purge':
      return command;
    default:
      return unreachable(command);
  }
}
