/**
 * A snapshot of the store: lines of JSON, each ended by a line feed.
 *
 *   {"format":"shoal-store","schema":3,"version":N}      what the state's version was
 *   ["node","<key>",{…}]                                 one row of one table
 *   ["=outcome","<dedupe>",{…}]                          an answer that may be asked for again
 *   ["=history","",{…}]                                  an entry of the history, the oldest first
 *   ["=end","",<count of the lines between>]             the last line: nothing was cut off
 *
 * A name that begins with `=` is no table. `schema` is raised when an older program could not
 * go on from it: 3 has services and tasks, where 2 had none.
 */
const FORMAT = 'shoal-store';
export const SNAPSHOT_SCHEMA = 3;
/** What a swarm had before is what it has now. */
const SNAPSHOT_SCHEMA_OLDEST = 2;
const END = '=end';
const LF = 0x0a;
/** A chunk is at least this, and at most one line more. */
const CHUNK_CHARS = 65_536;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

export type SnapshotLine = readonly [name: string, key: string, value: unknown];

/** Lazy: a chunk is made when it is asked for. */
export function* encodeSnapshot(
  version: number,
  lines: Iterable<SnapshotLine>,
): Generator<Uint8Array, void, undefined> {
  let text = `${JSON.stringify({ format: FORMAT, schema: SNAPSHOT_SCHEMA, version })}\n`;
  let count = 0;
  for (const line of lines) {
    text += `${JSON.stringify(line)}\n`;
    count++;
    if (text.length < CHUNK_CHARS) continue;
    yield encoder.encode(text);
    text = '';
  }
  yield encoder.encode(`${text}${JSON.stringify([END, '', count])}\n`);
}

export interface DecodedSnapshot {
  readonly schema: number;
  readonly version: number;
  readonly lines: readonly SnapshotLine[];
}

/** What is wrong with a snapshot, and where. */
export type SnapshotFault =
  | { readonly fault: 'damaged'; readonly offsetBytes: number }
  | { readonly fault: 'schema'; readonly schema: number };

export function decodeSnapshot(bytes: Uint8Array): DecodedSnapshot | SnapshotFault {
  const lines: SnapshotLine[] = [];
  let head: { readonly schema: number; readonly version: number } | undefined;
  let offset = 0;
  while (offset < bytes.length) {
    const end = bytes.indexOf(LF, offset);
    const value = end === -1 ? undefined : parse(bytes.subarray(offset, end));
    if (head === undefined) {
      head = headOf(value);
      if (head === undefined) return { fault: 'damaged', offsetBytes: offset };
      if (head.schema < SNAPSHOT_SCHEMA_OLDEST || head.schema > SNAPSHOT_SCHEMA)
        return { fault: 'schema', schema: head.schema };
    } else {
      if (!isLine(value)) return { fault: 'damaged', offsetBytes: offset };
      if (value[0] === END && value[2] === lines.length && end === bytes.length - 1)
        return { ...head, lines };
      lines.push(value);
    }
    offset = end + 1;
  }
  return { fault: 'damaged', offsetBytes: offset };
}

function parse(line: Uint8Array): unknown {
  try {
    return JSON.parse(decoder.decode(line)) as unknown;
  } catch {
    return undefined;
  }
}

function headOf(value: unknown): { schema: number; version: number } | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const { format, schema, version } = value as Record<string, unknown>;
  if (format !== FORMAT || typeof schema !== 'number' || typeof version !== 'number')
    return undefined;
  return { schema, version };
}

function isLine(value: unknown): value is SnapshotLine {
  return (
    Array.isArray(value) &&
    value.length === 3 &&
    typeof value[0] === 'string' &&
    typeof value[1] === 'string'
  );
}
