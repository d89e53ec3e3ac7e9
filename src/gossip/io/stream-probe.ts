import { connect, isIP } from 'node:net';
import type { ConnectResult } from '../core/probe.js';
import type { Endpoint } from '../wire/endpoint.js';

/** What both sides of a libp2p connection say first; its echo shows that the process runs. */
const GREETING = Buffer.from('\x13/multistream/1.0.0\n', 'latin1');

/**
 * Tries a TCP connection, says hello, and tells how far that came.
 *
 * @param localAddress Source address, or `undefined` for the system's choice.
 * @param done Called exactly once, never from within this call.
 */
export function probeStream(
  endpoint: Endpoint,
  timeoutMs: number,
  localAddress: string | undefined,
  done: (result: ConnectResult) => void,
): void {
  const family = isIP(endpoint.address);
  const socket = connect({
    host: endpoint.address,
    port: endpoint.port,
    ...(localAddress !== undefined && isIP(localAddress) === family ? { localAddress } : {}),
  });
  let isConnected = false;
  let isDone = false;
  const finish = (result: ConnectResult): void => {
    if (isDone) return;
    isDone = true;
    clearTimeout(timer);
    socket.destroy();
    done(result);
  };
  const timer = setTimeout(() => finish(isConnected ? 'connected' : 'timeout'), timeoutMs);
  socket.on('connect', () => {
    isConnected = true;
    socket.write(GREETING);
  });
  socket.on('data', () => finish('answered'));
  socket.on('close', () => finish(isConnected ? 'connected' : 'timeout'));
  socket.on('error', (error: NodeJS.ErrnoException) => {
    if (isConnected) return finish('connected');
    // Reset by a host that has no such port any more; anything else says nothing about the process.
    finish(error.code === 'ECONNREFUSED' || error.code === 'ECONNRESET' ? 'refused' : 'timeout');
  });
}
