import t from 'tap';
import type { AttachmentObject } from '../../src/base/swarm-model.js';
import { AT_MS, FakeBackend } from './fake-backend.js';
import { serve } from './harness.js';

const messageOf = (body: unknown) => (body as { message?: string }).message;
const overlay = (name: string, more: object = {}) => ({ Name: name, Driver: 'overlay', ...more });

t.test('a ping tells the versions and the place in the swarm', async (t) => {
  const cases = [
    [new FakeBackend(), 'inactive'],
    [FakeBackend.manager(), 'active/manager'],
    [FakeBackend.worker(), 'active/worker'],
  ] as const;
  for (const [backend, swarm] of cases) {
    const { call } = await serve(t, backend);
    for (const method of ['GET', 'HEAD']) {
      const answer = await call(method, '/_ping');
      t.equal(answer.status, 200);
      t.equal(answer.text, method === 'GET' ? 'OK' : '');
      t.match(answer.headers, {
        'api-version': '1.45',
        'builder-version': '2',
        'cache-control': 'no-cache, no-store, must-revalidate',
        'content-type': 'text/plain; charset=utf-8',
        'docker-experimental': 'false',
        ostype: 'linux',
        server: 'Shoal/0.1.0 (linux)',
        swarm,
      });
    }
  }
});

t.test('every answer carries the headers of an engine', async (t) => {
  const { call } = await serve(t);
  for (const path of ['/info', '/nope', '/v1.99/info', '/nodes/nope']) {
    t.match((await call('GET', path)).headers, {
      'api-version': '1.45',
      'docker-experimental': 'false',
      ostype: 'linux',
      server: 'Shoal/0.1.0 (linux)',
      'content-type': 'application/json',
    });
  }
});

t.test('routes are there with and without a version, others are not', async (t) => {
  const { call } = await serve(t);
  for (const path of ['/nodes', '/v1.24/nodes', '/v1.45/nodes']) {
    t.equal((await call('GET', path)).status, 200, path);
  }
  t.equal((await call('GET', '/v1.46/nodes')).status, 400);
  t.equal((await call('GET', '/v1.23/nodes')).status, 400);
  const requests = [
    ['GET', '/nope'],
    ['PUT', '/nodes'],
    ['PATCH', '/nodes'],
    ['GET', '/'],
    ['GET', '/v1.45'],
    ['POST', '/info'],
  ] as const;
  for (const [method, path] of requests) {
    const answer = await call(method, path);
    t.equal(answer.status, 404, `${method} ${path}`);
    t.same(answer.body, { message: 'page not found' });
  }
  t.equal((await call('GET', '/nodes/%zz')).status, 400);
});

t.test("the state of a node chooses the words for a manager's work", async (t) => {
  const paths = ['/nodes', '/swarm', '/services', '/tasks', '/secrets', '/configs', '/services/x'];
  const cases = [
    [new FakeBackend(), /Use "docker swarm init" or "docker swarm join"/],
    [FakeBackend.worker(), /Worker nodes can't be used/],
    [
      Object.assign(new FakeBackend(), {
        local: { ...new FakeBackend().local, state: 'locked' },
      }),
      /^Swarm is encrypted and needs to be unlocked/,
    ],
  ] as const;
  for (const [backend, words] of cases) {
    const { call } = await serve(t, backend);
    for (const path of paths) {
      const answer = await call('GET', path);
      t.equal(answer.status, 503, path);
      t.match(messageOf(answer.body), words);
    }
  }
});

t.test('init, join and leave reach the backend in its own words', async (t) => {
  const { call, backend } = await serve(t, new FakeBackend());
  const init = await call('POST', '/swarm/init', { AdvertiseAddr: '10.0.0.1' });
  t.equal(init.status, 200);
  t.equal(init.body, backend.local.nodeId, 'a bare string');
  t.match(backend.asked[0], ['init', { advertiseAddress: '10.0.0.1', subnetSize: 24 }]);
  t.equal((await call('POST', '/swarm/leave')).status, 503);
  const leave = await call('POST', '/swarm/leave?force=1');
  t.equal(leave.status, 200);
  t.equal(leave.text, '');
  t.equal(leave.headers['content-length'], '0');
  t.same(backend.asked.slice(1), [
    ['leave', false],
    ['leave', true],
  ]);
  const join = { RemoteAddrs: ['10.0.0.1:2377'], JoinToken: 'SWMTKN-1-x', ListenAddr: '' };
  t.equal((await call('POST', '/swarm/join', join)).status, 200);
  t.match(backend.asked.at(-1), ['join', { remoteAddresses: ['10.0.0.1:2377'] }]);
});

t.test('an update of the swarm carries its version and what to rotate', async (t) => {
  const { call, backend } = await serve(t);
  const spec = ((await call('GET', '/swarm')).body as { Spec: object }).Spec;
  const stale = await call('POST', '/swarm/update?version=1', spec);
  t.equal(stale.status, 500);
  t.match(messageOf(stale.body), /update out of sequence$/);
  const path = '/swarm/update?version=10&rotateWorkerToken=true&rotateManagerToken=false';
  t.equal((await call('POST', path, spec)).status, 200);
  t.same(backend.asked.at(-1), [
    'updateCluster',
    10,
    backend.local.cluster?.spec,
    { workerToken: true, managerToken: false, managerUnlockKey: false, rootCa: false },
  ]);
  t.equal((await call('POST', '/swarm/update', spec)).status, 400, 'without a version');
});

t.test('a node is found by id, hostname, prefix and as self', async (t) => {
  const { call, backend } = await serve(t);
  for (const ref of [backend.local.nodeId, 'mn1', 'mana', 'self']) {
    t.equal(((await call('GET', `/nodes/${ref}`)).body as { ID: string }).ID, backend.local.nodeId);
  }
  t.equal((await call('GET', '/nodes/nope')).status, 404);
});

t.test('nodes are filtered', async (t) => {
  const { call } = await serve(t);
  const count = async (filters: unknown) => {
    const { body } = await call(
      'GET',
      `/nodes?filters=${encodeURIComponent(JSON.stringify(filters))}`,
    );
    return Array.isArray(body) ? body.length : messageOf(body);
  };
  t.equal(await count({ role: ['manager'] }), 1);
  t.equal(await count({ role: ['manager', 'worker'] }), 2);
  t.equal(await count({ name: { mn: true } }), 2);
  t.equal(await count({ id: { work: true } }), 1);
  t.equal(await count({ label: { 'rack=r1': true } }), 2);
  t.equal(await count({ 'node.label': { 'rack=r1': true } }), 0);
  t.equal(await count({ membership: ['accepted'] }), 2);
  t.equal(await count({ membership: ['pending'] }), 0);
  t.equal(await count({ role: ['king'] }), "invalid role filter: 'king'");
  t.equal(await count({ color: ['red'] }), "invalid filter 'color'");
});

t.test('a node is updated and removed by its full id', async (t) => {
  const { call, backend } = await serve(t);
  const id = backend.nodeObjects[1]?.id;
  const spec = { Labels: { z: 'a' }, Role: 'worker', Availability: 'drain' };
  t.equal((await call('POST', '/nodes/mn2/update?version=9', spec)).status, 200);
  t.match(backend.asked[0], ['updateNode', id, 9, { availability: 'drain', labels: { z: 'a' } }]);
  t.equal((await call('POST', '/nodes/mn2/update?version=9', spec)).status, 500);
  t.equal((await call('DELETE', '/nodes/mn2')).status, 400);
  t.equal((await call('DELETE', '/nodes/mn2?force=1')).status, 200);
  t.same(backend.asked.at(-1), ['removeNode', id, true]);
});

t.test('networks are created, listed, inspected, removed and pruned', async (t) => {
  const { call, backend } = await serve(t);
  const created = await call('POST', '/networks/create', overlay('ov1', { Attachable: true }));
  t.equal(created.status, 201);
  const { Id, Warning } = created.body as { Id: string; Warning: string };
  t.equal(Warning, '');
  t.equal((await call('POST', '/networks/create', overlay('ov1'))).status, 409);
  await call('POST', '/networks/create', overlay('ov2', { Labels: { a: 'b' } }));
  await call('POST', '/networks/create', overlay('ingress', { Ingress: true }));
  const names = async (filters: unknown) => {
    const { body } = await call(
      'GET',
      `/networks?filters=${encodeURIComponent(JSON.stringify(filters))}`,
    );
    return Array.isArray(body) ? body.map(({ Name }) => Name) : messageOf(body);
  };
  await backend.attach({ network: 'ov1', target: { kind: 'pid', pid: 7 }, aliases: [] });
  t.same(await names({}), ['ov1', 'ov2', 'ingress']);
  t.same(await names({ name: ['ov'] }), ['ov1', 'ov2']);
  t.same(await names({ id: [Id] }), ['ov1']);
  t.same(await names({ label: ['a=b'] }), ['ov2']);
  t.same(await names({ driver: ['bridge'] }), []);
  t.same(await names({ scope: ['local'] }), []);
  t.same(await names({ type: ['builtin'] }), []);
  t.same(await names({ dangling: ['true'] }), ['ov2', 'ingress']);
  t.same(await names({ dangling: ['false'] }), ['ov1']);
  t.equal(await names({ type: ['x'] }), "invalid filter 'type=[x]'");
  t.equal(await names({ nope: ['x'] }), "invalid filter 'nope'");

  t.equal((await call('GET', '/networks/ov1?scope=swarm')).status, 200);
  t.equal((await call('GET', '/networks/ov1?scope=local')).status, 404);
  t.match((await call('GET', `/networks/${Id}`)).body, {
    Name: 'ov1',
    Id,
    Created: '2026-11-20T16:01:46.169Z',
    Scope: 'swarm',
    Driver: 'overlay',
    ConfigFrom: { Network: '' },
    Containers: {
      att0000000000000000000000: {
        Name: 'c1',
        MacAddress: '02:42:0a:00:01:05',
        IPv4Address: '10.0.1.5/24',
        IPv6Address: 'fd00::5/64',
      },
    },
    Options: { 'com.docker.network.driver.overlay.vxlanid_list': '4097' },
    Peers: [{ Name: 'manager00000', IP: '192.168.78.11' }],
  });
  const verbose = await call('GET', '/networks/ov1?verbose=true');
  t.match(verbose.body, {
    Services: { '': { Tasks: [{ EndpointIP: '10.0.1.5', Info: { 'Host IP': '192.168.78.11' } }] } },
  });
  t.match(messageOf((await call('DELETE', '/networks/ov1')).body), /is in use by task att0/);
  t.same((await call('POST', '/networks/prune')).body, { NetworksDeleted: ['ov2'] });
  t.same((await call('POST', '/networks/prune')).body, { NetworksDeleted: null });
  await backend.detach({ network: 'ov1' });
  const removed = await call('DELETE', '/networks/ov1');
  t.same([removed.status, removed.text], [204, '']);
});

t.test(
  'a prune keeps what is younger, labelled otherwise, or was just taken into use',
  async (t) => {
    const { call, backend } = await serve(t);
    await call('POST', '/networks/create', overlay('a', { Labels: { keep: '' } }));
    await call('POST', '/networks/create', overlay('b'));
    const prune = (filters: unknown) =>
      call('POST', `/networks/prune?filters=${encodeURIComponent(JSON.stringify(filters))}`);
    const nothing = { NetworksDeleted: null };
    t.same((await prune({ until: [String(AT_MS / 1000 - 1)] })).body, nothing);
    t.same((await prune({ label: ['nope'] })).body, nothing);
    t.equal((await prune({ until: ['soon'] })).status, 400);
    backend.refusal = { code: 'SWARM_IN_USE', kind: 'network', id: 'b', by: 'task x' };
    t.same((await prune({ 'label!': ['keep'] })).body, nothing);
    t.same((await prune({ 'label!': ['keep'] })).body, { NetworksDeleted: ['b'] });
  },
);

t.test('a worker sees a network only while something on it is there', async (t) => {
  const backend = FakeBackend.worker();
  const { call } = await serve(t, backend);
  await backend.createNetwork({
    name: 'ov1',
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
  });
  t.same((await call('GET', '/networks')).body, []);
  t.equal((await call('GET', '/networks/ov1')).status, 404);
  await backend.attach({ network: 'ov1', target: { kind: 'host' }, aliases: [] });
  t.equal(((await call('GET', '/networks')).body as unknown[]).length, 1);
  t.equal((await call('GET', '/networks/ov1')).status, 200);
  t.equal((await call('DELETE', '/networks/ov1')).status, 503, 'and has no say about it');
  t.same((await call('POST', '/networks/prune')).body, { NetworksDeleted: null });
});

t.test('peers are the nodes whose attachments are on the network', async (t) => {
  const { call, backend } = await serve(t);
  await call('POST', '/networks/create', overlay('ov1'));
  const worker = backend.nodeObjects[1];
  const network = backend.networkObjects[0];
  if (worker === undefined || network === undefined) throw new Error('the fake lacks objects');
  backend.attachmentObjects = [
    {
      networkId: network.id,
      nodeId: worker.id,
      id: 'x',
      addresses: [],
    } as unknown as AttachmentObject,
  ];
  t.match((await call('GET', '/networks/ov1')).body, {
    Containers: null,
    Peers: [{ Name: 'worker000000', IP: '192.168.78.12' }],
  });
});

t.test("shoal's own verbs attach, list and detach", async (t) => {
  const { call } = await serve(t);
  await call('POST', '/networks/create', overlay('ov1'));
  const wish = {
    network: 'ov1',
    target: { kind: 'netns', path: '/run/netns/a' },
    name: 'a',
    aliases: ['b'],
  };
  const attached = await call('POST', '/shoal/v1/attachments', wish);
  t.equal(attached.status, 201);
  t.match(attached.body, { networkName: 'ov1', name: 'a', aliases: ['b'], state: 'up' });
  t.same((await call('GET', '/shoal/v1/attachments')).body, [attached.body]);
  const { id } = attached.body as { id: string };
  t.same((await call('DELETE', `/shoal/v1/attachments/${id}`)).body, [attached.body]);
  await call('POST', '/shoal/v1/attachments', { ...wish, target: { kind: 'host' } });
  t.equal(((await call('POST', '/shoal/v1/detach', { host: true })).body as unknown[]).length, 1);
  t.same((await call('GET', '/shoal/v1/status')).body, { members: [] });
  const metrics = await call('GET', '/shoal/v1/metrics');
  t.equal(metrics.text, 'shoal_up 1\n');
  t.match(metrics.headers['content-type'], /^text\/plain/);
});

t.test("refusals of shoal's own verbs carry their code", async (t) => {
  const { call } = await serve(t);
  const wish = { network: 'x', target: { kind: 'host' } };
  const missing = await call('POST', '/shoal/v1/attachments', wish);
  t.equal(missing.status, 404);
  t.same(missing.body, { message: 'network x not found', code: 'SWARM_NOT_FOUND' });
  t.match((await call('POST', '/shoal/v1/detach', {})).body, { code: 'API_BAD_REQUEST' });
  t.same((await call('GET', '/shoal/v1/nope')).body, {
    message: 'page not found',
    code: 'API_NOT_FOUND',
  });
});

t.test('what shoal does not keep is empty, missing or unsupported', async (t) => {
  const { call } = await serve(t);
  for (const path of ['containers/json', 'images/json', 'services', 'tasks']) {
    t.same((await call('GET', `/${path}`)).body, [], path);
  }
  t.same((await call('GET', '/volumes')).body, { Volumes: [], Warnings: null });
  const missing = [
    ['/containers/x/json', 'No such container: x'],
    ['/images/reg:5000/a/b:1/json', 'No such image: reg:5000/a/b:1'],
    ['/volumes/x', 'get x: no such volume'],
    ['/services/x', 'service x not found'],
  ] as const;
  for (const [path, message] of missing) {
    const answer = await call('GET', path);
    t.same([answer.status, answer.body], [404, { message }]);
  }
  const message = 'shoal does not do this without a container engine';
  const verbs = [
    ['POST', '/containers/create'],
    ['POST', '/images/create?fromImage=x'],
    ['GET', '/containers/x/logs'],
    ['DELETE', '/containers/x'],
    ['POST', '/volumes/create'],
    ['POST', '/networks/x/connect'],
  ] as const;
  for (const [method, path] of verbs) {
    const answer = await call(method, path);
    t.same([answer.status, answer.body], [501, { message }], path);
  }
});

t.test('an error that nobody foresaw is a failure with its words', async (t) => {
  const backend = FakeBackend.manager();
  backend.updateNode = async () => {
    throw new Error('disk on fire');
  };
  const { call, api } = await serve(t, backend);
  const spec = { Role: 'worker', Availability: 'active' };
  const answer = await call('POST', '/nodes/mn2/update?version=9', spec);
  t.same([answer.status, answer.body], [500, { message: 'disk on fire' }]);
  t.equal(api.stats().failed, 1);
});
