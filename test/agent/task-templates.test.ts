import t from 'tap';
import { lackOf, runtimeTaskOf } from '../../src/agent/runtime-task.js';
import type { ConfigId, SecretId } from '../../src/base/swarm-model.js';
import { expandContainer } from '../../src/base/templates.js';
import { MESH, type TaskWish, taskId, taskObject } from '../support/tasks.js';

const NODE = { id: 'n1', hostname: 'alpha', os: 'linux', architecture: 'x86_64' };
const NONE = { secrets: new Map(), configs: new Map() };
const bytes = (text: string) => new Uint8Array(Buffer.from(text));
const labels = { tier: 'front', 'com.example.zone': 'a' };

const hostnameOf = (hostname: string, wish: TaskWish = {}) =>
  expandContainer(taskObject({ serviceLabels: labels, ...wish, container: { hostname } }), NODE)
    .hostname;

t.test('fields of service, node and task are filled in', async (t) => {
  const cases = [
    ['plain', 'plain'],
    ['{{.Service.Name}}-{{.Task.Slot}}', 'web-1'],
    ['{{ .Node.Hostname }}.{{.Node.ID}}', 'alpha.n1'],
    ['{{.Node.Platform.OS}}/{{.Node.Platform.Architecture}}', 'linux/x86_64'],
    ['{{.Task.Name}}', `web.1.${taskId('task')}`],
    ['{{.Service.ID}}', taskId('service')],
    ['{{index .Service.Labels "com.example.zone"}}', 'a'],
    ['{{ index .Service.Labels `tier` }}', 'front'],
    ['{{.Service.Labels.tier}}', 'front'],
    ['x{{.Service.Labels.missing}}x', 'xx'],
    ['{{.Service.Labels}}', 'map[com.example.zone:a tier:front]'],
    ['a {{- /* a comment */ -}} b', 'ab'],
    ['{{"{{"}}x}}', '{{x}}'],
  ] as const;
  for (const [template, want] of cases) t.equal(hostnameOf(template), want, template);
  t.equal(hostnameOf('{{.Task.Slot}}', { slot: 0 }), 'n1', 'of a global service it is the node');
});

t.test(
  'values of variables and all of a mount are templates, names of variables are not',
  async (t) => {
    const { env, mounts } = expandContainer(
      taskObject({
        container: {
          env: ['{{.Task.Slot}}=x', 'SLOT={{.Task.Slot}}', 'EMPTY', 'URL=a=b'],
          mounts: [
            {
              type: 'volume',
              source: 'data-{{.Task.Slot}}',
              target: '/var/{{.Service.Name}}',
              volume: {
                labels: { of: '{{.Task.ID}}' },
                driver: { options: { o: '{{.Node.ID}}' } },
              },
            },
            { type: 'tmpfs', target: '/tmp' },
          ],
        },
      }),
      NODE,
    );
    t.strictSame(env, ['{{.Task.Slot}}=x', 'SLOT=1', 'EMPTY', 'URL=a=b']);
    t.match(mounts, [
      {
        source: 'data-1',
        target: '/var/web',
        volume: { labels: { of: taskId('task') }, driver: { options: { o: 'n1' } } },
      },
      { type: 'tmpfs', target: '/tmp' },
    ]);
  },
);

t.test('what is not understood is refused, by its name', async (t) => {
  t.throws(() => hostnameOf('{{.Task.Color}}'), {
    message: 'expanding hostname failed: there is no field .Task.Color',
  });
  t.throws(() => hostnameOf('{{if .Task.Slot}}x{{end}}'), {
    message: /^expanding hostname failed: \{\{if .Task.Slot\}\} is not understood: fields such as/,
  });
  t.throws(() => hostnameOf('{{.Task.constructor}}'), { message: /there is no field/ });
  t.throws(() => hostnameOf('{{secret "x"}}'), { message: /is not understood/ });
  t.throws(() => hostnameOf('{{.Task.Slot'), { message: /\{\{ is never closed/ });
});

t.test('secrets and configs go with the task, filled in where they are templates', async (t) => {
  const secretId = 's1' as SecretId;
  const otherId = 's2' as SecretId;
  const configId = 'c1' as ConfigId;
  const file = (name: string) => ({ name, uid: '0', gid: '0', mode: 0o444 });
  const task = taskObject({
    networks: MESH,
    container: {
      env: ['A=1'],
      secrets: [
        { secretId, secretName: 'key', file: file('key') },
        { secretId: otherId, secretName: 'raw', file: file('raw') },
      ],
      configs: [{ configId, configName: 'conf', file: file('/etc/conf') }],
    },
  });
  const golang = { name: 'golang' };
  const blobs = {
    secrets: new Map([
      [secretId, { data: bytes('hidden') }],
      [otherId, { data: bytes('{{.Task.Slot}}') }],
    ]),
    configs: new Map([
      [
        configId,
        {
          templating: golang,
          data: bytes('{{secret "key"}} {{env "A"}}{{env "B"}} {{.Task.Slot}}'),
        },
      ],
    ]),
  };
  const { secrets, configs, network, hosts, labels } = runtimeTaskOf(task, NODE, blobs);
  t.equal(Buffer.from(secrets.get(secretId) ?? []).toString(), 'hidden');
  t.equal(Buffer.from(secrets.get(otherId) ?? []).toString(), '{{.Task.Slot}}', 'no template');
  t.equal(Buffer.from(configs.get(configId) ?? []).toString(), 'hidden 1 1');
  t.equal(network, 'resolver');
  t.strictSame(hosts, [{ address: '10.0.1.5', name: '' }]);
  t.equal(labels['com.docker.swarm.service.name'], 'web');

  t.equal(lackOf(task, NONE), 'waiting for secret key from a manager');
  t.equal(lackOf(task, blobs), undefined);
  t.throws(() => runtimeTaskOf(task, NODE, NONE), { message: 'secret key is not here' });
  const bad = {
    ...blobs,
    configs: new Map([[configId, { templating: golang, data: bytes('{{secret "x"}}') }]]),
  };
  t.throws(() => runtimeTaskOf(task, NODE, bad), {
    message: 'failed to expand templated config conf: secret target x not found',
  });
  const odd = {
    ...blobs,
    configs: new Map([[configId, { templating: { name: 'perl' }, data: bytes('') }]]),
  };
  t.throws(() => runtimeTaskOf(task, NODE, odd), {
    message: 'config conf: no such template driver: perl',
  });
});

t.test('what a task got of the node is told after its own variables', async (t) => {
  const task = taskObject({
    container: { env: ['A={{.Task.Slot}}'] },
    assignedResources: [
      { kind: 'named', name: 'gpu', value: 'UUID1' },
      { kind: 'discrete', name: 'ssd', value: 3 },
      { kind: 'named', name: 'gpu', value: 'UUID2' },
    ],
  });
  t.strictSame(runtimeTaskOf(task, NODE, NONE).container.env, [
    'A=1',
    'DOCKER_RESOURCE_GPU=UUID1,UUID2',
    'DOCKER_RESOURCE_SSD=3',
  ]);
});

t.test('networks of the node itself need no wiring', async (t) => {
  const networkOf = (target: string | undefined) =>
    runtimeTaskOf(
      taskObject({
        spec: {
          container: { image: 'host' },
          ...(target && { networks: [{ target: target as never }] }),
        },
      }),
      NODE,
      NONE,
    ).network;
  t.equal(networkOf('host'), 'host');
  t.equal(networkOf('none'), 'isolated');
  t.equal(networkOf(undefined), 'isolated');
});
