import ipaddr from 'ipaddr.js';

/** Bytes of an address on the packet path: IPv6, or IPv4 as `::ffff:a.b.c.d`. */
export const ADDRESS_BYTES = 16;

/**
 * An address literal as 16 bytes, IPv4 mapped into IPv6.
 *
 * Strict: four decimal parts, no zone; what `inet_aton` would also take is refused.
 *
 * @returns `undefined` for anything else.
 */
export function parseAddress(text: string): Uint8Array | undefined {
  if (ipaddr.IPv4.isValidFourPartDecimal(text)) {
    return Uint8Array.from(ipaddr.IPv4.parse(text).toIPv4MappedAddress().toByteArray());
  }
  if (!text.includes(':') || text.includes('%') || !ipaddr.IPv6.isValid(text)) return undefined;
  return Uint8Array.from(ipaddr.IPv6.parse(text).toByteArray());
}

/** Whether the 16 bytes at `offset` are an IPv4-mapped address. */
export function isIpv4Mapped(address: Uint8Array, offset = 0): boolean {
  for (let i = 0; i < 10; i++) if (address[offset + i] !== 0) return false;
  return address[offset + 10] === 0xff && address[offset + 11] === 0xff;
}

/** The text of the 16 bytes at `offset`; mapped IPv4 addresses come out as IPv4. */
export function formatAddress(address: Uint8Array, offset = 0): string {
  const bytes = Array.from(address.subarray(offset, offset + ADDRESS_BYTES));
  return ipaddr.process(new ipaddr.IPv6(bytes).toString()).toString();
}
