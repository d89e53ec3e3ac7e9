/** The little of DER (X.690) that certificates need: built from the inside out. */
export type Der = Uint8Array;

const encoder = new TextEncoder();

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

export function der(tag: number, ...content: readonly Uint8Array[]): Der {
  const size = content.reduce((sum, part) => sum + part.length, 0);
  const length: number[] = [];
  if (size < 0x80) length.push(size);
  else {
    for (let rest = size; rest > 0; rest = Math.floor(rest / 256)) length.unshift(rest % 256);
    length.unshift(0x80 | length.length);
  }
  return concat([Uint8Array.of(tag, ...length), ...content]);
}

export const sequence = (...parts: readonly Der[]): Der => der(0x30, ...parts);
export const set = (...parts: readonly Der[]): Der => der(0x31, ...parts);
export const boolean = (value: boolean): Der => der(0x01, Uint8Array.of(value ? 0xff : 0));
export const octets = (bytes: Uint8Array): Der => der(0x04, bytes);
export const utf8 = (text: string): Der => der(0x0c, encoder.encode(text));
export const ascii = (tag: number, text: string): Der => der(tag, encoder.encode(text));
/** Context-specific and constructed, as `[0] EXPLICIT` is. */
export const explicit = (number: number, part: Der): Der => der(0xa0 | number, part);
/** @param unused Bits at the end of the last byte that do not count. */
export const bits = (bytes: Uint8Array, unused = 0): Der => der(0x03, Uint8Array.of(unused), bytes);

/** A positive integer of big-endian bytes. */
export function integer(bytes: Uint8Array): Der {
  let from = 0;
  while (from < bytes.length - 1 && bytes[from] === 0) from++;
  const trimmed = bytes.subarray(from);
  return (trimmed[0] ?? 0) & 0x80 ? der(0x02, Uint8Array.of(0), trimmed) : der(0x02, trimmed);
}

/** @param dotted For example `2.5.4.3`. */
export function oid(dotted: string): Der {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let left = arc >>> 7; left > 0; left >>>= 7) groups.unshift((left & 0x7f) | 0x80);
    bytes.push(...groups);
  }
  return der(0x06, Uint8Array.from(bytes));
}

/**
 * The elements inside the constructed element that begins at `offset`, as they stand.
 * `undefined`: the bytes are no such thing.
 */
export function elementsOf(bytes: Uint8Array, offset = 0): readonly Der[] | undefined {
  const outer = extentOf(bytes, offset);
  if (outer === undefined) return undefined;
  const elements: Der[] = [];
  for (let at = outer.contentAt; at < outer.endAt; ) {
    const inner = extentOf(bytes, at);
    if (inner === undefined || inner.endAt > outer.endAt) return undefined;
    elements.push(bytes.subarray(at, inner.endAt));
    at = inner.endAt;
  }
  return elements;
}

function extentOf(
  bytes: Uint8Array,
  offset: number,
): { readonly contentAt: number; readonly endAt: number } | undefined {
  const first = bytes[offset + 1];
  if (first === undefined) return undefined;
  let contentAt = offset + 2;
  let length = first;
  if (first >= 0x80) {
    const count = first & 0x7f;
    if (count === 0 || count > 4) return undefined;
    length = 0;
    for (let i = 0; i < count; i++) length = length * 256 + (bytes[contentAt++] ?? 0);
  }
  const endAt = contentAt + length;
  return endAt <= bytes.length ? { contentAt, endAt } : undefined;
}
