import type { Duplex } from 'node:stream';
import { Connection, type ConnectionEnd } from './connection.js';
import {
  decodeHello,
  decodeSnapshotFrame,
  type Hello,
  SNAPSHOT_FRAME_BYTES_MAX,
  type SnapshotFrame,
} from './stream-frames.js';

/** Frames that were received and not asked for: twice what a sender has on its way. */
const INBOX_MAX = 16;
/** Without a sign of life from the other side for so long, there is none. */
const SILENCE_MS_MAX = 2_000;

/** The stream has ended, or what came makes no sense here. */
export class SnapshotStreamEnd extends Error {}

/** The frames of one snapshot, to be asked for one after another. */
export class SnapshotStream {
  readonly #connection: Connection;
  readonly #inbox: Uint8Array[] = [];
  #waiting:
    | { readonly resolve: (body: Uint8Array) => void; readonly reject: () => void }
    | undefined;
  #end: ConnectionEnd | undefined;

  constructor(stream: Duplex) {
    this.#connection = new Connection(stream, {
      frameBytesMax: SNAPSHOT_FRAME_BYTES_MAX,
      silenceMs: SILENCE_MS_MAX,
      beats: true,
      onFrame: (body) => this.#onFrame(body),
      onEnd: (end) => {
        this.#end = end;
        this.#waiting?.reject();
      },
    });
  }

  get ended(): boolean {
    return this.#end !== undefined;
  }

  /** Resolves when there is room for more. */
  write(frame: Uint8Array): Promise<void> {
    this.#connection.write(frame);
    return this.#connection.drained();
  }

  /** @throws SnapshotStreamEnd when nothing comes within `timeoutMs`, or something else. */
  async receiveHello(timeoutMs: number): Promise<Hello> {
    const hello = decodeHello(await this.#receive(timeoutMs));
    return hello ?? this.#refuse();
  }

  /** @throws SnapshotStreamEnd when nothing comes within `timeoutMs`, or something else. */
  async receive(timeoutMs: number): Promise<SnapshotFrame> {
    const frame = decodeSnapshotFrame(await this.#receive(timeoutMs));
    return frame ?? this.#refuse();
  }

  /** What was received already, without waiting. */
  get pending(): number {
    return this.#inbox.length;
  }

  /** To be called now and then. */
  tick(): void {
    this.#connection.tick();
  }

  end(): void {
    this.#connection.end('unwanted');
  }

  /** What was sent before still goes out. */
  finish(): void {
    this.#connection.finish();
  }

  #onFrame(body: Uint8Array): void {
    if (this.#waiting !== undefined) this.#waiting.resolve(body);
    else if (this.#inbox.length < INBOX_MAX) this.#inbox.push(body);
    else this.#connection.end('malformed_frame');
  }

  #receive(timeoutMs: number): Promise<Uint8Array> {
    const waiting = this.#inbox.shift();
    if (waiting !== undefined) return Promise.resolve(waiting);
    if (this.#end !== undefined) return Promise.reject(this.#ended());
    return new Promise((resolve, reject) => {
      const settle = () => {
        clearTimeout(timer);
        this.#waiting = undefined;
      };
      const timer = setTimeout(() => this.#connection.end('silent'), timeoutMs);
      this.#waiting = {
        resolve: (body) => {
          settle();
          resolve(body);
        },
        reject: () => {
          settle();
          reject(this.#ended());
        },
      };
    });
  }

  #refuse(): never {
    this.#connection.end('malformed_frame');
    throw this.#ended();
  }

  #ended(): SnapshotStreamEnd {
    return new SnapshotStreamEnd(this.#end ?? 'closed');
  }
}
