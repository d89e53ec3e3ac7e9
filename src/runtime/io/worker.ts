import { setTimeout as delay } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { unreachable } from '../../base/assert.js';
import { CoreDriver } from '../../base/io/driver.js';
import type { TaskObject, TaskState, TaskStatus } from '../../base/service-model.js';
import type { TaskId } from '../../base/swarm-model.js';
import type { LogQuery, LogRecord, Runtime, RuntimeEvent, RuntimeTask } from '../core/runtime.js';
import { RuntimeError } from '../core/runtime-error.js';
import { TaskCore, type TaskCoreConfig } from '../core/task-core.js';
import type {
  AssignedTask,
  EndpointState,
  Outcome,
  PublishedTask,
  RuntimeKind,
  TaskAction,
  TaskInput,
  TaskReady,
} from '../core/task-input.js';
import { FreePorts } from './free-ports.js';
import { TaskJournal } from './task-journal.js';

/** The part of pino's Logger that runtimes use. */
export interface RuntimeLogger {
  debug(detail: object, message: string): void;
  info(detail: object, message: string): void;
  warn(detail: object, message: string): void;
}

/** How a task gets its interfaces, and how the others are told of them. */
export interface TaskNetworks {
  /** The task's interfaces are in the namespace, with their addresses; doing it twice is harmless. */
  wire(task: TaskObject, netns: string, endpoint: EndpointState): Promise<void>;
  /** The others are told at once that there are none; links may follow. */
  unwire(id: TaskId): void;
  /** The others are told that it takes work; resolves when they know, or should. */
  announce(id: TaskId): Promise<void>;
  /** The others are told to give it no new work; resolves when they know, or should. */
  drain(id: TaskId): Promise<void>;
}

export interface TaskReport {
  readonly taskId: TaskId;
  readonly status: TaskStatus;
}

export interface WorkerConfig extends TaskCoreConfig {
  /** File of what the next agent is to know. */
  readonly journalPath: string;
}

export const WORKER_CONFIG: TaskCoreConfig = {
  preparesMax: 8,
  prepareSlotMs: 10_000,
  silenceMs: 10_000,
};

export interface WorkerDependencies {
  readonly runtimes: readonly Runtime[];
  readonly networks: TaskNetworks;
  readonly log: RuntimeLogger;
  /** As it is to be run: templates filled in. @throws Error if it never can be; its message is told. */
  runtimeTask(task: TaskObject): RuntimeTask;
  report(reports: readonly TaskReport[]): void;
  /** Opens ports of the node itself; `undefined`: closes those of that task. */
  publish?(id: TaskId, published: PublishedTask | undefined): void;
}

/** After a runtime did not say what it has. */
const LIST_RETRY_MS = 2000;
/** How often a runtime is asked whether an event was missed. */
const LIST_INTERVAL_MS = 60_000;
/** Lists in a row that something came in between of. */
const LIST_ATTEMPTS_MAX = 4;
const FORGET_POLL_MS = 20;

/**
 * Does for the tasks of this node what `TaskCore` decides, with the runtimes that there are; what comes
 * of it goes back to the core, to the managers, and into the journal.
 */
export class TaskWorker {
  readonly #deps: WorkerDependencies;
  readonly #runtimes: ReadonlyMap<RuntimeKind, Runtime>;
  readonly #core: TaskCore;
  readonly #driver: CoreDriver<Exclude<TaskInput, { kind: 'timeout' }>, TaskReady>;
  readonly #journal: TaskJournal;
  readonly #statuses = new Map<TaskId, TaskStatus>();
  /** Preparations under way, by their action. */
  readonly #preparing = new Map<number, AbortController>();
  readonly #unsubscribe: (() => void)[] = [];
  readonly #closing = new AbortController();
  /** Raised with everything that happens in a runtime, so that an old list is not taken for a new one. */
  readonly #activity = new Map<RuntimeKind, number>();
  /** Tasks whose ports are open: which, and in which namespace. */
  readonly #published = new Map<TaskId, string>();
  readonly #freePorts = new FreePorts();
  #reports = 0;

  private constructor(config: WorkerConfig, dependencies: WorkerDependencies) {
    this.#deps = dependencies;
    const { runtimes, log } = dependencies;
    this.#runtimes = new Map(runtimes.map((runtime) => [runtime.kind, runtime]));
    this.#journal = new TaskJournal(config.journalPath, this.#statuses, log);
    const remembered = this.#journal.read();
    for (const [id, status] of remembered) this.#statuses.set(id, status);
    this.#core = new TaskCore(config, remembered);
    this.#driver = new CoreDriver(this.#core, (ready) => this.#perform(ready));
  }

  /** Finds the tasks of an agent before this one, which may take a runtime that does not answer a while. */
  static open(config: WorkerConfig, dependencies: WorkerDependencies): TaskWorker {
    const worker = new TaskWorker(config, dependencies);
    worker.#driver.start();
    for (const runtime of dependencies.runtimes) {
      worker.#unsubscribe.push(runtime.onEvent((event) => worker.#onEvent(runtime.kind, event)));
      void worker.#keepListing(runtime);
    }
    return worker;
  }

  /** All tasks of this node; see `TaskInput` for `isConfirmed`. */
  assign(tasks: readonly AssignedTask[], isConfirmed: boolean): void {
    this.#driver.input({ kind: 'assignments', tasks, isConfirmed });
  }

  /** Whether a manager that can change something is heard. */
  setManagersHeard(isHeard: boolean): void {
    this.#driver.input({ kind: 'managers', isHeard });
  }

  /** Managers have these states of these tasks for good. */
  acknowledged(reports: readonly TaskReport[]): void {
    const ids = reports.flatMap(({ taskId, status }) =>
      this.#statuses.get(taskId)?.state === status.state ? [taskId] : [],
    );
    if (ids.length > 0) this.#driver.input({ kind: 'acknowledged', ids });
  }

  /** @throws RuntimeError RUNTIME_NOT_FOUND; also while reading. */
  async *logs(id: TaskId, query: LogQuery, signal: AbortSignal): AsyncGenerator<LogRecord> {
    for (const runtime of this.#runtimes.values()) {
      const known = await runtime.list();
      if (!known.some((task) => task.id === id)) continue;
      yield* runtime.logs(id, query, signal);
      return;
    }
    throw new RuntimeError({ code: 'RUNTIME_NOT_FOUND' }, `this node has no log of task ${id}`);
  }

  status(id: TaskId): TaskStatus | undefined {
    return this.#statuses.get(id);
  }

  stats(): { readonly tasks: ReadonlyMap<TaskState, number>; readonly reports: number } {
    return { tasks: this.#core.countByState(), reports: this.#reports };
  }

  /** Lets go of everything but the tasks, which go on; the runtimes are their owner's to close. */
  async close(): Promise<void> {
    this.#stop();
    this.#journal.flush();
  }

  /** Ends and removes all tasks, for this node leaves its swarm; what does not end in time is killed. */
  async leave(timeoutMs: number): Promise<void> {
    this.assign([], true);
    const end = AbortSignal.timeout(timeoutMs);
    while (!end.aborted && this.#core.size > 0) await delay(FORGET_POLL_MS);
    this.#stop();
    for (const runtime of this.#runtimes.values()) {
      const left = await runtime.list().catch(() => []);
      await Promise.allSettled(left.map(({ id }) => runtime.remove(id)));
    }
    this.#journal.remove();
  }

  #stop(): void {
    this.#driver.stop();
    this.#closing.abort();
    for (const end of this.#unsubscribe) end();
    for (const controller of this.#preparing.values()) controller.abort();
  }

  async #keepListing(runtime: Runtime): Promise<void> {
    const { signal } = this.#closing;
    while (!signal.aborted) {
      const isTold = await this.#list(runtime);
      const waitMs = isTold ? LIST_INTERVAL_MS : LIST_RETRY_MS;
      await delay(waitMs, undefined, { signal, ref: false }).catch(() => undefined);
    }
  }

  /** @returns Whether the core was told what the runtime has. */
  async #list(runtime: Runtime): Promise<boolean> {
    const { kind } = runtime;
    try {
      for (let attempt = 0; attempt < LIST_ATTEMPTS_MAX; attempt += 1) {
        const before = this.#activity.get(kind);
        const tasks = await runtime.list();
        // Something began or ended meanwhile: the list may be from before that.
        if (this.#activity.get(kind) !== before) continue;
        this.#driver.input({ kind: 'found', runtime: kind, tasks: tasks.map(withCause) });
        return true;
      }
      return false;
    } catch (error) {
      const { message } = error as Error;
      this.#deps.log.warn({ runtime: kind, error: message }, 'a runtime does not say what it has');
      return false;
    }
  }

  #onEvent(kind: RuntimeKind, event: RuntimeEvent): void {
    this.#touch(kind);
    switch (event.kind) {
      case 'exited': {
        const { id, exitCode, error } = withCause(event);
        this.#driver.input({
          kind: 'exited',
          id,
          exitCode,
          ...(error !== undefined && { error }),
        });
        return;
      }
      case 'health': {
        const { id, health, output } = event;
        if (health === 'unhealthy')
          this.#deps.log.info({ task: id, output }, 'a task is unhealthy');
        this.#driver.input({ kind: 'health', id, health });
        return;
      }
      default:
        unreachable(event);
    }
  }

  #touch(kind: RuntimeKind): void {
    this.#activity.set(kind, (this.#activity.get(kind) ?? 0) + 1);
  }

  /** In the order that `TaskReady` states. */
  #perform({ actions, reports, forgotten }: TaskReady): void {
    for (const action of actions) this.#do(action);
    this.#publish();
    const changed = new Map<TaskId, TaskStatus>();
    for (const { id, status } of reports) {
      const { atMs, ...before } = this.#statuses.get(id) ?? { atMs: 0 };
      if (isDeepStrictEqual(before, status)) continue;
      const stamped = { ...status, atMs: Date.now() };
      this.#statuses.set(id, stamped);
      changed.set(id, stamped);
    }
    for (const id of forgotten) this.#statuses.delete(id);
    if (changed.size > 0 || forgotten.length > 0) this.#journal.touch();
    if (changed.size === 0) return;
    this.#reports += changed.size;
    this.#deps.report([...changed].map(([taskId, status]) => ({ taskId, status })));
  }

  #publish(): void {
    const { publish } = this.#deps;
    if (publish === undefined) return;
    const now = new Map(this.#core.published().map((one) => [one.task.id, one]));
    for (const id of this.#published.keys()) {
      if (now.has(id)) continue;
      this.#published.delete(id);
      publish(id, undefined);
    }
    for (const [id, one] of now) {
      const ports = one.ports.map(({ protocol, publishedPort }) => `${protocol}/${publishedPort}`);
      const place = [one.netns, ...ports].join(' ');
      if (this.#published.get(id) === place) continue;
      this.#published.set(id, place);
      publish(id, one);
    }
  }

  #do(action: TaskAction): void {
    const { networks } = this.#deps;
    switch (action.kind) {
      case 'unwire':
        networks.unwire(action.id);
        return;
      case 'cancel':
        this.#preparing.get(action.action)?.abort();
        return;
      default:
        void this.#answer(action);
    }
  }

  async #answer(action: Exclude<TaskAction, { readonly kind: 'unwire' | 'cancel' }>) {
    const { id, kind, runtime } = action;
    let outcome: Outcome;
    this.#touch(runtime);
    try {
      outcome = await this.#outcome(action);
    } catch (error) {
      outcome = failure(error);
      const detail = { task: id, action: kind, error: (error as Error).message };
      if (!this.#closing.signal.aborted) this.#deps.log.warn(detail, 'a task has a problem');
    }
    this.#preparing.delete(action.action);
    this.#touch(runtime);
    this.#driver.input({ kind: 'done', id, action: action.action, outcome });
  }

  async #outcome(
    action: Exclude<TaskAction, { readonly kind: 'unwire' | 'cancel' }>,
  ): Promise<Outcome> {
    const { networks } = this.#deps;
    const runtime = this.#runtimes.get(action.runtime);
    if (runtime === undefined) return { kind: 'failed', error: 'its runtime is not here' };
    switch (action.kind) {
      case 'prepare': {
        const controller = new AbortController();
        this.#preparing.set(action.action, controller);
        const task = this.#deps.runtimeTask(action.task);
        const { containerId, netns } = await runtime.prepare(task, controller.signal);
        return { kind: 'prepared', containerId, ...(netns !== undefined && { netns }) };
      }
      case 'wire':
        await networks.wire(action.task, action.netns, action.endpoint);
        return { kind: 'done' };
      case 'start': {
        const { containerId, pid, health } = await runtime.start(action.id);
        return { kind: 'started', containerId, pid, health };
      }
      case 'choose': {
        const ports = action.ports.map(async (port) => ({
          ...port,
          publishedPort: await this.#freePorts.take(port.protocol, action.taken),
        }));
        return { kind: 'chosen', ports: await Promise.all(ports) };
      }
      case 'announce':
        await networks.announce(action.id);
        return { kind: 'done' };
      case 'drain':
        await networks.drain(action.id);
        return { kind: 'done' };
      case 'stop': {
        const { id, signal, graceMs } = action;
        await runtime.stop(id, { graceMs, ...(signal !== undefined && { signal }) });
        return { kind: 'done' };
      }
      case 'remove':
        await runtime.remove(action.id);
        return { kind: 'done' };
      default:
        return unreachable(action);
    }
  }
}

/** Why it was killed, where the runtime says it apart. */
function withCause<Ended extends { readonly error?: string; readonly oomKilled?: boolean }>(
  ended: Ended,
): Ended {
  if (ended.oomKilled !== true || ended.error !== undefined) return ended;
  return { ...ended, error: 'out of memory' };
}

function failure(error: unknown): Outcome {
  const { message } = error as Error;
  if (!(error instanceof RuntimeError)) return { kind: 'failed', error: message };
  const { detail } = error;
  const exitCode = detail.code === 'RUNTIME_FAILED' ? detail.exitCode : undefined;
  return {
    kind: 'failed',
    error: message,
    ...(exitCode !== undefined && { exitCode }),
    ...(detail.code === 'RUNTIME_NOT_FOUND' && { isGone: true }),
  };
}
