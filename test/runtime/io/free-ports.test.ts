import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import t from 'tap';
import { FreePorts } from '../../../src/runtime/io/free-ports.js';

t.test('a port that something listens on, or that was given, is not given', async (t) => {
  const server = createServer().listen(0, '127.0.0.1');
  t.teardown(() => server.close());
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const none = { message: `no free tcp port from ${port} to ${port} was found on this node` };
  await t.rejects(new FreePorts().take('tcp', new Set(), port, port), none);
  const socket = createSocket('udp4');
  t.teardown(() => socket.close());
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const udp = socket.address().port;
  await t.rejects(new FreePorts().take('udp', new Set(), udp, udp), {
    message: /no free udp port/,
  });

  const ports = new FreePorts();
  const given = await ports.take('tcp', new Set());
  await t.rejects(ports.take('tcp', new Set(), given, given), { message: /no free tcp port/ });
  const taken = new Set([`tcp/${given}`]);
  await t.rejects(new FreePorts().take('tcp', taken, given, given), { message: /no free/ });
  t.equal(await new FreePorts().take('tcp', new Set(), given, given), given);
});
