import type { Prng } from '../../../base/prng.js';
import { type Verdict, verdict } from './quorum.js';
import type { RaftConfig, RaftId } from './types.js';

/**
 * When to stand, whether there is a leader to stand by, and the votes of the election under way.
 *
 * The wait is drawn anew from [1, 2) election timeouts at every change of role or term, so that two
 * candidates that collided do not collide again (Raft paper, 5.2).
 */
export class Election {
  readonly #electionTimeoutMs: number;
  readonly #prng: Prng;
  #waitMs = 0;
  #deadlineMs = 0;
  /** When the leader was last heard of; undefined: it is not there, or known to be gone. */
  #heardMs: number | undefined;
  readonly #votes = new Map<RaftId, boolean>();

  constructor(config: RaftConfig, prng: Prng) {
    this.#electionTimeoutMs = config.electionTimeoutMs;
    this.#prng = prng;
  }

  get deadlineMs(): number {
    return this.#deadlineMs;
  }

  /** A new wait, and no votes. */
  begin(nowMs: number): void {
    this.#waitMs = this.#electionTimeoutMs + this.#prng.nextBelow(this.#electionTimeoutMs);
    this.#votes.clear();
    this.postpone(nowMs);
  }

  /** Waits once more as long, since a candidate was just voted for. */
  postpone(nowMs: number): void {
    this.#deadlineMs = nowMs + this.#waitMs;
  }

  heardLeader(nowMs: number): void {
    this.#heardMs = nowMs;
    this.postpone(nowMs);
  }

  /** Somebody must stand soon, and better not all at once. */
  leaderGone(nowMs: number): void {
    this.forgetLeader();
    this.#deadlineMs = nowMs + this.#prng.nextBelow(Math.ceil(this.#electionTimeoutMs / 4));
  }

  forgetLeader(): void {
    this.#heardMs = undefined;
  }

  /** Whoever hears a leader helps nobody to depose it (thesis, 4.2.3). */
  clingsToLeader(nowMs: number): boolean {
    return this.#heardMs !== undefined && nowMs - this.#heardMs < this.#electionTimeoutMs;
  }

  /** The only voter need not wait for anybody. */
  standAt(ms: number): void {
    this.#deadlineMs = ms;
  }

  /** The first answer of a voter counts. */
  record(voter: RaftId, granted: boolean): void {
    if (!this.#votes.has(voter)) this.#votes.set(voter, granted);
  }

  verdict(voters: readonly RaftId[]): Verdict {
    return verdict(voters, this.#votes);
  }
}
