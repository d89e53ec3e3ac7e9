import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import type { Test } from 'tap';
import {
  askUdp,
  backend,
  client,
  ending,
  endpoint,
  freePort,
  inputs,
  type OpenDriver,
  openIngress,
  refusal,
  udpBackend,
  until,
} from '../support/ingress-lab.js';
import { udpClient } from './proxy-datagrams.js';

export type SmallDriver = (options: {
  readonly tcpFlowsMax?: number;
  readonly udpFlowsMax?: number;
  readonly udpIdleTimeoutMs?: number;
}) => OpenDriver;

async function clientFrom(t: Test, localAddress: string, port: number): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress });
  t.teardown(() => socket.destroy());
  await once(socket, 'connect');
  return socket;
}

/** One client has half of the room for flows, and others the rest. */
export function shareConformance(t: Test, driver: SmallDriver): void {
  t.test('a client with many connections leaves room for others', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, '127.0.0.2', target, (socket) => socket.write('x'));
    const ingress = openIngress(t, driver({ tcpFlowsMax: 4 }));
    ingress.update(inputs('tcp', published, target, [endpoint('127.0.0.2')]));
    const first = await client(t, published);
    await once(first, 'data');
    const second = await client(t, published);
    await once(second, 'data');
    t.equal(await refusal(published), 'ECONNRESET', 'it has half of the room');
    await until(() => ingress.stats().ports[0]?.ends.limit === 1);

    await once(await clientFrom(t, '127.0.0.9', published), 'data');
    await once(await clientFrom(t, '127.0.0.10', published), 'data');
    const fifth = connect({ port: published, host: '127.0.0.1', localAddress: '127.0.0.11' });
    t.equal(await ending(fifth), 'ECONNRESET', 'all is taken');

    first.resetAndDestroy();
    await until(() => ingress.stats().ports[0]?.active === 3);
    await once(await client(t, published), 'data');
    t.pass('what was given back can be had');
  });

  t.test('a client with many flows of datagrams leaves room for others', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, '127.0.0.2', target);
    const ingress = openIngress(t, driver({ udpFlowsMax: 4 }));
    ingress.update(inputs('udp', published, target, [endpoint('127.0.0.2')]));
    const own = [await udpClient(t), await udpClient(t), await udpClient(t)] as const;
    await askUdp(own[0], 'a', published);
    await askUdp(own[1], 'b', published);
    own[2].send('c', published, '127.0.0.1');
    await until(() => (ingress.stats().ports[0]?.ends.limit ?? 0) === 1);
    const other = await udpClient(t, '127.0.0.9');
    t.equal(await askUdp(other, 'd', published), '127.0.0.2 d');
    t.equal(await askUdp(own[0], 'e', published), '127.0.0.2 e', 'what is open goes on');
  });

  t.test(
    'with all taken, flows of datagrams that are silent for long give their places',
    async (t) => {
      const [published, target] = [await freePort(), await freePort()];
      await udpBackend(t, '127.0.0.2', target);
      const idleMs = 8_000;
      const ingress = openIngress(t, driver({ udpFlowsMax: 2, udpIdleTimeoutMs: idleMs }));
      ingress.update(inputs('udp', published, target, [endpoint('127.0.0.2')]));
      const [silent, busy] = [await udpClient(t, '127.0.0.9'), await udpClient(t, '127.0.0.10')];
      await askUdp(silent, 'a', published);
      const sinceMs = performance.now();
      await askUdp(busy, 'b', published);
      const keeps = setInterval(() => busy.send('c', published, '127.0.0.1'), 50);
      t.teardown(() => clearInterval(keeps));
      const next = await udpClient(t, '127.0.0.11');
      next.setMaxListeners(0);
      t.equal(await askUdp(next, 'd', published), '127.0.0.2 d');
      t.ok(performance.now() - sinceMs < idleMs, 'sooner than it would have been forgotten');
      t.ok((ingress.stats().ports[0]?.ends.limit ?? 0) > 0, 'not at once');
      t.equal(ingress.stats().ports[0]?.active, 2);
    },
  );

  t.test('and so do those of a client that has used up its share', async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await udpBackend(t, '127.0.0.2', target);
    const ingress = openIngress(t, driver({ udpFlowsMax: 4, udpIdleTimeoutMs: 8_000 }));
    ingress.update(inputs('udp', published, target, [endpoint('127.0.0.2')]));
    const sinceMs = performance.now();
    for (const from of ['127.0.0.9', '127.0.0.10', '127.0.0.10'])
      await askUdp(await udpClient(t, from), 'a', published);
    const next = await udpClient(t, '127.0.0.10');
    next.setMaxListeners(0);
    t.equal(await askUdp(next, 'b', published), '127.0.0.2 b');
    t.ok(performance.now() - sinceMs < 8_000, 'sooner than they would have been forgotten');
    t.equal(ingress.stats().ports[0]?.active, 2, 'another one keeps its place');
  });
}
