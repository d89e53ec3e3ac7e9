/**
 * The lines of the store's files: `CRC LENGTH JSON\n`, CRC-32 (IEEE 802.3) in eight hex digits and
 * length in bytes, both of the JSON text, which holds no line feed. A line is one atomic batch.
 */
const LF = 0x0a;
const SPACE = 0x20;
const CRC_CHARS = 8;
const LENGTH_CHARS_MAX = 10;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

const CRC_TABLE = new Uint32Array(256).map((_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ (CRC_TABLE[(crc ^ byte) & 0xff] ?? 0);
  return (crc ^ 0xffffffff) >>> 0;
}

export function encodeRecord(value: unknown): Uint8Array {
  const json = encoder.encode(JSON.stringify(value));
  const head = encoder.encode(
    `${crc32(json).toString(16).padStart(CRC_CHARS, '0')} ${json.length} `,
  );
  const line = new Uint8Array(head.length + json.length + 1);
  line.set(head);
  line.set(json, head.length);
  line[line.length - 1] = LF;
  return line;
}

export interface DecodedRecord {
  readonly value: unknown;
  /** Offset after the record's line feed. */
  readonly endBytes: number;
}

/** The record that begins at `offset`; `undefined` if the bytes there are none, or not a whole one. */
export function decodeRecord(bytes: Uint8Array, offset: number): DecodedRecord | undefined {
  const lengthAt = offset + CRC_CHARS + 1;
  if (bytes[lengthAt - 1] !== SPACE) return undefined;
  const jsonAt = bytes.indexOf(SPACE, lengthAt) + 1;
  if (jsonAt === 0 || jsonAt - lengthAt > LENGTH_CHARS_MAX + 1) return undefined;
  const crc = parseDigits(bytes.subarray(offset, lengthAt - 1), /^[0-9a-f]{8}$/, 16);
  const length = parseDigits(bytes.subarray(lengthAt, jsonAt - 1), /^\d{1,10}$/, 10);
  if (crc === undefined || length === undefined) return undefined;
  const endBytes = jsonAt + length + 1;
  if (endBytes > bytes.length || bytes[endBytes - 1] !== LF) return undefined;
  const json = bytes.subarray(jsonAt, endBytes - 1);
  if (crc32(json) !== crc) return undefined;
  try {
    return { value: JSON.parse(decoder.decode(json)) as unknown, endBytes };
  } catch {
    return undefined;
  }
}

function parseDigits(bytes: Uint8Array, form: RegExp, radix: number): number | undefined {
  const text = String.fromCharCode(...bytes);
  return form.test(text) ? Number.parseInt(text, radix) : undefined;
}

export interface DecodedFile {
  readonly values: readonly unknown[];
  /** Up to here all is well. */
  readonly validBytes: number;
  /**
   * `torn`: the last line was not written whole, as a crash leaves it; nobody was told that it is
   * kept. `corrupt`: whole lines follow a bad one, so the bad one was once good.
   */
  readonly end: 'clean' | 'torn' | 'corrupt';
}

/** Reads a file of records up to the first bad one. */
export function decodeRecords(bytes: Uint8Array): DecodedFile {
  const values: unknown[] = [];
  let offset = 0;
  while (offset < bytes.length) {
    const record = decodeRecord(bytes, offset);
    if (record === undefined)
      return {
        values,
        validBytes: offset,
        end: hasRecordAfter(bytes, offset) ? 'corrupt' : 'torn',
      };
    values.push(record.value);
    offset = record.endBytes;
  }
  return { values, validBytes: offset, end: 'clean' };
}

function hasRecordAfter(bytes: Uint8Array, offset: number): boolean {
  for (let at = bytes.indexOf(LF, offset); at !== -1; at = bytes.indexOf(LF, at + 1)) {
    if (decodeRecord(bytes, at + 1) !== undefined) return true;
  }
  return false;
}
