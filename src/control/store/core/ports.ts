import type { PortConfig, ServiceObject, ServiceSpec } from '../../../base/service-model.js';
import { invalid, refuse } from './refuse.js';
import type { ReadonlyState } from './state.js';

/** Where the swarm chooses a port that is to be published and has no number. */
const DYNAMIC_PORT_FIRST = 30_000;
const DYNAMIC_PORT_LAST = 32_767;

type Port = ServiceObject['endpoint']['ports'][number];

/**
 * The ports of a service, each with its number. What the swarm chose before is chosen again.
 *
 * @param before The service as it is now, whose own ports are no obstacle.
 * @throws SwarmError `SWARM_INVALID` in swarmkit's words, `SWARM_EXHAUSTED`.
 */
export function allocatePorts(
  state: ReadonlyState,
  spec: ServiceSpec,
  before: ServiceObject | undefined,
): readonly Port[] {
  const wanted = spec.endpoint?.ports ?? [];
  for (const port of wanted) checkConflict(state, port, before?.id);
  // Numbers that the user has chosen are not there to be chosen, and neither are those that stay.
  const own = new Set(wanted.map(keyOf));
  const former = [...(before?.endpoint.ports ?? [])];
  const kept = wanted.map((port) => {
    if (isNumbered(port) || port.publishMode === 'host')
      return { ...port, publishedPort: port.publishedPort ?? 0 };
    const at = former.findIndex((other) => isSamePort(other, port) && !own.has(keyOf(other)));
    const [again] = at === -1 ? [] : former.splice(at, 1);
    if (again !== undefined) own.add(keyOf(again));
    return again && { ...port, publishedPort: again.publishedPort };
  });
  return wanted.map((port, at) => {
    const same = kept[at];
    if (same !== undefined) return same;
    const chosen = { ...port, publishedPort: freePort(state, port, own, before) };
    own.add(keyOf(chosen));
    return chosen;
  });
}

function isNumbered(port: PortConfig): port is Port {
  return (port.publishedPort ?? 0) !== 0;
}

function keyOf({ protocol, publishedPort = 0 }: PortConfig): string {
  return `${protocol}/${publishedPort}`;
}

/** The same wish, of which the swarm chose the number. */
function isSamePort(a: Port, b: PortConfig): boolean {
  return (
    a.publishMode === 'ingress' &&
    a.protocol === b.protocol &&
    a.targetPort === b.targetPort &&
    (a.name ?? '') === (b.name ?? '') &&
    a.publishedPort >= DYNAMIC_PORT_FIRST &&
    a.publishedPort <= DYNAMIC_PORT_LAST
  );
}

/** In the host mode services may share a port: the scheduler keeps them apart. */
function checkConflict(state: ReadonlyState, port: PortConfig, self: string | undefined): void {
  if (!isNumbered(port)) return;
  const { ingress, host } = state.publishersOf(port.protocol, port.publishedPort);
  if (ingress !== undefined && ingress !== self)
    throw inUse(state, port, ingress, 'an ingress port');
  const [other] = [...host].filter((id) => id !== self).sort();
  if (port.publishMode === 'ingress' && other !== undefined)
    throw inUse(state, port, other, 'a host-published port');
}

function inUse(state: ReadonlyState, port: Port, id: string, as: string): Error {
  const name = state.row('service', id)?.spec.name ?? '';
  return invalid(
    `port '${port.publishedPort}' is already in use by service '${name}' (${id}) as ${as}`,
  );
}

function freePort(
  state: ReadonlyState,
  { protocol }: PortConfig,
  own: ReadonlySet<string>,
  before: ServiceObject | undefined,
): number {
  for (let port = DYNAMIC_PORT_FIRST; port <= DYNAMIC_PORT_LAST; port++) {
    if (own.has(keyOf({ protocol, publishedPort: port } as PortConfig))) continue;
    const { ingress, host } = state.publishersOf(protocol, port);
    const taken =
      (ingress !== undefined && ingress !== before?.id) ||
      [...host].some((id) => id !== before?.id);
    if (!taken) return port;
  }
  throw refuse(
    { code: 'SWARM_EXHAUSTED', what: 'port' },
    `no ${protocol} port from ${DYNAMIC_PORT_FIRST} to ${DYNAMIC_PORT_LAST} is free: name one`,
  );
}
