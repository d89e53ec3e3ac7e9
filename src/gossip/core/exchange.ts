import type { Prng } from '../../base/prng.js';
import type { Claim } from '../wire/claim.js';
import type { Endpoint } from '../wire/endpoint.js';
import type { Message } from '../wire/packet.js';
import { bucketOf } from './claim.js';
import type { SwimConfig } from './config.js';
import { type HeldMember, type MemberTable, toldClaim } from './member-table.js';
import { claimMessage, type Outbox } from './outbox.js';

interface Round {
  readonly to: Endpoint;
  readonly isJoin: boolean;
  roundsLeft: number;
  nextMs: number;
}

export interface ExchangeStats {
  exchanges: number;
  exchangesRefused: number;
  digestsEqual: number;
  digestsDifferent: number;
  /** Answers left out because too much was asked of us at once. */
  exchangesBusy: number;
}

/**
 * Push-pull, digest first: whoever wants to agree with another sends hashes of what it holds, and
 * each sends the other only the buckets that differ. No state is kept for whoever asks; whoever
 * asked repeats the question until the answer is "equal", so that lost packets do not matter.
 */
export class Exchange {
  readonly #config: SwimConfig;
  readonly #table: MemberTable;
  readonly #out: Outbox;
  readonly #prng: Prng;
  readonly #own: () => Claim;
  readonly #rounds = new Map<string, Round>();
  /** Packets of answers that may still be sent; refilled with time. */
  #credit: number;
  #creditAtMs = 0;
  readonly stats: ExchangeStats = {
    exchanges: 0,
    exchangesRefused: 0,
    digestsEqual: 0,
    digestsDifferent: 0,
    exchangesBusy: 0,
  };

  constructor(config: SwimConfig, table: MemberTable, out: Outbox, prng: Prng, own: () => Claim) {
    this.#config = config;
    this.#table = table;
    this.#out = out;
    this.#prng = prng;
    this.#own = own;
    this.#credit = config.syncPacketsPerSecondMax;
  }

  /** Begins to agree with whoever is at `to`, unless that is under way. */
  start(to: Endpoint, isJoin: boolean, nowMs: number): void {
    const key = keyOf(to);
    if (this.#rounds.has(key)) return;
    if (this.#rounds.size >= this.#config.syncsMax) {
      this.stats.exchangesRefused += 1;
      return;
    }
    this.stats.exchanges += 1;
    const round = { to, isJoin, roundsLeft: this.#config.syncRoundsMax, nextMs: nowMs };
    this.#rounds.set(key, round);
    this.#ask(round, nowMs);
  }

  /** The one question, for instance to a seed that may not even be there. */
  askOnce(to: Endpoint): void {
    this.#out.send(to, [claimMessage(this.#own()), this.#digest(true, false)]);
  }

  /** What `from` says now is the state of a swarm that we join: known to everybody but us. */
  isJoining(from: Endpoint): boolean {
    return this.#rounds.get(keyOf(from))?.isJoin === true;
  }

  onDigest(from: Endpoint, digest: Message & { readonly kind: 'digest' }, nowMs: number): void {
    const own = this.#table.digestWith(this.#own());
    const different = new Set<number>();
    for (const [i, bucket] of own.entries()) if (bucket !== digest.buckets[i]) different.add(i);

    if (different.size === 0) {
      this.stats.digestsEqual += 1;
      this.#rounds.delete(keyOf(from));
    } else {
      this.stats.digestsDifferent += 1;
    }
    const isBusy = different.size > 0 && !this.#sendDifferent(from, different, nowMs);
    if (digest.wantsReply) this.#out.send(from, [this.#digest(false, isBusy)]);
    else if (digest.busy) this.#askLater(from, nowMs);
  }

  onTimeout(nowMs: number): void {
    for (const [key, round] of this.#rounds) {
      if (nowMs < round.nextMs) continue;
      if (round.roundsLeft <= 0) this.#rounds.delete(key);
      else this.#ask(round, nowMs);
    }
  }

  nextDeadlineMs(): number {
    let deadlineMs = Number.POSITIVE_INFINITY;
    for (const round of this.#rounds.values()) deadlineMs = Math.min(deadlineMs, round.nextMs);
    return deadlineMs;
  }

  #ask(round: Round, nowMs: number): void {
    round.roundsLeft -= 1;
    // Jitter, or many joiners that asked at once would ask at once for ever.
    round.nextMs = nowMs + this.#config.syncRetryMs * (0.75 + this.#prng.nextFloat() / 2);
    this.askOnce(round.to);
  }

  /** Asked by N members at once, the other would need about this long to answer them all. */
  #askLater(from: Endpoint, nowMs: number): void {
    const round = this.#rounds.get(keyOf(from));
    if (round === undefined) return;
    const spreadMs = BUSY_SPREAD_MS_PER_MEMBER * (this.#table.size + 1);
    round.nextMs = nowMs + this.#config.syncRetryMs + this.#prng.nextFloat() * spreadMs;
  }

  /** @returns false if there is no credit left for an answer. */
  #sendDifferent(to: Endpoint, buckets: ReadonlySet<number>, nowMs: number): boolean {
    const perSecond = this.#config.syncPacketsPerSecondMax;
    const refill = ((nowMs - this.#creditAtMs) / 1000) * perSecond;
    this.#credit = Math.min(perSecond, this.#credit + refill);
    this.#creditAtMs = nowMs;
    if (this.#credit < 1) {
      this.stats.exchangesBusy += 1;
      return false;
    }
    const packetsMax = Math.min(this.#config.syncPacketsMax, Math.floor(this.#credit));
    this.#credit -= this.#out.sendClaims(to, this.#claimsOf(buckets, nowMs), packetsMax);
    return true;
  }

  *#claimsOf(buckets: ReadonlySet<number>, nowMs: number): Iterable<Claim> {
    const own = this.#own();
    if (buckets.has(bucketOf(own.member))) yield own;
    const members: readonly HeldMember[] = this.#table.members;
    if (members.length === 0) return;
    // From a random place: if not all fit, the next answer brings others.
    const start = this.#prng.nextBelow(members.length);
    for (let i = 0; i < members.length; i++) {
      const member = members[(start + i) % members.length] as HeldMember;
      if (buckets.has(member.bucket)) yield toldClaim(member, nowMs);
    }
  }

  #digest(wantsReply: boolean, busy: boolean): Message {
    return { kind: 'digest', wantsReply, busy, buckets: this.#table.digestWith(this.#own()) };
  }
}

const BUSY_SPREAD_MS_PER_MEMBER = 20;

function keyOf(endpoint: Endpoint): string {
  return `${endpoint.address} ${endpoint.port}`;
}
