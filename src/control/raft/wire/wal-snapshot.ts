import { ByteReader, ByteWriter } from './bytes.js';
import { readSnapshotMeta, writeSnapshotMeta } from './entry.js';
import type { SnapshotMeta } from './records.js';
import { type Crc32, KEY_ID_BYTES, SALT_BYTES, TAG_BYTES } from './wal-frame.js';

/**
 * A snapshot file, as docs/wal-format.md has it. Integers are big-endian; every sealed part is a random nonce
 * (12), ciphertext and tag (16), and is bound to what it is and where it stands.
 *
 *   header   0 "SHOALSNP" | 8 u32 version | 12 u32 n, bytes of the sealed description | 16 key id (8)
 *            | 24 salt (32) | 56 u32 0 | 60 u32 crc of what is before
 *   then     sealed description (n)
 *            sealed chunks of 256 KiB of content each; the last may be shorter
 *            sealed trailer: u48 content bytes | SHA-256 of the content
 *   description: snapshot meta, n announced bytes, n length, announced digest (0 or 32)
 */
export const SNAPSHOT_VERSION = 1;
export const SNAPSHOT_HEADER_BYTES = 64;
export const CHUNK_BYTES = 256 * 1024;
export const DIGEST_BYTES = 32;
export const SEALED_OVERHEAD_BYTES = 12 + TAG_BYTES;
export const TRAILER_BYTES = 6 + DIGEST_BYTES;
/** Members have contexts, a kilobyte each at most. */
export const DESCRIPTION_BYTES_MAX = 1024 * 1024;

const MAGIC = new TextEncoder().encode('SHOALSNP');

export interface SnapshotHeader {
  readonly descriptionBytes: number;
  readonly keyId: string;
  readonly salt: Uint8Array;
}

export type SnapshotHeaderRead =
  | { readonly kind: 'header'; readonly header: SnapshotHeader }
  | { readonly kind: 'newer'; readonly version: number }
  | { readonly kind: 'damaged' };

/** What a snapshot is of; and, for one that is being received, what the sender has announced. */
export interface SnapshotDescription {
  readonly meta: SnapshotMeta;
  /** 0 for one of the own state machine: nobody knows before the end. */
  readonly sizeBytes: number;
  /** SHA-256 of the content; empty if it was not announced. */
  readonly digest: Uint8Array;
}

export function encodeSnapshotHeader(header: SnapshotHeader, crc32: Crc32): Buffer {
  const bytes = Buffer.alloc(SNAPSHOT_HEADER_BYTES);
  bytes.set(MAGIC, 0);
  bytes.writeUInt32BE(SNAPSHOT_VERSION, 8);
  bytes.writeUInt32BE(header.descriptionBytes, 12);
  bytes.write(header.keyId, 16, KEY_ID_BYTES, 'hex');
  bytes.set(header.salt, 24);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 60), 0), 60);
  return bytes;
}

export function decodeSnapshotHeader(bytes: Buffer, crc32: Crc32): SnapshotHeaderRead {
  if (bytes.length < SNAPSHOT_HEADER_BYTES) return { kind: 'damaged' };
  if (!bytes.subarray(0, 8).equals(MAGIC)) return { kind: 'damaged' };
  const version = bytes.readUInt32BE(8);
  if (version > SNAPSHOT_VERSION) return { kind: 'newer', version };
  const descriptionBytes = bytes.readUInt32BE(12);
  const whole = crc32(bytes.subarray(0, 60), 0) === bytes.readUInt32BE(60);
  if (version !== SNAPSHOT_VERSION || !whole || descriptionBytes > DESCRIPTION_BYTES_MAX)
    return { kind: 'damaged' };
  const keyId = bytes.toString('hex', 16, 16 + KEY_ID_BYTES);
  const salt = bytes.subarray(24, 24 + SALT_BYTES);
  return { kind: 'header', header: { descriptionBytes, keyId, salt } };
}

export function encodeDescription(description: SnapshotDescription): Uint8Array {
  const writer = new ByteWriter(1024);
  writeSnapshotMeta(writer, description.meta);
  writer.varint(description.sizeBytes);
  writer.block(description.digest);
  return writer.finish();
}

export function decodeDescription(bytes: Uint8Array): SnapshotDescription | undefined {
  const reader = new ByteReader(bytes);
  const meta = readSnapshotMeta(reader);
  const sizeBytes = reader.varint();
  const digest = reader.block(DIGEST_BYTES);
  return reader.done ? { meta, sizeBytes, digest } : undefined;
}

export function encodeTrailer(sizeBytes: number, digest: Uint8Array): Buffer {
  const bytes = Buffer.alloc(TRAILER_BYTES);
  bytes.writeUIntBE(sizeBytes, 0, 6);
  bytes.set(digest, 6);
  return bytes;
}

export function decodeTrailer(
  bytes: Buffer,
): { readonly sizeBytes: number; readonly digest: Buffer } | undefined {
  if (bytes.length !== TRAILER_BYTES) return undefined;
  return { sizeBytes: bytes.readUIntBE(0, 6), digest: bytes.subarray(6) };
}

/** How much of a file's chunks (without header, description and trailer) is content; `undefined`: impossible. */
export function contentBytes(chunksBytes: number): number | undefined {
  if (chunksBytes < 0) return undefined;
  const whole = Math.floor(chunksBytes / (CHUNK_BYTES + SEALED_OVERHEAD_BYTES));
  const rest = chunksBytes - whole * (CHUNK_BYTES + SEALED_OVERHEAD_BYTES);
  if (rest === 0) return whole * CHUNK_BYTES;
  return rest > SEALED_OVERHEAD_BYTES
    ? whole * CHUNK_BYTES + rest - SEALED_OVERHEAD_BYTES
    : undefined;
}

/** What a sealed part is bound to, so that parts cannot change places. */
export function partName(kind: 'description' | 'chunk' | 'trailer', number: number): Buffer {
  const bytes = Buffer.alloc(7);
  bytes[0] = kind.charCodeAt(0);
  bytes.writeUIntBE(number, 1, 6);
  return bytes;
}
