import { unreachable } from '../base/assert.js';
import type { LogRecord } from '../runtime/index.js';

/**
 * Lines of several tasks in one stream, from the node that runs them to the manager that asked:
 *
 *   0        4      5      7               15
 *  +--------+------+------+---------------+----------------+
 *  | length | kind | task |  nanoseconds  | bytes          |
 *  +--------+------+------+---------------+----------------+
 *
 * Big-endian. `length` counts what follows it; `task` is the place in the list that was asked for.
 * A beat says that the node is there though its tasks are silent.
 */
const HEAD_BYTES = 15;
const LENGTH_BYTES = 4;
/** A record of the `host` runtime or of an engine is far smaller. */
const FRAME_BYTES_MAX = 1 << 20;
const KINDS = ['beat', 'stdout', 'stderr', 'failed'] as const;

export type LogFrame =
  | { readonly kind: 'beat' }
  | { readonly kind: 'record'; readonly task: number; readonly record: LogRecord }
  /** This task's log ends here, and why. */
  | { readonly kind: 'failed'; readonly task: number; readonly reason: string };

export function encodeLogFrame(frame: LogFrame): Buffer {
  switch (frame.kind) {
    case 'beat':
      return bytesOf('beat', 0, 0n, EMPTY);
    case 'record':
      return bytesOf(frame.record.stream, frame.task, frame.record.atNs, frame.record.data);
    case 'failed':
      return bytesOf('failed', frame.task, 0n, Buffer.from(frame.reason));
    default:
      return unreachable(frame);
  }
}

const EMPTY = new Uint8Array();

function bytesOf(kind: (typeof KINDS)[number], task: number, atNs: bigint, data: Uint8Array) {
  const kept = data.subarray(0, FRAME_BYTES_MAX - HEAD_BYTES);
  const frame = Buffer.allocUnsafe(HEAD_BYTES + kept.length);
  frame.writeUInt32BE(frame.length - LENGTH_BYTES, 0);
  frame.writeUInt8(KINDS.indexOf(kind), 4);
  frame.writeUInt16BE(task, 5);
  frame.writeBigUInt64BE(BigInt.asUintN(64, atNs), 7);
  frame.set(kept, HEAD_BYTES);
  return frame;
}

/** Cuts a stream into frames, whatever the pieces it comes in. */
export class LogFrameReader {
  #rest: Buffer = Buffer.alloc(0);

  /** @returns The frames that are whole now; `undefined`: this is no such stream. */
  push(chunk: Uint8Array): LogFrame[] | undefined {
    this.#rest = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    const frames: LogFrame[] = [];
    let at = 0;
    while (this.#rest.length - at >= LENGTH_BYTES) {
      const end = at + LENGTH_BYTES + this.#rest.readUInt32BE(at);
      if (end - at < HEAD_BYTES || end - at > FRAME_BYTES_MAX) return undefined;
      if (end > this.#rest.length) break;
      const frame = decode(this.#rest.subarray(at, end));
      if (frame === undefined) return undefined;
      frames.push(frame);
      at = end;
    }
    this.#rest = this.#rest.subarray(at);
    return frames;
  }
}

function decode(bytes: Buffer): LogFrame | undefined {
  const kind = KINDS[bytes.readUInt8(4)];
  const task = bytes.readUInt16BE(5);
  const data = bytes.subarray(HEAD_BYTES);
  if (kind === undefined || kind === 'beat') return kind && { kind };
  if (kind === 'failed') return { kind, task, reason: data.toString() };
  const record = { stream: kind, atNs: bytes.readBigUInt64BE(7), data };
  return { kind: 'record', task, record };
}
