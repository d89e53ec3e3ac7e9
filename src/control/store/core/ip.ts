import ipaddr from 'ipaddr.js';

export type IpFamily = 4 | 6;

export interface IpAddress {
  readonly family: IpFamily;
  readonly value: bigint;
}

/** A block as written: `value` may have host bits, which `networkOf` clears. */
export interface Cidr {
  readonly family: IpFamily;
  readonly value: bigint;
  readonly prefix: number;
}

const V4 = /^(?:0|[1-9]\d{0,2})(?:\.(?:0|[1-9]\d{0,2})){3}$/;

export function bitsOf(family: IpFamily): number {
  return family === 4 ? 32 : 128;
}

/**
 * Strict: four decimal parts without leading zeros, or IPv6 without a zone. IPv6 forms of IPv4
 * addresses are refused, since they would be a second name of the same address.
 */
export function parseAddress(text: string): IpAddress | undefined {
  if (V4.test(text)) {
    let value = 0;
    for (const part of text.split('.')) {
      if (Number(part) > 255) return undefined;
      value = value * 256 + Number(part);
    }
    return { family: 4, value: BigInt(value) };
  }
  if (!text.includes(':') || text.includes('%') || !ipaddr.IPv6.isValid(text)) return undefined;
  const parsed = ipaddr.IPv6.parse(text);
  if (parsed.isIPv4MappedAddress()) return undefined;
  let value = 0n;
  for (const part of parsed.parts) value = (value << 16n) | BigInt(part);
  return { family: 6, value };
}

export function formatAddress({ family, value }: IpAddress): string {
  // The way of every address that is given out.
  if (family === 4) {
    const bits = Number(value);
    return `${bits >>> 24}.${(bits >>> 16) & 255}.${(bits >>> 8) & 255}.${bits & 255}`;
  }
  const bytes: number[] = [];
  for (let shift = bitsOf(family) - 8; shift >= 0; shift -= 8)
    bytes.push(Number((value >> BigInt(shift)) & 0xffn));
  return ipaddr.fromByteArray(bytes).toString();
}

export function parseCidr(text: string): Cidr | undefined {
  const match = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text);
  const address = parseAddress(match?.[1] ?? '');
  const prefix = Number(match?.[2]);
  if (address === undefined || prefix > bitsOf(address.family)) return undefined;
  return { ...address, prefix };
}

export function formatCidr(cidr: Cidr): string {
  return `${formatAddress(cidr)}/${cidr.prefix}`;
}

export function sizeOf(cidr: Cidr): bigint {
  return 1n << BigInt(bitsOf(cidr.family) - cidr.prefix);
}

/** The block with its host bits cleared. */
export function networkOf(cidr: Cidr): Cidr {
  return { ...cidr, value: cidr.value & ~(sizeOf(cidr) - 1n) };
}

/** The block's highest address; of IPv4 that is its broadcast address. */
export function lastOf(cidr: Cidr): bigint {
  return networkOf(cidr).value + sizeOf(cidr) - 1n;
}

export function contains(cidr: Cidr, address: IpAddress): boolean {
  return (
    cidr.family === address.family &&
    address.value >= networkOf(cidr).value &&
    address.value <= lastOf(cidr)
  );
}

export function overlaps(a: Cidr, b: Cidr): boolean {
  return (
    a.family === b.family && networkOf(a).value <= lastOf(b) && networkOf(b).value <= lastOf(a)
  );
}
