import type { BackendEntry } from '../../core/balance/backend-set.js';
import type { BalanceConfig } from '../../core/balance/config.js';
import type { Mac } from '../../wire/ethernet.js';

/** Entries over all segments. Beyond these `deriveTables` refuses, deterministically, and counts. */
export const FDB_ENTRIES_MAX = 65_536;
export const NEIGHBORS_MAX = 131_072;
/** VTEPs that one node sends to. */
export const VTEPS_MAX = 8_192;
/** Local ports of one node. */
export const PORTS_MAX = 4_096;
/** VTEPs that a broadcast of one segment is copied to. */
export const FLOOD_MAX = 1_024;
/** Underlay addresses of this node. */
export const OWN_ADDRESSES_MAX = 256;

/** Virtual addresses over all segments. */
export const VIPS_MAX = 16_384;

/** Name of a VTEP: address and UDP port, since several can share an address behind one NAT. */
export type VtepKey = string;

export interface VtepPlace {
  readonly address: string;
  readonly udpPort: number;
}

export function vtepKey({ address, udpPort }: VtepPlace): VtepKey {
  return `${address} ${udpPort}`;
}

/** Where a MAC is: behind a VTEP (`self`'s for a local port), and at which local port. */
export interface FdbEntry {
  readonly vtep: VtepKey;
  /** Id of the local port; `undefined` behind another VTEP. */
  readonly port: string | undefined;
  /** Configured on this node only, so no part of what nodes must agree on. */
  readonly isStatic: boolean;
}

/** What one VNI is inside the data plane. */
export interface Segment {
  readonly vni: number;
  /** Largest IP packet that endpoints may send. */
  readonly mtuBytes: number;
  readonly fdb: ReadonlyMap<Mac, FdbEntry>;
  /** By canonical address text. */
  readonly neighbors: ReadonlyMap<string, Mac>;
  /** VTEPs that get broadcasts, sorted; never this node. */
  readonly floodList: readonly VtepKey[];
  /** Underlay addresses that may send into the segment, sorted. */
  readonly senders: readonly string[];
  /** Endpoints are spoken to from addresses that are none here, and answers find back. */
  readonly hasReturns: boolean;
  /** Datagrams of it are sealed on the underlay, and taken in no other way. */
  readonly isSealed: boolean;
  /** By the id of the service. */
  readonly vips: ReadonlyMap<string, Vip>;
}

/** A task behind a VIP; its key is the task's id. */
export interface VipBackend extends BackendEntry {
  readonly mac: Mac;
  /** Canonical text. */
  readonly address4: string | undefined;
  readonly address6: string | undefined;
}

/** A service's virtual addresses in one segment, and who is behind them. */
export interface Vip {
  readonly addresses: readonly string[];
  readonly balance: BalanceConfig;
  /** Sorted by key. */
  readonly backends: readonly VipBackend[];
}

/** A local port with the segment that it is in. */
export interface PortEntry {
  readonly vni: number;
  readonly mac: Mac;
  /** May send from any MAC: a bridge or a gateway, not a task. */
  readonly isTrusted: boolean;
}

/** All that the packet thread decides by, as text and keys: indexes come with `diffTables`. */
export interface Tables {
  readonly segments: ReadonlyMap<number, Segment>;
  readonly vteps: ReadonlyMap<VtepKey, VtepPlace>;
  readonly ports: ReadonlyMap<string, PortEntry>;
  /** Nodes by their VTEPs, as far as they share a sealed segment with this one. */
  readonly sealPeers: ReadonlyMap<VtepKey, string>;
  /** Own underlay addresses, sorted: a datagram from one of them is a loop. */
  readonly ownAddresses: readonly string[];
}

export const NO_TABLES: Tables = {
  segments: new Map(),
  vteps: new Map(),
  ports: new Map(),
  sealPeers: new Map(),
  ownAddresses: [],
};

/**
 * A digest of what all nodes in segment `vni` must agree on (FDB and neighbours, without static
 * entries), to compare nodes with: 16 hex digits, equal iff the tables are, collisions aside.
 * Not for use against forgery.
 */
export function tablesDigest(tables: Tables, vni: number): string {
  const segment = tables.segments.get(vni);
  const lines: string[] = [];
  for (const [mac, { vtep, isStatic }] of segment?.fdb ?? []) {
    if (!isStatic) lines.push(`${mac} ${vtep}`);
  }
  for (const [address, mac] of segment?.neighbors ?? []) lines.push(`${address} ${mac}`);
  let a = 0x811c_9dc5;
  let b = 0x9747_b28c;
  for (const line of lines.sort()) {
    for (let i = 0; i <= line.length; i++) {
      // The end of a line counts as a character, so that lines do not run into each other.
      const character = i < line.length ? line.charCodeAt(i) : 10;
      a = Math.imul(a ^ character, 0x0100_0193);
      b = Math.imul((b << 5) ^ (b >>> 27) ^ character, 0x9e37_79b1);
    }
  }
  return [a, b].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
}
