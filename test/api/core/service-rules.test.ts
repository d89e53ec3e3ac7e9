import t from 'tap';
import { checkServiceSpec } from '../../../src/api/core/service-rules.js';
import type { ContainerSpec, ServiceSpec } from '../../../src/base/service-model.js';

const spec = (over: Partial<ServiceSpec> = {}, container: object = {}): ServiceSpec => ({
  name: 'web',
  labels: {},
  mode: { kind: 'replicated', replicas: 1 },
  ...over,
  task: { container: { image: 'host', ...container }, ...over.task } as ServiceSpec['task'],
});
const task = (over: object, container: object = {}): ServiceSpec =>
  spec({ task: { container: { image: 'host', ...container } as ContainerSpec, ...over } });
const file = (name: string) => ({ name, uid: '0', gid: '0', mode: 0o444 });
const port = (over: object) => ({
  protocol: 'tcp' as const,
  targetPort: 80,
  publishMode: 'ingress' as const,
  ...over,
});

const cases: readonly (readonly [string, ServiceSpec, string])[] = [
  ['no name', spec({ name: '' }), 'meta: name must be provided'],
  ['blanks', spec({ name: 'bad name!' }), 'name must be valid as a DNS name component'],
  ['a hyphen last', spec({ name: 'web-' }), 'name must be valid as a DNS name component'],
  ['a long name', spec({ name: 'a'.repeat(64) }), 'name must be 63 characters or fewer'],
  ['no image', spec({}, { image: '' }), 'ContainerSpec: image reference must be provided'],
  [
    'an image in capitals',
    spec({}, { image: 'Web:1' }),
    'ContainerSpec: "Web:1" is not a valid repository/tag',
  ],
  [
    'too little of a processor',
    task({ resources: { limits: { nanoCpus: 1e5 } } }),
    'invalid cpu value 0.0001: Must be at least 0.001',
  ],
  [
    'next to nothing of a processor',
    task({ resources: { limits: { nanoCpus: 10_000 } } }),
    'invalid cpu value 1e-05: Must be at least 0.001',
  ],
  [
    'a negative processor',
    task({ resources: { reservations: { nanoCpus: -1e9 } } }),
    'invalid cpu value -1: Must be at least 0.001',
  ],
  [
    'too little memory',
    task({ resources: { reservations: { memoryBytes: 1024 } } }),
    'invalid memory value 1024: Must be at least 4MiB',
  ],
  [
    'the same mount twice',
    spec(
      {},
      {
        mounts: [
          { type: 'tmpfs', target: '/x' },
          { type: 'tmpfs', target: '/x' },
        ],
      },
    ),
    'ContainerSpec: duplicate mount point: /x',
  ],
  [
    'a constraint without an operator',
    task({ placement: { constraints: ['node.role'] } }),
    'constraint expected one operator from ==, !=',
  ],
  [
    'a constraint whose key is none',
    task({ placement: { constraints: ['a b==c'] } }),
    "key 'a b' is invalid",
  ],
  [
    'a constraint without a value',
    task({ placement: { constraints: ['node.role=='] } }),
    "value '' is invalid",
  ],
  [
    'a secret without a target',
    spec({}, { secrets: [{ secretId: 'a', secretName: 'b' }] }),
    'malformed secret reference, no target provided',
  ],
  [
    'two secrets in one file',
    spec(
      {},
      {
        secrets: ['s1', 's2'].map((name) => ({
          secretId: name,
          secretName: name,
          file: file('f'),
        })),
      },
    ),
    "secret references 's1' and 's2' have a conflicting target: 'f'",
  ],
  [
    'two configs in one file',
    spec(
      {},
      {
        configs: ['c1', 'c2'].map((name) => ({
          configId: name,
          configName: name,
          file: file('/f'),
        })),
      },
    ),
    "config references 'c1' and 'c2' have a conflicting target: '/f'",
  ],
  [
    'a credential spec that is not there',
    spec({}, { privileges: { CredentialSpec: { Config: 'c' } } }),
    "CredentialSpec references config 'c', but that config isn't in config references with RuntimeTarget",
  ],
  [
    'health checks that are too fast',
    spec({}, { health: { intervalMs: 0.5 } }),
    'ContainerSpec: Interval in HealthConfig cannot be less than 1ms',
  ],
  [
    'fewer than no tries',
    spec({}, { health: { retries: -1 } }),
    'ContainerSpec: Retries in HealthConfig cannot be negative',
  ],
  [
    'fewer than no replicas',
    spec({ mode: { kind: 'replicated', replicas: -1 } }),
    'Number of replicas must be non-negative',
  ],
  [
    'a job with an update',
    spec({ mode: { kind: 'global-job' }, update: { parallelism: 1 } }),
    'Jobs may not have an update config',
  ],
  [
    'an update that is too tolerant',
    spec({ update: { parallelism: 1, maxFailureRatio: 1.5 } }),
    'TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1',
  ],
  [
    'a delay of less than nothing',
    spec({ update: { parallelism: 1, delayMs: -1 } }),
    'TaskSpec: update-delay cannot be negative',
  ],
  [
    'a restart before the end',
    task({ restart: { delayMs: -1 } }),
    'TaskSpec: restart-delay cannot be negative',
  ],
  [
    'a port of a service without an address',
    spec({ endpoint: { mode: 'dnsrr', ports: [port({ publishedPort: 80 })] } }),
    "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
  ],
  [
    'a port twice',
    spec({
      endpoint: { mode: 'vip', ports: [port({ publishedPort: 80 }), port({ publishedPort: 80 })] },
    }),
    'EndpointSpec: duplicate published ports provided',
  ],
];

for (const [name, wrong, words] of cases) {
  t.test(`${name} is refused in the words of the control plane`, async (t) => {
    try {
      checkServiceSpec(wrong);
      t.fail('it was not refused');
    } catch (error) {
      t.match(error, { message: words, detail: { code: 'API_CONTROL_REFUSED' } });
    }
  });
}

t.test('what Docker takes is taken', async (t) => {
  for (const image of [
    ...['host', 'nginx:1.12', 'lab/box:1', 'reg.example:5000/a/b_c/d--e:v1.0'],
    `x@sha256:${'a'.repeat(64)}`,
  ])
    t.doesNotThrow(() => checkServiceSpec(spec({}, { image })), image);
  for (const name of ['a', 'a_b-c', '1x', 'A'.repeat(63)])
    t.doesNotThrow(() => checkServiceSpec(spec({ name })), name);
  const constraints = [
    ...[
      'node.labels.zone == a b',
      'node.id!=x',
      'node.hostname==web*',
      'node.labels.a==/node[12]/',
    ],
    ...['node.labels.disk==~ssd', 'engine.labels.os !=~(?i)debian'],
  ];
  t.doesNotThrow(() => checkServiceSpec(task({ placement: { constraints } })));
  const ports = [
    port({ publishedPort: 80 }),
    port({ publishedPort: 80, protocol: 'udp' }),
    port({ publishMode: 'host' }),
    port({}),
  ];
  t.doesNotThrow(() => checkServiceSpec(spec({ endpoint: { mode: 'vip', ports } })));
});

t.test('a name of many parts is judged quickly', async (t) => {
  t.throws(() => checkServiceSpec(spec({ name: `${'a'.repeat(50_000)}!` })));
  t.throws(() => checkServiceSpec(spec({}, { image: `${'a-'.repeat(2_000)}!` })));
});
