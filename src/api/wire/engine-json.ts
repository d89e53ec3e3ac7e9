import type { OverlayEndpoint } from './records.js';

/** How answers of an engine and of the swarm become one: both are Docker's JSON. */

type Json = Readonly<Record<string, unknown>>;

/** Containers that are no user's business carry it: see the `engine` runtime. */
export const SANDBOX_LABEL = 'com.docker.shoal.sandbox';

const objectOf = (value: unknown): Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Json) : {};
const listOf = (value: unknown): readonly unknown[] => (Array.isArray(value) ? value : []);

const isSandbox = (one: unknown) => objectOf(objectOf(one)['Labels'])[SANDBOX_LABEL] !== undefined;

/** `GET /containers/json` without sandboxes. */
export function sandboxFree(list: unknown): unknown[] {
  return listOf(list).filter((one) => !isSandbox(one));
}

/** Whether a line of `GET /events` is about a sandbox. */
export function hidesSandboxes(line: string): boolean {
  return line.includes(`"${SANDBOX_LABEL}":`);
}

/** Networks of these are the swarm's; all others are the engine's. */
export function isOverlayRequest(body: unknown): boolean {
  const { Driver: driver, Scope: scope, Ingress: ingress } = objectOf(body);
  return driver === 'overlay' || scope === 'swarm' || ingress === true;
}

/** The engine's facts about the host, the swarm's about the swarm. */
export function mergedInfo(own: unknown, engine: unknown): unknown {
  const ours = objectOf(own);
  const theirs = objectOf(engine);
  const plugins = objectOf(theirs['Plugins']);
  const networks = new Set([...listOf(plugins['Network']), 'overlay']);
  const warnings = [...listOf(theirs['Warnings']), ...listOf(ours['Warnings'])];
  return {
    ...ours,
    ...theirs,
    DriverStatus: [...listOf(theirs['DriverStatus']), ...listOf(ours['DriverStatus'])],
    Plugins: { ...plugins, Network: [...networks].sort() },
    Labels: [...listOf(theirs['Labels']), ...listOf(ours['Labels'])],
    Name: ours['Name'],
    Swarm: ours['Swarm'],
    ...('DefaultAddressPools' in ours ? { DefaultAddressPools: ours['DefaultAddressPools'] } : {}),
    Warnings: warnings.length === 0 ? null : warnings,
  };
}

/**
 * `docker info` whose numbers of containers are those of `docker ps -a`.
 *
 * @param tasks States of the tasks that are in no engine.
 * @param sandboxes Those of the engine, which it has counted.
 */
export function countedInfo(info: unknown, tasks: readonly string[], sandboxes: unknown): unknown {
  const counted = objectOf(info);
  const hidden = listOf(sandboxes)
    .filter(isSandbox)
    .map((one) => String(objectOf(one)['State'] ?? ''));
  const countOf = (states: readonly string[], isOne: (state: string) => boolean) =>
    states.filter(isOne).length;
  const of = (name: string, isOne: (state: string) => boolean) =>
    Math.max(0, Number(counted[name] ?? 0) + countOf(tasks, isOne) - countOf(hidden, isOne));
  return {
    ...counted,
    Containers: of('Containers', () => true),
    ContainersRunning: of('ContainersRunning', (state) => state === 'running'),
    ContainersPaused: of('ContainersPaused', (state) => state === 'paused'),
    ContainersStopped: of(
      'ContainersStopped',
      (state) => state !== 'running' && state !== 'paused',
    ),
  };
}

/** Shoal beside the parts of the engine. */
export function mergedVersion(own: unknown, engine: unknown, apiVersion: string): unknown {
  const ours = objectOf(own);
  const theirs = objectOf(engine);
  const [self] = listOf(ours['Components']);
  return {
    ...theirs,
    ApiVersion: apiVersion,
    MinAPIVersion: theirs['MinAPIVersion'] ?? ours['MinAPIVersion'],
    Components: [...listOf(theirs['Components']), { ...objectOf(self), Name: 'Shoal' }],
  };
}

export function mergedPrune(own: unknown, engine: unknown): unknown {
  const deleted = [
    ...listOf(objectOf(own)['NetworksDeleted']),
    ...listOf(objectOf(engine)['NetworksDeleted']),
  ];
  return { NetworksDeleted: deleted.length === 0 ? null : deleted };
}

/** Docker's `EndpointSettings`, as requests have them. */
function endpointOf(json: unknown): OverlayEndpoint {
  const { Aliases: aliases, IPAMConfig: ipam } = objectOf(json);
  const { IPv4Address: v4, IPv6Address: v6 } = objectOf(ipam);
  const ip = [v4, v6].find((one) => typeof one === 'string' && one !== '');
  const texts = listOf(aliases).filter((one): one is string => typeof one === 'string');
  return { aliases: texts, ip: ip === undefined ? undefined : String(ip) };
}

/** Body of `POST /networks/ID/connect` and `disconnect`. */
export function connectRequest(body: unknown): {
  readonly container: string;
  readonly endpoint: OverlayEndpoint;
} {
  const { Container: container, EndpointConfig: endpoint } = objectOf(body);
  const ref = typeof container === 'string' ? container : '';
  return { container: ref, endpoint: endpointOf(endpoint) };
}

/** How a container is to be on each network that the request to make it names, by name or id. */
export function askedNetworks(body: unknown): ReadonlyMap<string, OverlayEndpoint> {
  const { HostConfig: host, NetworkingConfig: networking } = objectOf(body);
  const mode = objectOf(host)['NetworkMode'];
  const asked = objectOf(objectOf(networking)['EndpointsConfig']);
  const refs = new Set([...(typeof mode === 'string' ? [mode] : []), ...Object.keys(asked)]);
  return new Map([...refs].map((ref) => [ref, endpointOf(asked[ref])]));
}
