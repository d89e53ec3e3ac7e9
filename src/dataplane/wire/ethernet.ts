import { assert } from '../../base/assert.js';
import type { Brand } from '../../base/brand.js';

/**
 * Ethernet II header, IEEE 802.3 §3.1, without preamble and check sequence. 14 bytes:
 *
 *   0                    6                    12        14
 *  +--------------------+--------------------+---------+------
 *  |    destination     |       source       |EtherType| payload
 *  +--------------------+--------------------+---------+------
 *
 * A MAC on the packet path is two numbers, its high 16 and low 32 bits; in tables it is one
 * number, which a double holds exactly.
 */
export const ETHERNET_HEADER_BYTES = 14;
export const ETHERNET_SOURCE_OFFSET = 6;
export const ETHERNET_TYPE_OFFSET = 12;

export const ETHERTYPE_IPV4 = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
/** IEEE 802.1Q tag. */
export const ETHERTYPE_VLAN = 0x8100;
/** IEEE 802.1ad outer tag. */
export const ETHERTYPE_QINQ = 0x88a8;
export const ETHERTYPE_IPV6 = 0x86dd;

/** Bit of the high 16 bits of a MAC that marks a group address. */
export const MAC_GROUP_BIT_HIGH = 0x0100;

/** A MAC address as one number: an integer in [0, 2^48). */
export type Mac = Brand<number, 'Mac'>;

export const BROADCAST_MAC = 0xffff_ffff_ffff as Mac;

export function macHigh(mac: number): number {
  return Math.floor(mac / 0x1_0000_0000);
}

export function macLow(mac: number): number {
  return mac % 0x1_0000_0000;
}

export function macOf(high: number, low: number): Mac {
  return (high * 0x1_0000_0000 + low) as Mac;
}

/** Writes `mac` at `offset`. */
export function writeMac(view: DataView, offset: number, mac: number): void {
  view.setUint16(offset, macHigh(mac));
  view.setUint32(offset + 2, macLow(mac));
}

export function encodeEthernetHeader(
  view: DataView,
  offset: number,
  destination: number,
  source: number,
  etherType: number,
): void {
  assert(offset + ETHERNET_HEADER_BYTES <= view.byteLength, 'header fits the target');
  writeMac(view, offset, destination);
  writeMac(view, offset + ETHERNET_SOURCE_OFFSET, source);
  view.setUint16(offset + ETHERNET_TYPE_OFFSET, etherType);
}

/** Six hex pairs with colons, either case. @returns `undefined` for anything else. */
export function parseMac(text: string): Mac | undefined {
  if (!/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(text)) return undefined;
  return Number.parseInt(text.replaceAll(':', ''), 16) as Mac;
}

/** `02:42:0a:00:01:05`. */
export function formatMac(mac: number): string {
  const hex = mac.toString(16).padStart(12, '0');
  return hex.replace(/(..)(?=.)/g, '$1:');
}
