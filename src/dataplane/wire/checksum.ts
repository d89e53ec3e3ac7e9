/**
 * The Internet checksum, RFC 1071: the one's complement of the one's-complement sum of 16-bit
 * words. Sums stay unfolded between calls; one over 64 KiB is below 2^31, so adding a few is exact.
 */

/**
 * Adds `length` bytes at `offset` to the running sum `sum`; an odd last byte counts as its high half.
 * Only the last part of a sum may be odd.
 */
export function addBytes(view: DataView, offset: number, length: number, sum: number): number {
  let total = sum;
  const evenEnd = offset + (length & ~1);
  for (let at = offset; at < evenEnd; at += 2) total += view.getUint16(at);
  return (length & 1) === 0 ? total : total + view.getUint8(evenEnd) * 0x100;
}

/** The checksum as it stands on the wire, of a running sum. */
export function finishChecksum(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded % 0x1_0000) + Math.floor(folded / 0x1_0000);
  return ~folded & 0xffff;
}
