// A task of `npm run chaos -- flows`: on port 80 it says which one it is and ends the connection; on port 81 it
// gives back what it is sent, and writes to its log when a connection is reset.
import { createServer } from 'node:net';

createServer((socket) => {
  socket.on('error', () => undefined);
  socket.end(`${process.env.SLOT}\n`);
}).listen({ port: 80, backlog: 4096 });

createServer({ allowHalfOpen: false }, (socket) => {
  socket.on('error', ({ code }) => process.stdout.write(`${code} ${Date.now()}\n`));
  socket.pipe(socket);
}).listen(81);
