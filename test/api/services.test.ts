import t from 'tap';
import type { ServiceObject, TaskObject } from '../../src/base/service-model.js';
import type { NodeId, TaskId } from '../../src/base/swarm-model.js';
import { networkObject, nodeObject } from './fake-backend.js';
import { call as request, serve } from './harness.js';

const BODY = {
  Name: 'web',
  TaskTemplate: { ContainerSpec: { Image: 'host' } },
  Mode: { Replicated: { Replicas: 2 } },
};

function taskObject(
  service: ServiceObject,
  slot: number,
  over: Partial<TaskObject> = {},
): TaskObject {
  return {
    id: `task${slot}`.padEnd(25, '0') as TaskId,
    version: 11,
    createdAtMs: 1,
    updatedAtMs: 1,
    serviceId: service.id,
    serviceName: service.spec.name,
    serviceLabels: service.spec.labels,
    slot,
    spec: service.spec.task,
    specVersion: service.specVersion,
    desiredState: 'running',
    status: { state: 'running', atMs: 1, message: 'started' },
    networks: [],
    ports: [],
    ...over,
  };
}

async function withWeb(t: Parameters<typeof serve>[0]) {
  const served = await serve(t);
  const created = await served.call('POST', '/services/create', BODY);
  const service = served.backend.serviceObjects[0];
  if (service === undefined || created.status !== 201) throw new Error(created.text);
  return { ...served, service };
}

t.test('a service is found by id, name and the beginning of its id', async (t) => {
  const { call, service } = await withWeb(t);
  for (const ref of [service.id, 'web', service.id.slice(0, 5)])
    t.match((await call('GET', `/services/${ref}`)).body, { ID: service.id });
  t.match(await call('GET', '/services/nope'), {
    status: 404,
    body: { message: 'service nope not found' },
  });
});

t.test('names of networks become their ids; those of the node itself stay', async (t) => {
  const { call, backend } = await serve(t);
  const spec = {
    ...{ name: 'front', labels: {}, driver: 'overlay', driverOptions: {}, attachable: false },
    ...{
      internal: false,
      ingress: false,
      ipv6: false,
      ipamDriver: 'default',
      ipamOptions: {},
      ipam: [],
    },
  };
  backend.networkObjects = [
    networkObject('front', spec, 4097),
    networkObject('ingress', { ...spec, name: 'ingress', ingress: true }, 4096),
  ];
  t.match((await call('GET', '/networks/host?scope=swarm')).body, { Id: 'host', Driver: 'host' });
  t.equal((await call('GET', '/networks/host')).status, 404);
  const on = (name: string) => ({
    ...BODY,
    TaskTemplate: { ...BODY.TaskTemplate, Networks: [{ Target: name, Aliases: ['w'] }] },
  });
  t.equal((await call('POST', '/services/create', on('front'))).status, 201);
  const networks = backend.serviceObjects[0]?.spec.task.networks;
  t.strictSame(networks, [{ target: backend.networkObjects[0]?.id, aliases: ['w'] }]);
  t.match(await call('POST', '/services/create', on('nope')), {
    status: 404,
    body: { message: 'network nope not found' },
  });
  t.equal((await call('POST', '/services/create', { ...on('host'), Name: 'h' })).status, 201);
  t.match(backend.serviceObjects[1]?.spec.task.networks, [{ target: 'host' }]);
  const old = { ...BODY, Name: 'old', Networks: [{ Target: 'front' }] };
  t.equal((await call('POST', '/v1.24/services/create', old)).status, 201);
  t.strictSame(backend.serviceObjects[2]?.spec.task.networks, [
    { target: backend.networkObjects[0]?.id },
  ]);
});

t.test('credentials of a registry go along and are never shown', async (t) => {
  const { socketPath, backend, call } = await serve(t);
  const auth = { 'X-Registry-Auth': 'c2VjcmV0' };
  const made = await request(socketPath, 'POST', '/services/create', BODY, auth);
  t.equal(made.status, 201);
  t.strictSame(backend.asked[0]?.[2], { encoded: 'c2VjcmV0' });
  backend.serviceObjects = backend.serviceObjects.map((one) => ({
    ...one,
    registryAuth: 'c2VjcmV0',
    previousRegistryAuth: 'c2VjcmV0',
  }));
  t.notMatch((await call('GET', '/services/web')).text, /c2VjcmV0/);
  t.notMatch((await call('GET', '/services?status=true')).text, /c2VjcmV0/);
});

t.test('an update says which version it is of, and whose credentials it keeps', async (t) => {
  const { call, backend, service } = await withWeb(t);
  const update = (query: string) => call('POST', `/services/web/update?${query}`, BODY);
  t.match(await update('version=x'), { status: 400, body: { message: /invalid service version/ } });
  t.match(await update('version=1'), {
    status: 500,
    body: { message: 'rpc error: code = Unknown desc = update out of sequence' },
  });
  t.match(await update('version=9&registryAuthFrom=nobody'), {
    body: { message: "invalid registryAuthFrom 'nobody'" },
  });
  t.match(await update('version=9&registryAuthFrom=previous-spec'), {
    body: { message: 'service does not have a previous spec' },
  });
  t.match(await update('version=9&rollback=later'), {
    body: { message: 'unrecognized rollback option later' },
  });
  backend.asked.length = 0;
  t.match(await update(`version=${service.version}&registryAuthFrom=spec&rollback=previous`), {
    status: 200,
    body: { Warnings: null },
  });
  t.match(backend.asked[0]?.[3], { rollback: true, auth: {}, authFrom: 'spec' });
});

t.test('refusals of the store come in the words of the control plane', async (t) => {
  const { call, backend } = await withWeb(t);
  const refused = async (code: 'SWARM_INVALID' | 'SWARM_UNSUPPORTED', words: string) => {
    backend.refusal = { code };
    backend.refusalWords = words;
    const { status, body } = await call('POST', '/services/web/update?version=9', BODY);
    return [status, (body as { message: string }).message];
  };
  t.strictSame(await refused('SWARM_UNSUPPORTED', 'renaming services is not supported'), [
    501,
    'rpc error: code = Unimplemented desc = renaming services is not supported',
  ]);
  t.strictSame(await refused('SWARM_INVALID', 'secret not found: s'), [
    400,
    'rpc error: code = InvalidArgument desc = secret not found: s',
  ]);
});

t.test('what a client of an old version cannot mean is left out', async (t) => {
  const { call, backend } = await serve(t);
  const body = {
    ...BODY,
    TaskTemplate: {
      ContainerSpec: {
        Image: 'host',
        Sysctls: { a: 'b' },
        CapabilityAdd: ['CAP_X'],
        Healthcheck: { StartInterval: 5_000_000 },
      },
      Resources: { Limits: { Pids: 5 } },
      Placement: { MaxReplicas: 1 },
    },
  };
  await call('POST', '/v1.39/services/create', body);
  await call('POST', '/v1.40/services/create', { ...body, Name: 'b' });
  await call('POST', '/v1.45/services/create', { ...body, Name: 'c' });
  const [oldest, older, present] = backend.serviceObjects.map(({ spec }) => spec.task);
  t.strictSame(oldest?.container, { image: 'host', health: {} });
  t.strictSame([oldest?.placement, oldest?.resources], [{}, { limits: {} }]);
  t.strictSame(older?.container, { image: 'host', health: {}, sysctls: { a: 'b' } });
  t.strictSame(older?.placement, { maxReplicas: 1 });
  t.match(present?.container, { health: { startIntervalMs: 5 }, capabilityAdd: ['CAP_X'] });
  const job = { ...BODY, Name: 'd', Mode: { GlobalJob: {} } };
  t.equal((await call('POST', '/v1.40/services/create', job)).status, 400);
});

t.test('tasks are filtered by service, node, state, name and being up to date', async (t) => {
  const { call, backend, service } = await withWeb(t);
  const nodeId = backend.nodeObjects[0]?.id as NodeId;
  backend.taskObjects = [
    taskObject(service, 1, { nodeId }),
    taskObject(service, 2, { specVersion: 1 }),
    taskObject(service, 3, { desiredState: 'shutdown' }),
  ];
  const slots = async (filters: object) => {
    const query = new URLSearchParams({ filters: JSON.stringify(filters) });
    const { body, status } = await call('GET', `/tasks?${query}`);
    return status === 200 ? (body as { Slot: number }[]).map(({ Slot }) => Slot) : body;
  };
  t.strictSame(await slots({ service: ['web'] }), [1, 2, 3]);
  t.strictSame(await slots({ service: [service.id], '_up-to-date': { true: true } }), [1, 3]);
  t.strictSame(await slots({ node: ['mn1'] }), [1]);
  t.strictSame(await slots({ node: ['self'], 'desired-state': ['running'] }), [1]);
  t.strictSame(await slots({ 'desired-state': ['shutdown'] }), [3]);
  t.strictSame(await slots({ name: ['web.2'] }), [2]);
  t.strictSame(await slots({ runtime: ['attachment'] }), []);
  t.strictSame(await slots({ service: ['nope'] }), { message: 'service nope not found' });
  t.strictSame(await slots({ node: ['nope'] }), { message: 'node nope not found' });
  t.strictSame(await slots({ 'desired-state': ['flying'] }), {
    message: "Invalid desired-state filter: 'flying'",
  });
  t.strictSame(await slots({ colour: ['red'] }), { message: "invalid filter 'colour'" });
});

t.test('a task that has changed is shown as it is, and its network too', async (t) => {
  const { call, backend, service } = await withWeb(t);
  const spec = {
    ...{ name: 'front', labels: {}, driver: 'overlay', driverOptions: {}, attachable: false },
    ...{
      internal: false,
      ingress: false,
      ipv6: false,
      ipamDriver: 'default',
      ipamOptions: {},
      ipam: [],
    },
  };
  const network = networkObject('front', spec, 4097);
  const at = {
    networkId: network.id,
    attachmentId: 'a',
    addresses: ['10.0.1.3/24'],
    mac: '',
    aliases: [],
  };
  backend.networkObjects = [network];
  backend.taskObjects = [taskObject(service, 1, { networks: [at] })];
  const look = async () => (await call('GET', `/tasks/${backend.taskObjects[0]?.id}`)).body;
  t.match(await look(), { NetworksAttachments: [{ Network: { Spec: { Name: 'front' } } }] });
  backend.networkObjects = [{ ...network, spec: { ...spec, name: 'back' } }];
  t.match(await look(), { NetworksAttachments: [{ Network: { Spec: { Name: 'back' } } }] });
  backend.networkObjects = [];
  t.match(await look(), { NetworksAttachments: [{ Network: { ID: network.id } }] });
  backend.taskObjects = [
    taskObject(service, 1, { networks: [at], status: { state: 'failed', atMs: 2, message: 'm' } }),
  ];
  t.match(await look(), { Status: { State: 'failed' } });
});

t.test(
  'logs are read with an offset, from both streams, and a failure ends them with its words',
  async (t) => {
    const { call, backend, service } = await withWeb(t);
    for (const [query, words] of [
      ['', "must specify at least one of 'stdout' or 'stderr'"],
      ['stdout=1&tail=x', 'tail value must be a positive integer or "all"'],
      ['stdout=1&tail=-5', 'negative tail values not supported'],
      ['stdout=1&since=never', /^invalid value for "since": never/],
    ] as const)
      t.match(await call('GET', `/services/web/logs?${query}`), {
        status: 400,
        body: { message: words },
      });
    backend.asked.length = 0;
    await call('GET', '/services/web/logs?stdout=1&tail=5&since=1700000000.5');
    t.strictSame(backend.asked[0], [
      'logs',
      {
        serviceId: service.id,
        stdout: true,
        stderr: false,
        follow: false,
        tail: 5,
        sinceMs: 1_700_000_000_500,
      },
    ]);
    backend.logs = async function* () {
      yield* [];
      throw new Error('node n2 does not answer');
    };
    const { bytes, headers } = await call('GET', '/services/web/logs?stdout=1');
    t.equal(headers['content-type'], 'application/vnd.docker.multiplexed-stream');
    t.equal(bytes.readUInt8(0), 3);
    t.equal(bytes.subarray(8).toString(), 'Error grabbing logs: node n2 does not answer\n');
    const old = await call('GET', '/v1.41/services/web/logs?stdout=1');
    t.equal(old.headers['content-type'], 'application/vnd.docker.raw-stream');
  },
);

t.test('a follower that hangs up lets go of the logs', async (t) => {
  const { backend, socketPath } = await withWeb(t);
  const gone = new Promise<void>((resolve) => {
    backend.logs = async function* (_query, signal) {
      yield* [];
      await new Promise<void>((hungUp) => {
        signal.addEventListener('abort', () => hungUp(), { once: true });
      });
      resolve();
    };
  });
  const { request: open } = await import('node:http');
  const outgoing = open(
    { socketPath, path: '/services/web/logs?stdout=1&follow=1' },
    (response) => {
      t.equal(response.statusCode, 200, 'the head comes before the first line');
      response.destroy();
    },
  );
  outgoing.on('error', () => undefined);
  outgoing.end();
  await gone;
});

t.test(
  'of ten thousand tasks the list takes some hundreds of milliseconds, a second one less',
  async (t) => {
    const { call, backend, service } = await withWeb(t);
    backend.taskObjects = Array.from({ length: 10_000 }, (_, at) =>
      taskObject(service, at + 1, { id: String(at).padStart(25, 't') as TaskId }),
    );
    const timed = async () => {
      const startedMs = performance.now();
      const { bytes } = await call('GET', '/tasks');
      return { ms: performance.now() - startedMs, bytes: bytes.length };
    };
    const first = await timed();
    const second = await timed();
    t.comment(
      `${first.bytes} bytes in ${Math.round(first.ms)} ms, then ${Math.round(second.ms)} ms`,
    );
    t.ok(first.bytes > 3_000_000);
    t.ok(second.ms < 2_000 && first.ms < 4_000, 'also on a busy machine');
  },
);

t.test('a network shows its services, their addresses and tasks', async (t) => {
  const { call, backend } = await serve(t);
  const spec = {
    ...{ name: 'front', labels: {}, driver: 'overlay', driverOptions: {}, attachable: true },
    ...{
      internal: false,
      ingress: false,
      ipv6: false,
      ipamDriver: 'default',
      ipamOptions: {},
      ipam: [],
    },
  };
  const network = networkObject('front', spec, 4097);
  backend.networkObjects = [network];
  await call('POST', '/services/create', {
    ...BODY,
    TaskTemplate: { ...BODY.TaskTemplate, Networks: [{ Target: 'front' }] },
  });
  const service = backend.serviceObjects[0] as ServiceObject;
  const nodeId = backend.nodeObjects[1]?.id as NodeId;
  const local = await backend.attach({ network: 'front', target: { kind: 'host' }, aliases: [] });
  const at = (attachmentId: string, address: string) => ({
    networks: [{ networkId: network.id, attachmentId, addresses: [address], mac: '', aliases: [] }],
  });
  backend.taskObjects = [
    taskObject(service, 1, {
      nodeId,
      ...at(local.id, '10.0.1.3/24'),
      status: { state: 'running', atMs: 1, message: '', container: { id: 'cc', pid: 7 } },
    }),
    taskObject(service, 2, {
      nodeId,
      ...at('gone', '10.0.1.4/24'),
      status: { state: 'failed', atMs: 1, message: '' },
    }),
  ];
  const name = `web.1.${backend.taskObjects[0]?.id}`;
  const shown = (await call('GET', '/networks/front?verbose=true')).body as {
    Services: object;
    Containers: object;
  };
  // As recorded of `docker network inspect -v`; there is no index of a kernel's balancer.
  t.strictSame(shown.Services, {
    web: {
      VIP: '10.0.1.2',
      Ports: [],
      LocalLBIndex: 0,
      Tasks: [
        {
          Name: name,
          EndpointID: local.id,
          EndpointIP: '10.0.1.3',
          Info: { 'Host IP': '192.168.78.12' },
        },
      ],
    },
  });
  t.match(shown.Containers, { cc: { Name: name, IPv4Address: '10.0.1.5/24' } });
});

t.test(
  'a template that is not understood is refused when the service is made or changed',
  async (t) => {
    const { call, service } = await withWeb(t);
    const wrong = {
      ...BODY,
      TaskTemplate: { ContainerSpec: { Image: 'host', Hostname: '{{.Node.Colour}}' } },
    };
    const refusal = {
      status: 400,
      body: { message: /desc = expanding hostname failed: there is no field \.Node\.Colour$/ },
    };
    t.match(await call('POST', '/services/create', { ...wrong, Name: 'other' }), refusal);
    const at = `/services/${service.id}/update?version=${service.version}`;
    t.match(await call('POST', at, wrong), refusal);
  },
);

t.test('the generic resources of a node are shown, by name or by number', async (t) => {
  const { call, backend } = await serve(t);
  const node = nodeObject('gpus', 'gpus');
  backend.nodeObjects = [
    {
      ...node,
      description: {
        ...node.description,
        genericResources: [
          { kind: 'named', name: 'gpu', value: 'UUID1' },
          { kind: 'discrete', name: 'ssd', value: 3 },
        ],
      },
    },
  ];
  const { body } = await call('GET', `/nodes/${node.id}`);
  const { Description } = body as { Description: { Resources: { GenericResources: unknown } } };
  t.strictSame(Description.Resources.GenericResources, [
    { NamedResourceSpec: { Kind: 'gpu', Value: 'UUID1' } },
    { DiscreteResourceSpec: { Kind: 'ssd', Value: 3 } },
  ]);
});
