import { readFileSync, rmSync } from 'node:fs';
import { z } from 'zod';
import { writeFileAtomically } from '../../base/io/atomic-file.js';
import { TASK_STATES, type TaskStatus } from '../../base/service-model.js';
import type { TaskId } from '../../base/swarm-model.js';
import type { RuntimeLogger } from './worker.js';

/** States that follow each other this quickly are one write. */
const WRITE_DELAY_MS = 200;

const status: z.ZodType<TaskStatus> = z.object({
  state: z.enum(TASK_STATES),
  atMs: z.number(),
  message: z.string(),
  error: z.string().exactOptional(),
  container: z
    .object({ id: z.string(), pid: z.number(), exitCode: z.number().exactOptional() })
    .exactOptional(),
  ports: z
    .array(
      z.object({
        name: z.string().exactOptional(),
        protocol: z.enum(['tcp', 'udp', 'sctp']),
        targetPort: z.number(),
        publishedPort: z.number(),
        publishMode: z.enum(['ingress', 'host']),
      }),
    )
    .exactOptional(),
});

const schema = z.object({ schema: z.literal(1), tasks: z.record(z.string(), status) });

/**
 * What became of this node's tasks, for the agent after this one: managers may know less, and what the
 * runtime has does not say why a task was ended. Losing it costs no task, so that what cannot be read
 * is left out.
 */
export class TaskJournal {
  readonly #path: string;
  readonly #log: RuntimeLogger;
  readonly #statuses: ReadonlyMap<TaskId, TaskStatus>;
  #timer: NodeJS.Timeout | undefined;

  /** @param statuses What is written: the present statuses, which others change. */
  constructor(path: string, statuses: ReadonlyMap<TaskId, TaskStatus>, log: RuntimeLogger) {
    this.#path = path;
    this.#statuses = statuses;
    this.#log = log;
  }

  read(): ReadonlyMap<TaskId, TaskStatus> {
    let text: string;
    try {
      text = readFileSync(this.#path, 'utf8');
    } catch {
      return new Map();
    }
    const parsed = schema.safeParse(parseJson(text));
    if (parsed.success) return new Map(Object.entries(parsed.data.tasks) as [TaskId, TaskStatus][]);
    this.#log.warn({ path: this.#path }, 'the journal of tasks is damaged: it begins anew');
    return new Map();
  }

  /** Some status has changed. */
  touch(): void {
    this.#timer ??= setTimeout(() => this.flush(), WRITE_DELAY_MS);
  }

  flush(): void {
    if (this.#timer === undefined) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const tasks = Object.fromEntries(
      [...this.#statuses].map(([id, { state, atMs, message, error, container, ports }]) => [
        id,
        {
          state,
          atMs,
          message,
          ...(error !== undefined && { error }),
          ...(container && { container }),
          ...(ports && { ports }),
        },
      ]),
    );
    try {
      writeFileAtomically(this.#path, `${JSON.stringify({ schema: 1, tasks })}\n`);
    } catch (error) {
      this.#log.warn({ error: (error as Error).message }, 'the journal of tasks cannot be written');
    }
  }

  /** The tasks are gone, for good. */
  remove(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    rmSync(this.#path, { force: true });
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
