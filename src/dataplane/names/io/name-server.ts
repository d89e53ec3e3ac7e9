import { createSocket, type RemoteInfo, type Socket as UdpSocket } from 'node:dgram';
import { once, setMaxListeners } from 'node:events';
import { createServer, type Server } from 'node:net';
import { Prng } from '../../../base/prng.js';
import type { NameIndex } from '../core/name-table.js';
import { Resolver, type Transport } from '../core/resolver.js';
import type { DnsDrop } from '../wire/dns.js';
import { Conversations } from './conversations.js';
import { forwardQuery } from './forwarder.js';

/** Queries that may wait for upstreams; the next ones fail at once (`forwardsRefused`). */
const FORWARDS_MAX = 256;

/** The part of pino's interface that is used. */
export interface NameServerLog {
  warn(fields: object, message: string): void;
  debug(fields: object, message: string): void;
}

export interface NameServerConfig {
  /**
   * A bound UDP socket and a listening TCP socket, both made in the namespace that is served, at
   * `NAME_SERVER_ADDRESS` port 53. The server owns them from now on, also if opening it fails.
   */
  readonly udpFd: number;
  readonly tcpFd: number;
  readonly names: NameIndex;
  /** From `parseUpstreams`; asked from the agent's own namespace. A port may follow: `10.0.0.1#5353`. */
  readonly upstreams: readonly string[];
  /** Orders the addresses of answers. */
  readonly seed: number;
  readonly log: NameServerLog;
}

/** Counters; all only grow, but for `names`, `forwardsWaiting` and `connections`. */
export interface NameServerStats {
  readonly queriesUdp: number;
  readonly queriesTcp: number;
  /** Answered here, errors included. */
  readonly repliesLocal: number;
  readonly repliesForwarded: number;
  /** No upstream answered in time. */
  readonly forwardsFailed: number;
  /** `FORWARDS_MAX` queries were waiting already. */
  readonly forwardsRefused: number;
  readonly drops: Readonly<Record<DnsDrop, number>>;
  /** A reply that the socket did not take. */
  readonly sendErrors: number;
  /** TCP conversations that were ended since more came than may be at a time. */
  readonly connectionsEvicted: number;
  /** TCP conversations that were ended without a whole query in time. */
  readonly connectionsExpired: number;
  /** Queries over TCP that were announced to be too long; their conversations were ended. */
  readonly queriesOversized: number;
  /** Names known now, qualified forms included. */
  readonly names: number;
  readonly forwardsWaiting: number;
  /** TCP conversations now. */
  readonly connections: number;
}

/**
 * The name server of one namespace, at 127.0.0.11 port 53, UDP and TCP.
 *
 * Note for the owner: the two sockets keep the namespace alive. When its process or its name is
 * gone, `close` is what lets the kernel take it down.
 */
export class NameServer {
  readonly #udp: UdpSocket;
  readonly #tcp: Server;
  readonly #resolver: Resolver;
  readonly #log: NameServerLog;
  readonly #conversations = new Conversations((query, send) => {
    this.#counters.queriesTcp += 1;
    this.#handle(query, 'tcp', send);
  });
  readonly #closing = new AbortController();
  #upstreams: readonly string[];
  readonly #drops: Record<DnsDrop, number> = { dns_truncated: 0, dns_not_a_query: 0 };
  readonly #counters = {
    queriesUdp: 0,
    queriesTcp: 0,
    repliesLocal: 0,
    repliesForwarded: 0,
    forwardsFailed: 0,
    forwardsRefused: 0,
    sendErrors: 0,
    forwardsWaiting: 0,
  };

  private constructor(config: NameServerConfig, udp: UdpSocket, tcp: Server) {
    this.#udp = udp;
    this.#tcp = tcp;
    this.#log = config.log;
    this.#upstreams = config.upstreams;
    this.#resolver = new Resolver(new Prng(config.seed), config.upstreams.length > 0);
    this.setNames(config.names);
    setMaxListeners(FORWARDS_MAX, this.#closing.signal);
    this.#serve();
  }

  /** Starts to answer. Errors are those of the sockets (`EBADF`, `EINVAL`). */
  static async open(config: NameServerConfig): Promise<NameServer> {
    const udp = createSocket({ type: 'udp4', lookup: literalLookup });
    const tcp = createServer();
    const server = new NameServer(config, udp, tcp);
    try {
      await Promise.all([listenUdp(udp, config.udpFd), listenTcp(tcp, config.tcpFd)]);
    } catch (error) {
      await server.close();
      throw error;
    }
    return server;
  }

  /** Replaces all names that the namespace knows; the next query sees them. */
  setNames(names: NameIndex): void {
    this.#resolver.setNames(names);
    const refused = this.#resolver.refusedCount;
    if (refused > 0) this.#log.warn({ refused }, 'names or addresses that DNS cannot carry');
  }

  setUpstreams(upstreams: readonly string[]): void {
    this.#upstreams = upstreams;
    this.#resolver.setHasUpstreams(upstreams.length > 0);
  }

  stats(): NameServerStats {
    return {
      ...this.#counters,
      ...this.#conversations.counters,
      drops: { ...this.#drops },
      names: this.#resolver.nameCount,
      connections: this.#conversations.size,
    };
  }

  /** Stops answering and closes both sockets; queries that wait for upstreams get no reply. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort();
    this.#conversations.close();
    await Promise.all([
      new Promise<void>((resolve) => this.#udp.close(() => resolve())),
      new Promise<void>((resolve) => this.#tcp.close(() => resolve())),
    ]);
  }

  #serve(): void {
    this.#udp.on('message', (message, client) => this.#onDatagram(message, client));
    this.#udp.on('error', (error) => this.#log.warn({ err: error }, 'name server socket failed'));
    this.#tcp.on('connection', (socket) => this.#conversations.add(socket));
    this.#tcp.on('error', (error) => this.#log.warn({ err: error }, 'name server socket failed'));
  }

  #onDatagram(message: Buffer, client: RemoteInfo): void {
    this.#counters.queriesUdp += 1;
    this.#handle(message, 'udp', (reply) => {
      if (reply === undefined) return;
      this.#udp.send(reply, client.port, client.address, (error) => {
        if (error !== null) this.#counters.sendErrors += 1;
      });
    });
  }

  /** @param send Called once; without a reply if there is none. */
  #handle(message: Buffer, transport: Transport, send: (reply: Buffer | undefined) => void): void {
    const outcome = this.#resolver.resolve(message, transport);
    if (outcome.kind === 'drop') {
      this.#drops[outcome.reason] += 1;
      send(undefined);
    } else if (outcome.kind === 'reply') {
      this.#counters.repliesLocal += 1;
      send(outcome.message);
    } else if (this.#counters.forwardsWaiting >= FORWARDS_MAX) {
      this.#counters.forwardsRefused += 1;
      send(outcome.failure);
    } else {
      // It never rejects: every failure is an answer.
      void this.#forward(message, transport, outcome.failure).then(send);
    }
  }

  async #forward(
    message: Buffer,
    transport: Transport,
    failure: Buffer,
  ): Promise<Buffer | undefined> {
    this.#counters.forwardsWaiting += 1;
    const { signal } = this.#closing;
    const answer = await forwardQuery(this.#upstreams, message, transport, signal);
    this.#counters.forwardsWaiting -= 1;
    if (signal.aborted) return undefined;
    if (answer === undefined) {
      this.#counters.forwardsFailed += 1;
      return failure;
    }
    this.#counters.repliesForwarded += 1;
    return answer;
  }
}

/** Clients are addresses: no lookup is needed to answer one. */
function literalLookup(
  host: string,
  _options: unknown,
  done: (error: null, address: string, family: number) => void,
): void {
  done(null, host, 4);
}

async function listenUdp(socket: UdpSocket, fd: number): Promise<void> {
  const listening = once(socket, 'listening');
  socket.bind({ fd });
  await listening;
}

async function listenTcp(server: Server, fd: number): Promise<void> {
  const listening = once(server, 'listening');
  server.listen({ fd });
  await listening;
}
