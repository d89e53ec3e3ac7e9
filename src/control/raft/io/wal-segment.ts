import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import {
  beginFrame,
  encodeSegmentHeader,
  FRAME_BOUND_BYTES,
  FRAME_HEADER_BYTES,
  type Frame,
  finishFrame,
  frameBytes,
  SALT_BYTES,
  SEGMENT_HEADER_BYTES,
} from '../wire/wal-frame.js';
import type { Spare } from './segment-pool.js';
import { fileKey, frameNonce, openSealed, type StorageKey, sealInto } from './wal-seal.js';

export function segmentKey(key: StorageKey, salt: Uint8Array, sequence: number): Buffer {
  return fileKey(key, salt, `raft log segment ${sequence}`);
}

export function openFrame(bytes: Buffer, frame: Frame, key: Uint8Array): Buffer | undefined {
  const { offset, counter, endOffset } = frame;
  const bound = bytes.subarray(offset, offset + FRAME_BOUND_BYTES);
  const sealed = bytes.subarray(offset + FRAME_HEADER_BYTES, endOffset);
  return openSealed(key, frameNonce(counter), bound, sealed);
}

/** The segment that is being written: one frame after another, each on disk before the next begins. */
export class Segment {
  readonly sequence: number;
  readonly keyId: string;
  readonly spare: Spare;
  readonly #key: Buffer;
  readonly #header: Buffer;
  #sizeBytes: number;
  #offset = SEGMENT_HEADER_BYTES;
  /** Never goes back, so no nonce is used twice, whatever of a failed write is on the disk. */
  #counter = 0;
  #endCrc: number;
  #written = false;
  /** Up to where a write that failed may have left something. */
  #dirtyEnd = 0;

  /** @param link The crc of the last frame of the segment before. */
  constructor(spare: Spare, key: StorageKey, link: number) {
    this.spare = spare;
    this.sequence = spare.sequence;
    this.keyId = key.id;
    const salt = randomBytes(SALT_BYTES);
    this.#key = segmentKey(key, salt, spare.sequence);
    this.#header = encodeSegmentHeader({ sequence: spare.sequence, keyId: key.id, salt }, crc32);
    this.#sizeBytes = spare.sizeBytes;
    this.#endCrc = link;
  }

  get endCrc(): number {
    return this.#endCrc;
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Whether so much content finds room in what is allocated already, with so much left over. */
  hasRoom(plainBytes: number, reserveBytes: number): boolean {
    return this.#offset + frameBytes(plainBytes) + reserveBytes <= this.#sizeBytes;
  }

  /**
   * On disk when it resolves. If it does not, the segment is as before. A frame larger than the segment
   * makes it grow.
   */
  async append(plain: readonly Uint8Array[]): Promise<void> {
    const { file } = this.spare;
    if (this.#dirtyEnd > 0) {
      // A frame that is torn now must leave zeros, or it would not be known as torn.
      await file.write(Buffer.alloc(this.#dirtyEnd - this.#offset), this.#offset);
      this.#dirtyEnd = 0;
    }
    let plainBytes = 0;
    for (const part of plain) plainBytes += part.length;
    const headerBytes = this.#written ? 0 : SEGMENT_HEADER_BYTES;
    const bytes = Buffer.allocUnsafe(headerBytes + frameBytes(plainBytes));
    if (!this.#written) this.#header.copy(bytes);
    const crc = this.#seal(bytes, headerBytes, plain, plainBytes);
    const start = this.#offset - headerBytes;
    const end = start + bytes.length;
    try {
      await file.write(bytes, start);
    } catch (error) {
      this.#dirtyEnd = end;
      throw error;
    }
    this.#written = true;
    this.#endCrc = crc;
    this.#offset = end;
    this.#sizeBytes = Math.max(this.#sizeBytes, end);
  }

  #seal(target: Buffer, offset: number, plain: readonly Uint8Array[], plainBytes: number): number {
    const counter = this.#counter++;
    beginFrame(target, offset, plainBytes, counter, this.#endCrc);
    const bound = target.subarray(offset, offset + FRAME_BOUND_BYTES);
    const at = offset + FRAME_HEADER_BYTES;
    sealInto(target, at, this.#key, frameNonce(counter), bound, plain);
    return finishFrame(target, offset, this.sequence, crc32);
  }

  close(): Promise<void> {
    return this.spare.file.close();
  }
}
