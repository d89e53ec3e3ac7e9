/**
 * Big-endian cursors. Writing asserts nothing and relies on the caller's sizes (Buffer itself
 * refuses to write past its end); reading past the end only sets `failed`, so that a decoder
 * can read on blindly and ask once.
 */
export class ByteWriter {
  readonly #target: Buffer;
  #offset = 0;

  constructor(target: Buffer) {
    this.#target = target;
  }

  get offset(): number {
    return this.#offset;
  }

  u8(value: number): void {
    this.#offset = this.#target.writeUInt8(value, this.#offset);
  }

  u16(value: number): void {
    this.#offset = this.#target.writeUInt16BE(value, this.#offset);
  }

  u32(value: number): void {
    this.#offset = this.#target.writeUInt32BE(value, this.#offset);
  }

  bytes(value: Uint8Array): void {
    this.#target.set(value, this.#offset);
    this.#offset += value.length;
  }

  /** ASCII text with its length in one byte before it. */
  text8(value: string): void {
    this.u8(value.length);
    this.#offset += this.#target.write(value, this.#offset, 'latin1');
  }
}

export class ByteReader {
  readonly #source: Buffer;
  readonly #end: number;
  #offset: number;
  /** True once something was read that is not there. Everything read since is zero or empty. */
  failed = false;

  constructor(source: Buffer, start = 0, end = source.length) {
    this.#source = source;
    this.#offset = start;
    this.#end = Math.min(end, source.length);
  }

  get remaining(): number {
    return this.#end - this.#offset;
  }

  u8(): number {
    return this.#take(1) ? this.#source.readUInt8(this.#offset - 1) : 0;
  }

  u16(): number {
    return this.#take(2) ? this.#source.readUInt16BE(this.#offset - 2) : 0;
  }

  u32(): number {
    return this.#take(4) ? this.#source.readUInt32BE(this.#offset - 4) : 0;
  }

  /** A view, not a copy. */
  bytes(count: number): Buffer {
    if (!this.#take(count)) return Buffer.alloc(0);
    return this.#source.subarray(this.#offset - count, this.#offset);
  }

  text8(): string {
    return this.bytes(this.u8()).toString('latin1');
  }

  /** A reader of the next `count` bytes alone, which are skipped here. */
  part(count: number): ByteReader {
    const start = this.#offset;
    if (!this.#take(count)) return new ByteReader(this.#source, start, start);
    return new ByteReader(this.#source, start, start + count);
  }

  #take(count: number): boolean {
    if (this.failed || this.#offset + count > this.#end) {
      this.failed = true;
      return false;
    }
    this.#offset += count;
    return true;
  }
}
