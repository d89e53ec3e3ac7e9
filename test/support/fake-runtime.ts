import type { Health } from '../../src/base/service-model.js';
import type { TaskId } from '../../src/base/swarm-model.js';
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
} from '../../src/runtime/core/runtime.js';
import { RuntimeError } from '../../src/runtime/core/runtime-error.js';

type Step = 'prepare' | 'start' | 'stop' | 'remove' | 'list';

interface FakeTask {
  readonly task: RuntimeTask;
  state: KnownTask['state'];
  pid: number;
  exitCode: number | undefined;
  health: Health;
}

/**
 * A runtime without processes: whatever it is told happens at once, and tests say what fails or hangs
 * and when a task ends. It outlives the worker that uses it, as real tasks do.
 */
export class FakeRuntime implements Runtime {
  readonly kind: 'host' | 'engine';
  readonly tasks = new Map<TaskId, FakeTask>();
  /** What was asked of it, in order: `prepare web.1…`. */
  readonly calls: string[] = [];
  readonly #callers = new Set<() => void>();
  readonly #listeners = new Set<(event: RuntimeEvent) => void>();
  readonly #failures = new Map<Step, Error>();
  readonly #hanging = new Set<Step>();
  #pids = 100;

  constructor(kind: 'host' | 'engine' = 'host') {
    this.kind = kind;
  }

  /** From now on that step fails; `undefined`: it succeeds again. */
  fail(step: Step, error: Error | undefined): void {
    if (error === undefined) this.#failures.delete(step);
    else this.#failures.set(step, error);
  }

  /** From now on that step is never answered, but for `prepare` when it is given up. */
  hang(step: Step, isHanging = true): void {
    if (isHanging) this.#hanging.add(step);
    else this.#hanging.delete(step);
  }

  /** Resolves when that was asked of it, already or later. */
  called(call: string): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        if (!this.calls.includes(call)) return;
        this.#callers.delete(look);
        resolve();
      };
      this.#callers.add(look);
      look();
    });
  }

  exit(id: TaskId, exitCode: number, oomKilled = false): void {
    const known = this.tasks.get(id);
    if (known?.state !== 'running') return;
    Object.assign(known, { state: 'exited', pid: 0, exitCode });
    this.#emit({ kind: 'exited', id, exitCode, ...(oomKilled && { oomKilled }) });
  }

  setHealth(id: TaskId, health: Health): void {
    const known = this.tasks.get(id);
    if (known?.state !== 'running') return;
    known.health = health;
    this.#emit({ kind: 'health', id, health, output: '' });
  }

  running(): TaskId[] {
    return [...this.tasks].flatMap(([id, { state }]) => (state === 'running' ? [id] : []));
  }

  async describe(): Promise<RuntimeDescription> {
    return { name: 'fake', version: '1', plugins: [], labels: {} };
  }

  async prepare(task: RuntimeTask, signal: AbortSignal): Promise<PreparedTask> {
    await this.#step('prepare', task.id, signal);
    if (!this.tasks.has(task.id)) {
      const hasCheck = (task.container.health?.test?.length ?? 0) > 0;
      this.tasks.set(task.id, {
        task,
        state: 'prepared',
        pid: 0,
        exitCode: undefined,
        health: hasCheck ? 'starting' : 'none',
      });
    }
    return { containerId: `c-${task.id}`, ...netnsOf(task) };
  }

  async start(id: TaskId): Promise<RunningTask> {
    await this.#step('start', id);
    const known = this.#find(id);
    if (known.state === 'running') throw new Error(`${id} is started twice`);
    this.#pids += 1;
    Object.assign(known, { state: 'running', pid: this.#pids, exitCode: undefined });
    return { containerId: `c-${id}`, pid: known.pid, health: known.health };
  }

  async stop(id: TaskId): Promise<void> {
    await this.#step('stop', id);
    this.exit(id, 143);
  }

  async remove(id: TaskId): Promise<void> {
    await this.#step('remove', id);
    this.exit(id, 137);
    this.tasks.delete(id);
  }

  async list(): Promise<readonly KnownTask[]> {
    await this.#step('list');
    return [...this.tasks].map(([id, { task, state, pid, exitCode, health }]) => ({
      id,
      containerId: `c-${id}`,
      state,
      pid,
      ...netnsOf(task),
      ...(exitCode !== undefined && { exitCode }),
      health,
      labels: task.labels,
    }));
  }

  onEvent(listener: (event: RuntimeEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async *logs(id: TaskId, _query: LogQuery, _signal: AbortSignal): AsyncGenerator<LogRecord> {
    const { task } = this.#find(id);
    yield { stream: 'stdout', atNs: 1n, data: Buffer.from(`${task.name}\n`) };
  }

  async close(): Promise<void> {
    this.#listeners.clear();
  }

  #find(id: TaskId): FakeTask {
    const known = this.tasks.get(id);
    if (known !== undefined) return known;
    throw new RuntimeError({ code: 'RUNTIME_NOT_FOUND' }, `no such task: ${id}`);
  }

  async #step(step: Step, id?: TaskId, signal?: AbortSignal): Promise<void> {
    this.calls.push(id === undefined ? step : `${step} ${id}`);
    for (const look of this.#callers) look();
    const failure = this.#failures.get(step);
    if (failure !== undefined) throw failure;
    if (!this.#hanging.has(step)) return;
    await new Promise<void>((_, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason as Error));
    });
  }

  #emit(event: RuntimeEvent): void {
    for (const listener of this.#listeners) listener(event);
  }
}

function netnsOf({ id, network }: RuntimeTask): { readonly netns?: string } {
  return network === 'host' ? {} : { netns: `/run/fake/${id}` };
}
