import { join } from 'node:path';
import t from 'tap';
import { Dockerd, TEST_IMAGE, whyNoDockerd } from '../support/dockerd.js';
import { scratch, shoalArgv } from './support/lab.js';
import { run, start, until } from './support/process.js';

const skip = whyNoDockerd() ?? false;

t.test('one socket for the swarm and for an engine', { skip, timeout: 240_000 }, async (t) => {
  const engine = await Dockerd.raise();
  t.teardown(() => engine.remove());
  const dir = scratch(t);
  const socket = join(dir, 'shoal.sock');
  const agent = [
    ...shoalArgv,
    'agent',
    ...['--data-dir', join(dir, 'data'), '--socket', socket, '--hostname', 'one'],
    ...['--engine-socket', engine.socket, '--metrics-address', 'none'],
    ...['--log-file', join(dir, 'agent.log')],
  ];
  // In a namespace of its own: nothing of this host's ports and routes is touched.
  start(t, ['unshare', '-n', 'bash', '-c', `ip link set lo up; exec ${agent.join(' ')}`]);
  const docker = (...args: string[]) => run(['docker', '-H', `unix://${socket}`, ...args]);
  await until('the agent answers', 30_000, async () => {
    const { code } = await docker('version');
    return code === 0 ? true : undefined;
  });

  await t.test("what is the engine's passes through", async (t) => {
    t.match((await docker('run', '--rm', TEST_IMAGE, 'echo', 'hello')).stdout, 'hello\n');
    t.equal((await docker('run', '--rm', TEST_IMAGE, 'sh', '-c', 'exit 7')).code, 7);
    await docker('run', '-d', '--name', 'w1', TEST_IMAGE);
    const exec = await docker('exec', 'w1', 'sh', '-c', 'echo in; echo err >&2; exit 4');
    t.match(exec, { code: 4, stdout: 'in\n', stderr: 'err\n' });
    t.match((await docker('network', 'ls')).stdout, /bridge/);
    t.match((await docker('volume', 'create', 'v1')).stdout, 'v1\n');
    t.match((await docker('system', 'df')).code, 0);
    t.match((await docker('images', '-q', TEST_IMAGE)).stdout, /^[0-9a-f]{12}\n$/);
    t.equal((await docker('rm', '-f', 'w1')).code, 0);
    const none = await docker('rm', 'nobody');
    t.match(none.stderr, /No such container: nobody/);
  });

  await t.test("the swarm's is the swarm's, and lists show both", async (t) => {
    t.equal((await docker('swarm', 'init', '--advertise-addr', '127.0.0.1')).code, 0);
    t.equal((await docker('network', 'create', '-d', 'overlay', '--attachable', 'mesh')).code, 0);
    t.match(
      (await docker('network', 'ls', '--format', '{{.Name}} {{.Scope}}')).stdout,
      /mesh swarm/,
    );
    t.match(
      (await docker('network', 'ls', '--format', '{{.Name}} {{.Scope}}')).stdout,
      /bridge local/,
    );
    const info = await docker(
      'info',
      '--format',
      '{{.Swarm.LocalNodeState}} {{.Driver}} {{.Name}}',
    );
    t.match(info.stdout, /^active \S+ one\n$/);
    t.match((await docker('node', 'ls')).stdout, /one\s+Ready/);
  });

  await t.test('tasks of the engine and of the host meet on an overlay', async (t) => {
    const create = ['service', 'create', '-d', '--no-resolve-image', '--network', 'mesh'];
    const web = await docker(
      ...create,
      '--name',
      'web',
      TEST_IMAGE,
      'sh',
      '-c',
      'echo up; sleep 1000',
    );
    t.equal(web.code, 0, web.stderr);
    const own = await docker(...create, '--name', 'own', 'host', 'sleep', '1000');
    t.equal(own.code, 0, own.stderr);
    const names = await until('both are containers', 30_000, async () => {
      const { stdout } = await docker('ps', '--format', '{{.Names}}');
      const [webName, ownName] = ['web.1.', 'own.1.'].map((name) =>
        stdout.split('\n').find((line) => line.startsWith(name)),
      );
      return webName !== undefined && ownName !== undefined ? { webName, ownName } : undefined;
    });
    t.notMatch((await docker('ps', '-a', '--format', '{{.Names}}')).stdout, /sandbox/);
    t.match(await docker('exec', names.webName, 'ping', '-c1', '-W5', 'tasks.own'), { code: 0 });
    t.match(await docker('exec', names.ownName, 'ping', '-c1', '-W5', 'tasks.web'), { code: 0 });
    t.match(
      await until('the log came', 10_000, async () => {
        const { stdout } = await docker('service', 'logs', 'web');
        return stdout === '' ? undefined : stdout;
      }),
      /^web\.1\.\w+@one\s+\| up\n$/,
    );
    t.equal((await docker('service', 'rm', 'web', 'own')).code, 0);
    await until('nothing is left at the engine', 40_000, async () =>
      engine.docker('ps', '-aq') === '' ? true : undefined,
    );
  });
});
