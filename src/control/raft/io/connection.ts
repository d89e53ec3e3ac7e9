import type { Duplex } from 'node:stream';
import { nowMs } from '../../../base/io/driver.js';
import { FrameDecoder } from '../../core/frame-decoder.js';
import { FRAME_HEADER_BYTES } from '../../wire/frame.js';

/** A frame that takes longer to arrive is not worth waiting for. */
export const FRAME_MS_MAX = 10_000;
/** How long the other side may take to hang up after the last frame. */
const FINISH_MS_MAX = 500;

/** Why a connection ended, and what is counted. */
export type ConnectionEnd =
  /** The stream ended, by itself or by the other side. */
  | 'closed'
  /** A frame announced more than is allowed. */
  | 'oversized_frame'
  /** A frame did not finish in time. */
  | 'slow_frame'
  /** A frame that means nothing, or nothing here. */
  | 'malformed_frame'
  /** What was sent was not acknowledged in time: half-dead. */
  | 'silent'
  /** A newer connection of the same peer took its place. */
  | 'replaced'
  /** This side has no use for it any more. */
  | 'unwanted';

export interface ConnectionConfig {
  readonly frameBytesMax: number;
  /** How long a frame may take to arrive whole. Default `FRAME_MS_MAX`. */
  readonly frameMs?: number;
  /** How long the other side may leave what was sent without any sign of life. */
  readonly silenceMs: number;
  /** Both sides give signs of life at every tick, whether there is anything to answer or not. */
  readonly beats?: boolean;
  /** The body of a frame, never empty; a buffer of its own. */
  readonly onFrame: (body: Uint8Array) => void;
  /** Once. */
  readonly onEnd: (end: ConnectionEnd) => void;
}

const ECHO = Buffer.alloc(FRAME_HEADER_BYTES);

/**
 * Length-prefixed frames on a stream, in both directions. Frames without a body are echoes: a side that has
 * received something says so at its next tick, so that the other can tell a dead path from a quiet peer. TCP
 * alone would notice after minutes.
 */
export class Connection {
  readonly #stream: Duplex;
  readonly #config: ConnectionConfig;
  readonly #decoder: FrameDecoder;
  readonly openedMs = nowMs();
  /** Received bytes that belong to a frame which is not complete. */
  #partialBytes = 0;
  #partialSinceMs = 0;
  /** When the first of what is unacknowledged was sent. */
  #unansweredSinceMs: number | undefined;
  #echoDue = false;
  #ended = false;

  constructor(stream: Duplex, config: ConnectionConfig) {
    this.#stream = stream;
    this.#config = config;
    this.#decoder = new FrameDecoder(config.frameBytesMax);
    stream.on('error', () => this.end('closed'));
    stream.on('end', () => this.end('closed'));
    stream.once('close', () => this.end('closed'));
    stream.on('data', (chunk: Buffer) => this.#onData(chunk));
    if (stream.destroyed) queueMicrotask(() => this.end('closed'));
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** Bytes that were sent and that the stream has not taken yet. */
  get backlogBytes(): number {
    return this.#stream.writableLength;
  }

  /** @param frame With its header. */
  write(frame: Uint8Array): void {
    if (this.#ended) return;
    this.#unansweredSinceMs ??= nowMs();
    this.#stream.write(frame);
  }

  /** Resolves when the stream takes more, or has ended. */
  drained(): Promise<void> {
    if (this.#ended || !this.#stream.writableNeedDrain) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.#stream.removeListener('drain', done);
        this.#stream.removeListener('close', done);
        resolve();
      };
      this.#stream.once('drain', done);
      this.#stream.once('close', done);
    });
  }

  /** To be called now and then: sends what is due, and ends the connection if it is of no use. */
  tick(): void {
    if (this.#ended) return;
    const now = nowMs();
    const { silenceMs, frameMs = FRAME_MS_MAX, beats = false } = this.#config;
    if (this.#partialBytes > 0 && now - this.#partialSinceMs > frameMs) this.end('slow_frame');
    else if (this.#unansweredSinceMs !== undefined && now - this.#unansweredSinceMs > silenceMs)
      this.end('silent');
    else if (this.#echoDue || beats) {
      this.#echoDue = false;
      if (beats) this.#unansweredSinceMs ??= now;
      this.#stream.write(ECHO);
    }
  }

  /** Nothing is received or sent after this. */
  end(end: ConnectionEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#stream.destroy();
    this.#config.onEnd(end);
  }

  /** As `end`, but what was sent before still goes out, within a bounded time. */
  finish(): void {
    if (this.#ended) return;
    this.#ended = true;
    const stream = this.#stream;
    const timer = setTimeout(() => stream.destroy(), FINISH_MS_MAX);
    stream.once('close', () => clearTimeout(timer));
    // What still comes in is read and ignored: unread bytes would reset the connection under the last frame.
    stream.end();
    this.#config.onEnd('unwanted');
  }

  #onData(chunk: Buffer): void {
    if (this.#ended) return;
    this.#unansweredSinceMs = undefined;
    const before = this.#partialBytes;
    this.#partialBytes += chunk.length;
    for (const body of this.#decoder.push(chunk)) {
      this.#partialBytes -= FRAME_HEADER_BYTES + body.length;
      if (body.length === 0) continue;
      this.#echoDue = true;
      this.#config.onFrame(body);
      if (this.#ended) return;
    }
    if (this.#decoder.broken) {
      this.end('oversized_frame');
      return;
    }
    if (this.#partialBytes > FRAME_HEADER_BYTES) this.#echoDue = true;
    // Of a frame that began with this chunk, or earlier if none was completed since.
    if (this.#partialBytes < before + chunk.length || before === 0) this.#partialSinceMs = nowMs();
  }
}
