import type { PacketBatch } from '../../core/batch.js';
import {
  ETHERNET_HEADER_BYTES,
  ETHERNET_SOURCE_OFFSET,
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
} from '../../wire/ethernet.js';
import {
  decodeIpv4Header,
  IPV4_DESTINATION_OFFSET,
  IPV4_FRAGMENT_MASK,
  IPV4_FRAGMENT_OFFSET,
  IPV4_PROTOCOL_OFFSET,
  IPV4_SOURCE_OFFSET,
  PROTOCOL_TCP,
} from '../../wire/ipv4.js';
import {
  decodeIpv6Header,
  IPV6_DESTINATION_OFFSET,
  IPV6_HEADER_BYTES,
  IPV6_SOURCE_OFFSET,
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

/** Connections of clients outside whose way back one node remembers; the longest silent are forgotten. */
export const RETURNS_MAX = 65_536;

/** Places that a connection may be in. */
const WAYS = 4;
/** Client 0-3, task 4-7, ports, segment slot. */
const WORDS = 10;
const PORTS = 8;
const SLOT = 9;
/** The proxy asks after a silence of a minute whether the other end is there: then it is seen again. */
const SILENT_MS_MAX = 150_000;

const FREE = 0;
const OPEN = 1;
/** Which side has ended it, besides `OPEN`. */
const CLIENT_DONE = 2;
const TASK_DONE = 4;
/** Both have: another node may take over its addresses and ports. */
const ENDED = OPEN | CLIENT_DONE | TASK_DONE;

/** What a packet towards a task does to what is remembered. */
export type Noted = 'noted' | 'conflict' | 'other';

/**
 * The ways back of connections that nodes make from their clients' addresses: such an address is no
 * endpoint's, so what a task answers goes where the question came from. Remembered by each packet
 * towards the task and refreshed by the next one; losing an entry costs a retransmission.
 *
 * Two nodes may come with the same client, port and task, since clients use a port towards several
 * destinations: whoever comes second is refused, and connects from its own address.
 */
export class Returns {
  readonly #seed: number;
  readonly #sets: number;
  #words = new Int32Array(0);
  #macHigh = new Uint16Array(0);
  #macLow = new Int32Array(0);
  #lastMs = new Float64Array(0);
  #state = new Uint8Array(0);
  readonly #key = new Int32Array(WORDS);
  #flags = 0;
  #sequence = 0;

  /** @param capacity A power of 2. */
  constructor(seed: number, capacity = RETURNS_MAX) {
    this.#seed = seed;
    this.#sets = capacity / WAYS;
  }

  /** Of a frame from a foreign address to a task. */
  note(batch: PacketBatch, slot: number, frame: number, end: number, nowMs: number): Noted {
    const { view } = batch;
    if (!this.#read(view, slot, frame, end, false)) return 'other';
    if (this.#state.length === 0) this.#allocate();
    const macHigh = view.getUint16(frame + ETHERNET_SOURCE_OFFSET);
    const macLow = view.getInt32(frame + ETHERNET_SOURCE_OFFSET + 2);
    let at = this.#find();
    if (at !== -1 && !(this.#macLow[at] === macLow && this.#macHigh[at] === macHigh)) {
      const isTaken =
        this.#state[at] !== ENDED && nowMs - (this.#lastMs[at] as number) < SILENT_MS_MAX;
      if (isTaken) return 'conflict';
    }
    if (at === -1) at = this.#claim();
    this.#macHigh[at] = macHigh;
    this.#macLow[at] = macLow;
    this.#lastMs[at] = nowMs;
    this.#follow(at, CLIENT_DONE);
    return 'noted';
  }

  /** Turns the frame of a task to a client outside towards its node. @returns False if none is known. */
  steer(batch: PacketBatch, slot: number, frame: number, end: number): boolean {
    const { view } = batch;
    if (this.#state.length === 0 || !this.#read(view, slot, frame, end, true)) return false;
    const at = this.#find();
    if (at === -1) return false;
    view.setUint16(frame, this.#macHigh[at] as number);
    view.setInt32(frame + 2, this.#macLow[at] as number);
    this.#follow(at, TASK_DONE);
    return true;
  }

  /** Client and task of the packet that `note` was given last, as `writeReset` takes them. */
  get ends(): Int32Array {
    return this.#key;
  }

  get ports(): number {
    return this.#key[PORTS] as number;
  }

  get sequence(): number {
    return this.#sequence;
  }

  /** Whether the packet that was read last is to be answered by a reset. */
  get isSyn(): boolean {
    return (this.#flags & (TCP_SYN | TCP_ACK | TCP_RST)) === TCP_SYN;
  }

  #follow(at: number, done: number): void {
    const state = this.#state[at] as number;
    if ((this.#flags & TCP_RST) !== 0) this.#state[at] = ENDED;
    else if ((this.#flags & TCP_FIN) !== 0) this.#state[at] = state | done;
    else if (this.isSyn) this.#state[at] = OPEN;
  }

  /** @param isBack From the task; the key is that of the way towards it. */
  #read(view: DataView, slot: number, frame: number, end: number, isBack: boolean): boolean {
    const etherType = view.getUint16(frame + ETHERNET_HEADER_BYTES - 2);
    const ip = frame + ETHERNET_HEADER_BYTES;
    const key = this.#key;
    const [client, task] = isBack ? [4, 0] : [0, 4];
    let tcp: number;
    if (etherType === ETHERTYPE_IPV4) {
      const headerBytes = decodeIpv4Header(view, ip, end);
      if (typeof headerBytes !== 'number') return false;
      if (view.getUint8(ip + IPV4_PROTOCOL_OFFSET) !== PROTOCOL_TCP) return false;
      if ((view.getUint16(ip + IPV4_FRAGMENT_OFFSET) & IPV4_FRAGMENT_MASK) !== 0) return false;
      tcp = ip + headerBytes;
      for (const part of [0, 4]) {
        key[part] = 0;
        key[part + 1] = 0;
        key[part + 2] = 0xffff;
      }
      key[client + 3] = view.getInt32(ip + IPV4_SOURCE_OFFSET);
      key[task + 3] = view.getInt32(ip + IPV4_DESTINATION_OFFSET);
    } else {
      if (etherType !== ETHERTYPE_IPV6 || decodeIpv6Header(view, ip, end) !== PROTOCOL_TCP)
        return false;
      tcp = ip + IPV6_HEADER_BYTES;
      for (let i = 0; i < 4; i++) {
        key[client + i] = view.getInt32(ip + IPV6_SOURCE_OFFSET + i * 4);
        key[task + i] = view.getInt32(ip + IPV6_DESTINATION_OFFSET + i * 4);
      }
    }
    if (tcp + TCP_HEADER_BYTES > end || typeof decodeTcpHeader(view, tcp, end) !== 'number')
      return false;
    const ports = view.getInt32(tcp);
    key[PORTS] = isBack ? (ports << 16) | (ports >>> 16) : ports;
    key[SLOT] = slot;
    this.#flags = view.getUint8(tcp + TCP_FLAGS_OFFSET);
    this.#sequence = view.getInt32(tcp + 4);
    return true;
  }

  #find(): number {
    const first = this.#set() * WAYS;
    for (let at = first; at < first + WAYS; at++)
      if (this.#state[at] !== FREE && this.#isAt(at)) return at;
    return -1;
  }

  /** A place for what was read: a free one, or that of the longest silent. */
  #claim(): number {
    const first = this.#set() * WAYS;
    let best = first;
    for (let at = first; at < first + WAYS; at++) {
      if (this.#state[at] === FREE) {
        best = at;
        break;
      }
      if ((this.#lastMs[at] as number) < (this.#lastMs[best] as number)) best = at;
    }
    for (let i = 0; i < WORDS; i++) this.#words[best * WORDS + i] = this.#key[i] as number;
    this.#state[best] = OPEN;
    return best;
  }

  #isAt(at: number): boolean {
    for (let i = WORDS - 1; i >= 0; i--)
      if (this.#words[at * WORDS + i] !== this.#key[i]) return false;
    return true;
  }

  #set(): number {
    let hash = this.#seed | 0;
    for (let i = 0; i < WORDS; i++) {
      const word = this.#key[i] as number;
      hash = Math.imul(hash ^ word ^ (word >>> 15), 0x2c1b_3c6d);
      hash = (hash << 13) | (hash >>> 19);
    }
    return ((hash ^ (hash >>> 15)) >>> 0) & (this.#sets - 1);
  }

  /** With the first such connection: most nodes' networks have none. */
  #allocate(): void {
    const n = this.#sets * WAYS;
    this.#words = new Int32Array(n * WORDS);
    this.#macHigh = new Uint16Array(n);
    this.#macLow = new Int32Array(n);
    this.#lastMs = new Float64Array(n);
    this.#state = new Uint8Array(n);
  }
}
