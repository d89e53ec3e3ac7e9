import type { Prng } from '../../base/prng.js';
import type { Claim, MemberId } from '../wire/claim.js';
import { DIGEST_BUCKETS } from '../wire/packet.js';
import { bucketOf, claimHash, ringPlaceOf } from './claim.js';
import type { Suspicion } from './suspicion.js';

const DRAWS_PER_WANTED = 4;

/** What is known about another member. */
export interface HeldMember {
  claim: Claim;
  /** Set exactly while the claim is `suspect`. */
  suspicion: Suspicion | undefined;
  /** When it became `dead` or `left`; `undefined` for the others. */
  endedMs: number | undefined;
  /** When it was last told what is said about it. */
  toldMs: number;
  /** Smoothed round trip of direct probes; `undefined` before the first answer. */
  rttMs: number | undefined;
  readonly ringPlace: number;
  /** Of the digest. */
  readonly bucket: number;
  /** Index in the table's list, for choosing at random. */
  index: number;
}

/** All other members, with the digest over the claims held, kept as they change. */
export class MemberTable {
  readonly #byId = new Map<MemberId, HeldMember>();
  readonly #list: HeldMember[] = [];
  readonly #ended = new Set<HeldMember>();
  readonly #suspects = new Set<HeldMember>();
  readonly #buckets: number[] = new Array(DIGEST_BUCKETS).fill(0);

  get size(): number {
    return this.#list.length;
  }

  /** Members alive or suspect. */
  get activeCount(): number {
    return this.#list.length - this.#ended.size;
  }

  get suspects(): ReadonlySet<HeldMember> {
    return this.#suspects;
  }

  /** Members dead or left. */
  get ended(): ReadonlySet<HeldMember> {
    return this.#ended;
  }

  get members(): readonly HeldMember[] {
    return this.#list;
  }

  /** One hash per bucket; the member itself is not in it, see `digestWith`. */
  get buckets(): readonly number[] {
    return this.#buckets;
  }

  get(id: MemberId): HeldMember | undefined {
    return this.#byId.get(id);
  }

  /** Replaces, or introduces, the claim about a member. `suspicion` only with a suspect claim. */
  hold(claim: Claim, suspicion: Suspicion | undefined, endedMs: number | undefined): HeldMember {
    let member = this.#byId.get(claim.member);
    if (member === undefined) {
      member = {
        claim,
        suspicion,
        endedMs,
        toldMs: Number.NEGATIVE_INFINITY,
        rttMs: undefined,
        ringPlace: ringPlaceOf(claim.member),
        bucket: bucketOf(claim.member),
        index: this.#list.length,
      };
      this.#byId.set(claim.member, member);
      this.#list.push(member);
    } else {
      this.#toggleHash(member.claim);
      member.claim = claim;
      member.suspicion = suspicion;
      member.endedMs = endedMs;
    }
    this.#toggleHash(claim);
    if (suspicion === undefined) this.#suspects.delete(member);
    else this.#suspects.add(member);
    if (endedMs === undefined) this.#ended.delete(member);
    else this.#ended.add(member);
    return member;
  }

  forget(member: HeldMember): void {
    this.#toggleHash(member.claim);
    this.#byId.delete(member.claim.member);
    this.#ended.delete(member);
    this.#suspects.delete(member);
    const last = this.#list.pop() as HeldMember;
    if (last === member) return;
    this.#list[member.index] = last;
    last.index = member.index;
  }

  /** The digest buckets with one more claim, the holder's own. */
  digestWith(own: Claim): number[] {
    const buckets = this.#buckets.slice();
    const bucket = bucketOf(own.member);
    buckets[bucket] = ((buckets[bucket] as number) ^ claimHash(own)) >>> 0;
    return buckets;
  }

  /** Up to `count` different members that `wanted` accepts, at random. */
  random(count: number, prng: Prng, wanted: (member: HeldMember) => boolean): HeldMember[] {
    const found: HeldMember[] = [];
    if (this.#list.length === 0) return found;
    // Draws find the common case at once; the exact way is for when few are wanted of many.
    for (let draws = DRAWS_PER_WANTED * count; draws > 0 && found.length < count; draws--) {
      const member = this.#list[prng.nextBelow(this.#list.length)] as HeldMember;
      if (wanted(member) && !found.includes(member)) found.push(member);
    }
    if (found.length >= count) return found;
    const rest = this.#list.filter((member) => wanted(member) && !found.includes(member));
    return [...found, ...prng.shuffle(rest).slice(0, count - found.length)];
  }

  /** The next active member on the ring after `place`; `undefined` when alone. */
  successorOf(place: number): HeldMember | undefined {
    let first: HeldMember | undefined;
    let next: HeldMember | undefined;
    for (const member of this.#list) {
      if (member.endedMs !== undefined) continue;
      if (first === undefined || member.ringPlace < first.ringPlace) first = member;
      if (member.ringPlace <= place) continue;
      if (next === undefined || member.ringPlace < next.ringPlace) next = member;
    }
    return next ?? first;
  }

  #toggleHash(claim: Claim): void {
    const bucket = bucketOf(claim.member);
    this.#buckets[bucket] = ((this.#buckets[bucket] as number) ^ claimHash(claim)) >>> 0;
  }
}

export function isActive(member: HeldMember): boolean {
  return member.endedMs === undefined;
}

export function isAlive(member: HeldMember): boolean {
  return member.claim.state === 'alive';
}

/** What others are told about a member: its claim, by whom it is suspected, how long it is dead. */
export function toldClaim(member: HeldMember, nowMs: number): Claim {
  const { claim, suspicion, endedMs } = member;
  if (suspicion !== undefined) {
    const { reporter } = suspicion;
    const { gone: _, ...rest } = claim;
    return {
      ...rest,
      ...(reporter === undefined ? {} : { reporter }),
      ...(suspicion.isEvident ? { gone: true } : {}),
    };
  }
  if (endedMs === undefined) return claim;
  return { ...claim, ageSeconds: Math.max(0, Math.floor((nowMs - endedMs) / 1000)) };
}
