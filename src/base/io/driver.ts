import { performance } from 'node:perf_hooks';
import type { Core } from '../core.js';

/** Monotonic milliseconds of this process: what every core is given as `nowMs`. */
export function nowMs(): number {
  return performance.now();
}

/**
 * Runs one core on the real clock: steps it with inputs and timeouts, and hands each `Ready` to
 * `perform`, synchronously and in order. `perform` may call `input` again; it is queued, not nested.
 */
export class CoreDriver<Input, Ready> {
  readonly #core: Core<Input | { readonly kind: 'timeout' }, Ready>;
  readonly #perform: (ready: Ready) => void;
  readonly #now: () => number;
  readonly #queue: (Input | { readonly kind: 'timeout' })[] = [];
  #running = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param now Milliseconds that never go back; absent: those of this process. */
  constructor(
    core: Core<Input | { readonly kind: 'timeout' }, Ready>,
    perform: (ready: Ready) => void,
    now: () => number = nowMs,
  ) {
    this.#core = core;
    this.#perform = perform;
    this.#now = now;
  }

  /** Arms the first deadline and performs what the core already has ready. */
  start(): void {
    this.input({ kind: 'timeout' });
  }

  /** Steps the core with one input and performs the consequences. */
  input(input: Input | { readonly kind: 'timeout' }): void {
    if (this.#stopped) return;
    this.#queue.push(input);
    if (this.#running) return;
    this.#running = true;
    try {
      for (let next = this.#queue.shift(); next !== undefined; next = this.#queue.shift()) {
        this.#core.step(next, this.#now());
        this.#perform(this.#core.takeReady());
      }
    } finally {
      this.#running = false;
    }
    this.#arm();
  }

  /** No step and no effect happens after this. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  #arm(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const deadlineMs = this.#core.nextDeadlineMs();
    if (this.#stopped || deadlineMs === undefined) return;
    // Rounded up: a timer that fires a fraction early would step for nothing and spin.
    const delayMs = Math.max(0, Math.ceil(deadlineMs - this.#now()));
    this.#timer = setTimeout(() => this.input({ kind: 'timeout' }), Math.min(delayMs, 0x7fff_ffff));
  }
}
