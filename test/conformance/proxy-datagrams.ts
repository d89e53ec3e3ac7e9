import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import type { Test } from 'tap';
import { proxyHeader } from '../../src/dataplane/ingress/wire/proxy-protocol.js';
import {
  askUdp,
  endpoint,
  freePort,
  inputs,
  type OpenDriver,
  openIngress,
  udpBackend,
  until,
} from '../support/ingress-lab.js';

const NAMES = ['127.0.0.2', '127.0.0.3', '127.0.0.4'] as const;

export async function udpClient(t: Test, address = '127.0.0.1'): Promise<Socket> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
  socket.bind(0, address);
  await once(socket, 'listening');
  t.teardown(() => socket.close());
  return socket;
}

export interface DatagramConformance {
  readonly driver: (options: { readonly udpIdleTimeoutMs?: number }) => OpenDriver;
  /** Whether it knows which of the host's addresses a client asked. */
  readonly knowsTarget: boolean;
}

/** What every driver does with published UDP ports, over loopback. */
export function datagramConformance(t: Test, { driver, knowsTarget }: DatagramConformance): void {
  const open = driver({});

  t.test('a flow keeps its task, and flows are spread', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    for (const name of NAMES) await udpBackend(t, name, target);
    const ingress = openIngress(t, open);
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
    const { total, flows } = ingress.flows('web', 2);
    t.equal(total, 3);
    t.match(
      flows,
      Array(2).fill({ client: '127.0.0.1', port: `udp/${published}`, backend: /:\d+$/ }),
    );
  });

  t.test('datagrams keep their bounds and their order, over IPv4 and IPv6', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    for (const host of ['127.0.0.1', '::1']) {
      const socket = await udpClient(t, host);
      await askUdp(socket, 'up', published, host);
      const texts = ['', 'x'.repeat(60_000), ...Array.from({ length: 100 }, (_, i) => `${i}`)];
      const heard: string[] = [];
      socket.on('message', (message) => heard.push(String(message)));
      for (const text of texts) socket.send(text, published, host);
      await until(() => heard.length === texts.length);
      t.strictSame(
        heard,
        texts.map((text) => `${NAMES[0]} ${text}`),
        host,
      );
    }
  });

  t.test('datagrams of clients that labels do not let in are dropped', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    const label = (labels: Readonly<Record<string, string>>) =>
      ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])], labels));
    label({});
    const old = await udpClient(t);
    t.equal(await askUdp(old, 'a', published), `${NAMES[0]} a`);
    label({ 'shoal.allow-from': '127.0.0.9' });
    const stranger = await udpClient(t);
    stranger.on('message', () => t.fail('answered'));
    stranger.send('a', published, '127.0.0.1');
    const friend = await udpClient(t, '127.0.0.9');
    t.equal(await askUdp(friend, 'b', published), `${NAMES[0]} b`);
    t.equal(await askUdp(old, 'c', published), `${NAMES[0]} c`, 'open flows go on');
    await until(() => ingress.stats().ports[0]?.ends.refused === 1);
    t.match(ingress.stats().ports, [{ refusals: { allow_from: 1 } }]);
  });

  t.test('a port that is bound answers there only, and moves', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const own = ['127.0.0.1', '::1'].map((address) => ({ address, ifname: 'lo' }));
    const ingress = openIngress(t, open, { ownAddresses: () => own });
    const isFree = async (address: string) => {
      const socket = createSocket('udp4');
      const ready = once(socket, 'listening').then(() => true);
      socket.bind({ port: published, address, exclusive: true });
      const answer = await ready.catch(() => false);
      await new Promise<void>((resolve) => socket.close(() => resolve()));
      return answer;
    };
    const [v4, v6] = [await udpClient(t), await udpClient(t, '::1')];
    for (const [bind, places] of [
      ['127.0.0.1', ['127.0.0.1']],
      ['::1', ['::1']],
      ['lo', ['127.0.0.1', '::1']],
      ['nowhere0', []],
      [undefined, ['::']],
      ['127.0.0.1,::1', ['127.0.0.1', '::1']],
    ] as const) {
      const labels: Record<string, string> = bind === undefined ? {} : { 'shoal.bind': bind };
      ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])], labels));
      await until(() => ingress.stats().ports[0]?.openAt.join() === places.join());
      const isAt = (address: string) => places.some((at) => at === '::' || at === address);
      for (const [socket, host] of [[v4, '127.0.0.1'] as const, [v6, '::1'] as const])
        if (isAt(host)) {
          socket.send(String(bind), published, host);
          const [answer, from] = await once(socket, 'message');
          t.equal(String(answer), `${NAMES[0]} ${bind}`);
          t.equal(from.address, host);
        }
      t.equal(await isFree('127.0.0.1'), !isAt('127.0.0.1'), `${bind}`);
      t.equal(await isFree('127.0.0.9'), bind !== undefined, `${bind}, elsewhere`);
    }
    t.strictSame(ingress.problems(), []);
  });

  t.test('each datagram tells of its client, where the service wants it', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    const labels = { 'shoal.client-address': 'proxy-v2' };
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])], labels));
    const socket = await udpClient(t);
    const header = proxyHeader(
      'v2',
      'udp',
      { address: '127.0.0.1', port: socket.address().port },
      { address: knowsTarget ? '127.0.0.1' : '0.0.0.0', port: published },
    ).toString();
    for (const text of ['1', '2'])
      t.equal(await askUdp(socket, text, published), `${NAMES[0]} ${header}${text}`);
  });

  t.test('a flow whose task is gone goes on with another', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    await udpBackend(t, NAMES[1], target);
    const ingress = openIngress(t, open);
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    const socket = await udpClient(t);
    t.equal(await askUdp(socket, '1', published), `${NAMES[0]} 1`);
    ingress.update(
      inputs('udp', published, target, [endpoint(NAMES[0], 'draining'), endpoint(NAMES[1])]),
    );
    t.equal(await askUdp(socket, '2', published), `${NAMES[0]} 2`, 'kept while it drains');
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[1])]));
    t.equal(await askUdp(socket, '3', published), `${NAMES[1]} 3`);
    t.equal(ingress.stats().ports[0]?.accepted, 1, 'it is the same flow');
  });

  t.test('a task that does not listen loses its flows to those that do', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    const held = await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    const socket = await udpClient(t);
    await askUdp(socket, 'x', published);
    await udpBackend(t, NAMES[1], target);
    held.close();
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0]), endpoint(NAMES[1])]));
    t.equal(await askUdp(socket, 'y', published), `${NAMES[1]} y`);
    t.ok((ingress.stats().ports[0]?.connectFailures ?? 0) >= 1);
  });

  t.test('a port without tasks drops, and serves those that come later', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    ingress.update(inputs('udp', published, target, []));
    const socket = await udpClient(t);
    await until(() => {
      socket.send('?', published, '127.0.0.1');
      return (ingress.stats().ports[0]?.ends.no_backend ?? 0) > 0;
    });
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    // Of the first one something may still be on its way.
    t.equal(await askUdp(await udpClient(t), 'x', published), `${NAMES[0]} x`);
  });

  t.test('a port that is closed is free at once, and its flows are over', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    const socket = await udpClient(t);
    await askUdp(socket, 'x', published);
    ingress.update({ services: [], endpoints: [], hostPorts: [] });
    t.equal(ingress.stats().flows, 0);
    await udpBackend(t, '127.0.0.1', published);
    t.equal(await askUdp(socket, 'y', published), '127.0.0.1 y');
  });

  t.test('silent flows are forgotten', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, driver({ udpIdleTimeoutMs: 50 }));
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    await askUdp(await udpClient(t), 'x', published);
    await until(() => ingress.stats().flows === 0);
    await until(() => (ingress.stats().ports[0]?.ends.closed ?? 0) > 0);
    const { active, bytesUp, bytesDown } = ingress.stats().ports[0] ?? {};
    t.equal(active, 0);
    // Whoever has no answer for a while asks again.
    t.ok(bytesUp !== undefined && bytesUp > 0);
    t.equal(bytesDown, (bytesUp ?? 0) * `${NAMES[0]} x`.length);
  });

  if (!knowsTarget) return;
  t.test('a client that asks a broadcast address is answered from another', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    const socket = await udpClient(t);
    socket.setBroadcast(true);
    t.equal(await askUdp(socket, 'all', published, '127.255.255.255'), `${NAMES[0]} all`);
  });

  t.test('a client is answered from the address that it asked', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, NAMES[0], target);
    const ingress = openIngress(t, open);
    ingress.update(inputs('udp', published, target, [endpoint(NAMES[0])]));
    const socket = await udpClient(t);
    await askUdp(socket, 'x', published);
    for (const asked of ['127.0.0.9', '127.0.0.10']) {
      socket.send(asked, published, asked);
      let answer = await once(socket, 'message');
      // The first question was perhaps asked more than once.
      while (!String(answer[0]).endsWith(asked)) answer = await once(socket, 'message');
      t.equal(answer[1].address, asked);
    }
    t.equal(ingress.stats().flows, 3, 'a flow for each address');
  });
}
