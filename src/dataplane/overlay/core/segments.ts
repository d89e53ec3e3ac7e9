import { assert } from '../../../base/assert.js';
import { macHigh, macLow } from '../../wire/ethernet.js';
import { SEGMENTS_MAX, segmentCountersAt } from './counters.js';
import {
  type AddressWords,
  type FdbSet,
  PORT_INDEXES_MAX,
  type PortSet,
  type SegmentSet,
  type TablesUpdate,
  VTEP_INDEXES_MAX,
  type VtepSet,
} from './diff.js';
import { FDB_ENTRIES_MAX, NEIGHBORS_MAX, OWN_ADDRESSES_MAX, VTEPS_MAX } from './tables.js';
import { TokenBucket } from './token-bucket.js';
import { ABSENT, WordTable } from './word-table.js';

/** How often a segment may do what could be abused. */
export interface SegmentLimits {
  /** Broadcast, unknown unicast and multicast frames per second, and at once. */
  readonly floodPerSecond: number;
  readonly floodBurst: number;
  /** "Packet too big" answers per second, and at once. */
  readonly icmpPerSecond: number;
  readonly icmpBurst: number;
}

/** One segment as the packet thread sees it. */
export interface SegmentState {
  readonly slot: number;
  readonly vni: number;
  /** First of the segment's counters. */
  readonly countersAt: number;
  readonly floodBucket: TokenBucket;
  readonly icmpBucket: TokenBucket;
  mtuBytes: number;
  hasReturns: boolean;
  isSealed: boolean;
  /** Services with virtual addresses; 0 for most segments, whose frames are not looked into. */
  vipCount: number;
  /** VTEP indexes. */
  floodList: Int32Array;
  /** Port indexes. */
  ports: Int32Array;
}

/** Senders over all segments: a VTEP is in several. */
const SENDERS_MAX = VTEPS_MAX * 16;

/**
 * The tables of the packet thread, as typed arrays: what `Vtep` looks up per packet, and what
 * `apply` changes between batches. Look-ups allocate nothing.
 */
export class SegmentTable {
  readonly #limits: SegmentLimits;
  readonly #slots: (SegmentState | undefined)[] = [];
  readonly #slotOfVni: WordTable;
  readonly #fdb: WordTable;
  readonly #neighbors: WordTable;
  readonly #senders: WordTable;
  #own: WordTable;
  readonly #seed: number;
  readonly #vtepWords = new Int32Array(VTEP_INDEXES_MAX * 4);

  readonly portSegment: (SegmentState | undefined)[] = new Array<undefined>(PORT_INDEXES_MAX);
  readonly portMacHigh = new Uint16Array(PORT_INDEXES_MAX);
  readonly portMacLow = new Int32Array(PORT_INDEXES_MAX);
  readonly portTrusted = new Uint8Array(PORT_INDEXES_MAX);

  constructor(limits: SegmentLimits, seed: number) {
    this.#limits = limits;
    this.#seed = seed;
    this.#slotOfVni = new WordTable(SEGMENTS_MAX, seed);
    this.#fdb = new WordTable(FDB_ENTRIES_MAX, seed);
    this.#neighbors = new WordTable(NEIGHBORS_MAX, seed);
    this.#senders = new WordTable(SENDERS_MAX, seed);
    this.#own = new WordTable(OWN_ADDRESSES_MAX, seed);
  }

  segmentAt(slot: number): SegmentState | undefined {
    return this.#slots[slot];
  }

  segmentOf(vni: number): SegmentState | undefined {
    return this.#slots[this.#slotOfVni.get(vni, 0, 0, 0, 0)];
  }

  /** Where a MAC is: twice the index of a VTEP, twice that of a port plus one, or `ABSENT`. */
  place(slot: number, macHigh: number, macLow: number): number {
    return this.#fdb.get(slot, macHigh, macLow, 0, 0);
  }

  /** The MAC of an address, or `ABSENT`. */
  neighbor(slot: number, a: number, b: number, c: number, d: number): number {
    return this.#neighbors.get(slot, a, b, c, d);
  }

  isSender(slot: number, a: number, b: number, c: number, d: number): boolean {
    return this.#senders.get(slot, a, b, c, d) !== ABSENT;
  }

  isOwnAddress(a: number, b: number, c: number, d: number): boolean {
    return this.#own.get(a, b, c, d, 0) !== ABSENT;
  }

  /** One of the four words of a VTEP's address. */
  vtepWord(vtep: number, word: number): number {
    return this.#vtepWords[vtep * 4 + word] as number;
  }

  /** Whether the VTEP's address is the given one. */
  isVtepAt(vtep: number, a: number, b: number, c: number, d: number): boolean {
    const words = this.#vtepWords;
    const at = vtep * 4;
    return words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d;
  }

  /**
   * Carries out an update.
   *
   * @param counters The VNI of each segment slot is written there.
   * @returns How many entries did not fit.
   */
  apply(update: TablesUpdate, counters: Float64Array, nowMs: number): number {
    this.#removeAll(update, counters);
    let refused = 0;
    if (update.ownAddresses !== undefined) refused += this.#setOwn(update.ownAddresses);
    for (const vtep of update.vtepsSet) this.#setVtep(vtep);
    for (const segment of update.segmentsSet)
      refused += this.#setSegment(segment, counters, nowMs) ? 0 : 1;
    for (const port of update.portsSet) refused += this.#setPort(port) ? 0 : 1;
    for (const entry of update.fdbSet) refused += this.#setFdb(entry) ? 0 : 1;
    for (const { vni, address, mac } of update.neighborsSet) {
      const slot = this.#slotOfVni.get(vni, 0, 0, 0, 0);
      refused += slot !== ABSENT && this.#neighbors.set(slot, ...address, mac) ? 0 : 1;
    }
    for (const { vni, address } of update.sendersSet) {
      const slot = this.#slotOfVni.get(vni, 0, 0, 0, 0);
      refused += slot !== ABSENT && this.#senders.set(slot, ...address, 0) ? 0 : 1;
    }
    return refused;
  }

  #removeAll(update: TablesUpdate, counters: Float64Array): void {
    const slotOf = (vni: number) => this.#slotOfVni.get(vni, 0, 0, 0, 0);
    for (const { vni, mac } of update.fdbRemoved)
      this.#fdb.delete(slotOf(vni), macHigh(mac), macLow(mac), 0, 0);
    for (const { vni, address } of update.neighborsRemoved)
      this.#neighbors.delete(slotOf(vni), ...address);
    for (const { vni, address } of update.sendersRemoved)
      this.#senders.delete(slotOf(vni), ...address);
    for (const index of update.portsRemoved) this.#removePort(index);
    for (const vni of update.segmentsRemoved) {
      const slot = slotOf(vni);
      if (slot === ABSENT) continue;
      this.#slots[slot] = undefined;
      this.#slotOfVni.delete(vni, 0, 0, 0, 0);
      counters[segmentCountersAt(slot)] = 0;
    }
    for (const index of update.vtepsRemoved) this.#vtepWords.fill(0, index * 4, index * 4 + 4);
  }

  #setOwn(addresses: readonly AddressWords[]): number {
    this.#own = new WordTable(OWN_ADDRESSES_MAX, this.#seed);
    return addresses.filter((words) => !this.#own.set(...words, 0, 0)).length;
  }

  #setVtep({ index, words }: VtepSet): void {
    assert(index >= 0 && index < VTEP_INDEXES_MAX, 'VTEP index is in range');
    this.#vtepWords.set(words, index * 4);
  }

  #setSegment(
    { vni, mtuBytes, hasReturns, isSealed, floodList }: SegmentSet,
    counters: Float64Array,
    nowMs: number,
  ): boolean {
    const held = this.segmentOf(vni);
    if (held !== undefined) {
      held.mtuBytes = mtuBytes;
      held.hasReturns = hasReturns;
      held.isSealed = isSealed;
      held.floodList = Int32Array.from(floodList);
      return true;
    }
    let slot = 0;
    while (this.#slots[slot] !== undefined) slot += 1;
    if (slot >= SEGMENTS_MAX || !this.#slotOfVni.set(vni, 0, 0, 0, 0, slot)) return false;
    const { floodPerSecond, floodBurst, icmpPerSecond, icmpBurst } = this.#limits;
    const countersAt = segmentCountersAt(slot);
    counters.fill(0, countersAt, countersAt + 5);
    counters[countersAt] = vni + 1;
    this.#slots[slot] = {
      slot,
      vni,
      countersAt,
      floodBucket: new TokenBucket(floodPerSecond, floodBurst, nowMs),
      icmpBucket: new TokenBucket(icmpPerSecond, icmpBurst, nowMs),
      mtuBytes,
      hasReturns,
      isSealed,
      vipCount: 0,
      floodList: Int32Array.from(floodList),
      ports: new Int32Array(0),
    };
    return true;
  }

  #setPort({ index, vni, mac, isTrusted }: PortSet): boolean {
    assert(index >= 0 && index < PORT_INDEXES_MAX, 'port index is in range');
    this.#removePort(index);
    const segment = this.segmentOf(vni);
    if (segment === undefined) return false;
    segment.ports = Int32Array.from([...segment.ports, index]).sort();
    this.portSegment[index] = segment;
    this.portMacHigh[index] = macHigh(mac);
    this.portMacLow[index] = macLow(mac);
    this.portTrusted[index] = isTrusted ? 1 : 0;
    return true;
  }

  #removePort(index: number): void {
    const segment = this.portSegment[index];
    if (segment === undefined) return;
    segment.ports = segment.ports.filter((port) => port !== index);
    this.portSegment[index] = undefined;
  }

  #setFdb({ vni, mac, port, vtep }: FdbSet): boolean {
    const slot = this.#slotOfVni.get(vni, 0, 0, 0, 0);
    const value = port === -1 ? vtep * 2 : port * 2 + 1;
    return slot !== ABSENT && this.#fdb.set(slot, macHigh(mac), macLow(mac), 0, 0, value);
  }
}
