import type { TaskStatus } from '../../../base/service-model.js';
import type { TaskId } from '../../../base/swarm-model.js';
import { REPORTS_MAX, type TaskReport } from '../../wire/task-model.js';

/** Reports within this time after others are sent together. */
const INTERVAL_MS = 100;
/** What a manager could not keep is told again then. */
const AGAIN_MS = 1_000;

/** JSON characters of one message, about: even at three bytes each they fit into one. */
const MESSAGE_CHARS_MAX = 262_144;
/** Of what is said about one task. */
const REPORT_TEXT_CHARS_MAX = 1_024;

export interface StatusReportsConfig {
  /** Resolves when the managers have it. */
  send(reports: readonly TaskReport[]): Promise<void>;
  /** The managers have these. */
  told?(reports: readonly TaskReport[]): void;
}

/**
 * What an agent has to say of its tasks: the latest of each, told until a manager has it, and told
 * once more to the next manager, which may never have heard the last one's.
 */
export class StatusReports {
  readonly #config: StatusReportsConfig;
  readonly #latest = new Map<TaskId, TaskStatus>();
  readonly #untold = new Set<TaskId>();
  #isOpen = false;
  #isSending = false;
  #sentAtMs = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(config: StatusReportsConfig) {
    this.#config = config;
  }

  add(reports: readonly TaskReport[]): void {
    for (const { taskId, status } of reports) {
      this.#latest.set(taskId, bounded(status));
      this.#untold.add(taskId);
    }
    this.#plan(0);
  }

  /** A session is open: everything is told anew. */
  open(): void {
    this.#isOpen = true;
    for (const id of this.#latest.keys()) this.#untold.add(id);
    this.#plan(0);
  }

  close(): void {
    this.#isOpen = false;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Of all other tasks nobody wants to hear any more. */
  keep(tasks: ReadonlyMap<TaskId, unknown>): void {
    for (const id of this.#latest.keys()) {
      if (tasks.has(id)) continue;
      this.#latest.delete(id);
      this.#untold.delete(id);
    }
  }

  #plan(waitMs: number): void {
    if (!this.#isOpen || this.#isSending || this.#untold.size === 0) return;
    const sinceMs = performance.now() - this.#sentAtMs;
    this.#timer ??= setTimeout(() => void this.#send(), Math.max(waitMs, INTERVAL_MS - sinceMs, 0));
  }

  async #send(): Promise<void> {
    this.#timer = undefined;
    const reports = this.#take();
    this.#isSending = true;
    this.#sentAtMs = performance.now();
    let waitMs = 0;
    try {
      await this.#config.send(reports);
      this.#config.told?.(reports);
    } catch {
      for (const { taskId } of reports) if (this.#latest.has(taskId)) this.#untold.add(taskId);
      waitMs = AGAIN_MS;
    }
    this.#isSending = false;
    this.#plan(waitMs);
  }

  #take(): readonly TaskReport[] {
    const reports: TaskReport[] = [];
    let chars = 0;
    for (const taskId of this.#untold) {
      const status = this.#latest.get(taskId);
      if (status === undefined) continue;
      chars += JSON.stringify(status).length;
      if (reports.length >= REPORTS_MAX || (reports.length > 0 && chars > MESSAGE_CHARS_MAX)) break;
      reports.push({ taskId, status });
    }
    for (const { taskId } of reports) this.#untold.delete(taskId);
    return reports;
  }
}

/** A manager takes no longer texts, and would end the session over them. */
function bounded(status: TaskStatus): TaskStatus {
  const { message, error } = status;
  return {
    ...status,
    message: message.slice(0, REPORT_TEXT_CHARS_MAX),
    ...(error !== undefined && { error: error.slice(0, REPORT_TEXT_CHARS_MAX) }),
  };
}
