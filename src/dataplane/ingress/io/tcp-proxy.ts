import { once } from 'node:events';
import { createServer, type Server, Socket } from 'node:net';
import { performance } from 'node:perf_hooks';
import type { Ticket } from '../../core/balance/backend-set.js';
import { SILENCE_MS } from '../../core/balance/config.js';
import { ClientShares } from '../core/client-shares.js';
import { Ipv4Only } from '../core/ipv4-only.js';
import { someOpenFlows } from '../core/open-flows.js';
import type {
  FlowEnd,
  ListenFailure,
  OpenFlow,
  ProxyPolicy,
  Upstream,
} from '../core/proxy-driver.js';
import { type FlowAddress, proxyHeader } from '../wire/proxy-protocol.js';
import { errnoOf, isWithoutIpv6, Places } from './places.js';

/** TCP flows that the portable driver carries at a time: two descriptors each. */
export const TCP_FLOWS_MAX = 16_384;
/** Waiting connections; the kernel's own ceiling is net.core.somaxconn. */
const BACKLOG = 4096;
/** After this silence the kernel asks whether the other end is still there. */
const KEEPALIVE_MS = 60_000;

/** Refusals of this host, which say nothing about the backend: no descriptors or ports are left. */
const OWN_FAULTS = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'EADDRNOTAVAIL']);

export interface TcpProxyDependencies {
  readonly policy: ProxyPolicy;
  /** A socket that will connect from inside a namespace. */
  readonly openIn: (netns: string, address: string) => Socket;
  /** A socket that will connect from the client's own address and port; 0: from any. */
  readonly openAs?: (address: string, port: number) => Socket;
  /** Default `TCP_FLOWS_MAX`. */
  readonly flowsMax?: number;
}

/** Relays TCP connections on `node:net`: half-close, back-pressure, FIN and RST are carried across. */
export class TcpProxy {
  readonly #deps: TcpProxyDependencies;
  readonly #servers = new Places<Server>((server) => server.close());
  readonly #flows = new Set<TcpFlow>();
  readonly #flowsMax: number;
  readonly #shares: ClientShares;
  readonly #ipv4Only = new Ipv4Only();

  constructor(dependencies: TcpProxyDependencies) {
    this.#deps = dependencies;
    this.#flowsMax = dependencies.flowsMax ?? TCP_FLOWS_MAX;
    this.#shares = new ClientShares(this.#flowsMax);
  }

  get flowCount(): number {
    return this.#flows.size;
  }

  flows(listeners: ReadonlySet<number>, most: number): readonly OpenFlow[] {
    return someOpenFlows(this.#flows, listeners, most);
  }

  open(
    listener: number,
    port: number,
    places: readonly string[],
  ): Promise<readonly ListenFailure[]> {
    return this.#servers.open(listener, places, (place) => this.#listen(listener, place, port));
  }

  close(listener: number): void {
    this.#servers.close(listener);
  }

  resetGone(): void {
    for (const flow of this.#flows) flow.resetIfGone();
  }

  stop(): void {
    this.#servers.closeAll();
    for (const flow of this.#flows) flow.reset('backend_gone');
  }

  async #listen(listener: number, place: string, port: number): Promise<Server> {
    const server = createServer(
      // Nothing is read before a backend has taken the connection, so another can be tried.
      { allowHalfOpen: true, pauseOnConnect: true, noDelay: true, keepAlive: true },
      (socket) => this.#onConnection(listener, socket),
    );
    try {
      await listen(server, place, port);
    } catch (error) {
      if (!isWithoutIpv6(place, error)) throw error;
      await listen(server, '0.0.0.0', port);
    }
    // What goes wrong with one connection (no descriptors left) is told here; the others go on.
    server.on('error', () => undefined);
    return server;
  }

  #onConnection(listener: number, downstream: Socket): void {
    const { policy } = this.#deps;
    policy.accepted(listener);
    const client = downstream.remoteAddress ?? '';
    if (this.#flows.size >= this.#flowsMax || !this.#shares.take(client)) {
      downstream.on('error', () => undefined);
      downstream.resetAndDestroy();
      policy.ended(listener, 'limit', 0, 0);
      return;
    }
    const flow: TcpFlow = new TcpFlow(this.#deps, this.#ipv4Only, listener, downstream, () => {
      if (this.#flows.delete(flow)) this.#shares.leave(client);
    });
    this.#flows.add(flow);
    flow.connect();
  }
}

/**
 * Whose address a backend is spoken to from: the client's, and its port; the client's, from any port, where its own is in
 * use towards that backend; this node's, at the place for clients of IPv6, which shows whether anybody listens there; this
 * node's.
 */
type Way = 'client' | 'client-any-port' | 'own6' | 'own';

const isAsClient = (way: Way) => way === 'client' || way === 'client-any-port';

/** One connection of a client and its counterpart. */
class TcpFlow {
  readonly #deps: TcpProxyDependencies;
  readonly #ipv4Only: Ipv4Only;
  readonly listener: number;
  readonly #downstream: Socket;
  readonly #forget: () => void;
  readonly #startedMs = performance.now();
  readonly #tried: Ticket[] = [];
  #upstream: Socket | undefined;
  #ticket: Ticket | undefined;
  #isConnected = false;
  #hasAnswer = false;
  #wasSilent = false;
  #silence: NodeJS.Timeout | undefined;
  #askedMs: number | undefined;
  /** Not from the client's address any more. */
  #isPlain = false;
  /** By IPv6 nobody listens at the backend. */
  #wasRefused6 = false;
  #end: FlowEnd | undefined;

  constructor(
    dependencies: TcpProxyDependencies,
    ipv4Only: Ipv4Only,
    listener: number,
    downstream: Socket,
    forget: () => void,
  ) {
    this.#deps = dependencies;
    this.#ipv4Only = ipv4Only;
    this.listener = listener;
    this.#downstream = downstream;
    this.#forget = forget;
    downstream.setKeepAlive(true, KEEPALIVE_MS);
    downstream.on('error', () => this.reset('client_reset'));
    downstream.on('close', () => this.#onClose());
  }

  view(): OpenFlow {
    const { remoteAddress = '', remotePort = 0, bytesWritten } = this.#downstream;
    const ticket = this.#ticket;
    return {
      listener: this.listener,
      clientAddress: remoteAddress,
      clientPort: remotePort,
      startedMs: this.#startedMs,
      ...(ticket !== undefined && { ticket }),
      bytesUp: this.#upstream?.bytesWritten ?? 0,
      bytesDown: bytesWritten,
    };
  }

  /** Tries the next backend. */
  connect(): void {
    const { policy } = this.#deps;
    const { remoteAddress = '', remotePort = 0 } = this.#downstream;
    const upstream = policy.choose(this.listener, remoteAddress, remotePort, this.#tried);
    if (upstream === 'refused' || upstream === undefined) {
      this.reset(upstream ?? (this.#tried.length === 0 ? 'no_backend' : 'unreachable'));
      return;
    }
    this.#ticket = upstream.ticket;
    this.#wasRefused6 = false;
    this.#attempt(upstream, this.#firstWay(upstream));
  }

  #firstWay(upstream: Upstream): Way {
    if (upstream.asClient !== true || this.#isPlain) return 'own';
    const place = this.#placeApart(upstream);
    return place === undefined || this.#ipv4Only.letsTry(place, performance.now())
      ? 'client'
      : 'own';
  }

  /** Names where this client is taken by IPv6, and others by IPv4; `undefined` if it is where they are. */
  #placeApart({ address6, port }: Upstream): string | undefined {
    const isV6 = addressOf(this.#downstream).includes(':');
    return isV6 && address6 !== undefined ? `${address6} ${port}` : undefined;
  }

  #attempt(upstream: Upstream, way: Way): void {
    const { policy } = this.#deps;
    const place = this.#placeApart(upstream);
    let socket: Socket;
    try {
      socket = this.#open(upstream, way);
    } catch {
      if (way === 'client') this.#attempt(upstream, 'client-any-port');
      else if (way !== 'own') this.#attempt(upstream, 'own');
      else this.#onRefused();
      return;
    }
    this.#upstream = socket;
    const startedMs = performance.now();
    const timer = setTimeout(() => {
      // The way back may be what is wrong: then the next one is not lost by it too.
      this.#isPlain ||= isAsClient(way);
      if (way !== 'own' && place !== undefined) this.#ipv4Only.refused(place, performance.now());
      socket.destroy();
      this.#onRefused();
    }, upstream.connectMs);
    socket.once('connect', () => {
      clearTimeout(timer);
      if (place !== undefined && way !== 'own') this.#ipv4Only.taken(place);
      else if (place !== undefined && this.#wasRefused6)
        this.#ipv4Only.refused(place, performance.now());
      policy.connected(this.listener, upstream.ticket, performance.now() - startedMs);
      this.#relay(socket, upstream);
    });
    socket.on('error', (error) => {
      clearTimeout(timer);
      if (socket !== this.#upstream) return;
      if (this.#isConnected) this.reset('backend_reset');
      else if (way !== 'own' && this.#end === undefined)
        this.#attempt(upstream, this.#nextWay(upstream, way, errnoOf(error)));
      else if (OWN_FAULTS.has(errnoOf(error))) this.reset('limit');
      else this.#onRefused();
    });
    socket.on('close', () => {
      clearTimeout(timer);
      if (socket === this.#upstream && this.#isConnected) this.#onClose();
    });
  }

  /** Ends the flow with a reset to both sides. */
  reset(end: FlowEnd): void {
    if (this.#end !== undefined) return;
    if (
      end === 'backend_reset' &&
      !this.#hasAnswer &&
      !this.#wasSilent &&
      this.#ticket !== undefined
    )
      this.#deps.policy.failed(this.listener, this.#ticket);
    this.#finish(end);
    destroyHard(this.#downstream);
    if (this.#upstream !== undefined) destroyHard(this.#upstream);
  }

  resetIfGone(): void {
    if (this.#ticket === undefined || !this.#isConnected) return;
    if (!this.#deps.policy.isLive(this.listener, this.#ticket)) this.reset('backend_gone');
  }

  /**
   * From the client's address it was refused: because another node speaks from it and its port already, or nobody
   * listens there by IPv6, which this node's own address shows.
   */
  #nextWay(upstream: Upstream, way: Way, errno: string): Way {
    const isApart = this.#placeApart(upstream) !== undefined;
    const isRefused = errno === 'ECONNREFUSED';
    this.#wasRefused6 = way === 'own6' && isRefused;
    // Found by `connect` on this node already.
    if (way === 'client' && (isRefused || errno === 'EADDRNOTAVAIL')) return 'client-any-port';
    return way === 'client-any-port' && isApart && isRefused ? 'own6' : 'own';
  }

  #open(upstream: Upstream, way: Way): Socket {
    const { address6, port, netns } = upstream;
    const isApart = way !== 'own' && this.#placeApart(upstream) !== undefined;
    const host = isApart && address6 !== undefined ? address6 : upstream.address;
    const socket = isAsClient(way) ? this.#openAs(way) : this.#openOwn(netns, host);
    socket.setNoDelay(true);
    socket.connect({ host, port, keepAlive: true, keepAliveInitialDelay: KEEPALIVE_MS });
    return socket;
  }

  #openOwn(netns: string | undefined, address: string): Socket {
    return netns === undefined
      ? new Socket({ allowHalfOpen: true })
      : this.#deps.openIn(netns, address);
  }

  #openAs(way: Way): Socket {
    const { openAs } = this.#deps;
    if (openAs === undefined) throw new Error('this driver has no such sockets');
    const port = way === 'client' ? this.#downstream.remotePort : undefined;
    return openAs(addressOf(this.#downstream), port ?? 0);
  }

  /** The client has sent nothing to anybody yet, so nothing is lost by asking another backend. */
  #onRefused(): void {
    this.#upstream = undefined;
    const ticket = this.#ticket;
    if (this.#end !== undefined || ticket === undefined) return;
    this.#ticket = undefined;
    this.#tried.push(ticket);
    this.#deps.policy.failed(this.listener, ticket);
    this.#deps.policy.released(this.listener, ticket);
    this.connect();
  }

  #relay(upstream: Socket, { proxyProtocol }: Upstream): void {
    if (this.#end !== undefined) {
      destroyHard(upstream);
      return;
    }
    this.#isConnected = true;
    if (proxyProtocol !== undefined)
      upstream.write(proxyHeader(proxyProtocol, 'tcp', ...this.#ends()));
    this.#downstream.once('data', () => this.#onAsked());
    upstream.once('data', () => this.#onAnswer());
    pump(this.#downstream, upstream);
    pump(upstream, this.#downstream);
  }

  /** The client, and where it connected to. */
  #ends(): readonly [FlowAddress, FlowAddress] {
    const { remoteAddress, remotePort, localAddress, localPort } = this.#downstream;
    return [
      { address: remoteAddress ?? '', port: remotePort ?? 0 },
      { address: localAddress ?? '', port: localPort ?? 0 },
    ];
  }

  #onAsked(): void {
    if (this.#hasAnswer) return;
    this.#askedMs = performance.now();
    this.#silence = setTimeout(() => {
      this.#wasSilent = true;
      if (this.#ticket !== undefined) this.#deps.policy.silent(this.listener, this.#ticket);
    }, SILENCE_MS);
  }

  #onAnswer(): void {
    if (this.#hasAnswer) return;
    this.#hasAnswer = true;
    clearTimeout(this.#silence);
    // One that comes late was counted as none.
    if (this.#wasSilent || this.#ticket === undefined) return;
    const waitedMs = this.#askedMs && performance.now() - this.#askedMs;
    this.#deps.policy.answered(this.listener, this.#ticket, waitedMs);
  }

  /** A side is closed: the flow is over when both are. */
  #onClose(): void {
    if (this.#end !== undefined) return;
    const upstream = this.#upstream;
    if (!this.#isConnected) {
      this.reset('client_reset');
      return;
    }
    if (!this.#downstream.destroyed || (upstream !== undefined && !upstream.destroyed)) {
      // Closed without an end of its own, as when it was destroyed: the other side learns of it.
      const other = this.#downstream.destroyed ? upstream : this.#downstream;
      if (other !== undefined && other.writableEnded !== true) other.end();
      return;
    }
    this.#onAnswer();
    this.#finish('closed');
  }

  #finish(end: FlowEnd): void {
    this.#end = end;
    clearTimeout(this.#silence);
    this.#forget();
    const { policy } = this.#deps;
    if (this.#ticket !== undefined) policy.released(this.listener, this.#ticket);
    const up = this.#upstream?.bytesWritten ?? 0;
    policy.ended(this.listener, end, up, this.#downstream.bytesWritten);
  }
}

/** Of the other end; IPv4 as such. */
function addressOf({ remoteAddress = '' }: Socket): string {
  return remoteAddress.replace(/^::ffff:/, '');
}

/** One direction: bytes as fast as the slower side takes them, then the end. */
function pump(from: Socket, to: Socket): void {
  from.on('data', (chunk) => {
    if (!to.write(chunk)) from.pause();
  });
  to.on('drain', () => from.resume());
  from.on('end', () => to.end());
  from.resume();
}

/** With RST, where there is a connection to reset. */
function destroyHard(socket: Socket): void {
  if (socket.connecting) socket.destroy();
  else if (!socket.destroyed) socket.resetAndDestroy();
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  server.listen({ host, port, backlog: BACKLOG, ipv6Only: false });
  await once(server, 'listening');
}
