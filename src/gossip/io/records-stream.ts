import type { Stream } from '@libp2p/interface';
import {
  decodeExchange,
  type ExchangeDrop,
  type ExchangeMessage,
  encodeExchange,
} from '../wire/record-exchange.js';
import { encodeFrame, FrameReader } from '../wire/record-frames.js';

/** A stream that nothing moves on is a leak: the core gives up long before. */
const INACTIVITY_MS = 10_000;
const CLOSE_MS = 2_000;

export interface ExchangeListener {
  onMessage(message: ExchangeMessage): void;
  /** The peer broke the format: the stream was aborted, `onClosed` follows. */
  onDrop(reason: ExchangeDrop): void;
  /** No message comes any more. Perhaps more than once. */
  onClosed(): void;
}

/**
 * One anti-entropy conversation on a libp2p stream: messages may be sent before it is open.
 *
 * Needs no back-pressure of its own, since the next page goes only after the last was taken.
 */
export class ExchangeStream {
  readonly #listener: ExchangeListener;
  readonly #reader = new FrameReader();
  #stream: Stream | undefined;
  #early: ExchangeMessage[] = [];
  #ended: 'close' | 'abort' | undefined;

  constructor(listener: ExchangeListener) {
    this.#listener = listener;
  }

  /** Gives it the stream that was opened, or that came in. */
  attach(stream: Stream): void {
    this.#stream = stream;
    stream.inactivityTimeout = INACTIVITY_MS;
    stream.addEventListener('message', ({ data }) => this.#onData(data.subarray()));
    stream.addEventListener('end', () => this.#listener.onClosed());
    stream.addEventListener('close', () => this.#listener.onClosed());
    const early = this.#early;
    this.#early = [];
    for (const message of early) this.send(message);
    if (this.#ended === 'close') this.#close(stream);
    if (this.#ended === 'abort') this.abort();
  }

  send(message: ExchangeMessage): void {
    if (this.#stream === undefined) {
      this.#early.push(message);
      return;
    }
    try {
      this.#stream.send(encodeFrame(encodeExchange(message)));
    } catch (error) {
      // The stream was closed under us: what it was for will be asked for again.
      this.#stream.abort(error instanceof Error ? error : new Error(String(error)));
      this.#listener.onClosed();
    }
  }

  /** After what was sent has left. */
  close(): void {
    this.#ended = 'close';
    if (this.#stream !== undefined) this.#close(this.#stream);
  }

  abort(): void {
    this.#ended = 'abort';
    this.#stream?.abort(new Error('exchange broken off'));
  }

  #close(stream: Stream): void {
    stream.close({ signal: AbortSignal.timeout(CLOSE_MS) }).catch((error) => stream.abort(error));
  }

  #onData(bytes: Uint8Array): void {
    const frames = this.#reader.push(bytes);
    if (frames === undefined) {
      this.#drop('exchange_oversized');
      return;
    }
    for (const frame of frames) {
      if (this.#ended !== undefined) return;
      const message = decodeExchange(frame);
      if (typeof message === 'string') {
        this.#drop(message);
        return;
      }
      this.#listener.onMessage(message);
    }
  }

  #drop(reason: ExchangeDrop): void {
    this.abort();
    this.#listener.onDrop(reason);
    this.#listener.onClosed();
  }
}
