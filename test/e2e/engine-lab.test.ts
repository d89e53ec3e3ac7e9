import t from 'tap';
import { Dockerd, TEST_IMAGE, whyNoDockerd } from '../support/dockerd.js';
import { skipUnless, TestLab } from './support/lab.js';
import { until } from './support/process.js';

const skip = whyNoDockerd() ?? skipUnless('docker');

t.test('a swarm of nodes with engines, from any manager', { skip, timeout: 120_000 }, async (t) => {
  const engines = await Promise.all([Dockerd.raise(), Dockerd.raise()]);
  for (const engine of engines) t.teardown(() => engine.remove());
  const lab = await TestLab.raise(t, { nodes: 2, managers: 2 }, (at) => [
    '--engine-socket',
    engines[at]?.socket ?? 'none',
  ]);
  const on = (node: string, ...args: string[]) => lab.dockerMust(node, ...args);
  await lab.createNetwork('mesh');

  await t.test('a task is asked about through another node', async (t) => {
    const script = 'echo from $NODE; echo oops >&2; exec sleep 1000';
    await on(
      'node1',
      ...['service', 'create', '-d', '--no-resolve-image', '--name', 'web', '--network', 'mesh'],
      ...['--constraint', 'node.hostname==node2', '--env', 'NODE={{.Node.Hostname}}'],
      ...[TEST_IMAGE, 'sh', '-c', script],
    );
    const id = await until('it runs', 30_000, async () => {
      const ps = ['service', 'ps', 'web', '--filter', 'desired-state=running', '--no-trunc', '-q'];
      const task = await on('node1', ...ps);
      const state = ['inspect', '--type', 'task', task, '-f', '{{.Status.State}}'];
      return task !== '' && (await lab.docker('node1', ...state)).stdout.trim() === 'running'
        ? task
        : undefined;
    });
    const name = `web.1.${id}`;
    for (const node of ['node1', 'node2']) {
      t.match(await on(node, 'logs', name), /^from node2$/m, `logs at ${node}`);
      const exec = ['exec', name, 'sh', '-c', 'echo $NODE; echo err >&2; exit 4'];
      t.match(await lab.docker(node, ...exec), { code: 4, stdout: 'node2\n', stderr: 'err\n' });
      const typed = ['exec', '-i', name, 'cat'];
      t.equal((await lab.dockerWith('typed\n', node, ...typed)).stdout, 'typed\n', node);
      const [inspected] = JSON.parse(await on(node, 'inspect', name));
      t.equal(inspected.Config.Labels['com.docker.swarm.task.id'], id);
      t.match(inspected.NetworkSettings.Networks.mesh?.IPAddress, /^10\.\d+\.\d+\.\d+$/, node);
      t.match(await on(node, 'top', name), /sleep 1000/);
    }
    const names = ['ps', '--format', '{{.Names}}'];
    t.equal(await on('node2', ...names), name);
    t.equal(await on('node1', ...names), '', 'a node lists what it has itself');
  });

  await t.test("users' containers of two nodes meet on an overlay", async (t) => {
    const run = ['run', '-d', '--network', 'mesh'];
    await on('node1', ...run, '--name', 'c1', '--network-alias', 'alias1', TEST_IMAGE);
    await on('node2', ...run, '--name', 'c2', TEST_IMAGE);
    const ping = ['ping', '-c1', '-W5'];
    t.match(await on('node2', 'exec', 'c2', ...ping, 'alias1'), /1 packets received/);
    t.match(await on('node1', 'exec', 'c1', ...ping, 'c2'), /1 packets received/);
    t.match(await on('node1', 'exec', 'c1', ...ping, 'tasks.web'), /1 packets received/);
    await on('node2', 'rm', '-f', 'c2');
    await until('its name is gone', 5_000, async () => {
      const { code } = await lab.docker('node1', 'exec', 'c1', 'nslookup', 'c2');
      return code !== 0;
    });
    await on('node1', 'rm', '-f', 'c1');
    await on('node1', 'service', 'rm', 'web');
    await until('nothing is left', 20_000, () =>
      engines.every((engine) => engine.docker('ps', '-aq') === ''),
    );
  });
});
