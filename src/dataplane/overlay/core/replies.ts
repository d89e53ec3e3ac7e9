import type { PacketBatch } from '../../core/batch.js';
import {
  ARP_BYTES,
  ARP_REPLY,
  ARP_SENDER_ADDRESS_OFFSET,
  ARP_TARGET_ADDRESS_OFFSET,
  encodeArp,
} from '../../wire/arp.js';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE_OFFSET,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  encodeEthernetHeader,
  MAC_GROUP_BIT_HIGH,
  type Mac,
  macOf,
} from '../../wire/ethernet.js';
import {
  encodeFragmentationNeeded,
  encodeProhibited,
  ICMP_HEADER_BYTES,
  ICMP_QUOTE_BYTES_MAX,
  isIcmpError,
} from '../../wire/icmp.js';
import {
  encodePacketTooBig,
  encodeProhibited6,
  ICMPV6_HEADER_BYTES,
  ICMPV6_QUOTE_BYTES_MAX,
  isIcmpv6Error,
} from '../../wire/icmpv6.js';
import {
  decodeIpv4Header,
  encodeIpv4Header,
  IPV4_DESTINATION_OFFSET,
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT_MASK,
  IPV4_FRAGMENT_OFFSET,
  IPV4_HEADER_BYTES,
  IPV4_PROTOCOL_OFFSET,
  IPV4_SOURCE_OFFSET,
  PROTOCOL_ICMP,
} from '../../wire/ipv4.js';
import {
  decodeIpv6Header,
  encodeIpv6Header,
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_SOURCE_OFFSET,
  isMulticast6,
  isUnspecified6,
  PROTOCOL_ICMPV6,
} from '../../wire/ipv6.js';
import {
  encodeNeighborAdvertisement,
  NDP_HOP_LIMIT,
  NDP_OVERRIDE,
  NDP_SOLICITED,
  NDP_TARGET_OFFSET,
  NEIGHBOR_ADVERTISEMENT_BYTES,
} from '../../wire/ndp.js';

/**
 * Frames that the VTEP answers local endpoints with. Each function reads the frame at `offset` of
 * the batch's arena and writes its answer into the scratch.
 *
 * @returns Arena offset of the answer; -1 when the scratch is full. Lengths are the constants, or
 *   for ICMP the functions, below.
 */

export const ARP_REPLY_BYTES = ETHERNET_HEADER_BYTES + ARP_BYTES;

export function writeArpReply(batch: PacketBatch, offset: number, targetMac: number): number {
  const { view } = batch;
  const reply = batch.reserve(ARP_REPLY_BYTES);
  if (reply === -1) return -1;
  const arp = offset + ETHERNET_HEADER_BYTES;
  const asker = readMac(view, offset + ETHERNET_SOURCE_OFFSET);
  encodeEthernetHeader(view, reply, asker, targetMac, ETHERTYPE_ARP);
  encodeArp(
    view,
    reply + ETHERNET_HEADER_BYTES,
    ARP_REPLY,
    targetMac,
    view.getUint32(arp + ARP_TARGET_ADDRESS_OFFSET),
    asker,
    view.getUint32(arp + ARP_SENDER_ADDRESS_OFFSET),
  );
  return reply;
}

export const ADVERTISEMENT_FRAME_BYTES =
  ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + NEIGHBOR_ADVERTISEMENT_BYTES;

/** 33:33:00:00:00:01, the MAC of ff02::1. */
const ALL_NODES_MAC = 0x3333_0000_0001;

/**
 * Answers a neighbour solicitation; one from the unspecified address (duplicate address detection)
 * is answered to all nodes, RFC 4861 §7.2.4.
 */
export function writeAdvertisement(batch: PacketBatch, offset: number, targetMac: number): number {
  const { view, arena } = batch;
  const reply = batch.reserve(ADVERTISEMENT_FRAME_BYTES);
  if (reply === -1) return -1;
  const asked = offset + ETHERNET_HEADER_BYTES;
  const ip = reply + ETHERNET_HEADER_BYTES;
  const isDetection = isUnspecified6(view, asked + IPV6_SOURCE_OFFSET);
  const asker = readMac(view, offset + ETHERNET_SOURCE_OFFSET);
  encodeEthernetHeader(view, reply, isDetection ? ALL_NODES_MAC : asker, targetMac, ETHERTYPE_IPV6);
  encodeIpv6Header(view, ip, PROTOCOL_ICMPV6, NDP_HOP_LIMIT, NEIGHBOR_ADVERTISEMENT_BYTES);
  const target = asked + IPV6_HEADER_BYTES + NDP_TARGET_OFFSET;
  arena.copyWithin(ip + IPV6_SOURCE_OFFSET, target, target + 16);
  arena.copyWithin(ip + IPV6_HEADER_BYTES + NDP_TARGET_OFFSET, target, target + 16);
  if (isDetection) writeAllNodes(view, ip + IPV6_DESTINATION_OFFSET);
  else copyAddress6(batch, ip + IPV6_DESTINATION_OFFSET, asked + IPV6_SOURCE_OFFSET);
  const flags = isDetection ? NDP_OVERRIDE : NDP_SOLICITED + NDP_OVERRIDE;
  encodeNeighborAdvertisement(view, ip, flags, targetMac);
  return reply;
}

const REPLY_TTL = 64;

/**
 * Whether the sender of the too large IPv4 packet at `ip` may be told: it forbade fragmentation,
 * and the packet is none of those that must not be answered, RFC 1122 §3.2.2. (Without DF a
 * router would fragment; a VTEP must not, so such a packet is lost.)
 */
export function maySendFragmentationNeeded(view: DataView, offset: number, end: number): boolean {
  const ip = offset + ETHERNET_HEADER_BYTES;
  const headerBytes = decodeIpv4Header(view, ip, end);
  if (typeof headerBytes !== 'number' || isToGroup(view, offset)) return false;
  const fragment = view.getUint16(ip + IPV4_FRAGMENT_OFFSET);
  if ((fragment & IPV4_DONT_FRAGMENT) === 0 || (fragment & IPV4_FRAGMENT_MASK) !== 0) return false;
  if (!isUnicast4(view.getUint32(ip + IPV4_SOURCE_OFFSET))) return false;
  if (!isUnicast4(view.getUint32(ip + IPV4_DESTINATION_OFFSET))) return false;
  if (view.getUint8(ip + IPV4_PROTOCOL_OFFSET) !== PROTOCOL_ICMP) return true;
  return ip + headerBytes < end && !isIcmpError(view.getUint8(ip + headerBytes));
}

/** Bytes of the whole answering frame of an error about an IPv4 packet. */
export function errorBytes4(offset: number, end: number): number {
  return ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES + ICMP_HEADER_BYTES + quoted4(offset, end);
}

/** The answer comes from the packet's destination, since a VTEP has no address in the overlay. */
export function writeFragmentationNeeded(
  batch: PacketBatch,
  offset: number,
  end: number,
  mtuBytes: number,
): number {
  const reply = writeError4(batch, offset, end);
  if (reply === -1) return -1;
  const icmp = reply + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES;
  encodeFragmentationNeeded(batch.view, icmp, mtuBytes, quoted4(offset, end));
  return reply;
}

/** Says that an IPv4 packet is not wanted from whom it comes. */
export function writeProhibited4(batch: PacketBatch, offset: number, end: number): number {
  const reply = writeError4(batch, offset, end);
  if (reply === -1) return -1;
  const icmp = reply + ETHERNET_HEADER_BYTES + IPV4_HEADER_BYTES;
  encodeProhibited(batch.view, icmp, quoted4(offset, end));
  return reply;
}

function quoted4(offset: number, end: number): number {
  return Math.min(end - offset - ETHERNET_HEADER_BYTES, ICMP_QUOTE_BYTES_MAX);
}

/** All but the ICMP header. */
function writeError4(batch: PacketBatch, offset: number, end: number): number {
  const { view, arena } = batch;
  const length = errorBytes4(offset, end);
  const reply = batch.reserve(length);
  if (reply === -1) return -1;
  const asked = offset + ETHERNET_HEADER_BYTES;
  const ip = reply + ETHERNET_HEADER_BYTES;
  const icmp = ip + IPV4_HEADER_BYTES;
  const quoted = length - (icmp + ICMP_HEADER_BYTES - reply);
  swapMacs(view, offset, reply, ETHERTYPE_IPV4);
  encodeIpv4Header(
    view,
    ip,
    view.getUint32(asked + IPV4_DESTINATION_OFFSET),
    view.getUint32(asked + IPV4_SOURCE_OFFSET),
    PROTOCOL_ICMP,
    REPLY_TTL,
    ICMP_HEADER_BYTES + quoted,
  );
  arena.copyWithin(icmp + ICMP_HEADER_BYTES, asked, asked + quoted);
  return reply;
}

/** Whether the sender of the too large IPv6 packet may be told, RFC 4443 §2.4 (e). */
export function maySendPacketTooBig(view: DataView, offset: number, end: number): boolean {
  const ip = offset + ETHERNET_HEADER_BYTES;
  const nextHeader = decodeIpv6Header(view, ip, end);
  if (typeof nextHeader !== 'number' || isToGroup(view, offset)) return false;
  const source = ip + IPV6_SOURCE_OFFSET;
  if (isUnspecified6(view, source) || isMulticast6(view, source)) return false;
  // RFC 4443 allows an answer to multicast; but from which address should it come?
  if (isMulticast6(view, ip + IPV6_DESTINATION_OFFSET)) return false;
  if (nextHeader !== PROTOCOL_ICMPV6) return true;
  const icmp = ip + IPV6_HEADER_BYTES;
  return icmp < end && !isIcmpv6Error(view.getUint8(icmp));
}

/** Bytes of the whole answering frame of an error about an IPv6 packet. */
export function errorBytes6(offset: number, end: number): number {
  return ETHERNET_HEADER_BYTES + IPV6_HEADER_BYTES + ICMPV6_HEADER_BYTES + quoted6(offset, end);
}

export function writePacketTooBig(
  batch: PacketBatch,
  offset: number,
  end: number,
  mtuBytes: number,
): number {
  const reply = writeError6(batch, offset, end);
  if (reply === -1) return -1;
  encodePacketTooBig(batch.view, reply + ETHERNET_HEADER_BYTES, mtuBytes, quoted6(offset, end));
  return reply;
}

/** Says that an IPv6 packet is not wanted from whom it comes. */
export function writeProhibited6(batch: PacketBatch, offset: number, end: number): number {
  const reply = writeError6(batch, offset, end);
  if (reply === -1) return -1;
  encodeProhibited6(batch.view, reply + ETHERNET_HEADER_BYTES, quoted6(offset, end));
  return reply;
}

function quoted6(offset: number, end: number): number {
  return Math.min(end - offset - ETHERNET_HEADER_BYTES, ICMPV6_QUOTE_BYTES_MAX);
}

/** All but the ICMP header. */
function writeError6(batch: PacketBatch, offset: number, end: number): number {
  const { view, arena } = batch;
  const length = errorBytes6(offset, end);
  const reply = batch.reserve(length);
  if (reply === -1) return -1;
  const asked = offset + ETHERNET_HEADER_BYTES;
  const ip = reply + ETHERNET_HEADER_BYTES;
  const quote = ip + IPV6_HEADER_BYTES + ICMPV6_HEADER_BYTES;
  const quoted = length - (quote - reply);
  swapMacs(view, offset, reply, ETHERTYPE_IPV6);
  encodeIpv6Header(view, ip, PROTOCOL_ICMPV6, REPLY_TTL, ICMPV6_HEADER_BYTES + quoted);
  copyAddress6(batch, ip + IPV6_SOURCE_OFFSET, asked + IPV6_DESTINATION_OFFSET);
  copyAddress6(batch, ip + IPV6_DESTINATION_OFFSET, asked + IPV6_SOURCE_OFFSET);
  arena.copyWithin(quote, asked, asked + quoted);
  return reply;
}

function readMac(view: DataView, offset: number): Mac {
  return macOf(view.getUint16(offset), view.getUint32(offset + 2));
}

function isToGroup(view: DataView, offset: number): boolean {
  return (view.getUint16(offset) & MAC_GROUP_BIT_HIGH) !== 0;
}

/** Neither this-host, nor multicast, reserved or broadcast. */
function isUnicast4(address: number): boolean {
  return address >= 0x0100_0000 && address < 0xe000_0000;
}

function swapMacs(view: DataView, offset: number, reply: number, etherType: number): void {
  const destination = readMac(view, offset + ETHERNET_SOURCE_OFFSET);
  encodeEthernetHeader(view, reply, destination, readMac(view, offset), etherType);
}

function copyAddress6({ arena }: PacketBatch, to: number, from: number): void {
  arena.copyWithin(to, from, from + 16);
}

/** ff02::1. */
function writeAllNodes(view: DataView, offset: number): void {
  view.setUint32(offset, 0xff02_0000);
  view.setUint32(offset + 4, 0);
  view.setUint32(offset + 8, 0);
  view.setUint32(offset + 12, 1);
}
