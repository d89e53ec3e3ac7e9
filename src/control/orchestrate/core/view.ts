import type {
  ServiceObject,
  TaskObject,
  TaskState,
  TaskStatus,
  UpdateStatus,
} from '../../../base/service-model.js';
import type {
  GenericResource,
  NetworkId,
  NodeId,
  NodeObject,
  ServiceId,
  TaskId,
} from '../../../base/swarm-model.js';

/** What orchestration sees of the store: always the committed state as of now. */
export interface View {
  /** Of the cluster: tasks that are kept per slot, the present one included; negative: all. */
  readonly taskHistoryRetentionLimit: number;
  /** `spread`, `binpack` or `random`, for services that do not say; absent: `spread`. */
  readonly strategy: string | undefined;
  node(id: NodeId): NodeObject | undefined;
  nodes(): Iterable<NodeObject>;
  /** Also one that is being removed. */
  service(id: ServiceId): ServiceObject | undefined;
  services(): Iterable<ServiceObject>;
  task(id: TaskId): TaskObject | undefined;
  tasks(): Iterable<TaskObject>;
  tasksOfService(id: ServiceId): Iterable<TaskObject>;
  tasksOnNode(id: NodeId): Iterable<TaskObject>;
  /** Driver of a network, `overlay`; absent: there is no such network. */
  networkDriver(id: NetworkId): string | undefined;
}

/** One row before and after; absent: there was none, or there is none any more. */
export type ViewChange =
  | { readonly table: 'node'; readonly before?: NodeObject; readonly after?: NodeObject }
  | { readonly table: 'service'; readonly before?: ServiceObject; readonly after?: ServiceObject }
  | { readonly table: 'task'; readonly before?: TaskObject; readonly after?: TaskObject }
  | { readonly table: 'cluster' };

/** A task that is to be; all else is its service's. */
export type NewTask = Pick<
  TaskObject,
  | 'id'
  | 'serviceId'
  | 'slot'
  | 'nodeId'
  | 'specVersion'
  | 'desiredState'
  | 'status'
  | 'startsAtMs'
  | 'assignedResources'
>;

/** What orchestration wants done. Doing what was done already, or of what is gone, is harmless. */
export type OrchestrateCommand =
  | { readonly kind: 'task_create'; readonly task: NewTask }
  | {
      readonly kind: 'task_assign';
      readonly id: TaskId;
      readonly nodeId: NodeId;
      readonly assignedResources: readonly GenericResource[];
      readonly status: TaskStatus;
    }
  | { readonly kind: 'task_desired'; readonly id: TaskId; readonly desiredState: TaskState }
  | { readonly kind: 'task_status'; readonly id: TaskId; readonly status: TaskStatus }
  | { readonly kind: 'task_remove'; readonly id: TaskId }
  /** Nothing if the service has another spec by now. */
  | {
      readonly kind: 'service_status';
      readonly id: ServiceId;
      readonly specVersion: number;
      readonly updateStatus: UpdateStatus;
    }
  /** The spec before the present one takes its place. Nothing if the service has another spec by now. */
  | {
      readonly kind: 'service_rollback';
      readonly id: ServiceId;
      readonly specVersion: number;
      readonly updateStatus: UpdateStatus;
    }
  | { readonly kind: 'service_purge'; readonly id: ServiceId };

/** Commands that hold together: all are done or none. */
export type CommandGroup = readonly OrchestrateCommand[];
