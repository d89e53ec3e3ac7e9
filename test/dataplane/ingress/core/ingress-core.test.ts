import t from 'tap';
import { DEFAULT_BALANCE } from '../../../../src/dataplane/core/balance/config.js';
import { IngressCore } from '../../../../src/dataplane/ingress/core/ingress-core.js';
import type { PublishedPort } from '../../../../src/dataplane/ingress/core/published-ports.js';

function port(extra: Partial<PublishedPort> = {}, tasks: readonly string[] = ['a', 'b']) {
  return {
    key: 'tcp/80',
    protocol: 'tcp' as const,
    port: 80,
    targetPort: 8080,
    mode: 'ingress' as const,
    serviceId: 's1',
    serviceName: 'web',
    balance: DEFAULT_BALANCE,
    clientAddress: 'snat' as const,
    refusedCount: 0,
    backends: tasks.map((key, i) => ({
      key,
      state: 'ready' as const,
      weight: 1,
      isLocal: false,
      address: `10.0.0.${i + 1}`,
    })),
    ...extra,
  };
}

t.test('a listener stays while its service has the port, and turns go on', async (t) => {
  const core = new IngressCore(1);
  const first = core.apply([port()], 0);
  t.strictSame(first.closed, []);
  const listener = first.opened[0]?.listener ?? 0;
  const one = core.choose(listener, '::ffff:192.0.2.1', 4000, [], 0);
  t.match(one, { port: 8080 });
  t.strictSame(core.apply([port()], 1), { closed: [], opened: [] });
  const two = core.choose(listener, '192.0.2.1', 4001, [], 1);
  t.strictSame(new Set([one?.address, two?.address]), new Set(['10.0.0.1', '10.0.0.2']));
});

t.test('another service on the same port is another listener', async (t) => {
  const core = new IngressCore(1);
  const listener = core.apply([port()], 0).opened[0]?.listener ?? 0;
  core.accepted(listener);
  const flow = core.choose(listener, '192.0.2.1', 1, [], 0);
  const swapped = core.apply([port({ serviceId: 's2' }, ['c'])], 1);
  t.strictSame(swapped.closed, [listener]);
  t.not(swapped.opened[0]?.listener, listener);
  t.ok(core.isLive(listener, flow?.ticket ?? -1), 'its flows are left alone');
  core.ended(listener, 'closed', 1, 1);
  t.notOk(core.isLive(listener, flow?.ticket ?? -1), 'and forgotten with the last');
});

t.test('a flow lives while its task drains, and not when that is gone', async (t) => {
  const core = new IngressCore(1);
  const listener = core.apply([port({}, ['a'])], 0).opened[0]?.listener ?? 0;
  core.accepted(listener);
  const flow = core.choose(listener, '192.0.2.1', 1, [], 0)?.ticket ?? -1;
  const [backend] = port({}, ['a']).backends;
  core.apply([port({ backends: backend ? [{ ...backend, state: 'draining' }] : [] })], 1);
  t.ok(core.isLive(listener, flow));
  t.equal(core.choose(listener, '192.0.2.1', 2, [], 1), undefined, 'nobody takes new ones');
  core.apply([port({ backends: [] })], 2);
  t.notOk(core.isLive(listener, flow));
});

t.test('everything is counted by port', async (t) => {
  const core = new IngressCore(1);
  const listener = core.apply([port()], 0).opened[0]?.listener ?? 0;
  core.accepted(listener);
  const flow = core.choose(listener, '2001:db8::1', 1, [], 0)?.ticket ?? -1;
  core.failed(listener, flow, 0);
  core.released(listener, flow);
  const again = core.choose(listener, '2001:db8::1', 1, [flow], 0)?.ticket ?? -1;
  core.connected(listener, again, 4);
  core.answered(listener, again, 0);
  core.released(listener, again);
  core.accepted(listener);
  core.ended(listener, 'closed', 10, 20);
  t.match(core.stats(), [
    {
      key: 'tcp/80',
      accepted: 2,
      active: 1,
      bytesUp: 10,
      bytesDown: 20,
      connects: 1,
      connectMsTotal: 4,
      connectFailures: 1,
      ends: { closed: 1, no_backend: 0 },
      backends: { known: 2, ready: 2, ejected: 0 },
    },
  ]);
});

t.test('a silent task is left sooner while there are others, and each gets its try', async (t) => {
  const core = new IngressCore(1);
  const tasks = Array.from({ length: 20 }, (_, i) => `t${i}`);
  const listener = core.apply([port({}, tasks)], 0).opened[0]?.listener ?? 0;
  const tried: number[] = [];
  const waits: number[] = [];
  for (;;) {
    const where = core.choose(listener, '192.0.2.1', 4000, tried, 0);
    if (where === undefined) break;
    tried.push(where.ticket);
    waits.push(where.connectMs);
  }
  t.equal(new Set(tried).size, 16, 'so many, and none twice');
  t.strictSame(waits.slice(0, 5), [500, 1000, 2000, 3500, 3500]);

  const only = new IngressCore(1);
  const one = only.apply([port({}, ['a'])], 0).opened[0]?.listener ?? 0;
  t.equal(only.choose(one, '192.0.2.1', 1, [], 0)?.connectMs, 3500, 'there is nobody else');
});

t.test('connections to a task are counted from the try on, through closed ports too', async (t) => {
  const core = new IngressCore(1);
  const ports = [port({}, ['a']), port({ key: 'udp/80', protocol: 'udp' }, ['a'])];
  const [tcp, udp] = core.apply(ports, 0).opened.map(({ listener }) => listener);
  for (const listener of [tcp ?? 0, udp ?? 0]) {
    core.accepted(listener);
    core.choose(listener, '192.0.2.1', 1, [], 0);
  }
  t.equal(core.flowsTo('a'), 1, 'datagrams have no end');
  core.apply([], 1);
  t.equal(core.flowsTo('a'), 1);
  core.ended(tcp ?? 0, 'closed', 1, 1);
  t.equal(core.flowsTo('a'), 0);
});

t.test('a client’s address is kept where a task’s answer to it finds back', async (t) => {
  const core = new IngressCore(1);
  const [backend] = port({}, ['a']).backends;
  const v6 = backend === undefined ? [] : [{ ...backend, address: 'fd00::5' }];
  const listeners = core
    .apply(
      [
        port({ clientAddress: 'preserve' }, ['a']),
        port({ clientAddress: 'preserve', key: 'tcp/81', backends: v6 }),
        port({ clientAddress: 'preserve', key: 'udp/80', protocol: 'udp' }, ['a']),
        port({ clientAddress: 'snat', key: 'tcp/82' }, ['a']),
      ],
      0,
    )
    .opened.map(({ listener }) => listener);
  const keeps = (which: number, client: string) =>
    core.choose(listeners[which] ?? 0, client, 4000, [], 0)?.asClient ?? false;
  t.notOk(keeps(0, '192.0.2.1'), 'not before this node takes what comes back');
  core.setIngressSubnets(['10.0.0.0/24', 'fd00::/64', 'nonsense']);
  const cases: readonly [which: number, client: string, want: boolean, why: string][] = [
    [0, '198.51.101.1', true, 'IPv4'],
    [0, '::ffff:192.168.7.9', true, 'as a dual-stack socket tells it'],
    [0, '100.64.1.1', true, 'behind a carrier’s NAT'],
    [0, '2600::1', false, 'the task has no IPv6 address'],
    [1, '2600::1', true, 'IPv6'],
    [1, '198.51.101.1', false, 'the task has no IPv4 address'],
    [0, '127.0.0.1', false, 'loopback'],
    [0, '169.254.3.3', false, 'link-local'],
    [1, 'fe80::1%eth0', false, 'link-local with a zone'],
    [0, '10.0.0.77', false, 'an address of the ingress network'],
    [0, '', true, 'chosen ahead: it is for the driver to look'],
    [0, 'nonsense', false, 'none'],
    [2, '198.51.101.1', false, 'datagrams'],
    [3, '198.51.101.1', false, 'the service does not want it'],
  ];
  for (const [which, client, want, why] of cases) t.equal(keeps(which, client), want, why);
  core.setIngressSubnets(undefined);
  t.notOk(keeps(0, '198.51.101.1'));
});
