import type { Subnet, SubnetSpec } from '../../../base/swarm-model.js';
import {
  type Cidr,
  contains,
  formatAddress,
  formatCidr,
  type IpAddress,
  type IpFamily,
  lastOf,
  networkOf,
  overlaps,
  parseAddress,
  parseCidr,
  sizeOf,
} from './ip.js';
import { invalid, refuse } from './refuse.js';

/** Smaller blocks have no room for a gateway and two endpoints. */
const PREFIX_MAX: Readonly<Record<IpFamily, number>> = { 4: 30, 6: 126 };
/** Size of an IPv6 subnet taken from the swarm's own prefix (RFC 4291 interface ids). */
const ULA_SUBNET_PREFIX = 64;

export interface SubnetRequest {
  readonly ipam: readonly SubnetSpec[];
  readonly ipv6: boolean;
}

export interface SubnetPools {
  /** CIDR texts, tried in order. */
  readonly defaultAddressPool: readonly string[];
  readonly subnetSize: number;
  /** The swarm's own /48 of RFC 4193. */
  readonly ulaPrefix: string;
  /** Blocks of all networks there are. */
  readonly taken: readonly Cidr[];
}

/**
 * Lowest block of `prefix` bits in `pool` that touches none of `taken`.
 * Cost: sorting `taken`; each taken block is passed once.
 */
export function firstFreeBlock(
  pool: Cidr,
  prefix: number,
  taken: readonly Cidr[],
): Cidr | undefined {
  const within = taken
    .filter((block) => overlaps(block, pool))
    .sort((a, b) => (networkOf(a).value < networkOf(b).value ? -1 : 1));
  const size = sizeOf({ ...pool, prefix });
  let candidate = networkOf({ ...pool, prefix: pool.prefix }).value;
  for (const block of within) {
    if (networkOf(block).value > candidate + size - 1n) break;
    const after = lastOf(block) + 1n;
    if (after > candidate) candidate = ((after + size - 1n) / size) * size;
  }
  return candidate + size - 1n <= lastOf(pool)
    ? { family: pool.family, value: candidate, prefix }
    : undefined;
}

/**
 * The subnets of a new network, canonical and with gateways: what the user asked for, checked, and
 * the rest from the pools. Messages are moby's where it has any.
 *
 * @throws SwarmError `SWARM_INVALID` with one sentence, `SWARM_EXHAUSTED`.
 */
export function allocateSubnets(request: SubnetRequest, pools: SubnetPools): readonly Subnet[] {
  const taken = [...pools.taken];
  const subnets: Subnet[] = [];
  const families = new Set<IpFamily>();
  const add = (cidr: Cidr, spec: SubnetSpec) => {
    if (taken.some((block) => overlaps(block, cidr)))
      throw invalid('Pool overlaps with other one on this address space');
    taken.push(cidr);
    families.add(cidr.family);
    subnets.push(makeSubnet(cidr, spec));
  };
  for (const spec of request.ipam) {
    if (spec.subnet !== '') add(checkedSubnet(spec, request.ipv6), spec);
    else refuseOrphans(spec);
  }
  if (!families.has(4)) add(defaultBlock(pools, taken), { subnet: '' });
  if (request.ipv6 && !families.has(6)) add(ulaBlock(pools.ulaPrefix, taken), { subnet: '' });
  // IPv4 first: the first subnet is the one whose address makes the MAC.
  return subnets.sort((a, b) => Number(a.subnet.includes(':')) - Number(b.subnet.includes(':')));
}

function checkedSubnet(spec: SubnetSpec, ipv6: boolean): Cidr {
  const cidr = parseCidr(spec.subnet);
  if (cidr === undefined)
    throw invalid(`invalid subnet ${spec.subnet}: invalid CIDR block notation`);
  const network = networkOf(cidr);
  if (network.value !== cidr.value)
    throw invalid(`invalid subnet ${spec.subnet}: it should be ${formatCidr(network)}`);
  if (cidr.family === 6 && !ipv6)
    throw invalid(`subnet ${spec.subnet} is IPv6: create the network with --ipv6`);
  if (cidr.prefix > PREFIX_MAX[cidr.family])
    throw invalid(`subnet ${spec.subnet} is too small: use /${PREFIX_MAX[cidr.family]} or larger`);
  if (cidr.prefix === 0) throw invalid(`subnet ${spec.subnet} is too large: it is everything`);
  return cidr;
}

/** Settings of a subnet that was not given have nothing to belong to. */
function refuseOrphans(spec: SubnetSpec): void {
  if (spec.ipRange !== undefined) throw invalid(`no matching subnet for range ${spec.ipRange}`);
  if (spec.gateway !== undefined) throw invalid(`no matching subnet for gateway ${spec.gateway}`);
  for (const aux of Object.values(spec.auxAddresses ?? {}))
    throw invalid(`no matching subnet for aux-address ${aux}`);
}

function makeSubnet(cidr: Cidr, spec: SubnetSpec): Subnet {
  const aux: Record<string, string> = {};
  for (const [name, text] of Object.entries(spec.auxAddresses ?? {})) {
    aux[name] = formatAddress(
      inside(cidr, text, `no matching subnet for aux-address ${text}`, 'auxiliary address'),
    );
  }
  const gateway =
    spec.gateway === undefined
      ? firstAddress(cidr, new Set(Object.values(aux)))
      : formatAddress(
          inside(cidr, spec.gateway, `no matching subnet for gateway ${spec.gateway}`, 'gateway'),
        );
  if (Object.values(aux).includes(gateway))
    throw invalid(`auxiliary address ${gateway} is the gateway of ${formatCidr(cidr)}`);
  return {
    subnet: formatCidr(cidr),
    gateway,
    ...(spec.ipRange === undefined ? {} : { ipRange: checkedRange(cidr, spec.ipRange) }),
    ...(spec.auxAddresses === undefined ? {} : { auxAddresses: aux }),
  };
}

function inside(cidr: Cidr, text: string, outside: string, what: string): IpAddress {
  const address = parseAddress(text);
  if (address === undefined) throw invalid(`invalid ${what} ${text}: invalid address`);
  if (!contains(cidr, address)) throw invalid(outside);
  if (!isHost(cidr, address.value))
    throw invalid(`invalid ${what} ${text}: it is the network or broadcast address`);
  return address;
}

/** Neither the network's own address (IPv6: the routers' anycast) nor IPv4's broadcast. */
export function isHost(cidr: Cidr, value: bigint): boolean {
  return value !== networkOf(cidr).value && !(cidr.family === 4 && value === lastOf(cidr));
}

function checkedRange(cidr: Cidr, text: string): string {
  const range = parseCidr(text);
  if (range === undefined) throw invalid(`invalid ip-range ${text}: invalid CIDR block notation`);
  if (!contains(cidr, range) || range.prefix < cidr.prefix)
    throw invalid(`no matching subnet for range ${text}`);
  const network = networkOf(range);
  if (network.value !== range.value)
    throw invalid(`invalid ip-range ${text}: it should be ${formatCidr(network)}`);
  return formatCidr(range);
}

function firstAddress(cidr: Cidr, reserved: ReadonlySet<string>): string {
  for (let value = cidr.value + 1n; isHost(cidr, value) && value <= lastOf(cidr); value++) {
    const text = formatAddress({ family: cidr.family, value });
    if (!reserved.has(text)) return text;
  }
  throw invalid(`subnet ${formatCidr(cidr)} has no address left for its gateway`);
}

function defaultBlock(pools: SubnetPools, taken: readonly Cidr[]): Cidr {
  for (const text of pools.defaultAddressPool) {
    const pool = parseCidr(text);
    const block = pool && firstFreeBlock(pool, pools.subnetSize, taken);
    if (block !== undefined) return block;
  }
  throw refuse(
    { code: 'SWARM_EXHAUSTED', what: 'subnet' },
    'could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network',
  );
}

function ulaBlock(ulaPrefix: string, taken: readonly Cidr[]): Cidr {
  const pool = parseCidr(ulaPrefix);
  const block = pool && firstFreeBlock(pool, ULA_SUBNET_PREFIX, taken);
  if (block !== undefined) return block;
  throw refuse(
    { code: 'SWARM_EXHAUSTED', what: 'subnet' },
    `no IPv6 subnet is left in the swarm's prefix ${ulaPrefix}`,
  );
}

/**
 * Judges `--default-addr-pool` and `--default-addr-pool-mask-length` at `swarm init`.
 * @throws SwarmError `SWARM_INVALID`.
 */
export function checkDefaultPools(pools: readonly string[], subnetSize: number): void {
  if (pools.length === 0) throw invalid('at least one default address pool is needed');
  if (!Number.isInteger(subnetSize) || subnetSize < 1 || subnetSize > PREFIX_MAX[4])
    throw invalid(`invalid subnet size ${subnetSize}: use a number from 1 to ${PREFIX_MAX[4]}`);
  const seen: Cidr[] = [];
  for (const text of pools) {
    const pool = parseCidr(text);
    if (pool === undefined || pool.family !== 4)
      throw invalid(`invalid default address pool ${text}: give an IPv4 block such as 10.0.0.0/8`);
    if (networkOf(pool).value !== pool.value)
      throw invalid(
        `invalid default address pool ${text}: it should be ${formatCidr(networkOf(pool))}`,
      );
    if (pool.prefix > subnetSize)
      throw invalid(`default address pool ${text} is smaller than one subnet of /${subnetSize}`);
    if (seen.some((other) => overlaps(other, pool)))
      throw invalid(`default address pool ${text} overlaps with another one`);
    seen.push(pool);
  }
}
