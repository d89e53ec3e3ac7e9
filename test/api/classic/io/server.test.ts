import { once } from 'node:events';
import { createServer, type IncomingMessage, request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import fc from 'fast-check';
import t, { type Test } from 'tap';
import {
  type ClassicBackend,
  type ClassicMember,
  ClassicServer,
  type ClassicStrategy,
} from '../../../../src/api/classic/index.js';
import { Prng } from '../../../../src/base/prng.js';
import { silent, temporaryFolder } from '../../harness.js';

interface Made {
  readonly Id: string;
  readonly Names: readonly string[];
  readonly body: Readonly<Record<string, unknown>>;
}

/** As much of an engine as a cluster needs. */
class FakeEngine {
  readonly socketPath: string;
  readonly asked: string[] = [];
  readonly containers: Made[] = [];
  hasImage = true;
  canPull = true;
  isSilent = false;
  readonly #server = createServer();

  constructor(t: Test, name: string) {
    this.socketPath = join(temporaryFolder(t), `${name}.sock`);
    this.#server.on('request', async (request, response) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      const url = (request.url ?? '').replace(/^\/v[\d.]+/, '');
      this.asked.push(`${request.method} ${url}`);
      if (this.isSilent) return;
      const [status, json] = this.#answer(`${request.method} ${url}`, body);
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify(json));
    });
    this.#server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
      this.asked.push(`UPGRADE ${request.url}`);
      socket.end('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello');
    });
    this.#server.listen(this.socketPath);
    t.teardown(() => {
      this.#server.closeAllConnections();
      this.#server.close();
    });
  }

  #answer(asked: string, body: string): readonly [number, unknown] {
    const [, path = ''] = /^\w+ ([^?]*)/.exec(asked) ?? [];
    if (path === '/info') return [200, { Driver: 'vfs', Labels: ['storage=ssd'] }];
    if (path === '/containers/json') return [200, this.containers];
    if (path === '/images/json')
      return [200, this.hasImage ? [{ Id: 'sha256:aa', RepoTags: ['app:1'], Created: 1 }] : []];
    if (path === '/images/create') {
      if (this.canPull) this.hasImage = true;
      return this.canPull ? [200, { status: 'done' }] : [500, { message: 'no such registry' }];
    }
    if (path === '/containers/create') {
      const { Image } = JSON.parse(body) as { Image: string };
      if (!this.hasImage) return [404, { message: `No such image: ${Image}` }];
      const name = new URLSearchParams(asked.split('?')[1]).get('name') ?? '';
      const Id = `${this.containers.length}`.padStart(
        64,
        this.socketPath.includes('1') ? 'a' : 'b',
      );
      this.containers.push({ Id, Names: [`/${name}`], body: JSON.parse(body) });
      return [201, { Id, Warnings: [] }];
    }
    if (path === '/networks') return [200, [{ Name: 'mesh', Scope: 'swarm', Id: 'n1' }]];
    const [, id] = /^\/containers\/(\w+)\/json$/.exec(path) ?? [];
    const found = this.containers.find(({ Id }) => Id === id);
    if (found === undefined) return [404, { message: `no ${path}` }];
    return [
      200,
      { Name: found.Names[0], Config: found.body, HostConfig: found.body['HostConfig'] },
    ];
  }
}

async function cluster(t: Test, strategy: ClassicStrategy = 'spread') {
  const engines = [new FakeEngine(t, 'e1'), new FakeEngine(t, 'e2')] as const;
  const troubles = new Map<string, string>();
  const passed: string[] = [];
  const members = (): ClassicMember[] =>
    ['node1', 'node2'].map((name) => ({
      ...{ id: name, name, ip: '10.0.0.1', address: '10.0.0.1:2376', cpus: 2, memoryBytes: 100 },
      ...{ labels: {}, isActive: true },
      ...(troubles.has(name) ? { trouble: troubles.get(name) ?? '' } : {}),
    }));
  const backend: ClassicBackend = {
    self: 'node1',
    members,
    upstream: (id) => ({
      ...{ name: id, prefix: '', headers: { 'shoal-hop': '1' }, apiVersion: '1.45' },
      connect: async (signal) => {
        const path = engines[id === 'node1' ? 0 : 1].socketPath;
        const socket = connect({ path, signal });
        await once(socket, 'connect');
        return socket;
      },
    }),
    isFirst: () => true,
    facts: () => ({
      ...{ id: 'i', name: 'node1', version: 'swarm/1', kernelVersion: '', operatingSystem: '' },
      ...{ architecture: '', swarm: {}, role: 'primary' },
    }),
  };
  const server = await ClassicServer.open({ host: '127.0.0.1', port: 0 }, 'none', {
    backend,
    fallback: {
      onRequest: (request, response) => {
        passed.push(`${request.method} ${request.url}`);
        response.end('{}');
      },
      onUpgrade: (_request, socket) => socket.end('HTTP/1.1 404 Not Found\r\n\r\n'),
    },
    strategy,
    prng: new Prng(1),
    log: silent,
  });
  t.teardown(() => server.close());
  const call = (method: string, path: string, body?: unknown) =>
    ask(server.port, method, path, body);
  return { engines, troubles, passed, server, call };
}

function ask(port: number, method: string, path: string, body?: unknown) {
  return new Promise<{ readonly status: number; readonly json: unknown }>((resolve, reject) => {
    const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
    };
    const asked = request({ host: '127.0.0.1', port, method, path, headers, agent: false });
    asked.on('error', reject);
    asked.on('upgrade', (_answer, socket) => {
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk;
      });
      socket.on('end', () => resolve({ status: 101, json: text }));
    });
    asked.on('response', (answer) => {
      let text = '';
      answer.on('data', (chunk) => {
        text += chunk;
      });
      answer.on('end', () => {
        const json =
          text.trim() === '' ? undefined : JSON.parse(text.trim().split('\n').at(-1) ?? '');
        resolve({ status: answer.statusCode ?? 0, json });
      });
    });
    asked.end(text);
  });
}

const APP = { Image: 'app:1', HostConfig: { PortBindings: { '80/tcp': [{ HostPort: '80' }] } } };

t.test('many that come at once get different nodes, and a port only once', async (t) => {
  const { engines, call } = await cluster(t);
  const made = await Promise.all(
    ['a', 'b', 'c'].map((name) => call('POST', `/v1.45/containers/create?name=${name}`, APP)),
  );
  t.strictSame(made.map(({ status }) => status).sort(), [201, 201, 500]);
  t.match(made.find(({ status }) => status === 500)?.json, {
    message: 'unable to find a node with port 80 available',
  });
  t.strictSame(
    engines.map(({ containers }) => containers.length),
    [1, 1],
  );
  const again = await call('POST', '/containers/create?name=a', { Image: 'app:1' });
  t.match(again, { status: 409, json: { message: /^Conflict: The name a is already assigned/ } });
});

t.test('a container is asked for at its node, by its full id', async (t) => {
  const { engines, call, server } = await cluster(t);
  await call('POST', '/containers/create?name=web', { Image: 'app:1' });
  const [engine, node] =
    engines[0].containers.length > 0 ? [engines[0], 'node1'] : [engines[1], 'node2'];
  const { Id } = engine.containers[0] ?? { Id: '' };
  await call('POST', `/v1.45/containers/${node}/web/stop?t=1`);
  t.equal(engine.asked.at(-1), `POST /containers/${Id}/stop?t=1`);
  await call('DELETE', `/v1.45/containers/${Id.slice(0, 70)}?force=1`);
  t.equal(engine.asked.at(-1), `DELETE /containers/${Id}?force=1`);
  t.match(await call('GET', '/v1.45/containers/web/json'), { json: { Node: { Name: node } } });
  t.match(await call('GET', '/containers/nobody/json'), {
    status: 404,
    json: { message: 'No such container: nobody' },
  });
  const socket = connect(server.port, '127.0.0.1');
  socket.write(
    'POST /v1.45/containers/web/attach?stream=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n',
  );
  let text = '';
  for await (const chunk of socket) text += chunk;
  t.match(text, /101 UPGRADED[\s\S]*hello$/);
  t.equal(engine.asked.at(-1), `UPGRADE /v1.45/containers/${Id}/attach?stream=1`);
});

t.test('an image is pulled by the node that needs it, or else looked for elsewhere', async (t) => {
  const { engines, call } = await cluster(t);
  for (const engine of engines) engine.hasImage = false;
  t.match(await call('POST', '/containers/create', { Image: 'app:1' }), { status: 201 });
  t.equal(engines.filter(({ hasImage }) => hasImage).length, 1, 'one has pulled it');
  const [other] = engines.filter(({ hasImage }) => !hasImage);
  if (other === undefined) throw new Error('there is another');
  other.canPull = false;
  t.match(await call('POST', '/containers/create', { Image: 'app:1' }), { status: 201 });
  t.equal(other.containers.length, 0, 'who cannot have it does not get the container');
  for (const engine of engines) Object.assign(engine, { hasImage: false, canPull: false });
  t.match(await call('POST', '/containers/create', { Image: 'app:1' }), {
    status: 500,
    json: { message: 'no such registry' },
  });
});

t.test('what is lost is shown as it was last, and used no more', async (t) => {
  const { engines, troubles, call } = await cluster(t);
  for (const name of ['a', 'b'])
    await call('POST', `/containers/create?name=${name}`, { Image: 'app:1' });
  await call('GET', '/info');
  troubles.set('node2', 'gone');
  const lost = engines[1].containers[0]?.Names[0] ?? '';
  const list = (await call('GET', '/containers/json?all=1')).json as {
    Names: string[];
    Status?: string;
  }[];
  t.match(list.find(({ Names }) => Names[0] === `/node2${lost}`)?.Status, 'Host Down');
  t.match(await call('POST', `/containers${lost}/start`), {
    status: 500,
    json: { message: /running on unhealthy node node2$/ },
  });
  t.match((await call('GET', '/info')).json, { Containers: 2, SystemStatus: [] });
  troubles.set('node1', 'gone too');
  t.match(await call('POST', '/containers/create', { Image: 'app:1' }), {
    json: { message: 'No healthy node available in the cluster' },
  });
});

t.test('what is not the cluster’s is answered as on the node’s own socket', async (t) => {
  const { passed, call } = await cluster(t);
  await call('GET', '/v1.45/services?x=1');
  await call('GET', '/_ping');
  await call('GET', '/exec/unknown/json');
  t.strictSame(passed, ['GET /v1.45/services?x=1', 'GET /_ping', 'GET /exec/unknown/json']);
  t.match(await call('POST', '/containers/create', { Image: 'host' }), {
    status: 500,
    json: { message: /^the image host stands for commands of the hosts/ },
  });
  const onMesh = { Image: 'app:1', HostConfig: { NetworkMode: 'mesh' } };
  t.match(
    await call('POST', '/containers/create', onMesh),
    { status: 201 },
    "the swarm's networks are on every node",
  );
});

t.test('whatever is asked is answered', async (t) => {
  const { call } = await cluster(t);
  const path = fc.oneof(
    fc.constantFrom(
      '/containers/',
      '/containers//json',
      '/images//json',
      '/volumes/%',
      '/networks/%2',
    ),
    fc.webPath().map((text) => `/containers${text}`),
    fc.webPath(),
  );
  const arbitrary = fc.record({
    method: fc.constantFrom('GET', 'POST', 'DELETE', 'PUT'),
    path: path.filter((text) => text.startsWith('/')),
    body: fc.oneof(fc.json(), fc.string()),
  });
  await fc.assert(
    fc.asyncProperty(arbitrary, async ({ method, path, body }) => {
      const { status } = await call(method, path, method === 'GET' ? undefined : body);
      return status >= 200;
    }),
    { numRuns: 60 },
  );
});
