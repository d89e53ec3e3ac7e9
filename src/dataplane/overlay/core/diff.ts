import { assert } from '../../../base/assert.js';
import type { BackendEntry } from '../../core/balance/backend-set.js';
import { type BalanceConfig, sameBalance } from '../../core/balance/config.js';
import type { PacketIo } from '../../core/packet-io.js';
import { parseAddress } from '../../wire/address.js';
import { NO_TABLES, PORTS_MAX, type Segment, type Tables, type Vip, VTEPS_MAX } from './tables.js';

/** An address as four big-endian 32-bit words, IPv4 mapped into IPv6. */
export type AddressWords = readonly [number, number, number, number];

/**
 * What has to change in the packet thread's tables: plain data, to be posted to it. Removals come
 * before additions; all of it belongs between two batches.
 */
export interface TablesUpdate {
  readonly fdbRemoved: readonly { readonly vni: number; readonly mac: number }[];
  readonly neighborsRemoved: readonly { readonly vni: number; readonly address: AddressWords }[];
  readonly sendersRemoved: readonly { readonly vni: number; readonly address: AddressWords }[];
  readonly portsRemoved: readonly number[];
  readonly vipsRemoved: readonly { readonly vni: number; readonly serviceId: string }[];
  readonly segmentsRemoved: readonly number[];
  readonly vtepsRemoved: readonly number[];
  /** `undefined`: as before. */
  readonly ownAddresses: readonly AddressWords[] | undefined;
  readonly vtepsSet: readonly VtepSet[];
  readonly segmentsSet: readonly SegmentSet[];
  readonly portsSet: readonly PortSet[];
  readonly fdbSet: readonly FdbSet[];
  readonly neighborsSet: readonly {
    readonly vni: number;
    readonly address: AddressWords;
    readonly mac: number;
  }[];
  readonly sendersSet: readonly { readonly vni: number; readonly address: AddressWords }[];
  readonly vipsSet: readonly VipSet[];
}

/** A service's virtual addresses and backends in one segment: all of them, each time. */
export interface VipSet {
  readonly vni: number;
  readonly serviceId: string;
  readonly addresses: readonly AddressWords[];
  readonly balance: BalanceConfig;
  readonly backends: readonly VipBackendSet[];
}

export interface VipBackendSet extends BackendEntry {
  readonly mac: number;
  readonly words4: AddressWords | undefined;
  readonly words6: AddressWords | undefined;
}

export interface VtepSet {
  readonly index: number;
  readonly address: string;
  readonly udpPort: number;
  readonly words: AddressWords;
}

export interface SegmentSet {
  readonly vni: number;
  readonly mtuBytes: number;
  readonly hasReturns: boolean;
  readonly isSealed: boolean;
  /** VTEP indexes. */
  readonly floodList: readonly number[];
}

export interface PortSet {
  readonly index: number;
  readonly vni: number;
  readonly mac: number;
  readonly isTrusted: boolean;
}

export interface FdbSet {
  readonly vni: number;
  readonly mac: number;
  /** Index of the local port, or -1. */
  readonly port: number;
  /** Index of the VTEP when `port` is -1. */
  readonly vtep: number;
}

/** Tables with the numbers that the packet thread and the driver know VTEPs and ports by. */
export interface PublishedTables {
  readonly tables: Tables;
  readonly vtepIndexes: ReadonlyMap<string, number>;
  /** By the id of the local port. */
  readonly portIndexes: ReadonlyMap<string, number>;
}

export const NOTHING_PUBLISHED: PublishedTables = {
  tables: NO_TABLES,
  vtepIndexes: new Map(),
  portIndexes: new Map(),
};

/**
 * What leads from `previous` to `next`. Indexes of what stays do not change, and one that became
 * free is not given away again in the same update, so that nobody mistakes the new for the old.
 */
export function diffTables(
  previous: PublishedTables,
  next: Tables,
): { readonly update: TablesUpdate; readonly published: PublishedTables } {
  const published: PublishedTables = {
    tables: next,
    vtepIndexes: assignIndexes(previous.vtepIndexes, next.vteps.keys()),
    portIndexes: assignIndexes(previous.portIndexes, next.ports.keys()),
  };
  return { update: compare(previous, published), published };
}

/** Everything, with the indexes as they are: for a packet thread that starts anew. */
export function fullUpdate(published: PublishedTables): TablesUpdate {
  return compare(NOTHING_PUBLISHED, published);
}

/** Tells the driver where VTEPs are; to be called between two batches, with `Vtep.apply`. */
export function programVteps(update: TablesUpdate, io: PacketIo): void {
  for (const index of update.vtepsRemoved) io.removeVtep(index);
  for (const { index, address, udpPort } of update.vtepsSet) io.setVtep(index, address, udpPort);
}

/** Largest index + 1: twice the entries, since freed indexes rest for one update. */
export const VTEP_INDEXES_MAX = VTEPS_MAX * 2;
export const PORT_INDEXES_MAX = PORTS_MAX * 2;

function assignIndexes(
  previous: ReadonlyMap<string, number>,
  keys: Iterable<string>,
): ReadonlyMap<string, number> {
  const taken = new Set(previous.values());
  const indexes = new Map<string, number>();
  let free = 0;
  for (const key of keys) {
    let index = previous.get(key);
    if (index === undefined) {
      while (taken.has(free)) free += 1;
      index = free;
      free += 1;
    }
    indexes.set(key, index);
  }
  return indexes;
}

function compare(from: PublishedTables, to: PublishedTables): TablesUpdate {
  const draft = {
    fdbRemoved: [] as TablesUpdate['fdbRemoved'][number][],
    neighborsRemoved: [] as TablesUpdate['neighborsRemoved'][number][],
    sendersRemoved: [] as TablesUpdate['sendersRemoved'][number][],
    portsRemoved: gone(from.portIndexes, to.portIndexes),
    vipsRemoved: [] as TablesUpdate['vipsRemoved'][number][],
    segmentsRemoved: [...from.tables.segments.keys()].filter((vni) => !to.tables.segments.has(vni)),
    vtepsRemoved: gone(from.vtepIndexes, to.vtepIndexes),
    ownAddresses: ownAddressesOf(from, to),
    vtepsSet: newVteps(from, to),
    segmentsSet: [] as SegmentSet[],
    portsSet: changedPorts(from, to),
    fdbSet: [] as FdbSet[],
    neighborsSet: [] as TablesUpdate['neighborsSet'][number][],
    sendersSet: [] as TablesUpdate['sendersSet'][number][],
    vipsSet: [] as VipSet[],
  };
  for (const vni of new Set([...from.tables.segments.keys(), ...to.tables.segments.keys()])) {
    const before = from.tables.segments.get(vni);
    const after = to.tables.segments.get(vni);
    if (after !== undefined && !sameSegment(before, after)) {
      const floodList = after.floodList.map((key) => indexOf(to.vtepIndexes, key));
      const { mtuBytes, hasReturns, isSealed } = after;
      draft.segmentsSet.push({ vni, mtuBytes, hasReturns, isSealed, floodList });
    }
    compareFdb(vni, before, after, to, draft);
    compareNeighbors(vni, before, after, draft);
    compareVips(vni, before, after, draft);
    const sendersBefore = new Set(before?.senders);
    const sendersAfter = new Set(after?.senders);
    for (const address of sendersBefore)
      if (!sendersAfter.has(address)) draft.sendersRemoved.push({ vni, address: wordsOf(address) });
    for (const address of sendersAfter)
      if (!sendersBefore.has(address)) draft.sendersSet.push({ vni, address: wordsOf(address) });
  }
  return draft;
}

function compareFdb(
  vni: number,
  before: Segment | undefined,
  after: Segment | undefined,
  to: PublishedTables,
  draft: { readonly fdbRemoved: { vni: number; mac: number }[]; readonly fdbSet: FdbSet[] },
): void {
  for (const mac of before?.fdb.keys() ?? [])
    if (after?.fdb.has(mac) !== true) draft.fdbRemoved.push({ vni, mac });
  for (const [mac, entry] of after?.fdb ?? []) {
    const held = before?.fdb.get(mac);
    if (held !== undefined && held.vtep === entry.vtep && held.port === entry.port) continue;
    const port = entry.port === undefined ? -1 : indexOf(to.portIndexes, entry.port);
    const vtep = port === -1 ? indexOf(to.vtepIndexes, entry.vtep) : -1;
    draft.fdbSet.push({ vni, mac, port, vtep });
  }
}

function compareNeighbors(
  vni: number,
  before: Segment | undefined,
  after: Segment | undefined,
  draft: {
    readonly neighborsRemoved: TablesUpdate['neighborsRemoved'][number][];
    readonly neighborsSet: TablesUpdate['neighborsSet'][number][];
  },
): void {
  for (const address of before?.neighbors.keys() ?? [])
    if (after?.neighbors.has(address) !== true)
      draft.neighborsRemoved.push({ vni, address: wordsOf(address) });
  for (const [address, mac] of after?.neighbors ?? [])
    if (before?.neighbors.get(address) !== mac)
      draft.neighborsSet.push({ vni, address: wordsOf(address), mac });
}

function compareVips(
  vni: number,
  before: Segment | undefined,
  after: Segment | undefined,
  draft: {
    readonly vipsRemoved: TablesUpdate['vipsRemoved'][number][];
    readonly vipsSet: VipSet[];
  },
): void {
  for (const serviceId of before?.vips.keys() ?? [])
    if (after?.vips.has(serviceId) !== true) draft.vipsRemoved.push({ vni, serviceId });
  for (const [serviceId, vip] of after?.vips ?? []) {
    if (sameVip(before?.vips.get(serviceId), vip)) continue;
    const backends = vip.backends.map(({ address4, address6, ...backend }) => ({
      ...backend,
      words4: address4 === undefined ? undefined : wordsOf(address4),
      words6: address6 === undefined ? undefined : wordsOf(address6),
    }));
    const addresses = vip.addresses.map(wordsOf);
    draft.vipsSet.push({ vni, serviceId, addresses, balance: vip.balance, backends });
  }
}

function sameVip(before: Vip | undefined, after: Vip): boolean {
  return (
    before !== undefined &&
    sameBalance(before.balance, after.balance) &&
    before.addresses.join() === after.addresses.join() &&
    before.backends.length === after.backends.length &&
    before.backends.every((one, i) => {
      const other = after.backends[i];
      return (
        one.key === other?.key &&
        one.state === other.state &&
        one.weight === other.weight &&
        one.isLocal === other.isLocal &&
        one.isFailing === other.isFailing &&
        one.mac === other.mac &&
        one.address4 === other.address4 &&
        one.address6 === other.address6
      );
    })
  );
}

function sameSegment(before: Segment | undefined, after: Segment): boolean {
  return (
    before !== undefined &&
    before.mtuBytes === after.mtuBytes &&
    before.hasReturns === after.hasReturns &&
    before.isSealed === after.isSealed &&
    before.floodList.length === after.floodList.length &&
    before.floodList.every((key, i) => key === after.floodList[i])
  );
}

function gone(before: ReadonlyMap<string, number>, after: ReadonlyMap<string, number>): number[] {
  return [...before].filter(([key]) => !after.has(key)).map(([, index]) => index);
}

function newVteps(from: PublishedTables, to: PublishedTables): VtepSet[] {
  return [...to.tables.vteps]
    .filter(([key]) => !from.vtepIndexes.has(key))
    .map(([key, { address, udpPort }]) => ({
      index: indexOf(to.vtepIndexes, key),
      address,
      udpPort,
      words: wordsOf(address),
    }));
}

function changedPorts(from: PublishedTables, to: PublishedTables): PortSet[] {
  return [...to.tables.ports].flatMap(([id, port]) => {
    const held = from.tables.ports.get(id);
    const isSame =
      held?.vni === port.vni && held.mac === port.mac && held.isTrusted === port.isTrusted;
    return isSame ? [] : [{ index: indexOf(to.portIndexes, id), ...port }];
  });
}

function ownAddressesOf(from: PublishedTables, to: PublishedTables): AddressWords[] | undefined {
  const before = from.tables.ownAddresses;
  const after = to.tables.ownAddresses;
  const isSame = before.length === after.length && before.every((text, i) => text === after[i]);
  return isSame ? undefined : after.map(wordsOf);
}

function indexOf(indexes: ReadonlyMap<string, number>, key: string): number {
  const index = indexes.get(key);
  assert(index !== undefined, 'whatever the tables name has an index');
  return index;
}

/** @param text An address that the tables hold, hence a valid one. */
export function wordsOf(text: string): AddressWords {
  const bytes = parseAddress(text);
  assert(bytes !== undefined, 'tables hold valid addresses');
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return [view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12)];
}
