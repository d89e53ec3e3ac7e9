import { assert } from '../../../base/assert.js';
import type { Subnet } from '../../../base/swarm-model.js';
import {
  type Cidr,
  contains,
  formatAddress,
  lastOf,
  networkOf,
  parseAddress,
  parseCidr,
} from './ip.js';
import { isHost } from './subnets.js';

/** A subnet of a stored network always parses. */
export function cidrOf(text: string): Cidr {
  const cidr = parseCidr(text);
  assert(cidr !== undefined, `stored subnet ${text} is malformed`);
  return cidr;
}

/** What is asked of a subnet for every address that is given out. */
interface SubnetFacts {
  readonly cidr: Cidr;
  /** Where addresses are chosen. */
  readonly lowest: bigint;
  readonly highest: bigint;
  readonly reserved: ReadonlyMap<string, string>;
}

const facts = new WeakMap<Subnet, SubnetFacts>();

/** Subnets of stored networks are never altered. */
export function factsOf(subnet: Subnet): SubnetFacts {
  const known = facts.get(subnet);
  if (known !== undefined) return known;
  const cidr = cidrOf(subnet.subnet);
  const range = subnet.ipRange === undefined ? cidr : cidrOf(subnet.ipRange);
  const made = {
    cidr,
    lowest: networkOf(range).value,
    highest: lastOf(range),
    reserved: reservedAddresses(subnet),
  };
  facts.set(subnet, made);
  return made;
}

/** Addresses of a subnet that no endpoint may have, with the reason. */
export function reservedAddresses(subnet: Subnet): ReadonlyMap<string, string> {
  const reserved = new Map([[subnet.gateway, 'the gateway']]);
  for (const [name, address] of Object.entries(subnet.auxAddresses ?? {}))
    reserved.set(address, `the auxiliary address ${name}`);
  return reserved;
}

/**
 * Next free address after `last`, from the lowest again at the end: an address that was just
 * released is used again as late as possible, since others may still have it in mind.
 *
 * @param used Addresses that somebody has, as text.
 * @param last What this function returned last for this subnet.
 * @returns `undefined`: none is free.
 */
export function nextFreeAddress(
  subnet: Subnet,
  used: { has(address: string): boolean },
  last: string | undefined,
): string | undefined {
  const { cidr, lowest, highest, reserved } = factsOf(subnet);
  const lastValue = last === undefined ? undefined : parseAddress(last)?.value;
  const start =
    lastValue !== undefined && lastValue >= lowest && lastValue < highest ? lastValue + 1n : lowest;
  let value = start;
  do {
    const text = formatAddress({ family: cidr.family, value });
    if (isHost(cidr, value) && !reserved.has(text) && !used.has(text)) return text;
    value = value === highest ? lowest : value + 1n;
  } while (value !== start);
  return undefined;
}

/** The subnet of `subnets` that holds the address, if it may be an endpoint's at all. */
export function subnetOf(subnets: readonly Subnet[], address: string): Subnet | undefined {
  const parsed = parseAddress(address);
  if (parsed === undefined) return undefined;
  return subnets.find((subnet) => {
    const cidr = cidrOf(subnet.subnet);
    return contains(cidr, parsed) && isHost(cidr, parsed.value);
  });
}

export function canonicalAddress(text: string): string | undefined {
  const parsed = parseAddress(text);
  return parsed && formatAddress(parsed);
}

/**
 * The MAC of an endpoint: `02:42:` and the IPv4 address, as Docker's are. An endpoint without IPv4
 * gets a hash (FNV-1a) of its IPv6 address there; `salt` sets a second one apart.
 */
export function macOf(address: string, salt = 0): string {
  const parsed = parseAddress(address);
  assert(parsed !== undefined, `allocated address ${address} is malformed`);
  let low = Number(parsed.value & 0xffff_ffffn);
  if (parsed.family === 6) {
    low = 0x811c9dc5 ^ salt;
    for (let shift = 120n; shift >= 0n; shift -= 8n)
      low = Math.imul(low ^ Number((parsed.value >> shift) & 0xffn), 0x01000193);
  }
  const hex = (low >>> 0).toString(16).padStart(8, '0');
  return `02:42:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4, 6)}:${hex.slice(6, 8)}`;
}
