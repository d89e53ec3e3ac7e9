/**
 * Checksums corrected for words that change, RFC 1624 §3 (equation 3): no byte of the payload is
 * looked at.
 *
 * A partial one (a super-frame's, or one that the sender's kernel left to the hardware) is the sum of the
 * pseudo-header, not its complement: it changes the other way.
 */

/** What turns the sum of the four words at `from` into that of the four at `to`. */
export function addressDelta(
  from: Int32Array,
  fromAt: number,
  to: Int32Array,
  toAt: number,
): number {
  let delta = 0;
  for (let word = 0; word < 4; word++) {
    const old = from[fromAt + word] as number;
    const now = to[toAt + word] as number;
    delta += (~old >>> 16) & 0xffff;
    delta += ~old & 0xffff;
    delta += (now >>> 16) & 0xffff;
    delta += now & 0xffff;
  }
  return delta;
}

/** Corrects the checksum at `offset` by `delta`. */
export function adjustChecksum(view: DataView, offset: number, delta: number): void {
  const sum = (~view.getUint16(offset) & 0xffff) + delta;
  view.setUint16(offset, ~fold(sum) & 0xffff);
}

/** Likewise for a partial checksum. */
export function adjustPartial(view: DataView, offset: number, delta: number): void {
  view.setUint16(offset, fold(view.getUint16(offset) + delta));
}

function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + (folded >>> 16);
  return folded;
}
