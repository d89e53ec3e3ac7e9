import { setTimeout as delay } from 'node:timers/promises';
import type { TaskLogQuery, TaskLogRecord } from '../api/index.js';
import { compareTaskStates, isTerminal, type TaskObject, taskName } from '../base/service-model.js';
import type { LogQuery } from '../runtime/index.js';
import { ItemQueue } from './item-queue.js';
import { LOG_TASKS_MAX, type NodeLogItem } from './node-api.js';

/** After a node could not be asked, or stopped answering, while its tasks are followed. */
const RETRY_MS = 2_000;

export interface TaskLogSources {
  /** All tasks of the service, or the one task; as the manager knows them now. */
  tasks(of: Pick<TaskLogQuery, 'serviceId' | 'taskId'>): readonly TaskObject[];
  /** Called when tasks may have changed. @returns Ends it. */
  onTasks(listener: () => void): () => void;
  /** As `NodeApi.logs`. */
  logs(
    nodeId: string,
    tasks: readonly string[],
    query: LogQuery,
    signal: AbortSignal,
  ): AsyncIterable<NodeLogItem>;
}

/** One task whose log is being read, or was. */
interface Reading {
  task: TaskObject;
  state: 'due' | 'reading' | 'over';
  /** It was there when the last lines were asked for. */
  readonly hasTail: boolean;
  /** Of the last record. */
  lastNs: bigint;
  /** As `lastNs` when reading began again, so that no record comes twice. */
  fromNs: bigint;
  /** Somebody was told that something is missing. */
  isExcused: boolean;
}

/**
 * The logs of a service's tasks, from whichever nodes run them: each task's lines in order, those of
 * different tasks as they come. A node that cannot be asked holds nothing up: in place of its lines
 * there is one that says why they are missing, and while following it is asked again.
 */
export async function* taskLogs(
  sources: TaskLogSources,
  query: TaskLogQuery,
  signal: AbortSignal,
): AsyncGenerator<TaskLogRecord, void, undefined> {
  const ending = new AbortController();
  const run = new LogRun(sources, query, AbortSignal.any([signal, ending.signal]));
  try {
    yield* run.read();
  } finally {
    ending.abort();
  }
}

class LogRun {
  readonly #sources: TaskLogSources;
  readonly #query: TaskLogQuery;
  readonly #signal: AbortSignal;
  readonly #records = new ItemQueue<TaskLogRecord>();
  readonly #readings = new Map<string, Reading>();
  /** Nodes that are being asked, and those that are asked again later. */
  #busyCount = 0;
  #isFirst = true;
  #isScheduled = false;

  constructor(sources: TaskLogSources, query: TaskLogQuery, signal: AbortSignal) {
    this.#sources = sources;
    this.#query = query;
    this.#signal = signal;
  }

  async *read(): AsyncGenerator<TaskLogRecord, void, undefined> {
    const drop = () => this.#records.drop();
    this.#signal.addEventListener('abort', drop);
    const unsubscribe = this.#query.follow
      ? this.#sources.onTasks(() => this.#schedule())
      : () => undefined;
    try {
      if (this.#signal.aborted) return;
      this.#look();
      yield* this.#records.read();
    } finally {
      unsubscribe();
      this.#signal.removeEventListener('abort', drop);
    }
  }

  /** Many changes of one turn are one look. */
  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (!this.#signal.aborted) this.#look();
    });
  }

  /** Starts to read what is not read yet, and ends when nothing more can come. */
  #look(): void {
    const tasks = this.#sources.tasks(this.#query);
    /** Of one node, and with one beginning. */
    const batches = new Map<string, Reading[]>();
    for (const task of tasks) {
      const reading = this.#readings.get(task.id) ?? newReading(task, this.#isFirst);
      this.#readings.set(task.id, reading);
      reading.task = task;
      if (reading.state !== 'due' || !hasLog(task)) continue;
      const key = `${task.nodeId} ${startOf(reading)}`;
      batches.set(key, [...(batches.get(key) ?? []), reading]);
    }
    for (const readings of batches.values()) {
      for (let at = 0; at < readings.length; at += LOG_TASKS_MAX) {
        this.#background(this.#readNode(readings.slice(at, at + LOG_TASKS_MAX)));
      }
    }
    this.#isFirst = false;
    if (this.#busyCount === 0 && !this.#mayCome(tasks)) this.#records.end();
  }

  /** Whether there may be lines later although none are being read. */
  #mayCome(tasks: readonly TaskObject[]): boolean {
    if (!this.#query.follow) return false;
    if (this.#query.taskId === undefined) return tasks.length > 0;
    return tasks.some((task) => !isTerminal(task.status.state));
  }

  #background(work: Promise<void>): void {
    this.#busyCount += 1;
    void work.finally(() => {
      this.#busyCount -= 1;
      if (!this.#signal.aborted) this.#look();
    });
  }

  /** Never fails: what goes wrong becomes a line. */
  async #readNode(readings: readonly Reading[]): Promise<void> {
    const nodeId = readings[0]?.task.nodeId ?? '';
    for (const reading of readings) {
      reading.state = 'reading';
      reading.fromNs = reading.lastNs > 0n ? reading.lastNs : -1n;
    }
    const byTask = new Map(readings.map((reading) => [reading.task.id as string, reading]));
    let failure: string | undefined;
    try {
      const ids = [...byTask.keys()];
      for await (const item of this.#sources.logs(
        nodeId,
        ids,
        this.#queryOf(readings),
        this.#signal,
      )) {
        const reading = byTask.get(item.taskId);
        if (reading === undefined) continue;
        if ('failed' in item) {
          await this.#excuse(reading, item.failed);
          byTask.delete(item.taskId);
          reading.state = 'over';
        } else if (item.record.atNs > reading.fromNs) {
          reading.lastNs = item.record.atNs;
          await this.#records.put({ ...idsOf(reading.task), ...item.record });
        }
      }
    } catch (error) {
      failure = (error as Error).message;
    }
    if (this.#signal.aborted) return;
    await this.#settle([...byTask.values()], failure);
  }

  /** What becomes of tasks whose reading has ended, by itself or by `failure`. */
  async #settle(readings: readonly Reading[], failure: string | undefined): Promise<void> {
    for (const reading of readings) {
      if (failure !== undefined) await this.#excuse(reading, failure);
      const isAgain = failure !== undefined && this.#query.follow;
      reading.state = isAgain && !isTerminal(reading.task.desiredState) ? 'due' : 'over';
    }
    if (readings.some(({ state }) => state === 'due')) {
      await delay(RETRY_MS, undefined, { signal: this.#signal }).catch(() => undefined);
    }
  }

  /** `readings` have one beginning. */
  #queryOf(readings: readonly Reading[]): LogQuery {
    const { stdout, stderr, follow, tail, sinceMs } = this.#query;
    const base = { stdout, stderr, follow };
    const [first] = readings;
    if (first !== undefined && startOf(first) === 'again') {
      const leastNs = readings.map(({ fromNs }) => fromNs).sort((a, b) => (a < b ? -1 : 1))[0];
      return { ...base, sinceMs: Number((leastNs ?? 0n) / 1_000_000n) };
    }
    return {
      ...base,
      ...(sinceMs === undefined ? {} : { sinceMs }),
      ...(tail === undefined || first?.hasTail !== true ? {} : { tail }),
    };
  }

  async #excuse(reading: Reading, reason: string): Promise<void> {
    if (reading.isExcused) return;
    reading.isExcused = true;
    const text = `warning: incomplete log of ${taskName(reading.task)}: ${reason}\n`;
    await this.#records.put({
      ...idsOf(reading.task),
      stream: 'stderr',
      atNs: BigInt(Date.now()) * 1_000_000n,
      data: Buffer.from(text),
    });
  }
}

const newReading = (task: TaskObject, hasTail: boolean): Reading => ({
  task,
  state: 'due',
  hasTail,
  lastNs: 0n,
  fromNs: -1n,
  isExcused: false,
});

/** Where its log is to begin: after an interruption, with the last lines, or with all. */
const startOf = ({ lastNs, hasTail }: Reading): 'again' | 'tail' | 'all' =>
  lastNs > 0n ? 'again' : hasTail ? 'tail' : 'all';

const idsOf = ({ id, nodeId, serviceId }: TaskObject) => ({
  taskId: id as string,
  nodeId: nodeId as string,
  serviceId: serviceId as string,
});

/** It was placed, and its node came as far as to run it. */
function hasLog({ nodeId, status }: TaskObject): boolean {
  const never = status.state === 'rejected' || status.state === 'orphaned';
  return nodeId !== undefined && !never && compareTaskStates(status.state, 'starting') >= 0;
}
