import type {
  ConfigId,
  GenericResource,
  Labels,
  NetworkId,
  NodeId,
  ObjectMeta,
  SecretId,
  ServiceId,
  TaskId,
} from './swarm-model.js';

/**
 * Services and tasks, in Docker's sense of the words. Durations are milliseconds (they may have
 * fractions, since Docker's are nanoseconds), sizes bytes, processors billionths of one. A field that
 * is absent was not said by the user, and is not shown to him.
 */

/** How the tasks of a service are counted. */
export type ServiceMode =
  | { readonly kind: 'replicated'; readonly replicas: number }
  | { readonly kind: 'global' }
  | {
      readonly kind: 'replicated-job';
      readonly maxConcurrent: number;
      readonly totalCompletions: number;
    }
  | { readonly kind: 'global-job' };

export interface UpdateConfig {
  /** Tasks at a time; 0: all at once. */
  readonly parallelism: number;
  readonly delayMs?: number;
  readonly failureAction?: 'pause' | 'continue' | 'rollback';
  /** For how long a new task must live to count as well. */
  readonly monitorMs?: number;
  readonly maxFailureRatio?: number;
  readonly order?: 'stop-first' | 'start-first';
}

export interface RestartPolicy {
  readonly condition?: 'none' | 'on-failure' | 'any';
  readonly delayMs?: number;
  /** Absent or 0: without limit. */
  readonly maxAttempts?: number;
  /** Attempts are counted within it; absent or 0: ever. */
  readonly windowMs?: number;
}

export interface HealthConfig {
  /** `['NONE']`, `['CMD', …]`, `['CMD-SHELL', text]`; absent or empty: the image's. */
  readonly test?: readonly string[];
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
  readonly startPeriodMs?: number;
  readonly startIntervalMs?: number;
  readonly retries?: number;
}

export interface Mount {
  readonly type: 'bind' | 'volume' | 'tmpfs' | 'npipe' | 'cluster' | 'image';
  readonly source?: string;
  readonly target: string;
  readonly readOnly?: boolean;
  readonly consistency?: string;
  readonly bind?: {
    readonly propagation?: string;
    readonly nonRecursive?: boolean;
    readonly createMountpoint?: boolean;
    readonly readOnlyNonRecursive?: boolean;
    readonly readOnlyForceRecursive?: boolean;
  };
  readonly volume?: {
    readonly noCopy?: boolean;
    readonly labels?: Labels;
    readonly subpath?: string;
    readonly driver?: { readonly name?: string; readonly options?: Labels };
  };
  readonly tmpfs?: {
    readonly sizeBytes?: number;
    readonly mode?: number;
    readonly options?: readonly (readonly string[])[];
  };
}

/** A secret or config as a file of the task. */
export interface FileTarget {
  /** Absolute, or below `/run/secrets` (secrets) or `/` (configs). */
  readonly name: string;
  readonly uid: string;
  readonly gid: string;
  /** Permission bits. */
  readonly mode: number;
}

export interface SecretReference {
  readonly secretId: SecretId;
  readonly secretName: string;
  readonly file?: FileTarget;
}

export interface ConfigReference {
  readonly configId: ConfigId;
  readonly configName: string;
  readonly file?: FileTarget;
  /** Not a file, but for the runtime itself, such as a credential spec. */
  readonly runtime?: boolean;
}

export interface ContainerSpec {
  readonly image: string;
  readonly labels?: Labels;
  /** In place of the image's entrypoint. */
  readonly command?: readonly string[];
  readonly args?: readonly string[];
  readonly hostname?: string;
  readonly env?: readonly string[];
  readonly dir?: string;
  readonly user?: string;
  readonly groups?: readonly string[];
  /** Kept and given to the engine as it came: Docker's own JSON. */
  readonly privileges?: Readonly<Record<string, unknown>>;
  readonly init?: boolean;
  readonly stopSignal?: string;
  readonly tty?: boolean;
  readonly openStdin?: boolean;
  readonly readOnly?: boolean;
  readonly mounts?: readonly Mount[];
  readonly stopGracePeriodMs?: number;
  readonly health?: HealthConfig;
  /** Lines of `/etc/hosts`: address, then names. */
  readonly hosts?: readonly string[];
  readonly dns?: {
    readonly nameservers?: readonly string[];
    readonly search?: readonly string[];
    readonly options?: readonly string[];
  };
  readonly secrets?: readonly SecretReference[];
  readonly configs?: readonly ConfigReference[];
  readonly isolation?: string;
  readonly sysctls?: Labels;
  readonly capabilityAdd?: readonly string[];
  readonly capabilityDrop?: readonly string[];
  readonly ulimits?: readonly {
    readonly name: string;
    readonly hard: number;
    readonly soft: number;
  }[];
  readonly oomScoreAdj?: number;
}

export interface Resources {
  readonly limits?: {
    readonly nanoCpus?: number;
    readonly memoryBytes?: number;
    readonly pids?: number;
  };
  readonly reservations?: {
    readonly nanoCpus?: number;
    readonly memoryBytes?: number;
    readonly generic?: readonly GenericResource[];
  };
  readonly swapBytes?: number;
  readonly memorySwappiness?: number;
}

export interface Platform {
  readonly architecture?: string;
  readonly os?: string;
}

export interface Placement {
  /** As the user wrote them: `node.labels.zone==a`. */
  readonly constraints?: readonly string[];
  /** Spread over the values of these, such as `node.labels.rack`; the first is the coarsest. */
  readonly spreadOver?: readonly string[];
  readonly maxReplicas?: number;
  readonly platforms?: readonly Platform[];
}

/**
 * Networks of the node itself, which every node has and no store knows: a target may name them in
 * place of an id. `host`: the task has the node's own network; `bridge`: the engine's; `none`: none.
 */
export const PREDEFINED_NETWORKS: ReadonlySet<string> = new Set(['host', 'bridge', 'none']);

/** A network that the tasks are on. */
export interface NetworkTarget {
  readonly target: NetworkId;
  readonly aliases?: readonly string[];
  readonly driverOptions?: Labels;
}

/** All that one task is made of. */
export interface TaskSpec {
  readonly container: ContainerSpec;
  readonly resources?: Resources;
  readonly restart?: RestartPolicy;
  readonly placement?: Placement;
  readonly networks?: readonly NetworkTarget[];
  readonly logDriver?: { readonly name: string; readonly options?: Labels };
  /** Raised by the user to have all tasks replaced. */
  readonly forceUpdate?: number;
  readonly runtime?: string;
}

export interface PortConfig {
  readonly name?: string;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly targetPort: number;
  /** Absent or 0: the swarm chooses one of 30000 to 32767. */
  readonly publishedPort?: number;
  readonly publishMode: 'ingress' | 'host';
}

export interface EndpointSpec {
  readonly mode: 'vip' | 'dnsrr';
  readonly ports?: readonly PortConfig[];
}

/** The user's words about a service. */
export interface ServiceSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly task: TaskSpec;
  readonly mode: ServiceMode;
  readonly update?: UpdateConfig;
  readonly rollback?: UpdateConfig;
  /** The former place of `task.networks`: kept to be shown, used only where that has none. */
  readonly networks?: readonly NetworkTarget[];
  readonly endpoint?: EndpointSpec;
}

export interface VirtualIp {
  readonly networkId: NetworkId;
  /** `10.0.1.5/24`; absent where the endpoint mode is `dnsrr`. */
  readonly address?: string;
}

/** What the swarm made of `ServiceSpec.endpoint`: every port has its number. */
export interface ServiceEndpoint {
  readonly spec: EndpointSpec;
  readonly ports: readonly (PortConfig & { readonly publishedPort: number })[];
  readonly virtualIps: readonly VirtualIp[];
}

export type UpdateState =
  | 'updating'
  | 'paused'
  | 'completed'
  | 'rollback_started'
  | 'rollback_paused'
  | 'rollback_completed';

export interface UpdateStatus {
  readonly state: UpdateState;
  readonly startedAtMs?: number;
  readonly completedAtMs?: number;
  readonly message: string;
}

export interface ServiceObject extends ObjectMeta {
  readonly id: ServiceId;
  readonly spec: ServiceSpec;
  /** Raised when the spec changes; tasks carry the one that they were made of. */
  readonly specVersion: number;
  readonly previousSpec?: ServiceSpec;
  readonly previousSpecVersion?: number;
  readonly endpoint: ServiceEndpoint;
  readonly updateStatus?: UpdateStatus;
  /** Of the jobs modes: raised when the job is to be done once more. */
  readonly job?: { readonly iteration: number; readonly lastExecutionMs: number };
  /** Base64 JSON of `X-Registry-Auth`, for the nodes that pull; never shown. */
  readonly registryAuth?: string;
  readonly previousRegistryAuth?: string;
  /** Being removed: its tasks end first. Not shown, and its name is free. */
  readonly pendingDelete?: boolean;
}

/** In the order in which a task goes through them; it never goes back. */
export const TASK_STATES = [
  'new',
  'pending',
  'assigned',
  'accepted',
  'preparing',
  'ready',
  'starting',
  'running',
  'complete',
  'shutdown',
  'failed',
  'rejected',
  'remove',
  'orphaned',
] as const;
export type TaskState = (typeof TASK_STATES)[number];

const RANK: ReadonlyMap<TaskState, number> = new Map(TASK_STATES.map((state, at) => [state, at]));

/** Negative: `a` comes before `b`. */
export function compareTaskStates(a: TaskState, b: TaskState): number {
  return (RANK.get(a) ?? 0) - (RANK.get(b) ?? 0);
}

/** The task runs no more, and never will again. */
export function isTerminal(state: TaskState): boolean {
  return compareTaskStates(state, 'running') > 0;
}

export type Health = 'none' | 'starting' | 'healthy' | 'unhealthy';

/** What was last reported of a task. */
export interface TaskStatus {
  readonly state: TaskState;
  readonly atMs: number;
  /** What is going on: `started`, `preparing`, or why it waits. */
  readonly message: string;
  /** Why it failed, or why it cannot be placed. */
  readonly error?: string;
  readonly container?: {
    readonly id: string;
    readonly pid: number;
    /** There when it has ended. */
    readonly exitCode?: number;
  };
  /** Ports in the host mode, as they are open. */
  readonly ports?: readonly (PortConfig & { readonly publishedPort: number })[];
  readonly health?: Health;
}

/** A task's place on one network. */
export interface TaskNetwork {
  readonly networkId: NetworkId;
  readonly attachmentId: string;
  /** `10.0.1.5/24`. */
  readonly addresses: readonly string[];
  readonly mac: string;
  /** Besides the service's name, under which all its tasks are found. */
  readonly aliases: readonly string[];
}

export interface TaskObject extends ObjectMeta {
  readonly id: TaskId;
  readonly serviceId: ServiceId;
  /** As of when the task was made. */
  readonly serviceName: string;
  readonly serviceLabels: Labels;
  /** Which replica it is, from 1; 0 where there is one for each node. */
  readonly slot: number;
  /** Absent: not placed yet. */
  readonly nodeId?: NodeId;
  readonly spec: TaskSpec;
  readonly specVersion: number;
  readonly jobIteration?: number;
  readonly desiredState: TaskState;
  readonly status: TaskStatus;
  /** While the desired state is `ready`: when it is to become `running`, by the leader's clock. */
  readonly startsAtMs?: number;
  /** When the managers were told that it runs, and that it has ended; by the leader's clock. */
  readonly runningAtMs?: number;
  readonly endedAtMs?: number;
  /** Given with the node. */
  readonly networks: readonly TaskNetwork[];
  /** Of the service, as of when the task was placed; `host` ports are opened by the node. */
  readonly ports: readonly PortConfig[];
  /** Which of a node's named generic resources are the task's own. */
  readonly assignedResources?: readonly GenericResource[];
}

/** `web.3.ab12…`; of global services the node's id takes the place of the number. */
export function taskName(task: Pick<TaskObject, 'serviceName' | 'slot' | 'nodeId' | 'id'>): string {
  return `${slotName(task)}.${task.id}`;
}

/** `web.3`: the same for all tasks that follow each other in one place. */
export function slotName({
  serviceName,
  slot,
  nodeId,
}: Pick<TaskObject, 'serviceName' | 'slot' | 'nodeId'>): string {
  return `${serviceName}.${slot > 0 ? slot : (nodeId ?? '')}`;
}

/** What every node knows of every service: enough to answer for it without a manager. */
export interface ServiceEntry {
  readonly id: ServiceId;
  readonly version: number;
  readonly name: string;
  /** Those of the service, among them the choices for balancing: `shoal.*`. */
  readonly labels: Labels;
  readonly endpointMode: 'vip' | 'dnsrr';
  readonly virtualIps: readonly VirtualIp[];
  /** In the ingress mode only. */
  readonly ports: readonly (PortConfig & { readonly publishedPort: number })[];
  /** Networks with the aliases under which the service is found there too. */
  readonly networks: readonly NetworkTarget[];
}
