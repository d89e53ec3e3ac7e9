import { assert } from '../../base/assert.js';

/** Epochs and sequences travel as 48-bit integers: milliseconds until the year 10889. */
export const UINT48_MAX = 0xffff_ffff_ffff;

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes that `text` takes in UTF-8. */
export function utf8Bytes(text: string): number {
  return Buffer.byteLength(text, 'utf8');
}

/** Grows as needed; big-endian. Its caller is us, so it asserts. */
export class ByteWriter {
  #buffer: Buffer;
  #size = 0;

  constructor(sizeBytesHint = 256) {
    this.#buffer = Buffer.allocUnsafe(sizeBytesHint);
  }

  get sizeBytes(): number {
    return this.#size;
  }

  uint8(value: number): void {
    const offset = this.#take(1);
    this.#buffer.writeUInt8(value, offset);
  }

  uint16(value: number): void {
    const offset = this.#take(2);
    this.#buffer.writeUInt16BE(value, offset);
  }

  uint32(value: number): void {
    const offset = this.#take(4);
    this.#buffer.writeUInt32BE(value, offset);
  }

  uint48(value: number): void {
    const offset = this.#take(6);
    this.#buffer.writeUIntBE(value, offset, 6);
  }

  bytes(value: Uint8Array): void {
    const offset = this.#take(value.length);
    this.#buffer.set(value, offset);
  }

  /** Length in one byte, then UTF-8. */
  text8(text: string): void {
    const sizeBytes = utf8Bytes(text);
    assert(sizeBytes <= 0xff, 'a text of the record wire fits its length byte');
    this.uint8(sizeBytes);
    const offset = this.#take(sizeBytes);
    this.#buffer.write(text, offset, 'utf8');
  }

  /** What was written; the writer must not be used after. */
  finish(): Buffer {
    return this.#buffer.subarray(0, this.#size);
  }

  /** Makes room first: it may replace the buffer. */
  #take(sizeBytes: number): number {
    const offset = this.#size;
    const need = offset + sizeBytes;
    if (need > this.#buffer.length) {
      const grown = Buffer.allocUnsafe(Math.max(need, this.#buffer.length * 2));
      this.#buffer.copy(grown, 0, 0, offset);
      this.#buffer = grown;
    }
    this.#size = need;
    return offset;
  }
}

/**
 * Reads what a peer wrote and never throws: after the first read past the end, or of text that is
 * not UTF-8, `ok` stays false and every read answers zero or empty. Check `ok` before use.
 */
export class ByteReader {
  readonly #buffer: Buffer;
  #offset = 0;
  #ok = true;

  constructor(bytes: Uint8Array) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get ok(): boolean {
    return this.#ok;
  }

  /** Bytes not read yet: a bound for any count that the peer claims. */
  get restBytes(): number {
    return this.#buffer.length - this.#offset;
  }

  /** True if all was read and nothing failed. */
  get done(): boolean {
    return this.#ok && this.#offset === this.#buffer.length;
  }

  uint8(): number {
    const offset = this.#take(1);
    return offset < 0 ? 0 : this.#buffer.readUInt8(offset);
  }

  uint16(): number {
    const offset = this.#take(2);
    return offset < 0 ? 0 : this.#buffer.readUInt16BE(offset);
  }

  uint32(): number {
    const offset = this.#take(4);
    return offset < 0 ? 0 : this.#buffer.readUInt32BE(offset);
  }

  uint48(): number {
    const offset = this.#take(6);
    return offset < 0 ? 0 : this.#buffer.readUIntBE(offset, 6);
  }

  /** A view, valid as long as the buffer is: copy what outlives the message. */
  bytes(sizeBytes: number): Uint8Array {
    const offset = this.#take(sizeBytes);
    return this.#buffer.subarray(Math.max(offset, 0), offset < 0 ? 0 : offset + sizeBytes);
  }

  text8(): string {
    const bytes = this.bytes(this.uint8());
    try {
      return utf8.decode(bytes);
    } catch {
      this.#ok = false;
      return '';
    }
  }

  #take(sizeBytes: number): number {
    if (!this.#ok || sizeBytes > this.restBytes) {
      this.#ok = false;
      return -1;
    }
    const offset = this.#offset;
    this.#offset += sizeBytes;
    return offset;
  }
}
