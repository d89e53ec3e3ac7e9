import t from 'tap';
import type { FlowsAnswer } from '../../src/api/index.js';
import { FakeBackend, TOKEN } from './fake-backend.js';
import { serve } from './harness.js';

const messageOf = (body: unknown) => (body as { message: string }).message;
const KEY = `SWMKEY-1-${'k'.repeat(43)}`;
const NO_LEADER =
  "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";
const LOCKED =
  'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.';

function locked(): FakeBackend {
  const backend = new FakeBackend();
  backend.key = KEY;
  backend.local = { ...backend.local, state: 'locked', nodeId: 'manager' };
  return backend;
}

t.test('a locked manager says so to everything, and is unlocked by its key', async (t) => {
  const { call, backend } = await serve(t, locked());
  const ping = await call('GET', '/_ping');
  t.equal(ping.headers['swarm'], 'locked');
  t.match((await call('GET', '/info')).body, {
    Swarm: { LocalNodeState: 'locked', ControlAvailable: false },
  });
  for (const [method, path, body] of [
    ['GET', '/nodes'],
    ['GET', '/nodes/x'],
    ['GET', '/swarm'],
    ['GET', '/swarm/unlockkey'],
    ['GET', '/secrets'],
    ['GET', '/configs/x'],
    ['GET', '/services'],
    ['POST', '/swarm/update?version=1', {}],
    ['POST', '/secrets/create', { Name: 'a', Data: 'eA==' }],
    ['GET', '/shoal/v1/snapshot'],
    ['GET', '/shoal/v1/history'],
  ] as const) {
    const answer = await call(method, path, body);
    t.same([answer.status, messageOf(answer.body)], [503, LOCKED], path);
  }
  const unlock = (key: unknown) => call('POST', '/swarm/unlock', { UnlockKey: key });
  for (const key of ['', 'x', 'SWMKEY-1-', 'SWMKEY-2-abc', `${KEY}=`]) {
    const answer = await unlock(key);
    t.same([answer.status, messageOf(answer.body)], [400, 'invalid key string'], key);
  }
  const wrong = await unlock(`SWMKEY-1-${'w'.repeat(43)}`);
  t.same(
    [wrong.status, messageOf(wrong.body)],
    [401, 'swarm could not be unlocked: invalid key provided'],
  );
  t.same((await unlock(KEY)).status, 200);
  t.equal((await call('GET', '/nodes')).status, 200);
  t.same(backend.asked.at(-1), ['unlock', KEY]);
});

t.test('unlock elsewhere is refused in the words of that state', async (t) => {
  for (const [backend, status, words] of [
    [FakeBackend.manager(), 409, /^swarm is not locked$/],
    [FakeBackend.worker(), 503, /^This node is not a swarm manager. Worker nodes/],
    [new FakeBackend(), 503, /^This node is not a swarm manager. Use "docker swarm init"/],
  ] as const) {
    const { call } = await serve(t, backend);
    const answer = await call('POST', '/swarm/unlock', { UnlockKey: KEY });
    t.equal(answer.status, status);
    t.match(messageOf(answer.body), words);
  }
});

t.test('autolock is turned on, shows its key, rotates it, and is turned off', async (t) => {
  const { call, backend } = await serve(t);
  const keyNow = async () =>
    ((await call('GET', '/swarm/unlockkey')).body as { UnlockKey: string }).UnlockKey;
  const update = async (autolock: boolean, query = '') => {
    const { body } = await call('GET', '/swarm');
    const { Spec: spec, Version: version } = body as { Spec: object; Version: { Index: number } };
    const path = `/swarm/update?version=${version.Index}${query}`;
    return call('POST', path, { ...spec, EncryptionConfig: { AutoLockManagers: autolock } });
  };
  t.equal(await keyNow(), '');
  t.equal((await update(true)).status, 200);
  const first = await keyNow();
  t.match(first, /^SWMKEY-1-/);
  t.match((await call('GET', '/swarm')).body, {
    Spec: { EncryptionConfig: { AutoLockManagers: true } },
  });
  t.equal((await update(true, '&rotateManagerUnlockKey=true')).status, 200);
  t.match(backend.asked.at(-1)?.[3], { managerUnlockKey: true, workerToken: false });
  t.not(await keyNow(), first);
  t.equal((await update(false)).status, 200);
  t.equal(await keyNow(), '');
  const swarm = (await call('GET', '/swarm')).text;
  t.notMatch(swarm, /SWMKEY/);
});

t.test(
  'a root is rotated by a counter or by one that is given, whose key is not shown',
  async (t) => {
    const { call, backend } = await serve(t);
    const { Spec: spec } = (await call('GET', '/swarm')).body as {
      Spec: { CAConfig: { NodeCertExpiry: number } };
    };
    t.notOk('ForceRotate' in spec.CAConfig, 'zero is left out');
    const update = (ca: object) =>
      call('POST', `/swarm/update?version=${backend.local.cluster?.version}`, {
        ...spec,
        CAConfig: { ...spec.CAConfig, ...ca },
      });
    await update({ NodeCertExpiry: 7_200_000_000_000 });
    t.same(backend.asked.at(-1)?.[3], {
      workerToken: false,
      managerToken: false,
      managerUnlockKey: false,
      rootCa: false,
    });
    t.match(backend.asked.at(-1)?.[2], { nodeCertExpiryMs: 7_200_000, ca: { forceRotate: 0 } });
    await update({ ForceRotate: 1 });
    t.match(backend.asked.at(-1)?.[3], { rootCa: true });
    t.match((await call('GET', '/swarm')).body, { Spec: { CAConfig: { ForceRotate: 1 } } });
    await update({ ForceRotate: 1 });
    t.match(backend.asked.at(-1)?.[3], { rootCa: false });
    const given = { SigningCACert: 'CERT PEM', SigningCAKey: 'KEY PEM' };
    t.equal((await update({ ForceRotate: 1, ...given })).status, 200);
    t.match(backend.asked.at(-1)?.[3], {
      rootCa: true,
      givenRoot: { certPem: 'CERT PEM', keyPem: 'KEY PEM' },
    });
    for (const path of ['/swarm', '/info']) t.notMatch((await call('GET', path)).text, 'KEY PEM');
    t.notMatch(JSON.stringify(backend.local.cluster), 'KEY PEM');
    const alone = await update({ SigningCAKey: 'KEY PEM' });
    t.equal(alone.status, 400);
    t.match(messageOf(alone.body), /^if a signing CA key is provided/);
    const external = { Protocol: 'cfssl', URL: 'https://ca', Options: {}, CACert: 'PEM' };
    await update({ ExternalCAs: [external] });
    t.same(backend.local.cluster?.spec.ca?.externalCas, [
      { protocol: 'cfssl', url: 'https://ca', options: {}, caCertPem: 'PEM' },
    ]);
    t.match((await call('GET', '/swarm')).body, {
      Spec: { CAConfig: { ExternalCAs: [external] } },
    });
  },
);

t.test('settings that the control plane refuses are refused in its words', async (t) => {
  const backend = FakeBackend.manager();
  const { call } = await serve(t, backend);
  backend.refusal = { code: 'SWARM_INVALID' };
  const swarm = await call('POST', '/swarm/update?version=10', {});
  t.same(
    [swarm.status, messageOf(swarm.body)],
    [400, 'rpc error: code = InvalidArgument desc = refused: SWARM_INVALID'],
  );
  backend.refusal = { code: 'SWARM_PRECONDITION' };
  const node = await call('POST', '/nodes/mn1/update?version=9', {
    Role: 'worker',
    Availability: 'active',
  });
  t.same(
    [node.status, messageOf(node.body)],
    [400, 'rpc error: code = FailedPrecondition desc = refused: SWARM_PRECONDITION'],
  );
});

t.test('the list of nodes tells the leader, the reachable and the unreachable', async (t) => {
  const backend = FakeBackend.manager();
  const [leader, other] = backend.nodeObjects;
  if (leader === undefined || other === undefined) throw new Error('two nodes');
  const manager = { leader: false, reachability: 'unreachable', address: 'a:2377' } as const;
  backend.nodeObjects = [leader, { ...other, manager }];
  const { call } = await serve(t, backend);
  const nodes = (await call('GET', '/nodes')).body as { ManagerStatus: object }[];
  t.strictSame(
    nodes.map(({ ManagerStatus }) => ManagerStatus),
    [
      { Leader: true, Reachability: 'reachable', Addr: '192.168.78.11:2377' },
      { Reachability: 'unreachable', Addr: 'a:2377' },
    ],
  );
});

t.test('without a quorum reads are answered and marked, and writes are refused', async (t) => {
  const backend = FakeBackend.manager();
  const { call } = await serve(t, backend);
  await backend.createSecret({ name: 'sec1', labels: {} }, 'eA==');
  await backend.createNetwork(NETWORK);
  const reads = [
    '/nodes',
    '/nodes/self',
    '/swarm',
    '/swarm/unlockkey',
    '/networks',
    '/networks/net1',
    '/secrets',
    '/secrets/sec1',
    '/configs',
    '/shoal/v1/history',
  ];
  for (const path of reads) {
    const before = backend.freshened;
    const { headers, status } = await call('GET', path);
    t.same([status, headers['shoal-stale'], headers.warning], [200, undefined, undefined], path);
    t.equal(backend.freshened, before + 1, `${path} is answered freshly`);
  }
  backend.freshness = { staleMs: 12_345.6 };
  for (const path of reads) {
    const { headers, status } = await call('GET', path);
    t.same(
      [status, headers['shoal-stale'], headers.warning],
      [200, '12346', '110 shoal "Response is Stale"'],
      path,
    );
  }
  const before = backend.freshened;
  for (const path of ['/_ping', '/info', '/version', '/shoal/v1/status'])
    t.notOk((await call('GET', path)).headers['shoal-stale'], path);
  t.equal(backend.freshened, before, 'what concerns this host alone waits for nobody');
  for (const [method, path, body] of [
    ['POST', '/secrets/create', { Name: 'b', Data: 'eA==' }],
    ['DELETE', '/secrets/sec1'],
    ['POST', '/nodes/mn1/update?version=9', { Role: 'worker', Availability: 'active' }],
    ['DELETE', '/nodes/mn2'],
    ['POST', '/networks/create', { Name: 'n' }],
    ['POST', '/swarm/update?version=10', {}],
  ] as const) {
    backend.refusal = { code: 'SWARM_NO_QUORUM' };
    const answer = await call(method, path, body);
    t.same([answer.status, messageOf(answer.body)], [500, NO_LEADER], `${method} ${path}`);
  }
});

const NETWORK = {
  name: 'net1',
  labels: {},
  driver: 'overlay',
  driverOptions: {},
  attachable: true,
  internal: false,
  ingress: false,
  ipv6: false,
  ipamDriver: 'default',
  ipamOptions: {},
  ipam: [],
};

t.test('init takes over a cluster by force, and locks it if asked', async (t) => {
  const { call, backend } = await serve(t, new FakeBackend());
  await call('POST', '/swarm/init', { ForceNewCluster: true, AutoLockManagers: true });
  t.match(backend.asked[0], [
    'init',
    { forceNewCluster: true, autolock: true, spec: { autolock: true } },
  ]);
});

t.test('the history is told, of one object or of all', async (t) => {
  const backend = FakeBackend.manager();
  const item = (version: number, name: string) => ({
    version,
    atMs: version,
    kind: 'network_create',
    action: 'create' as const,
    objectKind: 'network',
    id: name,
    name,
  });
  backend.historyItems = [item(1, 'a'), item(2, 'b'), item(3, 'a')];
  const { call } = await serve(t, backend);
  const versions = async (query: string) =>
    ((await call('GET', `/shoal/v1/history${query}`)).body as { version: number }[]).map(
      ({ version }) => version,
    );
  t.same(await versions(''), [1, 2, 3]);
  t.same(await versions('?limit=1'), [3]);
  t.same(await versions('?object=a'), [1, 3]);
  for (const limit of ['0', '10001', '-1', 'x', '1e3']) {
    const answer = await call('GET', `/shoal/v1/history?limit=${limit}`);
    t.same([answer.status, (answer.body as { code: string }).code], [400, 'API_BAD_REQUEST']);
  }
});

t.test('flows are asked for by service, and never more than a limit', async (t) => {
  const backend = FakeBackend.manager();
  const flow = (serviceName: string, clientPort: number) => ({
    client: '192.0.2.1',
    clientPort,
    port: 'tcp/80',
    serviceId: serviceName,
    serviceName,
    ageMs: 5,
  });
  backend.openFlows = [flow('a', 1), flow('b', 2), flow('a', 3)];
  const { call } = await serve(t, backend);
  const asked = async (query: string) => {
    const { total, flows } = (await call('GET', `/shoal/v1/flows${query}`)).body as FlowsAnswer;
    return [total, flows.map(({ clientPort }) => clientPort)];
  };
  t.same(await asked(''), [3, [1, 2, 3]]);
  t.same(await asked('?service=a&limit=1'), [2, [1]]);
  for (const limit of ['0', '10001', '-1', 'x'])
    t.equal((await call('GET', `/shoal/v1/flows?limit=${limit}`)).status, 400, limit);
  t.same((await call('GET', '/shoal/v1/ports')).body, []);
});

t.test('a snapshot is streamed, and cut short when its source fails', async (t) => {
  const backend = FakeBackend.manager();
  const { call } = await serve(t, backend);
  const chunks = Array.from({ length: 200 }, (_, i) => Buffer.alloc(10_000, i));
  backend.snapshot = chunks;
  const answer = await call('GET', '/shoal/v1/snapshot');
  t.equal(answer.headers['content-type'], 'application/octet-stream');
  t.equal(answer.text, Buffer.concat(chunks).toString());
  backend.snapshot = (async function* () {
    yield Buffer.alloc(100_000, 'x');
    throw new Error('the disk failed');
  })();
  await t.rejects(call('GET', '/shoal/v1/snapshot'), /aborted|hang up/);
  t.equal((await call('GET', '/nodes')).status, 200, 'the server goes on');
});

t.test('a snapshot is inspected and restored, and a swarm is recovered', async (t) => {
  const { call, backend } = await serve(t);
  const path = '/tmp/a.snapshot';
  t.same((await call('POST', '/shoal/v1/snapshot/inspect', { path })).body, { path });
  t.same((await call('POST', '/shoal/v1/snapshot/restore', { path })).body, { restored: path });
  t.equal((await call('POST', '/shoal/v1/snapshot/restore', { path: 'relative' })).status, 400);
  t.same((await call('GET', '/shoal/v1/recover')).body, { appliedIndex: 7 });
  await call('POST', '/shoal/v1/recover', { force: true });
  t.same(backend.asked.at(-1), ['recover', { force: true }]);
  backend.refusal = { code: 'SWARM_NO_QUORUM' };
  const refused = await call('POST', '/shoal/v1/recover', {});
  t.same(refused.body, { message: NO_LEADER, code: 'SWARM_NO_QUORUM' });
});

t.test('tokens are no part of what docker info shows', async (t) => {
  const { call } = await serve(t);
  t.match((await call('GET', '/swarm')).text, TOKEN);
  t.notMatch((await call('GET', '/info')).text, TOKEN);
});
