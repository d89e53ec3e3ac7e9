/**
 * Output of a container without a terminal, as Docker multiplexes it:
 *
 *   0        1            4        8
 *  +--------+------------+--------+-------
 *  | stream | 0          | length | bytes
 *  +--------+------------+--------+-------
 *
 * `stream`: 1 standard output, 2 standard error, 3 a message of the engine itself.
 */
const HEAD_BYTES = 8;
/** An engine's log messages have at most 16 KiB, and a little of its own. */
const PIECE_BYTES_MAX = 1 << 20;
const STREAMS = { 1: 'stdout', 2: 'stderr', 3: 'engine' } as const;

export interface RawPiece {
  readonly stream: 'stdout' | 'stderr' | 'engine';
  readonly data: Buffer;
}

/** Cuts a stream into pieces, whatever chunks it comes in. */
export class RawStreamReader {
  #rest: Buffer = Buffer.alloc(0);

  /** @returns `undefined`: this is no such stream. */
  push(chunk: Uint8Array): RawPiece[] | undefined {
    this.#rest = this.#rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#rest, chunk]);
    const pieces: RawPiece[] = [];
    let at = 0;
    while (this.#rest.length - at >= HEAD_BYTES) {
      const stream = STREAMS[this.#rest.readUInt8(at) as 1 | 2 | 3] as
        | RawPiece['stream']
        | undefined;
      const end = at + HEAD_BYTES + this.#rest.readUInt32BE(at + 4);
      if (stream === undefined || end - at > PIECE_BYTES_MAX) return undefined;
      if (end > this.#rest.length) break;
      pieces.push({ stream, data: this.#rest.subarray(at + HEAD_BYTES, end) });
      at = end;
    }
    this.#rest = this.#rest.subarray(at);
    return pieces;
  }
}

/** Lines of a terminal, which are not multiplexed. */
export class LineReader {
  #rest: Buffer = Buffer.alloc(0);

  push(chunk: Uint8Array): Buffer[] {
    this.#rest = Buffer.concat([this.#rest, chunk]);
    const lines: Buffer[] = [];
    let at = 0;
    for (;;) {
      const newline = this.#rest.indexOf(0x0a, at);
      if (newline < 0) break;
      lines.push(this.#rest.subarray(at, newline + 1));
      at = newline + 1;
    }
    this.#rest = this.#rest.subarray(at);
    if (this.#rest.length > PIECE_BYTES_MAX) lines.push(...this.end());
    return lines;
  }

  /** What came without an end of line. */
  end(): Buffer[] {
    const rest = this.#rest;
    this.#rest = Buffer.alloc(0);
    return rest.length === 0 ? [] : [rest];
  }
}
