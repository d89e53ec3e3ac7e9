import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { connect } from 'node:net';
import t from 'tap';
import { BODY_BYTES_MAX } from '../../../src/api/io/body.js';
import { AT_MS, FakeBackend } from '../fake-backend.js';
import { call, serve } from '../harness.js';

/** What comes back on a raw connection until it closes. */
function converse(socketPath: string, sent: string): Promise<string> {
  return new Promise((resolve) => {
    let received = '';
    const socket = connect(socketPath, () => socket.write(sent));
    socket.on('data', (chunk) => {
      received += chunk.toString();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => resolve(received));
  });
}

t.test('a body has to be JSON, say so, and be of bounded size', async (t) => {
  const { socketPath } = await serve(t, new FakeBackend());
  const post = async (body: string | undefined, headers: Record<string, string> = {}) => {
    const answer = await call(socketPath, 'POST', '/swarm/init', body, headers);
    return [answer.status, (answer.body as { message: string }).message] as const;
  };
  t.same(await post(undefined), [400, 'invalid JSON: got EOF while reading request body']);
  t.same(await post('{'), [400, 'invalid JSON: the request body is not one JSON value']);
  t.same(await post('{}', { 'Content-Type': 'text/plain' }), [
    400,
    "unsupported Content-Type header (text/plain): must be 'application/json'",
  ]);
  const large = `"${'x'.repeat(BODY_BYTES_MAX)}"`;
  t.equal((await post(large))[0], 413, 'with its length told');
  const answer = await call(socketPath, 'POST', '/swarm/init', '{}', {
    'Content-Type': 'application/json; charset=utf-8',
  });
  t.equal(answer.status, 200, 'a charset is no harm');
});

t.test('a large body of unknown length is cut off', async (t) => {
  const { socketPath } = await serve(t, new FakeBackend());
  const outgoing = request({
    socketPath,
    method: 'POST',
    path: '/swarm/init',
    headers: { 'Content-Type': 'application/json', 'Transfer-Encoding': 'chunked' },
  });
  outgoing.on('error', () => undefined);
  const chunk = Buffer.alloc(1024 * 1024, 0x20);
  for (let sent = 0; sent <= BODY_BYTES_MAX; sent += chunk.length) outgoing.write(chunk);
  outgoing.end();
  const [response] = await once(outgoing, 'response');
  t.equal(response.statusCode, 413);
  response.resume();
});

t.test('what is not HTTP is answered in JSON and counted', async (t) => {
  const { socketPath, api } = await serve(t);
  const answers = await Promise.all([
    converse(socketPath, 'hello\r\n\r\n'),
    converse(socketPath, `GET /${'x'.repeat(20_000)} HTTP/1.1\r\n\r\n`),
    converse(socketPath, 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n'),
  ]);
  const statuses = answers.map((answer) => answer.split('\r\n', 1)[0]);
  t.same(statuses, [
    'HTTP/1.1 400 Bad Request',
    'HTTP/1.1 431 Request Header Fields Too Large',
    'HTTP/1.1 404 Not Found',
  ]);
  for (const answer of answers) {
    t.match(answer, /\r\nContent-Type: application\/json\r\n/);
    t.match(answer, /\r\n\r\n\{"message":".*"\}\n$/);
  }
  t.equal(api.stats().malformed, 2);
});

t.test('a request to upgrade is served as a plain one', async (t) => {
  const { socketPath } = await serve(t);
  const answer = await call(socketPath, 'POST', '/containers/x/attach', undefined, {
    Connection: 'Upgrade',
    Upgrade: 'tcp',
  });
  t.equal(answer.status, 501);
});

t.test('one connection carries many requests', async (t) => {
  const { socketPath } = await serve(t);
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  t.teardown(() => agent.destroy());
  const locals = new Set<unknown>();
  for (let index = 0; index < 20; index++) {
    const outgoing = request({ socketPath, path: '/nodes', agent });
    outgoing.end();
    const [response] = await once(outgoing, 'response');
    locals.add(outgoing.socket);
    response.resume();
    await once(response, 'end');
  }
  t.equal(locals.size, 1);
});

t.test('events flow line by line, with their head at once', async (t) => {
  const { socketPath, backend, api } = await serve(t);
  const filters = encodeURIComponent('{"type":{"network":true}}');
  const outgoing = request({ socketPath, path: `/events?since=0&filters=${filters}` });
  outgoing.end();
  const [response] = await once(outgoing, 'response');
  t.equal(response.headers['content-type'], 'application/json', 'before any event');
  const attributes = { name: 'x' };
  backend.emit({ kind: 'node', action: 'update', id: 'n', attributes, atMs: AT_MS });
  backend.emit({ kind: 'network', action: 'create', id: 'w', attributes, atMs: AT_MS });
  const [line] = await once(response, 'data');
  t.equal(
    line.toString(),
    `{"Type":"network","Action":"create","Actor":{"ID":"w","Attributes":{"name":"x"}},"scope":"swarm","time":${Math.floor(AT_MS / 1000)},"timeNano":${AT_MS}000000}\n`,
  );
  const ended = once(response, 'end');
  response.resume();
  await api.close();
  await ended;
  t.equal(backend.listenersCount, 0, 'and nobody listens any more');
});

t.test('events end at their time, and a reader that leaves is forgotten', async (t) => {
  const { socketPath, call, backend } = await serve(t);
  const ended = await call('GET', '/events?until=1');
  t.same([ended.status, ended.text], [200, '']);
  t.equal((await call('GET', '/events?until=tomorrow')).status, 400);
  t.equal((await call('GET', '/events?filters={"x":["y"]}')).status, 400);
  const outgoing = request({ socketPath, path: '/events' });
  outgoing.end();
  const [response] = await once(outgoing, 'response');
  t.equal(backend.listenersCount, 2, 'besides what keeps the past');
  response.on('error', () => undefined);
  response.destroy();
  const deadlineMs = Date.now() + 5000;
  while (backend.listenersCount > 1 && Date.now() < deadlineMs) await call('GET', '/_ping');
  t.equal(backend.listenersCount, 1);
});

t.test('what has happened since a moment is told, as far as it is kept', async (t) => {
  const { call, backend } = await serve(t);
  for (let at = 0; at < 300; at++)
    backend.emit({
      kind: 'service',
      action: 'update',
      id: String(at),
      attributes: { name: 'web' },
      atMs: AT_MS + at * 1000,
    });
  const ids = async (query: string) =>
    (await call('GET', `/events?${query}`)).text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line).Actor.ID);
  const from = AT_MS / 1000;
  t.strictSame(await ids(`since=${from + 297}&until=${from + 298}`), ['297', '298']);
  t.equal((await ids(`since=1&until=${from + 400}`)).length, 256);
  t.strictSame(await ids(`since=1&until=${from + 400}&filters={"type":["node"]}`), []);
  t.strictSame(await ids('until=1'), [], 'nobody has asked for the past');
});

t.test('a reader that does not read is cut off', async (t) => {
  const { socketPath, backend, call } = await serve(t);
  const outgoing = request({ socketPath, path: '/events' });
  outgoing.on('error', () => undefined);
  outgoing.end();
  const [response] = await once(outgoing, 'response');
  response.on('error', () => undefined);
  response.pause();
  const attributes = { name: 'x'.repeat(64 * 1024) };
  for (let index = 0; index < 200; index++) {
    backend.emit({ kind: 'node', action: 'update', id: 'n', attributes, atMs: AT_MS });
  }
  const deadlineMs = Date.now() + 5000;
  while (backend.listenersCount > 1 && Date.now() < deadlineMs) await call('GET', '/_ping');
  t.equal(backend.listenersCount, 1);
});

t.test('closing lets a running request finish', async (t) => {
  const backend = new FakeBackend();
  let proceed = () => {};
  const started = new Promise<void>((resolve) => {
    backend.join = () => {
      resolve();
      return new Promise((done) => {
        proceed = done;
      });
    };
  });
  const { call, api } = await serve(t, backend);
  const answer = call('POST', '/swarm/join', { RemoteAddrs: ['a'], JoinToken: 'x' });
  await started;
  const closed = api.close();
  proceed();
  t.equal((await answer).status, 200);
  await closed;
  await t.rejects(call('GET', '/_ping'), 'and then nobody is there');
});
