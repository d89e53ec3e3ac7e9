/**
 * The outer form of a log segment: a header, then frames, then zeros to the end of the file, as
 * docs/wal-format.md has it. Integers are big-endian.
 *
 *   header  0 "SHOALWAL" | 8 u32 version | 12 u48 sequence | 18 u16 0 | 20 key id (8) | 28 salt (32)
 *           | 60 u32 crc of what is before
 *   frame   0 "SHFR" | 4 u32 n | 8 u32 counter | 12 u32 link | 16 u32 crc | 20 u32 header crc
 *           | 24 ciphertext (n) | tag (16) | ff to a multiple of 8
 *
 * `crc` is over bytes 0 to 15, ciphertext and tag; `link` is the `crc` of the frame before, also across
 * segments; `header crc` is over bytes 0 to 19. The sequence number of the segment is what all of them
 * begin with, so that a frame that strayed from another segment does not count. No eight bytes of a frame, where
 * it is cut at a multiple of eight, are zeros but by a chance of 2^-64: so a sector that was not written shows.
 */
export const WAL_VERSION = 1;
export const SEGMENT_HEADER_BYTES = 64;
export const FRAME_HEADER_BYTES = 24;
export const TAG_BYTES = 16;
export const SALT_BYTES = 32;
export const KEY_ID_BYTES = 8;
/** What is covered by `crc`, and is bound to the ciphertext as associated data. */
export const FRAME_BOUND_BYTES = 16;
const ALIGN_BYTES = 8;

const SEGMENT_MAGIC = new TextEncoder().encode('SHOALWAL');
const FRAME_MAGIC = 0x53484652;

/** CRC-32 (IEEE) that goes on from `value`, as zlib's does. */
export type Crc32 = (bytes: Uint8Array, value: number) => number;

export interface SegmentHeader {
  readonly sequence: number;
  /** 16 hexadecimal digits. */
  readonly keyId: string;
  readonly salt: Uint8Array;
}

export type SegmentHeaderRead =
  | { readonly kind: 'header'; readonly header: SegmentHeader }
  | { readonly kind: 'newer'; readonly version: number }
  | { readonly kind: 'damaged' };

export function encodeSegmentHeader(header: SegmentHeader, crc32: Crc32): Buffer {
  const bytes = Buffer.alloc(SEGMENT_HEADER_BYTES);
  bytes.set(SEGMENT_MAGIC, 0);
  bytes.writeUInt32BE(WAL_VERSION, 8);
  bytes.writeUIntBE(header.sequence, 12, 6);
  bytes.write(header.keyId, 20, KEY_ID_BYTES, 'hex');
  bytes.set(header.salt, 28);
  bytes.writeUInt32BE(crc32(bytes.subarray(0, 60), 0), 60);
  return bytes;
}

export function decodeSegmentHeader(bytes: Buffer, crc32: Crc32): SegmentHeaderRead {
  if (bytes.length < SEGMENT_HEADER_BYTES) return { kind: 'damaged' };
  if (!bytes.subarray(0, 8).equals(SEGMENT_MAGIC)) return { kind: 'damaged' };
  const version = bytes.readUInt32BE(8);
  // Before the checksum, which a newer version may have elsewhere.
  if (version > WAL_VERSION) return { kind: 'newer', version };
  if (version !== WAL_VERSION || crc32(bytes.subarray(0, 60), 0) !== bytes.readUInt32BE(60))
    return { kind: 'damaged' };
  return {
    kind: 'header',
    header: {
      sequence: bytes.readUIntBE(12, 6),
      keyId: bytes.toString('hex', 20, 20 + KEY_ID_BYTES),
      salt: bytes.subarray(28, 28 + SALT_BYTES),
    },
  };
}

/** What a frame with so much in it takes of the segment. */
export function frameBytes(plainBytes: number): number {
  const bytes = FRAME_HEADER_BYTES + plainBytes + TAG_BYTES;
  return Math.ceil(bytes / ALIGN_BYTES) * ALIGN_BYTES;
}

/**
 * Begins the frame at `offset` of `target`: the part that the seal is bound to. `finishFrame` follows when
 * ciphertext and tag are in place.
 */
export function beginFrame(
  target: Buffer,
  offset: number,
  plainBytes: number,
  counter: number,
  link: number,
): void {
  target.writeUInt32BE(FRAME_MAGIC, offset);
  target.writeUInt32BE(plainBytes, offset + 4);
  target.writeUInt32BE(counter, offset + 8);
  target.writeUInt32BE(link, offset + 12);
}

/** @returns The frame's crc, which the next one links to. */
export function finishFrame(
  target: Buffer,
  offset: number,
  sequence: number,
  crc32: Crc32,
): number {
  const sealedBytes = target.readUInt32BE(offset + 4) + TAG_BYTES;
  const crc = frameCrc(target, offset, sealedBytes, sequence, crc32);
  target.fill(
    0xff,
    offset + FRAME_HEADER_BYTES + sealedBytes,
    offset + frameBytes(sealedBytes - TAG_BYTES),
  );
  target.writeUInt32BE(crc, offset + 16);
  const header = target.subarray(offset, offset + 20);
  target.writeUInt32BE(crc32(header, seedOf(sequence)), offset + 20);
  return crc;
}

export interface Frame {
  readonly offset: number;
  readonly counter: number;
  readonly link: number;
  readonly crc: number;
  readonly plainBytes: number;
  /** Without the padding. */
  readonly endOffset: number;
  /** Of the next one. */
  readonly nextOffset: number;
}

export type FrameRead =
  | { readonly kind: 'frame'; readonly frame: Frame }
  /** The header is whole, and the rest is not what it promises; `nextOffset` may be past the end. */
  | { readonly kind: 'broken'; readonly nextOffset: number }
  /** There is not even a header. */
  | { readonly kind: 'nothing' };

export function readFrame(
  bytes: Buffer,
  offset: number,
  sequence: number,
  crc32: Crc32,
): FrameRead {
  if (offset + FRAME_HEADER_BYTES > bytes.length) return { kind: 'nothing' };
  if (bytes.readUInt32BE(offset) !== FRAME_MAGIC) return { kind: 'nothing' };
  const header = bytes.subarray(offset, offset + 20);
  if (crc32(header, seedOf(sequence)) !== bytes.readUInt32BE(offset + 20))
    return { kind: 'nothing' };
  const plainBytes = bytes.readUInt32BE(offset + 4);
  const nextOffset = offset + frameBytes(plainBytes);
  if (nextOffset > bytes.length) return { kind: 'broken', nextOffset };
  const crc = bytes.readUInt32BE(offset + 16);
  if (frameCrc(bytes, offset, plainBytes + TAG_BYTES, sequence, crc32) !== crc)
    return { kind: 'broken', nextOffset };
  const counter = bytes.readUInt32BE(offset + 8);
  const link = bytes.readUInt32BE(offset + 12);
  const endOffset = offset + FRAME_HEADER_BYTES + plainBytes + TAG_BYTES;
  return {
    kind: 'frame',
    frame: { offset, counter, link, crc, plainBytes, endOffset, nextOffset },
  };
}

/** Where the next whole frame is at or after `offset`; `undefined`: nowhere. */
export function findFrame(
  bytes: Buffer,
  offset: number,
  sequence: number,
  crc32: Crc32,
): number | undefined {
  const magic = Buffer.alloc(4);
  magic.writeUInt32BE(FRAME_MAGIC);
  for (let at = bytes.indexOf(magic, offset); at !== -1; at = bytes.indexOf(magic, at + 1)) {
    if (at % ALIGN_BYTES !== 0) continue;
    if (readFrame(bytes, at, sequence, crc32).kind === 'frame') return at;
  }
  return undefined;
}

function frameCrc(
  bytes: Buffer,
  offset: number,
  sealedBytes: number,
  sequence: number,
  crc32: Crc32,
): number {
  const bound = crc32(bytes.subarray(offset, offset + FRAME_BOUND_BYTES), seedOf(sequence));
  const start = offset + FRAME_HEADER_BYTES;
  return crc32(bytes.subarray(start, start + sealedBytes), bound);
}

function seedOf(sequence: number): number {
  return sequence % 2 ** 32;
}
