import type { RaftPersist } from '../core/types.js';
import type { RaftStorage, StorageFailure } from './storage.js';

/** How often a full disk is tried again. */
const PROBE_MS = 500;

export interface LogWriterConfig {
  readonly storage: RaftStorage;
  /** In order, each once: all of it is on disk. */
  readonly onDurable: (persist: RaftPersist) => void;
  /** The disk became full, or has room again and everything is written that waited. */
  readonly onFull: (full: boolean) => void;
  /** The disk failed: nothing may be said or done any more that relies on it. */
  readonly onFailed: (error: Error) => void;
}

interface Pending {
  readonly persist: RaftPersist;
  state: 'waiting' | 'writing' | 'durable';
}

/**
 * What the core wants on disk, in order. While the disk is full nothing of it is lost: it waits here, and the
 * oldest write is tried again and again, since those after it build on it.
 */
export class LogWriter {
  readonly #config: LogWriterConfig;
  readonly #pending: Pending[] = [];
  #full = false;
  #probe: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(config: LogWriterConfig) {
    this.#config = config;
  }

  get full(): boolean {
    return this.#full;
  }

  /** A log is to begin anew after a snapshot, and does not yet on the disk. */
  get resetting(): boolean {
    return this.#pending.some(({ persist }) => persist.reset !== undefined);
  }

  write(persist: RaftPersist): void {
    if (this.#stopped) return;
    if (isEmpty(persist)) {
      this.#writeNothing(persist);
      return;
    }
    const pending: Pending = { persist, state: 'waiting' };
    this.#pending.push(pending);
    if (!this.#full) this.#submit(pending);
  }

  /** No callback comes after this. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#probe);
  }

  /** Only messages, which leave when everything before them is durable. */
  #writeNothing(persist: RaftPersist): void {
    const last = this.#pending.at(-1);
    if (last === undefined) {
      this.#config.onDurable(persist);
      return;
    }
    // While nothing moves such requests are replaced, so that they do not pile up: a reply may be lost.
    if (this.#full && isEmpty(last.persist)) this.#pending.pop();
    this.#pending.push({ persist, state: 'durable' });
  }

  #submit(pending: Pending): void {
    pending.state = 'writing';
    const { entries, reset, hardState } = pending.persist;
    this.#config.storage.write({ entries, reset, hardState }, (failure) =>
      this.#onWritten(pending, failure),
    );
  }

  #onWritten(pending: Pending, failure: StorageFailure | undefined): void {
    if (this.#stopped) return;
    if (failure?.kind === 'failed') {
      this.stop();
      this.#config.onFailed(failure.error);
    } else if (failure?.kind === 'full') this.#onFull(pending);
    else this.#onDurable(pending);
  }

  #onFull(pending: Pending): void {
    pending.state = 'waiting';
    this.#probe ??= setTimeout(() => {
      this.#probe = undefined;
      const oldest = this.#pending.find(({ state }) => state === 'waiting');
      if (oldest !== undefined) this.#submit(oldest);
    }, PROBE_MS);
    if (this.#full) return;
    this.#full = true;
    this.#config.onFull(true);
  }

  #onDurable(pending: Pending): void {
    pending.state = 'durable';
    const durable = this.#pending.findIndex(({ state }) => state !== 'durable');
    const released = this.#pending.splice(0, durable < 0 ? this.#pending.length : durable);
    for (const { persist } of released) this.#config.onDurable(persist);
    // Nothing can be in flight but this one, which was the probe.
    if (!this.#full || this.#stopped) return;
    this.#full = false;
    for (const waiting of this.#pending) if (waiting.state === 'waiting') this.#submit(waiting);
    this.#config.onFull(false);
  }
}

function isEmpty({ entries, reset, hardState }: RaftPersist): boolean {
  return entries.length === 0 && reset === undefined && hardState === undefined;
}
