import type { Claim, MemberState } from '../wire/claim.js';
import { DIGEST_BUCKETS } from '../wire/packet.js';

const RANK: Readonly<Record<MemberState, number>> = { alive: 0, suspect: 1, dead: 2, left: 3 };

/**
 * Whether `claim` replaces `held`, both about the same member.
 *
 * Claims are ordered by (incarnation, rank), so merging is commutative, associative and
 * idempotent: members converge whatever the order, loss or duplication of gossip.
 * SWIM §4.2, except that death is not final; a newer incarnation revives, as in memberlist.
 * Addresses decide between twins that claim one id at the same incarnation, so that at least
 * everybody chooses the same twin.
 */
export function supersedes(claim: Claim, held: Claim): boolean {
  if (claim.incarnation !== held.incarnation) return claim.incarnation > held.incarnation;
  if (claim.state !== held.state) return RANK[claim.state] > RANK[held.state];
  const { address, port } = claim.endpoint;
  if (address !== held.endpoint.address) return address > held.endpoint.address;
  return port > held.endpoint.port;
}

/** Which hash of the digest a member's claim enters. */
export function bucketOf(member: string): number {
  return hashText(member, 0) & (DIGEST_BUCKETS - 1);
}

/** Place on the ring on which each member watches its successor. */
export function ringPlaceOf(member: string): number {
  return hashText(member, 0x9e3779b9);
}

/** 32 bits over what `supersedes` compares: equal on two members iff (almost surely) they agree. */
export function claimHash(claim: Claim): number {
  let hash = hashText(claim.member, 0x85ebca6b);
  hash = mix(hash, claim.incarnation);
  hash = mix(hash, RANK[claim.state]);
  hash = mix(hash, hashText(claim.endpoint.address, claim.endpoint.port));
  return hash;
}

/** FNV-1a, then the final mixing of MurmurHash3, which spreads the similar ids of a fleet. */
function hashText(text: string, seed: number): number {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return mix(hash >>> 0, text.length);
}

function mix(hash: number, value: number): number {
  let h = (Math.imul(hash, 31) ^ value) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}
