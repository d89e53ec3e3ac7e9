import { once } from 'node:events';
import { createServer, type IncomingMessage, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import {
  ApiError,
  ApiServer,
  type ContainerBackend,
  type ContainerNetworks,
  type Upstream,
} from '../../src/api/index.js';
import { FakeBackend } from './fake-backend.js';
import { call, silent, temporaryFolder } from './harness.js';

const SANDBOX = { 'com.docker.shoal.sandbox': 't1' };

/** An engine that says what it was asked. */
class FakeEngine {
  readonly asked: { readonly method: string; readonly url: string; readonly body: string }[] = [];
  readonly aborted: string[] = [];
  readonly #lasting: Socket[] = [];
  readonly #server = createServer();
  readonly socketPath: string;

  constructor(t: Test, name: string) {
    this.socketPath = join(temporaryFolder(t), name);
    t.teardown(() => this.close());
    this.#server.on('request', (request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const url = request.url ?? '';
        this.asked.push({
          method: request.method ?? '',
          url,
          body: Buffer.concat(chunks).toString(),
        });
        response.on('close', () => {
          if (!response.writableFinished) this.aborted.push(url);
        });
        if (url.includes('/wait')) {
          response.writeHead(200);
          response.flushHeaders();
          return;
        }
        const path = url.replace(/^\/(docker\/)?v[\d.]+/, '').replace(/\?.*$/, '');
        const { status = 200, json } = ANSWERS[`${request.method} ${path}`] ?? {
          status: 404,
          json: { message: `no ${path}` },
        };
        response.writeHead(status, { 'content-type': 'application/json', 'x-engine': 'yes' });
        response.end(JSON.stringify(json));
      });
    });
    this.#server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
      this.asked.push({
        method: request.method ?? '',
        url: request.url ?? '',
        body: head.toString(),
      });
      socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
      const chunks: Buffer[] = [head];
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      // What goes on after its client's word is over.
      if (request.url?.includes('/lasting/') === true) {
        this.#lasting.push(socket);
        return;
      }
      socket.on('end', () => socket.end(`heard ${Buffer.concat(chunks)}`));
    });
  }

  async listen(): Promise<this> {
    this.#server.listen(this.socketPath);
    await once(this.#server, 'listening');
    return this;
  }

  close(): void {
    for (const socket of this.#lasting) socket.destroy();
    this.#server.closeAllConnections();
    this.#server.close();
  }

  upstream(more: Partial<Upstream> = {}): Upstream {
    return {
      name: 'the container engine',
      prefix: '',
      headers: {},
      apiVersion: '1.41',
      connect: async (signal) => {
        const socket = connect({ path: this.socketPath, allowHalfOpen: true, signal });
        await once(socket, 'connect');
        return socket;
      },
      ...more,
    };
  }
}

const ANSWERS: Record<string, { readonly status?: number; readonly json: unknown } | undefined> = {
  'GET /containers/json': {
    json: [
      { Id: 'c1', Labels: {} },
      { Id: 'sb', Labels: SANDBOX, State: 'running' },
    ],
  },
  'GET /containers/c1/json': { json: { Id: 'c1' } },
  'GET /containers/full-id/json': { json: { Id: 'full-id' } },
  'POST /containers/full-id/exec': { status: 201, json: { Id: 'e1' } },
  'GET /exec/e1/json': { json: { ExitCode: 3 } },
  'POST /containers/create': { status: 201, json: { Id: 'new' } },
  'GET /networks': { json: [{ Name: 'bridge', Id: 'b1', Driver: 'bridge' }] },
  'GET /networks/bridge': { json: { Name: 'bridge' } },
  'POST /networks/create': { status: 201, json: { Id: 'n1' } },
  'POST /networks/prune': { json: { NetworksDeleted: ['old'] } },
  'GET /version': {
    json: { Version: '20.10', ApiVersion: '1.41', Components: [{ Name: 'Engine' }] },
  },
  'GET /info': {
    json: {
      Name: 'engine',
      Containers: 5,
      ContainersRunning: 3,
      ContainersStopped: 2,
      Swarm: { LocalNodeState: 'inactive' },
      Plugins: { Network: ['bridge'] },
      Warnings: null,
    },
  },
  'POST /containers/one/start': { status: 204, json: undefined },
  'GET /new/thing': { json: { is: 'passed' } },
};

async function open(t: Test, networks?: ContainerNetworks) {
  const engine = await new FakeEngine(t, 'engine').listen();
  const node = await new FakeEngine(t, 'node').listen();
  const containers: ContainerBackend = {
    engine: () => engine.upstream(),
    ...(networks && { networks }),
    elsewhere: (ref) =>
      ref === 'web.1.abc' ? { nodeId: 'n2', containerId: 'full-id' } : undefined,
    node: (nodeId) =>
      node.upstream({
        name: 'node n2',
        nodeId,
        prefix: '/docker',
        apiVersion: '1.45',
        headers: { 'shoal-hop': '1' },
      }),
  };
  const backend = FakeBackend.manager();
  const socketPath = join(temporaryFolder(t), 'api.sock');
  const api = await ApiServer.listen(
    { socketPath, closeGraceMs: 50 },
    { backend, log: silent, containers },
  );
  t.teardown(() => api.close());
  const ask = (method: string, path: string, body?: unknown, headers?: Record<string, string>) =>
    call(socketPath, method, path, body, headers);
  return { api, engine, node, socketPath, ask };
}

t.test("what is not the swarm's goes to the engine as it is, and comes back so", async (t) => {
  const { engine, ask } = await open(t);
  const created = await ask('POST', '/v1.41/containers/create?name=x', { Image: 'i' });
  t.match(created, {
    status: 201,
    body: { Id: 'new' },
    headers: { 'x-engine': 'yes', 'api-version': '1.41' },
  });
  t.strictSame(engine.asked.at(-1), {
    method: 'POST',
    url: '/v1.41/containers/create?name=x',
    body: '{"Image":"i"}',
  });
  t.match(await ask('GET', '/v1.41/new/thing'), { status: 200, body: { is: 'passed' } });
  t.match(await ask('GET', '/v1.41/containers/none/json'), {
    status: 404,
    body: { message: 'no /containers/none/json' },
  });
  await ask('GET', '/v1.45/images/json');
  t.equal(engine.asked.at(-1)?.url, '/v1.41/images/json', 'in no newer words than it knows');
  t.match(await ask('GET', '/v1.41/services/none'), {
    status: 404,
    headers: { 'x-engine': undefined },
  });
  t.equal(
    engine.asked.some(({ url }) => url.includes('services')),
    false,
    'the swarm is not its business',
  );
});

t.test('sandboxes are not shown; networks and facts are of both', async (t) => {
  const { ask, engine } = await open(t);
  t.strictSame((await ask('GET', '/v1.41/containers/json?all=1')).body, [{ Id: 'c1', Labels: {} }]);
  t.equal(engine.asked.at(-1)?.url, '/v1.41/containers/json?all=1');
  t.match((await ask('GET', '/v1.41/networks/bridge')).body, { Name: 'bridge' });
  t.match(await ask('POST', '/v1.41/networks/create', { Name: 'b2', Driver: 'bridge' }), {
    body: { Id: 'n1' },
  });
  t.match(JSON.parse(engine.asked.at(-1)?.body ?? ''), { Name: 'b2', Driver: 'bridge' });
  const before = engine.asked.length;
  t.match(await ask('POST', '/v1.41/networks/create', { Name: 'o2', Driver: 'overlay' }), {
    status: 201,
  });
  t.equal(engine.asked.length, before, "an overlay is the swarm's");
  const names = ((await ask('GET', '/v1.41/networks')).body as { Name: string }[]).map(
    ({ Name }) => Name,
  );
  t.ok(names.includes('bridge') && names.includes('o2'), names.join());
  t.match((await ask('GET', '/version')).body, {
    Version: '20.10',
    ApiVersion: '1.41',
    Components: [{ Name: 'Engine' }, { Name: 'Shoal' }],
  });
  t.match((await ask('GET', '/info')).body, {
    // One of the five is a sandbox, and runs.
    Containers: 4,
    ContainersRunning: 2,
    ContainersStopped: 2,
    Swarm: { LocalNodeState: 'active' },
    Plugins: { Network: ['bridge', 'overlay'] },
  });
});

/** An upgrade as the CLI does it: it ends its own direction at once, and reads to the end. */
async function hijack(socketPath: string, path: string, input: string): Promise<string> {
  const socket = connect({ path: socketPath, allowHalfOpen: true });
  socket.end(
    `POST ${path} HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n\r\n{}${input}`,
  );
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text;
}

t.test('hijacked connections carry both directions, each to its own end', async (t) => {
  const { engine, socketPath } = await open(t);
  const text = await hijack(socketPath, '/v1.41/containers/c1/attach?stream=1', 'input');
  t.match(text, /^HTTP\/1\.1 101 UPGRADED\r\n/);
  t.match(text, /heard \{\}input$/);
  t.equal(engine.asked.at(-1)?.url, '/v1.41/containers/c1/attach?stream=1');
});

/** A client that waits for the output of a container whose end never comes. */
async function attachForEver(t: Test, socketPath: string) {
  const socket = connect({ path: socketPath, allowHalfOpen: true });
  socket.end(
    'POST /v1.41/containers/lasting/attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
  );
  const [head] = await once(socket, 'data');
  t.match(String(head), /^HTTP\/1\.1 101 UPGRADED/);
  return socket;
}

t.test('one whose end never comes does not keep the server from closing', async (t) => {
  const { api, socketPath } = await open(t);
  const ended = once(await attachForEver(t, socketPath), 'end');
  await api.close();
  await ended;
});

t.test('a container of another node is found there, and so are commands in it', async (t) => {
  const { engine, node, socketPath, ask } = await open(t);
  t.match(await ask('GET', '/v1.45/containers/web.1.abc/json'), { body: { Id: 'full-id' } });
  t.equal(node.asked.at(-1)?.url, '/docker/v1.45/containers/full-id/json');
  t.match(await ask('POST', '/v1.45/containers/web.1.abc/exec', { Cmd: ['x'] }), {
    status: 201,
    body: { Id: 'e1' },
  });
  t.equal(node.asked.at(-1)?.body, '{"Cmd":["x"]}');
  t.match(await hijack(socketPath, '/v1.45/exec/e1/start', 'typed'), /heard \{\}typed$/);
  t.equal(node.asked.at(-1)?.url, '/docker/v1.45/exec/e1/start');
  t.match((await ask('GET', '/v1.45/exec/e1/json')).body, { ExitCode: 3 });

  const before = node.asked.length;
  await ask('GET', '/v1.45/containers/web.1.abc/json', undefined, { 'shoal-hop': '1' });
  t.equal(node.asked.length, before, 'what another node sent goes no further');
  t.ok(engine.asked.length > 0);
});

t.test(
  'a head is passed on before its body, and a client that hangs up ends it there',
  async (t) => {
    const { engine, socketPath } = await open(t);
    const asked = request({ socketPath, method: 'POST', path: '/v1.41/containers/c1/wait' });
    asked.on('error', () => undefined);
    asked.end();
    await once(asked, 'response');
    asked.destroy();
    for (let tries = 0; engine.aborted.length === 0 && tries < 200; tries++)
      await new Promise((resolve) => setTimeout(resolve, 10));
    t.strictSame(engine.aborted, ['/v1.41/containers/c1/wait']);
  },
);

t.test('without its engine the swarm goes on, and the rest says so', async (t) => {
  const { engine, ask, socketPath } = await open(t);
  engine.close();
  t.match(await ask('GET', '/v1.41/containers/c1/json'), {
    status: 503,
    body: { message: /^the container engine cannot be reached: / },
  });
  t.match(await hijack(socketPath, '/v1.41/containers/c1/attach', ''), /^HTTP\/1\.1 5\d\d /);
  t.match(await ask('GET', '/v1.41/nodes'), { status: 200 });
});

/** Knows the overlay `mesh` and the container `c1` on it, and says what it was asked. */
class FakeNetworks implements ContainerNetworks {
  readonly asked: string[] = [];

  overlay(ref: string) {
    return ref === 'mesh' || ref === 'n-mesh' ? { id: 'n-mesh', name: 'mesh' } : undefined;
  }

  plan(...[body, asked]: Parameters<ContainerNetworks['plan']>) {
    const wanted = [...asked].filter(([ref]) => this.overlay(ref) !== undefined);
    if (wanted.length === 0) return undefined;
    const made = async (id: string) => {
      this.asked.push(`made ${id} ${JSON.stringify(wanted)}`);
    };
    return { body: { ...(body as object), Parted: true }, made };
  }

  async find(ref: string) {
    return ['c1', 'one', 'lasting'].includes(ref) ? 'c1' : undefined;
  }

  async start(id: string, start: () => Promise<{ status: number; json: unknown }>) {
    if (this.asked.includes('refuse'))
      throw new ApiError({ code: 'API_NOT_ATTACHED' }, 'Could not attach to network mesh: no');
    this.asked.push(`before ${id}`);
    return start();
  }

  async connect(...asked: Parameters<ContainerNetworks['connect']>) {
    this.asked.push(`connect ${JSON.stringify(asked)}`);
  }

  async disconnect(...asked: Parameters<ContainerNetworks['disconnect']>) {
    this.asked.push(`disconnect ${JSON.stringify(asked)}`);
  }

  sandboxOf(id: string) {
    return id === 'c1' ? 'sb1' : undefined;
  }

  async shown(inspected: unknown) {
    const { Id } = inspected as { Id: string };
    return Id === 'c1' ? { Id, Shown: true } : undefined;
  }

  shownInList(list: readonly unknown[]) {
    return list.map((one) => {
      const { Id } = one as { Id: string };
      return Id === 'c1' ? { Id, NetworkSettings: { Networks: { mesh: {} } } } : one;
    });
  }
}

t.test('nobody waits for the output of a container that was not started', async (t) => {
  const networks = new FakeNetworks();
  networks.asked.push('refuse');
  const { socketPath, ask } = await open(t, networks);
  const ended = once(await attachForEver(t, socketPath), 'end');
  t.match(await ask('POST', '/v1.41/containers/lasting/start'), { status: 500 });
  await ended;
});

t.test("containers of the engine on the swarm's overlays", async (t) => {
  const networks = new FakeNetworks();
  const { engine, ask } = await open(t, networks);
  const last = () => JSON.parse(engine.asked.at(-1)?.body || '{}');
  const bodyOf = (mode: string) => ({
    Image: 'i',
    HostConfig: { NetworkMode: mode },
    NetworkingConfig: {
      EndpointsConfig: { [mode]: { Aliases: ['a'], IPAMConfig: { IPv4Address: '10.0.0.9' } } },
    },
  });
  t.match(await ask('POST', '/v1.41/containers/create?name=x', bodyOf('mesh')), { status: 201 });
  t.match(
    [engine.asked.at(-1)?.url, last()],
    ['/v1.41/containers/create?name=x', { Parted: true }],
  );
  t.equal(networks.asked.pop(), 'made new [["mesh",{"aliases":["a"],"ip":"10.0.0.9"}]]');
  t.match(await ask('POST', '/v1.41/containers/create', bodyOf('bridge')), { status: 201 });
  t.strictSame([last(), networks.asked], [bodyOf('bridge'), []], 'of no overlay: as it came');

  t.match(await ask('POST', '/v1.41/containers/one/start'), { status: 204 });
  t.strictSame(
    [networks.asked.pop(), engine.asked.at(-1)?.url],
    ['before c1', '/v1.41/containers/one/start'],
  );
  networks.asked.push('refuse');
  t.match(await ask('POST', '/v1.41/containers/one/start'), {
    status: 500,
    body: { message: 'Could not attach to network mesh: no' },
  });
  networks.asked.length = 0;

  t.strictSame((await ask('GET', '/v1.41/containers/c1/json')).body, { Id: 'c1', Shown: true });
  t.strictSame((await ask('GET', '/v1.41/containers/full-id/json')).body, { Id: 'full-id' });
  t.strictSame((await ask('GET', '/v1.41/containers/json')).body, [
    { Id: 'c1', NetworkSettings: { Networks: { mesh: {} } } },
  ]);
  const filters = encodeURIComponent('{"network":["mesh"],"label":["x"]}');
  t.match((await ask('GET', `/v1.41/containers/json?all=1&filters=${filters}`)).body, [
    { Id: 'c1' },
  ]);
  const asked = new URL(engine.asked.at(-1)?.url ?? '', 'http://e').searchParams;
  t.strictSame([asked.get('all'), asked.get('filters')], ['1', '{"label":["x"]}']);

  const change = { Container: 'c1', EndpointConfig: { Aliases: ['oo'] } };
  t.match(await ask('POST', '/v1.41/networks/mesh/connect', change), { status: 200 });
  t.match(await ask('POST', '/v1.41/networks/n-mesh/disconnect', { Container: 'c1' }), {
    status: 200,
  });
  t.strictSame(networks.asked, [
    'connect ["c1","n-mesh",{"aliases":["oo"]}]',
    'disconnect ["c1","n-mesh"]',
  ]);
  await ask('POST', '/v1.41/networks/bridge/connect', change);
  t.strictSame(
    engine.asked.slice(-2).map(({ url, body }) => [url, JSON.parse(body).Container]),
    [
      ['/v1.41/networks/none/disconnect', 'sb1'],
      ['/v1.41/networks/bridge/connect', 'sb1'],
    ],
    "of the engine's own: to whoever holds the namespace",
  );
  await ask('POST', '/v1.41/networks/bridge/connect', { Container: 'other' });
  t.match(last(), { Container: 'other' });
});
