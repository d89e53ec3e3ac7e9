import { parseAddress } from '../../wire/address.js';

/** One end of a flow. */
export interface FlowAddress {
  /** A literal; IPv4 also as IPv4-mapped IPv6, as dual-stack sockets tell it. */
  readonly address: string;
  readonly port: number;
}

/** Which of the two texts goes before what the client sends. */
export type ProxyProtocol = 'v1' | 'v2';

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex');
/** Version 2, command PROXY. */
const VERSION_COMMAND = 0x21;
const FAMILY = { 4: 0x10, 16: 0x20 } as const;
const TRANSPORT = { tcp: 1, udp: 2 } as const;

/**
 * What tells a task who its client is: `PROXY protocol`, versions 1 (§2.1, a line of text) and 2 (§2.2):
 *
 *  +----------------------+---------+---------+---------+-----------+-----------+---------------+
 *  | 12 bytes signature   | 0x21    | family, | length, | source    | target    | source port,  |
 *  |                      |         | kind    | 16 bits | address   | address   | target port   |
 *  +----------------------+---------+---------+---------+-----------+-----------+---------------+
 *
 * Version 1 knows TCP only. An address that is none, or of another family than its counterpart, gives the
 * form without addresses (`UNKNOWN`, family 0), which receivers take.
 */
export function proxyHeader(
  protocol: ProxyProtocol,
  transport: 'tcp' | 'udp',
  source: FlowAddress,
  target: FlowAddress,
): Buffer {
  const [from, to] = [bytesOf(source.address), bytesOf(target.address)];
  const isKnown = from !== undefined && to !== undefined && from.length === to.length;
  if (protocol === 'v1') {
    if (!isKnown) return Buffer.from('PROXY UNKNOWN\r\n', 'latin1');
    const family = from.length === 4 ? 'TCP4' : 'TCP6';
    const words = [family, textOf(from), textOf(to), source.port, target.port];
    return Buffer.from(`PROXY ${words.join(' ')}\r\n`, 'latin1');
  }
  const kind = isKnown ? FAMILY[from.length as 4 | 16] | TRANSPORT[transport] : 0;
  const addresses = isKnown ? [from, to, portsOf(source.port, target.port)] : [];
  const length = addresses.reduce((sum, { length }) => sum + length, 0);
  const head = Buffer.from([VERSION_COMMAND, kind, length >> 8, length & 0xff]);
  return Buffer.concat([SIGNATURE, head, ...addresses]);
}

/** 4 or 16 bytes. */
function bytesOf(address: string): Uint8Array | undefined {
  const bytes = parseAddress(address.replace(/%.*$/, ''));
  if (bytes === undefined) return undefined;
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff;
  return isMapped && bytes[11] === 0xff ? bytes.subarray(12) : bytes;
}

/** IPv6 in full, which every reader takes. */
function textOf(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  const view = Buffer.from(bytes);
  return Array.from({ length: 8 }, (_, i) => view.readUInt16BE(2 * i).toString(16)).join(':');
}

function portsOf(source: number, target: number): Buffer {
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(source, 0);
  ports.writeUInt16BE(target, 2);
  return ports;
}
