import { FRAME_HEADER_BYTES } from '../wire/frame.js';

/**
 * Cuts a byte stream into frames. Peer bytes never throw: a frame that announces more than
 * `frameBytesMax` makes the decoder `broken`, after which the connection is of no use.
 */
export class FrameDecoder {
  readonly #frameBytesMax: number;
  #chunks: Uint8Array[] = [];
  #buffered = 0;
  #broken = false;

  constructor(frameBytesMax: number) {
    this.#frameBytesMax = frameBytesMax;
  }

  get broken(): boolean {
    return this.#broken;
  }

  /** Adds bytes and returns the bodies of the frames that they complete, oldest first. */
  push(chunk: Uint8Array): Uint8Array[] {
    if (this.#broken || chunk.length === 0) return [];
    this.#chunks.push(chunk);
    this.#buffered += chunk.length;
    const bodies: Uint8Array[] = [];
    while (this.#buffered >= FRAME_HEADER_BYTES) {
      const bodyBytes = this.#peekLength();
      if (bodyBytes > this.#frameBytesMax) {
        this.#broken = true;
        this.#chunks = [];
        this.#buffered = 0;
        break;
      }
      if (this.#buffered < FRAME_HEADER_BYTES + bodyBytes) break;
      bodies.push(this.#take(FRAME_HEADER_BYTES + bodyBytes).subarray(FRAME_HEADER_BYTES));
    }
    return bodies;
  }

  #peekLength(): number {
    let length = 0;
    let seen = 0;
    for (const chunk of this.#chunks) {
      for (let i = 0; i < chunk.length && seen < FRAME_HEADER_BYTES; i++, seen++)
        length = length * 256 + (chunk[i] ?? 0);
      if (seen === FRAME_HEADER_BYTES) break;
    }
    return length;
  }

  /**
   * One copy per frame, and none for the rest of the last chunk; none at all of a frame that is most of its
   * chunk: whoever keeps it keeps little more than it.
   */
  #take(size: number): Uint8Array {
    const [first] = this.#chunks;
    if (first !== undefined && size <= first.length && 2 * size >= first.length) {
      if (size === first.length) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(size);
      this.#buffered -= size;
      return first.subarray(0, size);
    }
    const taken = Buffer.allocUnsafeSlow(size);
    let filled = 0;
    let used = 0;
    while (filled < size) {
      const chunk = this.#chunks[used] as Uint8Array;
      const part = chunk.subarray(0, size - filled);
      taken.set(part, filled);
      filled += part.length;
      if (part.length === chunk.length) used++;
      else this.#chunks[used] = chunk.subarray(part.length);
    }
    this.#chunks.splice(0, used);
    this.#buffered -= size;
    return taken;
  }
}
