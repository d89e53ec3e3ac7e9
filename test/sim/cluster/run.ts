import { Prng } from '../../../src/base/prng.js';
import {
  isTerminal,
  type ServiceObject,
  type TaskObject,
} from '../../../src/base/service-model.js';
import { Violation } from '../raft/violation.js';
import { Nemesis } from './user.js';
import { ClusterWorld, type OrchestratorClass, type Weather } from './world.js';

export interface RunOptions {
  readonly orchestrator: OrchestratorClass;
  readonly trace?: (line: string) => void;
}

export interface RunResult {
  readonly seed: number;
  /** What must never be, and was. */
  readonly failure: string | undefined;
  readonly commits: number;
  readonly refusals: number;
  readonly leaders: number;
  readonly services: number;
  readonly restarts: number;
  readonly replacements: number;
  readonly faults: ReadonlyMap<string, number>;
}

const TROUBLE_MS = 90_000;
/** Everything must be as it is to be within this time after the last trouble. */
const HEAL_MS = 300_000;
/** And then nothing changes any more. */
const REST_MS = 20_000;

/** One whole life of a cluster, and the verdict on it. */
export function runSeed(seed: number, options: RunOptions): RunResult {
  const weather = weatherOf(seed);
  const world = new ClusterWorld(seed, { ...options, weather });
  const nemesis = new Nemesis(world);
  let failure: string | undefined;
  try {
    live(world, nemesis);
  } catch (error) {
    failure = reasonOf(error);
    world.trace(failure);
  }
  const { commits, refusals, leaders, checker } = world;
  return {
    seed,
    failure,
    commits,
    refusals,
    leaders,
    services: checker.services.size,
    restarts: checker.restarts,
    replacements: checker.replacements,
    faults: nemesis.counts,
  };
}

function weatherOf(seed: number): Weather {
  const prng = new Prng(seed ^ 0x5ea);
  const isRough = prng.chance(0.5);
  return {
    tempo: { stepMs: [5, 600], stopMs: [10, 4_000], runMs: [100, 8_000] },
    delayMs: isRough ? [1, 800] : [1, 50],
    lossChance: isRough ? 0.15 : 0,
    repeatChance: isRough ? 0.2 : 0,
    commitMs: isRough ? [1, 60] : [1, 5],
    noticeMs: [500, 4_000],
    interregnumMs: [100, 4_000],
    skewMs: isRough ? 3_000 : 50,
  };
}

function live(world: ClusterWorld, nemesis: Nemesis): void {
  const { prng, time } = world;
  world.changeLeader(10);
  for (let i = 3 + prng.nextBelow(3); i > 0; i--) nemesis.addNode();
  for (let i = 1 + prng.nextBelow(3); i > 0; i--) nemesis.createService();
  const strikes = 3 + prng.nextBelow(25);
  for (let i = 0; i < strikes; i++)
    time.at(2_000 + prng.nextFloat() * (TROUBLE_MS - 2_000), () => nemesis.strike());
  time.run(TROUBLE_MS);
  world.trace('- healing');
  // What was struck last has its own time to come back.
  time.at(TROUBLE_MS + 35_000, () => nemesis.heal());
  time.run(TROUBLE_MS + 36_000);
  const isWell = time.run(TROUBLE_MS + 36_000 + HEAL_MS, () => faultOf(world) === undefined, 500);
  if (!isWell) throw new Violation(`not as it is to be: ${faultOf(world)}`);
  // An update is watched for a while after its last task; only then there is nothing left to do.
  time.run(time.nowMs + 30_000);
  const before = world.commits;
  time.run(time.nowMs + REST_MS);
  if (world.commits !== before) throw new Violation('it never comes to rest');
  const fault = faultOf(world);
  if (fault !== undefined) throw new Violation(`it was well, and is not: ${fault}`);
}

/** What is not as the services want it. */
function faultOf(world: ClusterWorld): string | undefined {
  for (const service of world.store.services()) {
    const fault = serviceFault(world, service);
    if (fault !== undefined) return `${service.spec.name}: ${fault}`;
  }
  for (const id of world.checker.runningServices)
    if (world.store.service(id) === undefined) return `${id} is gone, and its tasks run`;
  return undefined;
}

function serviceFault(world: ClusterWorld, service: ServiceObject): string | undefined {
  if (service.pendingDelete === true) return 'it is not forgotten';
  const { mode } = service.spec;
  const tasks = [...world.store.tasksOfService(service.id)];
  const waiting = tasks.find(
    (task) => task.nodeId === undefined && task.desiredState === 'running',
  );
  if (waiting !== undefined) return `${waiting.id} waits: ${waiting.status.error}`;
  const status = service.updateStatus?.state;
  if (status === 'updating' || status === 'rollback_started') return `it is ${status} still`;
  if (mode.kind === 'replicated-job' || mode.kind === 'global-job') {
    const nodes = [...world.store.nodes()].length;
    const total = mode.kind === 'global-job' ? nodes : mode.totalCompletions;
    const done = tasks.filter(
      (task) => task.status.state === 'complete' && task.jobIteration === service.job?.iteration,
    ).length;
    return done === total ? undefined : `${done} of ${total} are done`;
  }
  const want = mode.kind === 'global' ? [...world.store.nodes()].length : mode.replicas;
  const running = tasks.filter(isRunning);
  if (running.length !== want) return `${running.length} tasks run, and ${want} are to`;
  const slots = new Set(running.map(({ slot, nodeId }) => slot || nodeId));
  if (slots.size !== want) return 'two tasks run in one place';
  const images = new Set(running.map(({ spec }) => spec.container.image));
  const isPaused = status === 'paused' || status === 'rollback_paused';
  if (
    !isPaused &&
    want > 0 &&
    (images.size !== 1 || !images.has(service.spec.task.container.image))
  )
    return `what runs is ${[...images]}`;
  const truth = world.checker.runningOf(service.id).length;
  if (truth !== want) return `${truth} programs run in truth, and ${want} are to`;
  const limit = Math.max(world.store.taskHistoryRetentionLimit, 1);
  for (const key of slots) {
    const rows = tasks.filter((task) => (task.slot || task.nodeId) === key).length;
    if (rows > limit) return `${rows} tasks are kept of ${key}`;
  }
  return undefined;
}

function isRunning({ desiredState, status }: TaskObject): boolean {
  return desiredState === 'running' && status.state === 'running' && !isTerminal(status.state);
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (error instanceof Violation) return error.message;
  const [, ...places] = (error.stack ?? '').split('\n');
  return `${error.name}: ${error.message} ${places.slice(0, 4).join(' ').replace(/\s+/g, ' ')}`;
}
