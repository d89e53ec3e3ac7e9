import { labelOf, parseConstraints } from '../../../base/constraint.js';
import type { Prng } from '../../../base/prng.js';
import type { TaskObject } from '../../../base/service-model.js';
import type { GenericResource, NetworkId, NodeId } from '../../../base/swarm-model.js';
import { type Filters, filtersOf, type PlacedLoad } from './filters.js';
import { FAILURES_TOLERATED, type NodeLoads } from './node-load.js';
import type { View } from './view.js';

export type Strategy = 'spread' | 'binpack' | 'random';

/** The label of a service, or of the cluster, that names the strategy. */
export const STRATEGY_LABEL = 'shoal.strategy';

export interface SchedulerScope {
  readonly loads: NodeLoads;
  readonly view: Pick<View, 'networkDriver' | 'strategy'>;
  readonly prng: Prng;
  readonly nowMs: number;
}

export interface Place {
  readonly nodeId: NodeId;
  readonly assignedResources: readonly GenericResource[];
}

/** Where tasks of one service and spec go, one after the other; they are counted there at once. */
export class Placer {
  readonly #scope: SchedulerScope;
  readonly #task: TaskObject;
  readonly #filters: Filters;
  /** First the nodes that satisfy the soft constraints as well, then all that will do. */
  readonly #stages: (() => Branch)[];
  #stage: Branch | undefined;
  #explanation: string | undefined;

  /** @param task Any one of them: they are alike. */
  constructor(task: TaskObject, scope: SchedulerScope) {
    this.#scope = scope;
    this.#task = task;
    const parsed = parseConstraints(task.spec.placement?.constraints ?? []);
    // They were judged when the service was made; what cannot be read is no reason to run nothing.
    const constraints = typeof parsed === 'string' ? [] : parsed;
    const hard = constraints.filter(({ isSoft }) => !isSoft);
    // Asked as a method: a view may be an object with state of its own.
    const networkDriver = (id: NetworkId) => scope.view.networkDriver(id);
    this.#filters = filtersOf(task, { constraints: hard, networkDriver });
    this.#stages = [() => this.#branch(this.#filters)];
    if (hard.length < constraints.length) {
      const all = filtersOf(task, { constraints, networkDriver });
      this.#stages.unshift(() => this.#branch(all));
    }
  }

  /** The next one's place; `undefined`: no node will do. */
  next(): Place | undefined {
    for (;;) {
      this.#stage ??= this.#stages.shift()?.();
      if (this.#stage === undefined) return undefined;
      const load = this.#stage.take();
      if (load !== undefined) return placeOn(this.#task, load);
      this.#stage = undefined;
    }
  }

  /** Whether it may run on the node that it was made for. */
  onNode(id: NodeId): Place | undefined {
    const load = this.#scope.loads.get(id);
    if (load?.node === undefined || !this.#filters.isFit(load as PlacedLoad)) return undefined;
    return placeOn(this.#task, load as PlacedLoad);
  }

  /** @param id Of the only node that is asked for. */
  explain(id?: NodeId): string {
    if (id === undefined && this.#explanation !== undefined) return this.#explanation;
    const only = id === undefined ? undefined : this.#scope.loads.get(id);
    const loads = id === undefined ? this.#scope.loads.all() : only?.node ? [only] : [];
    const explanation = this.#filters.explain(loads as Iterable<PlacedLoad>);
    // When no node will do for one it will not for the next: they are alike.
    if (id === undefined) this.#explanation = explanation;
    return explanation;
  }

  #branch(filters: Filters): Branch {
    const { spec, serviceLabels, serviceId } = this.#task;
    const strategy = strategyOf(serviceLabels[STRATEGY_LABEL] ?? this.#scope.view.strategy);
    const ranking = rankingOf(strategy, this.#task, this.#scope);
    const root = new Branch(ranking, filters, serviceId);
    for (const load of this.#scope.loads.all()) {
      const path = (spec.placement?.spreadOver ?? []).flatMap(
        (key) => labelOf(load.node, key)?.value ?? [],
      );
      root.add(load, path);
    }
    return root;
  }
}

function placeOn(task: TaskObject, load: PlacedLoad): Place {
  const wanted = task.spec.resources?.reservations?.generic ?? [];
  return { nodeId: load.node.id, assignedResources: load.choose(wanted) ?? [] };
}

export function strategyOf(name: string | undefined): Strategy {
  return name === 'binpack' || name === 'random' ? name : 'spread';
}

/** Which of the nodes that will do is the best; negative: `a` is. */
type Ranking = ((a: PlacedLoad, b: PlacedLoad) => number) | Prng;

function rankingOf(strategy: Strategy, task: TaskObject, scope: SchedulerScope): Ranking {
  if (strategy === 'random') return scope.prng;
  const failures = new Map<PlacedLoad, number>();
  for (const load of scope.loads.all()) {
    const recent = load.recentFailures(task, scope.nowMs);
    if (recent >= FAILURES_TOLERATED) failures.set(load, recent);
  }
  const byFailures = (a: PlacedLoad, b: PlacedLoad) =>
    failures.size === 0 ? 0 : (failures.get(a) ?? 0) - (failures.get(b) ?? 0);
  if (strategy === 'binpack')
    return (a, b) => byFailures(a, b) || b.share - a.share || b.activeTasks - a.activeTasks;
  const { serviceId } = task;
  return (a, b) =>
    byFailures(a, b) ||
    a.activeOf(serviceId) - b.activeOf(serviceId) ||
    a.activeTasks - b.activeTasks;
}

/**
 * Nodes by the values of the labels that tasks are spread over: at every fork the next task goes
 * where the fewest of its service are, and at the end to the best node.
 */
class Branch {
  readonly #ranking: Ranking;
  readonly #filters: Filters;
  readonly #serviceId: TaskObject['serviceId'];
  readonly #forks = new Map<string, Branch>();
  readonly #nodes: PlacedLoad[] = [];
  #isOrdered = false;
  #isFull = false;
  #serviceTasks = 0;
  #allTasks = 0;

  constructor(ranking: Ranking, filters: Filters, serviceId: TaskObject['serviceId']) {
    this.#ranking = ranking;
    this.#filters = filters;
    this.#serviceId = serviceId;
  }

  add(load: PlacedLoad, path: readonly string[]): void {
    this.#serviceTasks += load.activeOf(this.#serviceId);
    this.#allTasks += load.activeTasks;
    const [value, ...rest] = path;
    if (value === undefined) {
      if (this.#filters.isFit(load)) this.#nodes.push(load);
      return;
    }
    let fork = this.#forks.get(value);
    if (fork === undefined) {
      fork = new Branch(this.#ranking, this.#filters, this.#serviceId);
      this.#forks.set(value, fork);
    }
    fork.add(load, rest);
  }

  /** The node for one more task, which its caller puts there before it asks again. */
  take(): PlacedLoad | undefined {
    const load = this.#forks.size > 0 ? this.#takeOfForks() : this.#takeOfNodes();
    if (load === undefined) this.#isFull = true;
    else {
      this.#serviceTasks++;
      this.#allTasks++;
    }
    return load;
  }

  #takeOfForks(): PlacedLoad | undefined {
    for (;;) {
      let best: Branch | undefined;
      for (const fork of this.#forks.values())
        if (!fork.#isFull && (best === undefined || fork.#isEmptierThan(best))) best = fork;
      if (best === undefined) return undefined;
      const load = best.take();
      if (load !== undefined) return load;
    }
  }

  #isEmptierThan(other: Branch): boolean {
    const services = this.#serviceTasks - other.#serviceTasks;
    return services < 0 || (services === 0 && this.#allTasks < other.#allTasks);
  }

  #takeOfNodes(): PlacedLoad | undefined {
    const nodes = this.#nodes;
    if (typeof this.#ranking !== 'function') {
      while (nodes.length > 0) {
        const at = this.#ranking.nextBelow(nodes.length);
        const load = nodes[at] as PlacedLoad;
        if (this.#filters.isFit(load)) return load;
        nodes[at] = nodes.at(-1) as PlacedLoad;
        nodes.pop();
      }
      return undefined;
    }
    if (this.#isOrdered) this.#settleFirst(this.#ranking);
    else nodes.sort(this.#ranking);
    this.#isOrdered = true;
    while (nodes[0] !== undefined && !this.#filters.isFit(nodes[0])) nodes.shift();
    return nodes[0];
  }

  /** The first node has got a task since: to its new place, behind those that rank the same. */
  #settleFirst(ranking: (a: PlacedLoad, b: PlacedLoad) => number): void {
    const nodes = this.#nodes;
    const [first] = nodes;
    if (first === undefined) return;
    let low = 1;
    let high = nodes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ranking(first, nodes[middle] as PlacedLoad) < 0) high = middle;
      else low = middle + 1;
    }
    nodes.copyWithin(0, 1, low);
    nodes[low - 1] = first;
  }
}
