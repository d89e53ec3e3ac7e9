import { assert } from '../../base/assert.js';
import { addBytes } from './checksum.js';

/**
 * IPv6 header, RFC 8200 §3. Big-endian, 40 bytes:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |ver |class  |    flow label        | payload length  |next hdr|hop lim.|
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |                        source, 16 bytes                               |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |                      destination, 16 bytes                            |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 */
export const IPV6_HEADER_BYTES = 40;
export const IPV6_PAYLOAD_LENGTH_OFFSET = 4;
export const IPV6_NEXT_HEADER_OFFSET = 6;
export const IPV6_HOP_LIMIT_OFFSET = 7;
export const IPV6_SOURCE_OFFSET = 8;
export const IPV6_DESTINATION_OFFSET = 24;

/** What every link must carry, RFC 8200 §5. */
export const IPV6_MTU_MIN_BYTES = 1280;

export const PROTOCOL_FRAGMENT = 44;
export const PROTOCOL_ICMPV6 = 58;

/** Fragment header, RFC 8200 §4.5: next header, reserved; offset and flag; identification. */
export const IPV6_FRAGMENT_BYTES = 8;
/** In the 16 bits behind its first two bytes. */
export const IPV6_FRAGMENT_MASK = 0xfff8;
export const IPV6_MORE_FRAGMENTS = 1;

export type Ipv6Drop = 'ipv6_truncated' | 'ipv6_malformed';

/**
 * Checks the header at `offset` of a packet that ends before `end`.
 *
 * @returns The first next-header value (0 to 255); its bytes start `IPV6_HEADER_BYTES` on.
 */
export function decodeIpv6Header(view: DataView, offset: number, end: number): number | Ipv6Drop {
  if (offset + IPV6_HEADER_BYTES > end) return 'ipv6_truncated';
  if (view.getUint8(offset) >>> 4 !== 6) return 'ipv6_malformed';
  return view.getUint8(offset + IPV6_NEXT_HEADER_OFFSET);
}

/** Writes all of the header but the addresses, which the caller copies in place. */
export function encodeIpv6Header(
  view: DataView,
  offset: number,
  nextHeader: number,
  hopLimit: number,
  payloadLength: number,
): void {
  assert(offset + IPV6_HEADER_BYTES + payloadLength <= view.byteLength, 'packet fits the target');
  view.setUint32(offset, 0x6000_0000);
  view.setUint16(offset + IPV6_PAYLOAD_LENGTH_OFFSET, payloadLength);
  view.setUint8(offset + IPV6_NEXT_HEADER_OFFSET, nextHeader);
  view.setUint8(offset + IPV6_HOP_LIMIT_OFFSET, hopLimit);
}

/** Whether the 16 bytes at `offset` are `::`. */
export function isUnspecified6(view: DataView, offset: number): boolean {
  return (
    (view.getUint32(offset) |
      view.getUint32(offset + 4) |
      view.getUint32(offset + 8) |
      view.getUint32(offset + 12)) ===
    0
  );
}

/** Whether the address at `offset` is in ff00::/8. */
export function isMulticast6(view: DataView, offset: number): boolean {
  return view.getUint8(offset) === 0xff;
}

/** Sum of the IPv6 pseudo-header of the packet at `ipOffset`, RFC 8200 §8.1; at most 64 KiB of payload. */
export function pseudoHeaderSum6(
  view: DataView,
  ipOffset: number,
  protocol: number,
  transportLength: number,
): number {
  return addBytes(view, ipOffset + IPV6_SOURCE_OFFSET, 32, 0) + protocol + transportLength;
}
