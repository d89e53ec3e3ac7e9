import { architectures, type Constraint, satisfies } from '../../../base/constraint.js';
import { isHostImage, RUNTIME_PLUGIN } from '../../../base/host-image.js';
import type { Mount, TaskObject } from '../../../base/service-model.js';
import type { NetworkId, NodeObject } from '../../../base/swarm-model.js';
import { hostPortsOf, type NodeLoad } from './node-load.js';

export type PlacedLoad = NodeLoad & { readonly node: NodeObject };

/** One reason why a node may not do; in the order in which they are looked at. */
interface Filter {
  readonly isFit: (load: PlacedLoad) => boolean;
  readonly explain: (nodes: number) => string;
}

/** What all tasks of one service and spec ask of a node. */
export class Filters {
  readonly #filters: readonly Filter[];

  constructor(filters: readonly Filter[]) {
    this.#filters = filters;
  }

  isFit(load: PlacedLoad): boolean {
    return this.#filters.every((filter) => filter.isFit(load));
  }

  /** Why none of these nodes does: `scheduling constraints not satisfied on 3 nodes; …`. */
  explain(loads: Iterable<PlacedLoad>): string {
    const failures = new Map<Filter, number>();
    for (const load of loads) {
      const filter = this.#filters.find((each) => !each.isFit(load));
      if (filter !== undefined) failures.set(filter, (failures.get(filter) ?? 0) + 1);
    }
    return [...failures]
      .sort(([, a], [, b]) => b - a)
      .map(([filter, nodes]) => filter.explain(nodes))
      .join('; ');
  }
}

export interface FilterScope {
  readonly constraints: readonly Constraint[];
  readonly networkDriver: (id: NetworkId) => string | undefined;
}

/** Only those that the task gives something to do. */
export function filtersOf(task: TaskObject, { constraints, networkDriver }: FilterScope): Filters {
  const filters: Filter[] = [READY];
  const { resources, placement } = task.spec;
  const { nanoCpus = 0, memoryBytes = 0, generic = [] } = resources?.reservations ?? {};
  if (nanoCpus > 0 || memoryBytes > 0 || generic.length > 0)
    filters.push({
      isFit: (load) =>
        load.nanoCpus + nanoCpus <= load.node.description.nanoCpus &&
        load.memoryBytes + memoryBytes <= load.node.description.memoryBytes &&
        load.choose(generic) !== undefined,
      explain: on('insufficient resources'),
    });
  const runtime = isHostImage(task.spec.container.image) ? 'host' : 'engine';
  filters.push({
    isFit: ({ node }) => hasPlugin(node, { type: RUNTIME_PLUGIN, name: runtime }),
    explain: on(runtime === 'host' ? 'no commands of the host' : 'no container engine'),
  });
  const plugins = pluginsOf(task, networkDriver);
  if (plugins.length > 0)
    filters.push({
      isFit: ({ node }) => plugins.every((plugin) => hasPlugin(node, plugin)),
      explain: on('missing plugin'),
    });
  if (constraints.length > 0)
    filters.push({
      isFit: ({ node }) => constraints.every((constraint) => satisfies(node, constraint)),
      explain: on('scheduling constraints not satisfied'),
    });
  const { platforms = [], maxReplicas = 0 } = placement ?? {};
  if (platforms.length > 0)
    filters.push({
      isFit: ({ node: { description } }) =>
        platforms.some(
          ({ os = '', architecture = '' }) =>
            (os === '' || os === description.os) &&
            (architecture === '' || architectures(description.architecture).includes(architecture)),
        ),
      explain: on('unsupported platform'),
    });
  const ports = hostPortsOf(task);
  if (ports.length > 0)
    filters.push({
      isFit: ({ hostPorts }) => !ports.some((port) => hostPorts.has(port)),
      explain: on('host-mode port already in use'),
    });
  if (maxReplicas > 0)
    filters.push({
      isFit: (load) => load.activeOf(task.serviceId) < maxReplicas,
      explain: () => 'max replicas per node limit exceed',
    });
  return new Filters(filters);
}

const READY: Filter = {
  isFit: ({ node }) => node.state === 'ready' && node.spec.availability === 'active',
  explain: (nodes) => `${nodes} node${nodes === 1 ? '' : 's'} not available for new tasks`,
};

function on(what: string): (nodes: number) => string {
  return (nodes) => `${what} on ${nodes} node${nodes === 1 ? '' : 's'}`;
}

interface Plugin {
  readonly type: 'Volume' | 'Network' | 'Log' | typeof RUNTIME_PLUGIN;
  readonly name: string;
}

function pluginsOf(
  { spec }: TaskObject,
  networkDriver: FilterScope['networkDriver'],
): readonly Plugin[] {
  const plugins: Plugin[] = [];
  for (const mount of spec.container.mounts ?? []) {
    const name = volumeDriver(mount);
    if (name !== undefined) plugins.push({ type: 'Volume', name });
  }
  for (const { target } of spec.networks ?? []) {
    const name = networkDriver(target);
    if (name !== undefined && name !== '') plugins.push({ type: 'Network', name });
  }
  const log = spec.logDriver?.name ?? '';
  if (log !== '' && log !== 'none') plugins.push({ type: 'Log', name: log });
  return plugins;
}

function volumeDriver({ type, volume }: Mount): string | undefined {
  const name = volume?.driver?.name ?? '';
  return type === 'volume' && name !== '' && name !== 'local' ? name : undefined;
}

/** A node that tells nothing of a type of plugin may have it; but no one has volume plugins unsaid. */
function hasPlugin({ description }: NodeObject, { type, name }: Plugin): boolean {
  const known = description.plugins.filter((plugin) => plugin.type === type);
  if (known.length === 0) return type !== 'Volume';
  return known.some((plugin) => plugin.name === name || plugin.name === `${name}:latest`);
}
