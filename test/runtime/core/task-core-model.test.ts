import fc from 'fast-check';
import t from 'tap';
import { Prng } from '../../../src/base/prng.js';
import {
  compareTaskStates,
  isTerminal,
  type TaskObject,
  type TaskState,
} from '../../../src/base/service-model.js';
import type { TaskId } from '../../../src/base/swarm-model.js';
import type { KnownTask } from '../../../src/runtime/core/runtime.js';
import { TaskCore } from '../../../src/runtime/core/task-core.js';
import type {
  Outcome,
  RememberedTask,
  TaskAction,
  TaskInput,
} from '../../../src/runtime/core/task-input.js';
import { fuzzRuns } from '../../support/fuzz.js';
import { MESH, taskId, taskObject } from '../../support/tasks.js';

const CONFIG = { preparesMax: 2, prepareSlotMs: 5000, silenceMs: 10_000 };
const NAMES = ['a', 'b', 'c', 'd'];
/** Of the first: it has no number yet. */
const PORT = { protocol: 'tcp', targetPort: 80, publishMode: 'host' } as const;

/** What a runtime really has of a task. */
interface Real {
  has: 'none' | 'made' | 'live' | 'ended';
  isWired: boolean;
  pid: number;
  exitCode: number;
}

type Command =
  | { readonly kind: 'assign'; readonly at: number; readonly desired: TaskState }
  | { readonly kind: 'unassign'; readonly at: number }
  | { readonly kind: 'die'; readonly at: number; readonly exitCode: number }
  | { readonly kind: 'sick'; readonly at: number }
  | { readonly kind: 'managers'; readonly isHeard: boolean }
  | { readonly kind: 'restart' }
  | { readonly kind: 'pass'; readonly ms: number };

/**
 * A node with a core and a runtime that is slow, fails and hangs by a seed; every rule of a task's life is
 * checked at each action and each report.
 */
class World {
  readonly #prng: Prng;
  readonly #trouble: number;
  readonly #real = new Map<TaskId, Real>();
  readonly #told = new Map<TaskId, RememberedTask>();
  readonly #assigned = new Map<TaskId, TaskObject>();
  /** Unanswered actions of the core that lives now, by task. */
  #pending = new Map<TaskId, number>();
  readonly #events: { readonly atMs: number; readonly run: () => void }[] = [];
  #core: TaskCore;
  #life = 0;
  #isHeard = true;
  #nowMs = 0;
  #pids = 0;
  /** No more hanging, failing or restarting from here on. */
  isCalm = false;

  constructor(seed: number, trouble: number) {
    this.#prng = new Prng(seed);
    this.#trouble = trouble;
    this.#core = this.#open();
  }

  get isHeard(): boolean {
    return this.#isHeard;
  }

  run(command: Command): void {
    switch (command.kind) {
      case 'assign': {
        const id = taskId(NAMES[command.at] ?? '');
        const before = this.#assigned.get(id);
        const isLater = before && compareTaskStates(before.desiredState, command.desired) > 0;
        const desiredState = isLater ? before.desiredState : command.desired;
        this.#assigned.set(
          id,
          taskObject({
            id: NAMES[command.at] ?? '',
            networks: MESH,
            desiredState,
            ports: command.at === 0 ? [PORT] : [],
          }),
        );
        this.#assign(true);
        break;
      }
      case 'unassign':
        this.#assigned.delete(taskId(NAMES[command.at] ?? ''));
        this.#assign(true);
        break;
      case 'die':
        this.#die(taskId(NAMES[command.at] ?? ''), command.exitCode);
        break;
      case 'sick': {
        const id = taskId(NAMES[command.at] ?? '');
        if (this.#real.get(id)?.has === 'live')
          this.#step({ kind: 'health', id, health: 'unhealthy' });
        break;
      }
      case 'managers':
        this.#isHeard = command.isHeard;
        this.#step({ kind: 'managers', isHeard: command.isHeard });
        break;
      case 'restart':
        this.#core = this.#open();
        break;
      case 'pass':
        this.pass(command.ms);
    }
  }

  pass(ms: number): void {
    const endMs = this.#nowMs + ms;
    for (let spins = 0; ; spins += 1) {
      if (spins > 20_000) throw new Error('time stands still');
      this.#events.sort((a, b) => a.atMs - b.atMs);
      const event = this.#events[0]?.atMs ?? Number.POSITIVE_INFINITY;
      const deadline = this.#core.nextDeadlineMs() ?? Number.POSITIVE_INFINITY;
      const nextMs = Math.min(event, deadline);
      if (nextMs > endMs) break;
      this.#nowMs = Math.max(this.#nowMs, nextMs);
      if (event <= deadline) this.#events.shift()?.run();
      else {
        this.#step({ kind: 'timeout' });
        const after = this.#core.nextDeadlineMs();
        if (after !== undefined && after <= this.#nowMs) throw new Error('it would spin');
      }
    }
    this.#nowMs = endMs;
  }

  endAll(): void {
    this.isCalm = true;
    for (const [id, task] of this.#assigned)
      this.#assigned.set(id, { ...task, desiredState: 'shutdown' });
    this.#assign(true);
    this.pass(200_000);
    for (const id of this.#assigned.keys()) {
      if (this.#real.get(id)?.has === 'live') throw new Error(`${id} still runs`);
      const told = this.#told.get(id)?.state ?? 'new';
      if (!isTerminal(told)) throw new Error(`${id} is ${told} after all`);
    }
    this.#assigned.clear();
    this.#assign(true);
    this.pass(200_000);
    for (const [id, { has }] of this.#real) if (has !== 'none') throw new Error(`${id} is ${has}`);
  }

  /** A new agent on the same runtime: what was under way in the old one has happened, or never will. */
  #open(): TaskCore {
    this.#life += 1;
    for (const { run } of this.#events.splice(0)) if (this.#prng.chance(0.5)) run();
    this.#pending = new Map();
    this.#core = new TaskCore(CONFIG, new Map(this.#told));
    const tasks = [...this.#real].flatMap(([id, real]): KnownTask[] => {
      if (real.has === 'none') return [];
      real.isWired = false;
      const state = real.has === 'made' ? 'prepared' : real.has === 'live' ? 'running' : 'exited';
      const { pid, exitCode } = real;
      const ended = state === 'exited' ? { exitCode } : {};
      const netns = '/n';
      return [{ id, containerId: id, state, pid, netns, health: 'none', labels: {}, ...ended }];
    });
    // The file may be lost; what is on it must not end anything.
    this.#assign(false);
    this.#step({ kind: 'found', runtime: 'host', tasks });
    this.#step({ kind: 'managers', isHeard: this.#isHeard });
    this.#assign(true);
    return this.#core;
  }

  #assign(isConfirmed: boolean): void {
    const isLost = !isConfirmed && this.#prng.chance(0.3);
    const tasks = [...(isLost ? [] : this.#assigned.values())];
    this.#step({
      kind: 'assignments',
      tasks: tasks.map((task) => ({ task, runtime: 'host' as const })),
      isConfirmed,
    });
  }

  #realOf(id: TaskId): Real {
    const real = this.#real.get(id) ?? { has: 'none', isWired: false, pid: 0, exitCode: 0 };
    this.#real.set(id, real);
    return real;
  }

  #step(input: TaskInput): void {
    this.#core.step(input, this.#nowMs);
    const { actions, reports, forgotten } = this.#core.takeReady();
    for (const action of actions) this.#perform(action);
    for (const { id, status } of reports) {
      const before = this.#told.get(id)?.state ?? 'new';
      const isBack = compareTaskStates(status.state, before) < 0;
      if (isBack && (this.#isHeard || !isTerminal(before)))
        throw new Error(`${id} went back from ${before} to ${status.state}`);
      if (isTerminal(before) && isTerminal(status.state) && before !== status.state)
        throw new Error(`${id} ended twice: ${before}, ${status.state}`);
      if (status.state === 'running' && id === taskId(NAMES[0] ?? '') && status.ports === undefined)
        throw new Error(`${id} runs, and its port has no number`);
      if (isTerminal(status.state) && this.#real.get(id)?.has === 'live')
        throw new Error(`${id} is told as ${status.state} and runs`);
      this.#told.set(id, status);
    }
    for (const id of forgotten) this.#told.delete(id);
  }

  #perform(action: TaskAction): void {
    const { id, kind } = action;
    const real = this.#realOf(id);
    if (kind === 'unwire') {
      real.isWired = false;
      return;
    }
    if (kind === 'cancel') return;
    const before = this.#pending.get(id);
    // What brings a task down does not wait for ever for what hangs, nor does what may be done twice.
    const isHarmless = ['remove', 'stop', 'drain', 'choose'].includes(kind);
    if (before !== undefined && !isHarmless)
      throw new Error(`${id}: ${kind} while action ${before} is under way`);
    if (kind === 'start') {
      if (real.has === 'live') throw new Error(`${id} would run twice`);
      if (!real.isWired) throw new Error(`${id} would start without its networks`);
    }
    if (kind === 'remove' && real.has === 'live') throw new Error(`${id} is removed while it runs`);
    if (kind === 'prepare' && real.has === 'live')
      throw new Error(`${id} is prepared while it runs`);
    this.#pending.set(id, action.action);
    this.#later(id, action);
  }

  /** The action has its effect and its answer some time later, or neither, or only the effect. */
  #later(id: TaskId, action: Extract<TaskAction, { readonly action: number }>): void {
    const life = this.#life;
    const isHung = !this.isCalm && this.#prng.chance(this.#trouble * 0.2);
    // Nothing else ever ends these, and a core may not either.
    if (isHung && action.kind !== 'start') return;
    const isFailed = !this.isCalm && this.#prng.chance(this.#trouble * 0.3);
    this.#at(this.#prng.nextBelow(isHung ? 20_000 : 800), () => {
      const outcome = this.#effect(id, action, isFailed);
      if (life !== this.#life) return;
      if (this.#pending.get(id) === action.action) this.#pending.delete(id);
      this.#step({ kind: 'done', id, action: action.action, outcome });
    });
  }

  #effect(id: TaskId, { kind }: TaskAction, isFailed: boolean): Outcome {
    const real = this.#realOf(id);
    switch (kind) {
      case 'prepare':
        if (isFailed) return { kind: 'failed', error: 'no such image' };
        if (real.has === 'none') real.has = 'made';
        return { kind: 'prepared', containerId: id, netns: '/n' };
      case 'wire':
        if (isFailed) return { kind: 'failed', error: 'no network' };
        real.isWired = true;
        return { kind: 'done' };
      case 'start':
        if (real.has === 'none') return { kind: 'failed', error: 'no such task', isGone: true };
        if (isFailed) {
          if (real.has === 'made') real.has = 'ended';
          return { kind: 'failed', error: 'no such program', exitCode: 127 };
        }
        this.#pids += 1;
        real.has = 'live';
        real.pid = this.#pids;
        return { kind: 'started', containerId: id, pid: real.pid, health: 'none' };
      case 'choose':
        if (isFailed) return { kind: 'failed', error: 'no free port' };
        return { kind: 'chosen', ports: [{ ...PORT, publishedPort: 40_000 + this.#pids }] };
      case 'stop':
        if (isFailed) return { kind: 'failed', error: 'busy' };
        this.#die(id, 143);
        return { kind: 'done' };
      case 'remove':
        if (isFailed) return { kind: 'failed', error: 'busy' };
        real.has = 'none';
        real.isWired = false;
        return { kind: 'done' };
      default:
        return { kind: 'done' };
    }
  }

  #die(id: TaskId, exitCode: number): void {
    const real = this.#realOf(id);
    if (real.has !== 'live') return;
    real.has = 'ended';
    real.exitCode = exitCode;
    this.#step({ kind: 'exited', id, exitCode });
  }

  #at(delayMs: number, run: () => void): void {
    this.#events.push({ atMs: this.#nowMs + delayMs, run });
  }
}

const at = fc.nat(NAMES.length - 1);
const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('assign' as const),
      at,
      desired: fc.constantFrom<TaskState>(
        'ready',
        'running',
        'running',
        'running',
        'shutdown',
        'remove',
      ),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('unassign' as const), at }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('die' as const), at, exitCode: fc.nat(2) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('sick' as const), at }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('managers' as const), isHeard: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'restart' as const }) },
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('pass' as const),
      ms: fc.oneof(fc.nat(300), fc.nat(3000), fc.nat(30_000)),
    }),
  },
);

t.test('whatever happens, a task never runs twice or unwired, and ends when it shall', async () => {
  fc.assert(
    fc.property(
      fc.integer(),
      fc.constantFrom(0, 0.3, 1),
      fc.array(command, { maxLength: 60 }),
      (seed, trouble, commands) => {
        const world = new World(seed, trouble);
        for (const one of commands) world.run(one);
        world.endAll();
      },
    ),
    { numRuns: fuzzRuns(400), includeErrorInReport: true },
  );
});
