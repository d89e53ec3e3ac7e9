import { hashText } from '../../core/balance/hash.js';
import { canonicalName, type NamedPort, type NameEntry, type NetworkNames } from './name-table.js';

/** A service on one network, as its names need it. */
export interface NamedService {
  readonly id: string;
  readonly name: string;
  /** Under which it is found on this network too. */
  readonly aliases: readonly string[];
  /** Of this network; none: its name stands for the tasks themselves (`dnsrr`). */
  readonly vips: readonly string[];
  /** Of its tasks; those that it publishes in the ingress mode. */
  readonly ports: readonly NamedPort[];
  /** At most this share of its ready tasks is left out while their checks fail, from 0 to 1. */
  readonly ceiling: number;
}

/** Something attached to one network: a task, or what was attached by hand. */
export interface NamedEndpoint {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly addresses: readonly string[];
  readonly state: 'starting' | 'ready' | 'draining';
  /** Its node's checks of it fail. */
  readonly isFailing?: boolean | undefined;
  readonly service:
    | { readonly id: string; readonly name: string; readonly slot: number }
    | undefined;
}

/**
 * The names of one network: `web` is the service's VIP, or its ready tasks where it has none; `tasks.web` all ready
 * tasks. SRV questions for a service are answered by its ready tasks with each published port, or the one that
 * `_PORT._tcp.web` asks for. Of the ready tasks those are left out whose checks fail, within the service's ceiling.
 *
 * `web.2` and `2.web` are who is in that place, and a task's own name is known as long as the task is: each means one
 * thing, so there is nobody to be given instead, and it may be asked what it does.
 *
 * @param orderSeed This node's: where more tasks fail than may be left out, nodes would else all keep the same ones.
 */
export function serviceNames(
  network: string,
  services: readonly NamedService[],
  endpoints: readonly NamedEndpoint[],
  orderSeed: number,
): NetworkNames {
  const byId = new Map(services.map((service) => [service.id, service]));
  const tasks = new Map<string, NamedEndpoint[]>();
  const entries: NameEntry[] = [];
  for (const endpoint of endpoints) {
    const { name, aliases, addresses, service } = endpoint;
    const known = service === undefined ? undefined : byId.get(service.id);
    entries.push({ name, addresses, aliases: ownAliases(aliases, service?.name, known) });
    if (service === undefined) continue;
    const held = tasks.get(service.id);
    if (held === undefined) tasks.set(service.id, [endpoint]);
    else held.push(endpoint);
  }
  for (const service of services)
    entries.push(...entriesOf(service, tasks.get(service.id) ?? [], orderSeed));
  return { network, entries };
}

/** Of a task: without those that stand for the whole service. */
function ownAliases(
  aliases: readonly string[],
  serviceName: string | undefined,
  service: NamedService | undefined,
): readonly string[] {
  if (serviceName === undefined) return aliases;
  const shared = new Set([serviceName, ...(service?.aliases ?? [])].map(canonicalName));
  return aliases.filter((alias) => !shared.has(canonicalName(alias)));
}

function entriesOf(
  service: NamedService,
  tasks: readonly NamedEndpoint[],
  orderSeed: number,
): NameEntry[] {
  const { name, aliases, vips, ports } = service;
  const given = givenTasks(service, tasks, orderSeed);
  const addresses = given.flatMap((task) => task.addresses);
  // Who asks so wants to choose among the tasks himself.
  const places = { targets: given.map((task) => task.name), ports };
  return [
    { name, aliases, addresses: vips.length > 0 ? vips : addresses, places },
    {
      name: `tasks.${name}`,
      aliases: aliases.map((alias) => `tasks.${alias}`),
      addresses,
      places,
    },
    ...slotEntries(name, tasks),
  ];
}

/**
 * The ready ones without those that fail their checks. As with flows, no more are left out than the ceiling allows: the
 * others would have to bear it, and checks may be what is wrong. Where nobody were left, all are given.
 */
function givenTasks(
  { ceiling }: NamedService,
  tasks: readonly NamedEndpoint[],
  orderSeed: number,
): readonly NamedEndpoint[] {
  const ready = tasks.filter(({ state }) => state === 'ready');
  const failing = ready
    .filter(({ isFailing }) => isFailing === true)
    .map((task) => ({ task, rank: hashText(task.name, orderSeed) }))
    .sort((a, b) => a.rank - b.rank)
    .slice(0, Math.floor(ready.length * ceiling));
  if (failing.length === ready.length) return ready;
  const leftOut = new Set(failing.map(({ task }) => task));
  return ready.filter((task) => !leftOut.has(task));
}

/** In an update there may be two in one place: the better one is given, or both where they are alike. */
function slotEntries(name: string, tasks: readonly NamedEndpoint[]): NameEntry[] {
  const slots = new Map<number, NamedEndpoint[]>();
  for (const task of tasks) {
    const slot = task.service?.slot ?? 0;
    if (slot > 0) slots.set(slot, [...(slots.get(slot) ?? []), task]);
  }
  return [...slots].map(([slot, held]) => {
    const best = Math.max(...held.map(fitness));
    const addresses = held.flatMap((task) => (fitness(task) === best ? task.addresses : []));
    // What is to stop is asked for nothing new; the name is known all the same, so nobody else is asked for it.
    return {
      name: `${name}.${slot}`,
      aliases: [`${slot}.${name}`],
      addresses: best > 0 ? addresses : [],
    };
  });
}

/** What starts is found in its place: peers that wait for each other to become ready would never be. */
function fitness({ state, isFailing }: NamedEndpoint): number {
  if (state === 'draining') return 0;
  if (state === 'starting') return 1;
  return isFailing === true ? 2 : 3;
}
