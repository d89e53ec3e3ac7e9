import { SwarmError } from '../../base/swarm-error.js';
import type { NodeId } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import type { CallOutcome, LeaderHint, ProposeOutcome } from '../wire/forward-messages.js';
import { errorOf } from '../wire/refusal.js';
import type { AskOptions, ForwardClient, Unanswered } from './forward-client.js';
import { callMethod, type ForwardMethod, type Propose } from './forward-server.js';
import { newId } from './ids.js';

/** How long a proposal waits for a leader before it fails. */
const NO_LEADER_MS_MAX = 5_000;
/** How long a proposal tries in all, through changes of the leader. */
const PROPOSE_MS_MAX = 15_000;
/** One leader's time for one answer; then it is asked again, or another is. */
const ATTEMPT_MS_MAX = 5_000;
/** How long the own state may lag behind what the leader has said is done. */
const APPLY_MS_MAX = 5_000;
/** Proposals and calls under way; a further one is refused. */
const REQUESTS_MAX = 16_384;
const RETRY_FIRST_MS = 20;
const RETRY_MAX_MS = 500;
const NO_LEADER = 'the managers have no leader: too few of them are online, more than half must be';

/** Who leads, as this manager knows. */
export type LeaderPlace =
  | { readonly local: true }
  | { readonly local: false; readonly nodeId: NodeId; readonly address: LeaderHint['address'] };

export interface LeaderClientConfig {
  readonly self: NodeId;
  readonly log: Logger;
  readonly leader: () => LeaderPlace | undefined;
  /** Called after each change of what `leader` answers. */
  readonly onLeaderChange: (listener: () => void) => () => void;
  /** Proposes here; answers `not_leader` if this manager does not lead. */
  readonly propose: Propose;
  /** What other managers may call, and this one itself when it leads. */
  readonly methods: Readonly<Record<string, ForwardMethod>>;
  /** The client for a manager; it is closed by whoever made it. */
  readonly clientOf: (place: LeaderHint) => ForwardClient;
  /** Resolves when the own state has everything up to `index`. */
  readonly waitApplied: (index: number, signal: AbortSignal) => Promise<void>;
  readonly noLeaderMsMax?: number;
  readonly proposeMsMax?: number;
  readonly attemptMsMax?: number;
}

export interface LeaderClientStats {
  readonly waiting: number;
  /** Attempts beyond the first of each proposal. */
  readonly retries: number;
}

type Ask<Done> = (
  place: LeaderPlace,
  options: AskOptions & { readonly signal: AbortSignal },
) => Promise<Done | Exclude<CallOutcome, { readonly kind: 'result' }> | Unanswered>;

export interface CallOptions {
  readonly timeoutMs?: number;
  /** True: the method may be done twice without harm, so that it is tried again after a lost answer. */
  readonly repeatable?: boolean;
}

/**
 * Gets commands committed wherever the leader is. A command carries an id of its own through all
 * attempts, so that the store does it once however often it arrives.
 */
export class LeaderClient {
  readonly #config: LeaderClientConfig;
  readonly #closing = new AbortController();
  readonly #watchers = new Set<() => void>();
  readonly #unsubscribe: () => void;
  #requests = 0;
  #retries = 0;

  constructor(config: LeaderClientConfig) {
    this.#config = config;
    this.#unsubscribe = config.onLeaderChange(() => this.#wake());
  }

  stats(): LeaderClientStats {
    return { waiting: this.#requests, retries: this.#retries };
  }

  /**
   * Answers when the command holds and this manager's own state has it.
   * @throws SwarmError the store's refusal; `SWARM_NO_QUORUM` if certainly nothing was changed;
   *   `SWARM_OUTCOME_UNKNOWN` if it may have been.
   */
  async propose(command: object): Promise<{ readonly id: string; readonly index: number }> {
    const dedupe = newId<string>();
    const done = await this.#persist<Extract<ProposeOutcome, { kind: 'done' }>>(
      (place, options) =>
        place.local
          ? this.#config.propose(dedupe, command, this.#config.self)
          : this.#config.clientOf(place).propose(dedupe, command, options),
      { timeoutMs: this.#config.proposeMsMax ?? PROPOSE_MS_MAX, repeatable: true },
    );
    await this.#applied(done.index);
    return { id: done.id, index: done.index };
  }

  /**
   * Calls a method on the leader.
   * @throws SwarmError as `propose`.
   */
  async callLeader(method: string, params: unknown, options: CallOptions = {}): Promise<unknown> {
    const { timeoutMs = PROPOSE_MS_MAX, repeatable = false } = options;
    const { result } = await this.#persist<Extract<CallOutcome, { kind: 'result' }>>(
      (place, ask) =>
        place.local
          ? callMethod(this.#config, method, params, this.#config.self, ask.signal)
          : this.#config.clientOf(place).call(method, params, ask),
      { timeoutMs, repeatable },
    );
    return result;
  }

  /** What waits fails at once. */
  close(): void {
    this.#unsubscribe();
    this.#closing.abort();
    this.#wake();
  }

  #wake(): void {
    for (const watcher of [...this.#watchers]) watcher();
  }

  async #persist<Done extends { readonly kind: 'done' | 'result' }>(
    ask: Ask<Done>,
    options: Required<CallOptions>,
  ): Promise<Done> {
    if (this.#requests >= REQUESTS_MAX)
      throw noQuorum('too many changes wait for the leader: try again later');
    this.#requests++;
    try {
      return await this.#attempts(ask, options);
    } finally {
      this.#requests--;
    }
  }

  async #attempts<Done extends { readonly kind: 'done' | 'result' }>(
    ask: Ask<Done>,
    { timeoutMs, repeatable }: Required<CallOptions>,
  ): Promise<Done> {
    const endsAtMs = performance.now() + timeoutMs;
    /** Something was taken up of which nobody knows what became. */
    let unknown = false;
    let why: string | undefined;
    let hint: LeaderPlace | undefined;
    for (let attempt = 0; ; attempt++) {
      const place: LeaderPlace | undefined = hint ?? (await this.#leader(endsAtMs));
      const leftMs = endsAtMs - performance.now();
      if (place === undefined || leftMs <= 0 || this.#closing.signal.aborted)
        throw unknown ? outcomeUnknown() : noQuorum(why);
      if (attempt > 0) this.#retries++;
      const outcome: Awaited<ReturnType<Ask<Done>>> = await this.#attempt(ask, place, leftMs);
      if (outcome.kind === 'done' || outcome.kind === 'result') return outcome;
      if (outcome.kind === 'refused') throw errorOf(outcome.refusal);
      // One that was hinted at and does not lead either has no better knowledge than we have.
      const leader = outcome.kind === 'not_leader' && hint === undefined && outcome.leader;
      hint = leader ? this.#placeOf(place, leader) : undefined;
      if (outcome.kind === 'busy') why = outcome.reason;
      if (outcome.kind === 'unknown' || (outcome.kind === 'unanswered' && outcome.sent)) {
        unknown = true;
        if (!repeatable) throw outcomeUnknown();
      }
      if (hint === undefined) await this.#change(pauseMs(attempt));
    }
  }

  /** Asks one leader, and no longer than it is the leader. */
  async #attempt<Done>(
    ask: Ask<Done>,
    place: LeaderPlace,
    leftMs: number,
  ): Promise<Awaited<ReturnType<Ask<Done>>>> {
    const timeoutMs = Math.min(leftMs, this.#config.attemptMsMax ?? ATTEMPT_MS_MAX);
    const cancel = new AbortController();
    const timer = setTimeout(() => cancel.abort(), timeoutMs);
    const look = () => {
      const leader = this.#config.leader();
      if (this.#closing.signal.aborted || (leader && !isSame(leader, place))) cancel.abort();
    };
    this.#watchers.add(look);
    try {
      const asked = ask(place, { timeoutMs, signal: cancel.signal });
      // A question to another manager ends with the signal, and knows whether it was sent.
      return await (place.local ? Promise.race([asked, givenUp(cancel.signal)]) : asked);
    } finally {
      clearTimeout(timer);
      this.#watchers.delete(look);
    }
  }

  #placeOf(asked: LeaderPlace, { nodeId, address }: LeaderHint): LeaderPlace | undefined {
    const place: LeaderPlace =
      nodeId === this.#config.self ? { local: true } : { local: false, nodeId, address };
    return isSame(asked, place) ? undefined : place;
  }

  async #leader(endsAtMs: number): Promise<LeaderPlace | undefined> {
    const waitMs = this.#config.noLeaderMsMax ?? NO_LEADER_MS_MAX;
    const untilMs = Math.min(endsAtMs, performance.now() + waitMs);
    for (;;) {
      const leader = this.#config.leader();
      const leftMs = untilMs - performance.now();
      if (leader !== undefined || leftMs <= 0 || this.#closing.signal.aborted) return leader;
      await this.#change(leftMs);
    }
  }

  /** The next change of the leader, or the end of the time. */
  #change(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const settle = () => {
        clearTimeout(timer);
        this.#watchers.delete(settle);
        resolve();
      };
      const timer = setTimeout(settle, timeoutMs);
      this.#watchers.add(settle);
      if (this.#closing.signal.aborted) settle();
    });
  }

  async #applied(index: number): Promise<void> {
    const cancel = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(APPLY_MS_MAX)]);
    const applied = this.#config.waitApplied(index, cancel).then(() => true);
    const late = givenUp(cancel).then(() => false);
    if (await Promise.race([applied, late])) return;
    throw new SwarmError(
      { code: 'SWARM_OUTCOME_UNKNOWN' },
      'the change was made, but this manager has not heard of it yet: look again later',
    );
  }
}

function isSame(a: LeaderPlace, b: LeaderPlace): boolean {
  return a.local ? b.local : !b.local && a.nodeId === b.nodeId;
}

function pauseMs(attempt: number): number {
  return Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(attempt, 10));
}

/** A question that nobody waits for any more; it may have been taken up. */
function givenUp(signal: AbortSignal): Promise<Unanswered> {
  return new Promise((resolve) => {
    const settle = () => resolve({ kind: 'unanswered', sent: true, why: 'given up' });
    if (signal.aborted) settle();
    else signal.addEventListener('abort', settle, { once: true });
  });
}

function noQuorum(why: string | undefined): SwarmError {
  return new SwarmError({ code: 'SWARM_NO_QUORUM' }, why ?? NO_LEADER);
}

function outcomeUnknown(): SwarmError {
  return new SwarmError(
    { code: 'SWARM_OUTCOME_UNKNOWN' },
    'the managers lost each other while the change was made: look whether it holds, then try again',
  );
}
