import { assert } from '../../base/assert.js';
import { ETHERTYPE_IPV4, writeMac } from './ethernet.js';

/**
 * ARP for IPv4 over Ethernet, RFC 826. Big-endian, 28 bytes:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |  hardware (1)   |protocol (0x800) |hlen (6)|plen (4)|   operation     |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |            sender hardware address                  |  sender protocol
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *        address     |           target hardware address                   |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |     target protocol address       |
 *  +--------+--------+--------+--------+
 */
export const ARP_BYTES = 28;
export const ARP_SENDER_MAC_OFFSET = 8;
export const ARP_SENDER_ADDRESS_OFFSET = 14;
export const ARP_TARGET_MAC_OFFSET = 18;
export const ARP_TARGET_ADDRESS_OFFSET = 24;

export const ARP_REQUEST = 1;
export const ARP_REPLY = 2;

export type ArpDrop = 'arp_malformed';

/** @returns The operation of the ARP packet at `offset`; its fields are then within bounds. */
export function decodeArp(view: DataView, offset: number, end: number): number | ArpDrop {
  if (offset + ARP_BYTES > end) return 'arp_malformed';
  const isIpv4OverEthernet =
    view.getUint32(offset) === 0x1_0000 + ETHERTYPE_IPV4 && view.getUint16(offset + 4) === 0x0604;
  return isIpv4OverEthernet ? view.getUint16(offset + 6) : 'arp_malformed';
}

/** @param senderAddress, targetAddress Unsigned 32-bit numbers. */
export function encodeArp(
  view: DataView,
  offset: number,
  operation: number,
  senderMac: number,
  senderAddress: number,
  targetMac: number,
  targetAddress: number,
): void {
  assert(offset + ARP_BYTES <= view.byteLength, 'packet fits the target');
  view.setUint32(offset, 0x1_0000 + ETHERTYPE_IPV4);
  view.setUint16(offset + 4, 0x0604);
  view.setUint16(offset + 6, operation);
  writeMac(view, offset + ARP_SENDER_MAC_OFFSET, senderMac);
  view.setUint32(offset + ARP_SENDER_ADDRESS_OFFSET, senderAddress);
  writeMac(view, offset + ARP_TARGET_MAC_OFFSET, targetMac);
  view.setUint32(offset + ARP_TARGET_ADDRESS_OFFSET, targetAddress);
}
