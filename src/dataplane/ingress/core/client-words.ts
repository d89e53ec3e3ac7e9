import { parseAddress } from '../../wire/address.js';

/** The four words of an address, IPv4 as `::ffff:a.b.c.d`; zeros for what is none. */
export function wordsOf(address: string): Int32Array {
  const bytes = parseAddress(address.replace(/%.*$/, ''));
  if (bytes === undefined) return new Int32Array(4);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return Int32Array.from([0, 4, 8, 12], (at) => view.getInt32(at));
}

/** Leaves of an address what tells one client from another: of IPv6 its /64, of which a client may use any address. */
export function reduceToClient(words: Int32Array): void {
  const isV4 = words[0] === 0 && words[1] === 0 && words[2] === 0xffff;
  if (!isV4) words.fill(0, 2);
}
