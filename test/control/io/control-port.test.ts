import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { encodeFrame } from '../../../src/control/wire/frame.js';
import { HOST, until, World } from './managers.js';

t.test('noise on the port harms nobody', async (t) => {
  await World.run({}, async (world) => {
    const { port } = world.manager;
    const sockets: Socket[] = [];
    for (let i = 0; i < 150; i++) {
      const socket = connect(port, HOST);
      socket.on('error', () => {});
      socket.write(i % 3 === 0 ? 'GET / HTTP/1.1\r\n\r\n' : randomBytes(1 + i * 13));
      sockets.push(socket);
    }
    const options = { port, host: HOST, rejectUnauthorized: false, minVersion: 'TLSv1.3' as const };
    const garbage = [
      Buffer.from([0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0, 0, 0, 3, 1, 2, 3]),
      randomBytes(5_000),
      encodeFrame({ kind: 'join', token: 'x'.repeat(300) }),
      encodeFrame({ kind: 'renew', request: { publicKey: 'A'.repeat(44), proof: 'A'.repeat(88) } }),
    ];
    for (const ALPNProtocols of [['shoal-ca/1'], ['shoal-dispatch/1'], ['h2'], []]) {
      for (const bytes of garbage) {
        const socket = connectTls({ ...options, ALPNProtocols });
        socket.on('error', () => {});
        socket.on('data', () => {});
        socket.on('secureConnect', () => socket.write(bytes));
        sockets.push(socket);
      }
    }
    const { session } = await world.worker();
    t.ok(session.connected, 'a node joins all the same');
    for (const socket of sockets) socket.destroy();
    await until('all are gone', () => world.manager.stats().listener.handshakes === 0);
    const { listener } = world.manager.stats();
    t.ok(listener.failedHandshakes > 50, `${listener.failedHandshakes} failed handshakes`);
    t.ok(listener.strangers >= 1, `${listener.strangers} strangers`);
  });
});

t.test('a member that talks nonsense loses its session, and no other does', async (t) => {
  await World.run({}, async (world) => {
    const { identity } = await world.worker();
    const other = await world.worker();
    const { keyPem, certPem, caPem } = identity;
    const speak = (bytes: Uint8Array) =>
      new Promise<void>((resolve) => {
        const socket = connectTls(
          {
            port: world.manager.port,
            host: HOST,
            servername: 'swarm-manager',
            key: keyPem,
            cert: certPem,
            ca: caPem,
            ALPNProtocols: ['shoal-dispatch/1'],
          },
          () => socket.write(bytes),
        );
        socket.on('data', () => {});
        socket.on('error', () => {});
        socket.on('close', () => resolve());
      });
    await speak(encodeFrame({ kind: 'hello', registration: 5 }));
    await speak(
      encodeFrame({
        kind: 'attach',
        request: 1,
        wish: { key: 'k', network: 'n', addresses: [], name: '', aliases: [] },
      }),
    );
    await speak(Buffer.from([0x7f, 0, 0, 0]));
    t.ok(other.session.connected);
    t.ok(world.manager.stats().dispatcher.refusedSessions >= 2);
  });
});
