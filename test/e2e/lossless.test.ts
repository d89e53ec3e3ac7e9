import { readdirSync, readFileSync } from 'node:fs';
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

/** The same of datagrams, bound to all addresses. */
const MIRROR_UDP = `const s = require('dgram').createSocket('udp4');
s.on('message', (_, { address, port }) => s.send(address + ' ' + port, port, address));
s.bind(81)`;

/** One socket asks all of its targets, each until it is answered, and prints what they say. */
const ASK_UDP = `const s = require('dgram').createSocket('udp4');
const targets = process.argv.slice(1);
const heard = new Map();
s.on('message', (text, { address }) => {
  heard.set(address, String(text));
  if (heard.size < targets.length) return;
  console.log(JSON.stringify({ port: s.address().port, heard: targets.map((t) => heard.get(t)) }));
  process.exit();
});
s.bind(0, () => targets.forEach((t) => s.send('x', 8083, t)));
setTimeout(() => { console.log(JSON.stringify({ port: s.address().port, heard: [...heard] })); process.exit(); }, 5000)`;

/** Whether it is one of this lab's. */
function isMirror(pid: string, dir: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').endsWith(`s.bind(81)\0${dir}\0`);
  } catch {
    return false;
  }
}

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
  const udp = ['--mode', 'global', '--publish', '8083:81/udp'];
  await docker(
    ...['service', 'create', '--detach', '--name', 'udp', ...udp],
    ...['host', process.execPath, '-e', MIRROR_UDP, lab.dir],
  );
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
    await running('udp', 3);
    const targets = lab.lab.nodes.map(({ address }) => address);
    const askUdp = async (...targets: readonly string[]) => {
      const argv = [process.execPath, '-e', ASK_UDP, ...targets];
      const { stdout } = await run(lab.lab.commandIn('node2', argv));
      return JSON.parse(stdout) as { readonly port: number; readonly heard: readonly string[] };
    };
    const strict = [
      ...['sh', '-c', 'for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done'],
    ];
    const mirrors = readdirSync('/proc').filter((pid) => isMirror(pid, lab.dir));
    t.ok(mirrors.length >= 3, 'the tasks are found');
    for (const pid of mirrors)
      t.equal((await run(['nsenter', `--net=/proc/${pid}/ns/net`, '--', ...strict])).code, 0);
    for (const { name, address: target } of lab.lab.nodes) {
      t.equal((await run(lab.lab.commandIn(name, strict))).code, 0);
      for (let i = 0; i < 3; i++) {
        const { port, heard } = await askUdp(target);
        // A client of its own node has its port itself.
        const seen = name === 'node2' ? heard[0]?.split(' ')[0] : heard[0];
        t.equal(seen, name === 'node2' ? target : `${node2?.address} ${port}`, `by ${name}`);
      }
    }
    // Two nodes that come to one task with one client: then one of them speaks for it.
    for (let i = 0; i < 3; i++) {
      const { heard } = await askUdp(...targets);
      t.equal(heard.filter((text) => /^\d/.test(text)).length, 3, heard.join());
    }
    t.match(await ask('node1', '127.0.0.1', 8081), /^::ffff:10\.0\./, 'loopback is not kept');
    t.match(
      await ask('node2', address, 8082),
      new RegExp(`^PROXY TCP4 ${node2?.address} ${address} \\d+ 8082$`),
    );
  });
});
