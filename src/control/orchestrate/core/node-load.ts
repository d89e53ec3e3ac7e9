import { compareTaskStates, isTerminal, type TaskObject } from '../../../base/service-model.js';
import type { GenericResource, NodeId, NodeObject, ServiceId } from '../../../base/swarm-model.js';

/** Failures of a service on a node are remembered for so long. */
export const FAILURES_WINDOW_MS = 5 * 60_000;
/** With so many of them within that time a node comes after all others. */
export const FAILURES_TOLERATED = 5;
/** Failures of one service that are remembered of one node: more say nothing more. */
const FAILURES_MAX = 64;

/** One node with what is placed on it. */
export class NodeLoad {
  node: NodeObject | undefined;
  /** Tasks that run there or are to. */
  activeTasks = 0;
  readonly activeByService = new Map<ServiceId, number>();
  nanoCpus = 0;
  memoryBytes = 0;
  /** `tcp:80` to how many tasks have it; more than one only while they hand it over. */
  readonly hostPorts = new Map<string, number>();
  readonly #discrete = new Map<string, number>();
  readonly #named = new Map<string, number>();
  readonly #failures = new Map<string, number[]>();

  add(task: TaskObject, sign: 1 | -1): void {
    if (isActive(task)) {
      this.activeTasks += sign;
      count(this.activeByService, task.serviceId, sign);
    }
    const { nanoCpus = 0, memoryBytes = 0 } = task.spec.resources?.reservations ?? {};
    this.nanoCpus += sign * nanoCpus;
    this.memoryBytes += sign * memoryBytes;
    for (const key of hostPortsOf(task)) count(this.hostPorts, key, sign);
    for (const resource of task.assignedResources ?? []) {
      if (resource.kind === 'named') count(this.#named, `${resource.name}=${resource.value}`, sign);
      else count(this.#discrete, resource.name, sign * resource.value);
    }
  }

  activeOf(service: ServiceId): number {
    return this.activeByService.get(service) ?? 0;
  }

  /** What is reserved of the scarcer of processors and memory, from 0 to 1. */
  get share(): number {
    const { nanoCpus = 0, memoryBytes = 0 } = this.node?.description ?? {};
    const cpus = nanoCpus > 0 ? this.nanoCpus / nanoCpus : 0;
    return Math.max(cpus, memoryBytes > 0 ? this.memoryBytes / memoryBytes : 0);
  }

  /** @returns Which of the node's resources a task would get; `undefined`: there are not enough. */
  choose(wanted: readonly GenericResource[]): readonly GenericResource[] | undefined {
    const chosen: GenericResource[] = [];
    for (const want of wanted) {
      // As in Docker's API, a reservation is a number; one that names a piece gets none.
      if (want.kind !== 'discrete') return undefined;
      const got = this.#chooseOne(want.name, want.value);
      if (got === undefined) return undefined;
      chosen.push(...got);
    }
    return chosen;
  }

  #chooseOne(name: string, value: number): readonly GenericResource[] | undefined {
    const offered = (this.node?.description.genericResources ?? []).filter(
      (resource) => resource.name === name,
    );
    const free = offered.filter(
      (resource) => resource.kind === 'named' && !this.#named.has(`${name}=${resource.value}`),
    );
    if (free.length > 0) return free.length >= value ? free.slice(0, value) : undefined;
    const [first] = offered;
    if (first?.kind !== 'discrete') return undefined;
    const left = first.value - (this.#discrete.get(name) ?? 0);
    return value > 0 && left >= value ? [{ kind: 'discrete', name, value }] : undefined;
  }

  noteFailure(task: TaskObject, atMs: number): void {
    const key = failureKey(task);
    const times = this.#failures.get(key) ?? [];
    const recent = times.filter((at) => atMs - at < FAILURES_WINDOW_MS).slice(1 - FAILURES_MAX);
    this.#failures.set(key, [...recent, atMs]);
    for (const [other, ats] of this.#failures)
      if (ats.every((at) => atMs - at >= FAILURES_WINDOW_MS)) this.#failures.delete(other);
  }

  recentFailures(task: TaskObject, nowMs: number): number {
    const times = this.#failures.get(failureKey(task)) ?? [];
    return times.filter((at) => nowMs - at <= FAILURES_WINDOW_MS).length;
  }
}

/** All nodes; follows the tasks one change at a time. */
export class NodeLoads {
  readonly #loads = new Map<NodeId, NodeLoad>();

  get(id: NodeId): NodeLoad | undefined {
    return this.#loads.get(id);
  }

  /** Those which are nodes of the swarm, in the order in which they came. */
  *all(): IterableIterator<NodeLoad & { readonly node: NodeObject }> {
    for (const load of this.#loads.values())
      if (load.node !== undefined) yield load as NodeLoad & { readonly node: NodeObject };
  }

  /** Nodes that are gone are forgotten with their last task. */
  prune(isNode: (id: NodeId) => boolean): void {
    for (const [id, load] of this.#loads)
      if (load.node === undefined && load.activeTasks === 0 && !isNode(id)) this.#loads.delete(id);
  }

  setNode(id: NodeId, node: NodeObject | undefined): void {
    this.#of(id).node = node;
  }

  move(before: TaskObject | undefined, after: TaskObject | undefined): void {
    if (before !== undefined && isHeld(before)) this.#of(before.nodeId).add(before, -1);
    if (after !== undefined && isHeld(after)) this.#of(after.nodeId).add(after, 1);
  }

  /** What has happened to a task. @param nowMs When it is noticed. */
  change(before: TaskObject | undefined, after: TaskObject | undefined, nowMs: number): void {
    this.move(before, after);
    if (after === undefined || after.slot === 0 || after.nodeId === undefined) return;
    const { state } = after.status;
    if ((state === 'failed' || state === 'rejected') && before?.status.state !== state)
      this.#of(after.nodeId).noteFailure(after, Math.min(after.endedAtMs ?? nowMs, nowMs));
  }

  #of(id: NodeId): NodeLoad {
    let load = this.#loads.get(id);
    if (load === undefined) {
      load = new NodeLoad();
      this.#loads.set(id, load);
    }
    return load;
  }
}

/** Whether the task is to be there: not being ended, and not ended by itself. */
export function isActive(task: TaskObject): boolean {
  return compareTaskStates(task.desiredState, 'complete') <= 0;
}

/** What it reserves is its own from when the scheduler has placed it until it has ended. */
function isHeld(task: TaskObject): task is TaskObject & { readonly nodeId: NodeId } {
  return (
    task.nodeId !== undefined &&
    compareTaskStates(task.status.state, 'assigned') >= 0 &&
    !isTerminal(task.status.state)
  );
}

export function hostPortsOf(task: Pick<TaskObject, 'ports'>): readonly string[] {
  return task.ports
    .filter(({ publishMode, publishedPort = 0 }) => publishMode === 'host' && publishedPort > 0)
    .map(({ protocol, publishedPort }) => `${protocol}:${publishedPort}`);
}

function failureKey({ serviceId, specVersion }: TaskObject): string {
  return `${serviceId} ${specVersion}`;
}

function count<Key>(counts: Map<Key, number>, key: Key, by: number): void {
  const sum = (counts.get(key) ?? 0) + by;
  if (sum === 0) counts.delete(key);
  else counts.set(key, sum);
}
