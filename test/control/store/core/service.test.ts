import t from 'tap';
import type { PortConfig, ServiceSpec } from '../../../../src/base/service-model.js';
import type { NetworkId } from '../../../../src/base/swarm-model.js';
import type { CommandBody } from '../../../../src/control/store/core/command.js';
import { Bench, networkId } from '../../support.js';
import { serviceId, serviceSpec } from './commands.js';

const create = (n: number, name: string, more: Partial<ServiceSpec> = {}): CommandBody => ({
  kind: 'service_create',
  id: serviceId(n),
  spec: serviceSpec(name, more),
});
const update = (
  n: number,
  version: number,
  spec?: ServiceSpec,
  more: object = {},
): CommandBody => ({
  kind: 'service_update',
  id: serviceId(n),
  version,
  authFrom: 'spec',
  ...(spec && { spec }),
  ...more,
});
const port = (publishedPort: number, more: Partial<PortConfig> = {}): PortConfig => ({
  protocol: 'tcp',
  targetPort: 80,
  publishedPort,
  publishMode: 'ingress',
  ...more,
});
const publishing = (...ports: PortConfig[]): Partial<ServiceSpec> => ({
  endpoint: { mode: 'vip', ports },
});
const container = (more: object) => ({ task: { container: { image: 'host', ...more } } });
const replicas = (count: number) => ({ mode: { kind: 'replicated', replicas: count } as const });
const row = (bench: Bench, n: number) => {
  const service = bench.state.row('service', serviceId(n));
  if (service === undefined) throw new Error('no such service');
  return service;
};

t.test('a service is refused in swarmkit’s words', async (t) => {
  const bench = new Bench();
  bench.do({
    kind: 'network_create',
    id: networkId('i'),
    spec: {
      name: 'ingress',
      labels: {},
      driver: 'overlay',
      driverOptions: {},
      attachable: false,
      internal: false,
      ingress: true,
      ipv6: false,
      ipamDriver: 'default',
      ipamOptions: {},
      ipam: [],
    },
  });
  const file = (name: string) => ({ file: { name, uid: '0', gid: '0', mode: 0 } });
  const secret = (id: string, name: string, target: object) => ({
    secrets: [{ secretId: id, secretName: name, ...target }],
  });
  const cases: readonly (readonly [string, Partial<ServiceSpec> & { name?: string }])[] = [
    ['meta: name must be provided', { name: '' }],
    ['name must be valid as a DNS name component', { name: 'a.b' }],
    ['name must be valid as a DNS name component', { name: '-' }],
    ['name must be 63 characters or fewer', { name: 'a'.repeat(64) }],
    ['ContainerSpec: image reference must be provided', container({ image: '' })],
    ['ContainerSpec: "A" is not a valid repository/tag', container({ image: 'A' })],
    [
      'ContainerSpec: duplicate mount point: /x',
      container({ mounts: ['a', 'b'].map((source) => ({ type: 'bind', source, target: '/x' })) }),
    ],
    [
      'ContainerSpec: Interval in HealthConfig cannot be less than 1ms',
      container({ health: { intervalMs: 0.5 } }),
    ],
    [
      'ContainerSpec: Retries in HealthConfig cannot be negative',
      container({ health: { retries: -1 } }),
    ],
    ['malformed secret reference', container(secret('', 'x', file('x')))],
    ['malformed secret reference, no target provided', container(secret('1', 'x', {}))],
    [
      'malformed file secret reference, invalid target file name provided',
      container(secret('1', 'x', file(''))),
    ],
    [
      "config references 'x' and 'y' have a conflicting target: 'f'",
      container({
        configs: ['x', 'y'].map((name) => ({ configId: '1', configName: name, ...file('f') })),
      }),
    ],
    ['Number of replicas must be non-negative', replicas(-1)],
    ['a service has at most 65536 tasks', replicas(65_537)],
    ['a service has at most 65536 tasks', replicas(1.5)],
    [
      'Total completed jobs must not be negative',
      { mode: { kind: 'replicated-job', maxConcurrent: 1, totalCompletions: -1 } },
    ],
    [
      'Jobs may not have an update config',
      { mode: { kind: 'global-job' }, update: { parallelism: 1 } },
    ],
    ['TaskSpec: update-delay cannot be negative', { update: { parallelism: 1, delayMs: -1 } }],
    [
      'TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1',
      { update: { parallelism: 1, maxFailureRatio: 1.1 } },
    ],
    [
      'invalid cpu value 0.0005: Must be at least 0.001',
      { task: { ...container({}).task, resources: { limits: { nanoCpus: 500_000 } } } },
    ],
    [
      'invalid memory value 100: Must be at least 4MiB',
      { task: { ...container({}).task, resources: { reservations: { memoryBytes: 100 } } } },
    ],
    [
      'TaskSpec: restart-delay cannot be negative',
      { task: { ...container({}).task, restart: { delayMs: -1 } } },
    ],
    [
      "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
      { endpoint: { mode: 'dnsrr', ports: [port(80)] } },
    ],
    ['EndpointSpec: duplicate published ports provided', publishing(port(80), port(80))],
    ['invalid port 80:0: ports are from 1 to 65535', publishing(port(80, { targetPort: 0 }))],
    [
      'Service cannot be explicitly attached to the ingress network "ingress"',
      { task: { ...container({}).task, networks: [{ target: networkId('i') }] } },
    ],
    [
      'the description of the service is too large: use fewer or shorter labels',
      { labels: { a: 'x'.repeat(300_000) } },
    ],
  ];
  for (const [message, { name = 'web', ...more }] of cases)
    t.strictSame(bench.refusal(create(1, name, more)), { code: 'SWARM_INVALID', message }, message);
  const unknown = { task: { ...container({}).task, networks: [{ target: 'nope' as NetworkId }] } };
  t.strictSame(bench.refusal(create(1, 'web', unknown)), {
    code: 'SWARM_NOT_FOUND',
    message: 'network nope not found',
  });
  const host = { task: { ...container({}).task, networks: [{ target: 'host' as NetworkId }] } };
  bench.do(create(1, 'web', host));
});

t.test('images are named as everywhere', async (t) => {
  const bench = new Bench();
  const good = [
    'host',
    'nginx:1.2',
    'dk/busybox:1',
    'localhost:5000/a/b_c__d--e:T.1',
    'registry.example:443/x',
    `x@sha256:${'a'.repeat(64)}`,
    `x:1@sha256:${'a'.repeat(64)}`,
    '[fd00::1]:5000/x',
  ];
  for (const [n, image] of good.entries()) bench.do(create(n, `s${n}`, container({ image })));
  for (const image of [
    'a b',
    'a//b',
    ':1',
    'x:',
    'x@y',
    '-a',
    'a'.repeat(256),
    'a'.repeat(64),
    'x@sha256:1@sha256:2',
    'a.b:x/c',
  ])
    t.match(bench.refusal(create(99, 'bad', container({ image })))?.message, /not a valid/, image);
});

t.test('a published port has one service', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'ingress_create', id: networkId('i') });
  bench.do(create(1, 'web', publishing(port(8080))));
  const taken = (as: string, n: number, name: string) => ({
    code: 'SWARM_INVALID',
    message: `port '8080' is already in use by service '${name}' (${serviceId(n)}) as ${as}`,
  });
  for (const publishMode of ['ingress', 'host'] as const)
    t.strictSame(
      bench.refusal(create(2, 'two', publishing(port(8080, { publishMode })))),
      taken('an ingress port', 1, 'web'),
    );
  bench.do(create(2, 'dns', publishing(port(8080, { protocol: 'udp' }))));
  bench.do({ kind: 'service_remove', id: serviceId(1) });
  bench.do(create(3, 'three', publishing(port(8080, { publishMode: 'host' }))));
  bench.do(create(4, 'four', publishing(port(8080, { publishMode: 'host' }))));
  t.strictSame(
    bench.refusal(create(5, 'five', publishing(port(8080)))),
    taken('a host-published port', 3, 'three'),
  );
  const { version } = row(bench, 3);
  t.strictSame(
    bench.refusal(update(3, version, serviceSpec('three', publishing(port(8080))))),
    taken('a host-published port', 4, 'four'),
  );
  bench.do(update(3, version, serviceSpec('three', publishing(port(8081)))));
  bench.do({ kind: 'service_remove', id: serviceId(4) });
  bench.do(create(5, 'five', publishing(port(8080))));
});

t.test('ports without a number get one of 30000 to 32767, and keep it', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'ingress_create', id: networkId('i') });
  bench.do(create(1, 'a', publishing(port(30_001))));
  bench.do(create(2, 'b', publishing(port(0), port(0, { targetPort: 81 }))));
  const ports = (n: number) => row(bench, n).endpoint.ports.map((one) => one.publishedPort);
  t.strictSame(ports(2), [30_000, 30_002]);
  bench.do(
    create(
      3,
      'c',
      publishing(port(0, { protocol: 'udp' }), port(30_000, { protocol: 'udp', targetPort: 1 })),
    ),
  );
  t.strictSame(ports(3), [30_001, 30_000]);
  const reversed = publishing(port(0, { targetPort: 81 }), port(0, { targetPort: 82 }), port(0));
  bench.do(update(2, row(bench, 2).version, serviceSpec('b', reversed)));
  t.strictSame(ports(2), [30_002, 30_003, 30_000]);
  t.strictSame(
    row(bench, 2).spec.endpoint?.ports?.[0]?.publishedPort,
    0,
    'the wish stays as it was',
  );
  bench.do(create(4, 'd', publishing(port(0, { publishMode: 'host' }))));
  t.strictSame(ports(4), [0], 'the node chooses');
  const range = Array.from({ length: 2_768 }, (_, i) => port(30_000 + i, { protocol: 'sctp' }));
  bench.do(create(5, 'all', publishing(...range)));
  t.strictSame(bench.refusal(create(6, 'more', publishing(port(0, { protocol: 'sctp' })))), {
    code: 'SWARM_EXHAUSTED',
    message: 'no sctp port from 30000 to 32767 is free: name one',
  });
});

t.test('an update keeps the spec before, and a rollback exchanges the two', async (t) => {
  const bench = new Bench();
  bench.do({ ...create(1, 'web'), registryAuth: 'one' } as CommandBody);
  const first = row(bench, 1);
  t.match(first, { specVersion: first.version, registryAuth: 'one' });
  t.strictSame(bench.refusal(update(1, first.version)), {
    code: 'SWARM_PRECONDITION',
    message: `service ${serviceId(1)} does not have a previous spec`,
  });
  t.equal(
    bench.refusal(update(1, first.version, first.spec, { authFrom: 'previous-spec' }))?.message,
    'service does not have a previous spec',
  );
  const spec = serviceSpec('web', replicas(3));
  t.equal(bench.refusal(update(1, 77, spec))?.code, 'SWARM_OUT_OF_SEQUENCE');
  bench.do(update(1, first.version, spec, { registryAuth: 'two' }));
  const second = row(bench, 1);
  t.match(second, {
    spec,
    specVersion: second.version,
    previousSpec: first.spec,
    previousSpecVersion: first.specVersion,
    registryAuth: 'two',
    previousRegistryAuth: 'one',
  });
  const updateStatus = { state: 'updating', message: 'update in progress' } as const;
  const status = { kind: 'service_status', id: serviceId(1), updateStatus } as const;
  bench.do({ ...status, specVersion: first.specVersion });
  t.equal(row(bench, 1), second, 'a word about an earlier spec comes too late');
  bench.do({ ...status, specVersion: second.specVersion });
  t.match(row(bench, 1), { updateStatus, specVersion: second.specVersion });
  bench.do(update(1, row(bench, 1).version));
  t.match(row(bench, 1), {
    spec: first.spec,
    specVersion: first.specVersion,
    previousSpec: spec,
    previousSpecVersion: second.specVersion,
    registryAuth: 'one',
    previousRegistryAuth: 'two',
    updateStatus: { state: 'rollback_started', message: 'manually requested rollback' },
  });
  bench.do(update(1, row(bench, 1).version, spec));
  t.equal(row(bench, 1).updateStatus, undefined, 'an update begins anew');
});

t.test('the updater goes back once, and only from the spec that failed', async (t) => {
  const bench = new Bench();
  bench.do(create(1, 'web'));
  const { specVersion: first } = row(bench, 1);
  bench.do(update(1, first, serviceSpec('web', replicas(3)), { registryAuth: 'new' }));
  const { specVersion } = row(bench, 1);
  const updateStatus = { state: 'rollback_started', message: 'too many failures' } as const;
  const back = { kind: 'service_rollback', id: serviceId(1), updateStatus } as const;
  bench.do({ ...back, specVersion: first });
  t.equal(row(bench, 1).specVersion, specVersion);
  bench.do({ ...back, specVersion });
  t.match(row(bench, 1), { spec: serviceSpec('web'), specVersion: first, updateStatus });
  t.notHas(row(bench, 1), { previousSpec: {} });
  t.equal(row(bench, 1).registryAuth, undefined);
  const { version } = row(bench, 1);
  bench.do({ ...back, specVersion: first });
  t.equal(row(bench, 1).version, version);
});

t.test('an update that cannot go back stands still', async (t) => {
  const bench = new Bench();
  bench.do({ kind: 'ingress_create', id: networkId('i') });
  bench.do(create(1, 'web', publishing(port(8080))));
  bench.do(update(1, row(bench, 1).version, serviceSpec('web')));
  bench.do(create(2, 'other', publishing(port(8080))));
  const { specVersion, spec } = row(bench, 1);
  bench.do({
    kind: 'service_rollback',
    id: serviceId(1),
    specVersion,
    updateStatus: { state: 'rollback_started', message: 'too many failures' },
  });
  t.match(row(bench, 1), {
    spec,
    specVersion,
    updateStatus: {
      state: 'paused',
      message: `the spec before cannot be used any more: port '8080' is already in use by service 'other' (${serviceId(2)}) as an ingress port`,
    },
  });
});

t.test('name, mode and the old form of networks stay', async (t) => {
  const bench = new Bench();
  bench.network(1);
  bench.do(create(1, 'web'));
  const { version } = row(bench, 1);
  const refusal = (spec: ServiceSpec) => bench.refusal(update(1, version, spec));
  const unsupported = (message: string) => ({ code: 'SWARM_UNSUPPORTED', message });
  t.strictSame(refusal(serviceSpec('other')), unsupported('renaming services is not supported'));
  t.strictSame(
    refusal(serviceSpec('web', { mode: { kind: 'global' } })),
    unsupported('service mode change is not allowed'),
  );
  t.strictSame(
    refusal(serviceSpec('web', { networks: [{ target: networkId(1) }] })),
    unsupported('networks must be migrated to TaskSpec before being changed'),
  );
  t.strictSame(bench.refusal(create(2, 'web')), {
    code: 'SWARM_NAME_TAKEN',
    message: 'service web already exists',
  });
  t.equal(
    bench.refusal(update(9, 1, serviceSpec('x')))?.message,
    `service ${serviceId(9)} not found`,
  );
});

t.test('a job is done once more with every update', async (t) => {
  const bench = new Bench();
  const job = { mode: { kind: 'replicated-job', maxConcurrent: 1, totalCompletions: 2 } } as const;
  bench.do(create(1, 'once', job));
  t.match(row(bench, 1).job, { iteration: 0 });
  const before = row(bench, 1);
  bench.do(update(1, before.version, serviceSpec('once', job)));
  const after = row(bench, 1);
  t.equal(after.job?.iteration, 1);
  t.ok((after.job?.lastExecutionMs ?? 0) > (before.job?.lastExecutionMs ?? 0));
});

t.test(
  'a service that is removed is nobody’s namesake, and goes when its tasks have',
  async (t) => {
    const bench = new Bench();
    bench.do(create(1, 'web'));
    const removal = { kind: 'service_remove', id: serviceId(1) } as const;
    bench.do({ kind: 'service_purge', id: serviceId(1) });
    t.ok(bench.state.row('service', serviceId(1)), 'it was not removed');
    bench.do(removal);
    t.equal(bench.refusal(removal)?.message, `service ${serviceId(1)} not found`);
    t.equal(bench.refusal(update(1, 2, serviceSpec('web')))?.code, 'SWARM_NOT_FOUND');
    t.equal(bench.state.serviceByName('web'), undefined);
    bench.do(create(2, 'web'));
    t.equal(bench.state.serviceByName('web'), serviceId(2));
    bench.do({ kind: 'service_purge', id: serviceId(1) });
    t.equal(bench.state.row('service', serviceId(1)), undefined);
    t.equal(bench.state.serviceByName('web'), serviceId(2));
    bench.do({ kind: 'service_purge', id: serviceId(1) });
  },
);
