import { assert } from '../../base/assert.js';
import { addBytes, finishChecksum } from './checksum.js';

/**
 * IPv4 header, RFC 791 §3.1. Big-endian, 20 to 60 bytes:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |ver |IHL|  TOS   |  total length   | identification  |flg| frag offset |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |  TTL   |protocol| header checksum |              source               |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |            destination            |  options, (IHL - 5) words
 *  +--------+--------+--------+--------+----
 */
export const IPV4_HEADER_BYTES = 20;
export const IPV4_TOTAL_LENGTH_OFFSET = 2;
export const IPV4_IDENTIFICATION_OFFSET = 4;
export const IPV4_FRAGMENT_OFFSET = 6;
export const IPV4_PROTOCOL_OFFSET = 9;
export const IPV4_CHECKSUM_OFFSET = 10;
export const IPV4_SOURCE_OFFSET = 12;
export const IPV4_DESTINATION_OFFSET = 16;

/** In the 16 bits at `IPV4_FRAGMENT_OFFSET`. */
export const IPV4_DONT_FRAGMENT = 0x4000;
/** Fragment offset, 13 bits: zero in an unfragmented packet and in a first fragment. */
export const IPV4_FRAGMENT_MASK = 0x1fff;
export const IPV4_MORE_FRAGMENTS = 0x2000;

export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;

export type Ipv4Drop = 'ipv4_truncated' | 'ipv4_malformed';

/**
 * Checks the header at `offset` of a packet that ends before `end`.
 *
 * @returns Header length in bytes (20 to 60), within bounds.
 */
export function decodeIpv4Header(view: DataView, offset: number, end: number): number | Ipv4Drop {
  if (offset + IPV4_HEADER_BYTES > end) return 'ipv4_truncated';
  const first = view.getUint8(offset);
  const headerBytes = (first & 0x0f) * 4;
  if (first >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES) return 'ipv4_malformed';
  return offset + headerBytes > end ? 'ipv4_truncated' : headerBytes;
}

/**
 * Writes a 20-byte header with its checksum: no options, not fragmentable, identification 0
 * (RFC 6864 §4.1: free to choose for a packet that is never fragmented).
 *
 * @param source, destination Addresses as unsigned 32-bit numbers.
 * @param payloadLength Bytes after the header.
 */
export function encodeIpv4Header(
  view: DataView,
  offset: number,
  source: number,
  destination: number,
  protocol: number,
  ttl: number,
  payloadLength: number,
): void {
  assert(offset + IPV4_HEADER_BYTES + payloadLength <= view.byteLength, 'packet fits the target');
  view.setUint16(offset, 0x4500);
  view.setUint16(offset + IPV4_TOTAL_LENGTH_OFFSET, IPV4_HEADER_BYTES + payloadLength);
  view.setUint16(offset + IPV4_IDENTIFICATION_OFFSET, 0);
  view.setUint16(offset + IPV4_FRAGMENT_OFFSET, IPV4_DONT_FRAGMENT);
  view.setUint8(offset + 8, ttl);
  view.setUint8(offset + IPV4_PROTOCOL_OFFSET, protocol);
  view.setUint16(offset + IPV4_CHECKSUM_OFFSET, 0);
  view.setUint32(offset + IPV4_SOURCE_OFFSET, source);
  view.setUint32(offset + IPV4_DESTINATION_OFFSET, destination);
  const checksum = finishChecksum(addBytes(view, offset, IPV4_HEADER_BYTES, 0));
  view.setUint16(offset + IPV4_CHECKSUM_OFFSET, checksum);
}

/** Sum of the IPv4 pseudo-header of the packet at `ipOffset`, RFC 9293 §3.1 and RFC 768. */
export function pseudoHeaderSum4(
  view: DataView,
  ipOffset: number,
  protocol: number,
  transportLength: number,
): number {
  const addresses = addBytes(
    view,
    ipOffset + IPV4_SOURCE_OFFSET,
    IPV4_DESTINATION_OFFSET - IPV4_SOURCE_OFFSET + 4,
    0,
  );
  return addresses + protocol + transportLength;
}
