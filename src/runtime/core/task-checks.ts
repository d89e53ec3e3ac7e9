import { unreachable } from '../../base/assert.js';
import type { CheckConfig } from '../../base/check-labels.js';
import type { Core } from '../../base/core.js';
import { Prng } from '../../base/prng.js';

/** Checks of one node under way at a time; those whose turn it is then wait for one to end. */
export const CHECKS_AT_ONCE_MAX = 32;
/** By how much of the interval a check may be early or late, so that they do not come in step. */
const JITTER = 0.1;

export interface CheckedTask {
  readonly id: string;
  readonly check: CheckConfig;
}

export type ChecksInput =
  /** These tasks are to be checked, and no others. */
  | { readonly kind: 'tasks'; readonly tasks: readonly CheckedTask[] }
  /** One that was started has ended, or has had its time. `run`: its number. */
  | { readonly kind: 'result'; readonly run: number; readonly isGood: boolean }
  | { readonly kind: 'timeout' };

/** First tell `changes`, then `starts` checks, each of which is answered by one `result`. */
export interface ChecksReady {
  readonly changes: readonly { readonly id: string; readonly isFailing: boolean }[];
  readonly starts: readonly { readonly run: number; readonly task: CheckedTask }[];
}

interface Checked {
  task: CheckedTask;
  dueMs: number;
  /** Of the check under way. */
  run: number | undefined;
  good: number;
  bad: number;
  isFailing: boolean;
}

/**
 * When this node's tasks are checked, and what the results say of them: so many bad ones in a row (`fall`) and a task
 * fails, so many good ones (`rise`) and it does not any more. One that was never checked does not fail.
 */
export class TaskChecks implements Core<ChecksInput, ChecksReady> {
  readonly #prng: Prng;
  readonly #checked = new Map<string, Checked>();
  /** Tasks by the number of the check under way; those of tasks that are not checked any more stay until they end. */
  readonly #running = new Map<number, string>();
  #nextRun = 1;
  #changes: { id: string; isFailing: boolean }[] = [];
  #starts: { run: number; task: CheckedTask }[] = [];
  /** Results since the start. */
  readonly totals = { good: 0, bad: 0 };

  constructor(seed: number) {
    this.#prng = new Prng(seed);
  }

  /** Tasks that are checked, and of these the failing ones. */
  get counts(): { readonly checked: number; readonly failing: number } {
    const failing = [...this.#checked.values()].filter(({ isFailing }) => isFailing).length;
    return { checked: this.#checked.size, failing };
  }

  step(input: ChecksInput, nowMs: number): void {
    switch (input.kind) {
      case 'tasks':
        this.#setTasks(input.tasks, nowMs);
        break;
      case 'result':
        this.#onResult(input.run, input.isGood, nowMs);
        break;
      case 'timeout':
        break;
      default:
        unreachable(input);
    }
    this.#startDue(nowMs);
  }

  takeReady(): ChecksReady {
    const ready = { changes: this.#changes, starts: this.#starts };
    this.#changes = [];
    this.#starts = [];
    return ready;
  }

  nextDeadlineMs(): number | undefined {
    if (this.#running.size >= CHECKS_AT_ONCE_MAX) return undefined;
    let next: number | undefined;
    for (const { dueMs, run } of this.#checked.values())
      if (run === undefined && (next === undefined || dueMs < next)) next = dueMs;
    return next;
  }

  #setTasks(tasks: readonly CheckedTask[], nowMs: number): void {
    const wanted = new Map(tasks.map((task) => [task.id, task]));
    for (const [id, { isFailing }] of this.#checked) {
      if (wanted.has(id)) continue;
      this.#checked.delete(id);
      if (isFailing) this.#changes.push({ id, isFailing: false });
    }
    for (const task of wanted.values()) {
      const held = this.#checked.get(task.id);
      if (held !== undefined) held.task = task;
      else
        this.#checked.set(task.id, {
          task,
          dueMs: nowMs + this.#prng.nextFloat() * task.check.intervalMs,
          run: undefined,
          good: 0,
          bad: 0,
          isFailing: false,
        });
    }
  }

  #onResult(run: number, isGood: boolean, nowMs: number): void {
    const id = this.#running.get(run);
    if (id === undefined) return;
    this.#running.delete(run);
    const checked = this.#checked.get(id);
    if (checked?.run !== run) return;
    this.totals[isGood ? 'good' : 'bad'] += 1;
    const { intervalMs, rise, fall } = checked.task.check;
    checked.run = undefined;
    checked.dueMs = nowMs + intervalMs * (1 - JITTER + 2 * JITTER * this.#prng.nextFloat());
    checked.good = isGood ? checked.good + 1 : 0;
    checked.bad = isGood ? 0 : checked.bad + 1;
    const isFailing = checked.isFailing ? checked.good < rise : checked.bad >= fall;
    if (isFailing === checked.isFailing) return;
    checked.isFailing = isFailing;
    this.#changes.push({ id, isFailing });
  }

  /** Those that have waited longest come first. */
  #startDue(nowMs: number): void {
    const free = CHECKS_AT_ONCE_MAX - this.#running.size;
    if (free <= 0) return;
    const due = [...this.#checked.values()]
      .filter(({ dueMs, run }) => run === undefined && dueMs <= nowMs)
      .sort((a, b) => a.dueMs - b.dueMs);
    for (const checked of due.slice(0, free)) {
      const run = this.#nextRun;
      this.#nextRun += 1;
      checked.run = run;
      this.#running.set(run, checked.task.id);
      this.#starts.push({ run, task: checked.task });
    }
  }
}
