import { crc32 } from 'node:zlib';
import { FRAME_HEADER_BYTES } from '../../wire/frame.js';
import type { RaftId, SnapshotMeta, Term } from '../core/types.js';
import { ByteReader, ByteWriter } from '../wire/bytes.js';
import { readSnapshotMeta, writeSnapshotMeta } from '../wire/entry.js';

/**
 * What opens a stream between two members, and what goes over one of purpose `snapshot`. Every frame is a
 * big-endian u32 length and a body; `n` is a varint:
 *
 *   hello     'S' 'R' u8 version, u48 from, u48 to
 *   offer     u8 1, n term, snapshot metadata, n content bytes,       leader, after its hello
 *             n 32, SHA-256 of the content
 *   want      u8 2, n offset                                          receiver: what it has already
 *   chunk     u8 3, n offset, u32 crc of the data, n length, data     leader
 *   have      u8 4, n offset                                          receiver, for each chunk
 *   done      u8 5                                                    receiver: durable, and in place
 *   refuse    u8 6, u8 why                                            receiver
 */

/** Content bytes of one chunk. */
export const CHUNK_BYTES_MAX = 256 << 10;
/** A frame of a snapshot stream; the offer has the members in it. */
export const SNAPSHOT_FRAME_BYTES_MAX = CHUNK_BYTES_MAX + (128 << 10);
/** Bounds what a receiver would put on its disk, and hold while restoring. */
export const SNAPSHOT_BYTES_MAX = 2 ** 31;

const DIGEST_BYTES = 32;

const VERSION = 1;
const MAGIC = [0x53, 0x52] as const;

export interface Hello {
  readonly from: RaftId;
  readonly to: RaftId;
}

export type SnapshotRefusal =
  /** The receiver knows of a later term: the sender leads no more. */
  | 'stale'
  /** Another snapshot is being received. */
  | 'busy'
  /** A chunk was not what its checksum says, or not in its place; or the content is not as announced. */
  | 'damaged'
  /** The receiver's disk has refused. */
  | 'disk'
  | 'too_large';

/** Append only. */
const REFUSALS: readonly SnapshotRefusal[] = ['stale', 'busy', 'damaged', 'disk', 'too_large'];

export type SnapshotFrame =
  | {
      readonly kind: 'offer';
      readonly term: Term;
      readonly meta: SnapshotMeta;
      readonly sizeBytes: number;
      /** SHA-256 of the content. */
      readonly digest: Uint8Array;
    }
  | { readonly kind: 'want' | 'have'; readonly offsetBytes: number }
  | { readonly kind: 'chunk'; readonly offsetBytes: number; readonly data: Uint8Array }
  | { readonly kind: 'done' }
  | { readonly kind: 'refuse'; readonly why: SnapshotRefusal };

const CODES = { offer: 1, want: 2, chunk: 3, have: 4, done: 5, refuse: 6 } as const;

export function encodeHello(hello: Hello): Uint8Array {
  const writer = frameWriter(32);
  for (const byte of MAGIC) writer.u8(byte);
  writer.u8(VERSION);
  writer.u48(hello.from);
  writer.u48(hello.to);
  return finishFrame(writer);
}

/** `undefined`: not of this protocol, or of another version. */
export function decodeHello(body: Uint8Array): Hello | undefined {
  const reader = new ByteReader(body);
  for (const byte of MAGIC) if (reader.u8() !== byte) reader.refuse();
  if (reader.u8() !== VERSION) reader.refuse();
  const from = reader.u48() as RaftId;
  const to = reader.u48() as RaftId;
  return reader.done && from !== 0 && to !== 0 ? { from, to } : undefined;
}

export function encodeSnapshotFrame(frame: SnapshotFrame): Uint8Array {
  const writer = frameWriter(frame.kind === 'chunk' ? frame.data.length + 32 : 64);
  writer.u8(CODES[frame.kind]);
  switch (frame.kind) {
    case 'offer':
      writer.varint(frame.term);
      writeSnapshotMeta(writer, frame.meta);
      writer.varint(frame.sizeBytes);
      writer.block(frame.digest);
      break;
    case 'want':
    case 'have':
      writer.varint(frame.offsetBytes);
      break;
    case 'chunk': {
      writer.varint(frame.offsetBytes);
      const sum = crc32(frame.data);
      for (const shift of [24, 16, 8, 0]) writer.u8((sum >>> shift) & 0xff);
      writer.block(frame.data);
      break;
    }
    case 'refuse':
      writer.u8(REFUSALS.indexOf(frame.why));
      break;
    case 'done':
      break;
  }
  return finishFrame(writer);
}

/** `undefined`: nonsense; a chunk whose checksum is wrong is, too. */
export function decodeSnapshotFrame(body: Uint8Array): SnapshotFrame | undefined {
  const reader = new ByteReader(body);
  const frame = readSnapshotFrame(reader);
  return reader.done ? frame : undefined;
}

function readSnapshotFrame(reader: ByteReader): SnapshotFrame | undefined {
  switch (reader.u8()) {
    case CODES.offer:
      return {
        kind: 'offer',
        term: reader.varint(),
        meta: readSnapshotMeta(reader),
        sizeBytes: reader.varint(),
        digest: reader.block(DIGEST_BYTES),
      };
    case CODES.want:
      return { kind: 'want', offsetBytes: reader.varint() };
    case CODES.have:
      return { kind: 'have', offsetBytes: reader.varint() };
    case CODES.chunk: {
      const offsetBytes = reader.varint();
      let sum = 0;
      for (let i = 0; i < 4; i++) sum = sum * 0x100 + reader.u8();
      const data = reader.block(CHUNK_BYTES_MAX);
      return data.length > 0 && crc32(data) === sum
        ? { kind: 'chunk', offsetBytes, data }
        : undefined;
    }
    case CODES.done:
      return { kind: 'done' };
    case CODES.refuse: {
      const why = REFUSALS[reader.u8()];
      return why === undefined ? undefined : { kind: 'refuse', why };
    }
    default:
      return undefined;
  }
}

/** Room for the length is left in front. */
export function frameWriter(bodyBytes: number): ByteWriter {
  const writer = new ByteWriter(FRAME_HEADER_BYTES + bodyBytes);
  for (let i = 0; i < FRAME_HEADER_BYTES; i++) writer.u8(0);
  return writer;
}

export function finishFrame(writer: ByteWriter): Uint8Array {
  const frame = writer.finish();
  frame.writeUInt32BE(frame.length - FRAME_HEADER_BYTES);
  return frame;
}
