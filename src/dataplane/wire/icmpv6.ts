import { assert } from '../../base/assert.js';
import { addBytes, finishChecksum } from './checksum.js';
import {
  IPV6_HEADER_BYTES,
  IPV6_MTU_MIN_BYTES,
  PROTOCOL_ICMPV6,
  pseudoHeaderSum6,
} from './ipv6.js';

/**
 * ICMPv6, RFC 4443 §2.1; "packet too big", §3.2. 8 bytes, then the quoted packet:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |type (2)|code (0)|    checksum     |               MTU                 |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 */
export const ICMPV6_HEADER_BYTES = 8;
export const ICMPV6_CHECKSUM_OFFSET = 2;
/** RFC 4443 §2.4 (c): quote as much as keeps the error within the minimum MTU. */
export const ICMPV6_QUOTE_BYTES_MAX = IPV6_MTU_MIN_BYTES - IPV6_HEADER_BYTES - ICMPV6_HEADER_BYTES;

const TYPE_UNREACHABLE = 1;
const TYPE_PACKET_TOO_BIG = 2;
/** Administratively prohibited, RFC 4443 §3.1. */
const CODE_PROHIBITED = 1;

/** Types below 128 are errors, RFC 4443 §2.1; errors about errors are never sent, §2.4 (e). */
export function isIcmpv6Error(type: number): boolean {
  return type < 128;
}

/** Fills the checksum of the `length`-byte message right after the IPv6 header at `ipOffset`. */
export function completeIcmpv6Checksum(view: DataView, ipOffset: number, length: number): void {
  const offset = ipOffset + IPV6_HEADER_BYTES;
  assert(offset + length <= view.byteLength, 'message lies in the buffer');
  view.setUint16(offset + ICMPV6_CHECKSUM_OFFSET, 0);
  const pseudo = pseudoHeaderSum6(view, ipOffset, PROTOCOL_ICMPV6, length);
  view.setUint16(
    offset + ICMPV6_CHECKSUM_OFFSET,
    finishChecksum(addBytes(view, offset, length, pseudo)),
  );
}

/**
 * Completes the message after the IPv6 header at `ipOffset`, which is whole; `quoteLength` quoted
 * bytes stand already in place.
 */
export function encodePacketTooBig(
  view: DataView,
  ipOffset: number,
  mtuBytes: number,
  quoteLength: number,
): void {
  encodeError(view, ipOffset, TYPE_PACKET_TOO_BIG * 0x100, mtuBytes, quoteLength);
}

/** The same, for a packet that is not wanted. */
export function encodeProhibited6(view: DataView, ipOffset: number, quoteLength: number): void {
  encodeError(view, ipOffset, TYPE_UNREACHABLE * 0x100 + CODE_PROHIBITED, 0, quoteLength);
}

function encodeError(
  view: DataView,
  ipOffset: number,
  typeAndCode: number,
  rest: number,
  quoteLength: number,
): void {
  const offset = ipOffset + IPV6_HEADER_BYTES;
  assert(offset + ICMPV6_HEADER_BYTES + quoteLength <= view.byteLength, 'message fits the target');
  view.setUint16(offset, typeAndCode);
  view.setUint32(offset + 4, rest);
  completeIcmpv6Checksum(view, ipOffset, ICMPV6_HEADER_BYTES + quoteLength);
}
