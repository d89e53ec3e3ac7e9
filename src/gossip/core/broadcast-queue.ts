import type { Claim, MemberId } from '../wire/claim.js';
import { supersedes } from './claim.js';

interface Broadcast {
  readonly claim: Claim;
  sentCount: number;
  /** Replaced by a newer claim; left in its stack until it is met there. */
  isStale: boolean;
}

/**
 * Claims waiting to be piggybacked. The least sent come first, and among those the newest.
 *
 * Bounded by design: per member one claim, or, of a suspicion, one per reporter, and a suspicion
 * passes on only as many reporters as it needs.
 */
export class BroadcastQueue {
  /** Live broadcasts per member. */
  readonly #byMember = new Map<MemberId, Broadcast[]>();
  /** `#stacks[n]`: those sent n times. May hold stale ones. */
  readonly #stacks: Broadcast[][] = [];
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Queues a claim; queued claims about the same member that it supersedes are dropped. */
  put(claim: Claim): void {
    const kept: Broadcast[] = [];
    for (const held of this.#byMember.get(claim.member) ?? []) {
      if (isMadeStaleBy(held.claim, claim)) this.#discard(held);
      else kept.push(held);
    }
    const broadcast = { claim, sentCount: 0, isStale: false };
    kept.push(broadcast);
    this.#byMember.set(claim.member, kept);
    this.#push(broadcast);
    this.#size += 1;
  }

  /** Forgets whatever is queued about a member. */
  drop(member: MemberId): void {
    for (const held of this.#byMember.get(member) ?? []) this.#discard(held);
    this.#byMember.delete(member);
  }

  /**
   * Takes claims that fit into `bytesMax`, and counts each as sent once.
   *
   * @param bytesOf What a claim takes in the packet.
   * @param retransmitLimit A claim sent this often is done.
   */
  take(bytesMax: number, bytesOf: (claim: Claim) => number, retransmitLimit: number): Claim[] {
    const taken: Broadcast[] = [];
    let bytes = 0;
    for (const stack of this.#stacks) {
      const skipped: Broadcast[] = [];
      while (stack.length > 0) {
        const broadcast = stack.pop() as Broadcast;
        if (broadcast.isStale) continue;
        const needed = bytesOf(broadcast.claim);
        if (bytes + needed > bytesMax) {
          skipped.push(broadcast);
          // Claims are all about as long: where one does not fit, looking on is a waste.
          if (skipped.length >= FIT_ATTEMPTS_MAX) break;
          continue;
        }
        bytes += needed;
        taken.push(broadcast);
      }
      while (skipped.length > 0) stack.push(skipped.pop() as Broadcast);
      if (bytesMax - bytes < CLAIM_BYTES_MIN) break;
    }
    for (const broadcast of taken) this.#countSent(broadcast, retransmitLimit);
    return taken.map((broadcast) => broadcast.claim);
  }

  #countSent(broadcast: Broadcast, retransmitLimit: number): void {
    broadcast.sentCount += 1;
    if (broadcast.sentCount < retransmitLimit) {
      this.#push(broadcast);
      return;
    }
    const left = this.#byMember.get(broadcast.claim.member)?.filter((b) => b !== broadcast) ?? [];
    if (left.length === 0) this.#byMember.delete(broadcast.claim.member);
    else this.#byMember.set(broadcast.claim.member, left);
    this.#size -= 1;
  }

  #push(broadcast: Broadcast): void {
    while (this.#stacks.length <= broadcast.sentCount) this.#stacks.push([]);
    const stack = this.#stacks[broadcast.sentCount] as Broadcast[];
    stack.push(broadcast);
    // A member with nobody to talk to takes nothing: what went stale must not pile up.
    if (stack.length <= 2 * this.#size + STALE_SLACK) return;
    this.#stacks[broadcast.sentCount] = stack.filter((held) => !held.isStale);
  }

  #discard(broadcast: Broadcast): void {
    broadcast.isStale = true;
    this.#size -= 1;
  }
}

const FIT_ATTEMPTS_MAX = 3;
const STALE_SLACK = 64;
/** No claim is shorter than this with its header. */
const CLAIM_BYTES_MIN = 16;

/** The sentence "how often is a claim sent", as memberlist has it in code. */
export function retransmitLimit(mult: number, membersCount: number): number {
  return mult * Math.ceil(Math.log10(membersCount + 1));
}

function isMadeStaleBy(held: Claim, claim: Claim): boolean {
  if (supersedes(claim, held)) return true;
  return held.state === claim.state && held.reporter === claim.reporter;
}
