import { type Access, type BindTo, OPEN_ACCESS, readAccess } from '../../../base/access-labels.js';
import type { BackendEntry, BackendState } from '../../core/balance/backend-set.js';
import { BACKENDS_MAX } from '../../core/balance/backend-set.js';
import type { BalanceConfig } from '../../core/balance/config.js';
import { balanceOfLabels, type ClientAddressWay } from '../../core/balance/labels.js';

export type PortProtocol = 'tcp' | 'udp';

/** Published ports that one node opens; beyond, those of the services with the last ids are closed. */
export const PUBLISHED_PORTS_MAX = 4096;

/** A service as the ingress needs it: what the swarm tells every node. */
export interface IngressService {
  readonly id: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly ports: readonly {
    readonly protocol: string;
    readonly publishedPort: number;
    readonly targetPort: number;
  }[];
}

/** A task's place on the ingress network, as its node tells it. */
export interface IngressEndpoint {
  readonly serviceId: string;
  readonly taskId: string;
  readonly slot: number;
  /** Literals, without prefix length. */
  readonly addresses: readonly string[];
  readonly state: BackendState;
  readonly isLocal: boolean;
  readonly isFailing?: boolean | undefined;
  /** Datagrams may come from its clients' addresses: of IPv4; and of IPv6, then of both. */
  readonly answersDatagrams?: boolean;
  readonly answersDatagrams6?: boolean;
}

/** A port in the host mode: of one task of this node. */
export interface HostPort {
  readonly protocol: string;
  readonly publishedPort: number;
  readonly targetPort: number;
  readonly taskId: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly state: BackendState;
  /** As seen from `netns`, or from the host. */
  readonly address: string;
  /** Namespace file that the connection is made in. */
  readonly netns?: string;
}

export interface IngressInputs {
  readonly services: readonly IngressService[];
  readonly endpoints: readonly IngressEndpoint[];
  readonly hostPorts: readonly HostPort[];
  /**
   * Subnets of the ingress network, where tasks can answer clients by their own addresses, of the families of
   * those; absent: they cannot.
   */
  readonly ingressSubnets?: readonly string[] | undefined;
  /** Where ports of services listen that do not say it themselves; absent: everywhere. */
  readonly bind?: BindTo | undefined;
}

/** One reachable task behind a published port. */
export interface PortBackend extends BackendEntry {
  readonly address: string;
  readonly netns?: string;
  /** Of IPv6, if `address` is not. */
  readonly address6?: string;
  /** As `IngressEndpoint.answersDatagrams`. */
  readonly answersDatagrams?: boolean;
  readonly answersDatagrams6?: boolean;
}

export interface PublishedPort {
  /** `tcp/80`: one of each is open on a node. */
  readonly key: string;
  readonly protocol: PortProtocol;
  readonly port: number;
  readonly targetPort: number;
  readonly mode: 'ingress' | 'host';
  readonly serviceId: string;
  readonly serviceName: string;
  readonly balance: BalanceConfig;
  readonly clientAddress: ClientAddressWay;
  readonly access: Access;
  /** Addresses of this node that it listens at; absent: all. */
  readonly bind: BindTo | undefined;
  readonly backends: readonly PortBackend[];
  /** Tasks that are too many for one set. */
  readonly refusedCount: number;
}

export interface DerivedPorts {
  readonly ports: readonly PublishedPort[];
  /** What was left out or ignored, in sentences for the log; the same inputs give the same ones. */
  readonly problems: readonly string[];
}

/**
 * What this node publishes, as a pure function of services and endpoints, as the overlay's tables
 * are: nothing is patched, so nothing is stale. Of two that want one port the older id has it, and
 * ports in the ingress mode come before those in the host mode.
 */
export function derivePublishedPorts(inputs: IngressInputs): DerivedPorts {
  const ports = new Map<string, PublishedPort>();
  const problems: string[] = [];
  const add = (port: PublishedPort) => {
    const held = ports.get(port.key);
    if (held !== undefined)
      problems.push(
        `port ${port.key} of service ${port.serviceName} is not opened: service ${held.serviceName} has it`,
      );
    else if (ports.size >= PUBLISHED_PORTS_MAX)
      problems.push(
        `port ${port.key} of service ${port.serviceName} is not opened: too many ports`,
      );
    else ports.set(port.key, port);
  };
  const read = new Map<string, Pick<PublishedPort, 'access' | 'bind'>>();
  const byService = groupByService(inputs.endpoints);
  for (const service of [...inputs.services].sort((a, b) => compare(a.id, b.id))) {
    const { access, bind = inputs.bind, problems: refused } = readAccess(service.labels);
    read.set(service.id, { access, bind });
    problems.push(...refused.map((label) => `service ${service.name}: ${label}`));
    if (service.ports.length === 0) continue;
    const { balance, clientAddress, problems: labels } = balanceOfLabels(service.labels);
    problems.push(...labels.map((label) => `service ${service.name}: ${label}`));
    const all = backendsOf(byService.get(service.id) ?? [], balance);
    const backends = all.slice(0, BACKENDS_MAX);
    const refusedCount = all.length - backends.length;
    for (const { protocol, publishedPort, targetPort } of service.ports) {
      if (!isProtocol(protocol)) {
        problems.push(
          `port ${publishedPort} of service ${service.name}: ${protocol} is not served`,
        );
        continue;
      }
      if (protocol === 'udp' && clientAddress === 'proxy-v1')
        problems.push(
          `port ${publishedPort}/udp of service ${service.name}: tasks are not told of clients, for which datagrams need proxy-v2`,
        );
      add({
        key: `${protocol}/${publishedPort}`,
        protocol,
        port: publishedPort,
        targetPort,
        mode: 'ingress',
        serviceId: service.id,
        serviceName: service.name,
        balance,
        clientAddress,
        access,
        bind,
        backends,
        refusedCount,
      });
    }
  }
  for (const host of [...inputs.hostPorts].sort((a, b) => compare(a.taskId, b.taskId))) {
    const { access, bind } = read.get(host.serviceId) ?? {
      access: OPEN_ACCESS,
      bind: inputs.bind,
    };
    const port = hostPortOf(host, access, bind);
    if (port !== undefined) add(port);
  }
  return { ports: [...ports.values()], problems };
}

function groupByService(
  endpoints: readonly IngressEndpoint[],
): ReadonlyMap<string, readonly IngressEndpoint[]> {
  const groups = new Map<string, IngressEndpoint[]>();
  for (const endpoint of endpoints) {
    const group = groups.get(endpoint.serviceId);
    if (group === undefined) groups.set(endpoint.serviceId, [endpoint]);
    else group.push(endpoint);
  }
  return groups;
}

function backendsOf(
  endpoints: readonly IngressEndpoint[],
  balance: BalanceConfig,
): readonly PortBackend[] {
  return endpoints
    .flatMap((endpoint) => {
      const { taskId, slot, addresses, state, isLocal, isFailing } = endpoint;
      const { answersDatagrams, answersDatagrams6 } = endpoint;
      // One address is enough to reach a task, and IPv4 is there always.
      const address = addresses.find((a) => !a.includes(':')) ?? addresses[0];
      if (address === undefined) return [];
      const address6 = addresses.find((a) => a.includes(':'));
      const backend: PortBackend = {
        key: taskId,
        state,
        weight: balance.weights.get(slot) ?? 1,
        isLocal,
        address,
        ...(address6 !== undefined && address6 !== address && { address6 }),
        ...(isFailing === true && { isFailing }),
        ...(answersDatagrams === true && { answersDatagrams }),
        ...(answersDatagrams6 === true && { answersDatagrams6 }),
      };
      return [backend];
    })
    .sort((a, b) => compare(a.key, b.key));
}

function hostPortOf(
  host: HostPort,
  access: Access,
  bind: BindTo | undefined,
): PublishedPort | undefined {
  const { protocol, publishedPort, targetPort, taskId, serviceId, serviceName, state } = host;
  if (!isProtocol(protocol)) return undefined;
  const netns = host.netns === undefined ? {} : { netns: host.netns };
  const backend = { key: taskId, state, weight: 1, isLocal: true, address: host.address, ...netns };
  return {
    key: `${protocol}/${publishedPort}`,
    protocol,
    port: publishedPort,
    targetPort,
    mode: 'host',
    serviceId,
    serviceName,
    balance: balanceOfLabels({}).balance,
    clientAddress: 'snat',
    access,
    bind,
    backends: [backend],
    refusedCount: 0,
  };
}

function isProtocol(protocol: string): protocol is PortProtocol {
  return protocol === 'tcp' || protocol === 'udp';
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
