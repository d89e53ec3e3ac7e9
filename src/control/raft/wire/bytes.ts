/**
 * Cursors over bytes. Integers are in LEB128 form, least significant seven bits first, so that the usual
 * small ones take a byte; they are exact up to `Number.MAX_SAFE_INTEGER`, and longer forms are refused.
 */
export class ByteWriter {
  #target: Buffer;
  #at = 0;

  /** @param sizeBytes A good guess; more is taken when needed. */
  constructor(sizeBytes: number) {
    this.#target = Buffer.allocUnsafe(Math.max(sizeBytes, 16));
  }

  u8(value: number): void {
    this.#reserve(1);
    this.#target[this.#at++] = value;
  }

  flag(value: boolean): void {
    this.u8(value ? 1 : 0);
  }

  u48(value: number): void {
    this.#reserve(6);
    this.#at = this.#target.writeUIntBE(value, this.#at, 6);
  }

  varint(value: number): void {
    this.#reserve(VARINT_BYTES_MAX);
    let rest = value;
    while (rest >= 0x80) {
      this.#target[this.#at++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#target[this.#at++] = rest;
  }

  /** With its length before it. */
  block(value: Uint8Array): void {
    this.varint(value.length);
    this.#reserve(value.length);
    this.#target.set(value, this.#at);
    this.#at += value.length;
  }

  /** What was written; the writer must not be used again. */
  finish(): Buffer {
    return this.#target.subarray(0, this.#at);
  }

  #reserve(count: number): void {
    if (this.#at + count <= this.#target.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#target.length * 2, this.#at + count));
    this.#target.copy(larger, 0, 0, this.#at);
    this.#target = larger;
  }
}

/** 53 bits at seven a byte. */
const VARINT_BYTES_MAX = 8;

const NOTHING = new Uint8Array(0);

/**
 * Reading past the end, or something out of bounds, only sets `failed`: a decoder reads on blindly and asks
 * once, at the end. What is read after a failure is zero or empty, so that no loop runs away.
 */
export class ByteReader {
  readonly #source: Uint8Array;
  #at = 0;
  failed = false;

  constructor(source: Uint8Array) {
    this.#source = source;
  }

  /** True if all was read, and nothing was wrong. */
  get done(): boolean {
    return !this.failed && this.#at === this.#source.length;
  }

  get remaining(): number {
    return this.failed ? 0 : this.#source.length - this.#at;
  }

  u8(): number {
    if (this.remaining < 1) return this.#fail();
    return this.#source[this.#at++] as number;
  }

  flag(): boolean {
    const byte = this.u8();
    if (byte > 1) this.#fail();
    return byte === 1;
  }

  u48(): number {
    if (this.remaining < 6) return this.#fail();
    let value = 0;
    for (let i = 0; i < 6; i++) value = value * 0x100 + (this.#source[this.#at++] as number);
    return value;
  }

  /** @param max The largest that makes sense here. */
  varint(max = Number.MAX_SAFE_INTEGER): number {
    let value = 0;
    let scale = 1;
    for (let i = 0; i < VARINT_BYTES_MAX; i++) {
      const byte = this.u8();
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return this.failed || value > max ? this.#fail() : value;
      scale *= 0x80;
    }
    return this.#fail();
  }

  /** A view, not a copy. @param bytesMax The longest that makes sense here. */
  block(bytesMax: number): Uint8Array {
    const length = this.varint(bytesMax);
    if (length > this.remaining) this.#fail();
    if (this.failed) return NOTHING;
    this.#at += length;
    return this.#source.subarray(this.#at - length, this.#at);
  }

  /** To be called for what can be read but makes no sense. */
  refuse(): void {
    this.failed = true;
  }

  #fail(): 0 {
    this.failed = true;
    return 0;
  }
}
