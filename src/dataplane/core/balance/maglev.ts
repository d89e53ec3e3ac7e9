import { finishHash, mixHash } from './hash.js';

/** Primes: a table about a hundred times as large as its backends moves about one entry in a hundred. */
const SIZES = [1009, 5003, 20_011, 65_537] as const;

/**
 * The look-up table of Maglev hashing (Eisenbud et al., NSDI 2016, §3.4): each backend fills places
 * in an order of its own, all in turn, so the shares are even, and a backend more or less moves little
 * besides its own share. Weights are shares of turns.
 *
 * The same on every node for the same hashes: nodes choose alike.
 *
 * @param slots What is entered; order does not matter. @param hashes, weights By slot.
 */
export function maglevTable(
  slots: Int32Array,
  hashes: Int32Array,
  weights: Float64Array,
): Int16Array {
  const size = SIZES.find((prime) => prime >= slots.length * 100) ?? 65_537;
  const table = new Int16Array(size).fill(-1);
  if (slots.length === 0) return table;
  const ordered = [...slots].sort((a, b) => (hashes[a] as number) - (hashes[b] as number));
  const weightMax = Math.max(...ordered.map((slot) => weights[slot] as number));
  const turns = ordered.map((slot) => {
    const hash = hashes[slot] as number;
    return {
      slot,
      at: (finishHash(mixHash(hash, 1)) >>> 0) % size,
      skip: ((finishHash(mixHash(hash, 2)) >>> 0) % (size - 1)) + 1,
      share: (weights[slot] as number) / weightMax,
      credit: 0,
    };
  });
  for (let filled = 0; filled < size; ) {
    for (const turn of turns) {
      turn.credit += turn.share;
      if (turn.credit < 1 - 1e-9) continue;
      turn.credit -= 1;
      while (table[turn.at] !== -1) turn.at = (turn.at + turn.skip) % size;
      table[turn.at] = turn.slot;
      filled += 1;
      if (filled === size) break;
    }
  }
  return table;
}
