import fc from 'fast-check';
import t from 'tap';
import {
  derivePublishedPorts,
  type HostPort,
  type IngressEndpoint,
  type IngressService,
} from '../../../../src/dataplane/ingress/core/published-ports.js';

const web: IngressService = {
  id: 's1',
  name: 'web',
  labels: {},
  ports: [{ protocol: 'tcp', publishedPort: 80, targetPort: 8080 }],
};
const place = (taskId: string, extra: Partial<IngressEndpoint> = {}): IngressEndpoint => ({
  serviceId: 's1',
  taskId,
  slot: 1,
  addresses: ['fd00::5', '10.0.0.5'],
  state: 'ready',
  isLocal: false,
  ...extra,
});
const hostPort = (taskId: string, publishedPort: number): HostPort => ({
  protocol: 'tcp',
  publishedPort,
  targetPort: 80,
  taskId,
  serviceId: 's9',
  serviceName: 'agent',
  state: 'ready',
  address: '127.0.0.1',
  netns: '/run/netns/x',
});

t.test('a published port has the tasks of its service behind it, draining ones too', async (t) => {
  const { ports, problems } = derivePublishedPorts({
    services: [web],
    endpoints: [
      place('b', { state: 'draining' }),
      place('a', { isLocal: true, slot: 2, addresses: ['10.0.0.6'] }),
      place('c', { addresses: ['fd00::7'], answersDatagrams: true, answersDatagrams6: true }),
      place('other', { serviceId: 's2' }),
      place('nowhere', { addresses: [] }),
    ],
    hostPorts: [],
  });
  t.strictSame(problems, []);
  t.equal(ports.length, 1);
  t.match(ports[0], { key: 'tcp/80', port: 80, targetPort: 8080, mode: 'ingress' });
  t.strictSame(ports[0]?.backends, [
    { key: 'a', state: 'ready', weight: 1, isLocal: true, address: '10.0.0.6' },
    {
      ...{ key: 'b', state: 'draining', weight: 1, isLocal: false },
      ...{ address: '10.0.0.5', address6: 'fd00::5' },
    },
    {
      ...{ key: 'c', state: 'ready', weight: 1, isLocal: false, address: 'fd00::7' },
      ...{ answersDatagrams: true, answersDatagrams6: true },
    },
  ]);
});

t.test('weights are those of the slots', async (t) => {
  const labels = { 'shoal.balance': 'wrr', 'shoal.balance.weights': '2=7' };
  const { ports } = derivePublishedPorts({
    services: [{ ...web, labels }],
    endpoints: [place('a'), place('b', { slot: 2 })],
    hostPorts: [],
  });
  t.equal(ports[0]?.balance.method, 'wrr');
  t.strictSame(
    ports[0]?.backends.map(({ weight }) => weight),
    [1, 7],
  );
});

t.test('a port in the host mode is one task’s, and what cannot be is told', async (t) => {
  const { ports, problems } = derivePublishedPorts({
    services: [web, { ...web, id: 's2', name: 'late' }, { ...web, id: 's3', ports: [] }],
    endpoints: [],
    hostPorts: [hostPort('t1', 9000), hostPort('t2', 80), hostPort('t3', 9000)],
  });
  t.strictSame(
    ports.map(({ key, mode, serviceName }) => [key, mode, serviceName]),
    [
      ['tcp/80', 'ingress', 'web'],
      ['tcp/9000', 'host', 'agent'],
    ],
  );
  t.match(ports[1]?.backends, [{ key: 't1', netns: '/run/netns/x', isLocal: true }]);
  t.strictSame(problems, [
    'port tcp/80 of service late is not opened: service web has it',
    'port tcp/80 of service agent is not opened: service web has it',
    'port tcp/9000 of service agent is not opened: service agent has it',
  ]);
});

t.test('sctp is not served, and labels that say nothing are told', async (t) => {
  const ports = [{ protocol: 'sctp', publishedPort: 1, targetPort: 1 }];
  const { problems } = derivePublishedPorts({
    services: [{ ...web, ports, labels: { 'shoal.balance': 'x' } }],
    endpoints: [],
    hostPorts: [],
  });
  t.equal(problems.length, 2);
});

t.test('datagrams have no line of text before them', async (t) => {
  const service = {
    id: 's1',
    name: 'web',
    labels: { 'shoal.client-address': 'proxy-v1' },
    ports: [{ protocol: 'udp', publishedPort: 53, targetPort: 53 }],
  };
  const { ports, problems } = derivePublishedPorts({
    services: [service],
    endpoints: [],
    hostPorts: [],
  });
  t.match(ports, [{ clientAddress: 'proxy-v1' }]);
  t.match(problems, [/datagrams need proxy-v2$/]);
});

t.test('the order of what is told does not matter', async () => {
  const service = fc.record({
    id: fc.constantFrom('s1', 's2', 's3'),
    ports: fc.array(
      fc.record({
        protocol: fc.constantFrom('tcp', 'udp'),
        publishedPort: fc.integer({ min: 80, max: 83 }),
        targetPort: fc.constant(80),
      }),
      { maxLength: 3 },
    ),
  });
  fc.assert(
    fc.property(
      fc.uniqueArray(service, { selector: ({ id }) => id, maxLength: 3 }),
      fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd')),
      (services, tasks) => {
        const full = services.map((s) => ({ ...s, name: s.id, labels: {} }));
        const endpoints = tasks.map((task) => place(task));
        const one = derivePublishedPorts({ services: full, endpoints, hostPorts: [] });
        const other = derivePublishedPorts({
          services: [...full].reverse(),
          endpoints: [...endpoints].reverse(),
          hostPorts: [],
        });
        return JSON.stringify(one) === JSON.stringify(other);
      },
    ),
  );
});
