import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import { run, start, until } from './support/process.js';

/**
 * A service that changes under load loses no request, and its tasks see who their clients are. The same at
 * length, with faults: `npm run chaos -- ingress`.
 */

const skip = skipUnless('docker', 'node');
const scripts = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'scripts/chaos');
const PORT = 8080;

interface Told {
  readonly [kind: string]: {
    readonly count: number;
    readonly failed: number;
    readonly failures: readonly string[];
  };
}

/** Answers with the address of its client, at most with what the client sent before. */
const MIRROR = `require('net').createServer((s) => {
  s.on('error', () => {});
  if (process.env.SPEAKS) s.end(s.remoteAddress + '\\n');
  else s.once('data', (d) => s.end(d.toString().split('\\r\\n')[0] + '\\n'));
}).listen(80)`;

t.test('a service changes under load, and its clients are known', { skip }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 3 });
  const docker = (...args: readonly string[]) => lab.dockerMust('node1', ...args);
  const create = (name: string, port: number, replicas: number, ...rest: readonly string[]) =>
    docker(
      ...['service', 'create', '--detach', '--name', name, '--replicas', String(replicas)],
      ...['--publish', `${port}:80`, ...rest],
    );
  const running = async (name: string, count: number) => {
    await until(`${name} has ${count} tasks, and nothing else runs`, 60_000, async () => {
      const format = '{{.DesiredState}} {{.CurrentState}}';
      const lines = (await docker('service', 'ps', '--format', format, name)).split('\n');
      const good = lines.filter((line) => line.startsWith('Running Running '));
      return good.length === count && !lines.some((line) => line.startsWith('Shutdown Running'));
    });
  };
  const server = ['host', process.execPath, join(scripts, 'http-server.mjs')];
  const monitor = [
    ...['--update-monitor', '200ms', '--update-parallelism', '2', '--label', 'shoal.drain=1s'],
  ];
  await create('web', PORT, 4, ...monitor, ...server);
  const mirror = ['host', process.execPath, '-e', MIRROR];
  await create('seen', 8081, 3, '--env', 'SPEAKS=1', ...mirror);
  await create('told', 8082, 1, '--label', 'shoal.client-address=proxy-v1', ...mirror);
  await running('web', 4);

  await t.test('no request fails while it is updated and scaled', async (t) => {
    const targets = lab.lab.nodes.map(({ address }) => `${address}:${PORT}`);
    const wish = { targets, rate: 100, keepAlive: 6, downloads: 3, downloadMs: 1000 };
    const argv = [process.execPath, join(scripts, 'http-load.mjs'), JSON.stringify(wish)];
    const load = start(t, lab.lab.commandIn('node1', argv));
    await docker('service', 'update', '--detach', '--force', 'web');
    await until('the update is over', 60_000, async () => {
      const format = '{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}';
      return (await docker('service', 'inspect', '--format', format, 'web')) === 'completed';
    });
    await docker('service', 'scale', '--detach', 'web=2');
    await running('web', 2);
    const { stdout, stderr } = await load.stop();
    const told = JSON.parse(stdout || '{}') as Told;
    t.ok((told['new']?.count ?? 0) > 100, stderr);
    for (const [kind, { count, failed, failures }] of Object.entries(told))
      t.equal(failed, 0, `${kind}: of ${count} requests ${failed} failed: ${failures[0] ?? ''}`);
  });

  await t.test('tasks on all nodes see the client’s own address', async (t) => {
    const ask = async (from: string, address: string, port: number) => {
      const program = `const s = require('net').connect(${port}, '${address}', () => s.write('x'));
        s.on('data', (d) => process.stdout.write(d)); s.on('error', (e) => console.log(e.code))`;
      const argv = lab.lab.commandIn(from, [process.execPath, '-e', program]);
      return (await run(argv)).stdout.trim();
    };
    const [node1, node2] = lab.lab.nodes;
    const address = node1?.address ?? '';
    await running('seen', 3);
    for (let i = 0; i < 3; i++)
      t.equal(
        await ask('node2', address, 8081),
        `::ffff:${node2?.address}`,
        'whichever task it is',
      );
    t.match(await ask('node1', '127.0.0.1', 8081), /^::ffff:10\.0\./, 'loopback is not kept');
    t.match(
      await ask('node2', address, 8082),
      new RegExp(`^PROXY TCP4 ${node2?.address} ${address} \\d+ 8082$`),
    );
  });
});
