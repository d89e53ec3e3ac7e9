import { Socket } from 'node:net';
import t from 'tap';
import type { ProxyPolicy } from '../../../../src/dataplane/ingress/core/proxy-driver.js';
import { PortableProxyDriver } from '../../../../src/dataplane/ingress/io/portable-driver.js';
import { backend, client, freePort, readAll } from '../../../support/ingress-lab.js';

const BACKEND = '127.0.0.2';

/** One backend, to be reached from the client's address. */
function keptPolicy(address: string, port: number): ProxyPolicy {
  return {
    accepted: () => undefined,
    choose: (_listener, _client, _port, tried) =>
      tried.length > 0 ? undefined : { ticket: 1, address, port, connectMs: 2000, asClient: true },
    foresees: () => false,
    withdrawn: () => undefined,
    isLive: () => true,
    connected: () => undefined,
    answered: () => undefined,
    silent: () => undefined,
    failed: () => undefined,
    released: () => undefined,
    ended: () => undefined,
  };
}

t.test('a task sees its client, or the node where that cannot be', async (t) => {
  const [published, target] = [await freePort(), await freePort()];
  await backend(t, BACKEND, target, (socket) => socket.end(`${socket.remoteAddress}`));
  const asked: string[] = [];
  // Loopback is no client's address to keep elsewhere; here it stands for one.
  for (const [source, want] of [
    ['127.0.0.9', '127.0.0.9'],
    [undefined, '127.0.0.1'],
    ['refused', '127.0.0.1'],
  ] as const) {
    const policy = keptPolicy(BACKEND, target);
    const driver = new PortableProxyDriver(policy, {
      sockets: {
        tcp: () => new Socket(),
        udp: () => Promise.reject(new Error('no namespaces here')),
        as: (address, port) => {
          asked.push(`${address} ${port > 0}`);
          if (source === undefined) throw new Error('EPERM');
          const socket = new Socket({ allowHalfOpen: true });
          const { connect } = socket;
          socket.connect = ((options: { port: number }) => {
            const refused = source === 'refused';
            const to = refused ? { port: 1 } : { port: options.port, localAddress: source };
            return connect.call(socket, { host: BACKEND, ...to } as never);
          }) as never;
          return socket;
        },
      },
    });
    await driver.open(1, 'tcp', published, ['::']);
    t.equal(await readAll(await client(t, published)), want);
    await driver.stop();
  }
  const [own, any] = ['127.0.0.1 true', '127.0.0.1 false'];
  t.strictSame(asked, [own, own, any, own, any], 'its port, or another one of its');
});

t.test(
  'a client of IPv6 has its own place at a task, or the node’s where nobody listens there',
  async (t) => {
    const [published, target] = [await freePort(), await freePort()];
    await backend(t, BACKEND, target, (socket) => socket.end(`${socket.remoteAddress}`));
    let asked = 0;
    let upstreamPort = target;
    const { choose, ...policy } = keptPolicy(BACKEND, target);
    const driver = new PortableProxyDriver(
      {
        ...policy,
        choose: (...args) => {
          const upstream = choose(...args);
          return typeof upstream === 'object'
            ? { ...upstream, port: upstreamPort, address6: '::1' }
            : upstream;
        },
      },
      {
        sockets: {
          tcp: () => new Socket(),
          udp: () => Promise.reject(new Error('no namespaces here')),
          as: () => {
            asked += 1;
            return new Socket({ allowHalfOpen: true });
          },
        },
      },
    );
    await driver.open(1, 'tcp', published, ['::']);
    const answer = async (host: string) => readAll(await client(t, published, host));
    for (let i = 0; i < 3; i++) t.equal(await answer('::1'), '127.0.0.1', 'over IPv4');
    t.equal(asked, 2, 'its port and any; the others are spared the refusals');
    t.equal(await answer('127.0.0.1'), '127.0.0.1');
    t.equal(asked, 3, 'clients of IPv4 are not meant');

    const other = await freePort();
    await backend(t, BACKEND, other, (socket) => socket.end('IPv4'));
    await backend(t, '::1', other, (socket) => socket.end('IPv6'));
    upstreamPort = other;
    for (let i = 0; i < 2; i++) t.equal(await answer('::1'), 'IPv6');
    t.equal(await answer('127.0.0.1'), 'IPv4');
    await driver.stop();
  },
);
