import type { ContainerSpec, Health, Resources } from '../../base/service-model.js';
import type { ConfigId, SecretId, TaskId } from '../../base/swarm-model.js';

/**
 * What runs tasks. Implementations: `host` (commands of this host in namespaces of their own) and
 * `engine` (a Docker Engine API socket); one conformance suite judges both.
 *
 * A task's life: `prepare` makes it, with a network namespace that its owner wires up; `start` lets its
 * first instruction run; it ends by itself or by `stop`; `remove` takes away what is left of it. Tasks
 * outlive the agent: `list` finds them again, in whatever state they are now.
 */
export interface Runtime {
  readonly kind: 'host' | 'engine';
  /** What it is and can, for the node's description and `docker info`. */
  describe(): Promise<RuntimeDescription>;
  /**
   * Makes all that the task needs but does not start it. Doing it twice is harmless. Rejects soon after
   * `signal`; what it made by then is taken away by `remove`.
   *
   * @throws RuntimeError `RUNTIME_REJECTED` (it can never work as asked), `RUNTIME_FAILED` (it may
   *   work another time, or elsewhere).
   */
  prepare(task: RuntimeTask, signal: AbortSignal): Promise<PreparedTask>;
  /**
   * Of one that has ended: runs it once more, with the same namespaces, files and log, as an agent does
   * that hears no manager.
   *
   * @throws RuntimeError `RUNTIME_FAILED`; the task is then as if it had ended.
   */
  start(id: TaskId): Promise<RunningTask>;
  /**
   * Resolves when it has ended, after its event `exited`. `graceMs` after the signal it is killed. Of one
   * that has ended: nothing.
   */
  stop(id: TaskId, how: { readonly signal?: string; readonly graceMs: number }): Promise<void>;
  /** Kills what still runs, and takes away namespaces, files and logs. Of what is gone: nothing. */
  remove(id: TaskId): Promise<void>;
  /** Every task that this runtime has, also of an agent before this one. */
  list(): Promise<readonly KnownTask[]>;
  /** Called for all tasks, until the returned function is. Events of one task come in order. */
  onEvent(listener: (event: RuntimeEvent) => void): () => void;
  logs(id: TaskId, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord>;
  /**
   * Starts another process inside a task that runs; it ends at the latest with the task, with `signal`
   * or with the agent.
   *
   * @throws RuntimeError `RUNTIME_NOT_FOUND`, `RUNTIME_FAILED` (the task does not run). A command that
   *   cannot be started is no error: its `exited` says 126 or 127, its error output why.
   */
  exec?(
    id: TaskId,
    spec: ExecSpec,
    streams: ExecStreams,
    signal: AbortSignal,
  ): Promise<ExecProcess>;
  /** @throws RuntimeError `RUNTIME_NOT_FOUND`, `RUNTIME_FAILED` (the task does not run). */
  stats?(id: TaskId): Promise<TaskStats>;
  /** Its processes, oldest first. Errors as `stats`. */
  top?(id: TaskId): Promise<readonly TaskProcess[]>;
  /** Lets go of everything but the tasks, which go on. */
  close(): Promise<void>;
}

export interface RuntimeDescription {
  /** `host` or the engine's name and version. */
  readonly name: string;
  readonly version: string;
  /** As `docker node inspect` lists them: type and name. */
  readonly plugins: readonly { readonly type: string; readonly name: string }[];
  /** Labels of the engine, for `engine.labels.…` constraints. */
  readonly labels: Readonly<Record<string, string>>;
  /** API socket to which everything goes that is not the swarm's; absent: there is no engine. */
  readonly engineSocket?: string;
}

/** A task as it is to be run: templates filled in, references resolved. */
export interface RuntimeTask {
  readonly id: TaskId;
  /** `web.1.ab12…`: the name of its container. */
  readonly name: string;
  /** `env`, `hostname` and `mounts` have no templates any more. */
  readonly container: ContainerSpec;
  readonly resources?: Resources;
  readonly logDriver?: {
    readonly name: string;
    readonly options?: Readonly<Record<string, string>>;
  };
  /** Those of the container and the swarm's own, `com.docker.swarm.…`. */
  readonly labels: Readonly<Record<string, string>>;
  /** Contents by id; of those that `container` refers to. */
  readonly secrets: ReadonlyMap<SecretId, Uint8Array>;
  readonly configs: ReadonlyMap<ConfigId, Uint8Array>;
  /** `resolver`: names are asked at 127.0.0.11. `host`: the host's own network, nothing to wire. */
  readonly network: 'resolver' | 'isolated' | 'host';
  /** Name and addresses for `/etc/hosts`; where the name is empty, the task's own host name. */
  readonly hosts: readonly { readonly address: string; readonly name: string }[];
  /** Base64 JSON of `X-Registry-Auth`. */
  readonly registryAuth?: string;
}

export interface PreparedTask {
  readonly containerId: string;
  /** File of the network namespace to wire up before `start`; absent where `network` is `host`. */
  readonly netns?: string;
}

export interface RunningTask {
  readonly containerId: string;
  readonly pid: number;
  /** `none`: there is no health check, neither the service's nor the image's. */
  readonly health: Health;
}

/** A task found again. */
export interface KnownTask {
  readonly id: TaskId;
  readonly containerId: string;
  readonly state: 'prepared' | 'running' | 'exited';
  readonly pid: number;
  readonly netns?: string;
  readonly exitCode?: number;
  readonly error?: string;
  /** The kernel killed one of its processes, since it had used up its memory. */
  readonly oomKilled?: boolean;
  readonly health: Health;
  readonly startedAtMs?: number;
  readonly labels: Readonly<Record<string, string>>;
}

export type RuntimeEvent =
  | {
      readonly kind: 'exited';
      readonly id: TaskId;
      readonly exitCode: number;
      readonly error?: string;
      readonly oomKilled?: boolean;
    }
  | {
      readonly kind: 'health';
      readonly id: TaskId;
      readonly health: Health;
      readonly output: string;
    };

export interface LogQuery {
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly follow: boolean;
  /** Records from the end; absent: all. */
  readonly tail?: number;
  readonly sinceMs?: number;
  readonly untilMs?: number;
}

export interface LogRecord {
  readonly stream: 'stdout' | 'stderr';
  /** Nanoseconds since the Unix epoch. */
  readonly atNs: bigint;
  /** One line with its end, as the task wrote it; a part of one where it is very long. */
  readonly data: Uint8Array;
}

export interface ExecSpec {
  readonly command: readonly string[];
  /** Besides the task's own. */
  readonly env?: readonly string[];
  /** Absent: the task's. */
  readonly dir?: string;
  /** Absent: the task's. */
  readonly user?: string;
  /** It gets a terminal, and all its output is `stdout`. */
  readonly tty: boolean;
  readonly size?: TerminalSize;
  /** All capabilities. */
  readonly privileged?: boolean;
}

export interface TerminalSize {
  readonly rows: number;
  readonly columns: number;
}

export interface ExecStreams {
  /** Its standard input, closed where this ends. Absent: it has none. */
  readonly stdin?: AsyncIterable<Uint8Array>;
  /** Takes a piece of its output; no more is read before it resolves. */
  output(stream: 'stdout' | 'stderr', data: Uint8Array): Promise<void> | void;
}

export interface ExecProcess {
  /** As this host counts. */
  readonly pid: number;
  resize(size: TerminalSize): void;
  /** Its exit code, when all its output has been taken. Never rejects. */
  readonly exited: Promise<number>;
}

/** What a task has used. What the runtime cannot tell is absent. */
export interface TaskStats {
  readonly atMs: number;
  /** Processor time since its start, nanoseconds. */
  readonly cpuNs?: bigint;
  /** Of which inside the kernel. */
  readonly cpuSystemNs?: bigint;
  readonly memoryBytes?: number;
  readonly memoryMaxBytes?: number;
  readonly memoryLimitBytes?: number;
  readonly pids?: number;
  readonly pidsLimit?: number;
}

export interface TaskProcess {
  /** As this host counts. */
  readonly pid: number;
  readonly parentPid: number;
  readonly uid: number;
  readonly startedAtMs: number;
  /** Processor time, milliseconds. */
  readonly cpuMs: number;
  readonly tty: string;
  readonly command: string;
}
