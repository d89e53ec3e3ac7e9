/**
 * UDP header, RFC 768. Big-endian, 8 bytes:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |   source port   |destination port |     length      |    checksum     |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 */
export const UDP_HEADER_BYTES = 8;
export const UDP_CHECKSUM_OFFSET = 6;

export type UdpDrop = 'udp_truncated';

/** Both ports of the header at `offset` (source in the high half), as one unsigned 32-bit number. */
export function decodeUdpPorts(view: DataView, offset: number, end: number): number | UdpDrop {
  return offset + UDP_HEADER_BYTES > end ? 'udp_truncated' : view.getUint32(offset);
}
