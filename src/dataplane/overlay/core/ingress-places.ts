import ipaddr from 'ipaddr.js';
import { hashText } from '../../core/balance/hash.js';
import { formatAddress } from '../../wire/address.js';

const PREFIX_BITS = 64;
const PREFIX_BYTES = PREFIX_BITS / 8;
/** Unique-local, RFC 4193 §3.1; seven bytes of the network's own follow. */
const UNIQUE_LOCAL = 0xfd;

/**
 * The IPv6 subnet of an ingress network that was given none, so that clients of IPv6 can be spoken with under
 * their own addresses: unique-local (RFC 4193), of the network's id. All nodes derive the same, and it is written nowhere.
 *
 * @returns `undefined` where one of `subnets` is of IPv6: then addresses of that are given.
 */
export function ingressSubnet6(
  networkId: string,
  subnets: readonly { readonly subnet: string }[],
): string | undefined {
  if (subnets.some(({ subnet }) => subnet.includes(':'))) return undefined;
  return `${formatAddress(prefixOf(networkId))}/${PREFIX_BITS}`;
}

/** All of them, as endpoints have addresses of. */
export function ingressSubnets(
  networkId: string,
  subnets: readonly { readonly subnet: string }[],
): readonly string[] {
  const derived = ingressSubnet6(networkId, subnets);
  const given = subnets.map(({ subnet }) => subnet);
  return derived === undefined ? given : [...given, derived];
}

/**
 * The address of a place in `ingressSubnet6`, which ends in its IPv4 address: nobody else has it.
 *
 * @param addresses `10.0.0.5/24`; of which the first one of IPv4 counts.
 * @returns With prefix length; `undefined` where there is no such subnet, or no address of IPv4.
 */
export function ingressAddress6(
  networkId: string,
  subnets: readonly { readonly subnet: string }[],
  addresses: readonly string[],
): string | undefined {
  if (ingressSubnet6(networkId, subnets) === undefined) return undefined;
  const [own = ''] = addresses.map((cidr) => cidr.replace(/\/.*$/, '')).filter(isIpv4);
  if (own === '') return undefined;
  const bytes = prefixOf(networkId);
  bytes.set(ipaddr.IPv4.parse(own).toByteArray(), bytes.length - 4);
  return `${formatAddress(bytes)}/${PREFIX_BITS}`;
}

function isIpv4(address: string): boolean {
  return ipaddr.IPv4.isValidFourPartDecimal(address);
}

/** 16 bytes, of which those behind the prefix are 0. */
function prefixOf(networkId: string): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, hashText(networkId, 1));
  view.setInt32(PREFIX_BYTES - 4, hashText(networkId, 2));
  bytes[0] = UNIQUE_LOCAL;
  return bytes;
}
