// A task of `npm run chaos -- ingress`: answers at once, or slowly at `/slow?ms=N`, and ends in good order:
// on SIGTERM it takes no new connections, and says with each answer that the connection ends. SIGUSR2 has it take its
// time for each answer, SIGHUP break off each connection that asks something, both until the next one.
// `http-server.mjs PORT UDP_PORT` sends datagrams back as well.
import { createSocket } from 'node:dgram';
import { createServer } from 'node:http';
import { Server } from 'node:net';

const CHUNK = Buffer.alloc(16 * 1024, 'x');
const CHUNK_MS = 100;
/** For connections on which nobody asks any more. */
const GRACE_MS = 5_000;
const who = `${process.env.SLOT ?? '?'} ${process.env.VERSION ?? '1'}\n`;
let isEnding = false;
/** Less than what passes for silence. */
const SLOW_MS = 900;
let isSlow = false;
let isBreaking = false;

const server = createServer((request, response) => {
  if (isBreaking) {
    request.socket.resetAndDestroy();
    return;
  }
  if (isEnding) response.setHeader('Connection', 'close');
  const ms = Number(/^\/slow\?ms=(\d+)$/.exec(request.url)?.[1] ?? 0);
  if (ms === 0) {
    if (isSlow) setTimeout(() => response.end(who), SLOW_MS);
    else response.end(who);
    return;
  }
  const chunks = Math.ceil(ms / CHUNK_MS);
  response.setHeader('Content-Length', chunks * CHUNK.length);
  let sent = 0;
  const timer = setInterval(() => {
    response.write(CHUNK);
    sent += 1;
    if (sent < chunks) return;
    clearInterval(timer);
    response.end();
  }, CHUNK_MS);
  response.on('close', () => clearInterval(timer));
});
server.keepAliveTimeout = 60_000;
server.listen({ port: Number(process.argv[2] ?? 80), backlog: 1024 });

const [, , , udpPort] = process.argv;
if (udpPort !== undefined) {
  const socket = createSocket('udp4');
  socket.on('error', () => undefined);
  socket.on('message', (datagram, { address, port }) => socket.send(datagram, port, address));
  socket.bind(Number(udpPort));
}

process.on('SIGUSR2', () => {
  isSlow = !isSlow;
});

process.on('SIGHUP', () => {
  isBreaking = !isBreaking;
});

process.on('SIGTERM', () => {
  isEnding = true;
  // Not its own `close`, which would break off connections that are idle at this very moment.
  Server.prototype.close.call(server, () => process.exit(0));
  setTimeout(() => server.closeIdleConnections(), GRACE_MS).unref();
});
