import type { TaskId } from '../base/swarm-model.js';
import type { Outside } from '../dataplane/io/index.js';
import type { PreparedTask, Runtime, RuntimeTask } from '../runtime/index.js';
import type { Log } from './log.js';

/** A runtime whose tasks have a way to the outside before they start. */
export class OutsideRuntime implements Runtime {
  readonly kind: Runtime['kind'];
  readonly #inner: Runtime;
  readonly #outside: Pick<Outside, 'join'>;
  readonly #wants: (id: TaskId) => boolean;
  readonly #log: Log;
  readonly exec?: NonNullable<Runtime['exec']>;
  readonly stats?: NonNullable<Runtime['stats']>;
  readonly top?: NonNullable<Runtime['top']>;

  /** @param wants Not one that is on internal networks alone, or on none by its own wish. */
  constructor(
    inner: Runtime,
    outside: Pick<Outside, 'join'>,
    wants: (id: TaskId) => boolean,
    log: Log,
  ) {
    this.kind = inner.kind;
    this.#inner = inner;
    this.#outside = outside;
    this.#wants = wants;
    this.#log = log;
    if (inner.exec !== undefined) this.exec = inner.exec.bind(inner);
    if (inner.stats !== undefined) this.stats = inner.stats.bind(inner);
    if (inner.top !== undefined) this.top = inner.top.bind(inner);
  }

  async prepare(task: RuntimeTask, signal: AbortSignal): Promise<PreparedTask> {
    const prepared = await this.#inner.prepare(task, signal);
    if (prepared.netns === undefined || !this.#wants(task.id)) return prepared;
    try {
      await this.#outside.join(prepared.netns);
    } catch (error) {
      // The swarm's own networks are no worse for it.
      this.#log.warn(
        { task: task.id, error: (error as Error).message },
        'a task cannot get outside',
      );
    }
    return prepared;
  }

  describe() {
    return this.#inner.describe();
  }

  start(id: TaskId) {
    return this.#inner.start(id);
  }

  stop(...how: Parameters<Runtime['stop']>) {
    return this.#inner.stop(...how);
  }

  remove(id: TaskId) {
    return this.#inner.remove(id);
  }

  list() {
    return this.#inner.list();
  }

  onEvent(...listener: Parameters<Runtime['onEvent']>) {
    return this.#inner.onEvent(...listener);
  }

  logs(...query: Parameters<Runtime['logs']>) {
    return this.#inner.logs(...query);
  }

  close() {
    return this.#inner.close();
  }
}
