import { assert } from '../../base/assert.js';
import { addBytes, finishChecksum } from './checksum.js';

/**
 * ICMP, RFC 792; "fragmentation needed" with the next hop's MTU, RFC 1191 §4. 8 bytes, then the
 * quoted IP header and some of its payload:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |type (3)|code (4)|    checksum     |   unused (0)    |  next-hop MTU   |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 */
export const ICMP_HEADER_BYTES = 8;
/** RFC 1812 §4.3.2.3: quote as much as keeps the error within 576 bytes (20 of IP, 8 of ICMP). */
export const ICMP_QUOTE_BYTES_MAX = 576 - 20 - ICMP_HEADER_BYTES;

const TYPE_UNREACHABLE = 3;
const CODE_FRAGMENTATION_NEEDED = 4;
/** Administratively prohibited, RFC 1812 §5.2.7.1. */
const CODE_PROHIBITED = 13;

/** Whether an ICMP message of this type is an error; errors about errors are never sent, RFC 1122 §3.2.2. */
export function isIcmpError(type: number): boolean {
  return type === 3 || type === 4 || type === 5 || type === 11 || type === 12;
}

/** Completes the message at `offset`, whose `quoteLength` quoted bytes stand already in place. */
export function encodeFragmentationNeeded(
  view: DataView,
  offset: number,
  mtuBytes: number,
  quoteLength: number,
): void {
  encodeUnreachable(view, offset, CODE_FRAGMENTATION_NEEDED, mtuBytes, quoteLength);
}

/** The same, for a packet that is not wanted. */
export function encodeProhibited(view: DataView, offset: number, quoteLength: number): void {
  encodeUnreachable(view, offset, CODE_PROHIBITED, 0, quoteLength);
}

function encodeUnreachable(
  view: DataView,
  offset: number,
  code: number,
  rest: number,
  quoteLength: number,
): void {
  assert(offset + ICMP_HEADER_BYTES + quoteLength <= view.byteLength, 'message fits the target');
  view.setUint16(offset, TYPE_UNREACHABLE * 0x100 + code);
  view.setUint16(offset + 2, 0);
  view.setUint32(offset + 4, rest);
  const sum = addBytes(view, offset, ICMP_HEADER_BYTES + quoteLength, 0);
  view.setUint16(offset + 2, finishChecksum(sum));
}
