import { addBytes, finishChecksum } from '../../src/dataplane/wire/checksum.js';

/** Bytes of a hex text with spaces anywhere. */
export function bytes(hex: string): Buffer {
  return Buffer.from(hex.replace(/\s+/g, ''), 'hex');
}

export function viewOf(buffer: Uint8Array): DataView {
  return new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
}

export function mac(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

export function ip4(text: string): Buffer {
  return Buffer.from(text.split('.').map(Number));
}

/** Full form or one `::`, no dotted tail. */
export function ip6(text: string): Buffer {
  const [head = '', tail] = text.split('::');
  const words = (part: string) => part.split(':').filter((word) => word !== '');
  const left = words(head);
  const right = tail === undefined ? [] : words(tail);
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0');
  return Buffer.from(
    [...left, ...zeros, ...right].map((word) => word.padStart(4, '0')).join(''),
    'hex',
  );
}

export function ethernet(to: string, from: string, etherType: number, payload: Buffer): Buffer {
  const type = Buffer.alloc(2);
  type.writeUInt16BE(etherType);
  return Buffer.concat([mac(to), mac(from), type, payload]);
}

export interface Ipv4Fields {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly dontFragment?: boolean;
  readonly fragmentWord?: number;
}

/** An IPv4 packet with a right header checksum. */
export function ipv4(fields: Ipv4Fields, payload: Buffer): Buffer {
  const header = Buffer.alloc(20);
  header[0] = 0x45;
  header.writeUInt16BE(20 + payload.length, 2);
  header.writeUInt16BE(fields.fragmentWord ?? (fields.dontFragment === true ? 0x4000 : 0), 6);
  header[8] = 64;
  header[9] = fields.protocol;
  ip4(fields.source).copy(header, 12);
  ip4(fields.destination).copy(header, 16);
  header.writeUInt16BE(checksum(header), 10);
  return Buffer.concat([header, payload]);
}

export function ipv6(
  fields: { source: string; destination: string; next: number; hopLimit?: number },
  payload: Buffer,
): Buffer {
  const header = Buffer.alloc(40);
  header[0] = 0x60;
  header.writeUInt16BE(payload.length, 4);
  header[6] = fields.next;
  header[7] = fields.hopLimit ?? 64;
  ip6(fields.source).copy(header, 8);
  ip6(fields.destination).copy(header, 24);
  return Buffer.concat([header, payload]);
}

/** A UDP datagram without checksum. */
export function udp(from: number, to: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(8);
  header.writeUInt16BE(from, 0);
  header.writeUInt16BE(to, 2);
  header.writeUInt16BE(8 + payload.length, 4);
  return Buffer.concat([header, payload]);
}

export function arp(
  operation: number,
  sender: { mac: string; ip: string },
  target: { mac: string; ip: string },
): Buffer {
  const head = bytes('0001 0800 06 04');
  const op = Buffer.alloc(2);
  op.writeUInt16BE(operation);
  return Buffer.concat([
    head,
    op,
    mac(sender.mac),
    ip4(sender.ip),
    mac(target.mac),
    ip4(target.ip),
  ]);
}

/** An ICMPv6 message with a right checksum, in its IPv6 packet. */
export function icmpv6(
  fields: { source: string; destination: string; hopLimit?: number },
  message: Buffer,
): Buffer {
  const filled = Buffer.from(message);
  filled.writeUInt16BE(0, 2);
  filled.writeUInt16BE(checksum6(fields.source, fields.destination, 58, filled), 2);
  return ipv6({ ...fields, next: 58 }, filled);
}

export function solicitation(source: string, target: string, sourceMac?: string): Buffer {
  const option =
    sourceMac === undefined ? Buffer.alloc(0) : Buffer.concat([bytes('0101'), mac(sourceMac)]);
  const group = `ff02::1:ff${ip6(target).subarray(13, 14).toString('hex')}:${ip6(target).subarray(14).toString('hex')}`;
  const message = Buffer.concat([bytes('87 00 0000 00000000'), ip6(target), option]);
  return icmpv6({ source, destination: group, hopLimit: 255 }, message);
}

/** The oracle: RFC 1071 as words. */
export function checksum(data: Buffer): number {
  let sum = 0;
  for (let i = 0; i < data.length; i += 2) sum += ((data[i] ?? 0) << 8) | (data[i + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export function checksum6(source: string, to: string, next: number, message: Buffer): number {
  const pseudo = Buffer.alloc(8);
  pseudo.writeUInt32BE(message.length, 0);
  pseudo[7] = next;
  return checksum(Buffer.concat([ip6(source), ip6(to), pseudo, message]));
}

/** What the code under test makes of the same bytes. */
export function checksumUnderTest(data: Buffer): number {
  return finishChecksum(addBytes(viewOf(data), 0, data.length, 0));
}
