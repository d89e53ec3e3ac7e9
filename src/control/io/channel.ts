import type { Duplex } from 'node:stream';
import { FrameDecoder } from '../core/frame-decoder.js';
import { decodeJson, encodeFrame, MESSAGE_BYTES_MAX } from '../wire/frame.js';

/** Bytes that may wait for a slow peer; beyond it the connection is given up. */
const SEND_BUFFER_BYTES_MAX = 16 << 20;

/** How long a peer may take to hang up after the last message. */
const ENDING_MS_MAX = 1_000;

export interface ChannelConfig {
  readonly receiveBytesMax?: number;
  /** A message's JSON value, not yet judged. */
  readonly onMessage: (value: unknown) => void;
  /** Once; whatever the reason. */
  readonly onClose: () => void;
}

/** Length-prefixed JSON messages on a stream. Whatever the peer sends, nothing is thrown. */
export class Channel {
  readonly #stream: Duplex;
  readonly #config: ChannelConfig;
  readonly #decoder: FrameDecoder;
  #closed = false;
  #ending: NodeJS.Timeout | undefined;

  constructor(stream: Duplex, config: ChannelConfig) {
    this.#stream = stream;
    this.#config = config;
    this.#decoder = new FrameDecoder(config.receiveBytesMax ?? MESSAGE_BYTES_MAX);
    stream.on('data', (chunk: Buffer) => this.#onData(chunk));
    stream.on('error', () => stream.destroy());
    stream.on('end', () => stream.destroy());
    stream.once('close', () => this.#onClose());
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** False: the connection is gone, or was given up because the peer does not read. */
  send(message: unknown): boolean {
    return !this.#closed && this.sendFrame(encodeFrame(message));
  }

  /** A message that many are sent, encoded once. */
  sendFrame(frame: Uint8Array): boolean {
    if (this.#closed || this.#stream.writableEnded) return false;
    if (this.#stream.writableLength > SEND_BUFFER_BYTES_MAX) {
      this.destroy();
      return false;
    }
    this.#stream.write(frame);
    return true;
  }

  /**
   * What was sent before still goes out; what comes in is ignored, and read all the same, since
   * closing with unread bytes would reset the connection under the last message.
   */
  end(): void {
    if (this.#closed || this.#ending !== undefined) return;
    this.#ending = setTimeout(() => this.#stream.destroy(), ENDING_MS_MAX);
    this.#stream.end();
  }

  destroy(): void {
    this.#stream.destroy();
  }

  #onData(chunk: Buffer): void {
    if (this.#ending !== undefined) return;
    for (const body of this.#decoder.push(chunk)) {
      if (this.#closed || this.#ending !== undefined) return;
      this.#config.onMessage(decodeJson(body));
    }
    if (this.#decoder.broken) this.destroy();
  }

  #onClose(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#ending);
    this.#config.onClose();
  }
}
