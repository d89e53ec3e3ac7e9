import { randomInt } from 'node:crypto';
import type { PortItem } from '../api/index.js';
import { portHolder } from '../base/io/port-holder.js';
import type { ServiceEntry } from '../base/service-model.js';
import type { Assignments } from '../control/index.js';
import {
  type HostPort,
  Ingress,
  type IngressEndpoint,
  type PortProblem,
} from '../dataplane/ingress/index.js';
import { type EndpointRecord, ingressSubnets } from '../dataplane/overlay/index.js';
import type { PublishedTask } from '../runtime/index.js';
import type { Attachment, Attachments } from './attachments.js';
import type { AgentConfig } from './config.js';
import { INGRESS_IFNAME } from './facts.js';
import { openIngressDriver } from './ingress-driver.js';
import type { Log } from './log.js';

/** Under which the manager gives a node its own place on the ingress network. */
const INGRESS_KEY = 'ingress';
/** After the interface could not be made. */
const RAISE_AGAIN_MS = 2000;

type NodeIngressConfig = Pick<AgentConfig, 'ingressBind' | 'ingressDriver' | 'ingressThreads'>;

/** What the ingress is derived from, besides its own state. */
export interface IngressView {
  readonly self: string;
  readonly assignments: Assignments;
  readonly endpoints: readonly { readonly owner: string; readonly record: EndpointRecord }[];
  readonly members: readonly { readonly id: string; readonly state: string }[];
  readonly attachments: readonly Attachment[];
}

/**
 * This node's published ports: keeps its own place on the ingress network raised in the host's
 * namespace, and tells the proxy of services, tasks and their states. What it knows comes from saved
 * assignments and gossip, so it goes on with no manager alive.
 */
export class NodeIngress {
  readonly #log: Log;
  readonly #attachments: Attachments;
  readonly #ingress: Ingress;
  readonly #bind: AgentConfig['ingressBind'];
  readonly #hostPorts = new Map<string, readonly HostPort[]>();
  #view: IngressView | undefined;
  #isRaising = false;
  #isClosed = false;
  #again: NodeJS.Timeout | undefined;

  /** @throws SwarmError SWARM_UNSUPPORTED when a driver was asked for that is not there. */
  constructor(log: Log, attachments: Attachments, config: NodeIngressConfig) {
    this.#log = log;
    this.#bind = config.ingressBind;
    this.#attachments = attachments;
    this.#ingress = new Ingress({
      seed: randomInt(2 ** 32),
      log,
      driver: openIngressDriver(config),
      holderOf: portHolder,
    });
  }

  /** Follows what is known now. */
  update(view: IngressView): void {
    if (this.#isClosed) return;
    this.#view = view;
    this.#ingress.update({
      services: view.assignments.services,
      endpoints: endpointsOf(view),
      hostPorts: [...this.#hostPorts.values()].flat(),
      ingressSubnets: answeredSubnets(view),
      bind: this.#bind,
    });
    void this.#reconcile();
  }

  /** The ports of a local task in the host mode; none: it has ended. */
  setHostPorts(taskId: string, ports: readonly HostPort[]): void {
    if (ports.length === 0) this.#hostPorts.delete(taskId);
    else this.#hostPorts.set(taskId, ports);
    if (this.#view !== undefined) this.update(this.#view);
  }

  /** Ports that are not served here now, and why. */
  problems(): readonly PortProblem[] {
    return this.#ingress.problems();
  }

  flowsTo(taskId: string): number {
    return this.#ingress.flowsTo(taskId);
  }

  flows(...query: Parameters<Ingress['flows']>): ReturnType<Ingress['flows']> {
    return this.#ingress.flows(...query);
  }

  stats(): ReturnType<Ingress['stats']> {
    return this.#ingress.stats();
  }

  /** The own attachment goes with the others. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#again);
    await this.#ingress.close();
  }

  /** Raises the own attachment as the manager gave it last, and lowers what it took back. */
  async #reconcile(): Promise<void> {
    if (this.#isRaising || this.#isClosed) return;
    const { wanted, unwanted } = this.#differences();
    if (wanted === undefined && unwanted.length === 0) return;
    this.#isRaising = true;
    try {
      for (const { saved } of unwanted) await this.#attachments.lower(saved.id);
      if (wanted !== undefined)
        await this.#attachments.raise({
          object: wanted,
          target: { kind: 'host' },
          ifname: INGRESS_IFNAME,
          assigned: { purpose: 'ingress' },
        });
      this.#isRaising = false;
      // It may have been changed meanwhile.
      void this.#reconcile();
    } catch (error) {
      this.#isRaising = false;
      if (this.#isClosed) return;
      this.#log.warn({ error: (error as Error).message }, 'no place on the ingress network yet');
      this.#again = setTimeout(() => void this.#reconcile(), RAISE_AGAIN_MS).unref();
    }
  }

  #differences() {
    const assignments = this.#view?.assignments;
    const row = assignments?.attachments.find(
      ({ key, networkId }) =>
        key === INGRESS_KEY && assignments.networks.some(({ id }) => id === networkId),
    );
    const held = this.#attachments.list().filter((a) => a.assigned?.purpose === 'ingress');
    const isHeld = held.some(({ saved }) => saved.id === row?.id);
    return {
      wanted: isHeld ? undefined : row,
      unwanted: held.filter(({ saved }) => saved.id !== row?.id),
    };
  }
}

/** What an operator wants to know of each port, the busiest first. */
export function portItems(ports: ReturnType<Ingress['stats']>['ports']): readonly PortItem[] {
  return ports
    .map((port) => ({
      serviceId: port.serviceId,
      serviceName: port.serviceName,
      port: port.key,
      newFlows: port.accepted,
      openFlows: port.active,
      refused: port.refusals,
      connects: port.connects,
      failedConnects: port.connectFailures,
      readyTasks: port.backends.ready,
      openAt: port.openAt,
    }))
    .sort((a, b) => b.openFlows - a.openFlows || b.newFlows - a.newFlows);
}

/** Of the ingress network, those in whose families what is sent there to foreign addresses reaches this host. */
function answeredSubnets({ assignments, attachments }: IngressView): readonly string[] | undefined {
  const own = attachments.find(
    ({ assigned, state }) => assigned?.purpose === 'ingress' && state === 'up',
  );
  const network = assignments.networks.find(({ id }) => id === own?.saved.networkId);
  if (own?.takesForeign === undefined || network === undefined) return undefined;
  const isV6Taken = own.takesForeign.some((cidr) => cidr.includes(':'));
  const subnets = ingressSubnets(network.id, network.subnets);
  return subnets.filter((subnet) => isV6Taken || !subnet.includes(':'));
}

/** Tasks on the ingress network, wherever they are. */
function endpointsOf(view: IngressView): IngressEndpoint[] {
  const { self, assignments, endpoints, members, attachments } = view;
  const ingress = new Set<string>(
    assignments.networks.filter((n) => n.spec.ingress).map((n) => n.id),
  );
  const states = new Map(members.map(({ id, state }) => [id, state]));
  const found: IngressEndpoint[] = [];
  for (const { owner, record } of endpoints) {
    const state = states.get(owner);
    if (owner === self || state === undefined || state === 'left') continue;
    if (record.service === undefined || !ingress.has(record.networkId)) continue;
    // Whoever seems dead may only be cut off: its connections are left to themselves.
    const isAway = state === 'dead';
    found.push({
      serviceId: record.service.id,
      taskId: record.service.taskId,
      slot: record.service.slot,
      addresses: record.addresses.map(withoutPrefix),
      state: isAway ? 'draining' : (record.state ?? 'ready'),
      isLocal: false,
      isFailing: record.isFailing,
      answersDatagrams: record.answersDatagrams === true,
      answersDatagrams6: record.answersDatagrams6 === true,
    });
  }
  for (const attachment of attachments) {
    const {
      saved,
      assigned,
      state,
      answersDatagrams = false,
      answersDatagrams6 = false,
    } = attachment;
    if (assigned?.service === undefined || state !== 'up' || !ingress.has(saved.networkId))
      continue;
    found.push({
      serviceId: assigned.service.id,
      taskId: assigned.service.taskId,
      slot: assigned.service.slot,
      addresses: saved.addresses.map(withoutPrefix),
      state: assigned.endpointState ?? 'ready',
      isLocal: true,
      isFailing: assigned.isFailing,
      answersDatagrams,
      answersDatagrams6,
    });
  }
  return found;
}

/** `10.0.1.5` of `10.0.1.5/24`. */
export function withoutPrefix(cidr: string): string {
  return cidr.replace(/\/.*$/, '');
}

/** A service's virtual addresses on one network. */
export function vipsOn(service: ServiceEntry, networkId: string): readonly string[] {
  if (service.endpointMode !== 'vip') return [];
  return service.virtualIps.flatMap((vip) =>
    vip.networkId === networkId && vip.address !== undefined ? [withoutPrefix(vip.address)] : [],
  );
}

/** Where the ports of one task of this node lead, when they are those of the node itself. */
export function hostPortsOf({ task, netns, ports }: PublishedTask): readonly HostPort[] {
  // With the host's network they are the node's own already.
  if (netns === undefined) return [];
  const address = task.networks[0]?.addresses[0] ?? '127.0.0.1';
  return ports.map(({ protocol, publishedPort, targetPort }) => ({
    protocol,
    publishedPort,
    targetPort,
    taskId: task.id,
    serviceId: task.serviceId,
    serviceName: task.serviceName,
    state: 'ready',
    address: withoutPrefix(address),
    netns,
  }));
}
