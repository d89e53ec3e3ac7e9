import type { ServiceObject, ServiceSpec, TaskObject } from '../../base/service-model.js';

/** What the API needs of the agent for services and tasks; see `Backend`, of which it is a part. */
export interface ServiceBackend {
  /** Of managers; empty elsewhere. None that is being removed. */
  services(): readonly ServiceObject[];
  service(id: string): ServiceObject | undefined;
  tasks(): readonly TaskObject[];
  task(id: string): TaskObject | undefined;
  tasksOfService(id: string): readonly TaskObject[];
  /** The task is made of the service's present spec, or of one that differs in nothing it would notice. */
  isUpToDate(service: ServiceObject, task: TaskObject): boolean;
  /** Networks in the spec are ids. */
  createService(spec: ServiceSpec, auth: RegistryAuth): Promise<ServiceAnswer>;
  /** As `createService`. */
  updateService(id: string, version: number, update: ServiceUpdate): Promise<ServiceAnswer>;
  removeService(id: string): Promise<void>;
  /**
   * Lines of these tasks from whichever nodes run them, each task's in order. Ends when all have been
   * read; with `follow` when `signal` says so, and new tasks of the services are followed too.
   */
  logs(query: TaskLogQuery, signal: AbortSignal): AsyncIterable<TaskLogRecord>;
}

export interface RegistryAuth {
  /** Base64 JSON of `X-Registry-Auth`. */
  readonly encoded?: string;
}

export interface ServiceUpdate {
  readonly spec: ServiceSpec;
  /** The spec is the one before the present one; `spec` is not looked at. */
  readonly rollback: boolean;
  readonly auth: RegistryAuth;
  /** Without `auth.encoded`: whose to keep. */
  readonly authFrom: 'spec' | 'previous-spec';
}

export interface ServiceAnswer {
  readonly id: string;
  readonly warnings: readonly string[];
}

export interface TaskLogQuery {
  readonly serviceId?: string;
  readonly taskId?: string;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Lines from the end of each task; absent: all. */
  readonly tail?: number;
  readonly sinceMs?: number;
}

export interface TaskLogRecord {
  readonly taskId: string;
  readonly nodeId: string;
  readonly serviceId: string;
  readonly stream: 'stdout' | 'stderr';
  readonly atNs: bigint;
  readonly data: Uint8Array;
}
