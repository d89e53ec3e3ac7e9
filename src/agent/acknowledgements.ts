import { performance } from 'node:perf_hooks';
import { CoreDriver } from '../base/io/driver.js';
import {
  type AcknowledgementInput,
  type AcknowledgementReady,
  Acknowledgements,
  type Records,
} from '../gossip/index.js';
import type { Log } from './log.js';

/** A question is answered with nothing after this, so that who asks knows that somebody is there. */
const HOLD_MS = 2000;
/** How often flows are counted while somebody waits for their end. */
const FLOWS_POLL_MS = 10;
/** Other nodes' questions that are held at a time; a further one is answered at once. */
const HELD_ASKS_MAX = 1024;
/** For an answer, with the way there and back. */
const ANSWER_MS_MAX = 4000;

/** What is so on a node, as nodes ask each other for it. */
export type Fact =
  /** It decides by what the asking node wrote of this topic, up to here. */
  | { readonly kind: 'has'; readonly topic: string; readonly epoch: number; readonly seq: number }
  /** No connection goes through it to this task. */
  | { readonly kind: 'free'; readonly taskId: string };

/** `has TOPIC EPOCH SEQ`, `free TASK`. */
export function encodeFact(fact: Fact): string {
  if (fact.kind === 'free') return `free ${fact.taskId}`;
  return `has ${fact.topic} ${fact.epoch} ${fact.seq}`;
}

/** `undefined` for what is none. */
export function decodeFact(text: string): Fact | undefined {
  const has = /^has (\S+) (\d{1,15}) (\d{1,15})$/.exec(text);
  if (has !== null)
    return { kind: 'has', topic: has[1] ?? '', epoch: Number(has[2]), seq: Number(has[3]) };
  const free = /^free (\S+)$/.exec(text);
  return free === null ? undefined : { kind: 'free', taskId: free[1] ?? '' };
}

export interface AcknowledgementDependencies {
  readonly self: string;
  readonly records: Pick<Records, 'version' | 'isSubscribed' | 'behind'>;
  /** Whether the tables are derived from the records that are known now. */
  isDerived(): boolean;
  /** The packet thread decides by the tables that were derived last. */
  settled(): Promise<void>;
  /** Connections that go through this node to a task. */
  flowsTo(taskId: string): number;
  /** Another node's answer to these facts: those that are so. */
  ask(member: string, facts: readonly string[], signal: AbortSignal): Promise<readonly string[]>;
  readonly log: Log;
}

export interface AcknowledgementStats {
  readonly waits: number;
  readonly acknowledged: number;
  /** Waits that somebody had not acknowledged when the time was up. */
  readonly expired: number;
  /** How long the acknowledged ones took, added up. */
  readonly waitedMsTotal: number;
}

/**
 * What this node asks the others of its own records, and what they ask it: an owner goes on when all
 * live nodes decide by what it has published.
 */
export class NodeAcknowledgements {
  readonly #deps: AcknowledgementDependencies;
  readonly #core = new Acknowledgements();
  readonly #driver: CoreDriver<
    Exclude<AcknowledgementInput, { readonly kind: 'timeout' }>,
    AcknowledgementReady
  >;
  readonly #waits = new Map<number, (missing: readonly string[]) => void>();
  /** Those who wait for the next derivation. */
  readonly #held = new Set<() => void>();
  readonly #closing = new AbortController();
  #waitCount = 0;
  #acknowledged = 0;
  #expired = 0;
  #waitedMsTotal = 0;

  constructor(dependencies: AcknowledgementDependencies) {
    this.#deps = dependencies;
    this.#driver = new CoreDriver(this.#core, (ready) => this.#perform(ready));
    this.#driver.start();
    this.setMembers([]);
  }

  /** The others that are alive, or may be. */
  setMembers(ids: readonly string[]): void {
    // This node is asked like the others: it has a packet thread and flows too.
    this.#driver.input({ kind: 'members', ids: [this.#deps.self, ...ids] });
  }

  /** All live nodes decide by what this one has written of these topics up to now; or time is up. */
  async published(topics: readonly string[], forMs: number): Promise<boolean> {
    const { records, self } = this.#deps;
    const facts = topics.flatMap((topic) => {
      const version = records.version(topic, self);
      return version === undefined ? [] : [encodeFact({ kind: 'has', topic, ...version })];
    });
    return this.#wait(facts, forMs, true);
  }

  /** No connection goes through any live node to this task; or time is up, which is no fault. */
  freed(taskId: string, forMs: number): Promise<boolean> {
    return this.#wait([encodeFact({ kind: 'free', taskId })], forMs, false);
  }

  stats(): AcknowledgementStats {
    return {
      waits: this.#core.waitCount,
      acknowledged: this.#acknowledged,
      expired: this.#expired,
      waitedMsTotal: this.#waitedMsTotal,
    };
  }

  /** The tables are new. */
  derived(): void {
    for (const goOn of [...this.#held]) goOn();
  }

  /** Of facts that `asker` asks for, those that are so, as soon as one is; none after a while. */
  async answer(
    asker: string,
    asked: readonly string[],
    signal: AbortSignal,
  ): Promise<readonly string[]> {
    const facts = asked.flatMap((text) => {
      const fact = decodeFact(text);
      return fact === undefined ? [] : [{ text, fact }];
    });
    const waitsForFlows = facts.some(({ fact }) => fact.kind === 'free');
    const untilMs = performance.now() + HOLD_MS;
    this.#hurry(asker, facts);
    for (;;) {
      const found = facts.filter(({ fact }) => this.#isSo(asker, fact));
      const leftMs = untilMs - performance.now();
      const isOver = signal.aborted || leftMs <= 0 || this.#held.size >= HELD_ASKS_MAX;
      if (found.length > 0) await this.#deps.settled();
      if (found.length > 0 || isOver) return found.map(({ text }) => text);
      await this.#change(waitsForFlows ? Math.min(FLOWS_POLL_MS, leftMs) : leftMs);
    }
  }

  close(): void {
    this.#driver.stop();
    this.#closing.abort();
    for (const settle of this.#waits.values()) settle([]);
    this.#waits.clear();
    this.derived();
  }

  async #wait(facts: readonly string[], forMs: number, isExpected: boolean): Promise<boolean> {
    if (facts.length === 0 || this.#closing.signal.aborted) return true;
    this.#waitCount += 1;
    const id = this.#waitCount;
    const startedMs = performance.now();
    const missing = await new Promise<readonly string[]>((resolve) => {
      this.#waits.set(id, resolve);
      this.#driver.input({ kind: 'wait', id, facts, forMs });
    });
    if (missing.length === 0) {
      this.#acknowledged += 1;
      this.#waitedMsTotal += performance.now() - startedMs;
      return true;
    }
    if (isExpected) {
      this.#expired += 1;
      const detail = { nodes: missing, waitedMs: forMs };
      this.#deps.log.warn(detail, 'nodes have not acknowledged a change of tasks: going on');
    }
    return false;
  }

  /** In the order that `AcknowledgementReady` states. */
  #perform({ asks, settled }: AcknowledgementReady): void {
    for (const { ask, member, facts } of asks) void this.#ask(ask, member, facts);
    for (const { id, missing } of settled) {
      this.#waits.get(id)?.(missing);
      this.#waits.delete(id);
    }
  }

  async #ask(ask: number, member: string, facts: readonly string[]): Promise<void> {
    const { self } = this.#deps;
    const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(ANSWER_MS_MAX)]);
    try {
      const found =
        member === self
          ? await this.answer(self, facts, signal)
          : await this.#deps.ask(member, facts, signal);
      this.#driver.input({ kind: 'answer', ask, facts: found });
    } catch (error) {
      const detail = { node: member, error: (error as Error).message };
      this.#deps.log.debug(detail, 'a node did not acknowledge');
      this.#driver.input({ kind: 'failed', ask });
    }
  }

  #isSo(asker: string, fact: Fact): boolean {
    const { records, isDerived, flowsTo } = this.#deps;
    if (fact.kind === 'free') return flowsTo(fact.taskId) === 0;
    // Nothing is decided here by a topic that is not followed.
    if (!records.isSubscribed(fact.topic)) return true;
    return this.#isKnown(asker, fact) && isDerived();
  }

  #isKnown(asker: string, { topic, epoch, seq }: Extract<Fact, { kind: 'has' }>): boolean {
    const version = this.#deps.records.version(topic, asker);
    if (version === undefined) return false;
    return version.epoch > epoch || (version.epoch === epoch && version.seq >= seq);
  }

  /** Writes that are not here yet may have been lost on their way. */
  #hurry(asker: string, facts: readonly { readonly fact: Fact }[]): void {
    const { records, self } = this.#deps;
    const isBehind = facts.some(
      ({ fact }) =>
        fact.kind === 'has' && records.isSubscribed(fact.topic) && !this.#isKnown(asker, fact),
    );
    if (isBehind && asker !== self) records.behind(asker);
  }

  /** Until the tables are derived anew, or so much time is over. */
  #change(forMs: number): Promise<void> {
    return new Promise((resolve) => {
      const goOn = () => {
        clearTimeout(timer);
        this.#held.delete(goOn);
        resolve();
      };
      const timer = setTimeout(goOn, forMs);
      this.#held.add(goOn);
    });
  }
}
