import { connect, type TLSSocket } from 'node:tls';
import type { ControlAddress } from '../wire/model.js';
import { MANAGER_NAME } from '../wire/protocol.js';
import { Channel } from './channel.js';

export interface ConnectOptions {
  readonly remote: ControlAddress;
  readonly alpn: string;
  /** Without it the server is not verified, which only asking for the CA may do. */
  readonly caPem?: string;
  readonly keyPem?: string;
  readonly certPem?: string;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

/** A TLS 1.3 connection to a manager. Rejects with the cause; nothing is left open then. */
export function connectTls(options: ConnectOptions): Promise<TLSSocket> {
  const { remote, caPem, keyPem, certPem, signal } = options;
  return new Promise((resolve, reject) => {
    const socket = connect({
      host: remote.address,
      port: remote.port,
      servername: MANAGER_NAME,
      ALPNProtocols: [options.alpn],
      minVersion: 'TLSv1.3',
      rejectUnauthorized: caPem !== undefined,
      ...(caPem === undefined ? {} : { ca: caPem }),
      ...(keyPem === undefined || certPem === undefined ? {} : { key: keyPem, cert: certPem }),
    });
    const settle = (error?: Error) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      if (error === undefined) resolve(socket);
      else {
        socket.on('error', () => {});
        socket.destroy();
        reject(error);
      }
    };
    const onAbort = () => settle(new Error('cancelled'));
    const timer = setTimeout(() => settle(new Error('no answer in time')), options.timeoutMs);
    if (signal?.aborted === true) return onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    socket.once('error', settle);
    socket.once('close', () => settle(new Error('the connection was closed')));
    socket.once('secureConnect', () => {
      socket.removeListener('error', settle);
      if (socket.alpnProtocol !== options.alpn) return settle(new Error('not a control port'));
      socket.setNoDelay(true);
      socket.setKeepAlive(true, 10_000);
      settle();
    });
  });
}

/** Sends one message and waits for one. Rejects when the connection ends or time is up. */
export function ask(
  socket: TLSSocket,
  message: unknown,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const settle = (settled: () => void) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      channel.destroy();
      settled();
    };
    const onAbort = () => settle(() => reject(new Error('cancelled')));
    const timer = setTimeout(() => settle(() => reject(new Error('no answer in time'))), timeoutMs);
    const channel = new Channel(socket, {
      onMessage: (value) => settle(() => resolve(value)),
      onClose: () => settle(() => reject(new Error('the connection was closed'))),
    });
    signal?.addEventListener('abort', onAbort, { once: true });
    channel.send(message);
  });
}
