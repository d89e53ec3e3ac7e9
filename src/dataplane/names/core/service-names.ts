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
}

/** Something attached to one network: a task, or what was attached by hand. */
export interface NamedEndpoint {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly addresses: readonly string[];
  readonly state: 'starting' | 'ready' | 'draining';
  readonly service:
    | { readonly id: string; readonly name: string; readonly slot: number }
    | undefined;
}

/**
 * The names of one network: `web` is the service's VIP, or its ready tasks where it has none;
 * `tasks.web` all ready tasks; `web.2` and `2.web` those in that place. A task's own name is known as
 * long as the task is, since it may be asked what it does. SRV questions for a service are answered by its ready
 * tasks with each published port, or the one that `_PORT._tcp.web` asks for.
 */
export function serviceNames(
  network: string,
  services: readonly NamedService[],
  endpoints: readonly NamedEndpoint[],
): NetworkNames {
  const byId = new Map(services.map((service) => [service.id, service]));
  const ready = new Map<string, NamedEndpoint[]>();
  const entries: NameEntry[] = [];
  for (const endpoint of endpoints) {
    const { name, aliases, addresses, service, state } = endpoint;
    const known = service === undefined ? undefined : byId.get(service.id);
    entries.push({ name, addresses, aliases: ownAliases(aliases, service?.name, known) });
    if (service === undefined || state !== 'ready') continue;
    const places = ready.get(service.id);
    if (places === undefined) ready.set(service.id, [endpoint]);
    else places.push(endpoint);
  }
  for (const service of services) entries.push(...entriesOf(service, ready.get(service.id) ?? []));
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

function entriesOf(service: NamedService, ready: readonly NamedEndpoint[]): NameEntry[] {
  const { name, aliases, vips, ports } = service;
  const tasks = ready.flatMap(({ addresses }) => addresses);
  // Who asks so wants to choose among the tasks himself.
  const places = { targets: ready.map((task) => task.name), ports };
  const slots = new Map<number, string[]>();
  for (const { service: place, addresses } of ready) {
    const slot = place?.slot ?? 0;
    if (slot > 0) slots.set(slot, [...(slots.get(slot) ?? []), ...addresses]);
  }
  return [
    { name, aliases, addresses: vips.length > 0 ? vips : tasks, places },
    {
      name: `tasks.${name}`,
      aliases: aliases.map((alias) => `tasks.${alias}`),
      addresses: tasks,
      places,
    },
    ...[...slots].map(([slot, addresses]) => ({
      name: `${name}.${slot}`,
      aliases: [`${slot}.${name}`],
      addresses,
    })),
  ];
}
