import type { SwarmError } from '../../../base/swarm-error.js';
import type { NetworkId, NetworkObject, Subnet } from '../../../base/swarm-model.js';
import { canonicalAddress, factsOf, macOf, nextFreeAddress, subnetOf } from './addresses.js';
import { change } from './decision.js';
import { invalid, refuse } from './refuse.js';
import type { Change, ReadonlyState } from './state.js';

interface Chosen {
  readonly subnet: Subnet;
  readonly address: string;
}

/**
 * Addresses that one decision gives out: none that somebody has, and none twice. What is in the plan
 * holds only if `changes` are among those of the decision.
 */
export class AddressPlan {
  readonly #state: ReadonlyState;
  readonly #given = new Map<NetworkId, Set<string>>();
  readonly #cursors = new Map<NetworkId, Readonly<Record<string, string>>>();

  constructor(state: ReadonlyState) {
    this.#state = state;
  }

  /**
   * One address of each family that the network has, IPv4 first, as `10.0.1.5/24`.
   *
   * @param wanted At most one of each family; the others are chosen.
   * @throws SwarmError `SWARM_INVALID`, `SWARM_EXHAUSTED`.
   */
  endpoint(network: NetworkObject, wanted: readonly string[] = []): readonly string[] {
    const chosen = wanted.map((text) => this.#checked(network, text));
    const families = new Set(network.subnets.map((subnet) => factsOf(subnet).cidr.family));
    for (const family of families) {
      const ofFamily = chosen.filter(({ subnet }) => factsOf(subnet).cidr.family === family);
      if (ofFamily.length > 1)
        throw invalid(`several IPv${family} addresses were asked for: name one`);
      if (ofFamily.length === 0) chosen.push(this.#free(network, family));
    }
    return chosen
      .sort((a, b) => Number(a.address.includes(':')) - Number(b.address.includes(':')))
      .map((one) => this.#give(network, one));
  }

  /**
   * Addresses of a service: one of each family that the network has, IPv4 first, as `10.0.1.5/24`. On an ingress network
   * IPv4 alone, since services are reached by ports there.
   *
   * @param held Those that it has already, which it keeps.
   * @throws SwarmError `SWARM_EXHAUSTED`.
   */
  virtual(network: NetworkObject, held: readonly string[] = []): readonly string[] {
    const families = new Set(network.subnets.map((subnet) => factsOf(subnet).cidr.family));
    return ([4, 6] as const)
      .filter((family) => families.has(family) && (family === 4 || network.spec.ingress !== true))
      .map(
        (family) =>
          held.find((address) => address.includes(':') === (family === 6)) ??
          this.#give(network, this.#free(network, family)),
      );
  }

  /** MACs made from IPv4 differ by themselves inside subnets of up to /0; hashes may not. */
  mac(network: NetworkObject, address: string): string {
    const mac = macOf(address);
    if (!address.includes(':')) return mac;
    const used = new Set<string>();
    for (const id of this.#state.addressesOn(network.id).values())
      used.add(this.#state.row('attachment', id)?.mac ?? '');
    let salt = 0;
    let free = mac;
    while (used.has(free)) free = macOf(address, ++salt);
    return free;
  }

  changes(): readonly Change[] {
    return [...this.#cursors].map(([id, last]) => change(this.#state, 'cursor', id, { id, last }));
  }

  #give(network: NetworkObject, { subnet, address }: Chosen): string {
    const given = this.#given.get(network.id) ?? new Set();
    given.add(address);
    this.#given.set(network.id, given);
    return `${address}/${factsOf(subnet).cidr.prefix}`;
  }

  #isTaken(network: NetworkObject, address: string): boolean {
    return (
      this.#state.addressesOn(network.id).has(address) ||
      this.#given.get(network.id)?.has(address) === true
    );
  }

  #checked(network: NetworkObject, text: string): Chosen {
    const address = canonicalAddress(text);
    if (address === undefined) throw invalid(`invalid address ${text}`);
    const subnet = subnetOf(network.subnets, address);
    if (subnet === undefined)
      throw invalid(`address ${address} is not in a subnet of network ${network.spec.name}`);
    const reservedFor = factsOf(subnet).reserved.get(address);
    if (reservedFor !== undefined)
      throw invalid(`address ${address} is ${reservedFor} of network ${network.spec.name}`);
    const holder = this.#state.addressesOn(network.id).get(address);
    if (holder !== undefined) {
      const service = this.#state.row('service', holder);
      const name = this.#state.row('attachment', holder)?.name ?? service?.spec.name ?? '';
      const what = service === undefined ? 'task' : 'service';
      throw invalid(`address ${address} is already in use by ${what} ${holder} (${name})`);
    }
    return { subnet, address };
  }

  #free(network: NetworkObject, family: 4 | 6): Chosen {
    const used = { has: (address: string) => this.#isTaken(network, address) };
    const last = this.#cursors.get(network.id) ?? this.#state.row('cursor', network.id)?.last ?? {};
    for (const subnet of network.subnets) {
      if (factsOf(subnet).cidr.family !== family) continue;
      const address = nextFreeAddress(subnet, used, last[subnet.subnet]);
      if (address === undefined) continue;
      this.#cursors.set(network.id, { ...last, [subnet.subnet]: address });
      return { subnet, address };
    }
    throw exhausted(
      `IPv${family} address`,
      `no available IPv${family} address is left on network ${network.spec.name}`,
    );
  }
}

export function exhausted(what: string, message: string): SwarmError {
  return refuse({ code: 'SWARM_EXHAUSTED', what }, message);
}
