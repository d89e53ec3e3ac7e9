import { NO_BACKEND, type Ticket } from '../../core/balance/backend-set.js';
import { Balancer } from '../../core/balance/balancer.js';
import { SILENCE_MS } from '../../core/balance/config.js';
import { hashText } from '../../core/balance/hash.js';
import { type PacketBatch, ROW_NEEDS_CHECKSUM } from '../../core/batch.js';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE_OFFSET,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  encodeEthernetHeader,
  macHigh,
  macLow,
  macOf,
} from '../../wire/ethernet.js';
import { isIcmpError } from '../../wire/icmp.js';
import { isIcmpv6Error } from '../../wire/icmpv6.js';
import {
  decodeIpv4Header,
  IPV4_CHECKSUM_OFFSET,
  IPV4_DESTINATION_OFFSET,
  IPV4_FRAGMENT_MASK,
  IPV4_FRAGMENT_OFFSET,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL_OFFSET,
  IPV4_SOURCE_OFFSET,
  IPV4_TOTAL_LENGTH_OFFSET,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ipv4.js';
import {
  decodeIpv6Header,
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH_OFFSET,
  IPV6_SOURCE_OFFSET,
  PROTOCOL_FRAGMENT,
  PROTOCOL_ICMPV6,
} from '../../wire/ipv6.js';
import {
  decodeTcpHeader,
  TCP_ACK,
  TCP_CHECKSUM_OFFSET,
  TCP_FIN,
  TCP_FLAGS_OFFSET,
  TCP_RST,
  TCP_SYN,
} from '../../wire/tcp.js';
import { UDP_CHECKSUM_OFFSET, UDP_HEADER_BYTES } from '../../wire/udp.js';
import type { OverlayDrop } from './counters.js';
import type { VipSet } from './diff.js';
import {
  BACKEND,
  CLIENT,
  FlowTable,
  FragmentTable,
  PLACE,
  PORTS,
  TCP_CLOSED,
  TCP_CLOSING,
  TCP_OPEN,
  TCP_OPENING,
  UDP_FLOW,
  VIP,
} from './flow-table.js';
import { resetFrameBytes, writeReset } from './resets.js';
import { addressDelta, adjustChecksum, adjustPartial } from './rewrite.js';
import type { SegmentState } from './segments.js';
import { VIPS_MAX } from './tables.js';
import { VIP_MAC } from './vip-mac.js';
import { ABSENT, WordTable } from './word-table.js';

const VIP_MAC_HIGH = macHigh(VIP_MAC);
const VIP_MAC_LOW = macLow(VIP_MAC) | 0;

/** What is to be done with a frame that went to a VIP. */
export const VIP_FORWARD = 1;
/** To the port that it came from: the client is the backend. */
export const VIP_TO_SELF = 2;
/** Answered or dropped. */
export const VIP_DONE = 3;

/** What the plane asks of the VTEP: it knows where MACs are, and counts. */
export interface VipHost {
  drop(reason: OverlayDrop): void;
  replied(kind: 'vip_echo' | 'vip_reset'): void;
  flowCreated(): void;
  flowEvicted(): void;
  /** A backend has refused a flow, not taken it in time, or broken it off before its first byte. */
  flowFailed(): void;
  /** A client has waited for a first byte for `SILENCE_MS`. */
  flowSilent(): void;
  /** A backend is passed over from now on. */
  ejected(): void;
  /** Sends a frame made in the scratch to a MAC of the segment, local or not. */
  sendMade(batch: PacketBatch, segment: SegmentState, offset: number, length: number): void;
  /** The MAC of an address of the segment, or `ABSENT`. */
  neighborOf(segment: SegmentState, words: Int32Array, at: number): number;
  segmentAt(slot: number): SegmentState | undefined;
}

/** Of a service behind a VIP some of whose tasks were passed over at some time, for how their flows went. */
export interface VipOutliers {
  readonly vni: number;
  readonly serviceId: string;
  /** How often, since the service is known here. */
  readonly ejections: number;
  /** Task ids of those that are passed over, or on probation, now. */
  readonly passedOver: readonly string[];
}

interface Backend {
  readonly words4: Int32Array | undefined;
  readonly words6: Int32Array | undefined;
  readonly macHigh: number;
  readonly macLow: number;
}

interface Service {
  readonly vni: number;
  readonly id: string;
  readonly balancer: Balancer;
  /** Of its balancer's, those that are counted. */
  ejections: number;
  backends: ReadonlyMap<string, Backend>;
  addresses: readonly Int32Array[];
}

/** Backends that a new flow is offered, where their replies could not be told apart from another's. */
const ATTEMPTS_MAX = 8;
/** A client sends its SYN again after a second; then another backend gets it. */
const RETRY_AFTER_MS = 900;
/** Later than this a SYN in an open connection begins another one: the client has lost it, as in a crash. */
const LATE_SYN_MS = 5000;
/** Flows whose age is looked at with every batch. */
const SWEEPS = 4;
/** Silent flows that are told with every batch: more than can be asked in one, since each takes three packets to that. */
const SILENT_MAX = 128;

const MAPPED = 0xffff;
const ICMP_ECHO = 8;
const ICMPV6_ECHO = 128;

/**
 * Services behind virtual addresses: a frame to a VIP is turned into one to a backend, chosen once for each flow,
 * and what comes back into one from the VIP. All of it happens at the client's node; backends see the
 * client's own address, and other nodes see ordinary frames.
 *
 * Nothing is learned here either: services and backends are tables. Flows are this node's own; after
 * they are lost (a restart) a packet in the middle of a connection is answered by a reset.
 */
export class VipPlane {
  readonly #host: VipHost;
  readonly #seed: number;
  readonly #flows: FlowTable;
  readonly #fragments = new FragmentTable();
  readonly #vips: WordTable;
  readonly #services: (Service | undefined)[] = [];
  readonly #tried: Ticket[] = [];
  /** Indexes of services with ejections. */
  readonly #withOutliers = new Set<number>();
  #outliersTold = '[]';
  #hairpins = 0;
  #nowMs = 0;

  // Of the packet at hand.
  #ip = 0;
  #is4 = true;
  #protocol = 0;
  #transport = 0;
  #end = 0;
  #isFirst = true;
  #isWhole = true;
  readonly #source = new Int32Array(4);
  readonly #destination = new Int32Array(4);
  readonly #key = new Int32Array(14);

  constructor(host: VipHost, seed: number, flowsMax?: number) {
    this.#host = host;
    this.#seed = seed;
    this.#flows = new FlowTable(seed, flowsMax);
    this.#vips = new WordTable(VIPS_MAX, seed);
  }

  /** Whether there is any VIP, or a flow of one that was. */
  get isUsed(): boolean {
    return this.#vips.size > 0 || this.#flows.size > 0;
  }

  get flowCount(): number {
    return this.#flows.size;
  }

  static isVipMac(view: DataView, at: number): boolean {
    return view.getInt32(at + 2) === VIP_MAC_LOW && view.getUint16(at) === VIP_MAC_HIGH;
  }

  /** At the begin of a batch. */
  begin(batch: PacketBatch, nowMs: number): void {
    this.tick(nowMs);
    for (let step = 0; step < SWEEPS; step++) {
      const idle = this.#flows.nextIdle(nowMs);
      if (idle !== -1) this.#evict(batch, idle);
    }
  }

  /** Time passes; with every batch, and without one often enough for `SILENCE_MS`. */
  tick(nowMs: number): void {
    this.#nowMs = nowMs;
    const flows = this.#flows;
    for (let told = 0; told < SILENT_MAX; told++) {
      const flow = flows.askedBy(nowMs - SILENCE_MS);
      if (flow === -1) return;
      flows.settle(flow);
      this.#host.flowSilent();
      const ticket = flows.ticket[flow] as number;
      this.#balancerOf(flow)?.silent(ticket, nowMs, this.#portOf(flow));
      this.#noteEjection(flow);
    }
  }

  /** After what may have had the flow's backend ejected. */
  #noteEjection(flow: number): void {
    const index = this.#flows.service[flow] as number;
    const service = this.#services[index];
    if (service === undefined || service.balancer.ejectionsTotal === service.ejections) return;
    service.ejections = service.balancer.ejectionsTotal;
    this.#host.ejected();
    this.#withOutliers.add(index);
  }

  /** All services with ejections, if anything of them has changed since this was asked; a few times a second. */
  changedOutliers(): readonly VipOutliers[] | undefined {
    if (this.#withOutliers.size === 0 && this.#outliersTold === '[]') return undefined;
    const outliers = [...this.#withOutliers].flatMap((index): VipOutliers[] => {
      const service = this.#services[index];
      if (service === undefined) return [];
      const { vni, id, balancer, backends, ejections } = service;
      const passedOver = [...backends.keys()].filter((key) => balancer.isEjected(key));
      return [{ vni, serviceId: id, ejections, passedOver }];
    });
    const text = JSON.stringify(outliers);
    if (text === this.#outliersTold) return undefined;
    this.#outliersTold = text;
    return outliers;
  }

  has(vni: number, serviceId: string): boolean {
    return this.#indexOf(vni, serviceId) !== -1;
  }

  /** @returns Whether it fits. */
  set(set: VipSet, slot: number, nowMs: number): boolean {
    let index = this.#indexOf(set.vni, set.serviceId);
    if (index === -1) {
      index = 0;
      while (this.#services[index] !== undefined) index += 1;
      this.#services[index] = {
        vni: set.vni,
        id: set.serviceId,
        balancer: new Balancer(
          set.balance,
          hashText(`${set.vni} ${set.serviceId}`, this.#seed) >>> 0,
          hashText(set.serviceId, 0),
        ),
        ejections: 0,
        backends: new Map(),
        addresses: [],
      };
    }
    const service = this.#services[index] as Service;
    for (const words of service.addresses) this.#vips.delete(slot, ...wordsOf(words));
    service.addresses = set.addresses.map((words) => Int32Array.from(words, (word) => word | 0));
    service.backends = new Map(
      set.backends.map(({ key, mac, words4, words6 }) => [
        key,
        {
          words4: words4 && Int32Array.from(words4, (word) => word | 0),
          words6: words6 && Int32Array.from(words6, (word) => word | 0),
          macHigh: macHigh(mac),
          macLow: macLow(mac) | 0,
        },
      ]),
    );
    service.balancer.configure(set.balance);
    service.balancer.replace(set.backends, nowMs);
    const taken = service.addresses.map((words) =>
      this.#vips.set(slot, ...wordsOf(words), index as number),
    );
    return taken.every((fits) => fits);
  }

  remove(vni: number, serviceId: string, slot: number): void {
    const index = this.#indexOf(vni, serviceId);
    if (index === -1) return;
    for (const words of this.#services[index]?.addresses ?? [])
      this.#vips.delete(slot, ...wordsOf(words));
    this.#services[index] = undefined;
    this.#withOutliers.delete(index);
    this.#forgetAll((flow) => this.#flows.service[flow] === index);
  }

  /** The segment is gone, and another may get its slot. */
  removeSegment(slot: number): void {
    this.#forgetAll((flow) => this.#flows.word(flow, PLACE) >>> 8 === slot);
  }

  #forgetAll(isMeant: (flow: number) => boolean): void {
    for (let flow = 0; flow < this.#flows.state.length && this.#flows.size > 0; flow++)
      if (this.#flows.state[flow] !== 0 && isMeant(flow)) this.#forget(flow);
  }

  /** A frame whose destination is `VIP_MAC`, from local port `port`: what is to be done with it now. */
  egress(
    batch: PacketBatch,
    row: number,
    segment: SegmentState,
    offset: number,
    end: number,
    etherType: number,
  ): number {
    const { view } = batch;
    if (!this.#read(view, offset, end, etherType)) return this.#drop('vip_unsupported');
    const index = this.#vipAt(segment.slot, this.#destination);
    if (index === ABSENT) return this.#refuseUnknown(batch, segment, offset);
    if (this.#protocol === PROTOCOL_ICMP || this.#protocol === PROTOCOL_ICMPV6)
      return this.#egressIcmp(batch, segment, offset);
    if (!this.#isFirst) {
      const flow = this.#fragmentFlow(view, segment.slot, 1);
      if (flow === -1) return this.#drop('vip_fragment');
      return this.#turnToBackend(batch, row, offset, flow);
    }
    if (this.#protocol !== PROTOCOL_TCP && this.#protocol !== PROTOCOL_UDP)
      return this.#drop('vip_unsupported');
    if (this.#protocol === PROTOCOL_TCP) {
      if (typeof decodeTcpHeader(view, this.#transport, this.#end) !== 'number')
        return this.#drop('vip_malformed');
    } else if (this.#transport + UDP_HEADER_BYTES > this.#end) return this.#drop('vip_malformed');

    const flow = this.#flowTo(batch, segment, index, offset);
    if (flow === -1) return VIP_DONE;
    if (!this.#isWhole) this.#rememberFragment(view, segment.slot, 1, flow);
    return this.#turnToBackend(batch, row, offset, flow);
  }

  /** A frame to a local port: if it answers a flow through a VIP, it becomes one from the VIP. */
  restore(
    batch: PacketBatch,
    row: number,
    segment: SegmentState,
    offset: number,
    end: number,
    etherType: number,
  ): void {
    if (this.#flows.size === 0) return;
    const { view } = batch;
    if (!this.#read(view, offset, end, etherType)) return;
    const isIcmp = this.#protocol === PROTOCOL_ICMP || this.#protocol === PROTOCOL_ICMPV6;
    if (isIcmp) {
      this.#restoreError(batch, row, segment.slot);
      return;
    }
    let flow: number;
    if (!this.#isFirst) {
      flow = this.#fragmentFlow(view, segment.slot, 0);
      if (flow === -1) return;
    } else {
      if (this.#protocol !== PROTOCOL_TCP && this.#protocol !== PROTOCOL_UDP) return;
      if (this.#transport + UDP_HEADER_BYTES > this.#end) return;
      const ports = view.getInt32(this.#transport);
      const key = this.#key;
      key.set(this.#destination, CLIENT);
      key.set(this.#source, BACKEND);
      key[PORTS] = (ports << 16) | (ports >>> 16);
      key[PLACE] = (segment.slot << 8) | this.#protocol;
      flow = this.#flows.findFrom(key);
      if (flow === -1 || this.#flows.hairpin[flow] === 1) return;
      this.#track(view, flow, false);
      if (!this.#isWhole) this.#rememberFragment(view, segment.slot, 0, flow);
    }
    this.#readFlow(flow);
    const delta = addressDelta(this.#key, BACKEND, this.#key, VIP);
    this.#writeAddress(view, this.#is4 ? IPV4_SOURCE_OFFSET : IPV6_SOURCE_OFFSET, VIP);
    this.#adjust(batch, row, delta);
  }

  /** The service is gone: its connections must not hang. */
  #refuseUnknown(batch: PacketBatch, segment: SegmentState, offset: number): number {
    const isTcp = this.#protocol === PROTOCOL_TCP && this.#isFirst;
    const header = isTcp ? decodeTcpHeader(batch.view, this.#transport, this.#end) : -1;
    if (typeof header !== 'number' || header === -1) return this.#drop('vip_unknown');
    const flags = batch.view.getUint8(this.#transport + TCP_FLAGS_OFFSET);
    if ((flags & TCP_RST) !== 0) return this.#drop('vip_unknown');
    this.#answerReset(batch, segment, offset);
    return VIP_DONE;
  }

  #drop(reason: OverlayDrop): number {
    this.#host.drop(reason);
    return VIP_DONE;
  }

  /** Reads addresses, protocol and where things are; false for what is no packet that can be turned. */
  #read(view: DataView, offset: number, end: number, etherType: number): boolean {
    const ip = offset + ETHERNET_HEADER_BYTES;
    this.#ip = ip;
    this.#is4 = etherType === ETHERTYPE_IPV4;
    if (this.#is4) {
      const headerBytes = decodeIpv4Header(view, ip, end);
      if (typeof headerBytes !== 'number') return false;
      const fragment = view.getUint16(ip + IPV4_FRAGMENT_OFFSET);
      this.#isFirst = (fragment & IPV4_FRAGMENT_MASK) === 0;
      this.#isWhole = this.#isFirst && (fragment & IPV4_MORE_FRAGMENTS) === 0;
      this.#protocol = view.getUint8(ip + IPV4_PROTOCOL_OFFSET);
      this.#transport = ip + headerBytes;
      // The frame may be padded behind the packet; a super-frame's length may not fit its field.
      const total = view.getUint16(ip + IPV4_TOTAL_LENGTH_OFFSET);
      this.#end = total >= headerBytes && ip + total <= end ? ip + total : end;
      readMapped(view, ip + IPV4_SOURCE_OFFSET, this.#source);
      readMapped(view, ip + IPV4_DESTINATION_OFFSET, this.#destination);
      return true;
    }
    if (etherType !== ETHERTYPE_IPV6) return false;
    const nextHeader = decodeIpv6Header(view, ip, end);
    if (typeof nextHeader !== 'number' || nextHeader === PROTOCOL_FRAGMENT) return false;
    this.#isFirst = true;
    this.#isWhole = true;
    this.#protocol = nextHeader;
    this.#transport = ip + IPV6_HEADER_BYTES;
    const payload = view.getUint16(ip + IPV6_PAYLOAD_LENGTH_OFFSET);
    const packetEnd = this.#transport + payload;
    this.#end = payload > 0 && packetEnd <= end ? packetEnd : end;
    readWords(view, ip + IPV6_SOURCE_OFFSET, this.#source);
    readWords(view, ip + IPV6_DESTINATION_OFFSET, this.#destination);
    return true;
  }

  /** The flow of a packet to a VIP, a new one where it begins one; -1: dealt with. */
  #flowTo(batch: PacketBatch, segment: SegmentState, index: number, offset: number): number {
    const { view } = batch;
    const key = this.#key;
    const ports = view.getInt32(this.#transport);
    key.set(this.#source, CLIENT);
    key.set(this.#destination, VIP);
    key[PLACE] = (segment.slot << 8) | this.#protocol;
    if (this.#hairpins > 0) {
      key[PORTS] = (ports << 16) | (ports >>> 16);
      const back = this.#flows.findTo(key);
      if (back !== -1 && this.#flows.hairpin[back] === 1) {
        this.#track(view, back, false);
        return back;
      }
    }
    key[PORTS] = ports;
    const isTcp = this.#protocol === PROTOCOL_TCP;
    const flags = isTcp ? view.getUint8(this.#transport + TCP_FLAGS_OFFSET) : 0;
    const isSyn = (flags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN;
    let flow = this.#flows.findTo(key);
    this.#tried.length = 0;
    if (flow !== -1) flow = this.#revise(flow, isTcp, isSyn);
    if (flow !== -1) {
      this.#track(view, flow, true);
      return flow;
    }
    if (isTcp && !isSyn) {
      // In the middle of a connection that nobody remembers: it must not hang.
      if ((flags & TCP_RST) === 0) this.#answerReset(batch, segment, offset);
      else this.#host.drop('vip_no_flow');
      return -1;
    }
    flow = this.#open(batch, index);
    if (flow === -1) {
      if (isTcp) this.#answerReset(batch, segment, offset);
      else this.#host.drop('vip_no_backend');
      return -1;
    }
    this.#track(view, flow, true);
    return flow;
  }

  /** The flow, if it still is good for this packet; else it is forgotten. */
  #revise(flow: number, isTcp: boolean, isSyn: boolean): number {
    const flows = this.#flows;
    const state = flows.state[flow] as number;
    const service = this.#services[flows.service[flow] as number];
    const ticket = flows.ticket[flow] as number;
    if (service?.balancer.stateOf(ticket) === undefined) {
      this.#forget(flow);
      return -1;
    }
    if (!isTcp) {
      if (!flows.isIdle(flow, this.#nowMs)) return flow;
      this.#forget(flow);
      return -1;
    }
    if (!isSyn) return flow;
    const age = this.#nowMs - (flows.openedMs[flow] as number);
    if (state === TCP_OPENING) {
      if (age < RETRY_AFTER_MS) return flow;
      this.#failed(flow);
      this.#tried.push(ticket);
    } else if (state === TCP_OPEN && age < LATE_SYN_MS) {
      // A SYN that was sent twice, and overtaken by its answer.
      return flow;
    }
    this.#forget(flow);
    return -1;
  }

  #open(batch: PacketBatch, index: number): number {
    const service = this.#services[index];
    if (service === undefined) return -1;
    const { balancer } = service;
    const key = this.#key;
    for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
      const ports = key[PORTS] as number;
      const ticket = balancer.choose(this.#source, ports, this.#nowMs, this.#tried);
      if (ticket === NO_BACKEND) break;
      const backend = service.backends.get(balancer.keyOf(ticket) ?? '');
      const words = this.#is4 ? backend?.words4 : backend?.words6;
      if (backend !== undefined && words !== undefined) {
        key.set(words, BACKEND);
        // Its answers would be taken for those of another flow, through another VIP.
        if (this.#flows.findFrom(key) === -1) return this.#insert(batch, index, ticket, backend);
      }
      balancer.ended(ticket);
      this.#tried.push(ticket);
    }
    return -1;
  }

  #insert(batch: PacketBatch, index: number, ticket: Ticket, backend: Backend): number {
    const flows = this.#flows;
    const state = this.#protocol === PROTOCOL_TCP ? TCP_OPENING : UDP_FLOW;
    let flow = flows.insert(this.#key, state, this.#nowMs);
    if (flow === -1) {
      const victim = flows.victim();
      if (victim !== -1) this.#evict(batch, victim);
      flow = flows.insert(this.#key, state, this.#nowMs);
      if (flow === -1) return -1;
    }
    flows.ticket[flow] = ticket;
    flows.service[flow] = index;
    flows.macHigh[flow] = backend.macHigh;
    flows.macLow[flow] = backend.macLow;
    const isHairpin = same(this.#key, CLIENT, BACKEND);
    flows.hairpin[flow] = isHairpin ? 1 : 0;
    if (isHairpin) this.#hairpins += 1;
    this.#host.flowCreated();
    return flow;
  }

  #forget(flow: number): void {
    const flows = this.#flows;
    const state = flows.state[flow] as number;
    if (state !== TCP_CLOSING && state !== TCP_CLOSED) this.#release(flow);
    if (flows.hairpin[flow] === 1) this.#hairpins -= 1;
    flows.remove(flow);
  }

  #balancerOf(flow: number): Balancer | undefined {
    return this.#services[this.#flows.service[flow] as number]?.balancer;
  }

  /** The service's port and protocol. */
  #portOf(flow: number): number {
    const protocol = this.#flows.word(flow, PLACE) & 0xff;
    return (protocol << 16) | (this.#flows.word(flow, PORTS) & 0xffff);
  }

  /** The backend has one flow less. */
  #release(flow: number): void {
    this.#balancerOf(flow)?.ended(this.#flows.ticket[flow] as number);
  }

  #failed(flow: number): void {
    this.#host.flowFailed();
    this.#balancerOf(flow)?.failed(this.#flows.ticket[flow] as number, this.#nowMs);
    this.#noteEjection(flow);
  }

  /** The backend has sent its first byte, or ended in good order. */
  #answered(flow: number): void {
    const flows = this.#flows;
    const askedMs = flows.askedMs(flow);
    flows.settle(flow);
    const waitedMs = Number.isNaN(askedMs) ? undefined : this.#nowMs - askedMs;
    const ticket = flows.ticket[flow] as number;
    this.#balancerOf(flow)?.succeeded(ticket, this.#nowMs, waitedMs, this.#portOf(flow));
    this.#noteEjection(flow);
  }

  /** Follows a TCP connection, or notes that a UDP flow is alive. */
  #track(view: DataView, flow: number, isUp: boolean): void {
    const flows = this.#flows;
    flows.lastMs[flow] = this.#nowMs;
    if (this.#protocol !== PROTOCOL_TCP) {
      if (isUp) return;
      const ticket = flows.ticket[flow] as number;
      this.#balancerOf(flow)?.succeeded(ticket, this.#nowMs, undefined, this.#portOf(flow));
      return;
    }
    const header = decodeTcpHeader(view, this.#transport, this.#end);
    if (typeof header !== 'number') return;
    const flags = view.getUint8(this.#transport + TCP_FLAGS_OFFSET);
    const state = flows.state[flow] as number;
    const isSyn = (flags & TCP_SYN) !== 0;
    const payload = this.#end - this.#transport - header;
    // What a SYN carries is not counted: if it is not taken, it comes again.
    const marks = (isSyn ? 1 - payload : 0) + ((flags & TCP_FIN) === 0 ? 0 : 1);
    const next = (view.getInt32(this.#transport + 4) + payload + marks) | 0;
    const sequences = isUp ? flows.sequenceUp : flows.sequenceDown;
    // Not of what was sent again, nor of a probe whether the other end is alive: that is the last byte, or none.
    const isFurther = ((next - (sequences[flow] as number)) | 0) > 0;
    if (isFurther || (isSyn && state === TCP_OPENING)) sequences[flow] = next;
    if ((flags & TCP_RST) !== 0) {
      this.#onReset(flow, isUp);
      return;
    }
    if (isSyn) {
      if (!isUp && state === TCP_OPENING && (flags & TCP_ACK) !== 0) this.#onTaken(flow);
    } else if (payload > 0 && isFurther && state === TCP_OPEN && flows.isUnsettled(flow)) {
      if (isUp) flows.ask(flow, this.#nowMs);
      else this.#answered(flow);
    }
    if ((flags & TCP_FIN) !== 0) this.#onFin(flow, isUp);
  }

  #onTaken(flow: number): void {
    const flows = this.#flows;
    flows.state[flow] = TCP_OPEN;
    const tookMs = this.#nowMs - (flows.openedMs[flow] as number);
    this.#balancerOf(flow)?.connected(flows.ticket[flow] as number, tookMs);
  }

  /** Of a backend it is a failure, where the client was there and had no byte yet. */
  #onReset(flow: number, isUp: boolean): void {
    const flows = this.#flows;
    const state = flows.state[flow] as number;
    const isEarly =
      state === TCP_OPENING ||
      (state === TCP_OPEN && flows.isUnsettled(flow) && flows.fins[flow] === 0);
    if (!isUp && isEarly) {
      if (state === TCP_OPENING && this.#mayListenByIpv4Alone(flow)) this.#host.flowFailed();
      else this.#failed(flow);
    }
    this.#close(flow, TCP_CLOSED);
  }

  /** Such a program refuses IPv6, and clients come by IPv4 next: what becomes of that says how the task is. */
  #mayListenByIpv4Alone(flow: number): boolean {
    const service = this.#services[this.#flows.service[flow] as number];
    return !this.#is4 && (service?.addresses.length ?? 0) > 1;
  }

  #onFin(flow: number, isUp: boolean): void {
    const flows = this.#flows;
    if (!isUp && flows.state[flow] === TCP_OPEN && flows.isUnsettled(flow)) this.#answered(flow);
    flows.fins[flow] = (flows.fins[flow] as number) | (isUp ? 1 : 2);
    if (flows.fins[flow] === 3) this.#close(flow, TCP_CLOSING);
  }

  #close(flow: number, state: number): void {
    const held = this.#flows.state[flow] as number;
    if (held !== TCP_CLOSING && held !== TCP_CLOSED) this.#release(flow);
    this.#flows.settle(flow);
    this.#flows.state[flow] = state;
  }

  /** Gives a flow up; both ends of a connection hear of it. */
  #evict(batch: PacketBatch, flow: number): void {
    const flows = this.#flows;
    const state = flows.state[flow] as number;
    const segment = this.#host.segmentAt(flows.word(flow, PLACE) >>> 8);
    const isOpen = state === TCP_OPEN || state === TCP_OPENING;
    if (isOpen && segment !== undefined) this.#resetBoth(batch, segment, flow);
    if (isOpen || state === UDP_FLOW) this.#host.flowEvicted();
    this.#forget(flow);
  }

  #resetBoth(batch: PacketBatch, segment: SegmentState, flow: number): void {
    const flows = this.#flows;
    const words = new Int32Array(14);
    for (let at = 0; at < 14; at++) words[at] = flows.word(flow, at);
    const up = flows.sequenceUp[flow] as number;
    const down = flows.sequenceDown[flow] as number;
    const client = this.#host.neighborOf(segment, words, CLIENT);
    const backend = macOf(flows.macHigh[flow] as number, (flows.macLow[flow] as number) >>> 0);
    if (client === ABSENT) return;
    const ports = words[PORTS] as number;
    const swapped = (ports << 16) | (ports >>> 16);
    this.#sendReset(batch, segment, client, VIP_MAC, words, VIP, CLIENT, swapped, down, up);
    if (flows.hairpin[flow] === 1)
      this.#sendReset(batch, segment, client, VIP_MAC, words, VIP, CLIENT, ports, up, down);
    else this.#sendReset(batch, segment, backend, client, words, CLIENT, BACKEND, ports, up, down);
  }

  #sendReset(
    batch: PacketBatch,
    segment: SegmentState,
    toMac: number,
    fromMac: number,
    words: Int32Array,
    from: number,
    to: number,
    ports: number,
    sequence: number,
    acknowledgment: number,
  ): void {
    const is4 = isMapped(words, to);
    const length = resetFrameBytes(is4);
    const frame = batch.reserve(length);
    if (frame === -1) return;
    encodeEthernetHeader(batch.view, frame, toMac, fromMac, is4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6);
    writeReset(batch.view, frame, {
      words,
      from,
      to,
      ports,
      sequence,
      acknowledgment,
      isAck: true,
    });
    this.#host.sendMade(batch, segment, frame, length);
    this.#host.replied('vip_reset');
  }

  /** Answers the packet at hand by a reset, RFC 9293 §3.10.7.1. */
  #answerReset(batch: PacketBatch, segment: SegmentState, offset: number): void {
    const { view } = batch;
    const length = resetFrameBytes(this.#is4);
    const frame = batch.reserve(length);
    const header = decodeTcpHeader(view, this.#transport, this.#end);
    if (frame === -1 || typeof header !== 'number') {
      this.#host.drop('batch_full');
      return;
    }
    const etherType = this.#is4 ? ETHERTYPE_IPV4 : ETHERTYPE_IPV6;
    const client = macOf(
      view.getUint16(offset + ETHERNET_SOURCE_OFFSET),
      view.getUint32(offset + ETHERNET_SOURCE_OFFSET + 2),
    );
    encodeEthernetHeader(view, frame, client, VIP_MAC, etherType);
    const flags = view.getUint8(this.#transport + TCP_FLAGS_OFFSET);
    const isAcked = (flags & TCP_ACK) !== 0;
    const ports = view.getInt32(this.#transport);
    const payload = this.#end - this.#transport - header;
    const marks = ((flags & TCP_SYN) === 0 ? 0 : 1) + ((flags & TCP_FIN) === 0 ? 0 : 1);
    const words = this.#key;
    words.set(this.#source, CLIENT);
    words.set(this.#destination, VIP);
    writeReset(view, frame, {
      words,
      from: VIP,
      to: CLIENT,
      ports: (ports << 16) | (ports >>> 16),
      sequence: isAcked ? view.getInt32(this.#transport + 8) : 0,
      acknowledgment: isAcked ? 0 : (view.getInt32(this.#transport + 4) + payload + marks) | 0,
      isAck: !isAcked,
    });
    this.#host.sendMade(batch, segment, frame, length);
    this.#host.replied('vip_reset');
  }

  /** The frame goes to the flow's backend now. */
  #turnToBackend(batch: PacketBatch, row: number, offset: number, flow: number): number {
    const { view } = batch;
    const flows = this.#flows;
    this.#readFlow(flow);
    view.setUint16(offset, flows.macHigh[flow] as number);
    view.setInt32(offset + 2, flows.macLow[flow] as number);
    const destinationAt = this.#is4 ? IPV4_DESTINATION_OFFSET : IPV6_DESTINATION_OFFSET;
    this.#writeAddress(view, destinationAt, BACKEND);
    if (flows.hairpin[flow] === 1) {
      // From the VIP to itself: no kernel takes a packet from its own address. The sums stay.
      const sourceAt = this.#is4 ? IPV4_SOURCE_OFFSET : IPV6_SOURCE_OFFSET;
      this.#writeAddress(view, sourceAt, VIP);
      view.setUint16(offset + ETHERNET_SOURCE_OFFSET, VIP_MAC_HIGH);
      view.setInt32(offset + ETHERNET_SOURCE_OFFSET + 2, VIP_MAC_LOW);
      return VIP_TO_SELF;
    }
    this.#adjust(batch, row, addressDelta(this.#key, VIP, this.#key, BACKEND));
    return VIP_FORWARD;
  }

  #readFlow(flow: number): void {
    for (let at = 0; at < 14; at++) this.#key[at] = this.#flows.word(flow, at);
  }

  /** Writes the address at `word` of the key into the header. */
  #writeAddress(view: DataView, at: number, word: number): void {
    const key = this.#key;
    if (this.#is4) {
      view.setInt32(this.#ip + at, key[word + 3] as number);
      return;
    }
    for (let i = 0; i < 4; i++) view.setInt32(this.#ip + at + i * 4, key[word + i] as number);
  }

  /** Corrects the checksums of the packet at hand, one of whose addresses has changed. */
  #adjust(batch: PacketBatch, row: number, delta: number): void {
    const { view } = batch;
    if (this.#is4) adjustChecksum(view, this.#ip + IPV4_CHECKSUM_OFFSET, delta);
    if (!this.#isFirst) return;
    const isTcp = this.#protocol === PROTOCOL_TCP;
    const at = this.#transport + (isTcp ? TCP_CHECKSUM_OFFSET : UDP_CHECKSUM_OFFSET);
    if (at + 2 > this.#end) return;
    if (((batch.rowFlags[row] as number) & ROW_NEEDS_CHECKSUM) !== 0) {
      adjustPartial(view, at, delta);
    } else if (isTcp || view.getUint16(at) !== 0) {
      adjustChecksum(view, at, delta);
      if (!isTcp && view.getUint16(at) === 0) view.setUint16(at, 0xffff);
    }
  }

  #egressIcmp(batch: PacketBatch, segment: SegmentState, offset: number): number {
    const { view } = batch;
    const at = this.#transport;
    if (!this.#isWhole || at + 8 > this.#end) return this.#drop('vip_fragment');
    const type = view.getUint8(at);
    if (type === (this.#is4 ? ICMP_ECHO : ICMPV6_ECHO)) {
      this.#turnEcho(view, offset);
      this.#host.replied('vip_echo');
      return VIP_TO_SELF;
    }
    const isError = this.#is4 ? isIcmpError(type) : isIcmpv6Error(type);
    if (!isError || !this.#readQuoted(view)) return this.#drop('vip_unsupported');
    // About a packet that came from the VIP: quoted source VIP, quoted destination client.
    const key = this.#key;
    const ports = key[PORTS] as number;
    key.set(this.#quotedDestination, CLIENT);
    key.set(this.#quotedSource, VIP);
    key[PORTS] = (ports << 16) | (ports >>> 16);
    key[PLACE] = (segment.slot << 8) | this.#quotedProtocol;
    const flow = this.#flows.findTo(key);
    if (flow === -1 || this.#flows.hairpin[flow] === 1) return this.#drop('vip_no_flow');
    this.#readFlow(flow);
    view.setUint16(offset, this.#flows.macHigh[flow] as number);
    view.setInt32(offset + 2, this.#flows.macLow[flow] as number);
    const delta = addressDelta(key, VIP, key, BACKEND);
    this.#turnQuoted(view, true, BACKEND, delta);
    const destinationAt = this.#is4 ? IPV4_DESTINATION_OFFSET : IPV6_DESTINATION_OFFSET;
    this.#writeAddress(view, destinationAt, BACKEND);
    if (this.#is4) adjustChecksum(view, this.#ip + IPV4_CHECKSUM_OFFSET, delta);
    else adjustChecksum(view, at + 2, delta);
    return VIP_FORWARD;
  }

  /** An error about a packet that went to a backend becomes one about a packet to the VIP. */
  #restoreError(batch: PacketBatch, row: number, slot: number): void {
    const { view } = batch;
    const at = this.#transport;
    if (!this.#isWhole || at + 8 > this.#end) return;
    const type = view.getUint8(at);
    const isError = this.#is4 ? isIcmpError(type) : isIcmpv6Error(type);
    if (!isError || !this.#readQuoted(view)) return;
    if (((batch.rowFlags[row] as number) & ROW_NEEDS_CHECKSUM) !== 0) return;
    const key = this.#key;
    key.set(this.#quotedSource, CLIENT);
    key.set(this.#quotedDestination, BACKEND);
    key[PLACE] = (slot << 8) | this.#quotedProtocol;
    const flow = this.#flows.findFrom(key);
    if (flow === -1 || this.#flows.hairpin[flow] === 1) return;
    this.#readFlow(flow);
    const delta = addressDelta(key, BACKEND, key, VIP);
    this.#turnQuoted(view, false, VIP, delta);
    if (!sameWords(this.#source, key, BACKEND)) return;
    this.#writeAddress(view, this.#is4 ? IPV4_SOURCE_OFFSET : IPV6_SOURCE_OFFSET, VIP);
    if (this.#is4) adjustChecksum(view, this.#ip + IPV4_CHECKSUM_OFFSET, delta);
    else adjustChecksum(view, at + 2, delta);
  }

  #quoted = 0;
  #quotedProtocol = 0;
  readonly #quotedSource = new Int32Array(4);
  readonly #quotedDestination = new Int32Array(4);

  /** Reads the packet that an ICMP error quotes; its ports go into the key. */
  #readQuoted(view: DataView): boolean {
    const quoted = this.#transport + 8;
    this.#quoted = quoted;
    let transport: number;
    if (this.#is4) {
      const headerBytes = decodeIpv4Header(view, quoted, this.#end);
      if (typeof headerBytes !== 'number') return false;
      if ((view.getUint16(quoted + IPV4_FRAGMENT_OFFSET) & IPV4_FRAGMENT_MASK) !== 0) return false;
      this.#quotedProtocol = view.getUint8(quoted + IPV4_PROTOCOL_OFFSET);
      transport = quoted + headerBytes;
      readMapped(view, quoted + IPV4_SOURCE_OFFSET, this.#quotedSource);
      readMapped(view, quoted + IPV4_DESTINATION_OFFSET, this.#quotedDestination);
    } else {
      const nextHeader = decodeIpv6Header(view, quoted, this.#end);
      if (typeof nextHeader !== 'number') return false;
      this.#quotedProtocol = nextHeader;
      transport = quoted + IPV6_HEADER_BYTES;
      readWords(view, quoted + IPV6_SOURCE_OFFSET, this.#quotedSource);
      readWords(view, quoted + IPV6_DESTINATION_OFFSET, this.#quotedDestination);
    }
    if (transport + 4 > this.#end) return false;
    this.#key[PORTS] = view.getInt32(transport);
    return this.#quotedProtocol === PROTOCOL_TCP || this.#quotedProtocol === PROTOCOL_UDP;
  }

  /** Changes the quoted packet's source or destination. */
  #turnQuoted(view: DataView, isSource: boolean, word: number, delta: number): void {
    const key = this.#key;
    if (this.#is4) {
      const at = this.#quoted + (isSource ? IPV4_SOURCE_OFFSET : IPV4_DESTINATION_OFFSET);
      view.setInt32(at, key[word + 3] as number);
      // The quoted header's sum stays what it was, and with it that of the message.
      adjustChecksum(view, this.#quoted + IPV4_CHECKSUM_OFFSET, delta);
      return;
    }
    const at = this.#quoted + (isSource ? IPV6_SOURCE_OFFSET : IPV6_DESTINATION_OFFSET);
    for (let i = 0; i < 4; i++) view.setInt32(at + i * 4, key[word + i] as number);
    adjustChecksum(view, this.#transport + 2, delta);
  }

  /** A request becomes its reply, where it lies. */
  #turnEcho(view: DataView, offset: number): void {
    const high = view.getUint16(offset + ETHERNET_SOURCE_OFFSET);
    const low = view.getInt32(offset + ETHERNET_SOURCE_OFFSET + 2);
    view.setUint16(offset, high);
    view.setInt32(offset + 2, low);
    view.setUint16(offset + ETHERNET_SOURCE_OFFSET, VIP_MAC_HIGH);
    view.setInt32(offset + ETHERNET_SOURCE_OFFSET + 2, VIP_MAC_LOW);
    const key = this.#key;
    key.set(this.#source, CLIENT);
    key.set(this.#destination, VIP);
    this.#writeAddress(view, this.#is4 ? IPV4_SOURCE_OFFSET : IPV6_SOURCE_OFFSET, VIP);
    this.#writeAddress(view, this.#is4 ? IPV4_DESTINATION_OFFSET : IPV6_DESTINATION_OFFSET, CLIENT);
    const at = this.#transport;
    const before = view.getUint16(at);
    view.setUint8(at, this.#is4 ? 0 : ICMPV6_ECHO + 1);
    adjustChecksum(view, at + 2, (~before & 0xffff) + view.getUint16(at));
  }

  #fragmentFlow(view: DataView, slot: number, direction: number): number {
    const place = (slot << 9) | (this.#protocol << 1) | direction;
    const source = this.#source[3] as number;
    const destination = this.#destination[3] as number;
    const id = view.getUint16(this.#ip + 4);
    const flow = this.#fragments.get(place, source, destination, id, this.#nowMs);
    // The place may be another flow's by now.
    const isHeld = flow !== -1 && this.#flows.state[flow] !== 0;
    if (!isHeld) return -1;
    const at = direction === 1 ? CLIENT : BACKEND;
    return this.#flows.word(flow, at + 3) === source ? flow : -1;
  }

  #rememberFragment(view: DataView, slot: number, direction: number, flow: number): void {
    const place = (slot << 9) | (this.#protocol << 1) | direction;
    const source = this.#source[3] as number;
    const destination = this.#destination[3] as number;
    const id = view.getUint16(this.#ip + 4);
    this.#fragments.set(place, source, destination, id, flow, this.#nowMs);
  }

  #vipAt(slot: number, words: Int32Array): number {
    const a = words[0] as number;
    const b = words[1] as number;
    const c = words[2] as number;
    return this.#vips.get(slot, a, b, c, words[3] as number);
  }

  #indexOf(vni: number, serviceId: string): number {
    return this.#services.findIndex((held) => held?.vni === vni && held.id === serviceId);
  }
}

function wordsOf(words: Int32Array): readonly [number, number, number, number] {
  return [...words] as unknown as readonly [number, number, number, number];
}

function readMapped(view: DataView, at: number, words: Int32Array): void {
  words[0] = 0;
  words[1] = 0;
  words[2] = MAPPED;
  words[3] = view.getInt32(at);
}

function readWords(view: DataView, at: number, words: Int32Array): void {
  for (let i = 0; i < 4; i++) words[i] = view.getInt32(at + i * 4);
}

function isMapped(words: Int32Array, at: number): boolean {
  return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === MAPPED;
}

function same(words: Int32Array, a: number, b: number): boolean {
  for (let i = 0; i < 4; i++) if (words[a + i] !== words[b + i]) return false;
  return true;
}

function sameWords(words: Int32Array, key: Int32Array, at: number): boolean {
  for (let i = 0; i < 4; i++) if (words[i] !== key[at + i]) return false;
  return true;
}
