import ipaddr from 'ipaddr.js';
import { isEncodableName } from '../wire/dns.js';

/** One thing that has a name on a network: an attachment, or a service. */
export interface NameEntry {
  readonly name: string;
  readonly aliases: readonly string[];
  /** IPv4 and IPv6 literals. */
  readonly addresses: readonly string[];
  /** What SRV questions are answered by; its names are of this network. */
  readonly places?: Places;
}

/** A port of a service, at each of its tasks. */
export interface NamedPort {
  readonly name?: string | undefined;
  readonly protocol: string;
  readonly port: number;
}

/** Where a service is to be found: every port at every one of these names. */
export interface Places {
  readonly targets: readonly string[];
  readonly ports: readonly NamedPort[];
}

/** What one network calls its own. */
export interface NetworkNames {
  /** The network's name, as in `NAME.NETWORK`. */
  readonly network: string;
  readonly entries: readonly NameEntry[];
}

/** All that one namespace may know: the networks that it is attached to, and no others. */
export type NameTable = readonly NetworkNames[];

/** Most addresses behind one name; more are left out and counted. */
export const ADDRESSES_MAX = 1024;

/** `_http._tcp.web`: a port of the service by its name or number, RFC 2782. */
const SERVICE_PREFIX = /^_([^.]+)\._(tcp|udp|sctp)\.(.+)$/;

/** `web.9`, `web.9.mesh`: a place of a service. */
const PLACE = /^(.+?)\.\d+(?:\.(.+))?$/;

/** How `tasks.NAME` is written; it names the tasks themselves and never a service's VIP. */
const TASKS_PREFIX = 'tasks.';

/** The same name in the form that is compared: DNS ignores ASCII case (RFC 4343) and the last dot. */
export function canonicalName(name: string): string {
  const lower = name.replace(/[A-Z]/g, (c) => c.toLowerCase());
  return lower.endsWith('.') ? lower.slice(0, -1) : lower;
}

interface Addresses {
  readonly v4: Set<string>;
  readonly v6: Set<string>;
}

/** What is known of one name. */
export interface NameHit {
  readonly v4: readonly string[];
  readonly v6: readonly string[];
}

/**
 * A name table made ready to be asked: lookups take constant time whatever its size.
 *
 * A name known on several networks has the addresses of all of them, since all are reachable.
 */
export class NameIndex {
  readonly #names = new Map<string, Addresses>();
  readonly #places = new Map<string, Places[]>();
  readonly #pointers = new Map<string, string>();
  #refusedCount = 0;

  constructor(table: NameTable) {
    for (const { network, entries } of table) {
      for (const entry of entries) this.#add(network, entry);
    }
  }

  /** Names and addresses that were left out: not fit for DNS, not an address, or too many. */
  get refusedCount(): number {
    return this.#refusedCount;
  }

  get nameCount(): number {
    return this.#names.size;
  }

  /** @returns `undefined` if the name is not ours. A hit without addresses of a family is a hit. */
  lookup(name: string): NameHit | undefined {
    const key = canonicalName(name);
    const bare = key.startsWith(TASKS_PREFIX) ? key.slice(TASKS_PREFIX.length) : key;
    const addresses = this.#names.get(key) ?? this.#names.get(bare);
    if (addresses === undefined) return undefined;
    return { v4: [...addresses.v4], v6: [...addresses.v6] };
  }

  /** Whether the name is a place of one of our services, which nobody has now if `lookup` does not know it. */
  isPlace(name: string): boolean {
    const [, service = '', network] = PLACE.exec(canonicalName(name)) ?? [];
    return this.#places.has(network === undefined ? service : `${service}.${network}`);
  }

  /**
   * Where a service is: all ports of `web`, or the one of `_http._tcp.web`.
   *
   * @returns `undefined` if the name is no service of ours.
   */
  lookupPlaces(
    name: string,
  ): readonly { readonly target: string; readonly port: number }[] | undefined {
    const key = canonicalName(name);
    const [, wanted, protocol, bare = key] = SERVICE_PREFIX.exec(key) ?? [];
    const places = this.#places.get(bare);
    const found = places?.flatMap(({ targets, ports }) =>
      ports
        .filter(
          (port) =>
            wanted === undefined ||
            (port.protocol === protocol &&
              (String(port.port) === wanted || canonicalName(port.name ?? '') === wanted)),
        )
        .flatMap(({ port }) => targets.map((target) => ({ target, port }))),
    );
    return found?.slice(0, ADDRESSES_MAX);
  }

  /** @param name The question of a PTR query, `2.0.0.10.in-addr.arpa`. */
  lookupPointer(name: string): string | undefined {
    const address = addressOfPointer(canonicalName(name));
    return address === undefined ? undefined : this.#pointers.get(address);
  }

  #add(network: string, entry: NameEntry): void {
    const addresses = entry.addresses.map(canonicalAddress).filter((a) => a !== undefined);
    this.#refusedCount += entry.addresses.length - addresses.length;
    for (const name of new Set([entry.name, ...entry.aliases].map(canonicalName))) {
      this.#addName(name, addresses);
      this.#addName(`${name}.${canonicalName(network)}`, addresses);
    }
    if (entry.places !== undefined) this.#addPlaces(network, entry, entry.places);
    const pointer = `${entry.name}.${network}`;
    if (!isEncodableName(pointer)) return;
    for (const address of addresses) {
      // The first name given to an address is its own; later ones are services in front of it.
      if (!this.#pointers.has(address)) this.#pointers.set(address, pointer);
    }
  }

  #addPlaces(network: string, { name, aliases }: NameEntry, { targets, ports }: Places): void {
    const whole = targets.map((target) => `${target}.${network}`);
    const places = { targets: whole.filter(isEncodableName), ports };
    for (const each of new Set([name, ...aliases].map(canonicalName)))
      for (const key of [each, `${each}.${canonicalName(network)}`]) {
        const held = this.#places.get(key);
        if (held === undefined) this.#places.set(key, [places]);
        else held.push(places);
      }
  }

  #addName(name: string, addresses: readonly string[]): void {
    if (!isEncodableName(name)) {
      this.#refusedCount += 1;
      return;
    }
    let held = this.#names.get(name);
    if (held === undefined) {
      held = { v4: new Set(), v6: new Set() };
      this.#names.set(name, held);
    }
    for (const address of addresses) {
      const family = address.includes(':') ? held.v6 : held.v4;
      if (family.size < ADDRESSES_MAX) family.add(address);
      else this.#refusedCount += 1;
    }
  }
}

function canonicalAddress(address: string): string | undefined {
  return ipaddr.isValid(address) ? ipaddr.parse(address).toNormalizedString() : undefined;
}

const V4_SUFFIX = '.in-addr.arpa';
const V6_SUFFIX = '.ip6.arpa';

/** The address that a PTR question is about, RFC 1035 §3.5 and RFC 3596 §2.5. */
export function addressOfPointer(name: string): string | undefined {
  if (name.endsWith(V4_SUFFIX)) {
    const labels = name.slice(0, -V4_SUFFIX.length).split('.');
    if (labels.length !== 4 || !labels.every((label) => /^\d{1,3}$/.test(label))) return undefined;
    return canonicalAddress(labels.reverse().join('.'));
  }
  if (name.endsWith(V6_SUFFIX)) {
    const nibbles = name.slice(0, -V6_SUFFIX.length).split('.');
    if (nibbles.length !== 32 || !nibbles.every((n) => /^[0-9a-f]$/.test(n))) return undefined;
    return canonicalAddress(nibbles.reverse().join('').match(/.{4}/g)?.join(':') ?? '');
  }
  return undefined;
}
