import { GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4 } from '../../core/batch.js';
import { ETHERNET_HEADER_BYTES, ETHERTYPE_IPV4, ETHERTYPE_IPV6 } from '../../wire/ethernet.js';
import {
  decodeIpv4Header,
  IPV4_DESTINATION_OFFSET,
  IPV4_FRAGMENT_MASK,
  IPV4_FRAGMENT_OFFSET,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL_OFFSET,
  IPV4_SOURCE_OFFSET,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ipv4.js';
import { decodeIpv6Header, IPV6_HEADER_BYTES, IPV6_SOURCE_OFFSET } from '../../wire/ipv6.js';
import { decodeTcpHeader } from '../../wire/tcp.js';
import { UDP_HEADER_BYTES } from '../../wire/udp.js';

/**
 * A hash of the frame's flow: protocol, addresses and, for unfragmented TCP and UDP, ports; of the
 * MACs for what is not IP. It chooses the outer source port (RFC 7348 §5), so it need be even, and
 * not symmetric. Signed, since that needs no heap number.
 *
 * @param offset, end Where the frame starts, and its end; at least an Ethernet header.
 */
export function flowHash(view: DataView, offset: number, end: number, etherType: number): number {
  const ip = offset + ETHERNET_HEADER_BYTES;
  if (etherType === ETHERTYPE_IPV4) {
    const headerBytes = decodeIpv4Header(view, ip, end);
    if (typeof headerBytes === 'number') return flowHash4(view, ip, headerBytes, end);
  }
  if (etherType === ETHERTYPE_IPV6) {
    const nextHeader = decodeIpv6Header(view, ip, end);
    if (typeof nextHeader === 'number') return flowHash6(view, ip, nextHeader, end);
  }
  const macs = mix(view.getInt32(offset), view.getInt32(offset + 4));
  return finish(mix(macs, view.getInt32(offset + 8)));
}

function flowHash4(view: DataView, ip: number, headerBytes: number, end: number): number {
  const protocol = view.getUint8(ip + IPV4_PROTOCOL_OFFSET);
  const fragment = view.getUint16(ip + IPV4_FRAGMENT_OFFSET);
  let hash = mix(protocol, view.getInt32(ip + IPV4_SOURCE_OFFSET));
  hash = mix(hash, view.getInt32(ip + IPV4_DESTINATION_OFFSET));
  // All fragments of a packet must hash alike, and only the first has ports.
  const isWhole = (fragment & (IPV4_FRAGMENT_MASK | IPV4_MORE_FRAGMENTS)) === 0;
  return finish(isWhole ? mixPorts(view, hash, protocol, ip + headerBytes, end) : hash);
}

function flowHash6(view: DataView, ip: number, nextHeader: number, end: number): number {
  let hash = nextHeader;
  for (let at = 0; at < 32; at += 4) hash = mix(hash, view.getInt32(ip + IPV6_SOURCE_OFFSET + at));
  return finish(mixPorts(view, hash, nextHeader, ip + IPV6_HEADER_BYTES, end));
}

function mixPorts(view: DataView, hash: number, protocol: number, at: number, end: number): number {
  const hasPorts = (protocol === PROTOCOL_TCP || protocol === PROTOCOL_UDP) && at + 4 <= end;
  return hasPorts ? mix(hash, view.getInt32(at)) : hash;
}

function mix(hash: number, word: number): number {
  return Math.imul((hash ^ word) + ((hash << 5) | (hash >>> 27)), 0x9e37_79b1);
}

function finish(hash: number): number {
  const spread = Math.imul(hash ^ (hash >>> 16), 0x7feb_352d);
  return spread ^ (spread >>> 15);
}

/** `rowGsoType` may carry this bit, virtio 1.2 §5.1.6: the sender reacts to ECN. It changes no size. */
const GSO_ECN = 0x80;

/**
 * The largest IP packet that the frame turns into on the wire: itself, or for a super-frame one
 * segment with its headers.
 *
 * @returns Bytes, or -1 when the frame is not what its GSO type says.
 */
export function packetBytes(
  view: DataView,
  offset: number,
  end: number,
  etherType: number,
  gsoType: number,
  gsoSize: number,
): number {
  const ip = offset + ETHERNET_HEADER_BYTES;
  if (gsoType === GSO_NONE) return end - ip;
  const headersEnd = transportPayloadAt(view, ip, end, etherType, gsoType & ~GSO_ECN);
  if (headersEnd === -1 || gsoSize === 0) return -1;
  return Math.min(end, headersEnd + gsoSize) - ip;
}

function transportPayloadAt(
  view: DataView,
  ip: number,
  end: number,
  etherType: number,
  gsoType: number,
): number {
  let protocol: number | string = -1;
  let transport = ip + IPV6_HEADER_BYTES;
  if (etherType === ETHERTYPE_IPV6 && gsoType !== GSO_TCPV4) {
    protocol = decodeIpv6Header(view, ip, end);
  } else if (etherType === ETHERTYPE_IPV4 && gsoType !== GSO_TCPV6) {
    const headerBytes = decodeIpv4Header(view, ip, end);
    if (typeof headerBytes !== 'number') return -1;
    protocol = view.getUint8(ip + IPV4_PROTOCOL_OFFSET);
    transport = ip + headerBytes;
  }
  if (gsoType === GSO_UDP_L4) {
    const payload = transport + UDP_HEADER_BYTES;
    return protocol === PROTOCOL_UDP && payload <= end ? payload : -1;
  }
  if ((gsoType !== GSO_TCPV4 && gsoType !== GSO_TCPV6) || protocol !== PROTOCOL_TCP) return -1;
  const headerBytes = decodeTcpHeader(view, transport, end);
  return typeof headerBytes === 'number' ? transport + headerBytes : -1;
}
