import { assert } from '../../../base/assert.js';

/**
 * Why a frame or datagram went nowhere, each also the name of its counter. Every row of a batch
 * ends in exactly one of: an output, a reply (`OVERLAY_REPLIES`), or one of these.
 */
export const OVERLAY_DROPS = [
  // Frames from local ports.
  'port_unknown',
  'frame_truncated',
  /** A source MAC that is not the port's own. */
  'mac_not_attached',
  /** A source MAC that is a group address. */
  'mac_invalid',
  /** Inner VLAN tags are not carried, RFC 7348 §6.1; both directions. */
  'vlan_tagged',
  /** An ARP or ND message that claims another endpoint's address. */
  'address_spoofed',
  'arp_malformed',
  'ndp_malformed',
  /** Gratuitous ARP, unsolicited neighbour advertisements: tables are derived, not learned. */
  'announcement_suppressed',
  /** ARP or ND for the asker's own address: nobody else has it. */
  'own_address_asked',
  'gso_invalid',
  /** Larger than the network's MTU, and no answer was possible or allowed. */
  'mtu_exceeded',
  /** To the port's own MAC: frames never go back where they came from. */
  'hairpin',
  /** Over the segment's rate of broadcast, unknown unicast and multicast frames. */
  'flood_limited',
  /** Nobody else is in the segment. */
  'flood_empty',
  // Frames to a VIP.
  /** No service has that address (any more). */
  'vip_unknown',
  /** Neither TCP, UDP, nor ICMP; or with IPv6 extension headers. */
  'vip_unsupported',
  'vip_malformed',
  /** A later fragment whose first one was not seen. */
  'vip_fragment',
  /** No task is ready; a TCP connection is answered by a reset in place of it. */
  'vip_no_backend',
  /** A reset or an error about a flow that is not known. */
  'vip_no_flow',
  /** The backend's node is away. */
  'vip_unreachable',
  // Between tasks and clients outside, whose way back is remembered.
  /** From a task to an address that has not spoken to it, or not lately. */
  'return_unknown',
  /**
   * Two nodes come with one client's address and port; a connection is answered by a reset, datagrams
   * by errors within the segment's rate.
   */
  'return_conflict',
  // Datagrams from the underlay.
  'vxlan_truncated',
  'vxlan_vni_invalid',
  'vni_unknown',
  /** The sender has no endpoint in that segment and is not configured. */
  'vtep_unknown',
  /** In the clear, and the segment's datagrams are sealed. */
  'unsealed',
  /** Sealed, and the segment's datagrams are not. */
  'seal_unexpected',
  /** One of our own: our address as sender, or a local port's MAC as source. */
  'looped',
  'inner_truncated',
  'oversized',
  /** The source MAC belongs to another VTEP than the sender. */
  'mac_spoofed',
  'mac_unknown',
  /** The destination is behind another VTEP: what came from the tunnel does not go back into it. */
  'mac_remote',
  // Both.
  /** The batch or its scratch was full. */
  'batch_full',
] as const;

export type OverlayDrop = (typeof OVERLAY_DROPS)[number];

/** Frames that the VTEP answered by itself. */
export const OVERLAY_REPLIES = [
  'arp_reply',
  'neighbor_advertisement',
  'fragmentation_needed',
  'packet_too_big',
  'vip_echo',
  'vip_reset',
  'return_reset',
  'return_prohibited',
] as const;

export type OverlayReply = (typeof OVERLAY_REPLIES)[number];

/**
 * Totals. `tx` is towards other VTEPs, `rx` from them, `local` between ports of this node, `flood`
 * the frames (not copies) that were replicated. A super-frame counts once, with all its bytes.
 */
export const OVERLAY_TOTALS = [
  'txFrames',
  'txBytes',
  'rxFrames',
  'rxBytes',
  'localFrames',
  'localBytes',
  'floodFrames',
  /** Flows through VIPs that began, and those that were given up while they were open. */
  'vipFlows',
  'vipEvictions',
  /**
   * Those whose task refused them, did not take them in time, or broke them off before its first byte; those whose client
   * waited for that byte for a second; and how often tasks were passed over for either, or for slow answers.
   */
  'vipFailures',
  'vipSilences',
  'vipEjections',
  /** Table entries that did not fit (see `…_MAX`): should stay 0. */
  'tableRefusals',
] as const;

export type OverlayTotal = (typeof OVERLAY_TOTALS)[number];

/** Segments that one node can take part in. */
export const SEGMENTS_MAX = 4096;

const DROPS_AT = 0;
const REPLIES_AT = DROPS_AT + OVERLAY_DROPS.length;
const TOTALS_AT = REPLIES_AT + OVERLAY_REPLIES.length;
const SEGMENTS_AT = TOTALS_AT + OVERLAY_TOTALS.length;
/** VNI + 1 (0: slot is free), tx frames, tx bytes, rx frames, rx bytes. */
const SEGMENT_WORDS = 5;

/** Numbers (8 bytes each) of a counter block. */
export const OVERLAY_COUNTERS_LENGTH = SEGMENTS_AT + SEGMENTS_MAX * SEGMENT_WORDS;

const indexes = (names: readonly string[], at: number) =>
  Object.freeze(Object.fromEntries(names.map((name, i) => [name, at + i])));

/** Index of each counter in the block. */
export const DROP_INDEX = indexes(OVERLAY_DROPS, DROPS_AT) as Readonly<Record<OverlayDrop, number>>;
export const REPLY_INDEX = indexes(OVERLAY_REPLIES, REPLIES_AT) as Readonly<
  Record<OverlayReply, number>
>;
export const TOTAL_INDEX = indexes(OVERLAY_TOTALS, TOTALS_AT) as Readonly<
  Record<OverlayTotal, number>
>;

export const SEGMENT_TX = 1;
export const SEGMENT_RX = 3;

/** First number of segment slot `slot`: its VNI plus one. */
export function segmentCountersAt(slot: number): number {
  assert(slot >= 0 && slot < SEGMENTS_MAX, 'segment slot exists');
  return SEGMENTS_AT + slot * SEGMENT_WORDS;
}

export interface SegmentStats {
  readonly vni: number;
  readonly txFrames: number;
  readonly txBytes: number;
  readonly rxFrames: number;
  readonly rxBytes: number;
}

export interface OverlayStats {
  readonly drops: Readonly<Record<OverlayDrop, number>>;
  readonly replies: Readonly<Record<OverlayReply, number>>;
  readonly totals: Readonly<Record<OverlayTotal, number>>;
  readonly segments: readonly SegmentStats[];
}

/**
 * A block of counters for `Vtep` and `readOverlayStats`.
 *
 * @param isShared On shared memory, so that one thread counts while another reads.
 */
export function newOverlayCounters(isShared = true): Float64Array {
  const bytes = OVERLAY_COUNTERS_LENGTH * 8;
  return new Float64Array(isShared ? new SharedArrayBuffer(bytes) : new ArrayBuffer(bytes));
}

/** A copy of the counters with names. A number read while it changes is an old or a new one. */
export function readOverlayStats(counters: Float64Array): OverlayStats {
  const named = <Name extends string>(index: Readonly<Record<Name, number>>) =>
    Object.fromEntries(
      Object.entries<number>(index).map(([name, at]) => [name, counters[at] ?? 0]),
    ) as Record<Name, number>;
  const segments: SegmentStats[] = [];
  for (let slot = 0; slot < SEGMENTS_MAX; slot++) {
    const at = segmentCountersAt(slot);
    const vni = (counters[at] ?? 0) - 1;
    if (vni < 0) continue;
    const [txFrames = 0, txBytes = 0, rxFrames = 0, rxBytes = 0] = counters.subarray(
      at + 1,
      at + 5,
    );
    segments.push({ vni, txFrames, txBytes, rxFrames, rxBytes });
  }
  return {
    drops: named(DROP_INDEX),
    replies: named(REPLY_INDEX),
    totals: named(TOTAL_INDEX),
    segments,
  };
}
