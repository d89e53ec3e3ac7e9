import { execFile, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { request as requestTls } from 'node:https';
import { join } from 'node:path';
import t from 'tap';
import type { ClusterId, NodeId } from '../../../src/base/swarm-model.js';
import {
  createAuthority,
  initialCaState,
  issueApiCertificate,
  issueNodeCertificate,
} from '../../../src/control/identity/index.js';
import { privateKeyOf, rawPublicKeyOf } from '../../../src/control/identity/io/keys.js';
import { CLIENT_NAME } from '../../../src/control/wire/protocol.js';
import { serve, temporaryFolder } from '../harness.js';

const NOW_MS = Date.now();
const clusterId = 'c'.repeat(25) as ClusterId;
const ask = { clusterId, name: 'x', names: ['localhost'], addresses: ['127.0.0.1'], atMs: NOW_MS };
const lifeMs = 3_600_000;

interface Shown {
  readonly cert?: string;
  readonly key?: string;
  readonly ca?: string;
}

/** Status, or the reason why there was none. */
function get(port: number, shown: Shown): Promise<number | string> {
  return new Promise((resolve) => {
    const outgoing = requestTls(
      { host: '127.0.0.1', port, path: '/v1.45/nodes', agent: false, ...shown },
      (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      },
    );
    outgoing.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    outgoing.end();
  });
}

async function swarmCa() {
  const authority = await createAuthority(NOW_MS);
  const state = initialCaState(authority);
  return {
    authority,
    server: await issueApiCertificate(state, { ...ask, use: 'server', lifeMs }),
    client: await issueApiCertificate(state, { ...ask, use: 'client', lifeMs }),
    old: await issueApiCertificate(state, {
      ...ask,
      use: 'client',
      atMs: NOW_MS - 7_200_000,
      lifeMs,
    }),
  };
}

t.test('by TLS only clients with a certificate for it are let in', async (t) => {
  const { api } = await serve(t);
  const ca = await swarmCa();
  const other = await swarmCa();
  const entrance = await api.openTcp({ host: '127.0.0.1', port: 0 }, 'tls');
  const { port } = entrance;
  const trusted = { ca: ca.server.caPem };
  const client = { ...trusted, cert: ca.client.certPem, key: ca.client.keyPem };
  t.type(await get(port, client), 'string', 'nobody, before the port has a certificate');
  entrance.useTls({
    ...ca.server,
    accepts: ({ subject }) => subject.split('\n').includes(`OU=${CLIENT_NAME}`),
  });
  t.equal(await get(port, client), 200);
  t.type(await get(port, trusted), 'string', 'none');
  const { certPem: cert, keyPem: key } = other.client;
  t.type(await get(port, { ...trusted, cert, key }), 'string', 'of another CA');
  t.type(
    await get(port, { ...trusted, cert: ca.old.certPem, key: ca.old.keyPem }),
    'string',
    'expired',
  );
  const seed = Buffer.alloc(32, 7);
  const node = await issueNodeCertificate(ca.authority, {
    nodeId: 'n'.repeat(25) as NodeId,
    clusterId,
    role: 'worker',
    publicKey: rawPublicKeyOf(seed),
    atMs: NOW_MS,
    lifeMs,
  });
  const nodeKey = privateKeyOf(seed).export({ format: 'pem', type: 'pkcs8' }).toString();
  t.type(await get(port, { ...trusted, cert: node, key: nodeKey }), 'string', 'of a worker');
  t.type(
    await get(port, { ...trusted, cert: ca.server.certPem, key: ca.server.keyPem }),
    'string',
    'of a server',
  );
  entrance.useTls(undefined);
  t.type(await get(port, client), 'string', 'nobody, when there is no swarm any more');
});

t.test('without TLS everybody is let in, and the port is freed at the end', async (t) => {
  const { api } = await serve(t);
  const { port } = await api.openTcp({ host: '127.0.0.1', port: 0 }, 'none');
  const ping = () =>
    new Promise<unknown>((resolve) => {
      const outgoing = request(
        { host: '127.0.0.1', port, path: '/_ping', agent: false },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      outgoing.on('error', (error: NodeJS.ErrnoException) => resolve(error.code));
      outgoing.end();
    });
  t.equal(await ping(), 200);
  const again = api.openTcp({ host: '127.0.0.1', port }, 'none');
  await t.rejects(again, { message: `something listens on 127.0.0.1:${port} already` });
  await api.close();
  t.equal(await ping(), 'ECONNREFUSED');
});

const skip =
  spawnSync('docker', ['--version']).status === 0 ? false : 'no docker CLI is on the PATH';

t.test(
  'the docker CLI comes by TLS, and is refused without its certificate',
  { skip },
  async (t) => {
    const { api } = await serve(t);
    const ca = await swarmCa();
    const entrance = await api.openTcp({ host: '127.0.0.1', port: 0 }, 'tls');
    entrance.useTls(ca.server);
    const home = temporaryFolder(t);
    const files = join(home, 'certs');
    mkdirSync(files);
    writeFileSync(join(files, 'ca.pem'), ca.client.caPem);
    writeFileSync(join(files, 'cert.pem'), ca.client.certPem);
    writeFileSync(join(files, 'key.pem'), ca.client.keyPem);
    const docker = (env: Record<string, string>): Promise<{ exit: number; stdout: string }> =>
      new Promise((resolve) => {
        const host = { DOCKER_HOST: `tcp://127.0.0.1:${entrance.port}` };
        const all = { PATH: process.env['PATH'], HOME: home, ...host, ...env };
        execFile('docker', ['node', 'ls'], { env: all, timeout: 30_000 }, (error, stdout) =>
          resolve({ exit: error === null ? 0 : Number(error.code ?? -1), stdout }),
        );
      });
    const known = await docker({ DOCKER_TLS_VERIFY: '1', DOCKER_CERT_PATH: files });
    t.equal(known.exit, 0);
    t.match(known.stdout, /mn1 +Ready/);
    t.equal((await docker({})).exit, 1, 'plain HTTP');
    t.equal((await docker({ DOCKER_TLS: '1', DOCKER_CERT_PATH: '' })).exit, 1, 'no certificate');
  },
);
