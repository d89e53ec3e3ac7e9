import type { Prng } from '../../../src/base/prng.js';
import {
  compareTaskStates,
  isTerminal,
  type TaskObject,
  type TaskState,
  type TaskStatus,
} from '../../../src/base/service-model.js';
import type { NodeId, TaskId } from '../../../src/base/swarm-model.js';
import type { Scheduler } from '../raft/scheduler.js';

/** How long things take on a node, and what goes wrong by itself. */
export interface NodeTempo {
  /** Of one step of a task on its way up. */
  readonly stepMs: readonly [number, number];
  readonly stopMs: readonly [number, number];
  /** How long a task of a job, or one that crashes, runs. */
  readonly runMs: readonly [number, number];
  readonly clockSkewMs: number;
}

interface Container {
  task: TaskObject;
  state: TaskState;
  exitCode?: number;
  isStopping: boolean;
  /** Raised whenever what was planned for it counts no more. */
  plan: number;
}

export interface NodeEvents {
  /** A task's program begins or ends to run, in truth. */
  onRunning(node: SimNode, task: TaskObject, isRunning: boolean): void;
  /** There is something to report. */
  onReport(node: SimNode): void;
}

/**
 * An agent with a runtime. What a task does is told by its image: `good` runs, `crash` fails a while
 * after it has started, `bad` never starts, `job` does its work and ends.
 */
export class SimNode {
  readonly id: NodeId;
  readonly containers = new Map<TaskId, Container>();
  /** What the managers have not confirmed yet. */
  readonly unreported = new Map<TaskId, TaskStatus>();
  isUp = true;
  isCut = false;
  /** When it was last out of reach. */
  cutAtMs = Number.NEGATIVE_INFINITY;
  #version = -1;
  readonly #time: Scheduler;
  readonly #prng: Prng;
  readonly #tempo: NodeTempo;
  readonly #events: NodeEvents;

  constructor(id: NodeId, time: Scheduler, prng: Prng, tempo: NodeTempo, events: NodeEvents) {
    this.id = id;
    this.#time = time;
    this.#prng = prng;
    this.#tempo = tempo;
    this.#events = events;
  }

  get isReachable(): boolean {
    return this.isUp && !this.isCut;
  }

  /** All tasks that it is to have, as of a version of the store. */
  onAssignments(version: number, tasks: readonly TaskObject[]): void {
    if (version < this.#version) return;
    this.#version = version;
    const wanted = new Set(tasks.map(({ id }) => id));
    for (const [id, container] of this.containers)
      if (!wanted.has(id)) {
        this.#end(container, undefined);
        this.containers.delete(id);
        this.unreported.delete(id);
      }
    for (const task of tasks) {
      const container = this.containers.get(task.id);
      if (container !== undefined) container.task = task;
      else if (isTerminal(task.status.state)) continue;
      else {
        // Of a task that ran before the node was lost nothing is there any more.
        const isNew = compareTaskStates(task.status.state, 'assigned') <= 0;
        const made: Container = { task, state: 'assigned', isStopping: false, plan: 0 };
        this.containers.set(task.id, made);
        if (!isNew) {
          this.#end(made, 'failed');
          continue;
        }
      }
      this.#advance(this.containers.get(task.id) as Container);
    }
  }

  /** The machine stops: programs are gone, and nothing that was not reported ever will be. */
  crash(): void {
    this.isUp = false;
    for (const container of this.containers.values()) this.#end(container, undefined);
    this.containers.clear();
    this.unreported.clear();
    this.#version = -1;
  }

  #advance(container: Container): void {
    const { task, state } = container;
    if (isTerminal(state) || container.isStopping) return;
    const isJob = task.jobIteration !== undefined;
    const limit = isJob ? 'complete' : 'running';
    if (compareTaskStates(task.desiredState, limit) > 0) {
      this.#stop(container);
      return;
    }
    if (state === 'running') return;
    const plan = ++container.plan;
    if (state === 'ready' && compareTaskStates(task.desiredState, 'running') < 0) return;
    this.#time.after(this.#within(this.#tempo.stepMs), () => {
      if (container.plan === plan && this.isUp) this.#step(container);
    });
  }

  #step(container: Container): void {
    const { image } = container.task.spec.container;
    switch (container.state) {
      case 'assigned':
        this.#become(container, 'accepted');
        break;
      case 'accepted':
        this.#become(container, 'preparing');
        break;
      case 'preparing':
        if (image.startsWith('bad')) this.#end(container, 'rejected');
        else this.#become(container, 'ready');
        break;
      case 'ready':
        this.#become(container, 'starting');
        break;
      case 'starting':
        this.#become(container, 'running');
        this.#events.onRunning(this, container.task, true);
        this.#run(container, image);
        return;
      default:
        return;
    }
    this.#advance(container);
  }

  #run(container: Container, image: string): void {
    const ends = image.startsWith('crash') || image.startsWith('flaky') || image.startsWith('job');
    if (!ends) return;
    const fails =
      image.startsWith('crash') || (image.startsWith('flaky') && this.#prng.chance(0.3));
    if (image.startsWith('flaky') && !fails && container.task.jobIteration === undefined) return;
    const plan = ++container.plan;
    this.#time.after(this.#within(this.#tempo.runMs), () => {
      if (container.plan !== plan || !this.isUp) return;
      this.#end(container, fails ? 'failed' : 'complete');
    });
  }

  #stop(container: Container): void {
    container.plan++;
    if (compareTaskStates(container.state, 'starting') < 0) {
      this.#end(container, 'shutdown');
      return;
    }
    container.isStopping = true;
    const plan = container.plan;
    this.#time.after(this.#within(this.#tempo.stopMs), () => {
      if (container.plan === plan && this.isUp) this.#end(container, 'shutdown');
    });
  }

  #end(container: Container, state: TaskState | undefined): void {
    container.plan++;
    const ran = container.state === 'running';
    if (state === undefined) container.state = 'shutdown';
    else this.#become(container, state);
    if (ran) this.#events.onRunning(this, container.task, false);
  }

  #become(container: Container, state: TaskState): void {
    container.state = state;
    this.unreported.set(container.task.id, {
      state,
      atMs: this.#time.nowMs + this.#tempo.clockSkewMs,
      message: state === 'running' ? 'started' : state,
      ...(state === 'failed' && { error: 'task: non-zero exit (1)' }),
    });
    this.#events.onReport(this);
  }

  #within([low, high]: readonly [number, number]): number {
    return low + this.#prng.nextFloat() * (high - low);
  }
}
