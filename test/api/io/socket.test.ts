import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, lstatSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { ApiServer } from '../../../src/api/index.js';
import { FakeBackend } from '../fake-backend.js';
import { call, silent, temporaryFolder } from '../harness.js';

const open = (socketPath: string) =>
  ApiServer.listen({ socketPath }, { backend: FakeBackend.manager(), log: silent });

t.test('the socket is for its owner and a group, and goes with the server', async (t) => {
  const path = join(temporaryFolder(t), 'deep/er/api.sock');
  const api = await open(path);
  t.equal(lstatSync(path).mode & 0o777, 0o660);
  t.equal((await call(path, 'GET', '/_ping')).status, 200);
  await api.close();
  await api.close();
  t.notOk(existsSync(path));
});

t.test('the socket that a dead agent left is replaced', async (t) => {
  const path = join(temporaryFolder(t), 'api.sock');
  const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', script]);
  t.ok(lstatSync(path).isSocket(), 'it is left behind');
  const api = await open(path);
  t.teardown(() => api.close());
  t.equal((await call(path, 'GET', '/_ping')).status, 200);
});

t.test('the socket of a live agent is left alone', async (t) => {
  const path = join(temporaryFolder(t), 'api.sock');
  const first = await open(path);
  t.teardown(() => first.close());
  await t.rejects(open(path), {
    name: 'ApiError',
    code: 'API_SOCKET_TAKEN',
    message: `another agent or engine answers on ${path}: stop it, or give another socket path`,
  });
  t.equal((await call(path, 'GET', '/_ping')).status, 200);
});

t.test('an owner that never answers is alive all the same', async (t) => {
  const path = join(temporaryFolder(t), 'api.sock');
  const mute = createServer(() => undefined);
  await new Promise<void>((resolve) => mute.listen(path, resolve));
  t.teardown(() => mute.close());
  await t.rejects(open(path), { code: 'API_SOCKET_TAKEN' });
});

t.test('a path that cannot be a socket is refused with its reason', async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, 'file');
  writeFileSync(file, 'precious');
  await t.rejects(open(file), { code: 'API_SOCKET_REFUSED', message: /not a socket; remove it/ });
  await t.rejects(open(join(file, 'x')), { code: 'API_SOCKET_REFUSED' });
  await t.rejects(open(`/${'x'.repeat(200)}`), { message: /longer than 107 bytes/ });
  if (process.getuid?.() !== 0) {
    chmodSync(folder, 0o500);
    await t.rejects(open(join(folder, 'api.sock')), { code: 'API_SOCKET_REFUSED' });
    chmodSync(folder, 0o700);
  }
});
