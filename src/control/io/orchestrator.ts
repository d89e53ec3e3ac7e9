import { randomInt } from 'node:crypto';
import { CoreDriver, nowMs } from '../../base/io/driver.js';
import { Prng } from '../../base/prng.js';
import { SwarmError } from '../../base/swarm-error.js';
import type { TaskId } from '../../base/swarm-model.js';
import {
  type CommandGroup,
  Orchestrator,
  type OrchestratorStats,
  type Refusal,
} from '../orchestrate/index.js';
import { RaftError } from '../raft/index.js';
import { newId } from './ids.js';
import type { ManagerScope } from './manager-scope.js';
import { commandOf, StoreView, viewChanges } from './orchestrate-store.js';

/** Commands of one transaction; a group is never divided. */
const TRANSACTION_COMMANDS = 256;
/** How often a manager looks whether it leads, besides whenever it is told. */
const LEAD_INTERVAL_MS = 1_000;
const SEEDS = 2 ** 47;

type Driver = CoreDriver<Parameters<Orchestrator['step']>[0], { groups: readonly CommandGroup[] }>;

/** One reign: from when this manager leads until it does not. */
interface Reign {
  /** Of raft, in which this manager leads. */
  readonly term: number;
  readonly core: Orchestrator;
  readonly driver: Driver;
}

/** Runs orchestration while this manager leads. What is under way when it ends, the next leader sees in the store. */
export class LeaderOrchestrator {
  readonly #scope: ManagerScope;
  readonly #view: StoreView;
  readonly #timer: NodeJS.Timeout;
  readonly #unsubscribe: readonly (() => void)[];
  #reign: Reign | undefined;
  #isBeginning = false;
  #closed = false;

  constructor(scope: ManagerScope) {
    this.#scope = scope;
    const { replica } = scope;
    this.#view = new StoreView(replica.state);
    this.#timer = setInterval(() => this.#follow(), LEAD_INTERVAL_MS);
    this.#timer.unref();
    this.#unsubscribe = [
      replica.watch((changes) => {
        const seen = viewChanges(changes);
        if (seen.length > 0) this.#reign?.driver.input({ kind: 'changes', changes: seen });
        this.#follow();
      }),
      // What a snapshot has brought is another state: whoever leads begins anew.
      replica.onRestored(() => this.#end()),
      replica.onStatus(() => this.#follow()),
    ];
    this.#follow();
  }

  /** Of this manager's present reign; absent: it does not lead. */
  stats(): OrchestratorStats | undefined {
    return this.#reign?.core.stats();
  }

  close(): void {
    this.#closed = true;
    clearInterval(this.#timer);
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#end();
  }

  #follow(): void {
    if (this.#closed) return;
    const { role, leaderReady, term } = this.#scope.replica.current;
    const leads = role === 'leader' && leaderReady;
    if (!leads || this.#reign?.term !== term) this.#end();
    if (leads && this.#reign === undefined && !this.#isBeginning) void this.#begin(term);
  }

  /** Only when everything that leaders before have committed is in the state it may be looked at. */
  async #begin(term: number): Promise<void> {
    this.#isBeginning = true;
    try {
      await this.#scope.replica.raft.read();
    } catch {
      // Not the leader any more, or not sure to be: it is looked at again in a while.
      return;
    } finally {
      this.#isBeginning = false;
    }
    const { current } = this.#scope.replica;
    if (this.#closed || current.role !== 'leader' || current.term !== term) return;
    const clock = this.#clock();
    const core = new Orchestrator(
      { newTaskId: () => newId<TaskId>(), prng: new Prng(randomInt(SEEDS)) },
      this.#view,
      clock(),
    );
    const driver: Driver = new CoreDriver(
      core,
      ({ groups }) => {
        if (groups.length > 0) void this.#commit(driver, groups, clock());
      },
      clock,
    );
    this.#reign = { term, core, driver };
    driver.start();
  }

  #end(): void {
    this.#reign?.driver.stop();
    this.#reign = undefined;
  }

  /** Never behind what is written already, so that rows are in the order in which they were made. */
  #clock(): () => number {
    let latestMs = this.#scope.now();
    for (const { createdAtMs } of this.#view.tasks()) latestMs = Math.max(latestMs, createdAtMs);
    const originMs = latestMs - nowMs();
    // Times in the store are whole milliseconds, as all others that agents tell each other.
    return () => Math.floor(originMs + nowMs());
  }

  async #commit(driver: Driver, groups: readonly CommandGroup[], atMs: number): Promise<void> {
    const refused: Refusal[] = [];
    try {
      const batches = packed(groups);
      const outcomes = await Promise.allSettled(
        batches.map((batch) => this.#propose(batch.flat(), atMs)),
      );
      for (const [i, outcome] of outcomes.entries()) {
        if (outcome.status === 'fulfilled') continue;
        if (!(outcome.reason instanceof SwarmError)) throw outcome.reason;
        // One of them was refused, and the others with it: each by itself, then.
        for (const group of batches[i] ?? []) {
          const reason = await this.#tryOne(group, atMs);
          if (reason !== undefined) refused.push({ group, reason });
        }
      }
    } catch (error) {
      // No leader any more, or not sure to be: what became of it the next one will see.
      if (!(error instanceof RaftError))
        this.#scope.log.warn({ err: error }, 'orchestration begins anew');
      if (this.#reign?.driver === driver) this.#end();
      return;
    }
    for (const { reason } of refused) this.#scope.log.warn({ reason }, 'a task was refused');
    driver.input({ kind: 'settled', refused });
  }

  async #tryOne(group: CommandGroup, atMs: number): Promise<string | undefined> {
    try {
      await this.#propose(group, atMs);
      return undefined;
    } catch (error) {
      if (error instanceof SwarmError) return error.message;
      throw error;
    }
  }

  /** Here and nowhere else: another leader would have decided otherwise. */
  async #propose(group: CommandGroup, atMs: number): Promise<void> {
    const commands = group.map(commandOf);
    await this.#scope.replica.propose({
      dedupe: newId<string>(),
      command: { kind: 'transaction', commands, atMs },
    });
  }
}

function packed(groups: readonly CommandGroup[]): readonly CommandGroup[][] {
  const batches: CommandGroup[][] = [];
  let count = TRANSACTION_COMMANDS;
  for (const group of groups) {
    if (count + group.length > TRANSACTION_COMMANDS) {
      batches.push([]);
      count = 0;
    }
    batches.at(-1)?.push(group);
    count += group.length;
  }
  return batches;
}
