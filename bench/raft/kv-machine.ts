import type { StateMachine } from '../../src/control/raft/index.js';

/** What a client asks for. */
export interface Put {
  readonly kind: 'put';
  readonly key: string;
  readonly value: string;
}

/** Bytes of a piece of a snapshot, about. */
const PIECE_BYTES = 64 * 1024;

export function isPut(command: unknown): command is Put {
  const { kind, key, value } = command as Partial<Put>;
  return kind === 'put' && typeof key === 'string' && typeof value === 'string';
}

/** Puts of one entry of the log. */
export function encodePuts(puts: readonly Put[]): Uint8Array {
  return Buffer.from(JSON.stringify(puts.map(({ key, value }) => [key, value])));
}

/** Keys and values, replicated. */
export class KvMachine implements StateMachine {
  #values = new Map<string, string>();

  get size(): number {
    return this.#values.size;
  }

  /** @returns The entry's index. */
  apply({ index, data }: { readonly index: number; readonly data: Uint8Array }): number {
    for (const [key, value] of JSON.parse(
      Buffer.from(data.buffer, data.byteOffset, data.length).toString(),
    ) as [string, string][])
      this.#values.set(key, value);
    return index;
  }

  capture(): Iterable<Uint8Array> {
    return pieces([...this.#values]);
  }

  restore(data: Uint8Array): void {
    this.#values = new Map();
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    for (let at = 0; at < bytes.length; ) {
      const end = at + 4 + bytes.readUInt32BE(at);
      const rows = JSON.parse(bytes.toString('utf8', at + 4, end)) as [string, string][];
      for (const [key, value] of rows) this.#values.set(key, value);
      at = end;
    }
  }
}

function* pieces(rows: readonly (readonly [string, string])[]): Iterable<Uint8Array> {
  let piece: (readonly [string, string])[] = [];
  let size = 0;
  for (const row of rows) {
    piece.push(row);
    size += row[0].length + row[1].length;
    if (size < PIECE_BYTES) continue;
    yield encodePiece(piece);
    piece = [];
    size = 0;
  }
  if (piece.length > 0) yield encodePiece(piece);
}

function encodePiece(rows: readonly (readonly [string, string])[]): Uint8Array {
  const body = Buffer.from(JSON.stringify(rows));
  const head = Buffer.alloc(4);
  head.writeUInt32BE(body.length);
  return Buffer.concat([head, body]);
}
