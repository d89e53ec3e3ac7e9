import { assert } from '../../../base/assert.js';
import { GSO_NONE, OUTPUTS_MAX, type PacketBatch, UNSEALED } from '../../core/batch.js';
import type { PacketHandler } from '../../core/packet-io.js';
import {
  ARP_REQUEST,
  ARP_SENDER_ADDRESS_OFFSET,
  ARP_SENDER_MAC_OFFSET,
  ARP_TARGET_ADDRESS_OFFSET,
  decodeArp,
} from '../../wire/arp.js';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE_OFFSET,
  ETHERNET_TYPE_OFFSET,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  ETHERTYPE_QINQ,
  ETHERTYPE_VLAN,
  encodeEthernetHeader,
  MAC_GROUP_BIT_HIGH,
  macOf,
} from '../../wire/ethernet.js';
import { IPV4_HEADER_BYTES, IPV4_SOURCE_OFFSET } from '../../wire/ipv4.js';
import {
  decodeIpv6Header,
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_SOURCE_OFFSET,
  isMulticast6,
  PROTOCOL_ICMPV6,
} from '../../wire/ipv6.js';
import {
  decodeNdp,
  NDP_TARGET_OFFSET,
  NEIGHBOR_ADVERTISEMENT,
  NEIGHBOR_SOLICITATION,
} from '../../wire/ndp.js';
import { decodeVxlanHeader, VXLAN_HEADER_BYTES } from '../../wire/vxlan.js';
import {
  DROP_INDEX,
  OVERLAY_COUNTERS_LENGTH,
  type OverlayDrop,
  type OverlayReply,
  REPLY_INDEX,
  SEGMENT_RX,
  SEGMENT_TX,
  TOTAL_INDEX,
} from './counters.js';
import type { TablesUpdate } from './diff.js';
import { flowHash, packetBytes } from './inner.js';
import {
  ADVERTISEMENT_FRAME_BYTES,
  ARP_REPLY_BYTES,
  errorBytes4,
  errorBytes6,
  maySendFragmentationNeeded,
  maySendPacketTooBig,
  writeAdvertisement,
  writeArpReply,
  writeFragmentationNeeded,
  writePacketTooBig,
  writeProhibited4,
  writeProhibited6,
} from './replies.js';
import { resetFrameBytes, writeReset } from './resets.js';
import { Returns } from './returns.js';
import { type SegmentLimits, type SegmentState, SegmentTable } from './segments.js';
import { VIP_DONE, VIP_TO_SELF, type VipOutliers, VipPlane } from './vips.js';
import { ABSENT } from './word-table.js';

export interface VtepConfig {
  /** Per segment. */
  readonly limits: SegmentLimits;
  /** Unpredictable to those who choose addresses in the overlay. */
  readonly hashSeed: number;
  /** `OVERLAY_COUNTERS_LENGTH` numbers, see `newOverlayCounters`. */
  readonly counters: Float64Array;
  /** A power of 2; default `VIP_FLOWS_MAX`. */
  readonly vipFlowsMax?: number | undefined;
}

export interface VtepDependencies {
  /** Monotonic milliseconds; called once a batch at most, and for frames that are rate-limited. */
  readonly now: () => number;
}

/** Enough for neighbour discovery and service announcements of a /16, not for a storm. */
export const DEFAULT_SEGMENT_LIMITS: SegmentLimits = {
  floodPerSecond: 2_000,
  floodBurst: 1_000,
  icmpPerSecond: 1_000,
  icmpBurst: 100,
};

/** An Ethernet frame may exceed the MTU by its header and a tag that somebody removed. */
const FRAME_OVERHEAD_BYTES_MAX = ETHERNET_HEADER_BYTES + 4;

/** Word of an IPv4 address mapped into IPv6, before the address itself. */
const MAPPED_WORD = 0xffff;

/**
 * The overlay's packet core: decides, per frame of a local port and per datagram of the underlay,
 * where it goes, from tables that it is given and never learns.
 *
 * Egress: ARP and neighbour discovery are answered here, known unicast goes to its VTEP or port,
 * the rest is replicated to the segment's VTEPs (head-end replication). Ingress: only known senders,
 * only to local ports (split horizon).
 *
 * The memos below remember the last look-up, since frames come in trains of one flow; `apply`
 * forgets them. Words of packets are read as signed numbers, which the engine keeps in registers
 * where it would put half of the unsigned ones on the heap.
 */
export class Vtep implements PacketHandler {
  readonly #tables: SegmentTable;
  readonly #counters: Float64Array;
  readonly #now: () => number;
  readonly #vips: VipPlane;
  readonly #returns: Returns;
  /** `NaN`: not asked for yet. */
  #batchMs = Number.NaN;
  /** The frame at hand went to a VIP and goes to a backend now. */
  #isTurned = false;

  #egressPort = -1;
  #egressMacHigh = -1;
  #egressMacLow = -1;
  #egressPlace = ABSENT;

  #ingressSegment: SegmentState | undefined;
  #ingressVni = -1;
  #sealer = UNSEALED;
  #senderA = 0;
  #senderB = 0;
  #senderC = 0;
  #senderD = 0;
  #sourceMacHigh = -1;
  #sourceMacLow = -1;
  #sourcePlace = ABSENT;
  #targetMacHigh = -1;
  #targetMacLow = -1;
  #targetPlace = ABSENT;

  constructor(config: VtepConfig, dependencies: VtepDependencies) {
    assert(config.counters.length >= OVERLAY_COUNTERS_LENGTH, 'counter block is large enough');
    this.#tables = new SegmentTable(config.limits, config.hashSeed);
    this.#counters = config.counters;
    this.#now = dependencies.now;
    this.#returns = new Returns(
      config.hashSeed,
      (slot, macHigh, macLow) => this.#tables.place(slot, macHigh, macLow) !== ABSENT,
    );
    this.#vips = new VipPlane(
      {
        drop: (reason) => this.#drop(reason),
        replied: (kind) => this.#count(REPLY_INDEX[kind], 1),
        flowCreated: () => this.#count(TOTAL_INDEX.vipFlows, 1),
        flowEvicted: () => this.#count(TOTAL_INDEX.vipEvictions, 1),
        flowFailed: () => this.#count(TOTAL_INDEX.vipFailures, 1),
        flowSilent: () => this.#count(TOTAL_INDEX.vipSilences, 1),
        ejected: () => this.#count(TOTAL_INDEX.vipEjections, 1),
        sendMade: (batch, segment, offset, length) =>
          this.#sendMade(batch, segment, offset, length),
        neighborOf: ({ slot }, words, at) =>
          this.#tables.neighbor(
            slot,
            words[at] as number,
            words[at + 1] as number,
            words[at + 2] as number,
            words[at + 3] as number,
          ),
        segmentAt: (slot) => this.#tables.segmentAt(slot),
      },
      config.hashSeed,
      config.vipFlowsMax,
    );
  }

  /** Changes the tables; between two batches. */
  apply(update: TablesUpdate): void {
    const nowMs = this.#now();
    for (const { vni, serviceId } of update.vipsRemoved) {
      const segment = this.#tables.segmentOf(vni);
      if (segment === undefined) continue;
      segment.vipCount -= 1;
      this.#vips.remove(vni, serviceId, segment.slot);
    }
    for (const vni of update.segmentsRemoved) {
      const segment = this.#tables.segmentOf(vni);
      if (segment !== undefined && this.#vips.isUsed) this.#vips.removeSegment(segment.slot);
    }
    let refused = this.#tables.apply(update, this.#counters, nowMs);
    for (const set of update.vipsSet) {
      const segment = this.#tables.segmentOf(set.vni);
      if (segment === undefined) continue;
      if (!this.#vips.has(set.vni, set.serviceId)) segment.vipCount += 1;
      if (!this.#vips.set(set, segment.slot, nowMs)) refused += 1;
    }
    this.#count(TOTAL_INDEX.tableRefusals, refused);
    this.#egressPort = -1;
    this.#ingressVni = -1;
    this.#sourceMacHigh = -1;
    this.#targetMacHigh = -1;
  }

  /** To be called a few times a second, also while no packets come: who hangs is found by time that passes. */
  tick(): void {
    if (this.#vips.isUsed) this.#vips.tick(this.#now());
  }

  /** Which tasks are passed over behind VIPs, if that has changed since it was asked. */
  changedOutliers(): readonly VipOutliers[] | undefined {
    return this.#vips.changedOutliers();
  }

  egress(batch: PacketBatch): void {
    this.#begin(batch);
    for (let row = 0; row < batch.rowCount; row++) this.#egressRow(batch, row);
  }

  ingress(batch: PacketBatch): void {
    this.#begin(batch);
    for (let row = 0; row < batch.rowCount; row++) this.#ingressRow(batch, row);
  }

  #begin(batch: PacketBatch): void {
    this.#batchMs = Number.NaN;
    if (this.#vips.isUsed) this.#vips.begin(batch, this.#batchNow());
  }

  /** When the batch was decided: a clock is not read for each of its packets. */
  #batchNow(): number {
    if (Number.isNaN(this.#batchMs)) this.#batchMs = this.#now();
    return this.#batchMs;
  }

  #egressRow(batch: PacketBatch, row: number): undefined {
    const { view } = batch;
    const port = batch.rowPort[row] as number;
    const segment = this.#tables.portSegment[port];
    if (segment === undefined) return this.#drop('port_unknown');
    const offset = batch.rowOffset[row] as number;
    const end = offset + (batch.rowLength[row] as number);
    if (offset + ETHERNET_HEADER_BYTES > end) return this.#drop('frame_truncated');

    const sourceHigh = view.getUint16(offset + ETHERNET_SOURCE_OFFSET);
    if ((sourceHigh & MAC_GROUP_BIT_HIGH) !== 0) return this.#drop('mac_invalid');
    const isTrusted = this.#tables.portTrusted[port] === 1;
    if (!isTrusted && !this.#isPortMac(view, port, offset + ETHERNET_SOURCE_OFFSET))
      return this.#drop('mac_not_attached');

    const etherType = view.getUint16(offset + ETHERNET_TYPE_OFFSET);
    if (etherType === ETHERTYPE_VLAN || etherType === ETHERTYPE_QINQ)
      return this.#drop('vlan_tagged');
    if (etherType === ETHERTYPE_ARP && this.#handleArp(batch, segment, port, offset, end)) return;
    if (etherType === ETHERTYPE_IPV6 && this.#handleNdp(batch, segment, port, offset, end)) return;

    const gsoType = batch.rowGsoType[row] as number;
    const gsoSize = batch.rowGsoSize[row] as number;
    const bytes = packetBytes(view, offset, end, etherType, gsoType, gsoSize);
    if (bytes === -1) return this.#drop('gso_invalid');
    if (bytes > segment.mtuBytes)
      return this.#answerTooBig(batch, segment, port, offset, end, etherType);
    this.#isTurned = false;
    if (segment.vipCount > 0 && VipPlane.isVipMac(view, offset)) {
      const verdict = this.#vips.egress(batch, row, segment, offset, end, etherType);
      if (verdict === VIP_DONE) return;
      if (verdict === VIP_TO_SELF) return this.#deliverBack(batch, row, port, offset, end);
      this.#isTurned = true;
    } else if (segment.hasReturns && VipPlane.isVipMac(view, offset)) {
      if (!this.#returns.steer(batch, segment.slot, offset, end, this.#batchNow()))
        return this.#drop('return_unknown');
      this.#isTurned = true;
    }
    this.#forward(batch, row, segment, port, offset, end, etherType);
  }

  #deliverBack(
    batch: PacketBatch,
    row: number,
    port: number,
    offset: number,
    end: number,
  ): undefined {
    if (batch.outCount >= OUTPUTS_MAX) return this.#drop('batch_full');
    batch.emitToPort(row, offset, end - offset, port);
    this.#count(TOTAL_INDEX.localFrames, 1);
    this.#count(TOTAL_INDEX.localBytes, end - offset);
  }

  /** A frame of the VIP plane's own making, to wherever its destination is. */
  #sendMade(batch: PacketBatch, segment: SegmentState, offset: number, length: number): undefined {
    const { view } = batch;
    const place = this.#tables.place(
      segment.slot,
      view.getUint16(offset),
      view.getInt32(offset + 2),
    );
    if (place === ABSENT) return this.#drop('vip_unreachable');
    if (batch.outCount >= OUTPUTS_MAX) return this.#drop('batch_full');
    if ((place & 1) === 1) {
      batch.emitToPort(-1, offset, length, place >>> 1);
      return;
    }
    const hash = flowHash(
      view,
      offset,
      offset + length,
      view.getUint16(offset + ETHERNET_TYPE_OFFSET),
    );
    batch.emitToVtep(-1, offset, length, place >>> 1, segment.vni, hash, segment.isSealed);
    this.#countTx(segment, length);
  }

  #forward(
    batch: PacketBatch,
    row: number,
    segment: SegmentState,
    port: number,
    offset: number,
    end: number,
    etherType: number,
  ): undefined {
    const { view } = batch;
    const high = view.getUint16(offset);
    const low = view.getInt32(offset + 2);
    if (this.#egressPort !== port || this.#egressMacLow !== low || this.#egressMacHigh !== high) {
      const isGroup = (high & MAC_GROUP_BIT_HIGH) !== 0;
      this.#egressPort = port;
      this.#egressMacHigh = high;
      this.#egressMacLow = low;
      this.#egressPlace = isGroup ? ABSENT : this.#tables.place(segment.slot, high, low);
    }
    const place = this.#egressPlace;
    const length = end - offset;
    if (place === ABSENT) {
      if (this.#isTurned) return this.#drop('vip_unreachable');
      return this.#flood(batch, row, segment, port, offset, end, etherType);
    }
    if (batch.outCount >= OUTPUTS_MAX) return this.#drop('batch_full');
    if ((place & 1) === 0) {
      const hash = flowHash(view, offset, end, etherType);
      batch.emitToVtep(row, offset, length, place >>> 1, segment.vni, hash, segment.isSealed);
      this.#countTx(segment, length);
    } else if (place >>> 1 === port) {
      this.#drop('hairpin');
    } else {
      if (segment.vipCount > 0 && !this.#isTurned)
        this.#vips.restore(batch, row, segment, offset, end, etherType);
      if (segment.hasReturns && !this.#noteReturn(batch, segment, offset, end)) return;
      batch.emitToPort(row, offset, length, place >>> 1);
      this.#count(TOTAL_INDEX.localFrames, 1);
      this.#count(TOTAL_INDEX.localBytes, length);
    }
  }

  /** Head-end replication: one copy per VTEP of the segment and per other local port, all or none. */
  #flood(
    batch: PacketBatch,
    row: number,
    segment: SegmentState,
    port: number,
    offset: number,
    end: number,
    etherType: number,
  ): undefined {
    const { floodList, ports } = segment;
    const length = end - offset;
    if (VipPlane.isVipMac(batch.view, offset)) return this.#drop('vip_unknown');
    const copies = floodList.length + ports.length - 1;
    if (copies === 0) return this.#drop('flood_empty');
    if (!segment.floodBucket.take(this.#now())) return this.#drop('flood_limited');
    if (batch.outCount + copies > OUTPUTS_MAX) return this.#drop('batch_full');
    this.#count(TOTAL_INDEX.floodFrames, 1);
    const hash = flowHash(batch.view, offset, end, etherType);
    for (let i = 0; i < floodList.length; i++) {
      const vtep = floodList[i] as number;
      batch.emitToVtep(row, offset, length, vtep, segment.vni, hash, segment.isSealed);
      this.#countTx(segment, length);
    }
    for (let i = 0; i < ports.length; i++) {
      const target = ports[i] as number;
      if (target === port) continue;
      batch.emitToPort(row, offset, length, target);
      this.#count(TOTAL_INDEX.localFrames, 1);
      this.#count(TOTAL_INDEX.localBytes, length);
    }
  }

  /** @returns Whether the frame is dealt with; else it is forwarded like any other. */
  #handleArp(
    batch: PacketBatch,
    segment: SegmentState,
    port: number,
    offset: number,
    end: number,
  ): boolean {
    const { view } = batch;
    const arp = offset + ETHERNET_HEADER_BYTES;
    const operation = decodeArp(view, arp, end);
    if (typeof operation !== 'number') return this.#consume(operation);

    const sender = view.getInt32(arp + ARP_SENDER_ADDRESS_OFFSET);
    const target = view.getInt32(arp + ARP_TARGET_ADDRESS_OFFSET);
    const ownMac = this.#portMac(port);
    if (this.#tables.portTrusted[port] !== 1) {
      const held = this.#neighbor4(segment, sender);
      const isOwn = this.#isPortMac(view, port, arp + ARP_SENDER_MAC_OFFSET);
      if (!isOwn || (held !== ABSENT && held !== ownMac)) return this.#consume('address_spoofed');
    }
    if (sender === target) return this.#consume('announcement_suppressed');
    if (operation !== ARP_REQUEST) return false;

    const mac = this.#neighbor4(segment, target);
    if (mac === ABSENT) return false;
    if (mac === ownMac) return this.#consume('own_address_asked');
    const reply = writeArpReply(batch, offset, mac);
    return this.#reply(batch, 'arp_reply', port, reply, ARP_REPLY_BYTES);
  }

  /** @returns Whether the frame is dealt with; else it is forwarded like any other. */
  #handleNdp(
    batch: PacketBatch,
    segment: SegmentState,
    port: number,
    offset: number,
    end: number,
  ): boolean {
    const { view } = batch;
    const ip = offset + ETHERNET_HEADER_BYTES;
    if (decodeIpv6Header(view, ip, end) !== PROTOCOL_ICMPV6) return false;
    const type = decodeNdp(view, ip, end);
    if (typeof type !== 'number') return this.#consume(type);
    if (type !== NEIGHBOR_SOLICITATION && type !== NEIGHBOR_ADVERTISEMENT) return false;

    const mac = this.#neighbor6(segment, view, ip + IPV6_HEADER_BYTES + NDP_TARGET_OFFSET);
    const ownMac = this.#portMac(port);
    if (this.#tables.portTrusted[port] !== 1) {
      const source = this.#neighbor6(segment, view, ip + IPV6_SOURCE_OFFSET);
      if (source !== ABSENT && source !== ownMac) return this.#consume('address_spoofed');
      if (type === NEIGHBOR_ADVERTISEMENT && mac !== ABSENT && mac !== ownMac)
        return this.#consume('address_spoofed');
    }
    if (type === NEIGHBOR_ADVERTISEMENT) {
      const isUnsolicited = isMulticast6(view, ip + IPV6_DESTINATION_OFFSET) && mac !== ABSENT;
      return isUnsolicited && this.#consume('announcement_suppressed');
    }
    if (mac === ABSENT) return false;
    if (mac === ownMac) return this.#consume('own_address_asked');
    const reply = writeAdvertisement(batch, offset, mac);
    return this.#reply(batch, 'neighbor_advertisement', port, reply, ADVERTISEMENT_FRAME_BYTES);
  }

  /** Tells the sender the MTU, where that is possible; the frame itself is lost either way. */
  #answerTooBig(
    batch: PacketBatch,
    segment: SegmentState,
    port: number,
    offset: number,
    end: number,
    etherType: number,
  ): undefined {
    const { view } = batch;
    const { mtuBytes, icmpBucket } = segment;
    const is4 = etherType === ETHERTYPE_IPV4 && maySendFragmentationNeeded(view, offset, end);
    const is6 = etherType === ETHERTYPE_IPV6 && maySendPacketTooBig(view, offset, end);
    if ((!is4 && !is6) || !icmpBucket.take(this.#now())) {
      this.#drop('mtu_exceeded');
    } else if (is4) {
      const reply = writeFragmentationNeeded(batch, offset, end, mtuBytes);
      const length = errorBytes4(offset, end);
      this.#reply(batch, 'fragmentation_needed', port, reply, length);
    } else {
      const reply = writePacketTooBig(batch, offset, end, mtuBytes);
      this.#reply(batch, 'packet_too_big', port, reply, errorBytes6(offset, end));
    }
  }

  #ingressRow(batch: PacketBatch, row: number): undefined {
    const { view } = batch;
    const start = batch.rowOffset[row] as number;
    const end = start + (batch.rowLength[row] as number);
    const vni = decodeVxlanHeader(view, start, end);
    if (typeof vni !== 'number') return this.#drop(vni);
    const sealer = batch.rowSealer[row] as number;
    const sender = batch.rowSender[row] as number;
    const segment =
      sealer === UNSEALED ? this.#admit(view, sender, vni) : this.#admitSealed(sealer, vni);
    if (segment === undefined) return;

    const offset = start + VXLAN_HEADER_BYTES;
    const length = end - offset;
    if (length < ETHERNET_HEADER_BYTES) return this.#drop('inner_truncated');
    const etherType = view.getUint16(offset + ETHERNET_TYPE_OFFSET);
    if (
      length > segment.mtuBytes + FRAME_OVERHEAD_BYTES_MAX &&
      !this.#isSuperFrameWithin(batch, row, offset, end, etherType, segment.mtuBytes)
    )
      return this.#drop('oversized');
    if (etherType === ETHERTYPE_VLAN || etherType === ETHERTYPE_QINQ)
      return this.#drop('vlan_tagged');
    if (!this.#isSourceFair(view, segment, offset + ETHERNET_SOURCE_OFFSET)) return;
    this.#deliver(batch, row, segment, offset, length);
  }

  /**
   * Whether what is too long is a super-frame of segments that fit: a driver that joins them, or a
   * kernel on the same machine that never cut them (veth), hands such over.
   */
  #isSuperFrameWithin(
    batch: PacketBatch,
    row: number,
    offset: number,
    end: number,
    etherType: number,
    mtuBytes: number,
  ): boolean {
    const gsoType = batch.rowGsoType[row] as number;
    if (gsoType === GSO_NONE) return false;
    const gsoSize = batch.rowGsoSize[row] as number;
    const bytes = packetBytes(batch.view, offset, end, etherType, gsoType, gsoSize);
    return bytes !== -1 && bytes <= mtuBytes;
  }

  /** The segment, if the sender may send into it; else the datagram is counted and dropped. */
  #admit(view: DataView, sender: number, vni: number): SegmentState | undefined {
    const a = view.getInt32(sender);
    const b = view.getInt32(sender + 4);
    const c = view.getInt32(sender + 8);
    const d = view.getInt32(sender + 12);
    return this.#admitFrom(UNSEALED, a, b, c, d, vni);
  }

  /** Who sealed it is who sent it, whatever address a network has given the datagram on its way. */
  #admitSealed(sealer: number, vni: number): SegmentState | undefined {
    const tables = this.#tables;
    const vtep = sealer - 1;
    const a = tables.vtepWord(vtep, 0);
    const b = tables.vtepWord(vtep, 1);
    const c = tables.vtepWord(vtep, 2);
    const d = tables.vtepWord(vtep, 3);
    return this.#admitFrom(sealer, a, b, c, d, vni);
  }

  #admitFrom(
    sealer: number,
    a: number,
    b: number,
    c: number,
    d: number,
    vni: number,
  ): SegmentState | undefined {
    if (
      this.#ingressVni === vni &&
      this.#sealer === sealer &&
      this.#senderD === d &&
      this.#senderC === c &&
      this.#senderB === b &&
      this.#senderA === a
    )
      return this.#ingressSegment;

    const segment = this.#tables.segmentOf(vni);
    if (this.#tables.isOwnAddress(a, b, c, d)) this.#drop('looped');
    else if (segment === undefined) this.#drop('vni_unknown');
    else if (!this.#tables.isSender(segment.slot, a, b, c, d)) this.#drop('vtep_unknown');
    else if (segment.isSealed && sealer === UNSEALED) this.#drop('unsealed');
    else if (!segment.isSealed && sealer !== UNSEALED) this.#drop('seal_unexpected');
    else {
      this.#ingressVni = vni;
      this.#sealer = sealer;
      this.#ingressSegment = segment;
      this.#senderA = a;
      this.#senderB = b;
      this.#senderC = c;
      this.#senderD = d;
      // These remember places within a segment.
      this.#sourceMacHigh = -1;
      this.#targetMacHigh = -1;
      return segment;
    }
    return undefined;
  }

  /** Whether the source MAC may come from the sender that `#admit` let in; else counted. */
  #isSourceFair(view: DataView, segment: SegmentState, at: number): boolean {
    const high = view.getUint16(at);
    const low = view.getInt32(at + 2);
    if (this.#sourceMacLow !== low || this.#sourceMacHigh !== high) {
      if ((high & MAC_GROUP_BIT_HIGH) !== 0) return !this.#consume('mac_invalid');
      this.#sourceMacHigh = high;
      this.#sourceMacLow = low;
      this.#sourcePlace = this.#tables.place(segment.slot, high, low);
    }
    const place = this.#sourcePlace;
    if (place === ABSENT) return true;
    if ((place & 1) === 1) return !this.#consume('looped');
    // Several nodes can share an address behind a translator; a seal tells them apart.
    if (this.#sealer !== UNSEALED)
      return place >>> 1 === this.#sealer - 1 || !this.#consume('mac_spoofed');
    const isSenders = this.#tables.isVtepAt(
      place >>> 1,
      this.#senderA,
      this.#senderB,
      this.#senderC,
      this.#senderD,
    );
    return isSenders || !this.#consume('mac_spoofed');
  }

  #deliver(
    batch: PacketBatch,
    row: number,
    segment: SegmentState,
    offset: number,
    length: number,
  ): undefined {
    const { view } = batch;
    const high = view.getUint16(offset);
    const low = view.getInt32(offset + 2);
    if ((high & MAC_GROUP_BIT_HIGH) !== 0) {
      this.#deliverToAll(batch, row, segment, offset, length);
      return;
    }
    if (this.#targetMacLow !== low || this.#targetMacHigh !== high) {
      this.#targetMacHigh = high;
      this.#targetMacLow = low;
      this.#targetPlace = this.#tables.place(segment.slot, high, low);
    }
    const place = this.#targetPlace;
    if (place === ABSENT) return this.#drop('mac_unknown');
    if ((place & 1) === 0) return this.#drop('mac_remote');
    if (batch.outCount >= OUTPUTS_MAX) return this.#drop('batch_full');
    if (segment.vipCount > 0) {
      const etherType = view.getUint16(offset + ETHERNET_TYPE_OFFSET);
      this.#vips.restore(batch, row, segment, offset, offset + length, etherType);
    }
    if (segment.hasReturns && !this.#noteReturn(batch, segment, offset, offset + length)) return;
    batch.emitToPort(row, offset, length, place >>> 1);
    this.#countRx(segment, length);
  }

  /** Remembers where a packet from outside came from. @returns Whether it may be delivered. */
  #noteReturn(batch: PacketBatch, segment: SegmentState, offset: number, end: number): boolean {
    const { view } = batch;
    const etherType = view.getUint16(offset + ETHERNET_TYPE_OFFSET);
    const ip = offset + ETHERNET_HEADER_BYTES;
    let source: number;
    if (etherType === ETHERTYPE_IPV4 && ip + IPV4_HEADER_BYTES <= end)
      source = this.#neighbor4(segment, view.getInt32(ip + IPV4_SOURCE_OFFSET));
    else if (etherType === ETHERTYPE_IPV6 && ip + IPV6_HEADER_BYTES <= end)
      source = this.#neighbor6(segment, view, ip + IPV6_SOURCE_OFFSET);
    else return true;
    // Of an endpoint: found by its MAC like any other.
    if (source !== ABSENT) return true;
    const noted = this.#returns.note(batch, segment.slot, offset, end, this.#batchNow());
    if (noted !== 'conflict') return true;
    if (this.#returns.isSyn) this.#refuseReturn(batch, segment, offset, etherType);
    else if (this.#returns.isDatagram) this.#prohibitReturn(batch, segment, offset, end, etherType);
    else this.#drop('return_conflict');
    return false;
  }

  /** The node that came second connects from another port of the client then, or from its own address. */
  #refuseReturn(
    batch: PacketBatch,
    segment: SegmentState,
    offset: number,
    etherType: number,
  ): undefined {
    const { view } = batch;
    const is4 = etherType === ETHERTYPE_IPV4;
    const length = resetFrameBytes(is4);
    const frame = batch.reserve(length);
    if (frame === -1) return this.#drop('batch_full');
    const macAt = (at: number) => macOf(view.getUint16(at), view.getUint32(at + 2));
    const asker = macAt(offset + ETHERNET_SOURCE_OFFSET);
    encodeEthernetHeader(view, frame, asker, macAt(offset), etherType);
    const { ends, ports, sequence } = this.#returns;
    writeReset(view, frame, {
      words: ends,
      from: 4,
      to: 0,
      ports: (ports << 16) | (ports >>> 16),
      sequence: 0,
      acknowledgment: (sequence + 1) | 0,
      isAck: true,
    });
    this.#sendMade(batch, segment, frame, length);
    this.#count(REPLY_INDEX.return_reset, 1);
  }

  /** The same for datagrams. */
  #prohibitReturn(
    batch: PacketBatch,
    segment: SegmentState,
    offset: number,
    end: number,
    etherType: number,
  ): undefined {
    if (!segment.icmpBucket.take(this.#now())) return this.#drop('return_conflict');
    const is4 = etherType === ETHERTYPE_IPV4;
    const frame = (is4 ? writeProhibited4 : writeProhibited6)(batch, offset, end);
    if (frame === -1) return this.#drop('batch_full');
    this.#sendMade(batch, segment, frame, (is4 ? errorBytes4 : errorBytes6)(offset, end));
    this.#count(REPLY_INDEX.return_prohibited, 1);
  }

  /** To every local port and to no VTEP: the sender replicated already. */
  #deliverToAll(
    batch: PacketBatch,
    row: number,
    segment: SegmentState,
    offset: number,
    length: number,
  ): undefined {
    const { ports } = segment;
    if (ports.length === 0) return this.#drop('flood_empty');
    if (batch.outCount + ports.length > OUTPUTS_MAX) return this.#drop('batch_full');
    for (let i = 0; i < ports.length; i++)
      batch.emitToPort(row, offset, length, ports[i] as number);
    this.#countRx(segment, length);
  }

  #reply(
    batch: PacketBatch,
    kind: OverlayReply,
    port: number,
    offset: number,
    length: number,
  ): true {
    if (offset === -1 || batch.outCount >= OUTPUTS_MAX) return this.#consume('batch_full');
    batch.emitToPort(-1, offset, length, port);
    this.#count(REPLY_INDEX[kind], 1);
    return true;
  }

  #portMacHigh(port: number): number {
    return this.#tables.portMacHigh[port] as number;
  }

  #portMacLow(port: number): number {
    return this.#tables.portMacLow[port] as number;
  }

  #portMac(port: number): number {
    return macOf(this.#portMacHigh(port), this.#portMacLow(port) >>> 0);
  }

  #isPortMac(view: DataView, port: number, at: number): boolean {
    return (
      view.getInt32(at + 2) === this.#portMacLow(port) &&
      view.getUint16(at) === this.#portMacHigh(port)
    );
  }

  #neighbor4({ slot }: SegmentState, address: number): number {
    return this.#tables.neighbor(slot, 0, 0, MAPPED_WORD, address);
  }

  #neighbor6({ slot }: SegmentState, view: DataView, at: number): number {
    return this.#tables.neighbor(
      slot,
      view.getInt32(at),
      view.getInt32(at + 4),
      view.getInt32(at + 8),
      view.getInt32(at + 12),
    );
  }

  #drop(reason: OverlayDrop): undefined {
    this.#count(DROP_INDEX[reason], 1);
  }

  /** Drops the frame; for those who say that it is dealt with. */
  #consume(reason: OverlayDrop): true {
    this.#drop(reason);
    return true;
  }

  #countTx(segment: SegmentState, bytes: number): void {
    this.#count(TOTAL_INDEX.txFrames, 1);
    this.#count(TOTAL_INDEX.txBytes, bytes);
    this.#count(segment.countersAt + SEGMENT_TX, 1);
    this.#count(segment.countersAt + SEGMENT_TX + 1, bytes);
  }

  #countRx(segment: SegmentState, bytes: number): void {
    this.#count(TOTAL_INDEX.rxFrames, 1);
    this.#count(TOTAL_INDEX.rxBytes, bytes);
    this.#count(segment.countersAt + SEGMENT_RX, 1);
    this.#count(segment.countersAt + SEGMENT_RX + 1, bytes);
  }

  #count(index: number, amount: number): void {
    this.#counters[index] = (this.#counters[index] as number) + amount;
  }
}
