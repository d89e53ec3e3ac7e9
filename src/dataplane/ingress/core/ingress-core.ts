import ipaddr from 'ipaddr.js';
import { type Access, rangesInclude } from '../../../base/access-labels.js';
import { NO_BACKEND, type Ticket } from '../../core/balance/backend-set.js';
import { Balancer } from '../../core/balance/balancer.js';
import { hashText } from '../../core/balance/hash.js';
import type { ProxyProtocol } from '../wire/proxy-protocol.js';
import { ClientRates } from './client-rates.js';
import { wordsOf } from './client-words.js';
import { FLOW_ENDS, type FlowEnd, type Upstream } from './proxy-driver.js';
import type { PortBackend, PublishedPort } from './published-ports.js';

/** Backends that one flow is offered to; those that refuse cost a round trip each. */
const ATTEMPTS_MAX = 16;
/** A SYN that is lost is sent again after one second, and after three. */
const CONNECT_MS = 3500;
/** So long a silent backend is waited for while there are others; each further one twice as long. */
const CONNECT_ELSE_MS = 500;

/** Clients whose addresses mean the same in a task's namespace as here: not loopback, nor link-local ones. */
const CLIENT_RANGES: ReadonlySet<string> = new Set([
  'unicast',
  'private',
  'uniqueLocal',
  'carrierGradeNat',
  'reserved',
  'benchmarking',
  'as112',
  'amt',
]);

/** Why a client is refused, by the labels of the service. */
const REFUSALS = ['allow_from', 'connections_max', 'rate'] as const;
type Refusal = (typeof REFUSALS)[number];

/** Of one published port, since it is open. */
export interface PortStats {
  readonly key: string;
  readonly serviceId: string;
  readonly serviceName: string;
  readonly mode: 'ingress' | 'host';
  readonly accepted: number;
  readonly active: number;
  readonly ends: Readonly<Record<FlowEnd, number>>;
  readonly bytesUp: number;
  readonly bytesDown: number;
  readonly connectFailures: number;
  readonly connects: number;
  readonly connectMsTotal: number;
  readonly ejections: number;
  readonly refusedBackends: number;
  readonly refusals: Readonly<Record<Refusal, number>>;
  readonly backends: { readonly known: number; readonly ready: number; readonly ejected: number };
  readonly tasks: readonly TaskStats[];
}

/** Of one task behind a port, since it is known there. */
export interface TaskStats {
  readonly taskId: string;
  readonly active: number;
  readonly connects: number;
  readonly connectFailures: number;
}

/** What changed for the driver: listeners to close, then those to open. All others stay where they are. */
export interface ListenerChanges {
  readonly closed: readonly number[];
  readonly opened: readonly { readonly listener: number; readonly port: PublishedPort }[];
  readonly kept: readonly { readonly listener: number; readonly port: PublishedPort }[];
}

interface Listener {
  readonly number: number;
  port: PublishedPort;
  readonly balancer: Balancer;
  backends: ReadonlyMap<string, PortBackend>;
  accepted: number;
  active: number;
  bytesUp: number;
  bytesDown: number;
  connectFailures: number;
  connects: number;
  connectMsTotal: number;
  readonly ends: Record<FlowEnd, number>;
  readonly refusals: Record<Refusal, number>;
  tasks: Map<string, { connects: number; failures: number }>;
  /** Tickets that flows, or choices made ahead, hold. */
  held: number;
  rates: ClientRates | undefined;
}

/**
 * The ingress of one node without its sockets: which ports are open, and where each flow goes.
 *
 * A listener keeps its number while the same service has the port. Numbers are never used again, so
 * that a flow which outlives its listener speaks of nobody else's.
 */
export class IngressCore {
  readonly #seed: number;
  readonly #byKey = new Map<string, Listener>();
  readonly #byNumber = new Map<number, Listener>();
  readonly #client = new Int32Array(4);
  #subnets: readonly [ipaddr.IPv4 | ipaddr.IPv6, number][] | undefined;
  #clientText = '';
  #nextNumber = 1;

  /** @param seed This node's own. */
  constructor(seed: number) {
    this.#seed = seed;
  }

  /** Where tasks answer clients by their own addresses, of the families of these: subnets of the ingress network. */
  setIngressSubnets(subnets: readonly string[] | undefined): void {
    this.#subnets = subnets?.flatMap((text) =>
      ipaddr.isValidCIDR(text) ? [ipaddr.parseCIDR(text)] : [],
    );
  }

  /** Makes these the published ports. */
  apply(ports: readonly PublishedPort[], nowMs: number): ListenerChanges {
    const wanted = new Map(ports.map((port) => [port.key, port]));
    const closed: number[] = [];
    const opened: { listener: number; port: PublishedPort }[] = [];
    const kept: { listener: number; port: PublishedPort }[] = [];
    for (const listener of [...this.#byKey.values()]) {
      const port = wanted.get(listener.port.key);
      if (port !== undefined && isSameListener(listener.port, port)) continue;
      this.#byKey.delete(listener.port.key);
      closed.push(listener.number);
      if (listener.active === 0) this.#byNumber.delete(listener.number);
    }
    for (const port of wanted.values()) {
      let listener = this.#byKey.get(port.key);
      if (listener === undefined) {
        listener = this.#newListener(port);
        opened.push({ listener: listener.number, port });
      } else kept.push({ listener: listener.number, port });
      listener.port = port;
      listener.backends = new Map(port.backends.map((backend) => [backend.key, backend]));
      const { perSecond } = port.access;
      if (listener.rates?.perSecond !== perSecond)
        listener.rates =
          perSecond === 0 ? undefined : new ClientRates(perSecond, hashText(port.key, this.#seed));
      listener.tasks = new Map(
        port.backends.map(({ key }) => [
          key,
          listener?.tasks.get(key) ?? { connects: 0, failures: 0 },
        ]),
      );
      listener.balancer.configure(port.balance);
      listener.balancer.replace(port.backends, nowMs);
    }
    return { closed, opened, kept };
  }

  accepted(number: number): void {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return;
    listener.accepted += 1;
    listener.active += 1;
  }

  choose(
    number: number,
    clientAddress: string,
    clientPort: number,
    tried: readonly Ticket[],
    nowMs: number,
  ): Upstream | 'refused' | undefined {
    const listener = this.#byNumber.get(number);
    if (listener === undefined || tried.length >= ATTEMPTS_MAX) return undefined;
    this.#readClient(clientAddress);
    const { balancer, port } = listener;
    // A flow that has been let in goes on until it has a backend, or none is left.
    const refusal = tried.length === 0 ? this.#refusalOf(listener, nowMs) : undefined;
    if (refusal !== undefined) {
      listener.refusals[refusal] += 1;
      return 'refused';
    }
    const ports = (clientPort << 16) | port.port;
    const ticket = balancer.choose(this.#client, ports, nowMs, tried);
    if (ticket === NO_BACKEND) return undefined;
    const backend = listener.backends.get(balancer.keyOf(ticket) ?? '');
    if (backend === undefined) return undefined;
    const { address, netns } = backend;
    listener.held += 1;
    const isLast = balancer.counts.ready <= tried.length + 1;
    const connectMs = isLast ? CONNECT_MS : Math.min(CONNECT_ELSE_MS << tried.length, CONNECT_MS);
    const proxyProtocol = proxyProtocolOf(port);
    const places = isPreserved(port) ? this.#placesOf(clientAddress, port.protocol, backend) : {};
    return {
      ticket,
      address,
      port: port.targetPort,
      connectMs,
      ...(netns !== undefined && { netns }),
      ...places,
      ...(proxyProtocol !== undefined && { proxyProtocol }),
    };
  }

  foresees(number: number, nowMs: number): boolean {
    const listener = this.#byNumber.get(number);
    if (listener === undefined || isLimited(listener.port.access)) return false;
    return listener.balancer.foresees(nowMs);
  }

  withdrawn(number: number, ticket: Ticket): void {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return;
    listener.held -= 1;
    listener.balancer.withdraw(ticket);
  }

  /** A closed listener hears of no changes any more: its flows are left to end by themselves. */
  isLive(number: number, ticket: Ticket): boolean {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return false;
    return (
      this.#byKey.get(listener.port.key) !== listener ||
      listener.balancer.stateOf(ticket) !== undefined
    );
  }

  connected(number: number, ticket: Ticket, latencyMs: number): void {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return;
    listener.connects += 1;
    listener.connectMsTotal += latencyMs;
    const task = listener.tasks.get(listener.balancer.keyOf(ticket) ?? '');
    if (task !== undefined) task.connects += 1;
    listener.balancer.connected(ticket, latencyMs);
  }

  answered(number: number, ticket: Ticket, nowMs: number, waitedMs?: number): void {
    this.#byNumber.get(number)?.balancer.succeeded(ticket, nowMs, waitedMs);
  }

  silent(number: number, ticket: Ticket, nowMs: number): void {
    this.#byNumber.get(number)?.balancer.silent(ticket, nowMs);
  }

  failed(number: number, ticket: Ticket, nowMs: number): void {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return;
    listener.connectFailures += 1;
    const task = listener.tasks.get(listener.balancer.keyOf(ticket) ?? '');
    if (task !== undefined) task.failures += 1;
    listener.balancer.failed(ticket, nowMs);
  }

  released(number: number, ticket: Ticket): void {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return;
    listener.held -= 1;
    listener.balancer.ended(ticket);
  }

  ended(number: number, end: FlowEnd, bytesUp: number, bytesDown: number): void {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return;
    listener.ends[end] += 1;
    listener.active -= 1;
    listener.bytesUp += bytesUp;
    listener.bytesDown += bytesDown;
    const isClosed = this.#byKey.get(listener.port.key) !== listener;
    if (isClosed && listener.active === 0) this.#byNumber.delete(number);
  }

  /** Connections to a task that are open or being made, those of ports that were closed meanwhile too. */
  flowsTo(taskId: string): number {
    let count = 0;
    // Datagrams have no end: who sends them is to notice where they do not arrive any more.
    for (const { port, balancer } of this.#byNumber.values())
      if (port.protocol === 'tcp') count += balancer.activeOf(taskId);
    return count;
  }

  /** Those of one service, by its id or name, or all; closed ones too whose flows go on. */
  listeners(service: string | undefined): ReadonlySet<number> {
    const found = new Set<number>();
    for (const { number, port } of this.#byNumber.values())
      if (service === undefined || service === port.serviceId || service === port.serviceName)
        found.add(number);
    return found;
  }

  activeOf(listeners: ReadonlySet<number>): number {
    let count = 0;
    for (const number of listeners) count += this.#byNumber.get(number)?.active ?? 0;
    return count;
  }

  /** What a listener's number and a ticket stand for. */
  describe(
    number: number,
    ticket: Ticket | undefined,
  ):
    | {
        readonly port: PublishedPort;
        readonly taskId: string | undefined;
        readonly address: string | undefined;
      }
    | undefined {
    const listener = this.#byNumber.get(number);
    if (listener === undefined) return undefined;
    const taskId = ticket === undefined ? undefined : listener.balancer.keyOf(ticket);
    const address = listener.backends.get(taskId ?? '')?.address;
    return { port: listener.port, taskId, address };
  }

  stats(): readonly PortStats[] {
    return [...this.#byKey.values()].map(({ port, balancer, ends, refusals, ...listener }) => ({
      key: port.key,
      serviceId: port.serviceId,
      serviceName: port.serviceName,
      mode: port.mode,
      accepted: listener.accepted,
      active: listener.active,
      ends: { ...ends },
      refusals: { ...refusals },
      tasks: [...listener.tasks].map(([taskId, { connects, failures }]) => ({
        taskId,
        active: balancer.activeOf(taskId),
        connects,
        connectFailures: failures,
      })),
      bytesUp: listener.bytesUp,
      bytesDown: listener.bytesDown,
      connectFailures: listener.connectFailures,
      connects: listener.connects,
      connectMsTotal: listener.connectMsTotal,
      ejections: balancer.ejectionsTotal,
      refusedBackends: port.refusedCount,
      backends: balancer.counts,
    }));
  }

  #newListener(port: PublishedPort): Listener {
    const number = this.#nextNumber;
    this.#nextNumber += 1;
    const nodeSeed = hashText(port.key, this.#seed) >>> 0;
    const sharedSeed = hashText(port.serviceId, 0);
    const listener: Listener = {
      number,
      port,
      balancer: new Balancer(port.balance, nodeSeed, sharedSeed),
      backends: new Map(),
      accepted: 0,
      active: 0,
      bytesUp: 0,
      bytesDown: 0,
      connectFailures: 0,
      connects: 0,
      connectMsTotal: 0,
      ends: zeros(FLOW_ENDS),
      refusals: zeros(REFUSALS),
      tasks: new Map(),
      held: 0,
      rates: undefined,
    };
    this.#byKey.set(port.key, listener);
    this.#byNumber.set(number, listener);
    return listener;
  }

  #refusalOf({ port, rates, held }: Listener, nowMs: number): Refusal | undefined {
    const { allowFrom, mostOpen } = port.access;
    if (allowFrom !== undefined && !rangesInclude(allowFrom, this.#client)) return 'allow_from';
    if (mostOpen > 0 && held >= mostOpen) return 'connections_max';
    return rates?.take(this.#client, nowMs) === false ? 'rate' : undefined;
  }

  /** Whether a client, or one that is not known yet, is taken under its own address, and where those of IPv6 are. */
  #placesOf(
    clientAddress: string,
    protocol: PublishedPort['protocol'],
    { address, address6, answersDatagrams = false, answersDatagrams6 = false }: PortBackend,
  ): Pick<Upstream, 'asClient' | 'address6'> {
    const isTcp = protocol === 'tcp';
    const isTaken4 = !address.includes(':') && (isTcp || answersDatagrams) && this.#takes('ipv4');
    const place6 = address6 ?? (address.includes(':') ? address : undefined);
    const isTaken6 = place6 !== undefined && (isTcp || answersDatagrams6) && this.#takes('ipv6');
    // One that is taken by IPv6 alone, and has both, is left out: drivers take `address` for its family's.
    if (!isTaken4 && !(isTaken6 && place6 === address)) return {};
    const places = { asClient: true, ...(isTaken6 && place6 !== address && { address6: place6 }) };
    // Chosen ahead, for whoever comes: the driver looks at the address then.
    if (clientAddress === '') return places;
    if (!ipaddr.isValid(clientAddress)) return {};
    const client = ipaddr.process(clientAddress);
    const isTaken = client.kind() === 'ipv6' ? isTaken6 : isTaken4;
    return isTaken && this.#isOutside(client) ? places : {};
  }

  /** Whether what is sent to clients of this family comes back here. */
  #takes(kind: 'ipv4' | 'ipv6'): boolean {
    return this.#subnets?.some(([subnet]) => subnet.kind() === kind) === true;
  }

  /** Whether an address means the same in a task's namespace as here. */
  #isOutside(client: ipaddr.IPv4 | ipaddr.IPv6): boolean {
    if (!CLIENT_RANGES.has(client.range())) return false;
    // An address of the ingress network itself is an endpoint's, wherever else it may be used.
    return (
      this.#subnets?.some(
        ([subnet, bits]) => subnet.kind() === client.kind() && client.match(subnet, bits),
      ) !== true
    );
  }

  #readClient(address: string): void {
    // Choices that are made ahead come many in a row, and for nobody.
    if (address === this.#clientText) return;
    this.#clientText = address;
    this.#client.set(wordsOf(address));
  }
}

/** Whether it matters who comes, or how many: then nothing can be chosen ahead. */
function isLimited({ allowFrom, mostOpen, perSecond }: Access): boolean {
  return allowFrom !== undefined || mostOpen > 0 || perSecond > 0;
}

function zeros<Word extends string>(words: readonly Word[]): Record<Word, number> {
  return Object.fromEntries(words.map((word) => [word, 0])) as Record<Word, number>;
}

function isPreserved({ clientAddress, mode }: PublishedPort): boolean {
  return clientAddress === 'preserve' && mode === 'ingress';
}

function proxyProtocolOf({ clientAddress, protocol }: PublishedPort): ProxyProtocol | undefined {
  if (clientAddress === 'proxy-v2') return 'v2';
  return clientAddress === 'proxy-v1' && protocol === 'tcp' ? 'v1' : undefined;
}

function isSameListener(a: PublishedPort, b: PublishedPort): boolean {
  if (a.serviceId !== b.serviceId || a.mode !== b.mode) return false;
  // In the host mode a port is one task's.
  return a.mode === 'ingress' || a.backends[0]?.key === b.backends[0]?.key;
}
