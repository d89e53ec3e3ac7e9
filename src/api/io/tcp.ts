import type { X509Certificate } from 'node:crypto';
import type { Server as HttpServer } from 'node:http';
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import {
  createServer as createTlsServer,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls';
import { ApiError } from '../wire/errors.js';
import type { Logger } from './log.js';

/** Connections by TCP at a time; more are dropped at once. */
export const TCP_CONNECTIONS_MAX = 512;
/** For the TLS handshake. */
const HANDSHAKE_MS_MAX = 10_000;

export interface TcpAddress {
  readonly host: string;
  readonly port: number;
}

/** What the port shows, and by what it judges who comes. */
export interface TlsMaterial {
  readonly certPem: string;
  readonly keyPem: string;
  /** Clients show a certificate of one of these. */
  readonly caPem: string;
  /** What else has to hold of it; absent: nothing. */
  accepts?(certificate: X509Certificate): boolean;
}

export interface TcpEntrance {
  /** The port that is listened on. */
  readonly port: number;
  /** From now on; `undefined`: nobody is let in. Connections that are open stay. */
  useTls(material: TlsMaterial | undefined): void;
  close(): Promise<void>;
}

/**
 * An entrance to the API by TCP: who passes becomes a connection of `server`. With TLS a client proves by
 * a certificate who it is; without, everybody who reaches the port is root here.
 *
 * @throws ApiError API_SOCKET_TAKEN, API_SOCKET_REFUSED.
 */
export async function openTcp(
  server: HttpServer,
  { host, port }: TcpAddress,
  security: 'tls' | 'none',
  log: Logger,
): Promise<TcpEntrance> {
  const open = new Set<Socket>();
  let material: TlsMaterial | undefined;
  const enter = (socket: Socket) => {
    open.add(socket);
    socket.once('close', () => open.delete(socket));
    server.emit('connection', socket);
  };
  const listener: Server =
    security === 'none'
      ? // Who has no more input for a command still waits for its output.
        createTcpServer({ allowHalfOpen: true }, enter)
      : createTlsServer(
          {
            allowHalfOpen: true,
            requestCert: true,
            rejectUnauthorized: true,
            minVersion: 'TLSv1.2',
            handshakeTimeout: HANDSHAKE_MS_MAX,
          },
          (socket) => {
            if (isWelcome(socket, material)) enter(socket);
            else {
              log.warn(
                { remote: socket.remoteAddress },
                'a client of the API showed a certificate that is not for that',
              );
              socket.destroy();
            }
          },
        );
  listener.maxConnections = TCP_CONNECTIONS_MAX;
  listener.on('tlsClientError', (error: Error, socket: TLSSocket) => {
    log.debug(
      { remote: socket.remoteAddress, error: error.message },
      'a client of the API was refused',
    );
  });
  await listenOn(listener, host, port);
  const address = listener.address();
  return {
    port: typeof address === 'object' && address !== null ? address.port : port,
    useTls(next) {
      material = next;
      if (next === undefined) return;
      const { certPem: cert, keyPem: key, caPem: ca } = next;
      (listener as TlsServer).setSecureContext({ cert, key, ca, minVersion: 'TLSv1.2' });
    },
    close: () =>
      new Promise((resolve) => {
        listener.close(() => resolve());
        for (const socket of open) socket.destroy();
      }),
  };
}

function isWelcome(socket: TLSSocket, material: TlsMaterial | undefined): boolean {
  const certificate = socket.getPeerX509Certificate();
  if (!socket.authorized || certificate === undefined || material === undefined) return false;
  return material.accepts?.(certificate) ?? true;
}

function listenOn(listener: Server, host: string, port: number): Promise<void> {
  const path = `${host}:${port}`;
  return new Promise((resolve, reject) => {
    listener.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? new ApiError({ code: 'API_SOCKET_TAKEN', path }, `something listens on ${path} already`)
          : new ApiError(
              { code: 'API_SOCKET_REFUSED', path },
              `cannot listen on ${path}: ${error.message}`,
            ),
      ),
    );
    listener.listen({ host, port }, () => resolve());
  });
}
