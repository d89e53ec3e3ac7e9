import type { Socket } from 'node:net';
import { createServer, type Server, type TLSSocket } from 'node:tls';
import { SwarmError } from '../../base/swarm-error.js';
import type { Logger } from '../core/logger.js';
import type { ControlAddress } from '../wire/model.js';
import { errnoOf } from './files.js';
import { tcpPortHolder } from './port-holder.js';

/** Connections at once; further ones are closed. */
const CONNECTIONS_MAX = 16_384;
/** Connections whose TLS handshake is not done, in all and from one address. */
const HANDSHAKES_MAX = 512;
const HANDSHAKES_PER_ADDRESS_MAX = 128;
const HANDSHAKE_MS_MAX = 5_000;

export interface ListenerConfig {
  /** Port 0: any free one. */
  readonly listen: ControlAddress;
  readonly keyPem: string;
  readonly certPem: string;
  readonly caPem: string;
  readonly log: Logger;
  /** ALPN names; `socket.alpnProtocol` of what comes is one of them. */
  readonly protocols: readonly string[];
  /** A connection of anyone: who it is, and whether that one may, is judged by its protocol. */
  readonly onSocket: (socket: TLSSocket, remoteAddress: string) => void;
}

export interface ListenerStats {
  readonly connections: number;
  readonly handshakes: number;
  /** Handshakes that failed: noise, other protocols, strangers. */
  readonly failedHandshakes: number;
  /** Connections closed because there were too many. */
  readonly overflows: number;
  /** Valid TLS of another protocol. */
  readonly strangers: number;
}

/** The control port: one TLS 1.3 listener whose connections ALPN parts by protocol. */
export class Listener {
  readonly #config: ListenerConfig;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #handshakes = new Map<string, number>();
  /** By the remote end, since a TLS socket does not show the socket that it is made of. */
  readonly #settlers = new Map<string, () => void>();
  #handshakeCount = 0;
  #failedHandshakes = 0;
  #overflows = 0;
  #strangers = 0;

  private constructor(config: ListenerConfig) {
    this.#config = config;
    this.#server = createServer({
      key: config.keyPem,
      cert: config.certPem,
      ca: config.caPem,
      ALPNProtocols: [...config.protocols],
      minVersion: 'TLSv1.3',
      // Who asks for the CA has no certificate yet; each protocol judges for itself.
      requestCert: true,
      rejectUnauthorized: false,
      handshakeTimeout: HANDSHAKE_MS_MAX,
    });
    this.#server.maxConnections = CONNECTIONS_MAX;
    this.#server.on('connection', (socket: Socket) => this.#onConnection(socket));
    this.#server.on('secureConnection', (socket) => this.#onSecure(socket));
    this.#server.on('tlsClientError', (_error, socket) => {
      this.#failedHandshakes++;
      socket.destroy();
    });
    this.#server.on('drop', () => this.#overflows++);
  }

  /** @throws SwarmError `SWARM_PORT_TAKEN`, `SWARM_BAD_ADDRESS`. */
  static async open(config: ListenerConfig): Promise<Listener> {
    const listener = new Listener(config);
    const { address, port } = config.listen;
    try {
      await new Promise<void>((resolve, reject) => {
        listener.#server.once('error', reject);
        listener.#server.listen({ host: address, port, backlog: 1024 }, () => {
          listener.#server.removeListener('error', reject);
          resolve();
        });
      });
    } catch (error) {
      throw await listenError(error, port);
    }
    listener.#server.on('error', (error) => config.log.error({ err: error }, 'control port'));
    return listener;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  stats(): ListenerStats {
    return {
      connections: this.#sockets.size,
      handshakes: this.#handshakeCount,
      failedHandshakes: this.#failedHandshakes,
      overflows: this.#overflows,
      strangers: this.#strangers,
    };
  }

  /** For new connections; those that are open keep what they were opened with. */
  setCertificate(keyPem: string, certPem: string, caPem: string): void {
    this.#server.setSecureContext({ key: keyPem, cert: certPem, ca: caPem, minVersion: 'TLSv1.3' });
  }

  /** @param graceMs Time for what is being sent. */
  async close(graceMs = 200): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const timer = setTimeout(() => {
      for (const socket of this.#sockets) socket.destroy();
    }, graceMs);
    await closed;
    clearTimeout(timer);
  }

  #onConnection(socket: Socket): void {
    const address = plainAddress(socket.remoteAddress);
    const fromAddress = this.#handshakes.get(address) ?? 0;
    socket.on('error', () => socket.destroy());
    if (this.#handshakeCount >= HANDSHAKES_MAX || fromAddress >= HANDSHAKES_PER_ADDRESS_MAX) {
      this.#overflows++;
      socket.destroy();
      return;
    }
    this.#sockets.add(socket);
    this.#handshakeCount++;
    this.#handshakes.set(address, fromAddress + 1);
    const end = endOf(socket);
    let shaking = true;
    const settled = () => {
      if (!shaking) return;
      shaking = false;
      this.#handshakeCount--;
      const left = (this.#handshakes.get(address) ?? 1) - 1;
      if (left === 0) this.#handshakes.delete(address);
      else this.#handshakes.set(address, left);
    };
    this.#settlers.set(end, settled);
    socket.once('close', () => {
      settled();
      this.#sockets.delete(socket);
      this.#settlers.delete(end);
    });
  }

  #onSecure(socket: TLSSocket): void {
    this.#settlers.get(endOf(socket))?.();
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 10_000);
    const remoteAddress = plainAddress(socket.remoteAddress);
    if (this.#config.protocols.includes(socket.alpnProtocol || ''))
      this.#config.onSocket(socket, remoteAddress);
    else {
      this.#strangers++;
      socket.on('error', () => {});
      socket.destroy();
    }
  }
}

function endOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}

/** An IPv4 address as such, also where the listener is IPv6. */
export function plainAddress(address: string | undefined): string {
  return (address ?? '').replace(/^::ffff:(?=\d+\.)/, '');
}

async function listenError(error: unknown, port: number): Promise<unknown> {
  const code = errnoOf(error);
  if (code === 'EADDRINUSE') {
    const by = await tcpPortHolder(port);
    return new SwarmError(
      { code: 'SWARM_PORT_TAKEN', port, protocol: 'tcp', by },
      `tcp port ${port} is taken${by === '' ? '' : ` by ${by}`}: free it, or choose another with --listen-addr`,
    );
  }
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND' || code === 'EINVAL')
    return new SwarmError(
      { code: 'SWARM_BAD_ADDRESS', kind: 'listen' },
      'the listen address is not an address of this host: choose one with --listen-addr',
    );
  return error;
}
