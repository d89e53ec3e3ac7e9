import { performance } from 'node:perf_hooks';
import { getSystemErrorName } from 'node:util';
import type { Ticket } from '../../core/balance/backend-set.js';
import { SILENCE_MS } from '../../core/balance/config.js';
import {
  DATAGRAM_DROPS,
  type ProxyBinding,
  type ProxyHandle,
  REPORT,
  REPORT_DOUBLES,
  REPORT_NUMBERS,
  REPORT_WORDS,
  TOLD,
} from '../../core/proxy-binding.js';
import { formatAddress, parseAddress } from '../../wire/address.js';
import {
  FLOW_ENDS,
  type FlowEnd,
  type ListenFailure,
  type OpenFlow,
  type ProxyDriver,
  type ProxyPolicy,
  type Upstream,
} from '../core/proxy-driver.js';
import type { PortProtocol } from '../core/published-ports.js';

/** TCP flows that the native driver carries at a time; two descriptors each, of which the kernel may allow fewer. */
const NATIVE_FLOWS_MAX = 65_536;
/** UDP flows; one descriptor each, of which the kernel may allow fewer. */
const NATIVE_UDP_FLOWS_MAX = 16_384;
/** Silence after which a UDP flow is forgotten, as in the portable driver. */
const UDP_IDLE_TIMEOUT_MS = 120_000;
/** Backends that are known to the threads at a time, over all ports. */
const NATIVE_BACKENDS_MAX = 16_384;
/** Choices made ahead for one port: what it may get while this thread is busy, without asking. */
const AHEAD_MAX = 1024;
const AHEAD_MIN = 16;
/** A port that asks more often than this is given choices ahead. */
const BUSY_MS = 1000;
/** One that has used up half of them so soon gets twice as many. */
const SOON_MS = 50;
const REPORTS_MAX = 1024;
const ANSWER_WORDS = 4;
const BACKLOG = 4096;
const PROXY_VERSIONS = { none: 0, v1: 1, v2: 2 } as const;
const SPLICE_AFTER_BYTES = 256 * 1024;

/**
 * Threads of the proxy on a host with so many processors: half of them, from two to four, but no more than there are. Beside other work
 * one thread gets too little of two processors (`bench/README.md`).
 */
export function proxyThreads(processors: number): number {
  return Math.min(processors, 4, Math.max(2, processors >> 1));
}

export interface NativeDriverOptions {
  readonly binding: ProxyBinding;
  readonly tcpFlowsMax?: number;
  readonly udpFlowsMax?: number;
  readonly udpIdleTimeoutMs?: number;
  /** Default: 1; an agent's is `proxyThreads`. */
  readonly threads?: number;
  /** 0: never. */
  readonly spliceAfterBytes?: number;
  readonly busyPollMicros?: number;
  /** Choices made ahead for one port; 0: each flow asks. */
  readonly aheadMax?: number;
}

/** A backend as the threads know it: a number that stands for one ticket of one listener. */
interface Known {
  readonly id: number;
  readonly listener: number;
  readonly ticket: Ticket;
  readonly upstream: Upstream;
  /** Flows and choices made ahead that hold the ticket. */
  held: number;
}

/** A flow that is open; the address as words, since few are ever looked at. */
interface Open {
  readonly listener: number;
  readonly client: readonly [number, number, number, number];
  readonly clientPort: number;
  readonly startedMs: number;
  ticket: Ticket | undefined;
}

/** What is given ahead to one open port. */
interface Ahead {
  size: number;
  /** Some of it may be left. */
  isGiven: boolean;
  /** When it asked, or was given something, last. */
  atMs: number;
}

/**
 * Threads of the addon accept, connect and relay; here it is decided where to.
 *
 * As long as the next choices depend on nothing but whose turn it is, they are made ahead and handed over
 * in a row, which the threads use up in its order. Before anything changes what is left of it is taken
 * back and its turns with it. All other flows ask, each for itself.
 */
export class NativeProxyDriver implements ProxyDriver {
  readonly kind = 'native';
  readonly #policy: ProxyPolicy;
  readonly #binding: ProxyBinding;
  readonly #handle: ProxyHandle;
  readonly #aheadMax: number;
  /** By listener that is open. */
  readonly #ahead = new Map<number, Ahead>();
  readonly #udpListeners = new Set<number>();
  readonly #known = new Map<number, Map<Ticket, Known>>();
  /** Number 0 is nobody's. */
  readonly #byId: (Known | undefined)[] = [undefined];
  readonly #freeIds: number[] = [];
  readonly #reports = new Int32Array(REPORTS_MAX * REPORT_WORDS);
  readonly #numbers = new Float64Array(this.#reports.buffer);
  readonly #bytes = new Uint8Array(this.#reports.buffer);
  readonly #answers = new Int32Array(REPORTS_MAX * ANSWER_WORDS);
  #answerCount = 0;
  /** Of flows that were refused and are not connected yet. */
  readonly #tried = new Map<number, Ticket[]>();
  /** Flows that the policy does not want, until they have ended. */
  readonly #refused = new Set<number>();
  readonly #open = new Map<number, Open>();
  #takenMs = 0;
  #connectMs = 0;
  readonly #wanting = new Set<number>();
  readonly #chosen = new Int32Array(AHEAD_MAX);
  #isStopped = false;

  /** @throws Error when the threads cannot be started. */
  constructor(policy: ProxyPolicy, options: NativeDriverOptions) {
    const { binding } = options;
    this.#policy = policy;
    this.#binding = binding;
    this.#aheadMax = Math.min(options.aheadMax ?? AHEAD_MAX, AHEAD_MAX);
    this.#handle = binding.proxyOpen({
      threads: options.threads ?? 1,
      flowsMax: Math.min(options.tcpFlowsMax ?? NATIVE_FLOWS_MAX, NATIVE_FLOWS_MAX),
      datagramFlowsMax: Math.min(options.udpFlowsMax ?? NATIVE_UDP_FLOWS_MAX, NATIVE_UDP_FLOWS_MAX),
      datagramIdleMs: options.udpIdleTimeoutMs ?? UDP_IDLE_TIMEOUT_MS,
      backendsMax: NATIVE_BACKENDS_MAX,
      backlog: BACKLOG,
      spliceAfterBytes: options.spliceAfterBytes ?? SPLICE_AFTER_BYTES,
      busyPollMicros: options.busyPollMicros ?? 0,
      silenceMillis: SILENCE_MS,
      onWake: () => this.tell(),
    });
  }

  get flowCount(): number {
    return this.#binding.proxyFlowCount(this.#handle);
  }

  async open(
    listener: number,
    protocol: PortProtocol,
    port: number,
    places: readonly string[],
  ): Promise<readonly ListenFailure[]> {
    const results =
      protocol === 'tcp'
        ? this.#binding.proxyListen(this.#handle, listener, port, places)
        : this.#binding.proxyListenDatagrams(this.#handle, listener, port, places);
    if (protocol === 'udp') this.#udpListeners.add(listener);
    if (!this.#ahead.has(listener))
      this.#ahead.set(listener, {
        size: AHEAD_MIN,
        isGiven: false,
        atMs: Number.NEGATIVE_INFINITY,
      });
    return places.flatMap((place, i) => {
      const result = results[i] ?? 0;
      return result === 0 ? [] : [{ place, errno: getSystemErrorName(result) }];
    });
  }

  close(listener: number): void {
    this.#udpListeners.delete(listener);
    if (!this.#ahead.delete(listener)) return;
    this.#takeBack(listener, this.#binding.proxyUnlisten(this.#handle, listener));
  }

  moveGone(): void {
    for (const listener of this.#udpListeners)
      for (const { id, ticket, held } of this.#known.get(listener)?.values() ?? [])
        if (held > 0 && !this.#policy.isLive(listener, ticket))
          this.#binding.proxyLeaveBackend(this.#handle, id);
  }

  datagramDrops(): Readonly<Record<string, number>> {
    const counts = new Float64Array(DATAGRAM_DROPS.length);
    this.#binding.proxyDatagramDrops(this.#handle, counts);
    return Object.fromEntries(DATAGRAM_DROPS.map((reason, i) => [reason, counts[i] as number]));
  }

  flows(listeners: ReadonlySet<number>, most: number): readonly OpenFlow[] {
    const found: OpenFlow[] = [];
    for (const { client, ticket, ...flow } of this.#open.values()) {
      if (found.length >= most) break;
      if (!listeners.has(flow.listener)) continue;
      const bytes = new Uint8Array(Int32Array.from(client).buffer);
      const clientAddress = formatAddress(bytes);
      found.push({ ...flow, clientAddress, ...(ticket !== undefined && { ticket }) });
    }
    return found;
  }

  resetGone(): void {
    for (const [listener, backends] of this.#known) {
      for (const known of [...backends.values()]) {
        // Flows of a port that is closed are left to end by themselves.
        const isOpen = this.#ahead.has(listener);
        if (known.held === 0) this.#forget(known);
        else if (isOpen && !this.#policy.isLive(listener, known.ticket))
          this.#binding.proxyResetBackend(this.#handle, known.id);
      }
      if (backends.size === 0) this.#known.delete(listener);
    }
  }

  tell(): void {
    this.#take();
    for (const listener of this.#wanting) this.#give(listener);
    this.#wanting.clear();
  }

  giveBack(): void {
    for (const listener of this.#ahead.keys()) this.#withdraw(listener);
    this.#take();
    this.#wanting.clear();
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#isStopped = true;
    for (const listener of [...this.#ahead.keys()]) this.close(listener);
    this.#binding.proxyStop(this.#handle);
    this.tell();
  }

  #take(): void {
    this.#takenMs = performance.now();
    for (;;) {
      const count = this.#binding.proxyTake(this.#handle, this.#reports, REPORTS_MAX);
      for (let i = 0; i < count; i++) this.#onReport(i);
      this.#answer();
      if (count < REPORTS_MAX) return;
    }
  }

  #onReport(index: number): void {
    const reports = this.#reports;
    const at = index * REPORT_WORDS;
    const listener = reports[at + REPORT.listener] as number;
    const known = this.#byId[reports[at + REPORT.backend] as number];
    switch (reports[at + REPORT.what]) {
      case TOLD.accepted:
        this.#policy.accepted(listener);
        this.#onAccepted(at, listener);
        return;
      case TOLD.asks:
        this.#onAsks(at, listener);
        return;
      case TOLD.connected:
        this.#tried.delete(reports[at + REPORT.flow] as number);
        if (known !== undefined) this.#onConnected(known, at, this.#numberAt(index, 0));
        return;
      case TOLD.answered:
        this.#tried.delete(reports[at + REPORT.flow] as number);
        if (known !== undefined) this.#onAnswered(known, at, this.#numberAt(index, 0));
        return;
      case TOLD.silent:
        if (known !== undefined) this.#onSilent(known);
        return;
      case TOLD.failed:
        if (known !== undefined) this.#onFailed(known, at);
        return;
      case TOLD.ended:
        this.#tried.delete(reports[at + REPORT.flow] as number);
        if (reports[at + REPORT.generation] !== 0)
          this.#open.delete(reports[at + REPORT.flow] as number);
        if (known !== undefined) this.#release(known);
        this.#policy.ended(
          listener,
          this.#endAt(at),
          this.#numberAt(index, 0),
          this.#numberAt(index, 1),
        );
        return;
      case TOLD.left:
        if (known !== undefined) this.#release(known);
        return;
      case TOLD.low:
        this.#onLow(listener);
        return;
      default:
        return;
    }
  }

  #endAt(at: number): FlowEnd {
    const isOfNobody = this.#reports[at + REPORT.generation] === 0;
    if (!isOfNobody && this.#refused.delete(this.#reports[at + REPORT.flow] as number))
      return 'refused';
    return FLOW_ENDS[this.#reports[at + REPORT.detail] as number] ?? 'closed';
  }

  #numberAt(index: number, which: number): number {
    return this.#numbers[index * REPORT_DOUBLES + REPORT_NUMBERS + which] as number;
  }

  #onAccepted(at: number, listener: number): void {
    const reports = this.#reports;
    // Where there is no room, it has ended already.
    if (reports[at + REPORT.generation] === 0) return;
    const word = at + REPORT.client;
    this.#open.set(reports[at + REPORT.flow] as number, {
      listener,
      client: [
        reports[word] as number,
        reports[word + 1] as number,
        reports[word + 2] as number,
        reports[word + 3] as number,
      ],
      clientPort: reports[at + REPORT.clientPort] as number,
      startedMs: this.#takenMs,
      ticket: undefined,
    });
  }

  #onConnected({ listener, ticket }: Known, at: number, latencyMs: number): void {
    const open = this.#open.get(this.#reports[at + REPORT.flow] as number);
    if (open !== undefined) open.ticket = ticket;
    this.#policy.connected(listener, ticket, latencyMs);
  }

  /** @param waitedMs 0: it was not asked. */
  #onAnswered(known: Known, at: number, waitedMs: number): void {
    const { listener, ticket } = known;
    if (this.#udpListeners.has(listener)) {
      const open = this.#open.get(this.#reports[at + REPORT.flow] as number);
      if (open !== undefined) open.ticket = ticket;
    }
    this.#policy.answered(listener, ticket, waitedMs === 0 ? undefined : waitedMs);
    // It may have been too late.
    this.#withdrawIfUnforeseen(known);
  }

  #onAsks(at: number, listener: number): void {
    const reports = this.#reports;
    const flow = reports[at + REPORT.flow] as number;
    const wasRefused = reports[at + REPORT.detail] === 1;
    const tried = wasRefused ? (this.#tried.get(flow) ?? []) : [];
    // Whoever was refused goes on in turn, and not after all that was given ahead.
    if (wasRefused) this.#withdraw(listener);
    else this.#tried.delete(flow);
    const byte = (at + REPORT.client) * 4;
    const client = formatAddress(this.#bytes.subarray(byte, byte + 16));
    const port = reports[at + REPORT.clientPort] as number;
    const row = this.#answerCount * ANSWER_WORDS;
    this.#answers[row] = flow;
    this.#answers[row + 1] = reports[at + REPORT.generation] as number;
    const known = this.#choose(listener, client, port, tried);
    if (known === 'refused') this.#refused.add(flow);
    this.#answers[row + 2] = typeof known === 'object' ? known.id : 0;
    this.#answers[row + 3] = this.#connectMs;
    this.#answerCount += 1;
    const ahead = this.#ahead.get(listener);
    if (ahead === undefined || this.#aheadMax === 0) return;
    const nowMs = performance.now();
    if (nowMs - ahead.atMs < BUSY_MS) this.#wanting.add(listener);
    ahead.atMs = nowMs;
  }

  #onFailed(known: Known, at: number): void {
    this.#policy.failed(known.listener, known.ticket);
    if (this.#reports[at + REPORT.detail] === 1) {
      const flow = this.#reports[at + REPORT.flow] as number;
      const tried = this.#tried.get(flow);
      if (tried === undefined) this.#tried.set(flow, [known.ticket]);
      else tried.push(known.ticket);
      this.#release(known);
    }
    this.#withdrawIfUnforeseen(known);
  }

  #onSilent(known: Known): void {
    this.#policy.silent(known.listener, known.ticket);
    this.#withdrawIfUnforeseen(known);
  }

  /** A backend that failed may be passed over from now on. */
  #withdrawIfUnforeseen(known: Known): void {
    if (!this.#policy.foresees(known.listener)) this.#withdraw(known.listener);
  }

  #onLow(listener: number): void {
    const ahead = this.#ahead.get(listener);
    if (ahead === undefined) return;
    const nowMs = performance.now();
    if (nowMs - ahead.atMs < SOON_MS) ahead.size = Math.min(ahead.size * 2, this.#aheadMax);
    else ahead.size = Math.max(ahead.size / 2, AHEAD_MIN);
    ahead.atMs = nowMs;
    this.#wanting.add(listener);
  }

  #answer(): void {
    if (this.#answerCount > 0)
      this.#binding.proxyAnswer(this.#handle, this.#answers, this.#answerCount);
    this.#answerCount = 0;
  }

  #give(listener: number): void {
    const ahead = this.#ahead.get(listener);
    if (ahead === undefined || !this.#policy.foresees(listener)) return;
    let count = 0;
    while (count < Math.min(ahead.size, this.#aheadMax)) {
      const known = this.#choose(listener, '', 0, []);
      if (typeof known !== 'object') break;
      this.#chosen[count] = known.id;
      count += 1;
    }
    if (count === 0) return;
    ahead.isGiven = true;
    this.#binding.proxyGive(this.#handle, listener, this.#chosen, count, this.#connectMs);
  }

  #withdraw(listener: number): void {
    const ahead = this.#ahead.get(listener);
    if (ahead === undefined || !ahead.isGiven) return;
    ahead.isGiven = false;
    ahead.size = AHEAD_MIN;
    this.#takeBack(listener, this.#binding.proxyWithdraw(this.#handle, listener));
  }

  #takeBack(listener: number, ids: Int32Array): void {
    for (let i = ids.length - 1; i >= 0; i--) {
      const known = this.#byId[ids[i] as number];
      if (known === undefined) continue;
      this.#policy.withdrawn(listener, known.ticket);
      this.#letGo(known);
    }
  }

  #release(known: Known): void {
    this.#policy.released(known.listener, known.ticket);
    this.#letGo(known);
  }

  #letGo(known: Known): void {
    known.held -= 1;
    const isReplaced = this.#known.get(known.listener)?.get(known.ticket) !== known;
    if (known.held === 0 && isReplaced) this.#forget(known);
  }

  /** The backend that a flow is given, which holds it from now on; how long it may take to connect is in `#connectMs`. */
  #choose(
    listener: number,
    client: string,
    port: number,
    tried: readonly Ticket[],
  ): Known | 'refused' | undefined {
    const upstream = this.#policy.choose(listener, client, port, tried);
    if (upstream === undefined || upstream === 'refused') return upstream;
    this.#connectMs = upstream.connectMs;
    const known = this.#knownOf(listener, upstream);
    if (known === undefined) this.#policy.released(listener, upstream.ticket);
    else known.held += 1;
    return known;
  }

  #knownOf(listener: number, upstream: Upstream): Known | undefined {
    let backends = this.#known.get(listener);
    const held = backends?.get(upstream.ticket);
    if (held !== undefined && isSame(held.upstream, upstream)) return held;
    const address = parseAddress(upstream.address);
    const source =
      upstream.source === undefined ? undefined : parseAddress(upstream.source.address);
    const id = this.#freeIds.pop() ?? this.#byId.length;
    if (address === undefined || id > NATIVE_BACKENDS_MAX) return undefined;
    if (backends === undefined) {
      backends = new Map();
      this.#known.set(listener, backends);
    }
    this.#binding.proxySetBackend(this.#handle, id, {
      address,
      port: upstream.port,
      netns: upstream.netns ?? '',
      source,
      sourcePort: upstream.source?.port ?? 0,
      asClient: upstream.asClient ?? false,
      address6: upstream.address6 === undefined ? undefined : parseAddress(upstream.address6),
      mark: upstream.mark ?? 0,
      proxyProtocol: PROXY_VERSIONS[upstream.proxyProtocol ?? 'none'],
    });
    const known = { id, listener, ticket: upstream.ticket, upstream, held: 0 };
    this.#byId[id] = known;
    backends.set(upstream.ticket, known);
    return known;
  }

  #forget(known: Known): void {
    const backends = this.#known.get(known.listener);
    if (backends?.get(known.ticket) === known) backends.delete(known.ticket);
    this.#byId[known.id] = undefined;
    this.#freeIds.push(known.id);
    this.#binding.proxyRemoveBackend(this.#handle, known.id);
  }
}

function isSame(a: Upstream, b: Upstream): boolean {
  return (
    a === b ||
    (a.address === b.address &&
      a.port === b.port &&
      a.netns === b.netns &&
      a.asClient === b.asClient &&
      a.address6 === b.address6 &&
      a.mark === b.mark &&
      a.proxyProtocol === b.proxyProtocol &&
      a.source?.address === b.source?.address &&
      a.source?.port === b.source?.port)
  );
}
