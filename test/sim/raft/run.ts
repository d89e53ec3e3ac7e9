import { checkIndexOrder, checkLinearizable } from '../../support/linearizability.js';
import { configOf, type RunConfig } from './config.js';
import { MODEL } from './machine.js';
import type { RaftClass } from './node.js';
import type { Sight } from './sights.js';
import { Violation } from './violation.js';
import { RaftWorld } from './world.js';

export interface RunOptions {
  readonly raft: RaftClass;
  readonly guards?: boolean;
  readonly trace?: (line: string) => void;
  /** A change to what the seed gives. */
  readonly amend?: (config: RunConfig) => RunConfig;
}

export interface RunResult {
  readonly seed: number;
  readonly nodeCount: number;
  /** What must never be, and was. */
  readonly failure: string | undefined;
  /** The history was too entangled to decide on. */
  readonly isUndecided: boolean;
  readonly messages: number;
  readonly entries: number;
  readonly elections: number;
  readonly acknowledged: number;
  readonly unknown: number;
  readonly faults: ReadonlyMap<string, number>;
  readonly sights: ReadonlyMap<Sight, number>;
  readonly digest: number;
}

/** One whole life of a group, and the verdict on it. */
export function runSeed(seed: number, nodeCount: number, options: RunOptions): RunResult {
  const { raft, guards = true, trace, amend = (config) => config } = options;
  const world = new RaftWorld(amend(configOf(seed, nodeCount)), { raft, guards, trace });
  let failure: string | undefined;
  let isUndecided = false;
  try {
    world.run();
    isUndecided = judge(world) === 'undecided';
  } catch (error) {
    failure = reasonOf(error);
    trace?.(`at ${world.scheduler.nowMs.toFixed(3)} ms: ${failure}`);
  }
  const { history } = world.clients;
  return {
    seed,
    nodeCount,
    failure,
    isUndecided,
    messages: world.network.sent,
    entries: world.ledger.appliedIndex,
    elections: world.ledger.elections,
    acknowledged: history.filter(({ returnMs }) => returnMs !== undefined).length,
    unknown: history.filter(({ returnMs }) => returnMs === undefined).length,
    faults: world.nemesis.counts,
    sights: world.sights.counts,
    digest: world.digest,
  };
}

/** What the clients saw, with a last look at every key. */
function judge(world: RaftWorld): 'linearizable' | 'undecided' {
  const { history } = world.clients;
  const machine = world.leader()?.machine;
  const callMs = world.scheduler.nowMs;
  const last = [...(machine?.values ?? [])].map(([key, output]) => ({
    key,
    input: { kind: 'read' as const, key },
    output,
    callMs,
    returnMs: callMs + 1,
  }));
  const disorder = checkIndexOrder(world.clients.witnesses());
  if (disorder !== undefined) throw new Violation(`not in the order of the log: ${disorder}`);
  const verdict = checkLinearizable(MODEL, [...history, ...last]);
  if (verdict.kind !== 'violation') return verdict.kind;
  const { stuck, order } = verdict;
  const before = order.slice(-5).map((operation) => JSON.stringify(operation));
  throw new Violation(
    `not linearizable: ${JSON.stringify(stuck)} fits nowhere; before it ${before.join(' ')}`,
  );
}

/** A violation, or an assertion of the core's own; where, too, if it is a crash of the code. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof Violation) return error.message;
  const [, ...places] = (error.stack ?? '').split('\n');
  return `${error.name}: ${error.message} ${places.slice(0, 3).join(' ').replace(/\s+/g, ' ')}`;
}
