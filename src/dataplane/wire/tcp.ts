/**
 * TCP header, RFC 9293 §3.1. Big-endian, 20 to 60 bytes:
 *
 *   0        1        2        3        4        5        6        7
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |   source port   |destination port |         sequence number           |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |      acknowledgment number        |off|res | flags  |     window      |
 *  +--------+--------+--------+--------+--------+--------+--------+--------+
 *  |    checksum     | urgent pointer  |  options, (off - 5) words
 *  +--------+--------+--------+--------+----
 */
export const TCP_HEADER_BYTES = 20;
export const TCP_DATA_OFFSET_OFFSET = 12;
export const TCP_FLAGS_OFFSET = 13;
export const TCP_CHECKSUM_OFFSET = 16;

export const TCP_FIN = 0x01;
export const TCP_SYN = 0x02;
export const TCP_RST = 0x04;
export const TCP_ACK = 0x10;

export type TcpDrop = 'tcp_truncated' | 'tcp_malformed';

/** Length in bytes (20 to 60) of the header at `offset`, within bounds. */
export function decodeTcpHeader(view: DataView, offset: number, end: number): number | TcpDrop {
  if (offset + TCP_HEADER_BYTES > end) return 'tcp_truncated';
  const headerBytes = (view.getUint8(offset + TCP_DATA_OFFSET_OFFSET) >>> 4) * 4;
  if (headerBytes < TCP_HEADER_BYTES) return 'tcp_malformed';
  return offset + headerBytes > end ? 'tcp_truncated' : headerBytes;
}
