const ID_CHARS = 25;

/**
 * An id that follows from a text, for what a decision makes besides what it was asked for: all managers
 * come to the same one. 128 bits, as the random ones have; the text has random ids in it, and nobody
 * can choose those.
 */
export function derivedId(text: string): string {
  let value = 0n;
  for (const word of hash(text)) value = (value << 32n) | BigInt(word >>> 0);
  return value.toString(36).padStart(ID_CHARS, '0');
}

/** Four lanes that feed each other, with the multipliers of MurmurHash3's 128 bits. */
function hash(text: string): readonly [number, number, number, number] {
  let [a, b, c, d] = [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a];
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    a = b ^ Math.imul(a ^ unit, 0x239b961b);
    b = c ^ Math.imul(b ^ unit, 0xab0e9789);
    c = d ^ Math.imul(c ^ unit, 0x38b34ae5);
    d = a ^ Math.imul(d ^ unit, 0xa1e38b93);
  }
  a = Math.imul(c ^ (a >>> 18), 0x239b961b);
  b = Math.imul(d ^ (b >>> 22), 0xab0e9789);
  c = Math.imul(a ^ (c >>> 17), 0x38b34ae5);
  d = Math.imul(b ^ (d >>> 19), 0xa1e38b93);
  a ^= b ^ c ^ d;
  return [a, b ^ a, c ^ a, d ^ a];
}
