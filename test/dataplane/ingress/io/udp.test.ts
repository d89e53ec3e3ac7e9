import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import t, { type Test } from 'tap';
import { PortableProxyDriver } from '../../../../src/dataplane/ingress/index.js';
import { proxyHeader } from '../../../../src/dataplane/ingress/wire/proxy-protocol.js';
import {
  askUdp,
  endpoint,
  freePort,
  inputs,
  noNamespaces,
  openIngress,
  udpBackend,
} from '../../../support/ingress-lab.js';

const NAMES = ['127.0.0.2', '127.0.0.3', '127.0.0.4'] as const;

async function udpClient(t: Test): Promise<Socket> {
  const socket = createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.teardown(() => socket.close());
  return socket;
}

t.test('a flow keeps its task, and flows are spread', async (t) => {
  const [published, target] = [await freePort(), await freePort()];
  for (const name of NAMES) await udpBackend(t, name, target);
  const ingress = openIngress(t);
  ingress.update(
    inputs(
      'udp',
      published,
      target,
      NAMES.map((name) => endpoint(name)),
    ),
  );
  const tasks = [];
  for (let i = 0; i < 3; i++) {
    const socket = await udpClient(t);
    const first = await askUdp(socket, 'a', published);
    t.equal(await askUdp(socket, 'a', published), first);
    tasks.push(first.split(' ')[0]);
  }
  t.strictSame(tasks.sort(), NAMES);
  t.equal(ingress.stats().flows, 3);
});

t.test('datagrams of clients that labels do not let in are dropped', async (t) => {
  const [published, target] = [await freePort(), await freePort()];
  await udpBackend(t, NAMES[0], target);
  const ingress = openIngress(t);
  const label = (labels: Readonly<Record<string, string>>) =>
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])], labels));
  label({});
  const old = await udpClient(t);
  t.equal(await askUdp(old, 'a', published), `${NAMES[0]} a`);
  label({ 'shoal.allow-from': '127.0.0.9' });
  const stranger = await udpClient(t);
  stranger.on('message', () => t.fail('answered'));
  stranger.send('a', published, '127.0.0.1');
  const friend = createSocket('udp4');
  friend.bind(0, '127.0.0.9');
  await once(friend, 'listening');
  t.teardown(() => friend.close());
  t.equal(await askUdp(friend, 'b', published), `${NAMES[0]} b`);
  t.equal(await askUdp(old, 'c', published), `${NAMES[0]} c`, 'open flows go on');
  t.match(ingress.stats().ports, [{ ends: { refused: 1 }, refusals: { allow_from: 1 } }]);
});

t.test('each datagram tells of its client, where the service wants it', async (t) => {
  const [published, target] = [await freePort(), await freePort()];
  await udpBackend(t, NAMES[0], target);
  const ingress = openIngress(t);
  const labels = { 'shoal.client-address': 'proxy-v2' };
  ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])], labels));
  const socket = await udpClient(t);
  const header = proxyHeader(
    'v2',
    'udp',
    { address: '127.0.0.1', port: socket.address().port },
    { address: '0.0.0.0', port: published },
  ).toString();
  for (const text of ['1', '2'])
    t.equal(await askUdp(socket, text, published), `${NAMES[0]} ${header}${text}`);
});

t.test('a flow whose task is gone goes on with another', async (t) => {
  const [published, target] = [await freePort(), await freePort()];
  await udpBackend(t, NAMES[0], target);
  await udpBackend(t, NAMES[1], target);
  const ingress = openIngress(t);
  ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
  const socket = await udpClient(t);
  t.equal(await askUdp(socket, '1', published), `${NAMES[0]} 1`);
  ingress.update(
    inputs('udp', published, target, [endpoint(NAMES[0], 'draining'), endpoint(NAMES[1])]),
  );
  t.equal(await askUdp(socket, '2', published), `${NAMES[0]} 2`, 'kept while it drains');
  ingress.update(inputs('udp', published, target, [endpoint(NAMES[1])]));
  t.equal(await askUdp(socket, '3', published), `${NAMES[1]} 3`);
});

t.test('a task that does not listen loses its flows to those that do', async (t) => {
  const [published, target] = [await freePort(), await freePort()];
  const held = await udpBackend(t, NAMES[0], target);
  const ingress = openIngress(t);
  ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
  const socket = await udpClient(t);
  await askUdp(socket, 'x', published);
  await udpBackend(t, NAMES[1], target);
  held.close();
  ingress.update(inputs('udp', published, target, [endpoint(NAMES[0]), endpoint(NAMES[1])]));
  t.equal(await askUdp(socket, 'y', published), `${NAMES[1]} y`);
});

t.test('silent flows are forgotten', async (t) => {
  const [published, target] = [await freePort(), await freePort()];
  await udpBackend(t, NAMES[0], target);
  const ingress = openIngress(
    t,
    (policy) => new PortableProxyDriver(policy, { sockets: noNamespaces, udpIdleTimeoutMs: 50 }),
  );
  ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
  await askUdp(await udpClient(t), 'x', published);
  while (ingress.stats().flows > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  t.match(ingress.stats().ports[0]?.ends, { closed: 1 });
});
