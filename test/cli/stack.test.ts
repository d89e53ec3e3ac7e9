import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { AgentClient } from '../../src/cli/agent-client.js';
import type { Stack } from '../../src/cli/compose/convert.js';
import { ago, taskRows } from '../../src/cli/docker-tables.js';
import { StackApi, type TaskJson } from '../../src/cli/stack/api.js';
import { deployStack } from '../../src/cli/stack/deploy.js';

type Json = Record<string, unknown>;

/** So much of Docker's API as a stack needs, in memory. */
class FakeSwarm {
  readonly calls: string[] = [];
  readonly objects: Record<string, Map<string, Json>> = {
    networks: new Map(),
    secrets: new Map(),
    configs: new Map(),
    services: new Map(),
  };
  tasks: Json[] = [];
  #next = 1;

  answer(method: string, path: string, body: Json): { status: number; value: unknown } {
    const { pathname } = new URL(path, 'http://x');
    const [, kind = '', ref = '', verb = ''] = pathname.split('/');
    if (kind === 'tasks') return { status: 200, value: this.tasks };
    const table = this.objects[kind] ?? new Map<string, Json>();
    if (method !== 'GET') this.calls.push(`${method} ${pathname.replace(/\d+/, '#')}`);
    if (method === 'GET' && ref === '') return { status: 200, value: [...table.values()] };
    if (ref === 'create') return this.#create(kind, table, body);
    const found = [...table.values()].find((one) => [idOf(one), nameOf(one)].includes(ref));
    if (found === undefined) return { status: 404, value: { message: `${ref} not found` } };
    if (method === 'DELETE') table.delete(idOf(found));
    if (verb === 'update') {
      const before = found['Spec'] as Json;
      if (kind !== 'services' && body['Data'] !== before['Data'])
        return { status: 400, value: { message: 'only updates to Labels are allowed' } };
      table.set(idOf(found), { ...found, Spec: body });
    }
    return { status: 200, value: found };
  }

  #create(kind: string, table: Map<string, Json>, body: Json) {
    const id = `id${this.#next++}`;
    const object =
      kind === 'networks'
        ? { Id: id, Name: body['Name'], Scope: 'swarm' }
        : { ID: id, Version: { Index: 1 }, Spec: body };
    table.set(id, object);
    return { status: 201, value: { ID: id, Id: id } };
  }
}

const idOf = (one: Json) => String(one['ID'] ?? one['Id']);
const nameOf = (one: Json) => String((one['Spec'] as Json | undefined)?.['Name'] ?? one['Name']);

async function fakeApi(t: Test): Promise<{ swarm: FakeSwarm; api: StackApi }> {
  const swarm = new FakeSwarm();
  // The path of a socket has at most 107 bytes.
  const folder = mkdtempSync(join(tmpdir(), 'shoal-stack-'));
  const socket = join(folder, 's');
  const textOf = async (request: IncomingMessage) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    return text;
  };
  const server = createServer(async (request, response) => {
    const text = await textOf(request);
    const { status, value } = swarm.answer(
      request.method ?? '',
      request.url ?? '',
      text === '' ? {} : JSON.parse(text),
    );
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  t.teardown(() => {
    server.close();
    rmSync(folder, { recursive: true });
  });
  return { swarm, api: new StackApi(new AgentClient(socket)) };
}

function stackWith(secret: string, image: string): Stack {
  return {
    name: 'st',
    networks: [{ name: 'st_default', external: false, body: { Name: 'st_default' } }],
    secrets: [
      { name: 'st_s', external: false, labels: {}, content: { kind: 'text', text: secret } },
    ],
    configs: [],
    services: [
      {
        name: 'st_web',
        dependsOn: [],
        spec: {
          Name: 'st_web',
          Labels: { 'com.docker.stack.image': image },
          TaskTemplate: {
            ContainerSpec: { Image: image, Secrets: [{ File: { Name: 's' }, SecretName: 'st_s' }] },
          },
          Mode: { Replicated: { Replicas: 1 } },
        },
      },
    ],
  };
}

function deploy(api: StackApi, stack: Stack, said: string[], timeoutMs = 5_000): Promise<void> {
  return deployStack(api, stack, {
    variables: () => undefined,
    prune: true,
    wait: false,
    patience: { timeoutMs, signal: new AbortController().signal, say: () => {} },
    say: (line) => said.push(line),
  });
}

t.test('the first deployment makes everything, the second updates the services', async (t) => {
  const { swarm, api } = await fakeApi(t);
  const said: string[] = [];
  await deploy(api, stackWith('one', 'img:1'), said);
  t.strictSame(said, [
    'Creating network st_default',
    'Creating secret st_s',
    'Creating service st_web',
  ]);
  said.length = 0;
  await deploy(api, stackWith('one', 'img:1'), said);
  t.strictSame(said, ['Updating service st_web (id: id3)']);
  t.equal(swarm.objects['secrets']?.size, 1);
});

t.test('a secret that has changed becomes a new version, and the old one goes', async (t) => {
  const { swarm, api } = await fakeApi(t);
  const said: string[] = [];
  await deploy(api, stackWith('one', 'img:1'), said);
  said.length = 0;
  await deploy(api, stackWith('two', 'img:1'), said);
  await deploy(api, stackWith('two', 'img:1'), []);
  await deploy(api, stackWith('three', 'img:1'), said);
  t.strictSame(
    said.filter((line) => line.startsWith('Creating')),
    [
      'Creating secret st_s-2, a new version of st_s',
      'Creating secret st_s-3, a new version of st_s',
    ],
  );
  t.strictSame([...(swarm.objects['secrets']?.values() ?? [])].map(nameOf), ['st_s-3']);
  t.match(
    [...(swarm.objects['services']?.values() ?? [])],
    [
      {
        Spec: {
          TaskTemplate: {
            ContainerSpec: { Secrets: [{ File: { Name: 's' }, SecretName: 'st_s-3' }] },
          },
        },
      },
    ],
  );
});

t.test('an image that was pinned stays so while the file names the same', async (t) => {
  const { swarm, api } = await fakeApi(t);
  await deploy(api, stackWith('one', 'img:1'), []);
  const [service] = [...(swarm.objects['services']?.values() ?? [])];
  const spec = service?.['Spec'] as { TaskTemplate: { ForceUpdate?: number; ContainerSpec: Json } };
  spec.TaskTemplate.ContainerSpec['Image'] = 'img:1@sha256:abc';
  spec.TaskTemplate.ForceUpdate = 3;
  const imageNow = () =>
    [...(swarm.objects['services']?.values() ?? [])].map(
      (one) => (one['Spec'] as typeof spec).TaskTemplate,
    );
  await deploy(api, stackWith('one', 'img:1'), []);
  t.match(imageNow(), [{ ForceUpdate: 3, ContainerSpec: { Image: 'img:1@sha256:abc' } }]);
  await deploy(api, stackWith('one', 'img:2'), []);
  t.match(imageNow(), [{ ForceUpdate: 3, ContainerSpec: { Image: 'img:2' } }]);
});

t.test('services that the file does not have any more are pruned', async (t) => {
  const { api } = await fakeApi(t);
  await deploy(api, stackWith('one', 'img:1'), []);
  const said: string[] = [];
  await deploy(api, { ...stackWith('one', 'img:1'), services: [] }, said);
  t.strictSame(said, ['Removing service st_web']);
});

t.test('what is external must be there', async (t) => {
  const { api } = await fakeApi(t);
  const stack = stackWith('one', 'img:1');
  const network = { name: 'outer', external: true, body: {} };
  await t.rejects(deploy(api, { ...stack, networks: [network] }, []), {
    message: /external network outer is not there/,
  });
  const secret = { name: 'mine', external: true, labels: {} };
  await t.rejects(deploy(api, { ...stack, secrets: [secret] }, []), {
    message: /external secret mine is not there/,
  });
});

t.test('a service waits for what it depends on, and not for ever', async (t) => {
  const { swarm, api } = await fakeApi(t);
  const [web] = stackWith('one', 'img:1').services;
  if (web === undefined) throw new Error('there is one');
  const dependsOn = [{ service: 'st_db', condition: 'service_healthy' as const }];
  const stack = { ...stackWith('one', 'img:1'), services: [{ ...web, dependsOn }] };
  await t.rejects(deploy(api, stack, [], 1), { message: /st_web: not there after .* st_db/ });
  t.notOk(swarm.calls.some((call) => call === 'POST /services/create'));
  swarm.tasks = [{ Status: { State: 'running' } }];
  await deploy(api, stack, []);
  t.ok(swarm.calls.some((call) => call === 'POST /services/create'));
});

t.test('tasks are listed as docker lists them', async (t) => {
  const task = (ID: string, Slot: number, CreatedAt: string, State: string): TaskJson => ({
    ID,
    ServiceID: 's',
    NodeID: 'n',
    Slot,
    CreatedAt,
    DesiredState: State === 'running' ? 'running' : 'shutdown',
    Spec: { ContainerSpec: { Image: 'a:1@sha256:0f' } },
    Status: {
      State,
      Timestamp: CreatedAt,
      Err: State === 'failed' ? 'task: non-zero exit (1) and more' : '',
    },
  });
  const tasks = [
    task('c3', 10, '2026-01-01T00:00:00Z', 'running'),
    task('a1', 2, '2026-01-01T00:00:00Z', 'failed'),
    task('b2', 2, '2026-01-01T00:01:00Z', 'running'),
  ];
  const options = {
    services: new Map([['s', 'web']]),
    nodes: new Map([['n', 'node1']]),
    nowMs: Date.parse('2026-01-01T00:03:00Z'),
    truncate: true,
  };
  t.strictSame(taskRows(tasks, options), [
    ['b2', 'web.2', 'a:1', 'node1', 'Running', 'Running 2 minutes ago', ''],
    [
      'a1',
      ' \\_ web.2',
      'a:1',
      'node1',
      'Shutdown',
      'Failed 3 minutes ago',
      '"task: non-zero exit (1) and m…"',
    ],
    ['c3', 'web.10', 'a:1', 'node1', 'Running', 'Running 3 minutes ago', ''],
  ]);
});

t.test('time is counted as docker counts it', async (t) => {
  const rows = [
    [0, 'less than a second ago'],
    [1, '1 second ago'],
    [59, '59 seconds ago'],
    [60, 'about a minute ago'],
    [45 * 60, '45 minutes ago'],
    [46 * 60, 'about an hour ago'],
    [30 * 3600, '30 hours ago'],
    [3 * 86_400, '3 days ago'],
    [20 * 86_400, '2 weeks ago'],
    [90 * 86_400, '3 months ago'],
  ] as const;
  const now = Date.parse('2026-06-01T00:00:00Z');
  for (const [seconds, want] of rows)
    t.equal(ago(new Date(now - seconds * 1000).toISOString(), now), want);
});
