/**
 * Hashes for balancing: well spread, quick, the same on every node for the same seed. They withstand
 * no one who chooses keys to collide; all such a client gains is that his own flows share a backend.
 */

/** Of a text, 32 bits signed. */
export function hashText(text: string, seed: number): number {
  let hash = seed | 0;
  for (let at = 0; at < text.length; at++) hash = mixHash(hash, text.charCodeAt(at));
  return finishHash(hash);
}

/** Of an address as four words, 32 bits signed. */
export function hashAddress(words: Int32Array, seed: number): number {
  let hash = mixHash(seed | 0, words[0] as number);
  hash = mixHash(hash, words[1] as number);
  hash = mixHash(hash, words[2] as number);
  return finishHash(mixHash(hash, words[3] as number));
}

export function mixHash(hash: number, word: number): number {
  const scrambled = Math.imul(word ^ (word >>> 15), 0x2c1b_3c6d);
  return Math.imul(hash ^ scrambled, 0x297a_2d39) + ((hash << 13) | (hash >>> 19));
}

export function finishHash(hash: number): number {
  let spread = Math.imul(hash ^ (hash >>> 16), 0x7feb_352d);
  spread = Math.imul(spread ^ (spread >>> 15), 0x846c_a68b);
  return spread ^ (spread >>> 16);
}
