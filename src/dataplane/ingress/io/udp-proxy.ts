import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { performance } from 'node:perf_hooks';
import type { Ticket } from '../../core/balance/backend-set.js';
import { EVERYWHERE } from '../core/bind.js';
import { ClientShares } from '../core/client-shares.js';
import { someOpenFlows } from '../core/open-flows.js';
import type {
  FlowEnd,
  ListenFailure,
  OpenFlow,
  ProxyPolicy,
  Upstream,
} from '../core/proxy-driver.js';
import { proxyHeader } from '../wire/proxy-protocol.js';
import { isWithoutIpv6, Places } from './places.js';

/** UDP flows that the portable driver carries at a time: one socket each. */
export const UDP_FLOWS_MAX = 4096;
/** Datagrams that wait while a new flow's socket is opened. */
const WAITING_MAX = 16;
/** Silence after which a flow is forgotten; as long as common resolvers, games and QUIC stay silent. */
const IDLE_TIMEOUT_MS = 120_000;
const SWEEP_INTERVAL_MS = 2000;
/** Where there is no room, this part of the usual silence is enough to lose one's place: a question and its answer are over. */
const FULL_PART = 4;
/** What is full is looked through no more often. */
const FORGET_MS = 100;

export interface UdpProxyDependencies {
  readonly policy: ProxyPolicy;
  /** A bound socket of a namespace. */
  readonly openIn: (netns: string, address: string) => Promise<Socket>;
  readonly idleTimeoutMs?: number;
  /** Default `UDP_FLOWS_MAX`. */
  readonly flowsMax?: number;
}

/**
 * Relays UDP flows on `node:dgram`. A flow is a client's address and port at one published port, and at one of the
 * addresses that this is bound to; it keeps its backend while that is there, and gets another one with the next datagram when it is not.
 */
export class UdpProxy {
  readonly #deps: UdpProxyDependencies;
  readonly #idleMs: number;
  readonly #sockets = new Places<Socket>((socket) => this.#leave(socket));
  readonly #flows = new Map<string, UdpFlow>();
  readonly #flowsMax: number;
  readonly #shares: ClientShares;
  readonly #sweeper: NodeJS.Timeout;
  #forgotMs = Number.NEGATIVE_INFINITY;

  constructor(dependencies: UdpProxyDependencies) {
    this.#deps = dependencies;
    this.#idleMs = dependencies.idleTimeoutMs ?? IDLE_TIMEOUT_MS;
    this.#flowsMax = dependencies.flowsMax ?? UDP_FLOWS_MAX;
    this.#shares = new ClientShares(this.#flowsMax);
    const sweepMs = Math.min(SWEEP_INTERVAL_MS, this.#idleMs);
    this.#sweeper = setInterval(() => this.#sweep(this.#idleMs), sweepMs);
    this.#sweeper.unref();
  }

  get flowCount(): number {
    return this.#flows.size;
  }

  flows(listeners: ReadonlySet<number>, most: number): readonly OpenFlow[] {
    return someOpenFlows(this.#flows.values(), listeners, most);
  }

  open(
    listener: number,
    port: number,
    places: readonly string[],
  ): Promise<readonly ListenFailure[]> {
    return this.#sockets.open(listener, places, async (place) => {
      const socket = await bindAt(place, port);
      socket.on('error', () => undefined);
      socket.on('message', (datagram, client) =>
        this.#onDatagram(listener, place, socket, datagram, client),
      );
      return socket;
    });
  }

  close(listener: number): void {
    this.#sockets.close(listener);
  }

  /** Only sockets are given back: the next datagram finds the flow a new backend. */
  resetGone(): void {
    for (const flow of this.#flows.values()) flow.isLive();
  }

  stop(): void {
    clearInterval(this.#sweeper);
    this.#sockets.closeAll();
  }

  /** Its flows end with it. */
  #leave(socket: Socket): void {
    socket.close();
    for (const [key, flow] of this.#flows)
      if (flow.downstream === socket) this.#drop(key, flow, 'closed');
  }

  #onDatagram(
    listener: number,
    place: string,
    socket: Socket,
    datagram: Buffer,
    client: RemoteInfo,
  ): void {
    const key = `${listener} ${place} ${client.address} ${client.port}`;
    let flow = this.#flows.get(key);
    if (flow === undefined) {
      this.#deps.policy.accepted(listener);
      if (!this.#takePlace(client.address)) {
        this.#deps.policy.ended(listener, 'limit', 0, 0);
        return;
      }
      flow = new UdpFlow(this.#deps, listener, client, socket);
      this.#flows.set(key, flow);
    }
    flow.lastMs = performance.now();
    const failed = flow.send(datagram);
    if (failed !== undefined) this.#drop(key, flow, failed);
  }

  #takePlace(client: string): boolean {
    let hasShare = this.#shares.take(client);
    if (!hasShare) {
      this.#forgetSilent((flow) => this.#shares.areOne(flow.client.address, client));
      hasShare = this.#shares.take(client);
    }
    if (!hasShare) return false;
    if (this.#flows.size >= this.#flowsMax) this.#forgetSilent(() => true);
    if (this.#flows.size < this.#flowsMax) return true;
    this.#shares.leave(client);
    return false;
  }

  /** Where there is no room. A client that has used up its share costs no one else a place. */
  #forgetSilent(isMeant: (flow: UdpFlow) => boolean): void {
    const nowMs = performance.now();
    if (nowMs - this.#forgotMs < FORGET_MS) return;
    this.#forgotMs = nowMs;
    this.#sweep(this.#idleMs / FULL_PART, isMeant);
  }

  #sweep(idleMs: number, isMeant: (flow: UdpFlow) => boolean = () => true): void {
    const idleSinceMs = performance.now() - idleMs;
    for (const [key, flow] of this.#flows)
      if (flow.lastMs < idleSinceMs && isMeant(flow)) this.#drop(key, flow, 'closed');
  }

  #drop(key: string, flow: UdpFlow, end: FlowEnd): void {
    this.#flows.delete(key);
    this.#shares.leave(flow.client.address);
    flow.close();
    this.#deps.policy.ended(flow.listener, end, flow.bytesUp, flow.bytesDown);
  }
}

class UdpFlow {
  readonly listener: number;
  readonly #deps: UdpProxyDependencies;
  readonly client: RemoteInfo;
  readonly downstream: Socket;
  readonly #startedMs = performance.now();
  #upstream: Socket | undefined;
  #where: Upstream | undefined;
  #isReady = false;
  #waiting: Buffer[] = [];
  lastMs = 0;
  bytesUp = 0;
  bytesDown = 0;

  constructor(
    dependencies: UdpProxyDependencies,
    listener: number,
    client: RemoteInfo,
    downstream: Socket,
  ) {
    this.#deps = dependencies;
    this.listener = listener;
    this.client = client;
    this.downstream = downstream;
  }

  view(): OpenFlow {
    const ticket = this.#where?.ticket;
    return {
      listener: this.listener,
      clientAddress: this.client.address,
      clientPort: this.client.port,
      startedMs: this.#startedMs,
      ...(ticket !== undefined && { ticket }),
      bytesUp: this.bytesUp,
      bytesDown: this.bytesDown,
    };
  }

  /** @returns How it ends where there is no backend for it. */
  send(datagram: Buffer): FlowEnd | undefined {
    const failed = this.isLive() ? undefined : this.#open([]);
    if (failed !== undefined) return failed;
    this.bytesUp += datagram.length;
    if (this.#isReady) this.#sendUp(datagram);
    else if (this.#waiting.length < WAITING_MAX) this.#waiting.push(datagram);
    return undefined;
  }

  /** Whether its backend still is one; else the flow lets go of it. */
  isLive(): boolean {
    if (this.#where === undefined) return false;
    if (this.#deps.policy.isLive(this.listener, this.#where.ticket)) return true;
    this.#letGo();
    return false;
  }

  close(): void {
    this.#letGo();
  }

  #letGo(): void {
    const { policy } = this.#deps;
    if (this.#where !== undefined) policy.released(this.listener, this.#where.ticket);
    this.#where = undefined;
    this.#isReady = false;
    this.#waiting = [];
    this.#upstream?.close();
    this.#upstream = undefined;
  }

  #open(tried: readonly Ticket[]): FlowEnd | undefined {
    const { policy } = this.#deps;
    const { address, port } = this.client;
    const where = policy.choose(this.listener, address, port, tried);
    if (where === undefined || where === 'refused') return where ?? 'no_backend';
    this.#where = where;
    void this.#connect(where);
    return undefined;
  }

  async #connect(where: Upstream): Promise<void> {
    let socket: Socket;
    try {
      socket = await this.#socketFor(where);
    } catch {
      if (this.#where === where) this.#onRefused(where);
      return;
    }
    if (this.#where !== where) {
      socket.close();
      return;
    }
    this.#upstream = socket;
    this.#isReady = true;
    socket.on('error', () => {
      if (this.#where === where) this.#onRefused(where);
    });
    socket.once('message', () => this.#deps.policy.answered(this.listener, where.ticket));
    socket.on('message', (datagram) => {
      this.lastMs = performance.now();
      this.bytesDown += datagram.length;
      this.downstream.send(datagram, this.client.port, this.client.address, sent);
    });
    for (const datagram of this.#waiting.splice(0)) this.#sendUp(datagram);
  }

  #sendUp(datagram: Buffer): void {
    const where = this.#where;
    this.#upstream?.send(this.#withHeader(datagram), (error) => {
      // The kernel tells of a refusal once, by whichever call comes first.
      if (error !== null && where !== undefined && this.#where === where) this.#onRefused(where);
    });
  }

  /** The address that the client sent to is not told by the kernel: it is given as unspecified. */
  #withHeader(datagram: Buffer): Buffer {
    const protocol = this.#where?.proxyProtocol;
    if (protocol === undefined) return datagram;
    const { address, port } = this.client;
    const isV4 = !address.includes(':') || address.startsWith('::ffff:');
    const target = { address: isV4 ? '0.0.0.0' : '::', port: this.downstream.address().port };
    return Buffer.concat([proxyHeader(protocol, 'udp', { address, port }, target), datagram]);
  }

  async #socketFor({ address, port, netns }: Upstream): Promise<Socket> {
    const socket =
      netns === undefined ? socketFor(address) : await this.#deps.openIn(netns, address);
    try {
      const connected = once(socket, 'connect');
      socket.connect(port, address);
      await connected;
    } catch (error) {
      socket.close();
      throw error;
    }
    return socket;
  }

  /** Nobody listens there (ICMP said so): what waits goes elsewhere, and so does what comes. */
  #onRefused(where: Upstream): void {
    const { policy } = this.#deps;
    policy.failed(this.listener, where.ticket);
    const waiting = this.#waiting;
    this.#letGo();
    if (this.#open([where.ticket]) !== undefined) return;
    this.#waiting = waiting;
  }
}

function socketFor(address: string): Socket {
  return address.includes(':')
    ? createSocket({ type: 'udp6', lookup: literalLookup(6) })
    : createSocket({ type: 'udp4', lookup: literalLookup(4) });
}

/** All addresses here are literals: nothing need be looked up to send to one. */
function literalLookup(family: 4 | 6) {
  return (
    host: string,
    _options: unknown,
    done: (error: null, address: string, family: number) => void,
  ): void => done(null, host, family);
}

/** A datagram that the kernel does not take is lost, as datagrams are. */
function sent(): void {}

async function bindAt(place: string, port: number): Promise<Socket> {
  if (!EVERYWHERE.includes(place)) return bind(socketFor(place), place, port);
  try {
    const socket = createSocket({ type: 'udp6', ipv6Only: false, lookup: literalLookup(6) });
    return await bind(socket, place, port);
  } catch (error) {
    if (!isWithoutIpv6(place, error)) throw error;
    return bind(socketFor('0.0.0.0'), '0.0.0.0', port);
  }
}

async function bind(socket: Socket, address: string, port: number): Promise<Socket> {
  const listening = once(socket, 'listening');
  socket.bind({ address, port, exclusive: true });
  try {
    await listening;
  } catch (error) {
    socket.close();
    throw error;
  }
  return socket;
}
