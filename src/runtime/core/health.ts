import { unreachable } from '../../base/assert.js';
import type { Core } from '../../base/core.js';
import type { Health, HealthConfig } from '../../base/service-model.js';

/** What Docker takes where nothing, or nothing above zero, was said. */
export const HEALTH_DEFAULTS = {
  intervalMs: 30_000,
  timeoutMs: 30_000,
  startPeriodMs: 0,
  startIntervalMs: 5000,
  retries: 3,
} as const;

/** Bytes of a check's output that are kept. */
export const HEALTH_OUTPUT_BYTES_MAX = 4096;

/** Health at a moment, to be gone on with by the next agent. */
export interface HealthState {
  readonly health: Exclude<Health, 'none'>;
  /** Failures since the last success, of those that count. */
  readonly failingStreak: number;
}

export type HealthInput =
  /** A check has ended; `exitCode` is undefined where it could not be run, or was not done in time. */
  | {
      readonly kind: 'result';
      readonly exitCode: number | undefined;
      readonly output: string;
    }
  | { readonly kind: 'timeout' };

/** Run the check, if `probe`; then tell `change`. */
export interface HealthReady {
  /** Run the check, for at most `timeoutMs`; answer by one `result`. */
  readonly probe: boolean;
  /** The health is another now; with the output of the check that made it so. */
  readonly change?: HealthState & { readonly output: string };
}

/** Whether a task has a check at all: `NONE` takes away that of an image, and the host runtime has no images. */
export function hasHealthCheck(config: HealthConfig | undefined): config is HealthConfig {
  const [kind, ...words] = config?.test ?? [];
  return (kind === 'CMD' || kind === 'CMD-SHELL') && words.length > 0;
}

/** The command of a check; `CMD-SHELL` goes to the task's shell. */
export function healthCommand(config: HealthConfig): readonly string[] {
  const [kind, ...words] = config.test ?? [];
  return kind === 'CMD-SHELL' ? ['/bin/sh', '-c', words[0] ?? ''] : words;
}

export function healthTimeoutMs(config: HealthConfig): number {
  return positive(config.timeoutMs, HEALTH_DEFAULTS.timeoutMs);
}

function positive(value: number | undefined, otherwise: number): number {
  return value !== undefined && value > 0 ? value : otherwise;
}

/**
 * When a task is checked, and what the results make of its health; Docker's rules (moby, daemon/health.go):
 *
 * - The first check is an interval after the start, each further one an interval after the end of the one before.
 * - Within the start period, as long as the task has never been healthy, the interval is the start interval, and
 *   failures do not count.
 * - One success makes it healthy; `retries` counted failures in a row make it unhealthy.
 */
export class HealthMonitor implements Core<HealthInput, HealthReady> {
  readonly #config: HealthConfig;
  readonly #startedMs: number;
  #health: HealthState['health'];
  #failingStreak: number;
  /** Start of the check that is under way. */
  #probeMs: number | undefined;
  #deadlineMs: number | undefined;
  #isProbeDue = false;
  #change: HealthReady['change'];

  /**
   * @param startedMs When the task started, on the clock of `step`; may be long ago, and negative.
   * @param state Of an agent before this one.
   */
  constructor(
    config: HealthConfig,
    startedMs: number,
    nowMs: number,
    state: HealthState = { health: 'starting', failingStreak: 0 },
  ) {
    this.#config = config;
    this.#startedMs = startedMs;
    this.#health = state.health;
    this.#failingStreak = state.failingStreak;
    this.#deadlineMs = nowMs + this.#intervalMs(nowMs);
  }

  get state(): HealthState {
    return { health: this.#health, failingStreak: this.#failingStreak };
  }

  step(input: HealthInput, nowMs: number): void {
    switch (input.kind) {
      case 'timeout':
        this.#onTimeout(nowMs);
        break;
      case 'result':
        this.#onResult(input.exitCode, input.output, nowMs);
        break;
      default:
        unreachable(input);
    }
  }

  takeReady(): HealthReady {
    const ready = {
      probe: this.#isProbeDue,
      ...(this.#change === undefined ? {} : { change: this.#change }),
    };
    this.#isProbeDue = false;
    this.#change = undefined;
    return ready;
  }

  nextDeadlineMs(): number | undefined {
    return this.#deadlineMs;
  }

  #onTimeout(nowMs: number): void {
    if (this.#deadlineMs === undefined || nowMs < this.#deadlineMs) return;
    this.#deadlineMs = undefined;
    this.#probeMs = nowMs;
    this.#isProbeDue = true;
  }

  #onResult(exitCode: number | undefined, output: string, nowMs: number): void {
    if (this.#probeMs === undefined) return;
    const isEarly =
      this.#health === 'starting' && this.#probeMs - this.#startedMs < this.#startPeriodMs;
    this.#probeMs = undefined;
    if (exitCode === 0) {
      this.#failingStreak = 0;
      this.#become('healthy', output);
    } else if (!isEarly) {
      this.#failingStreak += 1;
      const retries = positive(this.#config.retries, HEALTH_DEFAULTS.retries);
      if (this.#failingStreak >= retries) this.#become('unhealthy', output);
    }
    this.#deadlineMs = nowMs + this.#intervalMs(nowMs);
  }

  #become(health: HealthState['health'], output: string): void {
    if (health === this.#health) return;
    this.#health = health;
    this.#change = { ...this.state, output };
  }

  get #startPeriodMs(): number {
    return positive(this.#config.startPeriodMs, HEALTH_DEFAULTS.startPeriodMs);
  }

  #intervalMs(nowMs: number): number {
    const isStarting = this.#health === 'starting' && nowMs - this.#startedMs < this.#startPeriodMs;
    return isStarting
      ? positive(this.#config.startIntervalMs, HEALTH_DEFAULTS.startIntervalMs)
      : positive(this.#config.intervalMs, HEALTH_DEFAULTS.intervalMs);
  }
}
