import type { TaskId } from '../../../base/swarm-model.js';
import type { KnownTask, PreparedTask, RunningTask } from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import type { TaskRecord } from '../core/task-record.js';
import { killProcess } from './process.js';
import type { ProcessId } from './shim.js';
import type { Exit, Start, TaskFolder } from './task-folder.js';

const EXIT_KILLED = 137;
/** How long a supervisor may take to let the command run. */
const START_MS_MAX = 30_000;

interface HostTaskListener {
  onExit(task: HostTask, exit: Exit): void;
}

/** A task with its supervisor, as this agent sees it: what is true of it is in its folder. */
export class HostTask {
  readonly record: TaskRecord;
  readonly folder: TaskFolder;
  readonly #supervisor: ProcessId;
  readonly #listener: HostTaskListener;
  readonly #changes = new Set<() => void>();
  readonly #unwatch: () => void;
  #start: Start | undefined;
  #exit: Exit | undefined;
  #isGone = false;
  #isClosed = false;

  constructor(
    record: TaskRecord,
    folder: TaskFolder,
    supervisor: ProcessId,
    listener: HostTaskListener,
  ) {
    this.record = record;
    this.folder = folder;
    this.#supervisor = supervisor;
    this.#listener = listener;
    this.#unwatch = folder.watch(
      () => this.#look(),
      () => this.#onGone(),
    );
    this.#start = folder.start();
    this.#exit = folder.exit();
  }

  get id(): TaskId {
    return this.record.id;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** How the last run ended; `undefined` before the first, and while one runs. */
  get exit(): Exit | undefined {
    const exit = this.#exit;
    return exit !== undefined && exit.run >= (this.#start?.run ?? 0) ? exit : undefined;
  }

  /** The run that goes on now. */
  get running(): Start | undefined {
    return this.exit === undefined ? this.#start : undefined;
  }

  get prepared(): PreparedTask {
    const { containerId, network } = this.record;
    if (network === 'host') return { containerId };
    return { containerId, netns: `/proc/${this.#supervisor.pid}/ns/net` };
  }

  known(): KnownTask {
    const { exit, running } = this;
    return {
      id: this.id,
      ...this.prepared,
      state: exit !== undefined ? 'exited' : running !== undefined ? 'running' : 'prepared',
      pid: running?.first.pid ?? 0,
      ...(exit === undefined ? {} : { exitCode: exit.exitCode }),
      ...(exit?.error === undefined ? {} : { error: exit.error }),
      ...(exit?.oomKilled === true ? { oomKilled: true } : {}),
      health: 'none',
      ...(this.#start === undefined ? {} : { startedAtMs: this.#start.atMs }),
      labels: this.record.labels,
    };
  }

  /** Calls `listener` when something of the task has changed, until the returned function is called. */
  onChange(listener: () => void): () => void {
    this.#changes.add(listener);
    return () => this.#changes.delete(listener);
  }

  /**
   * Lets the command run, the first time or once more.
   *
   * @throws RuntimeError RUNTIME_FAILED
   */
  async start(): Promise<RunningTask> {
    if (this.running === undefined) await this.#startRun();
    const { running } = this;
    const { containerId } = this.record;
    if (running !== undefined) return { containerId, pid: running.first.pid, health: 'none' };
    const exit = this.#exit;
    // One that ended at once did start.
    if (exit !== undefined && exit.run === this.#start?.run) {
      return { containerId, pid: this.#start.first.pid, health: 'none' };
    }
    throw new RuntimeError(
      { code: 'RUNTIME_FAILED', ...(exit === undefined ? {} : { exitCode: exit.exitCode }) },
      exit === undefined ? 'the task did not start in time' : (exit.error ?? 'the task has ended'),
    );
  }

  async #startRun(): Promise<void> {
    // What both files say last is the last run: an agent before this one may have asked for it.
    const last = Math.max(this.#start?.run ?? 0, this.#exit?.run ?? 0);
    this.folder.order(`go ${last + 1}`);
    const isDone = () =>
      this.#isGone || (this.#start?.run ?? 0) > last || (this.#exit?.run ?? 0) > last;
    await this.#until(isDone, START_MS_MAX);
  }

  async stop(signal: number, graceMs: number): Promise<void> {
    const { running } = this;
    if (running === undefined) return;
    const isDone = () => this.running !== running;
    this.folder.order(`sig ${signal}`);
    await this.#until(isDone, graceMs);
    if (isDone()) return;
    this.folder.order('sig 9');
    await this.#until(isDone);
  }

  /** Resolves when the supervisor is gone, and with it all of the task but its folder. */
  async end(): Promise<void> {
    if (!this.#isGone) this.folder.order('end');
    await this.#until(() => this.#isGone);
  }

  /** Looks no more; the task goes on. */
  close(): void {
    this.#unwatch();
    this.#isClosed = true;
    this.#tell();
    this.#changes.clear();
  }

  #look(): void {
    this.#start = this.folder.start() ?? this.#start;
    const exit = this.folder.exit();
    if (exit !== undefined && exit.run > (this.#exit?.run ?? 0)) {
      this.#exit = exit;
      this.#listener.onExit(this, exit);
    }
    this.#tell();
  }

  #onGone(): void {
    this.#isGone = true;
    this.#look();
    const { running } = this;
    if (this.exit !== undefined) return;
    // The supervisor died without a word, of the machine's restart perhaps. Its task dies with it, but for a first
    // process that has shed the tie, as a set-user-id program does.
    if (running !== undefined) killProcess(running.first);
    const error = 'the supervisor of the task is gone';
    this.#exit = { run: running?.run ?? 1, exitCode: EXIT_KILLED, oomKilled: false, error };
    this.#listener.onExit(this, this.#exit);
    this.#tell();
  }

  #tell(): void {
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
