import type { Health } from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import { type HealthState, hasHealthCheck } from '../../core/health.js';
import type {
  ExecProcess,
  ExecSpec,
  ExecStreams,
  KnownTask,
  PreparedTask,
  RunningTask,
} from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import type { TaskRecord } from '../core/task-record.js';
import { runExec } from './exec.js';
import { HealthChecker } from './health-checker.js';
import { killProcess } from './process.js';
import type { ProcessId, Shim } from './shim.js';
import type { Exit, Start, TaskFolder } from './task-folder.js';

const EXIT_KILLED = 137;
const HEALTH_FILE = 'health.json';
/** How long a supervisor may take to let the command run. */
const START_MS_MAX = 30_000;

interface HostTaskListener {
  onExit(task: HostTask, exit: Exit): void;
  onHealth(task: HostTask, health: Health, output: string): void;
}

/** The health of one run, kept beside it. */
interface HealthFile extends HealthState {
  readonly run: number;
}

/** A task with its supervisor, as this agent sees it: what is true of it is in its folder. */
export class HostTask {
  readonly record: TaskRecord;
  readonly folder: TaskFolder;
  readonly #shim: Shim;
  readonly #supervisor: ProcessId;
  readonly #listener: HostTaskListener;
  readonly #changes = new Set<() => void>();
  readonly #unwatch: () => void;
  #start: Start | undefined;
  #exit: Exit | undefined;
  #health: { readonly run: number; readonly checker: HealthChecker } | undefined;
  #isGone = false;
  #isClosed = false;

  constructor(
    shim: Shim,
    record: TaskRecord,
    folder: TaskFolder,
    supervisor: ProcessId,
    listener: HostTaskListener,
  ) {
    this.#shim = shim;
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
    this.#checkHealth();
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

  get health(): Health {
    if (!hasHealthCheck(this.record.health)) return 'none';
    return this.#health?.checker.state.health ?? 'starting';
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
      health: this.health,
      ...(this.#start === undefined ? {} : { startedAtMs: this.#start.atMs }),
      labels: this.record.labels,
    };
  }

  /** @throws RuntimeError RUNTIME_FAILED */
  async exec(spec: ExecSpec, streams: ExecStreams, signal: AbortSignal): Promise<ExecProcess> {
    const { path } = this.folder;
    return await runExec(this.#shim, this.record, path, this.first, spec, streams, signal);
  }

  /**
   * The first process of the present run.
   *
   * @throws RuntimeError RUNTIME_FAILED
   */
  get first(): ProcessId {
    const { running } = this;
    if (running !== undefined) return running.first;
    throw new RuntimeError({ code: 'RUNTIME_FAILED' }, `the task ${this.id} does not run`);
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
    if (running !== undefined) return { containerId, pid: running.first.pid, health: this.health };
    const exit = this.#exit;
    // One that ended at once did start.
    if (exit !== undefined && exit.run === this.#start?.run) {
      return { containerId, pid: this.#start.first.pid, health: this.health };
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

  /** Of one that has ended: lets go of its namespaces, so that it cannot run once more. */
  release(): void {
    if (this.exit !== undefined && !this.#isGone) this.folder.order('end');
  }

  get isHeld(): boolean {
    return this.exit !== undefined && !this.#isGone;
  }

  /** Looks no more; the task goes on. */
  close(): void {
    this.#unwatch();
    this.#health?.checker.stop();
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
    this.#checkHealth();
    this.#tell();
  }

  /** Has the present run checked, and no other. */
  #checkHealth(): void {
    const { running } = this;
    const { health: config } = this.record;
    if (!hasHealthCheck(config) || this.#isClosed) return;
    if (running === undefined || running.run !== this.#health?.run) this.#health?.checker.stop();
    if (running === undefined || running.run === this.#health?.run) return;
    const { run } = running;
    const kept = this.folder.readJson<HealthFile>(HEALTH_FILE);
    const checker = new HealthChecker(
      config,
      running.atMs,
      kept?.run === run ? kept : undefined,
      (spec, streams, signal) => this.exec(spec, streams, signal),
      ({ health, failingStreak, output }) => {
        this.folder.writeJson(HEALTH_FILE, { run, health, failingStreak });
        this.#listener.onHealth(this, health, output);
      },
    );
    this.#health = { run, checker };
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
    this.#checkHealth();
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
