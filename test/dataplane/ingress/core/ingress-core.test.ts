import t from 'tap';
import { OPEN_ACCESS, readAccess } from '../../../../src/base/access-labels.js';
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
    access: OPEN_ACCESS,
    bind: undefined,
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

/** Of a flow that is let in. */
function chosen(core: IngressCore, ...flow: Parameters<IngressCore['choose']>) {
  const upstream = core.choose(...flow);
  return upstream === 'refused' ? undefined : upstream;
}

t.test('a listener stays while its service has the port, and turns go on', async (t) => {
  const core = new IngressCore(1);
  const first = core.apply([port()], 0);
  t.strictSame(first.closed, []);
  const listener = first.opened[0]?.listener ?? 0;
  const one = chosen(core, listener, '::ffff:192.0.2.1', 4000, [], 0);
  t.match(one, { port: 8080 });
  t.match(core.apply([port()], 1), { closed: [], opened: [], kept: [{ listener }] });
  const two = chosen(core, listener, '192.0.2.1', 4001, [], 1);
  t.strictSame(new Set([one?.address, two?.address]), new Set(['10.0.0.1', '10.0.0.2']));
});

t.test('another service on the same port is another listener', async (t) => {
  const core = new IngressCore(1);
  const listener = core.apply([port()], 0).opened[0]?.listener ?? 0;
  core.accepted(listener);
  const flow = chosen(core, listener, '192.0.2.1', 1, [], 0);
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
  const flow = chosen(core, listener, '192.0.2.1', 1, [], 0)?.ticket ?? -1;
  const [backend] = port({}, ['a']).backends;
  core.apply([port({ backends: backend ? [{ ...backend, state: 'draining' }] : [] })], 1);
  t.ok(core.isLive(listener, flow));
  t.equal(chosen(core, listener, '192.0.2.1', 2, [], 1), undefined, 'nobody takes new ones');
  core.apply([port({ backends: [] })], 2);
  t.notOk(core.isLive(listener, flow));
});

t.test('everything is counted by port', async (t) => {
  const core = new IngressCore(1);
  const listener = core.apply([port()], 0).opened[0]?.listener ?? 0;
  core.accepted(listener);
  const flow = chosen(core, listener, '2001:db8::1', 1, [], 0)?.ticket ?? -1;
  core.failed(listener, flow, 0);
  core.released(listener, flow);
  const again = chosen(core, listener, '2001:db8::1', 1, [flow], 0)?.ticket ?? -1;
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
  const tasks = core.stats()[0]?.tasks ?? [];
  t.strictSame(
    tasks.map(({ connects, connectFailures }) => connects * 10 + connectFailures).sort(),
    [1, 10],
    'one failed, and the other took it',
  );
  core.apply([port({}, ['b', 'c'])], 1);
  t.strictSame(
    core.stats()[0]?.tasks.map(({ taskId }) => taskId),
    ['b', 'c'],
    'who is gone is forgotten',
  );
});

t.test('a silent task is left sooner while there are others, and each gets its try', async (t) => {
  const core = new IngressCore(1);
  const tasks = Array.from({ length: 20 }, (_, i) => `t${i}`);
  const listener = core.apply([port({}, tasks)], 0).opened[0]?.listener ?? 0;
  const tried: number[] = [];
  const waits: number[] = [];
  for (;;) {
    const where = chosen(core, listener, '192.0.2.1', 4000, tried, 0);
    if (where === undefined) break;
    tried.push(where.ticket);
    waits.push(where.connectMs);
  }
  t.equal(new Set(tried).size, 16, 'so many, and none twice');
  t.strictSame(waits.slice(0, 5), [500, 1000, 2000, 3500, 3500]);

  const only = new IngressCore(1);
  const one = only.apply([port({}, ['a'])], 0).opened[0]?.listener ?? 0;
  t.equal(chosen(only, one, '192.0.2.1', 1, [], 0)?.connectMs, 3500, 'there is nobody else');
});

t.test('connections to a task are counted from the try on, through closed ports too', async (t) => {
  const core = new IngressCore(1);
  const ports = [port({}, ['a']), port({ key: 'udp/80', protocol: 'udp' }, ['a'])];
  const [tcp, udp] = core.apply(ports, 0).opened.map(({ listener }) => listener);
  for (const listener of [tcp ?? 0, udp ?? 0]) {
    core.accepted(listener);
    chosen(core, listener, '192.0.2.1', 1, [], 0);
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
  const answering = backend === undefined ? [] : [{ ...backend, answersDatagrams: true }];
  const preserve = { clientAddress: 'preserve' } as const;
  const listeners = core
    .apply(
      [
        port({ clientAddress: 'preserve' }, ['a']),
        port({ clientAddress: 'preserve', key: 'tcp/81', backends: v6 }),
        port({ clientAddress: 'preserve', key: 'udp/80', protocol: 'udp' }, ['a']),
        port({ clientAddress: 'snat', key: 'tcp/82' }, ['a']),
        port({ ...preserve, key: 'udp/81', protocol: 'udp', backends: answering }),
      ],
      0,
    )
    .opened.map(({ listener }) => listener);
  const keeps = (which: number, client: string) =>
    chosen(core, listeners[which] ?? 0, client, 4000, [], 0)?.asClient ?? false;
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
    [2, '198.51.101.1', false, 'datagrams, to a task that may answer them from elsewhere'],
    [4, '198.51.101.1', true, 'datagrams'],
    [4, '127.0.0.1', false, 'loopback, by datagrams'],
    [3, '198.51.101.1', false, 'the service does not want it'],
  ];
  for (const [which, client, want, why] of cases) t.equal(keeps(which, client), want, why);
  core.setIngressSubnets(undefined);
  t.notOk(keeps(0, '198.51.101.1'));
});

t.test('clients of IPv6 have a place of their own at a task that has both', async (t) => {
  const core = new IngressCore(1);
  const [backend] = port({}, ['a']).backends;
  const both = (answers: object) =>
    backend === undefined ? [] : [{ ...backend, address6: 'fd00::5', ...answers }];
  const udp = { clientAddress: 'preserve', protocol: 'udp' } as const;
  const listeners = core
    .apply(
      [
        port({ clientAddress: 'preserve', backends: both({}) }),
        port({ ...udp, key: 'udp/80', backends: both({ answersDatagrams: true }) }),
        port({
          ...{ ...udp, key: 'udp/81' },
          backends: both({ answersDatagrams: true, answersDatagrams6: true }),
        }),
        port({ ...udp, key: 'udp/82', backends: both({ answersDatagrams6: true }) }),
      ],
      0,
    )
    .opened.map(({ listener }) => listener);
  const placeOf = (which: number, client: string) => {
    const upstream = chosen(core, listeners[which] ?? 0, client, 4000, [], 0);
    return upstream?.asClient === true ? (upstream.address6 ?? 'IPv4 only') : 'none';
  };
  const [four, six] = ['198.51.101.1', '2600::1'];
  core.setIngressSubnets(['10.0.0.0/24', 'fd00::/64']);
  const cases: readonly [which: number, client: string, want: string, why: string][] = [
    [0, six, 'fd00::5', 'TCP'],
    [0, four, 'fd00::5', 'for the next client, which may be of IPv6'],
    [0, '', 'fd00::5', 'chosen ahead'],
    [0, 'fd00::77', 'none', 'an address of the ingress network'],
    [0, '::1', 'none', 'loopback'],
    [0, 'fe80::1%eth0', 'none', 'link-local'],
    [1, six, 'none', 'datagrams, to a task that may answer them from elsewhere'],
    [1, four, 'IPv4 only', 'and to one that answers those of IPv4'],
    [2, six, 'fd00::5', 'datagrams'],
    [2, four, 'fd00::5', 'datagrams'],
    [3, six, 'none', 'what answers IPv6 alone is not told apart by drivers'],
  ];
  for (const [which, client, want, why] of cases) t.equal(placeOf(which, client), want, why);
  core.setIngressSubnets(['10.0.0.0/24']);
  t.equal(placeOf(0, six), 'none', 'this node has no IPv6 address there');
  t.equal(placeOf(0, ''), 'IPv4 only');
});

t.test('labels say who is let in, and how often; each refusal is counted', async (t) => {
  const core = new IngressCore(1);
  const limited = (labels: Readonly<Record<string, string>>) =>
    core.apply([port({ access: readAccess(labels).access })], 0).opened[0]?.listener;
  const listener = limited({}) ?? 0;
  t.ok(core.foresees(listener, 0));
  const come = (client: string, nowMs: number) => core.choose(listener, client, 4000, [], nowMs);

  limited({ 'shoal.allow-from': '192.0.2.0/25, 2600::/16' });
  t.notOk(core.foresees(listener, 0), 'nothing is chosen ahead');
  for (const [client, isIn] of [
    ['192.0.2.127', true],
    ['::ffff:192.0.2.1', true],
    ['192.0.2.128', false],
    ['2600:1::1', true],
    ['2601::1', false],
    ['fe80::1%eth0', false],
    ['nonsense', false],
  ] as const)
    t.equal(come(client, 0) !== 'refused', isIn, client);

  limited({ 'shoal.connections-max': '5' });
  const held = [come('192.0.2.1', 0), come('192.0.2.2', 0), come('192.0.2.3', 0)].map((flow) =>
    typeof flow === 'object' ? flow.ticket : -1,
  );
  t.equal(held[2], -1, 'those from before count too');
  core.released(listener, held[0] ?? -1);
  const again = come('192.0.2.1', 0);
  t.not(again, 'refused');
  const ticket = typeof again === 'object' ? again.ticket : -1;
  core.released(listener, ticket);
  come('192.0.2.1', 0);
  t.not(core.choose(listener, '192.0.2.1', 1, [ticket], 0), 'refused', 'who is in tries on');

  limited({ 'shoal.rate': '2/s' });
  const takes = [0, 0, 0, 499, 500, 500].map((nowMs) => come('192.0.2.9', nowMs) !== 'refused');
  t.strictSame(takes, [true, true, false, false, true, false]);
  t.not(come('192.0.2.10', 500), 'refused', 'another client');
  const refused = { allow_from: 4, connections_max: 1, rate: 3 };
  t.strictSame(core.stats()[0]?.refusals, refused);
  limited({});
  t.ok(core.foresees(listener, 0));
  t.not(come('192.0.2.9', 500), 'refused');
});
