import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';
import type { Test } from 'tap';
import {
  Ingress,
  type IngressEndpoint,
  type IngressInputs,
  type IngressOptions,
  type NamespaceSockets,
  PortableProxyDriver,
} from '../../src/dataplane/ingress/index.js';

/** A free port, as far as one can know. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '::');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' ? (address?.port ?? 0) : 0;
}

export const warnings: string[] = [];

export const noNamespaces: NamespaceSockets = {
  tcp: () => {
    throw new Error('no namespaces here');
  },
  udp: () => Promise.reject(new Error('no namespaces here')),
};

export type OpenDriver = IngressOptions['driver'];

export const portable: OpenDriver = (policy) =>
  new PortableProxyDriver(policy, { sockets: noNamespaces });

export function openIngress(
  t: Test,
  driver: OpenDriver = portable,
  extra: Pick<IngressOptions, 'ownAddresses'> = {},
): Ingress {
  const ingress = new Ingress({
    seed: 5,
    log: {
      info: () => undefined,
      warn: (_fields, message) => warnings.push(message),
    },
    driver,
    holderOf: () => 'somebody',
    retryMs: 20,
    goneGraceMs: 10,
    ...extra,
  });
  t.teardown(() => ingress.close());
  return ingress;
}

export function endpoint(address: string, state: IngressEndpoint['state'] = 'ready') {
  return { serviceId: 's1', taskId: address, slot: 1, addresses: [address], state, isLocal: false };
}

export function inputs(
  protocol: 'tcp' | 'udp',
  publishedPort: number,
  targetPort: number,
  endpoints: readonly IngressEndpoint[],
  labels: Readonly<Record<string, string>> = {},
): IngressInputs {
  const ports = [{ protocol, publishedPort, targetPort }];
  return { services: [{ id: 's1', name: 'web', labels, ports }], endpoints, hostPorts: [] };
}

/** A TCP backend at a loopback address. */
export async function backend(
  t: Test,
  address: string,
  port: number,
  onConnection: (socket: Socket) => void,
): Promise<Server> {
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    socket.on('error', () => undefined);
    onConnection(socket);
  });
  server.listen(port, address);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server;
}

/** A client, connected. The listener may still be opening: it is tried until then. */
export async function client(t: Test, port: number, host = '127.0.0.1'): Promise<Socket> {
  for (;;) {
    const socket = connect({ port, host, allowHalfOpen: true });
    t.teardown(() => socket.destroy());
    try {
      await once(socket, 'connect');
      socket.on('error', () => undefined);
      return socket;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error;
    }
  }
}

/** All that comes until the end; the other direction stays open. */
export function readAll(socket: Socket): Promise<string> {
  const chunks: Buffer[] = [];
  return new Promise((resolve, reject) => {
    socket.on('data', (chunk) => chunks.push(chunk));
    socket.once('end', () => resolve(Buffer.concat(chunks).toString()));
    socket.once('error', reject);
  });
}

/** The code of the error that ends a socket; `end` for a good one. */
export function ending(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    socket.resume();
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown'));
    socket.once('end', () => resolve('end'));
  });
}

/** Whether anybody listens. */
export async function isOpenAt(port: number, host: string): Promise<boolean> {
  const socket = connect({ port, host });
  try {
    await once(socket, 'connect');
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ECONNREFUSED') throw error;
    return false;
  } finally {
    socket.destroy();
  }
}

/** How a connection ends that nobody takes; the port is open already. */
export async function refusal(port: number): Promise<string> {
  return ending(connect({ port, host: '127.0.0.1' }));
}

export async function udpBackend(t: Test, address: string, port: number): Promise<UdpSocket> {
  const socket = createSocket('udp4');
  socket.on('message', (message, from) =>
    socket.send(`${address} ${message.toString()}`, from.port, from.address),
  );
  socket.bind(port, address);
  await once(socket, 'listening');
  let isOpen = true;
  socket.once('close', () => {
    isOpen = false;
  });
  t.teardown(() => {
    if (isOpen) socket.close();
  });
  return socket;
}

/** Asks until there is an answer, since datagrams are lost while a port opens. */
export async function askUdp(
  socket: UdpSocket,
  text: string,
  port: number,
  host = '127.0.0.1',
): Promise<string> {
  for (;;) {
    socket.send(text, port, host);
    const answer = await Promise.race([
      once(socket, 'message').then(([message]) => String(message)),
      new Promise<undefined>((resolve) => setTimeout(resolve, 50, undefined)),
    ]);
    if (answer !== undefined) return answer;
  }
}

/** Drivers may tell what has happened a little later than the clients see it. */
export async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}
