import type { PacketBatch } from '../../core/batch.js';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE_OFFSET,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
} from '../../wire/ethernet.js';
import { ICMP_HEADER_BYTES, isIcmpError } from '../../wire/icmp.js';
import { ICMPV6_HEADER_BYTES, isIcmpv6Error } from '../../wire/icmpv6.js';
import {
  decodeIpv4Header,
  IPV4_DESTINATION_OFFSET,
  IPV4_FRAGMENT_MASK,
  IPV4_FRAGMENT_OFFSET,
  IPV4_IDENTIFICATION_OFFSET,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL_OFFSET,
  IPV4_SOURCE_OFFSET,
  PROTOCOL_ICMP,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../../wire/ipv4.js';
import {
  decodeIpv6Header,
  IPV6_DESTINATION_OFFSET,
  IPV6_FRAGMENT_BYTES,
  IPV6_FRAGMENT_MASK,
  IPV6_HEADER_BYTES,
  IPV6_MORE_FRAGMENTS,
  IPV6_SOURCE_OFFSET,
  PROTOCOL_FRAGMENT,
  PROTOCOL_ICMPV6,
} from '../../wire/ipv6.js';
import {
  decodeTcpHeader,
  TCP_ACK,
  TCP_FIN,
  TCP_FLAGS_OFFSET,
  TCP_HEADER_BYTES,
  TCP_RST,
  TCP_SYN,
} from '../../wire/tcp.js';
import { UDP_HEADER_BYTES } from '../../wire/udp.js';
import { RETURN_NUMBER, RETURN_SLOT, RETURN_WORDS, ReturnTable } from './return-table.js';

/** Connections of clients outside, and as many flows of datagrams, whose way back one node remembers. */
export const RETURNS_MAX = 65_536;
/** Datagrams of which later fragments are waited for; a task sends those of one in a row. */
const RETURN_FRAGMENTS_MAX = 1024;

/** A proxy asks after a silence of a minute whether the other end is there, and forgets datagrams after two. */
const SILENT_MS_MAX = 150_000;

const OPEN = 1;
/** Which side has ended it, besides `OPEN`. */
const CLIENT_DONE = 2;
const TASK_DONE = 4;
/** Both have: another node may take over its addresses and ports, at once or after a while. */
const ENDED = OPEN | CLIENT_DONE | TASK_DONE;
/** The task's side was the first to end it, and waits. */
const TASK_FIRST = 8;

/**
 * For so long a kernel that has ended a connection first takes no other one in its place that seems older (TIME-WAIT,
 * RFC 9293, 3.6.1; Linux: 60 s). To it, sequence numbers and timestamps of two nodes are in no order.
 */
const TIME_WAIT_MS = 60_000;

/** What a packet towards a task does to what is remembered. */
export type Noted = 'noted' | 'conflict' | 'other';

/**
 * The ways back of connections and datagrams that nodes send from their clients' addresses: such an
 * address is no endpoint's, so what a task answers goes where the question came from. Remembered by
 * each packet towards the task and refreshed by the next one; losing an entry costs a retransmission.
 *
 * Two nodes may come with the same client, port and task, since clients use a port towards several
 * destinations: whoever comes second is refused, and goes on from another port of the client, or its own address.
 */
export class Returns {
  readonly #connections: ReturnTable;
  /** Apart, so that a flood of forged datagrams costs no connection its way. */
  readonly #datagrams: ReturnTable;
  readonly #fragments: ReturnTable;
  readonly #isThere: (slot: number, macHigh: number, macLow: number) => boolean;
  readonly #key = new Int32Array(RETURN_WORDS);
  #isUsed = false;
  #protocol = 0;
  #flags = 0;
  #sequence = 0;
  /** Of an error, which speaks of another packet. */
  #isQuoted = false;
  #isLater = false;
  #hasMore = false;
  #identification = 0;

  /**
   * @param isThere Whether the tables know a node's MAC: one that they do not takes nobody's place.
   * @param capacity A power of 2.
   */
  constructor(
    seed: number,
    isThere: (slot: number, macHigh: number, macLow: number) => boolean,
    capacity = RETURNS_MAX,
  ) {
    this.#connections = new ReturnTable(seed, capacity);
    this.#datagrams = new ReturnTable(seed, capacity);
    this.#fragments = new ReturnTable(seed, RETURN_FRAGMENTS_MAX);
    this.#isThere = isThere;
  }

  /** Of a frame from a foreign address to a task. */
  note(batch: PacketBatch, slot: number, frame: number, end: number, nowMs: number): Noted {
    const { view } = batch;
    if (!this.#read(view, slot, frame, end, false) || this.#isLater || this.#isQuoted)
      return 'other';
    this.#isUsed = true;
    const table = this.#table();
    const macHigh = view.getUint16(frame + ETHERNET_SOURCE_OFFSET);
    const macLow = view.getInt32(frame + ETHERNET_SOURCE_OFFSET + 2);
    let at = table.find(this.#key);
    if (at === -1) at = table.claim(this.#key, OPEN);
    else if (
      !(table.macLow[at] === macLow && table.macHigh[at] === macHigh) &&
      this.#isTaken(table, at, slot, nowMs)
    )
      return 'conflict';
    table.macHigh[at] = macHigh;
    table.macLow[at] = macLow;
    table.lastMs[at] = nowMs;
    this.#follow(table, at, CLIENT_DONE);
    return 'noted';
  }

  /** Turns the frame of a task to a client outside towards its node. @returns False if none is known. */
  steer(batch: PacketBatch, slot: number, frame: number, end: number, nowMs: number): boolean {
    const { view } = batch;
    if (!this.#isUsed || !this.#read(view, slot, frame, end, true)) return false;
    const table = this.#isLater ? this.#fragments : this.#table();
    const at = table.find(this.#key);
    if (at === -1) return false;
    const macHigh = table.macHigh[at] as number;
    const macLow = table.macLow[at] as number;
    view.setUint16(frame, macHigh);
    view.setInt32(frame + 2, macLow);
    if (this.#isLater || this.#isQuoted) return true;
    this.#follow(table, at, TASK_DONE);
    // A connection is kept alive by its node; whoever sends datagrams may only be listened to.
    if (this.#protocol === PROTOCOL_UDP) table.lastMs[at] = nowMs;
    if (this.#hasMore) this.#awaitFragments(macHigh, macLow, nowMs);
    return true;
  }

  /** Client and task of the packet that `note` was given last, as `writeReset` takes them. */
  get ends(): Int32Array {
    return this.#key;
  }

  get ports(): number {
    return this.#key[RETURN_NUMBER] as number;
  }

  get sequence(): number {
    return this.#sequence;
  }

  /** Whether the packet that was read last is to be answered by a reset. */
  get isSyn(): boolean {
    return (this.#flags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN;
  }

  /** Whether it is to be answered by an error. */
  get isDatagram(): boolean {
    return this.#protocol === PROTOCOL_UDP;
  }

  #table(): ReturnTable {
    return this.#protocol === PROTOCOL_TCP ? this.#connections : this.#datagrams;
  }

  #isTaken(table: ReturnTable, at: number, slot: number, nowMs: number): boolean {
    const state = table.state[at] as number;
    if (state === ENDED) return false;
    const heldMs = state === (ENDED | TASK_FIRST) ? TIME_WAIT_MS : SILENT_MS_MAX;
    return (
      nowMs - (table.lastMs[at] as number) < heldMs &&
      this.#isThere(slot, table.macHigh[at] as number, table.macLow[at] as number)
    );
  }

  #follow(table: ReturnTable, at: number, done: number): void {
    const state = table.state[at] as number;
    if ((this.#flags & TCP_RST) !== 0) table.state[at] = ENDED;
    else if ((this.#flags & TCP_FIN) !== 0) {
      const isFirst = done === TASK_DONE && (state & CLIENT_DONE) === 0;
      table.state[at] = state | done | (isFirst ? TASK_FIRST : 0);
    } else if (this.isSyn) table.state[at] = OPEN;
  }

  #awaitFragments(macHigh: number, macLow: number, nowMs: number): void {
    const table = this.#fragments;
    this.#key[RETURN_NUMBER] = this.#identification;
    let at = table.find(this.#key);
    if (at === -1) at = table.claim(this.#key, OPEN);
    table.macHigh[at] = macHigh;
    table.macLow[at] = macLow;
    table.lastMs[at] = nowMs;
  }

  /** @param isBack From the task; the key is that of the way towards it. */
  #read(view: DataView, slot: number, frame: number, end: number, isBack: boolean): boolean {
    const etherType = view.getUint16(frame + ETHERNET_HEADER_BYTES - 2);
    const ip = frame + ETHERNET_HEADER_BYTES;
    this.#key[RETURN_SLOT] = slot;
    this.#isQuoted = false;
    this.#flags = 0;
    if (etherType === ETHERTYPE_IPV4) return this.#read4(view, ip, end, isBack);
    return etherType === ETHERTYPE_IPV6 && this.#read6(view, ip, end, isBack);
  }

  #read4(view: DataView, ip: number, end: number, isBack: boolean): boolean {
    const headerBytes = decodeIpv4Header(view, ip, end);
    if (typeof headerBytes !== 'number') return false;
    const protocol = view.getUint8(ip + IPV4_PROTOCOL_OFFSET);
    const fragment = view.getUint16(ip + IPV4_FRAGMENT_OFFSET);
    const key = this.#key;
    const client = isBack ? 4 : 0;
    for (let part = 0; part < 8; part += 4) {
      key[part] = 0;
      key[part + 1] = 0;
      key[part + 2] = 0xffff;
    }
    // Words of a packet from the task stand the other way round.
    key[client + 3] = view.getInt32(ip + IPV4_SOURCE_OFFSET);
    key[7 - client] = view.getInt32(ip + IPV4_DESTINATION_OFFSET);
    this.#identification = view.getUint16(ip + IPV4_IDENTIFICATION_OFFSET);
    this.#hasMore = (fragment & IPV4_MORE_FRAGMENTS) !== 0;
    this.#isLater = (fragment & IPV4_FRAGMENT_MASK) !== 0;
    const at = ip + headerBytes;
    if (protocol !== PROTOCOL_ICMP) return this.#readPorts(view, protocol, at, end, isBack);
    const quoted = at + ICMP_HEADER_BYTES;
    if (!isBack || this.#isLater || quoted > end || !isIcmpError(view.getUint8(at))) return false;
    if (!this.#read4(view, quoted, end, false) || this.#isLater) return false;
    this.#isQuoted = true;
    return true;
  }

  #read6(view: DataView, ip: number, end: number, isBack: boolean): boolean {
    let protocol = decodeIpv6Header(view, ip, end);
    if (typeof protocol !== 'number') return false;
    const key = this.#key;
    const client = isBack ? 4 : 0;
    for (let i = 0; i < 4; i++) {
      key[client + i] = view.getInt32(ip + IPV6_SOURCE_OFFSET + i * 4);
      key[4 - client + i] = view.getInt32(ip + IPV6_DESTINATION_OFFSET + i * 4);
    }
    let at = ip + IPV6_HEADER_BYTES;
    this.#hasMore = false;
    this.#isLater = false;
    if (protocol === PROTOCOL_FRAGMENT) {
      if (at + IPV6_FRAGMENT_BYTES > end) return false;
      const fragment = view.getUint16(at + 2);
      protocol = view.getUint8(at);
      this.#hasMore = (fragment & IPV6_MORE_FRAGMENTS) !== 0;
      this.#isLater = (fragment & IPV6_FRAGMENT_MASK) !== 0;
      this.#identification = view.getInt32(at + 4);
      at += IPV6_FRAGMENT_BYTES;
    }
    if (protocol !== PROTOCOL_ICMPV6) return this.#readPorts(view, protocol, at, end, isBack);
    const quoted = at + ICMPV6_HEADER_BYTES;
    if (!isBack || this.#isLater || quoted > end || !isIcmpv6Error(view.getUint8(at))) return false;
    if (!this.#read6(view, quoted, end, false) || this.#isLater) return false;
    this.#isQuoted = true;
    return true;
  }

  /** What says whose packet it is, behind the addresses: ports, or of a later fragment its number. */
  #readPorts(view: DataView, protocol: number, at: number, end: number, isBack: boolean): boolean {
    if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return false;
    this.#protocol = protocol;
    if (this.#isLater) {
      this.#key[RETURN_NUMBER] = this.#identification;
      return true;
    }
    if (at + UDP_HEADER_BYTES > end) return false;
    const ports = view.getInt32(at);
    this.#key[RETURN_NUMBER] = isBack ? (ports << 16) | (ports >>> 16) : ports;
    if (protocol === PROTOCOL_UDP) return true;
    if (at + TCP_HEADER_BYTES > end || typeof decodeTcpHeader(view, at, end) !== 'number')
      return false;
    this.#flags = view.getUint8(at + TCP_FLAGS_OFFSET);
    this.#sequence = view.getInt32(at + 4);
    return true;
  }
}
