import { Prng } from '../../../base/prng.js';
import { AffinityTable } from './affinity.js';
import {
  type BackendEntry,
  BackendSet,
  type BackendState,
  grown,
  NO_BACKEND,
  type Ticket,
} from './backend-set.js';
import { type BalanceConfig, SILENCE_MS, sameBalance } from './config.js';
import { finishHash, hashAddress, mixHash } from './hash.js';
import { maglevTable } from './maglev.js';
import { Outliers } from './outliers.js';
import { Slowness, type Surveyed } from './slowness.js';

/** What a backend in its slow start gets at least, of its full share. */
const SLOW_START_SHARE_MIN = 0.1;
/** Others are as slow as one that was ejected for it, when that one was slower by no more than this. */
const AS_SLOW = 2;
/** In which time a backend that was ejected rises to its full share again. */
const COME_BACK_MS = 3000;
/** Weight of the newest time in the moving average of a backend's times to connect. */
const LATENCY_WEIGHT = 0.3;
/** Taken for a backend whose time is not known yet: soon tried. */
const LATENCY_UNKNOWN_MS = 0.1;
/** Draws of one of "two choices" that meet closed backends, before all are looked at. */
const DRAWS = 4;

/** Nothing was tried. */
const NOTHING: readonly Ticket[] = [];

/**
 * Chooses a backend for each new flow of one service at one place (a published port of this node, a
 * VIP): shared by ingress and overlay, pure, and without allocation per choice.
 *
 * Whoever gets a ticket of `choose` gives it back by `ended`, once; in between he may say how it went.
 */
export class Balancer {
  readonly #set: BackendSet;
  readonly #outliers: Outliers;
  readonly #slowness = new Slowness();
  readonly #surveyed: Surveyed;
  readonly #prng: Prng;
  readonly #sharedSeed: number;
  #latencyMs = new Float64Array(0);
  /** Smooth weighted round robin, and what slow starters have saved up. */
  #credit = new Float64Array(0);
  /** When its probation ended. */
  #backAtMs = new Float64Array(0);
  #config: BalanceConfig;
  #failing: ReadonlySet<string> = new Set();
  #affinity: AffinityTable | undefined;
  #maglev: Int16Array = new Int16Array(0);
  /** Where in `ready` the next round goes on. */
  #cursor = 0;
  #lastKey: string | undefined;
  #slowUntilMs = Number.NEGATIVE_INFINITY;

  // Of the choice under way.
  #nowMs = 0;
  #tried: readonly Ticket[] = NOTHING;
  #localOnly = false;
  #ignoreEjection = false;

  /**
   * @param nodeSeed Differs from node to node, and is hard to guess.
   * @param sharedSeed The same on all nodes: of the service.
   */
  constructor(config: BalanceConfig, nodeSeed: number, sharedSeed: number) {
    this.#config = config;
    this.#sharedSeed = sharedSeed;
    this.#set = new BackendSet(nodeSeed, sharedSeed);
    this.#outliers = new Outliers(config.outlier);
    this.#surveyed = surveyed(this.#set, this.#outliers);
    this.#prng = new Prng(nodeSeed);
    this.#affinity = config.affinityMs > 0 ? new AffinityTable(nodeSeed) : undefined;
  }

  /** Backends known, those that get new flows, of these the ejected ones; and what did not fit. */
  get counts(): {
    readonly known: number;
    readonly ready: number;
    readonly ejected: number;
    readonly refused: number;
  } {
    const { size, ready, refusedCount } = this.#set;
    const ejected = this.#outliers.ejectedCount + this.#outliers.failingCount;
    return { known: size, ready: ready.length, ejected, refused: refusedCount };
  }

  get ejectionsTotal(): number {
    return this.#outliers.ejectionsTotal;
  }

  configure(config: BalanceConfig): void {
    if (sameBalance(config, this.#config)) return;
    const hadAffinity = this.#config.affinityMs > 0;
    this.#config = config;
    this.#outliers.config = config.outlier;
    this.#setFailing();
    this.#credit.fill(0);
    if (config.affinityMs === 0) this.#affinity = undefined;
    else if (!hadAffinity) this.#affinity = new AffinityTable(this.#sharedSeed);
    this.#rebuild();
  }

  /** Makes these the backends; the round goes on after the one that was chosen last. */
  replace(entries: readonly BackendEntry[], nowMs: number): void {
    const capacity = this.#set.reserve(entries.length);
    this.#outliers.reserve(capacity);
    this.#slowness.reserve(capacity);
    this.#latencyMs = grown(this.#latencyMs, capacity);
    this.#credit = grown(this.#credit, capacity);
    this.#backAtMs = grown(this.#backAtMs, capacity);
    this.#set.replace(entries, nowMs, (slot) => {
      this.#outliers.forget(slot);
      this.#slowness.forget(slot);
      this.#latencyMs[slot] = 0;
      this.#credit[slot] = 0;
      this.#backAtMs[slot] = Number.NEGATIVE_INFINITY;
    });
    this.#failing = new Set(entries.filter((entry) => entry.isFailing).map(({ key }) => key));
    this.#setFailing();
    this.#rebuild();
  }

  keyOf(ticket: Ticket): string | undefined {
    return this.#set.keyOf(ticket);
  }

  /** `undefined`: gone. */
  stateOf(ticket: Ticket): BackendState | undefined {
    return this.#set.stateOf(ticket);
  }

  isEjected(key: string): boolean {
    const slot = this.#set.slotOf(this.#set.ticketOfKey(key));
    return slot !== -1 && this.#outliers.isEjected(slot);
  }

  activeOf(key: string): number {
    const slot = this.#set.slotOf(this.#set.ticketOfKey(key));
    return slot === -1 ? 0 : (this.#set.active[slot] as number);
  }

  /**
   * The backend of a new flow.
   *
   * @param client Four words of the client's address.
   * @param ports Of the client and of the service: what tells a client's flows apart, for `maglev`.
   * @param tried Backends that this flow has failed at already.
   * @returns `NO_BACKEND` where none is left.
   */
  choose(
    client: Int32Array,
    ports: number,
    nowMs: number,
    tried: readonly Ticket[] = NOTHING,
  ): Ticket {
    this.#nowMs = nowMs;
    this.#tried = tried;
    let slot = this.#affine(client);
    if (slot === -1) slot = this.#anywhere(client, ports);
    this.#tried = NOTHING;
    if (slot === -1) return NO_BACKEND;
    this.#set.active[slot] = (this.#set.active[slot] as number) + 1;
    this.#outliers.chosen(slot);
    const ticket = this.#set.ticketOf(slot);
    this.#affinity?.set(client, ticket, nowMs, this.#config.affinityMs);
    return ticket;
  }

  /**
   * Whether the next choices depend neither on clients, nor on the time, nor on how flows go: they can be made
   * ahead, and those that nobody used be withdrawn.
   */
  foresees(nowMs: number): boolean {
    const { method, overflowAt } = this.#config;
    return (
      (method === 'rr' || method === 'wrr') &&
      this.#affinity === undefined &&
      overflowAt === 0 &&
      this.#outliers.ejectedCount === 0 &&
      this.#outliers.failingCount < Math.max(1, this.#set.ready.length) &&
      nowMs >= this.#slowUntilMs
    );
  }

  /** Takes back a choice that was made ahead, and with it its turn; of several, the last one first. */
  withdraw(ticket: Ticket): void {
    this.ended(ticket);
    const slot = this.#set.slotOf(ticket);
    const { ready, weight } = this.#set;
    const at = ready.indexOf(slot);
    if (at === -1) return;
    if (this.#config.method === 'rr') {
      this.#passTo((at + ready.length - 1) % ready.length);
      return;
    }
    let total = 0;
    for (const other of ready) {
      // It had no part in the turns.
      if (this.#outliers.isFailing(other)) continue;
      const own = weight[other] as number;
      total += own;
      this.#credit[other] = (this.#credit[other] as number) - own;
    }
    this.#credit[slot] = (this.#credit[slot] as number) + total;
  }

  /**
   * The backend answers, or has ended a flow in good order.
   *
   * @param waitedMs For how long the client has waited for that; absent where it was not asked anything.
   * @param port Tells the service's ports apart, where flows come to several.
   */
  succeeded(ticket: Ticket, nowMs: number, waitedMs?: number, port = 0): void {
    const slot = this.#set.slotOf(ticket);
    if (slot === -1) return;
    if (waitedMs !== undefined && this.#judge(slot, waitedMs, nowMs)) return;
    if (this.#outliers.succeeded(slot, nowMs - (waitedMs ?? 0), port)) this.#takeBack(slot, nowMs);
  }

  /** It lets a client wait; which says something of it only where others do not. */
  silent(ticket: Ticket, nowMs: number, port = 0): void {
    const slot = this.#set.slotOf(ticket);
    if (slot === -1 || this.#judge(slot, SILENCE_MS, nowMs)) return;
    if (this.#outliers.silentAsAll(slot, port)) this.#takeBack(slot, nowMs);
    else if (!this.#isSilenceUsual(nowMs))
      this.#outliers.silent(slot, this.#set.ready.length, nowMs, port);
  }

  /** It took the flow, and how long that took. */
  connected(ticket: Ticket, latencyMs: number): void {
    const slot = this.#set.slotOf(ticket);
    if (slot === -1) return;
    const held = this.#latencyMs[slot] as number;
    this.#latencyMs[slot] = held === 0 ? latencyMs : held + (latencyMs - held) * LATENCY_WEIGHT;
  }

  /** It refused the flow, or fell silent. */
  failed(ticket: Ticket, nowMs: number): void {
    const slot = this.#set.slotOf(ticket);
    if (slot !== -1) this.#outliers.failed(slot, this.#set.ready.length, nowMs);
  }

  /** The flow is over. */
  ended(ticket: Ticket): void {
    const slot = this.#set.slotOf(ticket);
    if (slot === -1) return;
    this.#outliers.ended(slot);
    this.#set.active[slot] = Math.max(0, (this.#set.active[slot] as number) - 1);
  }

  get #isJudging(): boolean {
    return this.#config.outlier.slowFactor > 0;
  }

  #isSilenceUsual(nowMs: number): boolean {
    if (!this.#isJudging) return false;
    // Some in a row can come within a moment.
    if (!this.#slowness.isSilenceUsual)
      this.#slowness.survey(this.#surveyed, this.#config.outlier.slowFactor, nowMs, 0);
    return this.#slowness.isSilenceUsual;
  }

  /** Whether a backend is slow, by this answer and those lately: then it is ejected, if there is room. */
  #judge(slot: number, waitedMs: number, nowMs: number): boolean {
    if (!this.#isJudging) return false;
    const { ready } = this.#set;
    const isEjected = this.#outliers.isEjected(slot);
    if (!isEjected) this.#slowness.answered(slot, waitedMs, ready.length, nowMs);
    // A quick answer among slow ones is none of a slow backend.
    if (!this.#slowness.mayBeSlow(waitedMs)) return false;
    if (this.#slowness.survey(this.#surveyed, this.#config.outlier.slowFactor, nowMs))
      this.#outliers.relieve(ready, AS_SLOW * this.#slowness.usualMs, nowMs);
    const { limitMs } = this.#slowness;
    const isSlow = isEjected ? waitedMs >= limitMs : this.#isSlow(slot, waitedMs, nowMs);
    if (!isSlow) return false;
    const slowMs = waitedMs < SILENCE_MS ? waitedMs : Number.POSITIVE_INFINITY;
    if (this.#outliers.slow(slot, slowMs, ready.length, nowMs)) this.#slowness.forget(slot);
    return true;
  }

  /** Much can have come in since the survey: the verdict is over a new one. */
  #isSlow(slot: number, waitedMs: number, nowMs: number): boolean {
    if (!this.#slowness.isSlow(slot, waitedMs, this.#surveyed, nowMs)) return false;
    this.#slowness.survey(this.#surveyed, this.#config.outlier.slowFactor, nowMs, 0);
    return this.#slowness.isSlow(slot, waitedMs, this.#surveyed, nowMs);
  }

  /** It comes back slowly: what was too much for it may be so again. */
  #takeBack(slot: number, nowMs: number): void {
    this.#backAtMs[slot] = nowMs;
    this.#credit[slot] = 0;
    this.#slowUntilMs = Math.max(this.#slowUntilMs, nowMs + COME_BACK_MS);
  }

  /** The same ones are preferred as long as their checks fail: those that come first in this node's order. */
  #setFailing(): void {
    const { ready } = this.#set;
    const failing = [...ready].filter((slot) =>
      this.#failing.has(this.#set.keyOf(this.#set.ticketOf(slot)) ?? ''),
    );
    this.#outliers.setFailing(failing, ready.length);
  }

  #rebuild(): void {
    const { ready, readyAtMs, keyHash, weight } = this.#set;
    this.#cursor = 0;
    const last = this.#lastKey;
    if (last !== undefined) {
      const after = ready.findIndex((slot) => {
        const key = this.#set.keyOf(this.#set.ticketOf(slot));
        return key !== undefined && this.#set.isAfter(key, last);
      });
      this.#cursor = after === -1 ? 0 : after;
    }
    this.#slowUntilMs = Number.NEGATIVE_INFINITY;
    for (const slot of ready)
      this.#slowUntilMs = Math.max(
        this.#slowUntilMs,
        (readyAtMs[slot] as number) + this.#config.slowStartMs,
        (this.#backAtMs[slot] as number) + COME_BACK_MS,
      );
    if (this.#config.method === 'maglev') this.#maglev = maglevTable(ready, keyHash, weight);
  }

  /** The backend that the client had, if it still is one to choose. */
  #affine(client: Int32Array): number {
    if (this.#affinity === undefined) return -1;
    const slot = this.#set.slotOf(this.#affinity.get(client, this.#nowMs));
    if (slot === -1 || this.#set.stateOf(this.#set.ticketOf(slot)) !== 'ready') return -1;
    this.#localOnly = false;
    this.#ignoreEjection = false;
    return this.#isOpen(slot) ? slot : -1;
  }

  #anywhere(client: Int32Array, ports: number): number {
    this.#ignoreEjection = false;
    if (this.#config.preferLocal) {
      this.#localOnly = true;
      const slot = this.#byMethod(client, ports);
      if (slot !== -1) return slot;
    }
    this.#localOnly = false;
    const slot = this.#byMethod(client, ports);
    if (slot !== -1) return slot;
    // A backend that has failed is better than none.
    this.#ignoreEjection = true;
    return this.#byMethod(client, ports);
  }

  #byMethod(client: Int32Array, ports: number): number {
    if (this.#set.ready.length === 0) return -1;
    // Who comes back shall find the same backend at every node, also before it is remembered.
    if (this.#affinity !== undefined) return this.#byRendezvous(client);
    switch (this.#config.method) {
      case 'rr':
        return this.#byTurn();
      case 'wrr':
        return this.#byWeight();
      case 'lc':
        return this.#byLeast(false);
      case 'p2c':
        return this.#byTwo(false);
      case 'latency':
        return this.#byTwo(true);
      case 'sh':
        return this.#byRendezvous(client);
      case 'maglev':
        return this.#byTable(client, ports);
    }
  }

  #isOpen(slot: number): boolean {
    if (!this.#ignoreEjection && !this.#outliers.isOpen(slot, this.#nowMs)) return false;
    if (this.#localOnly) {
      const { overflowAt } = this.#config;
      if (this.#set.isLocal[slot] !== 1) return false;
      if (overflowAt > 0 && (this.#set.active[slot] as number) >= overflowAt) return false;
    }
    return this.#tried.length === 0 || !this.#tried.includes(this.#set.ticketOf(slot));
  }

  /** Strictly in turn; slow starters are passed over in proportion. */
  #byTurn(): number {
    const { ready } = this.#set;
    const isSlow = this.#nowMs < this.#slowUntilMs;
    const full = isSlow ? this.#shareMax() : 1;
    const steps = isSlow ? ready.length * Math.ceil(1 / SLOW_START_SHARE_MIN + 1) : ready.length;
    for (let step = 0; step < steps; step++) {
      const at = (this.#cursor + step) % ready.length;
      const slot = ready[at] as number;
      if (!this.#isOpen(slot)) continue;
      if (isSlow && !this.#saveUp(slot, this.#share(slot) / full)) continue;
      this.#passTo(at);
      return slot;
    }
    return -1;
  }

  #saveUp(slot: number, share: number): boolean {
    const credit = (this.#credit[slot] as number) + share;
    const isEnough = credit >= 1 - 1e-9;
    this.#credit[slot] = isEnough ? credit - 1 : credit;
    return isEnough;
  }

  /** Smooth weighted round robin: nobody gets his turns in one piece. */
  #byWeight(): number {
    const { ready, weight } = this.#set;
    let total = 0;
    let best = -1;
    for (let at = 0; at < ready.length; at++) {
      const slot = ready[at] as number;
      if (!this.#isOpen(slot)) continue;
      const own = (weight[slot] as number) * this.#share(slot);
      total += own;
      this.#credit[slot] = (this.#credit[slot] as number) + own;
      if (best === -1 || (this.#credit[slot] as number) > (this.#credit[best] as number))
        best = slot;
    }
    if (best !== -1) this.#credit[best] = (this.#credit[best] as number) - total;
    return best;
  }

  /** The least loaded; among equals, in turn. */
  #byLeast(byLatency: boolean): number {
    const { ready } = this.#set;
    let best = -1;
    let bestAt = -1;
    let bestLoad = Number.POSITIVE_INFINITY;
    for (let step = 0; step < ready.length; step++) {
      const at = (this.#cursor + step) % ready.length;
      const slot = ready[at] as number;
      if (!this.#isOpen(slot)) continue;
      const load = this.#load(slot, byLatency);
      if (load >= bestLoad) continue;
      best = slot;
      bestAt = at;
      bestLoad = load;
    }
    if (best !== -1) this.#passTo(bestAt);
    return best;
  }

  /** The better of two drawn at random: near the least loaded, and no herd runs to one backend. */
  #byTwo(byLatency: boolean): number {
    const first = this.#draw(-1);
    const second = first === -1 ? -1 : this.#draw(first);
    if (first === -1 || second === -1) return this.#byLeast(byLatency);
    return this.#load(second, byLatency) < this.#load(first, byLatency) ? second : first;
  }

  #draw(other: number): number {
    const { ready } = this.#set;
    for (let draw = 0; draw < DRAWS; draw++) {
      const slot = ready[this.#prng.nextBelow(ready.length)] as number;
      if (slot !== other && this.#isOpen(slot)) return slot;
    }
    return -1;
  }

  /** Highest random weight: a client's backend changes only if that backend goes. */
  #byRendezvous(client: Int32Array): number {
    const { ready, weight, keyHash } = this.#set;
    const hash = hashAddress(client, this.#sharedSeed);
    let best = -1;
    let bestScore = Number.POSITIVE_INFINITY;
    for (let at = 0; at < ready.length; at++) {
      const slot = ready[at] as number;
      if (!this.#isOpen(slot)) continue;
      const drawn = (finishHash(mixHash(hash, keyHash[slot] as number)) >>> 0) + 1;
      const score = -Math.log(drawn / 0x1_0000_0001) / (weight[slot] as number);
      if (score >= bestScore) continue;
      best = slot;
      bestScore = score;
    }
    return best;
  }

  #byTable(client: Int32Array, ports: number): number {
    const table = this.#maglev;
    const hash = mixHash(hashAddress(client, this.#sharedSeed), ports);
    const home = (finishHash(hash) >>> 0) % table.length;
    for (let step = 0; step < table.length; step++) {
      const slot = table[(home + step) % table.length] as number;
      if (this.#isOpen(slot)) return slot;
    }
    return -1;
  }

  #load(slot: number, byLatency: boolean): number {
    const flows = (this.#set.active[slot] as number) + 1;
    const load = flows / ((this.#set.weight[slot] as number) * this.#share(slot));
    return byLatency ? load * ((this.#latencyMs[slot] as number) || LATENCY_UNKNOWN_MS) : load;
  }

  #share(slot: number): number {
    if (this.#nowMs >= this.#slowUntilMs) return 1;
    const { slowStartMs } = this.#config;
    const readyForMs = this.#nowMs - (this.#set.readyAtMs[slot] as number);
    const backForMs = this.#nowMs - (this.#backAtMs[slot] as number);
    const share = readyForMs < slowStartMs ? readyForMs / slowStartMs : 1;
    return Math.max(SLOW_START_SHARE_MIN, Math.min(share, backForMs / COME_BACK_MS));
  }

  #shareMax(): number {
    const { ready } = this.#set;
    let largest = SLOW_START_SHARE_MIN;
    for (let at = 0; at < ready.length; at++)
      if (this.#isOpen(ready[at] as number))
        largest = Math.max(largest, this.#share(ready[at] as number));
    return largest;
  }

  #passTo(at: number): void {
    const { ready } = this.#set;
    this.#cursor = (at + 1) % ready.length;
    this.#lastKey = this.#set.keyOf(this.#set.ticketOf(ready[at] as number));
  }
}

function surveyed(set: BackendSet, outliers: Outliers): Surveyed {
  return {
    get ready() {
      return set.ready;
    },
    get active() {
      return set.active;
    },
    get readyAtMs() {
      return set.readyAtMs;
    },
    isEjected: (slot) => outliers.isEjected(slot),
  };
}
