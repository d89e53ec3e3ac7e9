import fc from 'fast-check';
import t from 'tap';
import { FakeBackend } from './fake-backend.js';
import { type Answer, serve } from './harness.js';
import { runs } from './runs.js';

/** Whatever comes in, a JSON answer goes out, no failure of ours is behind it, and the server lives. */

const METHODS = ['GET', 'POST', 'DELETE', 'PUT', 'HEAD', 'PATCH', 'OPTIONS'] as const;
const WORDS = [
  ...[
    '_ping',
    'version',
    'info',
    'swarm',
    'init',
    'join',
    'leave',
    'update',
    'unlockkey',
    'unlock',
  ],
  ...['nodes', 'networks', 'create', 'prune', 'connect', 'services', 'tasks', 'secrets', 'configs'],
  ...['distribution', 'logs', 'web'],
  ...['containers', 'images', 'volumes', 'json', 'shoal', 'v1', 'attachments', 'detach', 'status'],
  ...[
    'v1.45',
    'v1.24',
    'v9.9',
    'v1.45.',
    'self',
    'mn1',
    'ov1',
    'metrics',
    'plugins',
    '..',
    '',
    '*',
  ],
];

const segment = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(...WORDS) },
  { weight: 1, arbitrary: fc.string({ maxLength: 20 }).map(encodeURIComponent) },
  { weight: 1, arbitrary: fc.constantFrom('%', '%zz', '%00', '%c3%28', '%2e%2e', ';', '%2F') },
);
const path = fc.array(segment, { maxLength: 6 }).map((parts) => `/${parts.join('/')}`);
const query = fc.dictionary(
  fc.constantFrom(
    ...[
      'filters',
      'version',
      'force',
      'verbose',
      'scope',
      'until',
      'x',
      'status',
      'insertDefaults',
    ],
    ...['stdout', 'tail', 'since', 'rollback', 'registryAuthFrom'],
  ),
  fc.oneof(
    fc.string({ maxLength: 30 }),
    fc.json({ maxDepth: 2 }),
    fc.constantFrom('9', '10', '1h'),
  ),
);
const leaf = fc.oneof(
  fc.string(),
  fc.double(),
  fc.boolean(),
  fc.constant(null),
  fc.constantFrom('active', 'worker', 'overlay', '10.0.0.0/24', 'host', '__proto__', 'ov1'),
);
const KEYS = [
  ...['Name', 'Driver', 'IPAM', 'Config', 'Subnet', 'Gateway', 'IPRange', 'Labels', 'Options'],
  ...['Spec', 'Raft', 'ElectionTick', 'CAConfig', 'NodeCertExpiry', 'Role', 'Availability'],
  ...['RemoteAddrs', 'JoinToken', 'DefaultAddrPool', 'SubnetSize', 'DataPathPort', 'Scope'],
  ...[
    'TaskTemplate',
    'ContainerSpec',
    'Image',
    'Mounts',
    'Type',
    'Target',
    'Secrets',
    'Configs',
    'File',
  ],
  ...[
    'Resources',
    'Limits',
    'NanoCPUs',
    'MemoryBytes',
    'Reservations',
    'GenericResources',
    'SwapBytes',
  ],
  ...[
    'RestartPolicy',
    'Condition',
    'Delay',
    'Placement',
    'Constraints',
    'Preferences',
    'Platforms',
  ],
  ...[
    'Mode',
    'Replicated',
    'Replicas',
    'ReplicatedJob',
    'Global',
    'UpdateConfig',
    'Order',
    'Monitor',
  ],
  ...[
    'EndpointSpec',
    'Ports',
    'PublishedPort',
    'Protocol',
    'Healthcheck',
    'Privileges',
    'Networks',
  ],
  ...['network', 'target', 'kind', 'path', 'pid', 'aliases', 'ip', 'ifname', 'host', '__proto__'],
];
const { body } = fc.letrec<{ body: unknown }>((tie) => ({
  body: fc.oneof(
    { maxDepth: 4 },
    leaf,
    fc.array(tie('body'), { maxLength: 4 }),
    fc.dictionary(fc.constantFrom(...KEYS), tie('body'), { maxKeys: 6 }),
  ),
}));

const WEB = {
  name: 'web',
  labels: {},
  task: { container: { image: 'host' } },
  mode: { kind: 'global' },
} as const;

function isSound(method: string, route: string, answer: Answer): boolean {
  const isText = /\/(_ping|metrics)$/.test(route) && answer.status === 200;
  const isBare = method === 'HEAD' || answer.text === '' || isText;
  // 503 and 501 are meant; of 500 there is only the recorded one of a stale version.
  const isMeant =
    answer.status < 500 ||
    answer.status === 501 ||
    answer.status === 503 ||
    /update out of sequence|invalid join token|constraint expected|' is invalid/.test(answer.text);
  return (
    isMeant && (isBare || answer.body !== undefined) && answer.headers['api-version'] === '1.45'
  );
}

const isStream = (route: string) => /\/events$/.test(route);

for (const [name, make] of [
  ['a manager', () => FakeBackend.manager()],
  ['a node in no swarm', () => new FakeBackend()],
] as const) {
  t.test(`random requests to ${name} are answered soundly`, async (t) => {
    const { call } = await serve(t, make());
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...METHODS),
        path,
        query,
        fc.option(body, { nil: undefined }),
        async (method, route, parameters, content) => {
          if (isStream(route)) return;
          const search = new URLSearchParams(parameters);
          const answer = await call(method, `${route}?${search}`, content);
          if (!isSound(method, route, answer)) {
            throw new Error(`${method} ${route}: ${answer.status} ${answer.text}`);
          }
        },
      ),
      { numRuns: runs(200) },
    );
  });
}

t.test('random bodies on the routes that read one are read or refused', async (t) => {
  const { call, backend } = await serve(t, new FakeBackend());
  const manager = FakeBackend.manager();
  await manager.createService(WEB, {});
  backend.serviceObjects = manager.serviceObjects;
  const routes = [
    '/swarm/init',
    '/swarm/join',
    '/swarm/update?version=10',
    '/nodes/mn2/update?version=9',
    '/networks/create',
    '/services/create',
    '/services/web/update?version=9',
    '/shoal/v1/attachments',
    '/shoal/v1/detach',
    '/shoal/v1/client-certificate',
  ];
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...routes), body, async (route, content) => {
      const isFresh = /init|join/.test(route);
      backend.local = isFresh ? new FakeBackend().local : manager.local;
      backend.nodeObjects = isFresh ? [] : manager.nodeObjects;
      const answer = await call('POST', route, content);
      if (!isSound('POST', route, answer)) {
        throw new Error(`${route}: ${answer.status} ${answer.text}`);
      }
    }),
    { numRuns: runs(400) },
  );
});
