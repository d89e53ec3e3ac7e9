import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { Prng } from '../../base/prng.js';
import { Backoff } from '../core/backoff.js';
import type { Logger } from '../core/logger.js';
import {
  type CallOutcome,
  FORWARD_BYTES_MAX,
  type ForwardRequest,
  type ForwardResponse,
  type ProposeOutcome,
  parseForwardResponse,
} from '../wire/forward-messages.js';
import { encodeFrame } from '../wire/frame.js';
import type { Refusal } from '../wire/refusal.js';
import { Channel } from './channel.js';
import { corkForThisTurn } from './cork.js';

/** Questions that one manager has been sent and has not answered; more wait here. */
const OUTSTANDING_MAX = 1_024;
const OUTSTANDING_BYTES_MAX = 8 << 20;
/** Questions that wait for a connection or for answers to others. */
const WAITING_MAX = 8_192;
const WAITING_BYTES_MAX = 64 << 20;
/** A manager that owes an answer and sends nothing for so long is given up. */
const SILENCE_MS_MAX = 3_000;
const PING_INTERVAL_MS = 1_000;
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 1_000;

export interface ForwardClientConfig {
  /** An authenticated connection with the manager in question. Rejects with the cause. */
  readonly dial: (signal: AbortSignal) => Promise<Duplex>;
  readonly log: Logger;
  readonly silenceMsMax?: number;
}

export interface ForwardClientStats {
  readonly connected: boolean;
  readonly outstanding: number;
  readonly waiting: number;
  /** Connections that were made. */
  readonly connections: number;
  /** Questions that were turned away because too many waited. */
  readonly overflows: number;
}

export interface AskOptions {
  /** From now, waiting for a connection included. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** `sent`: the manager may have done it although no answer came. */
export type Unanswered = {
  readonly kind: 'unanswered';
  readonly sent: boolean;
  readonly why: string;
};

type Question = Extract<ForwardRequest, { readonly kind: 'propose' | 'call' }>;
type Answer = Extract<ForwardResponse, { readonly request: number }>;

interface Pending {
  readonly request: number;
  readonly frame: Uint8Array;
  readonly settle: (answer: Answer | Unanswered) => void;
  sent: boolean;
}

/**
 * The asking end of `shoal-forward/1` towards one manager: one connection, made when there is
 * something to ask and kept. A question is sent at most once; the asker decides what to do next.
 */
export class ForwardClient {
  readonly #config: ForwardClientConfig;
  readonly #backoff = new Backoff(
    RETRY_FIRST_MS,
    RETRY_MAX_MS,
    new Prng(randomBytes(4).readUInt32LE()),
  );
  readonly #cancel = new AbortController();
  /** In the order of asking; those that were sent first. */
  readonly #waiting = new Map<number, Pending>();
  readonly #outstanding = new Map<number, Pending>();
  #outstandingBytes = 0;
  #waitingBytes = 0;
  #lastRequest = 0;
  #channel: Channel | undefined;
  #stream: Duplex | undefined;
  #dialing = false;
  #retry: NodeJS.Timeout | undefined;
  #pinging: NodeJS.Timeout | undefined;
  #heardAtMs = 0;
  #connections = 0;
  #overflows = 0;
  #closed = false;

  constructor(config: ForwardClientConfig) {
    this.#config = config;
  }

  stats(): ForwardClientStats {
    return {
      connected: this.#channel !== undefined,
      outstanding: this.#outstanding.size,
      waiting: this.#waiting.size,
      connections: this.#connections,
      overflows: this.#overflows,
    };
  }

  /** Never rejects. */
  async propose(
    dedupe: string,
    command: unknown,
    options: AskOptions,
  ): Promise<ProposeOutcome | Unanswered> {
    const answer = await this.#ask({ kind: 'propose', request: 0, dedupe, command }, options);
    return answer.kind === 'result' ? nonsense(true) : answer;
  }

  /** Never rejects. */
  async call(
    method: string,
    params: unknown,
    options: AskOptions,
  ): Promise<CallOutcome | Unanswered> {
    const answer = await this.#ask({ kind: 'call', request: 0, method, params }, options);
    return answer.kind === 'done' ? nonsense(true) : answer;
  }

  /** Dials at once although the last attempts failed: the manager's address may be another now. */
  redial(): void {
    if (this.#retry === undefined) return;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#backoff.reset();
    void this.#connect();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    this.#cancel.abort();
    this.#channel?.destroy();
    this.#failAll([...this.#outstanding.values(), ...this.#waiting.values()], 'closed');
  }

  #ask(question: Question, { timeoutMs, signal }: AskOptions): Promise<Answer | Unanswered> {
    const request = ++this.#lastRequest;
    const frame = encodeFrame({ ...question, request });
    if (frame.length > FORWARD_BYTES_MAX)
      return Promise.resolve({ kind: 'refused', request, refusal: TOO_LARGE });
    const trouble = this.#troubleWith(frame, signal);
    if (trouble !== undefined) return Promise.resolve(unanswered(false, trouble));
    return new Promise((resolve) => {
      const give = (why: string) => () => {
        if (pending.sent) this.#send({ kind: 'cancel', request });
        this.#drop(pending);
        pending.settle(unanswered(pending.sent, why));
        this.#pump();
      };
      const onAbort = give('cancelled');
      const timer = setTimeout(give('no answer in time'), timeoutMs);
      const pending: Pending = {
        request,
        frame,
        sent: false,
        settle: (answer) => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', onAbort);
          resolve(answer);
        },
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiting.set(request, pending);
      this.#waitingBytes += frame.length;
      this.#pump();
    });
  }

  #troubleWith(frame: Uint8Array, signal: AbortSignal | undefined): string | undefined {
    if (this.#closed) return 'closed';
    if (signal?.aborted === true) return 'cancelled';
    if (this.#waiting.size < WAITING_MAX && this.#waitingBytes + frame.length <= WAITING_BYTES_MAX)
      return undefined;
    this.#overflows++;
    return 'too many requests wait';
  }

  /** Sends what may be sent. */
  #pump(): void {
    if (this.#waiting.size === 0) return;
    if (this.#channel === undefined) return void this.#connect();
    for (const pending of this.#waiting.values()) {
      const full = this.#outstandingBytes + pending.frame.length > OUTSTANDING_BYTES_MAX;
      if (this.#outstanding.size >= OUTSTANDING_MAX || (full && this.#outstanding.size > 0)) break;
      this.#drop(pending);
      if (this.#outstanding.size === 0) this.#heardAtMs = performance.now();
      pending.sent = true;
      this.#outstanding.set(pending.request, pending);
      this.#outstandingBytes += pending.frame.length;
      if (this.#stream) corkForThisTurn(this.#stream);
      this.#channel.sendFrame(pending.frame);
    }
    if (this.#outstanding.size > 0) this.#watch();
  }

  #drop(pending: Pending): void {
    if (this.#waiting.delete(pending.request)) this.#waitingBytes -= pending.frame.length;
    if (this.#outstanding.delete(pending.request)) this.#outstandingBytes -= pending.frame.length;
  }

  /** While an answer is owed, the manager is asked whether it is there. */
  #watch(): void {
    const silenceMsMax = this.#config.silenceMsMax ?? SILENCE_MS_MAX;
    this.#pinging ??= setInterval(
      () => {
        if (this.#outstanding.size === 0) return this.#unwatch();
        if (performance.now() - this.#heardAtMs > silenceMsMax) this.#channel?.destroy();
        else this.#send({ kind: 'ping' });
      },
      Math.min(PING_INTERVAL_MS, silenceMsMax / 3),
    );
  }

  #unwatch(): void {
    clearInterval(this.#pinging);
    this.#pinging = undefined;
  }

  #send(message: ForwardRequest): void {
    this.#channel?.send(message);
  }

  async #connect(): Promise<void> {
    if (this.#closed || this.#dialing || this.#retry !== undefined) return;
    this.#dialing = true;
    try {
      const stream = await this.#config.dial(this.#cancel.signal);
      this.#dialing = false;
      this.#begin(stream);
    } catch (error) {
      this.#dialing = false;
      if (this.#closed) return;
      this.#config.log.debug({ err: error }, 'no connection with another manager yet');
      this.#pumpLater();
    }
  }

  #pumpLater(): void {
    if (this.#closed) return;
    this.#retry ??= setTimeout(() => {
      this.#retry = undefined;
      this.#pump();
    }, this.#backoff.take());
  }

  #begin(stream: Duplex): void {
    if (this.#closed || stream.destroyed) {
      stream.on('error', () => {});
      stream.destroy();
      this.#pumpLater();
      return;
    }
    this.#connections++;
    this.#stream = stream;
    this.#channel = new Channel(stream, {
      receiveBytesMax: FORWARD_BYTES_MAX,
      onMessage: (value) => this.#onMessage(value),
      onClose: () => this.#onClose(),
    });
    this.#pump();
  }

  #onClose(): void {
    this.#channel = undefined;
    this.#stream = undefined;
    this.#unwatch();
    this.#failAll([...this.#outstanding.values()], 'the connection was closed');
    if (this.#waiting.size > 0) this.#pumpLater();
  }

  #failAll(failed: readonly Pending[], why: string): void {
    for (const pending of failed) {
      this.#drop(pending);
      pending.settle(unanswered(pending.sent, why));
    }
  }

  #onMessage(value: unknown): void {
    this.#heardAtMs = performance.now();
    const message = parseForwardResponse(value);
    if (message === undefined) {
      this.#config.log.warn({}, 'a manager answered nonsense');
      this.#channel?.destroy();
      return;
    }
    this.#backoff.reset();
    if (message.kind === 'pong') return;
    const pending = this.#outstanding.get(message.request);
    // Answers to what was cancelled cross the cancellation.
    if (pending === undefined) return;
    this.#drop(pending);
    pending.settle(message);
    this.#pump();
  }
}

const TOO_LARGE: Refusal = {
  detail: { code: 'SWARM_INVALID' },
  message: 'the request is too large',
};

function unanswered(sent: boolean, why: string): Unanswered {
  return { kind: 'unanswered', sent, why };
}

function nonsense(sent: boolean): Unanswered {
  return unanswered(sent, 'the manager answered nonsense');
}
