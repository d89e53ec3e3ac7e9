/** Flows through VIPs that one node remembers; beyond, the least alive of some is given up. */
export const VIP_FLOWS_MAX = 65_536;
/** Fragmented packets on their way through VIPs: their later fragments have no ports. */
export const VIP_FRAGMENTS_MAX = 1024;

/** What of a flow is in which word: addresses mapped into IPv6, ports client << 16 | service. */
export const CLIENT = 0;
export const VIP = 4;
export const BACKEND = 8;
export const PORTS = 12;
/** Segment slot << 8 | protocol. */
export const PLACE = 13;
const WORDS = 14;

/** How far a TCP flow is; UDP has but one state. */
export const TCP_OPENING = 1;
export const TCP_OPEN = 2;
export const TCP_CLOSING = 3;
export const TCP_CLOSED = 4;
export const UDP_FLOW = 5;

/** Who of a TCP connection has sent a first byte; what comes after both, or after silence, is not looked at. */
const UNASKED = 0;
const ASKED = 1;
const SETTLED = 2;

/**
 * How long a flow may be silent. An open TCP connection outlasts the kernel's own keep-alive, which asks
 * after two hours: who is silent longer is gone.
 */
const IDLE_MS: readonly number[] = [0, 60_000, 3 * 3_600_000, 120_000, 10_000, 180_000];

const NONE = -1;
/** Flows looked at to find one to give up. */
const VICTIMS_SAMPLED = 32;
/** Flows looked at for their age with every new one: twice as many as come, so all are soon seen. */
const SWEEP_STEPS = 2;

/**
 * Flows through VIPs, found by either direction's addresses and ports: typed arrays over a fixed
 * number of places, two hash chains, nothing allocated after the first flow.
 */
export class FlowTable {
  readonly #capacity: number;
  readonly #seed: number;
  #words = new Int32Array(0);
  #nextTo = new Int32Array(0);
  #nextFrom = new Int32Array(0);
  #headTo = new Int32Array(0);
  #headFrom = new Int32Array(0);
  #free = new Int32Array(0);
  #freeCount = 0;
  #hand = 0;
  /** By flow. `state` 0: the place is free. */
  state = new Uint8Array(0);
  lastMs = new Float64Array(0);
  /** Which directions have sent FIN: 1 client, 2 backend. */
  fins = new Uint8Array(0);
  /** The client is the backend. */
  hairpin = new Uint8Array(0);
  ticket = new Int32Array(0);
  /** Index of the balancer that gave the ticket. */
  service = new Int32Array(0);
  macHigh = new Uint16Array(0);
  macLow = new Int32Array(0);
  openedMs = new Float64Array(0);
  /** Next sequence numbers of client and backend, the furthest seen: what is new, and for a reset that is believed. */
  sequenceUp = new Int32Array(0);
  sequenceDown = new Int32Array(0);
  #exchange = new Uint8Array(0);
  /** Of those that wait for an answer: since when, and their neighbours in the order in which they were asked. */
  #askedMs = new Float64Array(0);
  #askedBefore = new Int32Array(0);
  #askedAfter = new Int32Array(0);
  #firstAsked = NONE;
  #lastAsked = NONE;
  size = 0;

  /** @param capacity A power of 2. */
  constructor(seed: number, capacity = VIP_FLOWS_MAX) {
    this.#seed = seed;
    this.#capacity = capacity;
  }

  word(flow: number, at: number): number {
    return this.#words[flow * WORDS + at] as number;
  }

  /** The flow of a packet from client to VIP. `key` has the layout of a flow; or -1. */
  findTo(key: Int32Array): number {
    if (this.size === 0) return NONE;
    let flow = this.#headTo[this.#hash(key, VIP)] as number;
    while (flow !== NONE && !this.#matches(flow, key, VIP)) flow = this.#nextTo[flow] as number;
    return flow;
  }

  /** The flow of a packet from backend to client; or -1. */
  findFrom(key: Int32Array): number {
    if (this.size === 0) return NONE;
    let flow = this.#headFrom[this.#hash(key, BACKEND)] as number;
    while (flow !== NONE && !this.#matches(flow, key, BACKEND))
      flow = this.#nextFrom[flow] as number;
    return flow;
  }

  /** A place for a flow of these words; -1 if none is free (see `victim`). */
  insert(key: Int32Array, state: number, nowMs: number): number {
    if (this.#words.length === 0) this.#allocate();
    if (this.#freeCount === 0) return NONE;
    this.#freeCount -= 1;
    const flow = this.#free[this.#freeCount] as number;
    this.#words.set(key, flow * WORDS);
    this.#chain(flow, key);
    this.state[flow] = state;
    this.lastMs[flow] = nowMs;
    this.openedMs[flow] = nowMs;
    this.fins[flow] = 0;
    this.hairpin[flow] = 0;
    this.sequenceUp[flow] = 0;
    this.sequenceDown[flow] = 0;
    this.#exchange[flow] = UNASKED;
    this.size += 1;
    return flow;
  }

  remove(flow: number): void {
    this.settle(flow);
    const key = this.#words.subarray(flow * WORDS, flow * WORDS + WORDS);
    unchain(this.#headTo, this.#nextTo, this.#hash(key, VIP), flow);
    unchain(this.#headFrom, this.#nextFrom, this.#hash(key, BACKEND), flow);
    this.state[flow] = 0;
    this.#free[this.#freeCount] = flow;
    this.#freeCount += 1;
    this.size -= 1;
  }

  /** Whether neither an answer came, nor silence for too long. */
  isUnsettled(flow: number): boolean {
    return this.#exchange[flow] !== SETTLED;
  }

  /** Since when its client waits for a first byte; `NaN` where it does not. */
  askedMs(flow: number): number {
    return this.#exchange[flow] === ASKED ? (this.#askedMs[flow] as number) : Number.NaN;
  }

  /** The client has sent its first byte. Once for a flow; time never goes back. */
  ask(flow: number, nowMs: number): void {
    if (this.#exchange[flow] !== UNASKED) return;
    this.#exchange[flow] = ASKED;
    this.#askedMs[flow] = nowMs;
    this.#askedBefore[flow] = this.#lastAsked;
    this.#askedAfter[flow] = NONE;
    if (this.#lastAsked === NONE) this.#firstAsked = flow;
    else this.#askedAfter[this.#lastAsked] = flow;
    this.#lastAsked = flow;
  }

  /** Nothing is waited for any more. */
  settle(flow: number): void {
    const wasAsked = this.#exchange[flow] === ASKED;
    this.#exchange[flow] = SETTLED;
    if (!wasAsked) return;
    const before = this.#askedBefore[flow] as number;
    const after = this.#askedAfter[flow] as number;
    if (before === NONE) this.#firstAsked = after;
    else this.#askedAfter[before] = after;
    if (after === NONE) this.#lastAsked = before;
    else this.#askedBefore[after] = before;
  }

  /** The flow that has waited for an answer the longest, if it was asked then or before; -1 else. */
  askedBy(ms: number): number {
    const flow = this.#firstAsked;
    return flow !== NONE && (this.#askedMs[flow] as number) <= ms ? flow : NONE;
  }

  /** Whether it has been silent for longer than its state allows. */
  isIdle(flow: number, nowMs: number): boolean {
    return nowMs - (this.lastMs[flow] as number) > (IDLE_MS[this.state[flow] as number] as number);
  }

  /** A flow whose time is over, if the hand met one; -1 else. To be called with every new flow. */
  nextIdle(nowMs: number): number {
    for (let step = 0; step < SWEEP_STEPS && this.size > 0; step++) {
      const flow = this.#hand;
      this.#hand = (this.#hand + 1) & (this.#capacity - 1);
      if (this.state[flow] !== 0 && this.isIdle(flow, nowMs)) return flow;
    }
    return NONE;
  }

  /** Which flow to give up: of some, one that is closing, or the one that was silent the longest. */
  victim(): number {
    let worst = NONE;
    for (let step = 0; step < VICTIMS_SAMPLED; step++) {
      const flow = this.#hand;
      this.#hand = (this.#hand + 1) & (this.#capacity - 1);
      if (this.state[flow] === 0) continue;
      if (worst === NONE || this.#isWorse(flow, worst)) worst = flow;
    }
    return worst;
  }

  #isWorse(flow: number, than: number): boolean {
    const closing = (f: number) =>
      this.state[f] === TCP_CLOSED || this.state[f] === TCP_CLOSING ? 1 : 0;
    const difference = closing(flow) - closing(than);
    if (difference !== 0) return difference > 0;
    return (this.lastMs[flow] as number) < (this.lastMs[than] as number);
  }

  /** On the first flow: most nodes have many networks without a VIP. */
  #allocate(): void {
    const n = this.#capacity;
    this.#words = new Int32Array(n * WORDS);
    this.#nextTo = new Int32Array(n);
    this.#nextFrom = new Int32Array(n);
    this.#headTo = new Int32Array(n).fill(NONE);
    this.#headFrom = new Int32Array(n).fill(NONE);
    this.#free = Int32Array.from({ length: n }, (_, i) => n - 1 - i);
    this.#freeCount = n;
    this.state = new Uint8Array(n);
    this.lastMs = new Float64Array(n);
    this.openedMs = new Float64Array(n);
    this.fins = new Uint8Array(n);
    this.hairpin = new Uint8Array(n);
    this.ticket = new Int32Array(n);
    this.service = new Int32Array(n);
    this.macHigh = new Uint16Array(n);
    this.macLow = new Int32Array(n);
    this.sequenceUp = new Int32Array(n);
    this.sequenceDown = new Int32Array(n);
    this.#exchange = new Uint8Array(n);
    this.#askedMs = new Float64Array(n);
    this.#askedBefore = new Int32Array(n);
    this.#askedAfter = new Int32Array(n);
  }

  #chain(flow: number, key: Int32Array): void {
    const to = this.#hash(key, VIP);
    this.#nextTo[flow] = this.#headTo[to] as number;
    this.#headTo[to] = flow;
    const from = this.#hash(key, BACKEND);
    this.#nextFrom[flow] = this.#headFrom[from] as number;
    this.#headFrom[from] = flow;
  }

  #matches(flow: number, key: Int32Array, other: number): boolean {
    const words = this.#words;
    const at = flow * WORDS;
    return (
      words[at + PORTS] === key[PORTS] &&
      words[at + PLACE] === key[PLACE] &&
      words[at + CLIENT + 3] === key[CLIENT + 3] &&
      words[at + other + 3] === key[other + 3] &&
      words[at + CLIENT] === key[CLIENT] &&
      words[at + CLIENT + 1] === key[CLIENT + 1] &&
      words[at + CLIENT + 2] === key[CLIENT + 2] &&
      words[at + other] === key[other] &&
      words[at + other + 1] === key[other + 1] &&
      words[at + other + 2] === key[other + 2]
    );
  }

  #hash(key: Int32Array, other: number): number {
    let hash = mix(this.#seed, key[PORTS] as number);
    hash = mix(hash, key[CLIENT + 3] as number);
    hash = mix(hash, key[other + 3] as number);
    hash = mix(hash, (key[CLIENT + 2] as number) ^ (key[CLIENT + 1] as number));
    hash = mix(hash, (key[other + 2] as number) ^ (key[other + 1] as number));
    hash = mix(hash, (key[CLIENT] as number) ^ (key[PLACE] as number));
    return ((hash ^ (hash >>> 15)) >>> 0) & (this.#capacity - 1);
  }
}

function unchain(heads: Int32Array, nexts: Int32Array, bucket: number, flow: number): void {
  let at = heads[bucket] as number;
  if (at === flow) {
    heads[bucket] = nexts[flow] as number;
    return;
  }
  while (nexts[at] !== flow) at = nexts[at] as number;
  nexts[at] = nexts[flow] as number;
}

function mix(hash: number, word: number): number {
  const scrambled = Math.imul(word ^ (word >>> 15), 0x2c1b_3c6d);
  return Math.imul(hash ^ scrambled, 0x297a_2d39) + ((hash << 13) | (hash >>> 19));
}

/** Which flow the later fragments of a packet belong to, and which way they go: a small ring. */
export class FragmentTable {
  readonly #keys = new Int32Array(VIP_FRAGMENTS_MAX * 4);
  readonly #flows = new Int32Array(VIP_FRAGMENTS_MAX).fill(NONE);
  readonly #untilMs = new Float64Array(VIP_FRAGMENTS_MAX);

  /** @param place Segment slot << 9 | protocol << 1 | towards the VIP. */
  set(
    place: number,
    source: number,
    destination: number,
    id: number,
    flow: number,
    nowMs: number,
  ): void {
    const slot = this.#slot(place, source, destination, id);
    this.#keys.set([place, source, destination, id], slot * 4);
    this.#flows[slot] = flow;
    // As long as Linux waits for the rest of a packet, ip(7) ipfrag_time.
    this.#untilMs[slot] = nowMs + 30_000;
  }

  get(place: number, source: number, destination: number, id: number, nowMs: number): number {
    const slot = this.#slot(place, source, destination, id);
    const at = slot * 4;
    const keys = this.#keys;
    const isSame =
      keys[at] === place &&
      keys[at + 1] === source &&
      keys[at + 2] === destination &&
      keys[at + 3] === id;
    return isSame && (this.#untilMs[slot] as number) > nowMs ? (this.#flows[slot] as number) : NONE;
  }

  #slot(place: number, source: number, destination: number, id: number): number {
    const hash = mix(mix(mix(place, source), destination), id);
    return ((hash ^ (hash >>> 15)) >>> 0) & (VIP_FRAGMENTS_MAX - 1);
  }
}
