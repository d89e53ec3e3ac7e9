import ipaddr from 'ipaddr.js';
import type { BackendState } from '../../core/balance/backend-set.js';
import { BACKENDS_MAX } from '../../core/balance/backend-set.js';
import type { BalanceConfig } from '../../core/balance/config.js';
import { parseAddress } from '../../wire/address.js';
import { type Mac, parseMac } from '../../wire/ethernet.js';
import { decodeEndpointRecord, type EndpointRecord } from '../wire/endpoint-record.js';
import { SEGMENTS_MAX } from './counters.js';
import { ingressSubnets } from './ingress-places.js';
import { type AddressFamily, overlayMtuBytes } from './mtu.js';
import {
  FDB_ENTRIES_MAX,
  type FdbEntry,
  FLOOD_MAX,
  NEIGHBORS_MAX,
  OWN_ADDRESSES_MAX,
  PORTS_MAX,
  type PortEntry,
  type Segment,
  type Tables,
  VIPS_MAX,
  type Vip,
  type VipBackend,
  VTEPS_MAX,
  type VtepKey,
  type VtepPlace,
  vtepKey,
} from './tables.js';
import { VIP_MAC } from './vip-mac.js';

export interface OverlayNetwork {
  readonly id: string;
  readonly vni: number;
  readonly subnets: readonly { readonly subnet: string }[];
  /** What the user asked for; the underlay's MTU less encapsulation is the ceiling anyway. */
  readonly mtuBytes?: number | undefined;
  /** Its datagrams are sealed on the underlay. */
  readonly isSealed?: boolean | undefined;
  /** On the ingress network clients outside are spoken with under their own addresses. */
  readonly spec?: { readonly ingress?: boolean | undefined };
}

/** An endpoint of this node, whose TAP the packet thread serves. */
export interface LocalPort {
  /** Of the attachment, say: names the port from one derivation to the next. */
  readonly id: string;
  readonly networkId: string;
  readonly mac: string;
  /** `10.0.1.5/24`. */
  readonly addresses: readonly string[];
  readonly createdAtMs: number;
  /** Default false. */
  readonly isTrusted?: boolean | undefined;
  /** Of a task; its state as in its record. */
  readonly service?: EndpointRecord['service'] | undefined;
  readonly state?: EndpointRecord['state'] | undefined;
  readonly isFailing?: true | undefined;
}

/** A service with virtual addresses. */
export interface OverlayService {
  readonly id: string;
  /** Address literals, without prefix length. */
  readonly vips: readonly { readonly networkId: string; readonly address: string }[];
  readonly balance: BalanceConfig;
}

/** A foreign VTEP (kernel vxlan, a switch) in one segment: configured, since it announces nothing. */
export interface StaticVtep {
  readonly vni: number;
  readonly address: string;
  readonly udpPort: number;
  readonly macs: readonly string[];
  /** Whether it gets the segment's broadcast, unknown unicast and multicast frames. */
  readonly flood: boolean;
}

export interface OverlayInputs {
  readonly self: { readonly id: string; readonly vtep: VtepPlace };
  /** All underlay addresses of this node; the one in `self` need not be repeated. */
  readonly ownAddresses: readonly string[];
  readonly family: AddressFamily;
  readonly underlayMtuBytes: number;
  readonly members: readonly {
    readonly id: string;
    readonly state: 'alive' | 'suspect' | 'dead' | 'left';
  }[];
  /** The networks that this node takes part in. */
  readonly networks: readonly OverlayNetwork[];
  /** Records of all owners; those of `self` are passed over, since `ports` says it better. */
  readonly endpoints: readonly { readonly owner: string; readonly record: EndpointRecord }[];
  readonly ports: readonly LocalPort[];
  readonly services?: readonly OverlayService[] | undefined;
  readonly staticVteps: readonly StaticVtep[];
}

/** What was left out of the tables, and why. */
export interface DeriveStats {
  /** Records of dead or departed owners: left out until the owner is back. */
  suspended: number;
  /** Records of owners that are no members (yet). */
  ownerUnknown: number;
  /** Endpoints of networks that this node is not in. */
  networkUnknown: number;
  /** Records with another VNI than their network has. */
  vniMismatch: number;
  /** Addresses outside of the network's subnets, or not addresses. */
  addressInvalid: number;
  /** Endpoints whose MAC an older one holds: left out whole. */
  macConflicts: number;
  /** Addresses that an older endpoint holds. */
  addressConflicts: number;
  /** Records of others that name this node's VTEP as theirs. */
  vtepClaimed: number;
  /** Configured VTEPs in segments whose datagrams are sealed. */
  staticUnsealed: number;
  /** Entries beyond a `…_MAX`. */
  refused: number;
}

export interface DerivedTables {
  readonly tables: Tables;
  readonly stats: Readonly<DeriveStats>;
}

/** Of which the addresses of its endpoints are. */
function subnetsOf({ id, subnets, spec }: OverlayNetwork): readonly string[] {
  return spec?.ingress === true ? ingressSubnets(id, subnets) : subnets.map(({ subnet }) => subnet);
}

/** The ceiling of what a network's endpoints may send: the user's wish within the underlay's means. */
export function segmentMtuBytes(
  network: OverlayNetwork,
  underlayMtuBytes: number,
  family: AddressFamily,
): number | undefined {
  const ceiling = overlayMtuBytes(underlayMtuBytes, family, network.isSealed === true);
  if (ceiling === undefined) return undefined;
  return Math.min(network.mtuBytes ?? ceiling, ceiling);
}

/** Decodes the values of gossip records; those that are none are counted. */
export function collectEndpoints(
  records: readonly { readonly owner: string; readonly value: Uint8Array }[],
): { readonly endpoints: OverlayInputs['endpoints']; readonly malformed: number } {
  const endpoints: { owner: string; record: EndpointRecord }[] = [];
  for (const { owner, value } of records) {
    const record = decodeEndpointRecord(value);
    if (record !== undefined) endpoints.push({ owner, record });
  }
  return { endpoints, malformed: records.length - endpoints.length };
}

/**
 * FDB, neighbours and flood lists as a pure function of what is known: no entry is learned, so none
 * can be stale.
 *
 * When two endpoints of a segment claim one MAC or one address, the older one has it (then the
 * smaller owner id, MAC, address text), which is the same choice on every node with the same
 * records. Static entries take only MACs that no endpoint has.
 */
export function deriveTables(inputs: OverlayInputs): DerivedTables {
  return new Derivation(inputs).run();
}

interface SegmentDraft {
  readonly vni: number;
  readonly mtuBytes: number;
  readonly hasReturns: boolean;
  readonly isSealed: boolean;
  readonly subnets: readonly [ipaddr.IPv4 | ipaddr.IPv6, number][];
  readonly fdb: Map<Mac, FdbEntry>;
  readonly neighbors: Map<string, Mac>;
  readonly flood: Set<VtepKey>;
  readonly senders: Set<string>;
  /** Tasks by the id of their service. */
  readonly tasks: Map<string, Task[]>;
  readonly vips: Map<string, Vip>;
}

interface Task {
  readonly id: string;
  readonly slot: number;
  readonly state: BackendState;
  readonly isFailing: boolean;
  readonly isLocal: boolean;
  readonly mac: Mac;
  readonly addresses: readonly string[];
}

/** One endpoint's wish to be in the tables. */
interface Claim {
  readonly owner: string;
  readonly createdAtMs: number;
  readonly segment: SegmentDraft;
  readonly mac: string;
  readonly addresses: readonly string[];
  readonly vtep: VtepPlace;
  readonly port: LocalPort | undefined;
  readonly service: EndpointRecord['service'] | undefined;
  readonly state: BackendState;
  readonly isFailing?: true | undefined;
}

class Derivation {
  readonly #inputs: OverlayInputs;
  readonly #selfKey: VtepKey;
  readonly #segments = new Map<string, SegmentDraft>();
  readonly #vteps = new Map<VtepKey, VtepPlace>();
  readonly #ports = new Map<string, PortEntry>();
  readonly #sealPeers = new Map<VtepKey, string>();
  #fdbSize = 0;
  #neighborsSize = 0;
  #vipsSize = 0;
  readonly #stats: DeriveStats = {
    suspended: 0,
    ownerUnknown: 0,
    networkUnknown: 0,
    vniMismatch: 0,
    addressInvalid: 0,
    macConflicts: 0,
    addressConflicts: 0,
    vtepClaimed: 0,
    staticUnsealed: 0,
    refused: 0,
  };

  constructor(inputs: OverlayInputs) {
    this.#inputs = inputs;
    this.#selfKey = vtepKey(inputs.self.vtep);
  }

  run(): DerivedTables {
    this.#draftSegments();
    for (const claim of this.#claims().sort(bySeniority)) this.#grant(claim);
    for (const vtep of this.#inputs.staticVteps) this.#addStatic(vtep);
    this.#suspendTasks();
    for (const service of this.#inputs.services ?? []) this.#addService(service);

    const segments = new Map<number, Segment>();
    for (const draft of this.#segments.values()) segments.set(draft.vni, this.#finish(draft));
    const own = new Set([this.#inputs.self.vtep.address, ...this.#inputs.ownAddresses]);
    const ownAddresses = [...own]
      .filter((address) => parseAddress(address) !== undefined)
      .sort()
      .slice(0, OWN_ADDRESSES_MAX);
    this.#stats.refused += own.size - ownAddresses.length;
    return {
      tables: {
        segments,
        vteps: this.#vteps,
        ports: this.#ports,
        sealPeers: this.#sealPeers,
        ownAddresses,
      },
      stats: this.#stats,
    };
  }

  #draftSegments(): void {
    const { networks, underlayMtuBytes, family } = this.#inputs;
    const vnis = new Set<number>();
    for (const network of [...networks].sort((a, b) => compare(a.id, b.id))) {
      const mtuBytes = segmentMtuBytes(network, underlayMtuBytes, family);
      if (mtuBytes === undefined || vnis.has(network.vni) || vnis.size >= SEGMENTS_MAX) {
        this.#stats.refused += 1;
        continue;
      }
      vnis.add(network.vni);
      this.#segments.set(network.id, {
        vni: network.vni,
        mtuBytes,
        hasReturns: network.spec?.ingress === true,
        isSealed: network.isSealed === true,
        subnets: subnetsOf(network).flatMap((subnet) => parseCidr(subnet) ?? []),
        fdb: new Map(),
        neighbors: new Map(),
        flood: new Set(),
        senders: new Set(),
        tasks: new Map(),
        vips: new Map(),
      });
    }
  }

  #claims(): Claim[] {
    const { self, ports, members, endpoints } = this.#inputs;
    const states = new Map(members.map(({ id, state }) => [id, state]));
    const claims: Claim[] = [];
    for (const port of ports) {
      const segment = this.#segments.get(port.networkId);
      if (segment === undefined) this.#stats.networkUnknown += 1;
      else
        claims.push({
          ...port,
          owner: self.id,
          segment,
          vtep: self.vtep,
          port,
          service: port.service,
          state: port.state ?? 'ready',
        });
    }
    for (const { owner, record } of endpoints) {
      if (owner === self.id) continue;
      const segment = this.#acceptable(states.get(owner), record);
      if (segment === undefined) continue;
      const vtep = { address: record.vtepAddress, udpPort: record.vtepPort };
      const { createdAtMs, mac, addresses, service, state = 'ready', isFailing } = record;
      const place = { owner, createdAtMs, mac, addresses, segment, vtep };
      claims.push({ ...place, service, state, isFailing, port: undefined });
    }
    return claims;
  }

  #acceptable(state: string | undefined, record: EndpointRecord): SegmentDraft | undefined {
    const segment = this.#segments.get(record.networkId);
    if (state === undefined) this.#stats.ownerUnknown += 1;
    else if (state === 'dead' || state === 'left') this.#stats.suspended += 1;
    else if (segment === undefined) this.#stats.networkUnknown += 1;
    else if (segment.vni !== record.vni) this.#stats.vniMismatch += 1;
    else if (vtepKey({ address: record.vtepAddress, udpPort: record.vtepPort }) === this.#selfKey)
      this.#stats.vtepClaimed += 1;
    else return segment;
    return undefined;
  }

  #grant(claim: Claim): void {
    const { segment, vtep, port } = claim;
    const mac = parseMac(claim.mac);
    const isServed = port === undefined ? this.#addVtep(vtep) : this.#addPort(port, segment, mac);
    if (!isServed) {
      this.#stats.refused += 1;
      return;
    }
    // A port that loses its MAC below still is one, so that what it sends is counted, and a VTEP
    // still is a sender; the FDB decides what is thought of their frames.
    if (port === undefined) {
      const key = vtepKey(vtep);
      segment.flood.add(key);
      segment.senders.add(vtep.address);
      // Of two nodes that claim one VTEP the one with the older endpoint has it.
      if (segment.isSealed && !this.#sealPeers.has(key)) this.#sealPeers.set(key, claim.owner);
    }
    if (mac === undefined || segment.fdb.has(mac)) {
      this.#stats.macConflicts += 1;
    } else if (this.#fdbSize >= FDB_ENTRIES_MAX) {
      this.#stats.refused += 1;
    } else {
      this.#fdbSize += 1;
      segment.fdb.set(mac, { vtep: vtepKey(vtep), port: port?.id, isStatic: false });
      const held = claim.addresses.filter((cidr) => this.#addNeighbor(segment, cidr, mac));
      addTask(segment, claim, mac, held);
    }
  }

  /**
   * Tasks of nodes that are thought dead get no new flows, and keep those that they have: a node that
   * was only cut off goes on with them.
   */
  #suspendTasks(): void {
    const dead = new Set(
      this.#inputs.members.filter(({ state }) => state === 'dead').map(({ id }) => id),
    );
    for (const { owner, record } of this.#inputs.endpoints) {
      const segment = this.#segments.get(record.networkId);
      const mac = parseMac(record.mac);
      if (!dead.has(owner) || segment?.vni !== record.vni || mac === undefined) continue;
      const task = { service: record.service, state: 'draining', port: undefined } as const;
      addTask(segment, task, mac, record.addresses);
    }
  }

  #addService({ id, vips, balance }: OverlayService): void {
    for (const { networkId, address } of vips) {
      const segment = this.#segments.get(networkId);
      if (segment === undefined) continue;
      const text = parseAddress(address) && ipaddr.process(address).toString();
      if (text === undefined || segment.neighbors.has(text)) {
        this.#stats.addressConflicts += 1;
        continue;
      }
      if (this.#vipsSize >= VIPS_MAX) {
        this.#stats.refused += 1;
        continue;
      }
      this.#vipsSize += 1;
      // So that ARP and neighbour discovery are answered as for any other address.
      segment.neighbors.set(text, VIP_MAC);
      const held = segment.vips.get(id);
      const addresses = [...(held?.addresses ?? []), text];
      const backends = held?.backends ?? backendsOf(segment.tasks.get(id) ?? [], balance);
      segment.vips.set(id, { addresses, balance, backends });
    }
  }

  #addVtep(vtep: VtepPlace): boolean {
    const key = vtepKey(vtep);
    if (key === this.#selfKey || this.#vteps.has(key)) return true;
    if (this.#vteps.size >= VTEPS_MAX || parseAddress(vtep.address) === undefined) return false;
    this.#vteps.set(key, { address: vtep.address, udpPort: vtep.udpPort });
    return true;
  }

  #addPort(port: LocalPort, segment: SegmentDraft, mac: Mac | undefined): boolean {
    if (mac === undefined || this.#ports.size >= PORTS_MAX || this.#ports.has(port.id))
      return false;
    this.#ports.set(port.id, { vni: segment.vni, mac, isTrusted: port.isTrusted === true });
    return true;
  }

  /** @returns Whether the endpoint has the address now. */
  #addNeighbor(segment: SegmentDraft, cidr: string, mac: Mac): boolean {
    const parsed = parseCidr(cidr)?.[0]?.[0];
    if (parsed === undefined || !segment.subnets.some((subnet) => isWithin(parsed, subnet))) {
      this.#stats.addressInvalid += 1;
      return false;
    }
    const address = parsed.toString();
    if (segment.neighbors.has(address)) this.#stats.addressConflicts += 1;
    else if (this.#neighborsSize >= NEIGHBORS_MAX) this.#stats.refused += 1;
    else {
      this.#neighborsSize += 1;
      segment.neighbors.set(address, mac);
      return true;
    }
    return false;
  }

  #addStatic(vtep: StaticVtep): void {
    const key = vtepKey(vtep);
    const segment = [...this.#segments.values()].find(({ vni }) => vni === vtep.vni);
    if (segment === undefined) {
      this.#stats.networkUnknown += 1;
      return;
    }
    // What is foreign has no keys: frames of a sealed segment do not go there.
    if (segment.isSealed) {
      this.#stats.staticUnsealed += 1;
      return;
    }
    if (key === this.#selfKey || !this.#addVtep(vtep)) {
      this.#stats.refused += 1;
      return;
    }
    segment.senders.add(vtep.address);
    if (vtep.flood) segment.flood.add(key);
    for (const text of vtep.macs) {
      const mac = parseMac(text);
      if (mac === undefined || segment.fdb.has(mac)) this.#stats.macConflicts += 1;
      else if (this.#fdbSize >= FDB_ENTRIES_MAX) this.#stats.refused += 1;
      else {
        this.#fdbSize += 1;
        segment.fdb.set(mac, { vtep: key, port: undefined, isStatic: true });
      }
    }
  }

  #finish(draft: SegmentDraft): Segment {
    const { flood, senders, vni, mtuBytes, hasReturns, isSealed, fdb, neighbors, vips } = draft;
    const floodList = [...flood].sort().slice(0, FLOOD_MAX);
    this.#stats.refused += flood.size - floodList.length;
    const rest = { fdb, neighbors, floodList, senders: [...senders].sort(), vips };
    return { vni, mtuBytes, hasReturns, isSealed, ...rest };
  }
}

function addTask(
  segment: SegmentDraft,
  { service, state, isFailing, port }: Pick<Claim, 'service' | 'state' | 'isFailing' | 'port'>,
  mac: Mac,
  cidrs: readonly string[],
): void {
  if (service === undefined) return;
  const addresses = cidrs.flatMap((cidr) => parseCidr(cidr)?.[0]?.[0].toString() ?? []);
  const isLocal = port !== undefined;
  const { taskId: id, slot } = service;
  const task = { id, slot, state, isFailing: isFailing === true, isLocal, mac, addresses };
  const held = segment.tasks.get(service.id);
  if (held === undefined) segment.tasks.set(service.id, [task]);
  else held.push(task);
}

function backendsOf(tasks: readonly Task[], balance: BalanceConfig): readonly VipBackend[] {
  return tasks
    .map(({ id, slot, state, isFailing, isLocal, mac, addresses }) => ({
      key: id,
      state,
      weight: balance.weights.get(slot) ?? 1,
      isLocal,
      ...(isFailing && { isFailing }),
      mac,
      address4: addresses.find((address) => !address.includes(':')),
      address6: addresses.find((address) => address.includes(':')),
    }))
    .sort((a, b) => compare(a.key, b.key))
    .slice(0, BACKENDS_MAX);
}

function bySeniority(a: Claim, b: Claim): number {
  return (
    a.createdAtMs - b.createdAtMs ||
    compare(a.owner, b.owner) ||
    compare(a.mac, b.mac) ||
    compare(a.addresses.join(), b.addresses.join())
  );
}

/** By code unit, the same in every locale. */
function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** In a list, so that it can be flattened away. */
function parseCidr(text: string): [[ipaddr.IPv4 | ipaddr.IPv6, number]] | undefined {
  return ipaddr.isValidCIDR(text) ? [ipaddr.parseCIDR(text)] : undefined;
}

function isWithin(
  address: ipaddr.IPv4 | ipaddr.IPv6,
  [subnet, bits]: readonly [ipaddr.IPv4 | ipaddr.IPv6, number],
): boolean {
  return address.kind() === subnet.kind() && address.match([subnet, bits] as never);
}
