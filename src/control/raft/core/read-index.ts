import type { Prng } from '../../../base/prng.js';
import type { LogIndex, RaftId } from './types.js';

/** Reads of one member that wait, on the leader for a round and on a follower for the leader. */
export const READS_WAITING_MAX = 65_536;

/** Who wants a read index: the own shell (`from` 0), or a follower. */
export interface Reader {
  readonly from: RaftId | 0;
  readonly request: number;
}

export interface ReadAnswer {
  readonly reader: Reader;
  readonly index: LogIndex;
}

interface Round {
  readonly round: number;
  /** What was committed when the round began: at least what was when its readers asked. */
  readonly index: LogIndex;
  readonly readers: readonly Reader[];
}

/**
 * The reads of one leadership (thesis, 6.4). Those that ask between two rounds share the next one. A quorum that
 * answers a round after it began shows that until then no other leader was elected, hence that nothing was
 * committed that `index` does not cover.
 *
 * A round's number stands for one moment, and an answer counts only in the term it was given in. If requests
 * had numbers that they keep when they are repeated, an answer to the first could confirm the second.
 */
export class ReadRounds {
  #round = 0;
  #waiting: Reader[] = [];
  #open: Round[] = [];
  #readers = 0;

  /** The latest round; 0: none yet. */
  get round(): number {
    return this.#round;
  }

  get isOpen(): boolean {
    return this.#open.length > 0;
  }

  /** @returns False if too many wait already. */
  ask(reader: Reader): boolean {
    if (this.#readers >= READS_WAITING_MAX) return false;
    this.#readers++;
    this.#waiting.push(reader);
    return true;
  }

  /** A round for those who wait. @returns False if nobody does. */
  begin(commitIndex: LogIndex): boolean {
    if (this.#waiting.length === 0) return false;
    this.#open.push({ round: ++this.#round, index: commitIndex, readers: this.#waiting });
    this.#waiting = [];
    return true;
  }

  /** A quorum has answered `round` or a later one, and with it all rounds before. */
  confirm(round: number): readonly ReadAnswer[] {
    const answers: ReadAnswer[] = [];
    while ((this.#open[0]?.round ?? Number.POSITIVE_INFINITY) <= round) {
      const { index, readers } = this.#open.shift() as Round;
      for (const reader of readers) answers.push({ reader, index });
    }
    this.#readers -= answers.length;
    return answers;
  }

  /** Everybody who still waits, at the end of the leadership. */
  abandon(): readonly Reader[] {
    const readers = [...this.#open.flatMap((round) => round.readers), ...this.#waiting];
    this.#open = [];
    this.#waiting = [];
    this.#readers = 0;
    return readers;
  }
}

interface Question {
  readonly requests: readonly number[];
  readonly deadlineMs: number;
}

/** The reads of a follower, which its leader answers. Those of one batch are one question. */
export class ReadQuestions {
  readonly #timeoutMs: number;
  #next: number;
  #waiting: number[] = [];
  /** In the order of their deadlines. */
  readonly #asked = new Map<number, Question>();
  #requests = 0;

  constructor(timeoutMs: number, prng: Prng) {
    this.#timeoutMs = timeoutMs;
    // An answer to what this member asked before a restart must not pass for an answer to a new question.
    this.#next = prng.nextUint32() * 2 ** 20 + 1;
  }

  get deadlineMs(): number | undefined {
    return this.#asked.values().next().value?.deadlineMs;
  }

  /** @returns False if too many wait already. */
  add(request: number): boolean {
    if (this.#requests >= READS_WAITING_MAX) return false;
    this.#requests++;
    this.#waiting.push(request);
    return true;
  }

  /** The number of a question for all that wait; `undefined`: nothing does. */
  ask(nowMs: number): number | undefined {
    if (this.#waiting.length === 0) return undefined;
    const question = this.#next++;
    this.#asked.set(question, { requests: this.#waiting, deadlineMs: nowMs + this.#timeoutMs });
    this.#waiting = [];
    return question;
  }

  /** The requests that this answers; empty if it was not asked, or was given up. */
  answered(question: number): readonly number[] {
    const requests = this.#asked.get(question)?.requests ?? [];
    this.#asked.delete(question);
    this.#requests -= requests.length;
    return requests;
  }

  expired(nowMs: number): readonly number[] {
    const late: number[] = [];
    for (const [question, { deadlineMs }] of this.#asked) {
      if (deadlineMs > nowMs) break;
      late.push(...this.answered(question));
    }
    return late;
  }

  /** Everything, since the leader that was asked is not the leader any more. */
  abandon(): readonly number[] {
    const requests = [...[...this.#asked.values()].flatMap((asked) => asked.requests)];
    requests.push(...this.#waiting);
    this.#asked.clear();
    this.#waiting = [];
    this.#requests = 0;
    return requests;
  }
}
