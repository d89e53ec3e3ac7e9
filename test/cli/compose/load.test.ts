import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import type { Json, Stack } from '../../../src/cli/compose/convert.js';
import { loadCompose, toStack } from '../../../src/cli/compose/load.js';
import { checkCompose } from '../../../src/cli/compose/model.js';
import { parseBytes, parseDuration } from '../../../src/cli/compose/units.js';
import { CliError } from '../../../src/cli/error.js';

type Files = Readonly<Record<string, string>>;

function stackOf(
  t: Pick<Test, 'testdir'>,
  files: Files,
  options: {
    readonly paths?: readonly string[];
    readonly env?: NodeJS.ProcessEnv;
    readonly profiles?: readonly string[];
  } = {},
): { readonly stack: Stack; readonly warnings: readonly string[]; readonly folder: string } {
  const folder = t.testdir({});
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), text);
  }
  const warnings: string[] = [];
  const warn = (message: string) => warnings.push(message);
  const { paths = ['compose.yml'], env = {}, profiles } = options;
  const loaded = loadCompose({
    paths: paths.map((path) => join(folder, path)),
    env,
    warn,
    ...(profiles && { profiles }),
  });
  return { stack: toStack(loaded, 'st', warn), warnings, folder };
}

function specOf(stack: Stack, name: string): Json {
  const found = stack.services.find((service) => service.name === `st_${name}`);
  if (found === undefined) throw new Error(`no service ${name}`);
  return found.spec;
}

const containerOf = (spec: Json) =>
  (spec['TaskTemplate'] as { readonly ContainerSpec: Json }).ContainerSpec;

const WHOLE = `
version: "3.8"
services:
  web:
    image: dk/busybox:1
    command: httpd -f -h "/var/my www"
    networks: [front, back]
    ports: ["8090:80", "5000-5001:6000-6001/udp", {target: 81, published: 8091, mode: host}]
    environment: {FOO: bar, N: 1, OUTER: }
    secrets: [s]
    configs: [{source: c, target: /etc/c, mode: 0440}]
    healthcheck: {test: wget -q localhost, interval: 1m30s, retries: 2}
    volumes: ["data:/data", "./site:/var/www:ro", {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    stop_grace_period: 1.5s
    extra_hosts: ["db:10.0.0.9", "six=[fd00::1]"]
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    deploy:
      replicas: 2
      labels: [lab=one]
      update_config: {parallelism: 0, delay: 500ms, order: start-first}
      restart_policy: {condition: on-failure, max_attempts: 3}
      resources: {limits: {cpus: "0.50", memory: 50M, pids: 9}}
      placement: {constraints: [node.role==manager], preferences: [{spread: node.labels.zone}]}
  db:
    image: dk/busybox:1
    networks: {back: {aliases: [database]}}
    deploy: {mode: global}
networks:
  front: {driver: overlay, attachable: true}
  back: {internal: true, ipam: {config: [{subnet: 10.66.0.0/24}]}}
volumes: {data: {}}
secrets: {s: {file: ./sec.txt}}
configs: {c: {content: "hello $\${NOT}"}}
`;

t.test('a stack becomes what Docker would be told', async (t) => {
  const { stack, folder, warnings } = stackOf(
    t,
    { 'compose.yml': WHOLE },
    { env: { OUTER: 'out' } },
  );
  const web = specOf(stack, 'web');
  t.strictSame(warnings, []);
  t.strictSame(web['Labels'], {
    lab: 'one',
    'com.docker.stack.namespace': 'st',
    'com.docker.stack.image': 'dk/busybox:1',
  });
  t.strictSame(containerOf(web), {
    Image: 'dk/busybox:1',
    Labels: { 'com.docker.stack.namespace': 'st' },
    Args: ['httpd', '-f', '-h', '/var/my www'],
    Env: ['FOO=bar', 'N=1', 'OUTER=out'],
    Mounts: [
      {
        Type: 'volume',
        Target: '/data',
        Source: 'st_data',
        VolumeOptions: { Labels: { 'com.docker.stack.namespace': 'st' } },
      },
      { Type: 'bind', Source: join(folder, 'site'), Target: '/var/www', ReadOnly: true },
      { Type: 'tmpfs', Target: '/t', TmpfsOptions: { SizeBytes: 1 << 20 } },
    ],
    StopGracePeriod: 1.5e9,
    Healthcheck: { Test: ['CMD-SHELL', 'wget -q localhost'], Interval: 90e9, Retries: 2 },
    Hosts: ['10.0.0.9 db', 'fd00::1 six'],
    Secrets: [{ File: { Name: 's', UID: '0', GID: '0', Mode: 0o444 }, SecretName: 'st_s' }],
    Configs: [{ File: { Name: '/etc/c', UID: '0', GID: '0', Mode: 0o440 }, ConfigName: 'st_c' }],
    Ulimits: [
      { Name: 'nofile', Soft: 10, Hard: 20 },
      { Name: 'nproc', Soft: 5, Hard: 5 },
    ],
  });
  t.match(web['EndpointSpec'], {
    Ports: [
      { Protocol: 'tcp', TargetPort: 80, PublishedPort: 8090, PublishMode: 'ingress' },
      { Protocol: 'udp', TargetPort: 6000, PublishedPort: 5000, PublishMode: 'ingress' },
      { Protocol: 'udp', TargetPort: 6001, PublishedPort: 5001, PublishMode: 'ingress' },
      { Protocol: 'tcp', TargetPort: 81, PublishedPort: 8091, PublishMode: 'host' },
    ],
  });
  t.match(web['TaskTemplate'], {
    Networks: [
      { Target: 'st_back', Aliases: ['web'] },
      { Target: 'st_front', Aliases: ['web'] },
    ],
    Resources: { Limits: { NanoCPUs: 5e8, MemoryBytes: 50 << 20, Pids: 9 } },
  });
  t.match(web['UpdateConfig'], { Parallelism: 0, Delay: 5e8, Order: 'start-first' });
  t.strictSame(specOf(stack, 'db')['Mode'], { Global: {} });
  t.strictSame(
    stack.networks.map(({ name }) => name),
    ['st_back', 'st_front'],
  );
  t.match(stack.configs, [{ name: 'st_c', content: { kind: 'text', text: 'hello ${NOT}' } }]);
  t.match(stack.secrets, [{ content: { kind: 'file', path: join(folder, 'sec.txt') } }]);
});

t.test('variables come from the shell, then from .env', async (t) => {
  const { stack } = stackOf(
    t,
    {
      '.env': 'TAG=2\nREPO=dk\nBOTH=file\nFULL=${REPO}/x',
      'compose.yml': 'services: {a: {image: "${REPO}/b:${TAG}", hostname: "$BOTH", user: $FULL}}',
    },
    { env: { BOTH: 'shell' } },
  );
  t.match(containerOf(specOf(stack, 'a')), {
    Image: 'dk/b:2',
    Hostname: 'shell',
    User: 'dk/x',
  });
});

t.test('a service extends another, also of another file, whose paths stay its own', async (t) => {
  const { stack, folder } = stackOf(t, {
    'base/common.yml': `services:
  root: {image: one, environment: {A: 1, B: 2}, volumes: ["./here:/here"], depends_on: [x]}
  mid: {extends: root, cap_add: [NET_ADMIN]}`,
    'compose.yml': `services:
  web:
    extends: {file: base/common.yml, service: mid}
    environment: ["B=3"]
    volumes: ["./mine:/mine", "./other:/here"]`,
  });
  t.match(containerOf(specOf(stack, 'web')), {
    Image: 'one',
    Env: ['A=1', 'B=3'],
    CapabilityAdd: ['NET_ADMIN'],
    Mounts: [
      { Source: join(folder, 'other'), Target: '/here' },
      { Source: join(folder, 'mine'), Target: '/mine' },
    ],
  });
  t.strictSame(stack.services[0]?.dependsOn, []);
});

t.test('later files change earlier ones, and files include others', async (t) => {
  const { stack } = stackOf(
    t,
    {
      'compose.yml': `include: [parts/db.yml]
services: {web: {image: a, ports: ["80:80"], command: [one], labels: {k: 1}}}`,
      'over.yml': 'services: {web: {image: b, ports: ["81:81"], command: [two], labels: ["k=2"]}}',
      'parts/db.yml': 'services: {db: {image: db, env_file: [{path: ./db.env}]}}',
      'parts/db.env': 'PASS=word',
    },
    { paths: ['compose.yml', 'over.yml'] },
  );
  const web = specOf(stack, 'web');
  t.match(containerOf(web), { Image: 'b', Args: ['two'], Labels: { k: '2' } });
  t.match(web['EndpointSpec'], { Ports: [{ TargetPort: 80 }, { TargetPort: 81 }] });
  t.match(containerOf(specOf(stack, 'db')), { Env: ['PASS=word'] });
});

t.test('services are in the order of what they depend on', async (t) => {
  const { stack } = stackOf(t, {
    'compose.yml': `services:
  web: {image: a, depends_on: {db: {condition: service_healthy}, cache: {condition: service_started}}}
  db: {image: a, depends_on: [disk]}
  cache: {image: a}
  disk: {image: a}`,
  });
  t.strictSame(
    stack.services.map(({ name }) => name),
    ['st_disk', 'st_db', 'st_cache', 'st_web'],
  );
  t.strictSame(stack.services.at(-1)?.dependsOn, [
    { service: 'st_db', condition: 'service_healthy' },
    { service: 'st_cache', condition: 'service_started' },
  ]);
});

t.test('services of profiles are there when one is asked for', async (t) => {
  const file = { 'compose.yml': 'services: {a: {image: x}, b: {image: x, profiles: [debug]}}' };
  const names = (stack: Stack) => stack.services.map(({ name }) => name);
  t.strictSame(names(stackOf(t, file).stack), ['st_a']);
  t.strictSame(names(stackOf(t, file, { profiles: ['debug'] }).stack), ['st_a', 'st_b']);
});

t.test('what a swarm cannot do is said, and the rest goes on', async (t) => {
  const { warnings } = stackOf(t, {
    'compose.yml':
      'services: {a: {image: x, privileged: true, container_name: me, ports: ["127.0.0.1:80:80"]}}',
  });
  t.match(warnings.toSorted(), [
    /a\.container_name is ignored: tasks are named by the swarm/,
    /ports\[0\]: the address 127\.0\.0\.1 is left out/,
    /a\.privileged is ignored: use cap_add/,
  ]);
});

t.test('mistakes name their place', async (t) => {
  const service = (text: string) => ({ 'compose.yml': `services: {web: {image: x, ${text}}}` });
  const rows = [
    [
      'no image',
      { 'compose.yml': 'services: {web: {}}' },
      /services\.web: a service needs an image/,
    ],
    ['unknown key', service('imagge: y'), /services\.web: unknown key 'imagge'/],
    ['wrong form', service('deploy: {replicas: many}'), /services\.web\.deploy\.replicas: /],
    ['port', service('ports: ["99999:80"]'), /ports\[0\]: '99999' is no port/],
    ['ranges', service('ports: ["1-2:1-3"]'), /both ranges of ports must have as many/],
    ['duration', service('stop_grace_period: soon'), /stop_grace_period: 'soon' is no duration/],
    ['size', service('deploy: {resources: {limits: {memory: lots}}}'), /'lots' is no size/],
    ['network', service('networks: [nope]'), /no network 'nope' is defined/],
    ['secret', service('secrets: [nope]'), /secrets\[0\]: no secret 'nope' is defined/],
    ['volume', service('volumes: ["nope:/x"]'), /volumes\[0\]: no volume 'nope' is defined/],
    ['mode', service('deploy: {mode: globl}'), /deploy\.mode: 'globl' is not one of/],
    ['dependency', service('depends_on: [nope]'), /there is no service 'nope'/],
    ['circle', service('depends_on: [web]'), /a circle: web -> web/],
    ['extends', service('extends: web'), /a circle/],
    ['env file', service('env_file: nope.env'), /nope\.env: there is no such file/],
    ['quotes', service(`command: "say 'x"`), /the quotes in .* do not match/],
    ['yaml', { 'compose.yml': 'services: [\n' }, /compose\.yml: /],
    ['list', { 'compose.yml': '- a' }, /is no mapping/],
    ['include', { 'compose.yml': 'include: [compose.yml]' }, /included more than 32 deep/],
    ['blob', { 'compose.yml': 'secrets: {s: {}}' }, /secrets\.s: say where it comes from/],
  ] as const;
  for (const [name, files, want] of rows)
    t.throws(() => stackOf(t, files), { name: 'CliError', message: want }, name);
});

t.test('durations and sizes are read as Docker reads them', async (t) => {
  t.equal(parseDuration('1h2m3.5s', ''), (3600 + 120 + 3.5) * 1e9);
  t.equal(parseDuration('0', ''), 0);
  t.equal(parseDuration('100us', ''), 1e5);
  t.equal(parseBytes('1.5g', ''), 1.5 * 2 ** 30);
  t.equal(parseBytes('64kB', ''), 65_536);
  t.equal(parseBytes('12', ''), 12);
});

t.test('any tree is read or refused with a sentence', async () => {
  const key = fc.constantFrom(
    'services',
    'web',
    'image',
    'ports',
    'deploy',
    'networks',
    'x-a',
    'q',
  );
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { maxDepth: 6 },
      fc.string(),
      fc.integer(),
      fc.constant(null),
      fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(key, tie('tree'), { maxKeys: 4 }),
    ),
  }));
  fc.assert(
    fc.property(tree, (value) => {
      try {
        checkCompose(value);
        return true;
      } catch (error) {
        return error instanceof CliError && error.message !== '';
      }
    }),
  );
});
