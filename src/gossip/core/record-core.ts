import { unreachable } from '../../base/assert.js';
import type { Core } from '../../base/core.js';
import { Prng } from '../../base/prng.js';
import { type Delta, DIRECTORY, eventBytes } from '../wire/record-delta.js';
import type { ExchangeMessage } from '../wire/record-exchange.js';
import { AntiEntropy, EXCHANGE_LIMITS, type ExchangeEnd } from './anti-entropy.js';
import { type DialTarget, RecordDialer } from './record-dialer.js';
import { type Hash, type Merged, RECORD_LIMITS, RecordTable } from './record-table.js';

/** Writes of one owner travel together when they come within this time. */
const COALESCE_MS = 10;
/** A gossip message is closed when its events reach this size. */
const GOSSIP_BYTES = 64 * 1024;
/** Above this a delta is not gossiped but left to anti-entropy; the shell's limit is 1 MiB. */
const GOSSIP_BYTES_MAX = 256 * 1024;
const ROUND_MS = 10_000;
const ROUND_JITTER = 0.3;
/**
 * While a topic or a connection is new, gossip may not know all of its receivers yet: for so long
 * tables are compared this often.
 */
const SETTLE_MS = 5_000;
const SETTLE_ROUND_MS = 1_000;
/** After an exchange that the other end broke off. */
const AGAIN_MS = 1_000;
/** A gap may be a mere reordering: the missing message may still come by gossip. */
const GAP_MS = 60;
const GAP_RETRY_MS = 500;
/** Who learned something tells so many connected members, after a random wait of at most this. */
const RUMOR_FANOUT = 3;
const RUMOR_MS = 150;
/** Exchanges that we started and that run at the same time. */
const OUTBOUND_MAX = 4;
/** Between two exchanges that we start with the same member. */
const REPEAT_MS = 100;

/** Exchanges that may time out in a row before their connection is given up. */
const STRIKES_MAX = 2;

export type RecordMemberState = 'alive' | 'suspect' | 'dead' | 'left';

export interface RecordMember {
  readonly id: string;
  readonly address: string;
  readonly port: number;
  readonly state: RecordMemberState;
}

export interface RecordCoreConfig {
  readonly self: string;
  /** Above all epochs that this owner ever used: the wall clock at boot, in milliseconds. */
  readonly epoch: number;
  readonly seed: number;
  readonly hash: Hash;
}

export type RecordInput =
  | { readonly kind: 'timeout' }
  | { readonly kind: 'subscribe' | 'unsubscribe'; readonly topic: string }
  /** Of a subscribed topic; `value` undefined deletes. */
  | {
      readonly kind: 'publish';
      readonly topic: string;
      readonly key: string;
      readonly value: Uint8Array | undefined;
    }
  | { readonly kind: 'members'; readonly members: readonly RecordMember[] }
  | { readonly kind: 'admitted'; readonly ids: ReadonlySet<string> }
  /** The first connection to a member opened; `ours`: we dialled. */
  | { readonly kind: 'connected'; readonly member: string; readonly ours: boolean }
  /** The last connection to a member closed, or a dial failed. */
  | { readonly kind: 'disconnected'; readonly member: string }
  /** Whether something else than records goes through the connections to a member. */
  | { readonly kind: 'held'; readonly member: string; readonly isHeld: boolean }
  | { readonly kind: 'gossip'; readonly delta: Delta }
  /** Gossip found nobody to send a delta of ours to. */
  | { readonly kind: 'unheard'; readonly topic: string }
  /** A member speaks of writes of its own that have not come here, though they may be on their way. */
  | { readonly kind: 'behind'; readonly member: string }
  /** A member opened a stream; `exchange` is negative and new. */
  | { readonly kind: 'exchange_opened'; readonly exchange: number; readonly member: string }
  | {
      readonly kind: 'exchange_message';
      readonly exchange: number;
      readonly message: ExchangeMessage;
    }
  | { readonly kind: 'exchange_closed'; readonly exchange: number };

/** What the shell must now do, in the order of the fields. */
export interface RecordReady {
  /** Topics of gossip to enter and to leave. */
  readonly enter: readonly string[];
  readonly leave: readonly string[];
  /** Members whose connection, or dial under way, is to be aborted. */
  readonly hangUps: readonly string[];
  readonly dials: readonly DialTarget[];
  readonly gossip: readonly Delta[];
  /** Streams to open, over connections that exist. */
  readonly opens: readonly { readonly exchange: number; readonly member: string }[];
  readonly messages: readonly { readonly exchange: number; readonly message: ExchangeMessage }[];
  /** Streams to close when their messages are sent, or to abort if not `complete`. */
  readonly ends: readonly ExchangeEnd[];
  /** Topics whose records changed. */
  readonly changed: readonly string[];
}

export type RecordCounter =
  | Merged
  | `exchange_${ExchangeEnd['outcome']}`
  | 'exchanges_started'
  | 'gossip_sent'
  | 'gossip_unheard'
  | 'gossip_oversized'
  | 'gaps'
  | 'behind'
  | 'own_epoch_raised'
  | 'own_epoch_absurd'
  | 'topics_over_limit'
  | 'own_keys_over_limit'
  | 'connections_stalled';

/**
 * The record plane's decisions: what to gossip, when to compare tables with whom, whom to dial.
 *
 * Gossip is the fast path and may lose, repeat and reorder; correctness rests on anti-entropy alone:
 * every ten seconds with one connected member, and at once when there is reason to think that a
 * table is behind (a gap in gossip, a topic entered, a connection opened, a member back to life, a
 * write that nobody heard, news in an exchange).
 */
export class RecordCore implements Core<RecordInput, RecordReady> {
  readonly table: RecordTable;
  readonly #self: string;
  readonly #prng: Prng;
  readonly #dialer: RecordDialer;
  readonly #exchanges: AntiEntropy;
  /** When to start an exchange, by member. */
  readonly #due = new Map<string, number>();
  readonly #outbound = new Set<string>();
  /** Exchanges that ran out of time since the member was last heard. */
  readonly #strikes = new Map<string, number>();
  readonly #pendingBytes = new Map<string, number>();
  readonly #counters = new Map<RecordCounter, number>();
  #members: ReadonlyMap<string, RecordMember> = new Map();
  #admitted: ReadonlySet<string> = new Set();
  #flushMs = Number.POSITIVE_INFINITY;
  #roundMs: number | undefined;
  #settledMs = 0;
  #gapMs = Number.POSITIVE_INFINITY;
  #exchangeCount = 0;
  #stalePlan = false;
  #enter: string[] = [];
  #leave: string[] = [];
  #gossip: Delta[] = [];
  #opens: { readonly exchange: number; readonly member: string }[] = [];
  #messages: RecordReady['messages'][number][] = [];
  #ends: ExchangeEnd[] = [];

  constructor({ self, epoch, seed, hash }: RecordCoreConfig) {
    this.#self = self;
    this.#prng = new Prng(seed);
    this.table = new RecordTable(self, epoch, hash, RECORD_LIMITS);
    this.#dialer = new RecordDialer(self, this.#prng);
    const onMerge = (merged: Merged, delta: Delta) => this.#onMerge(merged, delta);
    this.#exchanges = new AntiEntropy(this.table, onMerge, EXCHANGE_LIMITS);
    this.#enter.push(DIRECTORY);
  }

  get counters(): ReadonlyMap<RecordCounter, number> {
    return this.#counters;
  }

  connected(): readonly string[] {
    return this.#dialer.connected();
  }

  step(input: RecordInput, nowMs: number): void {
    this.#nowMs = nowMs;
    this.#apply(input, nowMs);
    this.#onTimeout(nowMs);
  }

  /** Of the last step: merging calls back without it. */
  #nowMs = 0;

  takeReady(): RecordReady {
    const { dials, hangUps } = this.#dialer.takeReady();
    const ready = {
      enter: this.#enter,
      leave: this.#leave,
      hangUps,
      dials,
      gossip: this.#gossip,
      opens: this.#opens,
      messages: this.#messages,
      ends: this.#ends,
      changed: this.table.takeChanged(),
    };
    this.#enter = [];
    this.#leave = [];
    this.#gossip = [];
    this.#opens = [];
    this.#messages = [];
    this.#ends = [];
    return ready;
  }

  nextDeadlineMs(): number | undefined {
    let nextMs = Math.min(this.#flushMs, this.#gapMs, this.#roundMs ?? Number.POSITIVE_INFINITY);
    nextMs = Math.min(nextMs, this.#dialer.nextDeadlineMs() ?? nextMs);
    nextMs = Math.min(nextMs, this.#exchanges.nextDeadlineMs() ?? nextMs);
    if (this.#outbound.size < OUTBOUND_MAX) {
      for (const [member, dueMs] of this.#due) {
        if (!this.#outbound.has(member)) nextMs = Math.min(nextMs, dueMs);
      }
    }
    return nextMs === Number.POSITIVE_INFINITY ? undefined : nextMs;
  }

  #apply(input: RecordInput, nowMs: number): void {
    switch (input.kind) {
      case 'timeout':
        break;
      case 'subscribe':
        this.#subscribe(input.topic, nowMs);
        break;
      case 'unsubscribe':
        this.#unsubscribe(input.topic, nowMs);
        break;
      case 'publish':
        this.#publish(input.topic, input.key, input.value, nowMs);
        break;
      case 'members':
        this.#onMembers(input.members, nowMs);
        break;
      case 'admitted':
        this.#onAdmitted(input.ids, nowMs);
        break;
      case 'connected':
        this.#dialer.onConnected(input.member, input.ours, nowMs);
        // Both ends would say the same: the one who dialled speaks, the other only if it does not.
        this.#want(input.member, nowMs + (input.ours ? 0 : 2 * RUMOR_MS));
        this.#unsettle(nowMs);
        break;
      case 'disconnected':
        this.#dialer.onDisconnected(input.member, nowMs);
        this.#due.delete(input.member);
        this.#strikes.delete(input.member);
        break;
      case 'held':
        this.#dialer.hold(input.member, input.isHeld, nowMs);
        break;
      case 'gossip':
        this.#onMerge(this.table.merge(input.delta, nowMs), input.delta);
        break;
      case 'unheard':
        this.#onUnheard(input.topic, nowMs);
        break;
      case 'behind':
        this.#onBehind(input.member, nowMs);
        break;
      case 'exchange_opened':
        this.#exchanges.open(input.exchange, input.member, false, nowMs);
        // Whatever we wanted to compare with this member is being compared.
        this.#due.delete(input.member);
        break;
      case 'exchange_message':
        this.#strikes.delete(this.#exchanges.receive(input.exchange, input.message, nowMs) ?? '');
        break;
      case 'exchange_closed':
        this.#exchanges.closed(input.exchange);
        break;
      default:
        unreachable(input);
    }
  }

  #subscribe(topic: string, nowMs: number): void {
    if (this.table.has(topic)) return;
    if (!this.table.subscribe(topic, nowMs)) {
      this.#count('topics_over_limit');
      return;
    }
    this.#enter.push(topic);
    this.#stalePlan = true;
    this.#flushSoon(nowMs);
    this.#unsettle(nowMs);
    const connected = this.#connectedTo(topic);
    for (const member of this.#pick(connected, 2)) this.#want(member, nowMs);
  }

  #unsubscribe(topic: string, nowMs: number): void {
    if (!this.table.has(topic)) return;
    this.table.unsubscribe(topic, nowMs);
    this.#leave.push(topic);
    this.#pendingBytes.delete(topic);
    this.#stalePlan = true;
    this.#flushSoon(nowMs);
  }

  #publish(topic: string, key: string, value: Uint8Array | undefined, nowMs: number): void {
    // Before it is too large: a message must end at a write that is whole here, see RecordLog.
    const pendingBytes = this.#pendingBytes.get(topic) ?? 0;
    const bytes = eventBytes({ key, seq: 0, value });
    if (pendingBytes + bytes > GOSSIP_BYTES) this.#announce(topic);
    if (!this.table.publish(topic, key, value, nowMs)) {
      this.#count('own_keys_over_limit');
      return;
    }
    this.#pendingBytes.set(topic, (this.#pendingBytes.get(topic) ?? 0) + bytes);
    this.#flushSoon(nowMs);
  }

  #onMembers(members: readonly RecordMember[], nowMs: number): void {
    const before = this.#members;
    this.#members = new Map(members.map((member) => [member.id, member]));
    const gone = ({ state }: RecordMember) => state === 'dead' || state === 'left';
    this.table.setSuspended(new Set(members.filter(gone).map(({ id }) => id)));
    this.#stalePlan = true;
    this.#replan(nowMs);
    for (const member of members) {
      const was = before.get(member.id)?.state;
      if (gone(member)) this.#dialer.hangUp(member.id);
      else if (member.state === 'alive' && was !== undefined && was !== 'alive') {
        // What was open may be waiting for a retransmission far away: an exchange will tell.
        this.#dialer.hurry(member.id, nowMs);
        if (!this.#dialer.isConnected(member.id)) continue;
        this.#want(member.id, nowMs);
        this.#strikes.set(member.id, STRIKES_MAX - 1);
      }
    }
  }

  #onAdmitted(ids: ReadonlySet<string>, nowMs: number): void {
    const added = [...ids].some((id) => id !== this.#self && !this.#admitted.has(id));
    for (const id of this.#admitted) if (!ids.has(id)) this.#dialer.hangUp(id);
    this.#admitted = ids;
    this.table.setAdmitted(ids);
    this.#stalePlan = true;
    // What a new member wrote may have come before this, and was refused.
    if (added)
      for (const member of this.#pick(this.#dialer.connected(), 2)) this.#want(member, nowMs);
  }

  #onUnheard(topic: string, nowMs: number): void {
    this.#count('gossip_unheard');
    const connected = this.#connectedTo(topic);
    for (const member of this.#pick(connected, RUMOR_FANOUT)) this.#want(member, nowMs + GAP_MS);
  }

  #onBehind(member: string, nowMs: number): void {
    this.#count('behind');
    if (this.#dialer.isConnected(member)) this.#want(member, nowMs + GAP_MS);
  }

  #onMerge(merged: Merged, { topic, owner, epoch }: Delta): void {
    this.#count(merged);
    if (merged === 'merged' && topic === DIRECTORY) this.#stalePlan = true;
    if (merged === 'own_ahead') {
      const outbid = this.table.outbid(epoch, this.#nowMs);
      this.#count(outbid ? 'own_epoch_raised' : 'own_epoch_absurd');
      if (outbid) this.#flushSoon(this.#nowMs);
    }
    if (merged !== 'gap') return;
    this.#count('gaps');
    const from = this.#dialer.isConnected(owner)
      ? owner
      : this.#pick(this.#connectedTo(topic), 1)[0];
    if (from !== undefined) this.#want(from, this.#nowMs + GAP_MS);
    this.#gapMs = Math.min(this.#gapMs, this.#nowMs + GAP_RETRY_MS);
  }

  #onTimeout(nowMs: number): void {
    if (this.#stalePlan) this.#replan(nowMs);
    if (this.#flushMs <= nowMs) this.#flush();
    if (this.#gapMs <= nowMs) this.#retryGaps(nowMs);
    if (this.#roundMs === undefined || this.#roundMs <= nowMs) this.#round(nowMs);
    this.#exchanges.timeout(nowMs);
    this.#collect(nowMs);
    this.#startExchanges(nowMs);
    this.#collect(nowMs);
    this.#dialer.timeout(nowMs);
  }

  #round(nowMs: number): void {
    const first = this.#roundMs === undefined;
    const roundMs = nowMs < this.#settledMs ? SETTLE_ROUND_MS : ROUND_MS;
    this.#roundMs = nowMs + roundMs * (1 + (this.#prng.nextFloat() * 2 - 1) * ROUND_JITTER);
    if (first) return;
    this.table.sweep(nowMs);
    const topics = this.table.topics();
    const topic = topics[this.#prng.nextBelow(topics.length)] ?? DIRECTORY;
    const sharing = this.#connectedTo(topic);
    const members = sharing.length > 0 ? sharing : this.#dialer.connected();
    for (const member of this.#pick(members, 1)) this.#want(member, nowMs);
  }

  #unsettle(nowMs: number): void {
    this.#settledMs = nowMs + SETTLE_MS;
    this.#roundMs = Math.min(this.#roundMs ?? Number.POSITIVE_INFINITY, nowMs + SETTLE_ROUND_MS);
  }

  #retryGaps(nowMs: number): void {
    this.#gapMs = Number.POSITIVE_INFINITY;
    if (this.table.waitingCount === 0) return;
    this.#gapMs = nowMs + GAP_RETRY_MS;
    for (const member of this.#pick(this.#dialer.connected(), 1)) this.#want(member, nowMs);
  }

  #startExchanges(nowMs: number): void {
    for (const [member, dueMs] of this.#due) {
      if (this.#outbound.size >= OUTBOUND_MAX) return;
      if (dueMs > nowMs || this.#outbound.has(member)) continue;
      this.#due.delete(member);
      if (!this.#dialer.isConnected(member)) continue;
      this.#exchangeCount += 1;
      this.#outbound.add(member);
      this.#count('exchanges_started');
      this.#opens.push({ exchange: this.#exchangeCount, member });
      this.#exchanges.open(this.#exchangeCount, member, true, nowMs);
    }
  }

  #collect(nowMs: number): void {
    const { messages, ends } = this.#exchanges.takeReady();
    this.#messages.push(...messages);
    for (const end of ends) {
      this.#ends.push(end);
      this.#count(`exchange_${end.outcome}`);
      if (end.initiator) this.#outbound.delete(end.member);
      if (end.learned) this.#spread(end.member, nowMs);
      if (end.partial && end.initiator) this.#want(end.member, nowMs + REPEAT_MS);
      if (end.outcome === 'closed' && end.initiator) this.#want(end.member, nowMs + AGAIN_MS);
      if (end.outcome === 'timeout') this.#strike(end.member);
    }
  }

  /**
   * Twice nothing came through for seconds: a new connection beats waiting for the old one. Not at
   * once, for a busy member would only get busier by it.
   */
  #strike(member: string): void {
    const strikes = (this.#strikes.get(member) ?? 0) + 1;
    this.#strikes.set(member, strikes);
    if (strikes < STRIKES_MAX) return;
    this.#count('connections_stalled');
    this.#dialer.hangUp(member);
  }

  /** News travel on from exchange to exchange, as a healed partition needs; it ends where all know. */
  #spread(source: string, nowMs: number): void {
    const others = this.#dialer.connected().filter((id) => id !== source);
    for (const member of this.#pick(others, RUMOR_FANOUT)) {
      this.#want(member, nowMs + this.#prng.nextFloat() * RUMOR_MS);
    }
  }

  #want(member: string, atMs: number): void {
    const dueMs = this.#outbound.has(member) ? Math.max(atMs, this.#nowMs + REPEAT_MS) : atMs;
    this.#due.set(member, Math.min(this.#due.get(member) ?? Number.POSITIVE_INFINITY, dueMs));
  }

  #flushSoon(nowMs: number): void {
    this.#flushMs = Math.min(this.#flushMs, nowMs + COALESCE_MS);
  }

  #flush(): void {
    this.#flushMs = Number.POSITIVE_INFINITY;
    for (const topic of this.table.topics()) this.#announce(topic);
  }

  #announce(topic: string): void {
    this.#pendingBytes.delete(topic);
    const delta = this.table.takeAnnouncement(topic);
    if (delta === undefined) return;
    const bytes = delta.events.reduce((sum, event) => sum + eventBytes(event), 0);
    if (bytes > GOSSIP_BYTES_MAX) {
      this.#count('gossip_oversized');
      this.#onUnheard(topic, this.#nowMs);
      return;
    }
    this.#count('gossip_sent');
    this.#gossip.push(delta);
  }

  #replan(nowMs: number): void {
    this.#stalePlan = false;
    const targets = new Map<string, DialTarget>();
    for (const { id, address, port, state } of this.#members.values()) {
      if (id === this.#self || !this.#admitted.has(id)) continue;
      if (state === 'alive' || state === 'suspect') targets.set(id, { id, address, port });
    }
    const topics = this.table
      .topics()
      .filter((topic) => topic !== DIRECTORY)
      .map((topic) => this.table.subscribersOf(topic));
    this.#dialer.plan(targets, topics, nowMs);
  }

  #connectedTo(topic: string): readonly string[] {
    return this.table.subscribersOf(topic).filter((id) => this.#dialer.isConnected(id));
  }

  #pick(members: readonly string[], count: number): readonly string[] {
    return this.#prng.shuffle([...members]).slice(0, count);
  }

  #count(counter: RecordCounter): void {
    this.#counters.set(counter, (this.#counters.get(counter) ?? 0) + 1);
  }
}
