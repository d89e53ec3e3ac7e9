import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import { Netns } from './support/netns.js';
import { must, start, type Teardown, until } from './support/process.js';

/**
 * A service that changes under load loses no request, and its tasks see who their clients are. The same at
 * length, with faults: `npm run chaos -- ingress`.
 */

const skip = skipUnless('docker', 'node', 'nft');
const scripts = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'scripts/chaos');
const PORT = 8080;

interface Told {
  readonly [kind: string]: {
    readonly count: number;
    readonly failed: number;
    readonly failures: readonly string[];
  };
}

/** Answers with the address of its client, or with what the client sent before. */
const MIRROR = `require('net').createServer((s) => {
  s.on('error', () => {});
  s.once('data', (d) => s.end(d.toString().split('\\r\\n')[0] + '\\n'));
}).listen(80)`;

/** Says where it is and who its client is: by TCP and UDP, bound to all addresses, and to those of IPv4. */
const WHO = `const { createServer } = require('net'), { createSocket } = require('dgram');
const say = (address, port) => [process.env.HOST, address.replace('::ffff:', ''), port].join(' ');
for (const at of [[80, '::'], [82, '0.0.0.0']])
  createServer((s) => s.on('error', () => {}).end(say(s.remoteAddress, s.remotePort))).listen(...at);
for (const [type, port] of [['udp6', 81], ['udp4', 83]]) {
  const s = createSocket(type);
  s.on('message', (_, { address, port }) => s.send(say(address, port), port, address));
  s.bind(port);
}`;
/** Where these are published. */
const WHO_PORTS = ['8081:80', '8083:81/udp', '8084:82', '8085:83/udp'];

/** Asks each address three times from one port of its own, one connection after another; prints the answers. */
const ASK_BY_ONE_PORT = `const net = require('net'), [own, ...hosts] = process.argv.slice(1);
const ask = (host) => new Promise((resolve, reject) => {
  let heard = '';
  const s = net.connect({ host, port: 8081, localPort: +own });
  s.on('data', (d) => { heard += d; }).on('error', reject).on('close', () => resolve(heard));
});
(async () => {
  const all = [];
  for (let i = 0; i < 3; i++) for (const host of hosts) all.push(await ask(host));
  console.log(JSON.stringify(all));
})();`;

/** Asks each `PROTOCOL PORT ADDRESS` once; prints each with the port it asked from, and the answer. */
const ASK = `const net = require('net'), { createSocket } = require('dgram');
const ask = (text) => new Promise((resolve) => {
  const [protocol, port, address] = text.split(' ');
  let own, heard = '';
  const end = (close, word = heard) => { clearTimeout(timer); resolve([text, own, word]); close(); };
  const timer = setTimeout(() => end(() => {}, 'silent'), 5000);
  if (protocol === 'tcp') {
    const s = net.connect(+port, address, () => { own = s.localPort; s.write('x'); });
    s.on('data', (d) => { heard += d; });
    s.on('error', (e) => end(() => {}, e.code));
    s.on('end', () => end(() => s.end()));
  } else {
    const s = createSocket(address.includes(':') ? 'udp6' : 'udp4');
    s.on('message', (d) => end(() => s.close(), String(d)));
    s.bind(0, () => { own = s.address().port; s.send('x', +port, address); });
  }
});
(async () => {
  const all = [];
  for (const text of process.argv.slice(1)) all.push(await ask(text));
  process.stdout.write(JSON.stringify(all), () => process.exit());
})()`;

/** One socket asks all of its targets, each until it is answered, and prints what they say. */
const ASK_UDP = `const targets = process.argv.slice(1);
const s = require('dgram').createSocket(targets[0].includes(':') ? 'udp6' : 'udp4');
const heard = new Map();
const end = () => {
  console.log(JSON.stringify(targets.map((t) => heard.get(t) ?? '')));
  process.exit();
};
s.on('message', (text, { address }) => {
  heard.set(address, String(text));
  if (heard.size === targets.length) end();
});
s.bind(0, () => targets.forEach((t) => s.send('x', 8083, t)));
setTimeout(end, 5000)`;

/** Drops what comes by a link that its sender would not be answered by. */
const STRICT = `for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 > $f; done
nft -f - <<'END'
table ip6 strict {
  chain in {
    type filter hook prerouting priority -300
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    fib saddr . iif oif missing drop
  }
}
END`;

/** Whether it is a task of this lab's service `who`. */
function isWho(pid: string, dir: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').endsWith(`s.bind(port);\n}\0${dir}\0`);
  } catch {
    return false;
  }
}

const CLIENT = ['10.213.0.200', 'fd00:213::200'] as const;

/** A host on the lab's wire that is no node. */
async function raiseClient(t: Teardown, { lab }: TestLab): Promise<Netns> {
  const client = await Netns.make(t);
  const wire = lab.node('node1').netns.replace(/node1$/, 'wire');
  for (const line of [
    `-n ${wire} link add p-client type veth peer name eth0 netns ${client.name}`,
    `-n ${wire} link set dev p-client master br0 up`,
    `-n ${client.name} link set dev eth0 up`,
    `-n ${client.name} address add ${CLIENT[0]}/16 dev eth0`,
    `-n ${client.name} address add ${CLIENT[1]}/64 dev eth0 nodad`,
  ])
    await must(['ip', ...line.split(' ')]);
  return client;
}

type Answer = readonly [asked: string, port: number, heard: string];

t.test('a service changes under load, and its clients are known', { skip }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 3, ipv6: true });
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
  await create('told', 8082, 1, '--label', 'shoal.client-address=proxy-v1', ...mirror);
  const createWho = () =>
    docker(
      ...['service', 'create', '--detach', '--name', 'who', '--mode', 'global'],
      ...WHO_PORTS.flatMap((port) => ['--publish', port]),
      ...['--env', 'HOST={{.Node.Hostname}}', 'host', process.execPath, '-e', WHO, lab.dir],
    );
  await createWho();
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

  const client = await raiseClient(t, lab);
  const { nodes } = lab.lab;
  const ask = async (argv: readonly string[]): Promise<readonly Answer[]> =>
    JSON.parse(await must(argv));
  const askFrom = (node: string, ...asked: readonly string[]) =>
    ask(lab.lab.commandIn(node, [process.execPath, '-e', ASK, ...asked]));
  /** Each task, through each node, by each protocol and family. */
  const askAll = async (t: Test) => {
    const asked = nodes.flatMap(({ address, address6 = '' }) =>
      ['tcp 8081', 'udp 8083', 'tcp 8084', 'udp 8085'].flatMap((port) =>
        [address, address6].flatMap((to) => nodes.map(() => `${port} ${to}`)),
      ),
    );
    const answers: Answer[] = [];
    const tasks = new Map(asked.map((text) => [text, new Set<string>()]));
    // Turns are strict, but for those of a port that becomes busy.
    for (let more = asked; more.length > 0 && answers.length < 3 * asked.length; ) {
      const heard = await ask(client.argv([process.execPath, '-e', ASK, ...more]));
      answers.push(...heard);
      for (const [text, , answer] of heard) tasks.get(text)?.add(answer.split(' ')[0] ?? '');
      more = asked.filter((text) => tasks.get(text)?.size !== nodes.length);
    }
    for (const [text, port, heard] of answers) {
      const [, address = '', seenPort] = heard.split(' ');
      const isV6 = text.includes(':');
      // What listens by IPv4 alone is spoken to by the node.
      if (isV6 && / 808[45] /.test(text)) t.match(address, /^10\./, `${text}: ${heard}`);
      else t.equal(`${address} ${seenPort}`, `${CLIENT[isV6 ? 1 : 0]} ${port}`, text);
    }
    for (const [text, names] of tasks)
      t.strictSame([...names].sort(), ['node1', 'node2', 'node3'], `tasks by ${text}`);
  };
  const beStrict = async (t: Test) => {
    const tasks = readdirSync('/proc').filter((pid) => isWho(pid, lab.dir));
    t.ok(tasks.length >= 3, 'the tasks are found');
    const spaces = [
      ...tasks.map((pid) => `/proc/${pid}/ns/net`),
      ...nodes.map((n) => `/run/netns/${n.netns}`),
    ];
    for (const space of spaces) await must(['nsenter', `--net=${space}`, '--', 'sh', '-c', STRICT]);
  };

  await t.test('tasks on all nodes see the client’s own address', async (t) => {
    await running('who', 3);
    await beStrict(t);
    await askAll(t);
    const [{ address = '', address6 = '' } = {}] = nodes;
    const node2 = lab.lab.node('node2');
    const [four, six] = await askFrom('node2', `tcp 8081 ${address}`, `tcp 8081 ${address6}`);
    t.match([four?.[2], six?.[2]], [` ${node2.address} `, ` ${node2.address6} `], 'a node, too');
    // Nodes that come to one task with one client: then one of them speaks for it.
    for (const targets of [nodes.map((n) => n.address), nodes.map((n) => n.address6 ?? '')])
      for (let i = 0; i < 3; i++) {
        const argv = client.argv([process.execPath, '-e', ASK_UDP, ...targets]);
        const heard = JSON.parse(await must(argv)) as readonly string[];
        t.equal(heard.filter((text) => /^node/.test(text)).length, 3, heard.join());
      }
    // As a balancer before the nodes, with one port: each task is asked by each node within a minute.
    for (const [port, targets] of [
      ['23456', nodes.map((n) => n.address)],
      ['23457', nodes.map((n) => n.address6 ?? '')],
    ] as const) {
      const argv = client.argv([process.execPath, '-e', ASK_BY_ONE_PORT, port, ...targets]);
      const heard = JSON.parse(await must(argv)) as readonly string[];
      const seen = heard.map((text) => text.split(' '));
      t.equal(new Set(seen.map(([node]) => node)).size, 3, heard.join());
      t.equal(new Set(seen.map(([, address]) => address)).size, 1, 'by no node’s address');
      t.equal(seen.filter(([, , its]) => its === port).length, 3, 'and its port once at each task');
    }
    const own = await askFrom('node1', 'tcp 8081 127.0.0.1', 'tcp 8081 ::1');
    for (const [text, , heard] of own) t.match(heard, / 10\.0\./, `${text} is not kept`);
    const [told] = await askFrom('node2', `tcp 8082 ${address}`);
    t.match(told?.[2].trim(), new RegExp(`^PROXY TCP4 ${node2.address} ${address} \\d+ 8082$`));
  });

  await t.test('so they do where the ingress network is encrypted', async (t) => {
    await docker('service', 'rm', 'web', 'told', 'who');
    await until('the ingress network is gone', 30_000, async () => {
      const { code } = await lab.dockerWith('y\n', 'node1', 'network', 'rm', 'ingress');
      return code === 0;
    });
    const options = ['--driver', 'overlay', '--ingress', '--opt', 'encrypted'];
    await docker('network', 'create', ...options, '--subnet', '10.11.0.0/16', 'my-ingress');
    await createWho();
    await running('who', 3);
    await askAll(t);
    const { counters } = await lab.status('node1');
    t.equal(counters.drops['unsealed'], 0);
    t.ok((counters.io['datagramsSealed'] ?? 0) > 0, 'and what goes between nodes is sealed');
  });
});
