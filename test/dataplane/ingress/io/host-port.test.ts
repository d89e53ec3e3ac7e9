import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import t from 'tap';
import { NativeProxyDriver } from '../../../../src/dataplane/ingress/index.js';
import { loadNative, nativeUnavailableReason } from '../../../../src/dataplane/io/index.js';
import { isRoot } from '../../../support/driver-lab.js';
import { backend, client, freePort, openIngress, readAll } from '../../../support/ingress-lab.js';

const NETNS = `shi-${process.pid}`;
const SERVER = `require('net').createServer((s) => s.end('there')).listen(80, '127.0.0.1', () => console.log('up'))`;

const binding = loadNative();
if (!isRoot) t.plan(0, 'needs root on Linux');
else if (binding === undefined) t.plan(0, nativeUnavailableReason());
else
  t.test('threads reach into the namespace of a task, and come back from there', async (t) => {
    execFileSync('ip', ['netns', 'add', NETNS]);
    t.teardown(() => execFileSync('ip', ['netns', 'delete', NETNS]));
    execFileSync('ip', ['-n', NETNS, 'link', 'set', 'lo', 'up']);
    const path = `/run/netns/${NETNS}`;
    const server = spawn('nsenter', [`--net=${path}`, '--', process.execPath, '-e', SERVER]);
    t.teardown(() => server.kill('SIGKILL'));
    await once(server.stdout, 'data');
    const [inside, outside, target] = [await freePort(), await freePort(), await freePort()];
    await backend(t, '127.0.0.2', target, (socket) => socket.end('here'));
    const ingress = openIngress(t, (policy) => new NativeProxyDriver(policy, { binding }));
    const port = (publishedPort: number, targetPort: number, taskId: string) => ({
      protocol: 'tcp',
      publishedPort,
      targetPort,
      taskId,
      serviceId: taskId,
      serviceName: taskId,
      state: 'ready' as const,
    });
    ingress.update({
      services: [],
      endpoints: [],
      hostPorts: [
        { ...port(inside, 80, 'a'), address: '127.0.0.1', netns: path },
        { ...port(outside, target, 'b'), address: '127.0.0.2' },
      ],
    });
    for (let i = 0; i < 3; i++) {
      t.equal(await readAll(await client(t, inside)), 'there');
      t.equal(await readAll(await client(t, outside)), 'here');
    }
  });
