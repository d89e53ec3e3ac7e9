import { addBytes, finishChecksum } from '../../wire/checksum.js';
import { ETHERNET_HEADER_BYTES } from '../../wire/ethernet.js';
import {
  encodeIpv4Header,
  IPV4_HEADER_BYTES,
  PROTOCOL_TCP,
  pseudoHeaderSum4,
} from '../../wire/ipv4.js';
import {
  encodeIpv6Header,
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_SOURCE_OFFSET,
  pseudoHeaderSum6,
} from '../../wire/ipv6.js';
import { TCP_ACK, TCP_CHECKSUM_OFFSET, TCP_HEADER_BYTES, TCP_RST } from '../../wire/tcp.js';

/** What ends a connection, RFC 9293 §3.5.2. */
export interface Reset {
  /** Addresses as four words each, at `from` and at `to`; IPv4 mapped into IPv6. */
  readonly words: Int32Array;
  readonly from: number;
  readonly to: number;
  /** Source in the high half. */
  readonly ports: number;
  readonly sequence: number;
  readonly acknowledgment: number;
  readonly isAck: boolean;
}

const TTL = 64;
/** Two words of the data offset, flags and window: no options, no window. */
const HEADER_WORDS = 0x5000;

/** Bytes of the whole frame. */
export function resetFrameBytes(is4: boolean): number {
  return ETHERNET_HEADER_BYTES + (is4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES) + TCP_HEADER_BYTES;
}

/** Completes the frame at `frame`, whose Ethernet header is there. Rare, so it may allocate. */
export function writeReset(view: DataView, frame: number, reset: Reset): void {
  const { words, from, to, ports, sequence, acknowledgment, isAck } = reset;
  const ip = frame + ETHERNET_HEADER_BYTES;
  const is4 = words[to] === 0 && words[to + 1] === 0 && words[to + 2] === 0xffff;
  let tcp: number;
  if (is4) {
    const source = (words[from + 3] as number) >>> 0;
    const destination = (words[to + 3] as number) >>> 0;
    encodeIpv4Header(view, ip, source, destination, PROTOCOL_TCP, TTL, TCP_HEADER_BYTES);
    tcp = ip + IPV4_HEADER_BYTES;
  } else {
    encodeIpv6Header(view, ip, PROTOCOL_TCP, TTL, TCP_HEADER_BYTES);
    for (let i = 0; i < 4; i++) {
      view.setInt32(ip + IPV6_SOURCE_OFFSET + i * 4, words[from + i] as number);
      view.setInt32(ip + IPV6_DESTINATION_OFFSET + i * 4, words[to + i] as number);
    }
    tcp = ip + IPV6_HEADER_BYTES;
  }
  view.setInt32(tcp, ports);
  view.setInt32(tcp + 4, sequence);
  view.setInt32(tcp + 8, acknowledgment);
  view.setUint16(tcp + 12, HEADER_WORDS | TCP_RST | (isAck ? TCP_ACK : 0));
  view.setUint16(tcp + 14, 0);
  view.setUint32(tcp + TCP_CHECKSUM_OFFSET, 0);
  const pseudo = is4
    ? pseudoHeaderSum4(view, ip, PROTOCOL_TCP, TCP_HEADER_BYTES)
    : pseudoHeaderSum6(view, ip, PROTOCOL_TCP, TCP_HEADER_BYTES);
  const sum = addBytes(view, tcp, TCP_HEADER_BYTES, pseudo);
  view.setUint16(tcp + TCP_CHECKSUM_OFFSET, finishChecksum(sum));
}
