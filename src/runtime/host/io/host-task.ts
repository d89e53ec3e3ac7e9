import type { TaskId } from '../../../base/swarm-model.js';
import type { KnownTask, PreparedTask } from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import type { TaskRecord } from '../core/task-record.js';
import { killProcess } from './process.js';
import type { FirstProcess } from './shim.js';
import type { Exit, TaskFolder } from './task-folder.js';

const EXIT_KILLED = 137;
/** How long a supervisor may take to let a prepared task go. */
const START_MS_MAX = 30_000;

interface HostTaskListener {
  onExit(task: HostTask): void;
}

/** A task with its supervisor, as this agent sees it: what is true of it is in its folder. */
export class HostTask {
  readonly record: TaskRecord;
  readonly folder: TaskFolder;
  readonly first: FirstProcess;
  readonly #listener: HostTaskListener;
  readonly #changes = new Set<() => void>();
  readonly #unwatch: () => void;
  #startedAtMs: number | undefined;
  #exit: Exit | undefined;
  #isGone = false;

  constructor(
    record: TaskRecord,
    folder: TaskFolder,
    first: FirstProcess,
    listener: HostTaskListener,
  ) {
    this.record = record;
    this.folder = folder;
    this.first = first;
    this.#listener = listener;
    this.#startedAtMs = folder.startedAtMs();
    this.#exit = folder.exit();
    this.#unwatch = folder.watch(
      () => this.#look(),
      () => this.#onGone(),
    );
  }

  get id(): TaskId {
    return this.record.id;
  }

  get exit(): Exit | undefined {
    return this.#exit;
  }

  get prepared(): PreparedTask {
    const { containerId, network } = this.record;
    if (network === 'host') return { containerId };
    return { containerId, netns: `/proc/${this.first.pid}/ns/net` };
  }

  known(): KnownTask {
    const exit = this.#exit;
    return {
      id: this.id,
      ...this.prepared,
      state:
        exit !== undefined ? 'exited' : this.#startedAtMs !== undefined ? 'running' : 'prepared',
      pid: exit === undefined ? this.first.pid : 0,
      ...(exit === undefined ? {} : { exitCode: exit.exitCode }),
      ...(exit?.error === undefined ? {} : { error: exit.error }),
      ...(exit?.oomKilled === true ? { oomKilled: true } : {}),
      health: 'none',
      ...(this.#startedAtMs === undefined ? {} : { startedAtMs: this.#startedAtMs }),
      labels: this.record.labels,
    };
  }

  /** Calls `listener` when something of the task has changed, until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#changes.add(listener);
    return () => this.#changes.delete(listener);
  }

  /** @throws RuntimeError RUNTIME_FAILED */
  async start(): Promise<void> {
    if (this.#startedAtMs === undefined && this.#exit === undefined) this.folder.order('go');
    await this.#until(
      () => this.#startedAtMs !== undefined || this.#exit !== undefined,
      START_MS_MAX,
    );
    const exit = this.#exit;
    if (exit?.error === undefined && this.#startedAtMs !== undefined) return;
    throw new RuntimeError(
      { code: 'RUNTIME_FAILED', ...(exit === undefined ? {} : { exitCode: exit.exitCode }) },
      exit === undefined ? 'the task did not start in time' : (exit.error ?? 'the task has ended'),
    );
  }

  async stop(signal: number, graceMs: number): Promise<void> {
    this.folder.order(`sig ${signal}`);
    await this.#until(() => this.#exit !== undefined, graceMs);
    if (this.#exit === undefined) await this.kill();
  }

  /** Resolves when the supervisor is gone, and with it all of the task. */
  async kill(): Promise<void> {
    if (!this.#isGone) this.folder.order('kill');
    await this.#until(() => this.#isGone);
  }

  /** Looks no more; the task goes on. */
  close(): void {
    this.#unwatch();
    this.#changes.clear();
  }

  #look(): void {
    this.#startedAtMs ??= this.folder.startedAtMs();
    if (this.#exit === undefined) {
      this.#exit = this.folder.exit();
      if (this.#exit !== undefined) this.#listener.onExit(this);
    }
    for (const change of [...this.#changes]) change();
  }

  #onGone(): void {
    this.#isGone = true;
    this.#look();
    if (this.#exit === undefined) {
      // The supervisor died without a word, of the machine's restart perhaps. Its task dies with it, but for
      // a first process that has shed the tie, as a set-user-id program does.
      killProcess(this.first);
      this.#exit = {
        exitCode: EXIT_KILLED,
        oomKilled: false,
        error: 'the supervisor of the task is gone',
      };
      this.#listener.onExit(this);
    }
    for (const change of [...this.#changes]) change();
  }

  async #until(isDone: () => boolean, limitMs?: number): Promise<void> {
    if (isDone()) return;
    await new Promise<void>((resolve) => {
      const timer = limitMs === undefined ? undefined : setTimeout(end, limitMs);
      const stop = this.onChange(() => {
        if (isDone()) end();
      });
      function end() {
        clearTimeout(timer);
        stop();
        resolve();
      }
    });
  }
}
