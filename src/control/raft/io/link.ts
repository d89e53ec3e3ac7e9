import type { Duplex } from 'node:stream';
import type { Prng } from '../../../base/prng.js';
import { Backoff } from '../../core/backoff.js';

/** First and longest wait between attempts. */
const RETRY_MS_FIRST = 50;
const RETRY_MS_MAX = 1_000;
/** An attempt that takes longer is begun anew: a SYN that was lost is not sent again for seconds. */
const DIAL_MS_MAX = 2_000;
/** A connection that ended sooner was no success, and is not dialled again at once. */
const LIVED_MS_MIN = 500;

export interface LinkConfig {
  readonly prng: Prng;
  readonly dial: (signal: AbortSignal) => Promise<Duplex>;
  readonly onStream: (stream: Duplex) => void;
  /** @param refused By the host of the peer, at once: nothing listens there. */
  readonly onFailed: (refused: boolean) => void;
}

/** Dials one peer until it answers, and again when told that the connection is gone. */
export class Link {
  readonly #config: LinkConfig;
  readonly #backoff: Backoff;
  #attempt: AbortController | undefined;
  #retry: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(config: LinkConfig) {
    this.#config = config;
    this.#backoff = new Backoff(RETRY_MS_FIRST, RETRY_MS_MAX, config.prng);
  }

  get dialling(): boolean {
    return this.#attempt !== undefined;
  }

  /** Dials now, whatever was planned; does not disturb an attempt under way. */
  dial(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    if (this.#stopped || this.#attempt !== undefined) return;
    const attempt = new AbortController();
    this.#attempt = attempt;
    const timer = setTimeout(() => attempt.abort(), DIAL_MS_MAX);
    const settle = (settled: () => void) => {
      clearTimeout(timer);
      attempt.signal.removeEventListener('abort', onAbort);
      if (this.#attempt !== attempt) return;
      this.#attempt = undefined;
      settled();
    };
    // Not left to the dialler, who may be slow to give up.
    const onAbort = () => settle(() => this.#onFailed(undefined));
    attempt.signal.addEventListener('abort', onAbort);
    void this.#config.dial(attempt.signal).then(
      (stream) => {
        if (this.#attempt === attempt) settle(() => this.#config.onStream(stream));
        else {
          stream.on('error', () => {});
          stream.destroy();
        }
      },
      (error: unknown) => settle(() => this.#onFailed(error)),
    );
  }

  /** Gives up the attempt under way, which may be to an old address, and dials anew. */
  dialAnew(): void {
    const attempt = this.#attempt;
    this.#attempt = undefined;
    attempt?.abort();
    this.#backoff.reset();
    this.dial();
  }

  /** The connection that was dialled is gone. @param livedMs How long it was there. */
  lost(livedMs: number): void {
    if (livedMs < LIVED_MS_MIN) {
      this.#retryLater();
      return;
    }
    this.#backoff.reset();
    this.dial();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    const attempt = this.#attempt;
    this.#attempt = undefined;
    attempt?.abort();
  }

  #onFailed(error: unknown): void {
    this.#retryLater();
    this.#config.onFailed(isRefusal(error));
  }

  #retryLater(): void {
    if (this.#stopped) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.dial(), this.#backoff.take());
  }
}

/** Whether the peer's host itself said that nothing listens there. */
export function isRefusal(error: unknown): boolean {
  if (typeof error !== 'object' || error === null) return false;
  if (error instanceof AggregateError)
    return error.errors.length > 0 && error.errors.every(isRefusal);
  if ('code' in error && error.code === 'ECONNREFUSED') return true;
  return 'cause' in error && isRefusal(error.cause);
}
