import { createHash } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { release } from 'node:os';
import { join } from 'node:path';
import type { DescriptorLimits } from '../../../base/descriptor-limits.js';
import type { Health } from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import type {
  ExecProcess,
  ExecSpec,
  ExecStreams,
  KnownTask,
  LogQuery,
  LogRecord,
  PreparedTask,
  RunningTask,
  Runtime,
  RuntimeDescription,
  RuntimeEvent,
  RuntimeTask,
  TaskProcess,
  TaskStats,
} from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import { type CgroupLayout, cgroupPlanOf } from '../core/cgroups.js';
import type { Logger } from '../core/logger.js';
import { signalOf } from '../core/signals.js';
import { hostsTextOf, resolvConfOf, taskPlanOf } from '../core/task-plan.js';
import { usageOf } from '../core/usage.js';
import { encodePlan } from '../wire/plan.js';
import { makeCgroups, readCgroupLayout, removeCgroups } from './cgroup-tree.js';
import { checkBindSources, hostFactsOf, readText } from './host-facts.js';
import { HostTask } from './host-task.js';
import { readLogs } from './log-reader.js';
import { findShim, type Shim, startSupervisor } from './shim.js';
import { type Exit, TaskFolder } from './task-folder.js';
import { processesOf } from './usage.js';

export interface HostRuntimeOptions {
  /** The runtime's own: `tasks`, `volumes`, `trash`. */
  readonly dataDir: string;
  readonly log: Logger;
  /** Absent: the native one, where it has been built. */
  readonly shim?: 'native' | 'portable';
  /** Folder of all tasks' control groups, below the root of each hierarchy. */
  readonly cgroupParent?: string;
  /** Of tasks; absent: as this process has them. */
  readonly descriptors?: DescriptorLimits | undefined;
}

/** Tasks of one node, whatever has become of them. */
const TASKS_MAX = 4096;
/** Ended tasks that can be started once more. */
const ENDED_HELD_MAX = 100;

/** Opens the runtime, and finds the tasks of an agent before this one. */
export async function openHostRuntime(options: HostRuntimeOptions): Promise<Runtime> {
  return await HostRuntime.open(options);
}

class HostRuntime implements Runtime {
  readonly kind = 'host';
  readonly #log: Logger;
  readonly #tasksFolder: string;
  readonly #trash: string;
  readonly #volumes: string;
  readonly #shim: Shim;
  readonly #cgroupParent: string;
  readonly #descriptors: DescriptorLimits | undefined;
  readonly #cgroups: CgroupLayout | undefined;
  readonly #tasks = new Map<TaskId, HostTask>();
  readonly #preparing = new Map<TaskId, Promise<PreparedTask>>();
  readonly #events = new EventEmitter<{ event: [RuntimeEvent] }>();
  #isClosed = false;

  private constructor(options: HostRuntimeOptions, shim: Shim) {
    this.#log = options.log;
    this.#tasksFolder = join(options.dataDir, 'tasks');
    this.#trash = join(options.dataDir, 'trash');
    this.#volumes = join(options.dataDir, 'volumes');
    this.#shim = shim;
    this.#cgroupParent = options.cgroupParent ?? 'shoal';
    this.#descriptors = options.descriptors;
    this.#cgroups = readCgroupLayout();
    this.#events.setMaxListeners(0);
  }

  static async open(options: HostRuntimeOptions): Promise<HostRuntime> {
    const shim = findShim(options.shim);
    if (shim === undefined) throw failed('the supervisor of tasks is not built: npm run build');
    if (shim.kind === 'portable') {
      options.log.warn(
        {},
        'tasks have the portable supervisor, which is larger and slower: no compiler was found',
      );
    }
    const runtime = new HostRuntime(options, shim);
    for (const folder of [runtime.#tasksFolder, runtime.#trash, runtime.#volumes]) {
      mkdirSync(folder, { recursive: true, mode: 0o700 });
    }
    for (const name of readdirSync(runtime.#trash)) {
      rmSync(join(runtime.#trash, name), { recursive: true, force: true });
    }
    await Promise.all(readdirSync(runtime.#tasksFolder).map((name) => runtime.#adopt(name)));
    return runtime;
  }

  async describe(): Promise<RuntimeDescription> {
    return {
      name: 'host',
      version: release(),
      plugins: [
        ...['json-file', 'local', 'none'].map((name) => ({ type: 'Log', name })),
        { type: 'Volume', name: 'local' },
      ],
      labels: {},
    };
  }

  async prepare(task: RuntimeTask, signal: AbortSignal): Promise<PreparedTask> {
    const known = this.#tasks.get(task.id);
    if (known !== undefined) return known.prepared;
    const running = this.#preparing.get(task.id) ?? this.#prepare(task, signal);
    this.#preparing.set(task.id, running);
    try {
      return await running;
    } finally {
      this.#preparing.delete(task.id);
    }
  }

  async #prepare(task: RuntimeTask, signal: AbortSignal): Promise<PreparedTask> {
    if (this.#tasks.size + this.#preparing.size >= TASKS_MAX) {
      throw failed(`this node has ${TASKS_MAX} tasks already`);
    }
    if (!/^[a-z0-9]{1,64}$/.test(task.id)) throw rejected(`invalid task id: ${task.id}`);
    const folder = new TaskFolder(join(this.#tasksFolder, task.id));
    mkdirSync(folder.path, { mode: 0o700 });
    let cgroupFolders: readonly string[] = [];
    try {
      checkBindSources(task);
      const groups = cgroupPlanOf(this.#cgroups, this.#cgroupParent, task.id, task.resources);
      if (this.#shim.kind === 'portable' && task.container.tty === true) {
        throw failed(
          'a terminal needs the native supervisor: build shoal where there is a compiler',
        );
      }
      const facts = hostFactsOf(folder.path, this.#volumes, this.#descriptors);
      const containerId = createHash('sha256').update(task.id).digest('hex');
      let plan = taskPlanOf(task, containerId, groups, facts);
      const made = makeCgroups(groups);
      cgroupFolders = groups.folders;
      if (!made.isMade) {
        const none = cgroupPlanOf(undefined, this.#cgroupParent, task.id, task.resources);
        plan = taskPlanOf(task, containerId, none, facts);
      }
      for (const what of made.lacks) {
        this.#log.warn(
          { task: task.id, limit: what },
          'the host has no control group for a limit: the task runs without it',
        );
      }
      for (const name of ['root', 'private', 'hold']) mkdirSync(folder.file(name));
      writeFileSync(folder.file('hosts'), hostsTextOf(task, plan.hostname));
      writeFileSync(folder.file('resolv.conf'), resolvConfOf(task, readText('/etc/resolv.conf')));
      writeFileSync(folder.file('hostname'), `${plan.hostname}\n`);
      folder.writeRecord(plan.record);
      signal.throwIfAborted();
      const supervisor = await startSupervisor(this.#shim, encodePlan(plan.records), signal);
      const known = new HostTask(this.#shim, plan.record, folder, supervisor, this.#listener);
      this.#tasks.set(task.id, known);
      return known.prepared;
    } catch (error) {
      await this.#discard(task.id, folder, cgroupFolders);
      throw error;
    }
  }

  readonly #listener = {
    onExit: ({ id }: HostTask, { exitCode, error, oomKilled }: Exit) => {
      if (this.#isClosed) return;
      this.#releaseOldest();
      this.#events.emit('event', {
        kind: 'exited',
        id,
        exitCode,
        ...(error === undefined ? {} : { error }),
        ...(oomKilled ? { oomKilled } : {}),
      });
    },
    onHealth: ({ id }: HostTask, health: Health, output: string) => {
      if (!this.#isClosed) this.#events.emit('event', { kind: 'health', id, health, output });
    },
  };

  /** What has ended may be wanted once more, but not for ever: namespaces cost memory of the kernel. */
  #releaseOldest(): void {
    // In the order in which they were made, which is near enough.
    const held = [...this.#tasks.values()].filter((task) => task.isHeld);
    for (const task of held.slice(0, Math.max(0, held.length - ENDED_HELD_MAX))) task.release();
  }

  async start(id: TaskId): Promise<RunningTask> {
    return await this.#find(id).start();
  }

  async stop(
    id: TaskId,
    how: { readonly signal?: string; readonly graceMs: number },
  ): Promise<void> {
    const task = this.#tasks.get(id);
    if (task === undefined) return;
    const number = how.signal === undefined ? task.record.stopSignal : signalOf(how.signal);
    if (number === undefined) throw rejected(`invalid signal: ${how.signal}`);
    await task.stop(number, how.graceMs);
  }

  async remove(id: TaskId): Promise<void> {
    await this.#preparing.get(id)?.catch(() => {});
    const task = this.#tasks.get(id);
    if (task === undefined) return;
    await task.end();
    task.close();
    await this.#discard(id, task.folder, task.record.cgroups.folders);
    this.#tasks.delete(id);
  }

  /** Takes away what a task has on this host when nothing of it runs any more. */
  async #discard(id: TaskId, folder: TaskFolder, cgroups: readonly string[]): Promise<void> {
    await removeCgroups(id, cgroups);
    // In one move, so that a crash leaves the whole task or none.
    const gone = join(this.#trash, `${id}-${process.hrtime.bigint()}`);
    try {
      renameSync(folder.path, gone);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    rmSync(gone, { recursive: true, force: true });
  }

  async list(): Promise<readonly KnownTask[]> {
    return [...this.#tasks.values()].map((task) => task.known());
  }

  onEvent(listener: (event: RuntimeEvent) => void): () => void {
    this.#events.on('event', listener);
    return () => this.#events.off('event', listener);
  }

  logs(id: TaskId, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord> {
    return readLogs(this.#find(id), query, signal);
  }

  async exec(
    id: TaskId,
    spec: ExecSpec,
    streams: ExecStreams,
    signal: AbortSignal,
  ): Promise<ExecProcess> {
    return await this.#find(id).exec(spec, streams, signal);
  }

  async stats(id: TaskId): Promise<TaskStats> {
    // Says when the task does not run.
    void this.#find(id).first;
    const layout = this.#cgroups;
    const atMs = Date.now();
    if (layout === undefined) return { atMs };
    const folder = (controller: string) =>
      join(layout.folders.get(controller) ?? '/nowhere', this.#cgroupParent, id);
    const read = (controller: string, file: string) =>
      readText(join(folder(controller), file)) || undefined;
    return { atMs, ...usageOf(layout, read) };
  }

  async top(id: TaskId): Promise<readonly TaskProcess[]> {
    return processesOf(this.#find(id).first.pid);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#preparing.values());
    for (const task of this.#tasks.values()) task.close();
  }

  #find(id: TaskId): HostTask {
    const task = this.#tasks.get(id);
    if (task !== undefined) return task;
    throw new RuntimeError({ code: 'RUNTIME_NOT_FOUND' }, `no such task: ${id}`);
  }

  async #adopt(name: string): Promise<void> {
    const folder = new TaskFolder(join(this.#tasksFolder, name));
    const record = folder.record();
    const supervisor = folder.supervisor();
    if (record !== undefined && supervisor !== undefined) {
      this.#tasks.set(
        record.id,
        new HostTask(this.#shim, record, folder, supervisor, this.#listener),
      );
      return;
    }
    // Its preparation was cut short, and nobody was told of it: as if it had never begun.
    folder.order('end');
    await new Promise<void>((resolve) => folder.watch(() => {}, resolve));
    const id = name as TaskId;
    const groups = cgroupPlanOf(this.#cgroups, this.#cgroupParent, id, {});
    await this.#discard(id, folder, groups.folders);
  }
}

function failed(message: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_FAILED' }, message);
}

function rejected(message: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_REJECTED' }, message);
}
