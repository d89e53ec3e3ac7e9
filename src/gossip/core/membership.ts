import { unreachable } from '../../base/assert.js';
import type { Core } from '../../base/core.js';
import type { Prng } from '../../base/prng.js';
import {
  type Claim,
  INCARNATION_MAX,
  type Incarnation,
  type MemberId,
  type MemberState,
} from '../wire/claim.js';
import { type Endpoint, sameEndpoint } from '../wire/endpoint.js';
import type { Message, Packet } from '../wire/packet.js';
import { Awareness } from './awareness.js';
import { BroadcastQueue, retransmitLimit } from './broadcast-queue.js';
import { supersedes } from './claim.js';
import type { SwimConfig } from './config.js';
import { Exchange, type ExchangeStats } from './exchange.js';
import { type HeldMember, isActive, isAlive, MemberTable, toldClaim } from './member-table.js';
import { type Connect, claimMessage, Outbox, type Self, type Send } from './outbox.js';
import {
  type ConnectResult,
  Prober,
  type ProbeStats,
  type RoundTrip,
  type Verdict,
} from './probe.js';
import { Suspicion } from './suspicion.js';

export type SwimInput =
  | { readonly kind: 'timeout' }
  | { readonly kind: 'packet'; readonly source: Endpoint; readonly packet: Packet }
  /** The result of the `Connect` with this id. */
  | { readonly kind: 'connect'; readonly id: number; readonly result: ConnectResult }
  /** Asks these until a member answers, and again whenever we are alone. */
  | { readonly kind: 'join'; readonly seeds: readonly Endpoint[] }
  /** Something else (a broken stream) hints that this member may be gone: look at once. */
  | { readonly kind: 'check'; readonly member: MemberId }
  | { readonly kind: 'leave' };

/** What the shell must now do, in this order: report `changes`, send, connect; stop if `hasLeft`. */
export interface SwimReady {
  readonly changes: readonly Change[];
  readonly sends: readonly Send[];
  readonly connects: readonly Connect[];
  /** Direct round trips measured, for maps and coordinates. */
  readonly roundTrips: readonly RoundTrip[];
  /** The others were told, and the shell may close. */
  readonly hasLeft: boolean;
}

export interface Change {
  readonly claim: Claim;
  /** State before; `undefined`: the member was not known. About ourselves: a new incarnation. */
  readonly from: MemberState | undefined;
  /** The member is no longer in the table at all. */
  readonly forgotten: boolean;
}

export interface SwimStats extends ProbeStats, ExchangeStats {
  claimsNew: number;
  claimsStale: number;
  claimsExpired: number;
  suspicions: number;
  deaths: number;
  deathsByEvidence: number;
  /** Deaths for silence, reported by others, that we waited a moment to believe. */
  disputes: number;
  refutations: number;
  /** Somebody else claims our id at another address. */
  idConflicts: number;
  /** Accusations that could not be outbid: the incarnations are used up. */
  incarnationsExhausted: number;
  /** Newcomers not taken in because `membersMax` are known. */
  membersRefused: number;
  membersForgotten: number;
  /** Wake-ups later than `lateMs`. */
  lateWakes: number;
  packetsFromSelf: number;
  pingsForOthers: number;
  joinAttempts: number;
}

/** How often a twin at another address is outbid: this many times, then once per period. */
const CONFLICT_BIDS_MAX = 3;
const CONFLICT_BID_PERIOD_MS = 60_000;
/** A member is told what is said about it at most this often. */
const TELL_INTERVAL_MS = 200;
/** A first broadcast waits up to this long for company. */
const GOSSIP_DELAY_MS_MAX = 10;
/** One who leaves tells this many directly, twice. */
const FAREWELL_FANOUT = 16;
const FAREWELL_REPEAT_MS = 100;

/**
 * SWIM with Lifeguard: who is in the group, and who of them is alive.
 *
 * Knows nothing of sockets, seals and clocks. Every claim, whoever brings it, goes through
 * `#onClaim`; every verdict of our own goes through `#accuse`.
 */
export class Membership implements Core<SwimInput, SwimReady> {
  readonly #config: SwimConfig;
  readonly #self: Self;
  readonly #prng: Prng;
  readonly #table = new MemberTable();
  readonly #queue = new BroadcastQueue();
  readonly #awareness: Awareness;
  readonly #out: Outbox;
  readonly #prober: Prober;
  readonly #exchange: Exchange;

  #seeds: readonly Endpoint[] = [];
  #changes: Change[] = [];
  #roundTrips: RoundTrip[] = [];
  #deadlineMs: number | undefined;
  #lastGossipMs = Number.NEGATIVE_INFINITY;
  #nextGossipMs: number | undefined;
  #nextJoinMs: number | undefined;
  #nextSyncMs: number | undefined;
  #nextReconnectMs: number | undefined;
  #nextSlowReconnectMs = 0;
  #farewellMs: number | undefined;
  #syncIntervalMs = SYNC_INTERVAL_MS_MIN;
  #isLeaving = false;
  #hasLeft = false;
  #conflictBids = CONFLICT_BIDS_MAX;
  #conflictBidsAtMs = 0;
  readonly #stats: Omit<SwimStats, keyof ProbeStats | keyof ExchangeStats> = {
    claimsNew: 0,
    claimsStale: 0,
    claimsExpired: 0,
    suspicions: 0,
    deaths: 0,
    deathsByEvidence: 0,
    disputes: 0,
    refutations: 0,
    idConflicts: 0,
    incarnationsExhausted: 0,
    membersRefused: 0,
    membersForgotten: 0,
    lateWakes: 0,
    packetsFromSelf: 0,
    pingsForOthers: 0,
    joinAttempts: 0,
  };

  /** @param payloadBytesMax What a packet may take before it is sealed. */
  constructor(
    config: SwimConfig,
    identity: { readonly id: MemberId; readonly endpoint: Endpoint },
    payloadBytesMax: number,
    prng: Prng,
  ) {
    this.#config = config;
    this.#self = { ...identity, incarnation: 0 as Incarnation };
    this.#prng = prng;
    this.#awareness = new Awareness(config.awarenessMax);
    this.#out = new Outbox(this.#self, this.#queue, payloadBytesMax);
    this.#out.retransmitLimit = retransmitLimit(config.retransmitMult, 1);
    const { id } = identity;
    this.#prober = new Prober(config, id, this.#table, this.#out, this.#awareness, prng);
    const own = () => this.#ownClaim();
    this.#exchange = new Exchange(config, this.#table, this.#out, prng, own);
  }

  /** Our own claim, then one for every other member known. */
  claims(): Claim[] {
    return [this.#ownClaim(), ...this.#table.members.map((member) => member.claim)];
  }

  /** A snapshot. */
  stats(): SwimStats {
    return { ...this.#stats, ...this.#prober.stats, ...this.#exchange.stats };
  }

  get awarenessScore(): number {
    return this.#awareness.score;
  }

  get broadcastsQueued(): number {
    return this.#queue.size;
  }

  nextDeadlineMs(): number | undefined {
    return this.#deadlineMs;
  }

  takeReady(): SwimReady {
    const ready = {
      changes: this.#changes,
      ...this.#out.take(),
      roundTrips: this.#roundTrips,
      hasLeft: this.#hasLeft,
    };
    this.#changes = [];
    this.#roundTrips = [];
    return ready;
  }

  step(input: SwimInput, nowMs: number): void {
    this.#noticeSleep(nowMs);
    switch (input.kind) {
      case 'timeout':
        this.#onTimeout(nowMs);
        break;
      case 'packet':
        this.#onPacket(input.source, input.packet, nowMs);
        break;
      case 'connect':
        this.#onVerdict(this.#prober.onConnect(input.id, input.result), nowMs);
        break;
      case 'join':
        this.#seeds = input.seeds.slice(0, this.#config.seedsMax);
        this.#nextJoinMs = nowMs;
        this.#onTimeout(nowMs);
        break;
      case 'check': {
        const member = this.#table.get(input.member);
        if (member !== undefined && isActive(member)) this.#prober.check(member, true, nowMs);
        break;
      }
      case 'leave':
        this.#onLeave(nowMs);
        break;
      default:
        unreachable(input);
    }
    this.#plan(nowMs);
  }

  /**
   * A timer that is late by more than the scheduler's whim means that this process, or its host,
   * stood still. Whatever we would conclude from silence meanwhile is not true.
   */
  #noticeSleep(nowMs: number): void {
    if (this.#deadlineMs === undefined) return;
    const lateMs = nowMs - this.#deadlineMs;
    if (lateMs <= this.#config.lateMs) return;
    this.#stats.lateWakes += 1;
    this.#awareness.change(1);
    this.#prober.shift(lateMs);
    for (const { suspicion } of this.#table.suspects) suspicion?.shift(lateMs);
    this.#deadlineMs = undefined;
  }

  #onTimeout(nowMs: number): void {
    if (this.#farewellMs !== undefined) {
      this.#onFarewell(nowMs);
      return;
    }
    if (this.#isLeaving) return;
    for (const verdict of this.#prober.onTimeout(nowMs)) this.#onVerdict(verdict, nowMs);
    this.#expireSuspicions(nowMs);
    this.#exchange.onTimeout(nowMs);
    if (this.#nextJoinMs !== undefined && nowMs >= this.#nextJoinMs) this.#askSeeds(nowMs);
    if (this.#nextSyncMs !== undefined && nowMs >= this.#nextSyncMs) this.#syncWithRandom(nowMs);
    if (this.#nextReconnectMs !== undefined && nowMs >= this.#nextReconnectMs) {
      this.#reconnect(nowMs);
    }
    if (this.#nextGossipMs !== undefined && nowMs >= this.#nextGossipMs) this.#gossip(nowMs);
  }

  // ---- what packets say -------------------------------------------------------------------

  #onPacket(source: Endpoint, packet: Packet, nowMs: number): void {
    if (packet.from === this.#self.id) {
      this.#stats.packetsFromSelf += 1;
      return;
    }
    if (this.#isLeaving) return;
    const isFirstContact = this.#seeds.length > 0 && this.#table.activeCount === 0;
    if (isFirstContact) this.#exchange.start(source, true, nowMs);
    for (const message of packet.messages) this.#onMessage(source, packet, message, nowMs);
    this.#correctSender(source, packet, nowMs);
    if (isFirstContact) this.#queue.put(this.#ownClaim());
  }

  #onMessage(source: Endpoint, packet: Packet, message: Message, nowMs: number): void {
    switch (message.kind) {
      case 'ping':
        if (this.#prober.onPing(message.seq, message.target, source)) return;
        this.#stats.pingsForOthers += 1;
        return;
      case 'ack':
        this.#onRoundTrip(this.#prober.onAck(message.seq, nowMs));
        return;
      case 'nack':
        this.#prober.onNack(message.seq);
        return;
      case 'pingRequest': {
        const { seq, target, endpoint } = message;
        this.#prober.onPingRequest(seq, target, endpoint, source, nowMs);
        return;
      }
      case 'claim':
        this.#onClaim(message.claim, source, packet.from, nowMs);
        return;
      case 'digest':
        this.#exchange.onDigest(source, message, nowMs);
        return;
      default:
        unreachable(message);
    }
  }

  #onRoundTrip(roundTrip: RoundTrip | undefined): void {
    const member = roundTrip === undefined ? undefined : this.#table.get(roundTrip.member);
    if (roundTrip === undefined || member === undefined) return;
    const { rttMs } = roundTrip;
    // Smoothed as TCP does it, RFC 6298 §2.3.
    member.rttMs = member.rttMs === undefined ? rttMs : (7 * member.rttMs + rttMs) / 8;
    this.#roundTrips.push({ member: roundTrip.member, rttMs: member.rttMs });
  }

  /**
   * Whoever speaks to us lives. If we think otherwise, or know a later incarnation of it than it
   * does itself, it is told so, which makes it outbid that; and with one who returns from the
   * dead, or whom we do not know, everything is compared.
   */
  #correctSender(source: Endpoint, packet: Packet, nowMs: number): void {
    const member = this.#table.get(packet.from);
    if (member === undefined) {
      this.#exchange.start(source, false, nowMs);
      return;
    }
    const { claim } = member;
    if (packet.incarnation > claim.incarnation) {
      if (!isActive(member)) this.#exchange.start(source, false, nowMs);
      // From where we know it to be, its own packet is as good a refutation as its claim.
      if (sameEndpoint(source, claim.endpoint))
        this.#hold(refutedBy(packet, claim), undefined, nowMs, true);
      return;
    }
    if (isAlive(member) && packet.incarnation === claim.incarnation) return;
    if (nowMs - member.toldMs < TELL_INTERVAL_MS) return;
    member.toldMs = nowMs;
    this.#out.send(source, [claimMessage(toldClaim(member, nowMs))]);
    if (!isActive(member)) this.#exchange.start(source, false, nowMs);
  }

  #onClaim(claim: Claim, source: Endpoint, from: MemberId, nowMs: number): void {
    if (claim.member === this.#self.id) {
      this.#onClaimAboutSelf(claim, nowMs);
      return;
    }
    const member = this.#table.get(claim.member);
    if (member === undefined) {
      this.#onStranger(claim, source, nowMs);
      return;
    }
    if (isConfirmation(claim, member.claim)) {
      this.#suspect(claim, nowMs);
    } else if (!supersedes(claim, member.claim)) {
      this.#stats.claimsStale += 1;
      return;
    } else if (claim.state === 'suspect') {
      this.#suspect(claim, nowMs);
    } else if (claim.state === 'dead' && claim.gone !== true && isActive(member)) {
      this.#dispute(claim, nowMs);
    } else {
      this.#hold(claim, undefined, nowMs, true);
    }
    if (claim.gone === true) this.#considerLooking(claim, from, nowMs);
  }

  #onStranger(claim: Claim, source: Endpoint, nowMs: number): void {
    const ageMs = (claim.ageSeconds ?? 0) * 1000;
    if (isEnded(claim) && ageMs >= this.#config.forgetAfterMs) {
      this.#stats.claimsExpired += 1;
      return;
    }
    if (this.#table.size >= this.#config.membersMax && !this.#forgetOldestEnded()) {
      this.#stats.membersRefused += 1;
      return;
    }
    if (claim.state === 'suspect') {
      this.#suspect(claim, nowMs);
      return;
    }
    this.#hold(claim, undefined, nowMs, !this.#exchange.isJoining(source));
  }

  #onClaimAboutSelf(claim: Claim, nowMs: number): void {
    if (!supersedes(claim, this.#ownClaim())) return;
    // A former life at another address looks like a twin, so a few bids are free; but with a twin
    // that lives, bidding would never end: he who has the higher incarnation then keeps the id.
    if (!sameEndpoint(claim.endpoint, this.#self.endpoint)) {
      this.#stats.idConflicts += 1;
      if (!this.#takeConflictBid(nowMs)) return;
    }
    if (claim.incarnation >= INCARNATION_MAX) {
      this.#stats.incarnationsExhausted += 1;
      return;
    }
    if (claim.state !== 'alive') {
      this.#stats.refutations += 1;
      // To be accused while alive means that we were slow to answer. Of a former life it means
      // nothing, but a moment of patience at the start does not hurt.
      this.#awareness.change(1);
    }
    // An equal incarnation would lose to the accusation everywhere else.
    this.#self.incarnation = (claim.incarnation + 1) as Incarnation;
    this.#queue.put(this.#ownClaim());
    this.#changes.push({ claim: this.#ownClaim(), from: 'alive', forgotten: false });
  }

  #takeConflictBid(nowMs: number): boolean {
    const refill = Math.floor((nowMs - this.#conflictBidsAtMs) / CONFLICT_BID_PERIOD_MS);
    if (refill > 0) {
      this.#conflictBids = Math.min(CONFLICT_BIDS_MAX, this.#conflictBids + refill);
      this.#conflictBidsAtMs = nowMs;
    }
    if (this.#conflictBids === 0) return false;
    this.#conflictBids -= 1;
    return true;
  }

  // ---- suspicion and death ----------------------------------------------------------------

  #onVerdict(verdict: Verdict | undefined, nowMs: number): void {
    const member = verdict === undefined ? undefined : this.#table.get(verdict.member);
    if (verdict === undefined || member === undefined || !isActive(member)) return;
    const claim: Claim = {
      member: member.claim.member,
      state: 'suspect',
      incarnation: member.claim.incarnation,
      endpoint: member.claim.endpoint,
      reporter: this.#self.id,
      ...(verdict.gone ? { gone: true } : {}),
    };
    this.#suspect(claim, nowMs);
    if (verdict.gone) this.#shout(claim);
  }

  /** Starts a suspicion, or adds what the claim confirms to the one that there is. */
  #suspect(claim: Claim, nowMs: number): void {
    const held = this.#table.get(claim.member);
    let suspicion = held?.suspicion;
    let isNews = true;
    if (suspicion === undefined || held?.claim.incarnation !== claim.incarnation) {
      this.#stats.suspicions += 1;
      const othersCount = this.#table.activeCount + (held === undefined ? 1 : 0);
      suspicion = new Suspicion(this.#config, othersCount, nowMs);
      if (claim.reporter !== undefined) suspicion.confirm(claim.reporter, claim.gone === true);
      this.#hold(claim, suspicion, nowMs, true);
    } else {
      isNews =
        claim.reporter !== undefined && suspicion.confirm(claim.reporter, claim.gone === true);
      if (isNews) this.#queue.put(claim);
    }
    if (!isNews) return;
    if (suspicion.isProven) suspicion.capAt(nowMs + this.#config.evidenceGraceMs);
  }

  /**
   * Others say dead, for silence alone. The suspicion must then have been in the air for a while;
   * if we hear of it only now, the accuser may have been cut off and think so of everybody. So the
   * accused is asked, and has `disputeMs` to refute.
   */
  #dispute(claim: Claim, nowMs: number): void {
    const { ageSeconds: _, ...rest } = claim;
    const suspect: Claim = { ...rest, state: 'suspect' };
    const before = this.#table.get(claim.member)?.suspicion;
    this.#suspect(suspect, nowMs);
    const member = this.#table.get(claim.member);
    if (member?.suspicion === undefined) return;
    member.suspicion.capAt(member.suspicion.startMs + this.#config.disputeMs);
    if (member.suspicion === before) return;
    this.#stats.disputes += 1;
    member.suspicion.called(nowMs);
    this.#prober.pingLoosely(member, nowMs);
  }

  /** Evidence spreads at once, to witnesses that look for themselves. */
  #shout(claim: Claim): void {
    const wanted = (member: HeldMember) => isAlive(member) && member.claim.member !== claim.member;
    for (const member of this.#table.random(this.#config.gossipFanout, this.#prng, wanted)) {
      this.#out.send(member.claim.endpoint, [claimMessage(claim)]);
    }
  }

  /** Those who hear of evidence from the witness look for themselves; of the others, a few. */
  #considerLooking(claim: Claim, from: MemberId, nowMs: number): void {
    const member = this.#table.get(claim.member);
    if (member?.suspicion === undefined || claim.state !== 'suspect') return;
    if (member.suspicion.isProven) return;
    const share = this.#config.recheckersCount / Math.max(1, this.#table.activeCount);
    if (claim.reporter !== from && !this.#prng.chance(share)) return;
    this.#prober.check(member, true, nowMs);
  }

  #expireSuspicions(nowMs: number): void {
    for (const member of [...this.#table.suspects]) {
      const { claim, suspicion } = member;
      if (suspicion === undefined || suspicion.deadlineMs() > nowMs) continue;
      const gone = suspicion.isProven;
      if (!gone && !suspicion.isCalled) {
        suspicion.called(nowMs);
        this.#prober.pingLoosely(member, nowMs);
        continue;
      }
      this.#stats.deaths += 1;
      if (gone) this.#stats.deathsByEvidence += 1;
      const { member: id, incarnation, endpoint } = claim;
      const dead = { member: id, state: 'dead', incarnation, endpoint } as const;
      const reporter = this.#self.id;
      this.#hold({ ...dead, reporter, ...(gone ? { gone } : {}) }, undefined, nowMs, true);
    }
  }

  #hold(claim: Claim, suspicion: Suspicion | undefined, nowMs: number, isBroadcast: boolean): void {
    const before = this.#table.get(claim.member)?.claim;
    const endedMs = isEnded(claim) ? nowMs - (claim.ageSeconds ?? 0) * 1000 : undefined;
    const { ageSeconds: _, ...kept } = claim;
    this.#table.hold(kept, suspicion, endedMs);
    this.#stats.claimsNew += 1;
    if (isBroadcast) this.#queue.put(kept);

    if (endedMs === undefined) this.#prober.add(claim.member, nowMs);
    else this.#prober.remove(claim.member);
    const config = this.#config;
    this.#out.retransmitLimit = retransmitLimit(config.retransmitMult, this.#table.activeCount + 1);
    if (claim.state === 'dead' || claim.state === 'suspect') {
      const atMs = nowMs + config.reconnectFastIntervalMs * this.#prng.nextFloat();
      this.#nextReconnectMs = Math.min(this.#nextReconnectMs ?? atMs, atMs);
    }

    const isReturn = before !== undefined && isEnded(before) && endedMs === undefined;
    if (isReturn && this.#syncIntervalMs > SYNC_INTERVAL_MS_MIN) {
      this.#syncIntervalMs = SYNC_INTERVAL_MS_MIN;
      this.#nextSyncMs = undefined;
    }
    const isSame = before?.state === claim.state && sameEndpoint(before.endpoint, claim.endpoint);
    if (isSame) return;
    this.#changes.push({ claim: kept, from: before?.state, forgotten: false });
  }

  // ---- what we do on our own --------------------------------------------------------------

  #gossip(nowMs: number): void {
    this.#lastGossipMs = nowMs;
    this.#nextGossipMs = undefined;
    const { gossipFanout, gossipToTheDeadMs } = this.#config;
    const targets = this.#table.random(
      gossipFanout,
      this.#prng,
      ({ claim, endedMs }) =>
        endedMs === undefined || (claim.state === 'dead' && nowMs - endedMs < gossipToTheDeadMs),
    );
    // One packet each in quiet times; after a storm more, or old news would hold up new ones.
    const packets = Math.ceil(this.#queue.size / CLAIMS_PER_PACKET);
    const packetsEach = Math.min(GOSSIP_PACKETS_MAX, packets);
    for (const target of targets) {
      for (let i = 0; i < packetsEach; i++) this.#out.send(target.claim.endpoint, []);
    }
  }

  #askSeeds(nowMs: number): void {
    if (this.#table.activeCount > 0) {
      this.#nextJoinMs = undefined;
      return;
    }
    this.#stats.joinAttempts += 1;
    for (const seed of this.#prng.shuffle([...this.#seeds]).slice(0, SEEDS_ASKED_AT_ONCE)) {
      if (!sameEndpoint(seed, this.#self.endpoint)) this.#exchange.askOnce(seed);
    }
    this.#nextJoinMs = nowMs + this.#config.joinRetryMs * (0.75 + this.#prng.nextFloat() / 2);
  }

  /** Often after a change of the world, for gossip may have missed somebody; then ever less. */
  #syncWithRandom(nowMs: number): void {
    this.#syncIntervalMs = Math.min(2 * this.#syncIntervalMs, this.#config.syncIntervalMs);
    this.#nextSyncMs = undefined;
    const [member] = this.#table.random(1, this.#prng, isAlive);
    if (member !== undefined) this.#exchange.start(member.claim.endpoint, false, nowMs);
  }

  /**
   * Forgets those who are dead for long, sees whether one of the others has returned, and tells
   * suspects what is said of them: their turn to be probed may be a minute away.
   */
  #reconnect(nowMs: number): void {
    const config = this.#config;
    const isSlowTurn = nowMs >= this.#nextSlowReconnectMs;
    if (isSlowTurn) this.#nextSlowReconnectMs = nowMs + config.reconnectSlowIntervalMs;
    const tried: HeldMember[] = [];
    let isAnyRecent = false;
    for (const member of [...this.#table.ended]) {
      const ageMs = nowMs - (member.endedMs as number);
      if (ageMs >= config.forgetAfterMs) {
        this.#forget(member);
        continue;
      }
      const isRecent = ageMs < config.reconnectFastForMs && member.claim.state === 'dead';
      isAnyRecent ||= isRecent;
      if (member.claim.state === 'dead' && (isRecent || isSlowTurn)) tried.push(member);
    }
    for (const member of this.#prng.shuffle(tried).slice(0, config.reconnectFanout)) {
      this.#prober.pingLoosely(member, nowMs);
    }
    const suspects = this.#prng.shuffle([...this.#table.suspects]);
    for (const member of suspects.slice(0, config.reconnectFanout)) {
      this.#prober.pingLoosely(member, nowMs);
    }
    this.#nextReconnectMs = undefined;
    if (this.#table.ended.size === 0 && suspects.length === 0) return;
    const isSoon = isAnyRecent || suspects.length > 0;
    this.#nextReconnectMs =
      nowMs + (isSoon ? config.reconnectFastIntervalMs : config.reconnectSlowIntervalMs);
  }

  #onLeave(nowMs: number): void {
    if (this.#isLeaving) return;
    this.#isLeaving = true;
    this.#sayFarewell();
    this.#farewellMs = nowMs + FAREWELL_REPEAT_MS;
  }

  #onFarewell(nowMs: number): void {
    if (nowMs < (this.#farewellMs as number)) return;
    this.#sayFarewell();
    this.#farewellMs = undefined;
    this.#hasLeft = true;
  }

  /** The claim of one's own departure ranks above all others of this incarnation. */
  #sayFarewell(): void {
    const claim: Claim = { ...this.#ownClaim(), state: 'left' };
    for (const member of this.#table.random(FAREWELL_FANOUT, this.#prng, isActive)) {
      this.#out.send(member.claim.endpoint, [claimMessage(claim)]);
    }
  }

  // ---- housekeeping -----------------------------------------------------------------------

  #forget(member: HeldMember): void {
    this.#stats.membersForgotten += 1;
    this.#table.forget(member);
    this.#queue.drop(member.claim.member);
    this.#changes.push({ claim: member.claim, from: member.claim.state, forgotten: true });
  }

  #forgetOldestEnded(): boolean {
    let oldest: HeldMember | undefined;
    for (const member of this.#table.ended) {
      const isOlder = (member.endedMs as number) < (oldest?.endedMs ?? Number.POSITIVE_INFINITY);
      if (isOlder) oldest = member;
    }
    if (oldest === undefined) return false;
    this.#forget(oldest);
    return true;
  }

  /** When to wake next, after whatever this step changed. */
  #plan(nowMs: number): void {
    if (this.#isLeaving) {
      this.#deadlineMs = this.#farewellMs;
      return;
    }
    const config = this.#config;
    if (this.#queue.size > 0 && this.#table.size > 0) {
      // News after silence goes out almost at once; then one packet per interval carries it all.
      this.#nextGossipMs ??= Math.max(
        nowMs + this.#prng.nextFloat() * GOSSIP_DELAY_MS_MAX,
        this.#lastGossipMs + config.gossipIntervalMs,
      );
    }
    if (this.#table.activeCount > 0) {
      this.#nextSyncMs ??= nowMs + this.#syncIntervalMs * (0.75 + this.#prng.nextFloat() / 2);
    } else if (this.#seeds.length > 0) {
      this.#nextJoinMs ??= nowMs + config.joinRetryMs * this.#prng.nextFloat();
    }
    let deadlineMs = Math.min(this.#prober.nextDeadlineMs(), this.#exchange.nextDeadlineMs());
    for (const { suspicion } of this.#table.suspects) {
      deadlineMs = Math.min(deadlineMs, suspicion?.deadlineMs() ?? deadlineMs);
    }
    for (const atMs of [
      this.#nextGossipMs,
      this.#nextJoinMs,
      this.#nextSyncMs,
      this.#nextReconnectMs,
    ]) {
      if (atMs !== undefined) deadlineMs = Math.min(deadlineMs, atMs);
    }
    // What a confirmation made overdue is due now: it must not look as if we had overslept it.
    this.#deadlineMs =
      deadlineMs === Number.POSITIVE_INFINITY ? undefined : Math.max(deadlineMs, nowMs);
  }

  #ownClaim(): Claim {
    const { id, endpoint, incarnation } = this.#self;
    return { member: id, state: 'alive', incarnation, endpoint };
  }
}

const SEEDS_ASKED_AT_ONCE = 3;
/** About what fits, with the ids of a swarm. */
const CLAIMS_PER_PACKET = 30;
/** To one member at one tick. */
const GOSSIP_PACKETS_MAX = 4;
/** The first repetition of an exchange after something was missed; doubled up to the interval. */
const SYNC_INTERVAL_MS_MIN = 1_000;

function isEnded(claim: Claim): boolean {
  return claim.state === 'dead' || claim.state === 'left';
}

/** Another voice for a suspicion that is held already. */
function isConfirmation(claim: Claim, held: Claim): boolean {
  return (
    claim.state === 'suspect' &&
    held.state === 'suspect' &&
    claim.incarnation === held.incarnation &&
    sameEndpoint(claim.endpoint, held.endpoint)
  );
}

function refutedBy(packet: Packet, { member, endpoint }: Claim): Claim {
  return { member, state: 'alive', incarnation: packet.incarnation, endpoint };
}
