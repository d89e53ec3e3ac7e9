import { assert } from '../../base/assert.js';
import { writeMac } from './ethernet.js';
import { completeIcmpv6Checksum } from './icmpv6.js';
import { IPV6_HEADER_BYTES, IPV6_HOP_LIMIT_OFFSET } from './ipv6.js';

/**
 * Neighbour solicitation and advertisement, RFC 4861 §4.3 and §4.4. 24 bytes, then options:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |  type  |code (0)|    checksum     |RSO  reserved                      |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |                   target address, 16 bytes                            |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |opt type|len (1) |           link-layer address                        |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 */
export const NDP_BYTES = 24;
export const NDP_TARGET_OFFSET = 8;
/** With the target link-layer address option. */
export const NEIGHBOR_ADVERTISEMENT_BYTES = 32;

export const NEIGHBOR_SOLICITATION = 135;
export const NEIGHBOR_ADVERTISEMENT = 136;
/** Only packets that no router forwarded count, RFC 4861 §7.1. */
export const NDP_HOP_LIMIT = 255;

/** The sender is a solicited reply; never set towards all nodes, RFC 4861 §7.2.4. */
export const NDP_SOLICITED = 0x4000_0000;
export const NDP_OVERRIDE = 0x2000_0000;

const OPTION_TARGET_LINK_LAYER = 2;

export type NdpDrop = 'ndp_malformed';

/**
 * Looks at the ICMPv6 message after the IPv6 header at `ipOffset`.
 *
 * @returns The message's type; a solicitation or an advertisement is then valid but for its
 *   checksum and options, and its fields are within bounds. -1 when there is no type.
 */
export function decodeNdp(view: DataView, ipOffset: number, end: number): number | NdpDrop {
  const offset = ipOffset + IPV6_HEADER_BYTES;
  if (offset >= end) return -1;
  const type = view.getUint8(offset);
  if (type !== NEIGHBOR_SOLICITATION && type !== NEIGHBOR_ADVERTISEMENT) return type;
  if (offset + NDP_BYTES > end) return 'ndp_malformed';
  const isValid =
    view.getUint8(ipOffset + IPV6_HOP_LIMIT_OFFSET) === NDP_HOP_LIMIT &&
    view.getUint8(offset + 1) === 0 &&
    view.getUint8(offset + NDP_TARGET_OFFSET) !== 0xff;
  return isValid ? type : 'ndp_malformed';
}

/**
 * Completes an advertisement after the IPv6 header at `ipOffset`, which is whole; the target's 16
 * bytes stand already in place.
 */
export function encodeNeighborAdvertisement(
  view: DataView,
  ipOffset: number,
  flags: number,
  targetMac: number,
): void {
  const offset = ipOffset + IPV6_HEADER_BYTES;
  assert(offset + NEIGHBOR_ADVERTISEMENT_BYTES <= view.byteLength, 'message fits the target');
  view.setUint16(offset, NEIGHBOR_ADVERTISEMENT * 0x100);
  view.setUint32(offset + 4, flags);
  view.setUint16(offset + NDP_BYTES, OPTION_TARGET_LINK_LAYER * 0x100 + 1);
  writeMac(view, offset + NDP_BYTES + 2, targetMac);
  completeIcmpv6Checksum(view, ipOffset, NEIGHBOR_ADVERTISEMENT_BYTES);
}
