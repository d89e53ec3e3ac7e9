import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { HostContainers } from '../api/index.js';
import type { TaskObject } from '../base/service-model.js';
import type { TaskId } from '../base/swarm-model.js';
import {
  EngineRuntime,
  type KnownTask,
  type LogQuery,
  type LogRecord,
  openHostRuntime,
  type Runtime,
  RuntimeError,
} from '../runtime/index.js';
import type { AgentConfig } from './config.js';
import type { Engine } from './engine.js';
import type { Log } from './log.js';
import type { NodeTasks } from './node-api.js';

/** What runs tasks on this host. */
export class Runtimes implements NodeTasks {
  readonly host: Runtime | undefined;
  readonly engine: Runtime | undefined;

  private constructor(host: Runtime | undefined, engine: Runtime | undefined) {
    this.host = host;
    this.engine = engine;
  }

  /** @param owner Tells this agent's containers from those of others at the same engine. */
  static async open(
    config: AgentConfig,
    engine: Engine | undefined,
    owner: string,
    log: Log,
  ): Promise<Runtimes> {
    let host: Runtime | undefined;
    try {
      host = await openHostRuntime({
        dataDir: join(config.dataDir, 'runtime'),
        log: log.child({ part: 'runtime' }),
      });
    } catch (error) {
      log.warn({ error: (error as Error).message }, 'tasks of the image host cannot run here');
    }
    const place = createHash('sha256').update(config.dataDir).digest('hex').slice(0, 12);
    return new Runtimes(
      host,
      engine &&
        new EngineRuntime(
          {
            socketPath: engine.socketPath,
            owner,
            filesDir: `/run/shoal/files-${place}`,
            prefersLocalImages: process.env['DOCKER_SERVICE_PREFER_OFFLINE_IMAGE'] === '1',
          },
          log.child({ part: 'engine' }),
        ),
    );
  }

  get all(): readonly Runtime[] {
    return [this.host, this.engine].filter((runtime) => runtime !== undefined);
  }

  /** Of whichever runtime has the task. */
  async *logs(id: TaskId, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord> {
    for (const runtime of this.all) {
      try {
        yield* runtime.logs(id, query, signal);
      } catch (error) {
        if (!(error instanceof RuntimeError && error.code === 'RUNTIME_NOT_FOUND')) throw error;
      }
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((runtime) => runtime.close()));
  }
}

/** @param taskOf What the swarm knows of a task, for what its runtime does not keep. */
export function hostContainers(
  runtime: Runtime,
  taskOf: (id: string) => TaskObject | undefined,
): HostContainers {
  const id = (taskId: string) => taskId as TaskId;
  return {
    async list() {
      const known = await runtime.list();
      return known.map((task) => hostContainer(task, taskOf(task.id)));
    },
    logs: (taskId, query, signal) => runtime.logs(id(taskId), query, signal),
    stop: (taskId, how) => runtime.stop(id(taskId), how),
    remove: (taskId) => runtime.remove(id(taskId)),
    exec(taskId, spec, streams, signal) {
      if (runtime.exec === undefined) throw lacking('exec');
      return runtime.exec(id(taskId), spec, streams, signal);
    },
    stats(taskId) {
      if (runtime.stats === undefined) throw lacking('stats');
      return runtime.stats(id(taskId));
    },
    top(taskId) {
      if (runtime.top === undefined) throw lacking('top');
      return runtime.top(id(taskId));
    },
  };
}

const lacking = (what: string) =>
  new RuntimeError({ code: 'RUNTIME_REJECTED' }, `this runtime has no ${what}`);

function hostContainer(known: KnownTask, task: TaskObject | undefined) {
  const { container } = task?.spec ?? {};
  const { id: taskId, containerId: id, labels, startedAtMs, ...rest } = known;
  return {
    ...rest,
    id,
    taskId,
    labels,
    name: labels['com.docker.swarm.task.name'] ?? taskId,
    image: container?.image ?? 'host',
    command: [...(container?.command ?? []), ...(container?.args ?? [])],
    env: container?.env ?? [],
    tty: container?.tty ?? false,
    createdAtMs: task?.createdAtMs ?? startedAtMs ?? 0,
    ...(startedAtMs === undefined ? {} : { startedAtMs }),
  };
}
