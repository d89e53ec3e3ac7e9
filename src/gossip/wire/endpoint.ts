import ipaddr from 'ipaddr.js';
import { assert } from '../../base/assert.js';
import type { ByteReader, ByteWriter } from './bytes.js';

/** Where a member listens, over UDP and TCP alike. */
export interface Endpoint {
  /** An address literal as `canonicalAddress` gives it, so that equal addresses are equal text. */
  readonly address: string;
  readonly port: number;
}

/**
 * On the wire, big-endian:
 *
 *  +--------+------------------+--------+--------+
 *  |4 or 16 |   address bytes  |      port       |
 *  +--------+------------------+--------+--------+
 */
export function encodeEndpoint(writer: ByteWriter, endpoint: Endpoint): void {
  const bytes = addressBytes(endpoint.address);
  assert(bytes !== undefined, 'an endpoint that is sent holds an address literal');
  writer.u8(bytes.length);
  writer.bytes(bytes);
  writer.u16(endpoint.port);
}

/** `undefined` for a strange address length, an unspecified address, or port 0. */
export function decodeEndpoint(reader: ByteReader): Endpoint | undefined {
  const length = reader.u8();
  if (length !== 4 && length !== 16) return undefined;
  const bytes = reader.bytes(length);
  const port = reader.u16();
  if (reader.failed || port === 0 || bytes.every((byte) => byte === 0)) return undefined;
  return { address: addressText(bytes), port };
}

export function endpointBytes(endpoint: Endpoint): number {
  return (endpoint.address.includes(':') ? 16 : 4) + 3;
}

export function sameEndpoint(a: Endpoint, b: Endpoint): boolean {
  return a.port === b.port && a.address === b.address;
}

/**
 * The one text of an address: IPv4 dotted, IPv6 as RFC 5952 has it, and IPv4-mapped IPv6, as a
 * dual-stack socket reports its peers, as the IPv4 address that it is.
 *
 * @returns `undefined` if the text is no address literal.
 */
export function canonicalAddress(text: string): string | undefined {
  if (isDottedQuad(text)) return text;
  if (!text.includes(':') || !ipaddr.IPv6.isValid(text)) return undefined;
  const parsed = ipaddr.IPv6.parse(text);
  return parsed.isIPv4MappedAddress()
    ? parsed.toIPv4Address().toString()
    : parsed.toRFC5952String();
}

function isDottedQuad(text: string): boolean {
  return ipaddr.IPv4.isValidFourPartDecimal(text);
}

function addressBytes(address: string): Uint8Array | undefined {
  const canonical = canonicalAddress(address);
  if (canonical === undefined) return undefined;
  if (canonical.includes(':')) return Uint8Array.from(ipaddr.IPv6.parse(canonical).toByteArray());
  return Uint8Array.from(canonical.split('.').map(Number));
}

function addressText(bytes: Uint8Array): string {
  if (bytes.length === 4) return bytes.join('.');
  return canonicalAddress(ipaddr.fromByteArray([...bytes]).toString()) ?? '::1';
}
