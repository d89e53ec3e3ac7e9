import { assert } from '../../../base/assert.js';
import type {
  LogEntry,
  LogIndex,
  ProposalOutcome,
  RaftId,
  SnapshotMeta,
  Term,
} from '../core/types.js';
import type { RaftError } from './raft-error.js';
import { lostError, refusalError, unknownOutcome } from './raft-error.js';

/** Proposals that are not applied yet, and their bytes. */
const PROPOSALS_MAX = 32_768;
const PROPOSALS_BYTES_MAX = 64 << 20;

interface Waiter {
  readonly sizeBytes: number;
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: RaftError) => void;
}

interface Placed extends Waiter {
  readonly term: Term;
}

/** Who waits for which proposal: by token until the core has given it a place in the log, then by that. */
export class Proposals {
  /** Taken by the shell, not yet by the core. */
  readonly #unplaced = new Map<number, Waiter>();
  readonly #placed = new Map<LogIndex, Placed>();
  #nextToken = 1;
  #bytes = 0;
  #appliedTerm: Term = 0;

  get count(): number {
    return this.#unplaced.size + this.#placed.size;
  }

  /** @throws RaftError RAFT_OVERLOADED (as a rejection). */
  add(sizeBytes: number, propose: (token: number) => void): Promise<unknown> {
    if (this.count >= PROPOSALS_MAX || this.#bytes + sizeBytes > PROPOSALS_BYTES_MAX)
      return Promise.reject(refusalError('overloaded', 0));
    return new Promise((resolve, reject) => {
      const token = this.#nextToken++;
      this.#bytes += sizeBytes;
      this.#unplaced.set(token, { sizeBytes, resolve, reject });
      propose(token);
    });
  }

  /** @param leader Whom to ask instead of this member. */
  onOutcome(outcome: ProposalOutcome, leader: RaftId | 0): void {
    const waiter = this.#unplaced.get(outcome.token);
    if (waiter === undefined) return;
    this.#unplaced.delete(outcome.token);
    if ('refused' in outcome) {
      this.#bytes -= waiter.sizeBytes;
      waiter.reject(refusalError(outcome.refused, leader));
      return;
    }
    // There was another leader in between, who did not have it; but as long as nothing else is committed
    // in that place, a third one may.
    this.#settle(outcome.index)?.reject(unknownOutcome());
    this.#placed.set(outcome.index, { ...waiter, term: outcome.term });
  }

  /** The entry was applied, here, with that result. */
  onApplied(entry: LogEntry, result: unknown): void {
    if (entry.term > this.#appliedTerm) {
      this.#appliedTerm = entry.term;
      if (this.#placed.size > 0) this.#onTerm(entry.term, entry.index);
    }
    const waiter = this.#settle(entry.index);
    if (waiter === undefined) return;
    assert(waiter.term === entry.term, 'an entry is of the term of its leader');
    waiter.resolve(result);
  }

  /** The state machine jumped: what was applied on the way is not known here. */
  onRestored({ index, term }: SnapshotMeta): void {
    for (const [at] of this.#placed) if (at <= index) this.#settle(at)?.reject(unknownOutcome());
    this.#appliedTerm = Math.max(this.#appliedTerm, term);
    this.#onTerm(term, index + 1);
  }

  /** Waits no longer for the outcome of what was proposed before `term`. */
  forgetBefore(term: Term): void {
    for (const [index, waiter] of this.#placed)
      if (waiter.term < term) this.#settle(index)?.reject(unknownOutcome());
  }

  /** @param error For those that were not taken up. */
  close(error: RaftError): void {
    for (const { reject } of this.#unplaced.values()) reject(error);
    for (const { reject } of this.#placed.values()) reject(unknownOutcome());
    this.#unplaced.clear();
    this.#placed.clear();
    this.#bytes = 0;
  }

  /** Terms never decrease along the log: from here on nothing of an earlier term can be in it. */
  #onTerm(term: Term, from: LogIndex): void {
    for (const [index, waiter] of this.#placed)
      if (index >= from && waiter.term < term) this.#settle(index)?.reject(lostError());
  }

  #settle(index: LogIndex): Placed | undefined {
    const waiter = this.#placed.get(index);
    if (waiter === undefined) return undefined;
    this.#placed.delete(index);
    this.#bytes -= waiter.sizeBytes;
    return waiter;
  }
}
