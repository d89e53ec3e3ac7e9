import { join } from 'node:path';
import type { TaskObject } from '../base/service-model.js';
import type { TaskId } from '../base/swarm-model.js';
import type { NodeFacts } from '../base/templates.js';
import type { Assignments, ManagerSession } from '../control/index.js';
import {
  chooseRuntime,
  type LogQuery,
  type LogRecord,
  type PublishedTask,
  type Runtime,
  type TaskNetworks,
  TaskWorker,
  WORKER_CONFIG,
} from '../runtime/index.js';
import type { Log } from './log.js';
import { lackOf, runtimeTaskOf } from './runtime-task.js';

export interface NodeTasksOptions {
  readonly dataDir: string;
  readonly runtimes: readonly Runtime[];
  readonly session: ManagerSession;
  readonly networks: TaskNetworks;
  /** As `WorkerDependencies.publish`. */
  publish(id: TaskId, published: PublishedTask | undefined): void;
  readonly node: NodeFacts;
  readonly log: Log;
}

/** The tasks that this node's swarm gives it: from assignments to what runs, and back as reports. */
export class NodeTasks {
  readonly #options: NodeTasksOptions;
  readonly #worker: TaskWorker;
  readonly #kinds: ReadonlySet<Runtime['kind']>;
  readonly #unsubscribe: readonly (() => void)[];
  #assignments: Assignments;

  constructor(assignments: Assignments, options: NodeTasksOptions) {
    this.#options = options;
    this.#assignments = assignments;
    const { runtimes, session, networks, publish, node, log, dataDir } = options;
    this.#kinds = new Set(runtimes.map(({ kind }) => kind));
    this.#worker = TaskWorker.open(
      { ...WORKER_CONFIG, journalPath: join(dataDir, 'tasks.json') },
      {
        runtimes,
        networks,
        publish,
        log: log.child({ part: 'tasks' }),
        runtimeTask: (task) => runtimeTaskOf(task, node, this.#assignments),
        report: (reports) => session.reportTasks(reports),
      },
    );
    this.#unsubscribe = [
      session.onAssignments((after) => this.#assign(after)),
      session.onHeard((heard) => this.#worker.setManagersHeard(heard)),
      session.onReported((reports) => this.#worker.acknowledged(reports)),
    ];
    this.#assign(assignments);
    this.#worker.setManagersHeard(session.heard);
  }

  logs(id: TaskId, query: LogQuery, signal: AbortSignal): AsyncIterable<LogRecord> {
    return this.#worker.logs(id, query, signal);
  }

  stats(): ReturnType<TaskWorker['stats']> {
    return this.#worker.stats();
  }

  /** The tasks go on. */
  async close(): Promise<void> {
    for (const end of this.#unsubscribe) end();
    await this.#worker.close();
  }

  /** The tasks end, since the node leaves its swarm. */
  async leave(timeoutMs: number): Promise<void> {
    for (const end of this.#unsubscribe) end();
    await this.#worker.leave(timeoutMs);
  }

  #assign(assignments: Assignments): void {
    this.#assignments = assignments;
    const { confirmed } = this.#options.session;
    const tasks = assignments.tasks.map((task) => ({
      task,
      ...this.#choose(task),
      // What is not among the assignments of a manager it does not have either.
      ...(!confirmed && lacking(task, assignments)),
    }));
    this.#worker.assign(tasks, confirmed);
  }

  #choose({ spec }: TaskObject): ReturnType<typeof chooseRuntime> {
    const chosen = chooseRuntime(spec.container.image, this.#kinds);
    const { runtime = 'container' } = spec;
    if (runtime === 'container' || runtime === '') return chosen;
    return {
      ...chosen,
      refusal: `tasks of the runtime ${runtime} are not supported: use container`,
    };
  }
}

function lacking(task: TaskObject, assignments: Assignments): { readonly lacks?: string } {
  const lacks = lackOf(task, assignments);
  return lacks === undefined ? {} : { lacks };
}
