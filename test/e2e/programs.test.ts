import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { hostOf, scratch, shoalArgv, skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import {
  type Finished,
  must,
  type Running,
  start,
  type Teardown,
  until,
} from './support/process.js';
import { formatRate, type IperfResult, iperfUntil } from './support/tcp.js';

/** Real programs over an overlay: they know nothing of it, and must notice nothing of it. */

const skip = skipUnless('iperf3', 'redis-server', 'redis-cli', 'redis-benchmark', 'nginx', 'curl');

/** The whole file that is carried: long enough for every window to open. */
const FILE_BYTES = process.env['SHOAL_E2E_FULL'] === '1' ? 1 << 30 : 1 << 28;
/** What TCP must reach: far below what it does, far above what a broken path would. */
const TCP_BITS_PER_SECOND_MIN = 0.2e9;
const UDP_LOST_PERCENT_MAX = 5;
const isFast = (result: IperfResult) => result.bitsPerSecond > TCP_BITS_PER_SECOND_MIN;
const isWhole = (result: IperfResult) => result.lostPercent < UDP_LOST_PERCENT_MAX;

interface Wire {
  readonly name: string;
  readonly nodes: number;
  readonly mtuBytes: number;
  readonly overlayMtuBytes: number;
  readonly isIpv6: boolean;
}

const WIRES: readonly Wire[] = [
  { name: 'IPv4 wire of MTU 1500', nodes: 3, mtuBytes: 1500, overlayMtuBytes: 1450, isIpv6: false },
  { name: 'IPv4 wire of MTU 9000', nodes: 2, mtuBytes: 9000, overlayMtuBytes: 8950, isIpv6: false },
  { name: 'IPv6 wire of MTU 1500', nodes: 2, mtuBytes: 1500, overlayMtuBytes: 1430, isIpv6: true },
];

async function makeLab(t: Teardown, wire: Wire): Promise<TestLab> {
  const { nodes, mtuBytes } = wire;
  if (!wire.isIpv6) return TestLab.up(t, { nodes, mtuBytes });
  const lab = await TestLab.up(t, { nodes, mtuBytes, ipv6: true, swarm: false });
  const address6 = (node: string) => lab.lab.node(node).address6 ?? '';
  await lab.call('node1', 'POST', '/swarm/init', {
    ListenAddr: '[::]:2377',
    AdvertiseAddr: address6('node1'),
  });
  const swarm = (await lab.call('node1', 'GET', '/swarm')) as { JoinTokens: { Worker: string } };
  for (const { name: node } of lab.lab.nodes.slice(1)) {
    await lab.call(node, 'POST', '/swarm/join', {
      RemoteAddrs: [`[${address6('node1')}]:2377`],
      JoinToken: swarm.JoinTokens.Worker,
      AdvertiseAddr: address6(node),
      ListenAddr: '[::]:2377',
    });
  }
  return lab;
}

/** A program on the network, by `shoal run`: it has a name, and resolves the others'. */
function startOn(
  t: Teardown,
  lab: TestLab,
  node: string,
  name: string,
  ...command: string[]
): Running {
  const argv = [...shoalArgv, 'run', '--network', 'mesh', '--name', name, '--', ...command];
  return start(t, lab.lab.commandIn(node, argv), { env: lab.lab.envOf(node) });
}

function runOn(lab: TestLab, node: string, ...command: string[]): Promise<Finished> {
  return lab.shoal(node, 'run', '--network', 'mesh', '--', ...command);
}

for (const wire of WIRES) {
  t.test(`programs over an ${wire.name}`, { skip }, async (t) => {
    const lab = await makeLab(t, wire);
    await lab.createNetwork('mesh');
    const last = lab.lab.nodes.at(-1)?.name ?? '';
    for (const { name } of lab.lab.nodes) {
      const { dataPath } = await lab.status(name);
      t.equal(dataPath.underlayMtuBytes, wire.mtuBytes, 'MTU of the wire');
    }

    await t.test('iperf3, TCP and UDP', async (t) => {
      const [server, client] = [await Netns.make(t), await Netns.make(t)];
      const made = await lab.attach('node1', 'mesh', server, { name: 'iperf' });
      await lab.attach(last, 'mesh', client, { name: 'client' });
      t.equal(made.mtuBytes, wire.overlayMtuBytes);
      const address = hostOf(made.addresses[0]);
      await until('it is reached', 5_000, async () => (await client.ping(address)) === 1);
      for (const [name, ...flags] of [['there'], ['back, four streams', '-R', '-P', '4']]) {
        const { bitsPerSecond, retransmits } = await iperfUntil(
          isFast,
          client,
          server,
          address,
          '-t',
          '1',
          ...flags,
        );
        t.ok(bitsPerSecond > TCP_BITS_PER_SECOND_MIN, `TCP ${name}: ${formatRate(bitsPerSecond)}`);
        t.comment(`TCP ${name}: ${formatRate(bitsPerSecond)}, ${retransmits} retransmits`);
      }
      const udp = await iperfUntil(isWhole, client, server, address, '-u', '-b', '10M', '-t', '1');
      t.ok(
        isWhole(udp),
        `UDP of 10 Mbit/s: ${udp.lostPercent.toFixed(2)} % of ${udp.packets} lost`,
      );
    });

    await t.test('redis, by name', async (t) => {
      const folder = scratch(t);
      const flags = ['--save', '', '--protected-mode', 'no', '--dir', folder];
      const server = startOn(t, lab, 'node1', 'cache', 'redis-server', ...flags);
      await until('redis is ready', 10_000, () => /ready to accept/i.test(server.output()));
      const cli = (...words: string[]) => runOn(lab, 'node2', 'redis-cli', '-h', 'cache', ...words);
      await until('its name is known', 5_000, async () => (await cli('ping')).stdout === 'PONG\n');
      t.equal((await cli('set', 'shoal', 'fish')).stdout, 'OK\n');
      t.equal((await cli('get', 'shoal')).stdout, 'fish\n');
      const bench = ['-h', 'cache', '-n', '5000', '-c', '20', '-t', 'set,get', '--csv'];
      const { code, stdout, stderr } = await runOn(lab, last, 'redis-benchmark', ...bench);
      t.equal(code, 0, stderr);
      const rates = [...stdout.matchAll(/^"(SET|GET)","([\d.]+)"/gm)];
      t.equal(rates.length, 2, stdout);
      t.comment(rates.map(([, verb, rate]) => `${verb} ${Math.round(Number(rate))}/s`).join(', '));
      await server.stop();
    });

    await t.test('a large file from nginx, by name', async (t) => {
      const folder = scratch(t);
      mkdirSync(join(folder, 'www'));
      const file = join(folder, 'www', 'large');
      // Random at both ends and here and there; the rest is a hole.
      await must([
        ...['sh', '-c'],
        `for at in 0 17 99 ${FILE_BYTES / 2 ** 20 - 2}; do dd if=/dev/urandom of="$0" bs=1M count=2 seek=$at conv=notrunc status=none; done; truncate -s ${FILE_BYTES} "$0"`,
        file,
      ]);
      const config = join(folder, 'nginx.conf');
      writeFileSync(config, nginxConfig(folder));
      const server = startOn(t, lab, 'node2', 'web', 'nginx', '-c', config);
      const beganMs = performance.now();
      const fetch = () => runOn(lab, 'node1', 'sh', '-c', 'curl -sSf http://web/large | sha256sum');
      await until(
        'nginx answers',
        10_000,
        async () => (await runOn(lab, 'node1', 'curl', '-sSfI', 'http://web/large')).code === 0,
      );
      const [want, got] = await Promise.all([must(['sha256sum', file]), fetch()]);
      t.equal(got.code, 0, got.stderr);
      t.equal(
        got.stdout.split(' ')[0],
        want.split(' ')[0],
        `${FILE_BYTES >> 20} MiB, every bit of it`,
      );
      const seconds = (performance.now() - beganMs) / 1000;
      t.comment(`${FILE_BYTES >> 20} MiB fetched and summed in ${seconds.toFixed(1)} s`);
      await server.stop('SIGTERM');
    });
  });
}

/** In the foreground, with all that it writes in one folder. */
function nginxConfig(folder: string): string {
  const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(
    (kind) => `${kind}_temp_path ${folder}/${kind};`,
  );
  return `daemon off; user root; worker_processes 1; pid ${folder}/pid; error_log ${folder}/error.log;
events {}
http { access_log off; sendfile on; ${paths.join(' ')}
  server { listen 80; location / { root ${folder}/www; } } }
`;
}
