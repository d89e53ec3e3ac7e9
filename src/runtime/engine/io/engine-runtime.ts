import { z } from 'zod';
import type { Health } from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import type {
  KnownTask,
  LogQuery,
  LogRecord,
  PreparedTask,
  RunningTask,
  Runtime,
  RuntimeDescription,
  RuntimeEvent,
  RuntimeTask,
} from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import {
  containerJson,
  OWNER_LABEL,
  SANDBOX_LABEL,
  sandboxJson,
  TASK_LABEL,
} from '../wire/container-json.js';
import {
  exitOf,
  healthOf,
  healthOutputOf,
  type Inspected,
  infoJson,
  inspectJson,
  knownTask,
  listJson,
  stateOf,
  taskOf,
  versionJson,
} from '../wire/inspect-json.js';
import { EngineClient, EngineError, WORK_MS_MAX } from './engine-client.js';
import { EngineEvents } from './engine-events.js';
import { readLog } from './engine-log.js';
import { Images, SANDBOX_IMAGE } from './images.js';
import { netnsOf, sandboxPid } from './sandbox-netns.js';
import { TaskFiles } from './task-files.js';

/** Containers that are looked at, at the same time, when all are. */
const INSPECTS_MAX = 16;
/** After SIGKILL: whatever has not ended by then hangs in the kernel. */
const KILL_MS_MAX = 30_000;

/** Of which actions a task's state may be another: not those of its health check's own commands. */
const CHANGES = /^(?:start|die|stop|kill|oom|destroy|pause|unpause|health_status.*)$/;

export interface EngineRuntimeConfig {
  readonly socketPath: string;
  /** Tells the containers of this agent from those of others that use the same engine. */
  readonly owner: string;
  /** Folder for secrets and configs, which the engine must see under the same name. */
  readonly filesDir: string;
  /** Images that are there are not asked for again. */
  readonly prefersLocalImages?: boolean;
}

/** The part of pino's Logger that the runtime uses. */
export interface EngineLogger {
  info(detail: object, message: string): void;
  warn(detail: object, message: string): void;
}

/** What was told of a task's present run. */
interface Told {
  /** When the run began, as the engine writes it. */
  startedAt: string;
  hasExited: boolean;
  health: Health;
}

const created = z.object({ Id: z.string() });
const waited = z.object({ StatusCode: z.number() });

/**
 * Tasks as containers of a Docker Engine. Each has a sandbox beside it: a container that holds the
 * network namespace and does nothing else, so that the namespace is wired up before the task's first
 * instruction, and stays when it is run again.
 */
export class EngineRuntime implements Runtime {
  readonly kind = 'engine';
  readonly #config: EngineRuntimeConfig;
  readonly #log: EngineLogger;
  readonly #client: EngineClient;
  readonly #images: Images;
  readonly #files: TaskFiles;
  readonly #events: EngineEvents;
  readonly #listeners = new Set<(event: RuntimeEvent) => void>();
  readonly #told = new Map<TaskId, Told>();
  /** Looks at one task follow each other, so that its events come in order. */
  readonly #turns = new Map<TaskId, Promise<void>>();

  constructor(config: EngineRuntimeConfig, log: EngineLogger) {
    this.#config = config;
    this.#log = log;
    this.#client = new EngineClient(config.socketPath);
    this.#images = new Images(this.#client, config.prefersLocalImages ?? false);
    this.#files = new TaskFiles(config.filesDir);
    this.#events = new EngineEvents(this.#client, {
      onConnected: () => this.#lookAtAll(),
      onEvent: ({ action, attributes }) => {
        const id = attributes[TASK_LABEL];
        if (id !== undefined && CHANGES.test(action)) void this.#look(id as TaskId);
      },
      onLost: (reason) => log.warn({ reason, socket: config.socketPath }, 'the engine is gone'),
    });
    this.#events.start({ [OWNER_LABEL]: config.owner });
  }

  async describe(): Promise<RuntimeDescription> {
    const [version, info] = await Promise.all([
      this.#client.call(versionJson, { path: '/version' }),
      this.#client.call(infoJson, { path: '/info' }),
    ]);
    const isPodman = version.Components?.some(({ Name }) => Name.startsWith('Podman')) ?? false;
    return {
      name: isPodman ? 'podman' : 'docker',
      version: version.Version,
      plugins: Object.entries(info.Plugins).flatMap(([type, names]) =>
        (names ?? []).map((name) => ({ type, name })),
      ),
      labels: Object.fromEntries(
        info.Labels.map((label) => {
          const equals = label.indexOf('=');
          return equals < 0 ? [label, ''] : [label.slice(0, equals), label.slice(equals + 1)];
        }),
      ),
      engineSocket: this.#config.socketPath,
    };
  }

  async prepare(task: RuntimeTask, signal: AbortSignal): Promise<PreparedTask> {
    return asRuntimeError(async () => {
      signal.throwIfAborted();
      const existing = await this.#container(TASK_LABEL, task.id);
      if (existing === undefined) await this.#images.ensure(task, signal);
      const sandbox = task.network === 'host' ? undefined : await this.#sandbox(task, signal);
      const files = existing === undefined ? await this.#files.write(task) : [];
      signal.throwIfAborted();
      const containerId =
        existing ??
        (await this.#create(
          task.name,
          containerJson(task, this.#config.owner, sandbox?.id, files),
          signal,
        ));
      return { containerId, ...(sandbox === undefined ? {} : { netns: sandbox.netns }) };
    });
  }

  async start(id: TaskId): Promise<RunningTask> {
    // In turn with the looks: a start that fails is told by its error alone.
    const started = await this.#inTurn(id, () => asRuntimeError(() => this.#start(id)));
    void this.#look(id);
    return started;
  }

  async stop(
    id: TaskId,
    how: { readonly signal?: string; readonly graceMs: number },
  ): Promise<void> {
    await asRuntimeError(async () => {
      const containerId = await this.#container(TASK_LABEL, id);
      if (containerId === undefined) return;
      const { Config: config, State: state } = await this.#inspect(containerId);
      if (state.Running) {
        await this.#kill(containerId, how.signal ?? config.StopSignal ?? 'SIGTERM');
        if (!(await this.#hasEnded(containerId, how.graceMs))) {
          await this.#kill(containerId, 'SIGKILL');
          if (!(await this.#hasEnded(containerId, KILL_MS_MAX)))
            throw new EngineError(0, 'the container does not end, though it was killed');
        }
      }
      await this.#look(id);
    });
  }

  async remove(id: TaskId): Promise<void> {
    await asRuntimeError(async () => {
      for (const label of [TASK_LABEL, SANDBOX_LABEL]) {
        for (const containerId of await this.#containers(label, id))
          await this.#delete(containerId);
      }
      await this.#files.remove(id);
      this.#told.delete(id);
    });
  }

  async list(): Promise<readonly KnownTask[]> {
    return asRuntimeError(async () => {
      const containers = await this.#client.call(listJson, {
        path: '/containers/json',
        query: { all: '1', filters: this.#filters() },
      });
      const sandboxes = new Map<string, string>();
      const tasks = new Map<TaskId, string>();
      for (const { Id, Labels: labels } of containers) {
        const id = taskOf(labels);
        if (id === undefined) continue;
        if (labels[TASK_LABEL] === undefined) sandboxes.set(id, Id);
        else tasks.set(id, Id);
      }
      const known = await mapped([...tasks], INSPECTS_MAX, async ([id, containerId]) => {
        const inspected = await this.#inspect(containerId).catch(ifThere);
        if (inspected === undefined) return [];
        const state = stateOf(inspected);
        // Whoever asks knows it from now on, and is told what comes after.
        if (state !== 'prepared') {
          this.#tell(id, inspected, state === 'exited').health = healthOf(inspected);
        }
        const sandbox = sandboxes.get(id);
        const netns = sandbox === undefined ? undefined : await this.#netnsOf(sandbox, id);
        return [knownTask(inspected, id, netns)];
      });
      // Of a task that was never made whole: its owner has to know it, to have it removed.
      const halves = [...sandboxes].filter(([id]) => !tasks.has(id as TaskId));
      const rests = halves.map(([id, containerId]) => restOf(id as TaskId, containerId));
      return [...known.flat(), ...rests];
    });
  }

  onEvent(listener: (event: RuntimeEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async *logs(id: TaskId, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord> {
    const containerId = await asRuntimeError(() => this.#mustFind(id));
    const { Config: config } = await asRuntimeError(() => this.#inspect(containerId));
    const container = { id: containerId, isTerminal: config.Tty };
    try {
      yield* readLog(this.#client, container, query, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof EngineError) throw asRuntime(error);
      throw failed(`the log of the task broke off: ${(error as Error).message}`);
    }
  }

  async close(): Promise<void> {
    this.#events.close();
    this.#client.close();
    await Promise.all(this.#turns.values());
  }

  async #start(id: TaskId): Promise<RunningTask> {
    const containerId = await this.#mustFind(id);
    try {
      await this.#client.act({
        method: 'POST',
        path: `/containers/${containerId}/start`,
        msMax: WORK_MS_MAX,
      });
    } catch (error) {
      const inspected = await this.#inspect(containerId).catch(() => undefined);
      if (inspected !== undefined) this.#tell(id, inspected, true);
      throw failedStart(error, inspected);
    }
    const inspected = await this.#inspect(containerId);
    const health = healthOf(inspected);
    // Told by the answer: the first event is a change of it.
    this.#tell(id, inspected, false).health = health;
    return { containerId, pid: inspected.State.Pid, health };
  }

  /** Makes and starts the sandbox of a task, or finds it. */
  async #sandbox(
    task: RuntimeTask,
    signal: AbortSignal,
  ): Promise<{ readonly id: string; readonly netns: string }> {
    await this.#images.ensureSandbox();
    const id =
      (await this.#container(SANDBOX_LABEL, task.id)) ??
      (await this.#create(
        `shoal-sandbox.${task.id}`,
        sandboxJson(task, this.#config.owner, SANDBOX_IMAGE),
        signal,
      ));
    await this.#client.act({
      method: 'POST',
      path: `/containers/${id}/start`,
      msMax: WORK_MS_MAX,
      signal,
    });
    const netns = await this.#netnsOf(id, task.id);
    if (netns !== undefined) return { id, netns };
    throw failed(
      'the network namespace of the sandbox is not seen on this host: the engine must run in the same PID namespace as the agent',
    );
  }

  async #netnsOf(sandboxId: string, taskId: string): Promise<string | undefined> {
    const pid = await sandboxPid(this.#client, sandboxId, taskId);
    return pid === undefined ? undefined : netnsOf(pid);
  }

  async #create(name: string, json: unknown, signal: AbortSignal): Promise<string> {
    const { Id } = await this.#client.call(created, {
      method: 'POST',
      path: '/containers/create',
      query: { name },
      json,
      msMax: WORK_MS_MAX,
      signal,
    });
    return Id;
  }

  async #kill(containerId: string, signal: string): Promise<void> {
    try {
      const query = { signal };
      await this.#client.act({ method: 'POST', path: `/containers/${containerId}/kill`, query });
    } catch (error) {
      // Ended in between: 409 of Docker, 404 when it was removed as well.
      if (!(error instanceof EngineError && [404, 409, 500].includes(error.status))) throw error;
      const state = await this.#inspect(containerId).catch(ifThere);
      if (state?.State.Running === true) throw error;
    }
  }

  async #hasEnded(containerId: string, withinMs: number): Promise<boolean> {
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), withinMs);
    try {
      await this.#client.call(waited, {
        method: 'POST',
        path: `/containers/${containerId}/wait`,
        query: { condition: 'not-running' },
        msMax: withinMs + KILL_MS_MAX,
        signal: limit.signal,
      });
      return true;
    } catch (error) {
      if (error instanceof EngineError && error.status === 404) return true;
      if (limit.signal.aborted) return false;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  async #delete(containerId: string): Promise<void> {
    try {
      await this.#client.act({
        method: 'DELETE',
        path: `/containers/${containerId}`,
        query: { force: '1', v: '1' },
        msMax: WORK_MS_MAX,
      });
    } catch (error) {
      if (!(error instanceof EngineError) || ![404, 409].includes(error.status)) throw error;
      // 409: somebody else removes it already, and it is gone soon.
      if (error.status === 409) await this.#isRemoved(containerId);
    }
  }

  async #isRemoved(containerId: string): Promise<void> {
    await this.#client
      .call(waited, {
        method: 'POST',
        path: `/containers/${containerId}/wait`,
        query: { condition: 'removed' },
      })
      .catch(ifThere);
  }

  #filters(label?: string): string {
    const labels = [
      `${OWNER_LABEL}=${this.#config.owner}`,
      ...(label === undefined ? [] : [label]),
    ];
    return JSON.stringify({ label: labels });
  }

  async #containers(label: string, id: string): Promise<string[]> {
    const found = await this.#client.call(listJson, {
      path: '/containers/json',
      query: { all: '1', filters: this.#filters(`${label}=${id}`) },
    });
    return found.map(({ Id }) => Id);
  }

  async #container(label: string, id: string): Promise<string | undefined> {
    return (await this.#containers(label, id))[0];
  }

  async #mustFind(id: TaskId): Promise<string> {
    const containerId = await this.#container(TASK_LABEL, id);
    if (containerId !== undefined) return containerId;
    throw new RuntimeError({ code: 'RUNTIME_NOT_FOUND' }, `task ${id} has no container here`);
  }

  #inspect(containerId: string): Promise<Inspected> {
    return this.#client.call(inspectJson, { path: `/containers/${containerId}/json` });
  }

  /** After the engine was away: whatever has happened in between is told now. */
  #lookAtAll(): void {
    for (const id of this.#told.keys()) void this.#look(id);
  }

  /** Tells what has changed about a task since it was told last. */
  #look(id: TaskId): Promise<void> {
    return this.#inTurn(id, () => this.#compare(id)).catch((error: Error) => {
      this.#log.warn({ task: id, error: error.message }, 'a task could not be looked at');
    });
  }

  #inTurn<Result>(id: TaskId, work: () => Promise<Result>): Promise<Result> {
    const before = this.#turns.get(id) ?? Promise.resolve();
    const result = before.then(work);
    const turn = result.then(
      () => undefined,
      () => undefined,
    );
    this.#turns.set(id, turn);
    void turn.then(() => {
      if (this.#turns.get(id) === turn) this.#turns.delete(id);
    });
    return result;
  }

  async #compare(id: TaskId): Promise<void> {
    const containerId = await this.#container(TASK_LABEL, id);
    const inspected =
      containerId === undefined ? undefined : await this.#inspect(containerId).catch(ifThere);
    if (inspected === undefined) {
      const told = this.#told.get(id);
      if (told === undefined || told.hasExited) return;
      told.hasExited = true;
      this.#emit({ kind: 'exited', id, exitCode: 137, error: 'the container was removed' });
      return;
    }
    const state = stateOf(inspected);
    if (state === 'prepared') return;
    const told = this.#tell(id, inspected, false);
    const health = healthOf(inspected);
    if (state === 'running' && health !== told.health) {
      told.health = health;
      this.#emit({ kind: 'health', id, health, output: healthOutputOf(inspected) });
    }
    if (state === 'exited' && !told.hasExited) {
      told.hasExited = true;
      this.#emit({ kind: 'exited', id, ...exitOf(inspected) });
    }
  }

  /** @returns What was told of the run that `inspected` shows; of a new one nothing but `hasExited`. */
  #tell(id: TaskId, { State: { StartedAt: startedAt } }: Inspected, hasExited: boolean): Told {
    const before = this.#told.get(id);
    if (before?.startedAt === startedAt) {
      before.hasExited ||= hasExited;
      return before;
    }
    const told: Told = { startedAt, hasExited, health: 'none' };
    this.#told.set(id, told);
    return told;
  }

  #emit(event: RuntimeEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

const failed = (message: string, exitCode?: number) =>
  new RuntimeError(
    { code: 'RUNTIME_FAILED', ...(exitCode === undefined ? {} : { exitCode }) },
    message,
  );

/** `undefined` instead of a container that is gone. */
function ifThere(error: unknown): undefined {
  if (error instanceof EngineError && error.status === 404) return undefined;
  throw error;
}

function failedStart(error: unknown, inspected: Inspected | undefined): Error {
  if (!(error instanceof EngineError)) return error as Error;
  const exitCode = inspected?.State.ExitCode ?? 0;
  return failed(error.message, exitCode === 0 ? undefined : exitCode);
}

/** What the engine says no to for good is rejected; all else may go well another time. */
async function asRuntimeError<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof EngineError ? asRuntime(error) : error;
  }
}

function asRuntime(error: EngineError): RuntimeError {
  const code = error.status === 400 ? 'RUNTIME_REJECTED' : 'RUNTIME_FAILED';
  return new RuntimeError({ code }, error.message, { cause: error });
}

const restOf = (id: TaskId, containerId: string): KnownTask => ({
  id,
  containerId,
  state: 'exited',
  pid: 0,
  error: 'the task was never made whole',
  health: 'none',
  labels: {},
});

/** As `Promise.all` of a map, with so many at a time. */
async function mapped<Item, Result>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item) => Promise<Result>,
): Promise<Result[]> {
  const results: Result[] = [];
  let next = 0;
  const worker = async () => {
    while (next < items.length) {
      const at = next;
      next += 1;
      results[at] = await work(items[at] as Item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker));
  return results;
}
