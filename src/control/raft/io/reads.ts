import { nowMs } from '../../../base/io/driver.js';
import type { LogIndex } from '../core/types.js';
import { RaftError } from './raft-error.js';

/** Reads that wait. */
const READS_MAX = 65_536;

export interface ReadsConfig {
  /** Asks the core; the number is not used again. */
  readonly ask: (request: number) => void;
  /** Of the first request; random, since a number must not come again after a restart either. */
  readonly firstRequest: number;
  /** A round that is not answered in this time is lost, as messages are. */
  readonly roundMs: number;
  /** Between rounds while there is no leader. */
  readonly retryMs: number;
  /** After this a read is refused. */
  readonly patienceMs: number;
}

interface Reader {
  readonly deadlineMs: number;
  readonly resolve: () => void;
  readonly reject: (error: RaftError) => void;
}

/**
 * Linearizable reads in rounds: all that came before a round is asked for share its answer; what comes while
 * it is under way waits for the next, since the answer may be older than they are.
 */
export class Reads {
  readonly #config: ReadsConfig;
  #nextRequest: number;
  #waiting: Reader[] = [];
  #round: { readonly request: number; readonly readers: Reader[] } | undefined;
  /** Of the round's end, or of the next one's beginning. */
  #timer: NodeJS.Timeout | undefined;
  #paused = false;
  /** Confirmed; wait for the state machine to have the index. */
  #confirmed: { readonly index: LogIndex; readonly readers: readonly Reader[] }[] = [];
  #count = 0;

  constructor(config: ReadsConfig) {
    this.#config = config;
    this.#nextRequest = config.firstRequest;
  }

  get count(): number {
    return this.#count;
  }

  /** @throws RaftError RAFT_NO_LEADER, RAFT_OVERLOADED (as a rejection). */
  add(): Promise<void> {
    if (this.#count >= READS_MAX)
      return Promise.reject(
        new RaftError({ code: 'RAFT_OVERLOADED' }, 'too many reads wait: try again in a moment'),
      );
    this.#count++;
    return new Promise((resolve, reject) => {
      this.#waiting.push({ deadlineMs: nowMs() + this.#config.patienceMs, resolve, reject });
    });
  }

  /** Begins a round if that makes sense. To be called once a turn. */
  poll(): void {
    if (this.#waiting.length > 0 && this.#round === undefined && !this.#paused) this.#begin();
  }

  /** There is another leader than before: what was asked of the old one is asked again. */
  onLeader(): void {
    this.#giveUpRound();
    this.#paused = false;
    clearTimeout(this.#timer);
  }

  onAnswer(request: number, index: LogIndex | undefined, appliedIndex: LogIndex): void {
    const round = this.#round;
    if (round?.request !== request) return;
    if (index === undefined) {
      this.#retryLater();
      return;
    }
    clearTimeout(this.#timer);
    this.#round = undefined;
    if (index <= appliedIndex) this.#resolve(round.readers);
    else this.#confirmed.push({ index, readers: round.readers });
  }

  onApplied(appliedIndex: LogIndex): void {
    if (this.#confirmed.length === 0) return;
    const due = this.#confirmed.filter(({ index }) => index <= appliedIndex);
    if (due.length === 0) return;
    this.#confirmed = this.#confirmed.filter(({ index }) => index > appliedIndex);
    for (const { readers } of due) this.#resolve(readers);
  }

  close(error: RaftError): void {
    clearTimeout(this.#timer);
    this.#giveUpRound();
    for (const { reject } of this.#waiting) reject(error);
    for (const { readers } of this.#confirmed) for (const { reject } of readers) reject(error);
    this.#waiting = [];
    this.#confirmed = [];
    this.#count = 0;
  }

  #begin(): void {
    const request = this.#nextRequest++;
    this.#round = { request, readers: this.#waiting };
    this.#waiting = [];
    this.#timer = setTimeout(() => this.#retryLater(), this.#config.roundMs);
    this.#config.ask(request);
  }

  #retryLater(): void {
    clearTimeout(this.#timer);
    this.#giveUpRound();
    this.#expire();
    this.#paused = true;
    this.#timer = setTimeout(() => {
      this.#paused = false;
      this.#expire();
      this.poll();
    }, this.#config.retryMs);
  }

  #giveUpRound(): void {
    if (this.#round === undefined) return;
    this.#waiting = [...this.#round.readers, ...this.#waiting];
    this.#round = undefined;
  }

  #expire(): void {
    const now = nowMs();
    const patient = this.#waiting.filter(({ deadlineMs }) => deadlineMs > now);
    if (patient.length === this.#waiting.length) return;
    const error = new RaftError(
      { code: 'RAFT_NO_LEADER' },
      'the managers have no leader: more than half of them must be reachable',
    );
    for (const reader of this.#waiting) if (reader.deadlineMs <= now) reader.reject(error);
    this.#count -= this.#waiting.length - patient.length;
    this.#waiting = patient;
  }

  #resolve(readers: readonly Reader[]): void {
    this.#count -= readers.length;
    for (const { resolve } of readers) resolve();
  }
}
