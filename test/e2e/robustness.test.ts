import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { type Attached, hostOf, skipUnless, TestLab } from './support/lab.js';
import { answeredOf, Netns, sentOf } from './support/netns.js';
import { must, until } from './support/process.js';
import { formatRate, iperf } from './support/tcp.js';

/** Strangers and forgers on the wire: everything is counted, nothing stops. */

const skip = skipUnless('iperf3', 'dig');
const NODES = ['node1', 'node2', 'node3'] as const;
type NodeName = (typeof NODES)[number];
const VNI = 4097;
const STRANGER = '10.213.9.9';

interface Place {
  readonly netns: Netns;
  readonly made: Attached;
  readonly address: string;
}

interface World {
  readonly lab: TestLab;
  readonly stranger: Netns;
  readonly places: Readonly<Record<NodeName, Place>>;
}

async function makeWorld(): Promise<World> {
  const lab = await TestLab.up(t, { nodes: NODES.length });
  await lab.createNetwork('mesh');
  const place = async (node: NodeName): Promise<Place> => {
    const netns = await Netns.make(t);
    const made = await lab.attach(node, 'mesh', netns, { name: `on-${node}` });
    return { netns, made, address: hostOf(made.addresses[0]) };
  };
  const places = {
    node1: await place('node1'),
    node2: await place('node2'),
    node3: await place('node3'),
  };
  for (const node of ['node2', 'node3'] as const)
    await until(
      'they reach each other',
      5_000,
      async () => (await places.node1.netns.ping(places[node].address)) === 1,
    );
  const stranger = await lab.hostOnWire(t, `${STRANGER}/16`);
  return { lab, stranger, places };
}

const opened = skip === false ? makeWorld() : undefined;
const theWorld = () => opened as Promise<World>;

const bytesOf = (mac: string) => mac.split(':').map((byte) => Number.parseInt(byte, 16));

interface Forged {
  readonly vni?: number;
  readonly flags?: number;
  readonly to: string;
  readonly from: string;
  readonly etherType?: number;
  readonly innerBytes?: number;
}

/** A VXLAN datagram with an Ethernet frame of nothing in particular. */
function forge(forged: Forged): Buffer {
  const { vni = VNI, flags = 0x08, etherType = 0x88b5, innerBytes = 60 } = forged;
  const header = Buffer.from([flags, 0, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0]);
  const frame = Buffer.alloc(Math.max(innerBytes, 14));
  frame.set([...bytesOf(forged.to), ...bytesOf(forged.from), etherType >> 8, etherType & 255]);
  return Buffer.concat([header, frame.subarray(0, innerBytes)]);
}

/** Sends datagrams from wherever it runs: address, port, and each datagram in hex. */
const SEND = `
const [address, port, ...datagrams] = process.argv.slice(1);
const socket = require('node:dgram').createSocket('udp4');
let left = datagrams.length;
for (const hex of datagrams) socket.send(Buffer.from(hex, 'hex'), Number(port), address, () => { if (--left === 0) socket.close(); });
`;

const COPIES = 7;
const UNKNOWN_MAC = '02:42:0a:63:63:63';

t.test('each kind of bad datagram is counted as what it is', { skip }, async (t) => {
  const { lab, stranger, places } = await theWorld();
  const target = lab.lab.node('node1').address;
  const { mac: own } = places.node1.made;
  const { mac: fair } = places.node2.made;
  const { mac: third } = places.node3.made;
  const inNode = (node: NodeName, command: readonly string[]) =>
    must(lab.lab.commandIn(node, command));
  const from = {
    stranger: (command: readonly string[]) => stranger.must(command),
    node1: (command: readonly string[]) => inNode('node1', command),
    node2: (command: readonly string[]) => inNode('node2', command),
  };
  const frame = { to: own, from: fair };
  const cases: readonly (readonly [string, keyof typeof from, Buffer])[] = [
    ['vxlan_truncated', 'node2', Buffer.from([8, 0, 0, 0])],
    ['vxlan_vni_invalid', 'node2', forge({ ...frame, flags: 0 })],
    ['vni_unknown', 'node2', forge({ ...frame, vni: 99_999 })],
    ['vtep_unknown', 'stranger', forge(frame)],
    // With our own address as sender.
    ['looped', 'node1', forge(frame)],
    ['looped', 'node2', forge({ ...frame, from: own })],
    ['inner_truncated', 'node2', forge({ ...frame, innerBytes: 13 })],
    ['oversized', 'node2', forge({ ...frame, innerBytes: 1450 + 14 + 5 })],
    ['oversized', 'node2', forge({ ...frame, innerBytes: 9000 })],
    ['vlan_tagged', 'node2', forge({ ...frame, etherType: 0x8100 })],
    ['mac_invalid', 'node2', forge({ ...frame, from: 'ff:ff:ff:ff:ff:ff' })],
    ['mac_spoofed', 'node2', forge({ ...frame, from: third })],
    ['mac_unknown', 'node2', forge({ ...frame, to: UNKNOWN_MAC })],
    ['mac_remote', 'node2', forge({ ...frame, to: third })],
  ];
  const drops = async () => (await lab.status('node1')).counters.drops;
  for (const [reason, sender, datagram] of cases) {
    const before = (await drops())[reason] ?? 0;
    const hex = Array.from({ length: COPIES }, () => datagram.toString('hex'));
    await from[sender]([process.execPath, '-e', SEND, target, '4789', ...hex]);
    const counted = await until(`${reason} is counted`, 3_000, async () => {
      const more = ((await drops())[reason] ?? 0) - before;
      return more >= COPIES ? more : undefined;
    }).catch(async () => ((await drops())[reason] ?? 0) - before);
    t.equal(counted, COPIES, `${reason}, ${datagram.length} bytes from ${sender}`);
  }
  const largest = forge({ ...frame, innerBytes: 1450 + 14 }).toString('hex');
  const rx = (await lab.status('node1')).counters.totals['rxFrames'] ?? 0;
  await from.node2([process.execPath, '-e', SEND, target, '4789', largest]);
  await until(
    'a fair frame of full size is let in',
    3_000,
    async () => ((await lab.status('node1')).counters.totals['rxFrames'] ?? 0) > rx,
  );
});

/** Noise as fast as one sender can, for so many ms, to two ports: random, half right, and small. */
const FLOOD = `
const [address, durationMs, ...templates] = process.argv.slice(1);
const { randomFillSync } = require('node:crypto');
const dgram = require('node:dgram');
const socket = dgram.createSocket({ type: 'udp4', sendBufferSize: 1 << 20 });
const noise = Array.from({ length: 64 }, (_, i) => randomFillSync(Buffer.alloc((i * 23) % 1400)));
const all = [...noise, ...templates.map((hex) => Buffer.from(hex, 'hex'))];
const endMs = performance.now() + Number(durationMs);
let sent = 0;
function burst() {
  if (performance.now() > endMs) { console.log('sent ' + sent); socket.close(); return; }
  let left = 64;
  for (let i = 0; i < 64; i++)
    socket.send(all[sent++ % all.length], sent % 4 === 0 ? 7946 : 4789, address, () => { if (--left === 0) burst(); });
}
burst();
`;
const FLOOD_MS = 3000;

t.test('a flood of garbage on the data and gossip ports', { skip }, async (t) => {
  const { lab, stranger, places } = await theWorld();
  const [a, b] = [places.node1, places.node2];
  const { pid } = (await lab.lab.status()).nodes[0] ?? {};
  const dropsOf = async () => (await lab.status('node1')).counters.drops;
  const before = await dropsOf();
  const calm = await iperf(b.netns, a.netns, a.address, '-t', '1');

  const templates = [
    forge({ to: a.made.mac, from: b.made.mac }),
    forge({ to: a.made.mac, from: b.made.mac, vni: 5 }),
    forge({ to: 'ff:ff:ff:ff:ff:ff', from: UNKNOWN_MAC }),
  ].map((datagram) => datagram.toString('hex'));
  const target = lab.lab.node('node1').address;
  const flood = stranger.start(t, [
    ...[process.execPath, '-e', FLOOD, target, String(FLOOD_MS), ...templates],
  ]);
  const pings = b.netns.start(t, b.netns.pingArgv(a.address, { count: 250, intervalMs: 10 }));
  const loaded = await iperf(b.netns, a.netns, a.address, '-t', '2');
  const sent = Number(/sent (\d+)/.exec((await flood.finished).stdout)?.[1] ?? 0);
  const { stdout } = await pings.finished;
  const lostPercent = 100 - (100 * answeredOf(stdout)) / sentOf(stdout);
  const share = loaded.bitsPerSecond / calm.bitsPerSecond;
  t.comment(
    `${sent} datagrams in ${FLOOD_MS} ms; TCP ${formatRate(calm.bitsPerSecond)} before, ${formatRate(loaded.bitsPerSecond)} meanwhile; ${lostPercent.toFixed(1)} % of pings lost`,
  );
  t.ok(sent > 10_000, `a flood it was: ${sent} datagrams`);
  t.ok(share > 0.05, `traffic goes on: ${(share * 100).toFixed(0)} % of what it was`);
  t.ok(lostPercent < 10, `pings go on: ${lostPercent.toFixed(1)} % lost`);

  const after = await dropsOf();
  const counted = Object.entries(after)
    .map(([reason, count]) => [reason, count - (before[reason] ?? 0)] as const)
    .filter(([, count]) => count > 0);
  t.comment(counted.map(([reason, count]) => `${reason} ${count}`).join(', '));
  const total = counted.reduce((sum, [, count]) => sum + count, 0);
  t.ok(total > sent / 4, `${total} were counted by reason`);
  for (const reason of ['vxlan_truncated', 'vni_unknown', 'vtep_unknown'])
    t.ok((after[reason] ?? 0) > (before[reason] ?? 0), `${reason} among them`);
  const { gossip } = await lab.status('node1');
  const refused = Object.values(gossip.drops).reduce((sum, count) => sum + count, 0);
  t.ok(refused > 0, `gossip refused ${refused} packets`);
  t.equal((await lab.lab.status()).nodes[0]?.pid, pid, 'it is the same agent');
  await allAlive(lab);
  t.equal(await b.netns.ping(a.address, { count: 10, intervalMs: 10 }), 10, 'calm again');
});

async function allAlive(lab: TestLab): Promise<void> {
  await until('all members are alive everywhere', 10_000, async () => {
    const views = await Promise.all(NODES.map((node) => lab.status(node)));
    return views.every(({ members }) => members.filter((m) => m.state === 'alive').length === 3);
  });
}

/** Connections that say something else, say half of it, or say nothing; tells when all are closed. */
const CONNECT = `
const [address, port] = process.argv.slice(1);
const { randomFillSync } = require('node:crypto');
const net = require('node:net');
// The beginning of a TLS record: a ClientHello of 512 bytes, of which few come.
const half = Buffer.from('16030102000100' + '01fc0303' + '00'.repeat(40), 'hex');
const says = [randomFillSync(Buffer.alloc(300)), half, Buffer.from('GET / HTTP/1.0\\r\\n\\r\\n'), Buffer.from('/multistream/1.0.0'), undefined];
let open = 0;
for (let i = 0; i < 50; i++) {
  const socket = net.connect(Number(port), address);
  open++;
  socket.on('connect', () => { const what = says[i % says.length]; if (what) socket.write(what); });
  socket.on('error', () => {});
  socket.on('data', () => {});
  socket.on('close', () => { if (--open === 0) console.log('all closed'); });
}
console.log('all begun');
setInterval(() => {}, 1000);
`;

t.test('garbage and half-open handshakes on the TCP ports', { skip }, async (t) => {
  const { lab, stranger, places } = await theWorld();
  const target = lab.lab.node('node1').address;
  const callers = ['2377', '7946'].map((port) => ({
    port,
    caller: stranger.start(t, [process.execPath, '-e', CONNECT, target, port]),
  }));
  for (const { caller } of callers)
    await until('the strangers call', 5_000, () => caller.output().includes('all begun'));
  const beganMs = performance.now();

  await lab.createNetwork('other');
  const late = await Netns.make(t);
  const made = await lab.attach('node3', 'mesh', late, { name: 'late' });
  await until(
    'a new endpoint is reached',
    5_000,
    async () => (await places.node1.netns.ping(hostOf(made.addresses[0]))) === 1,
  );
  t.comment(`created, attached and reached in ${Math.round(performance.now() - beganMs)} ms`);
  t.equal((await lab.docker('node1', 'node', 'ls')).code, 0, 'the manager answers');
  await lab.call('node3', 'POST', '/shoal/v1/detach', { id: made.id });

  for (const { port, caller } of callers) {
    await until(`port ${port} hangs up on all`, 20_000, () =>
      caller.output().includes('all closed'),
    );
    t.comment(
      `port ${port} has hung up on all after ${Math.round(performance.now() - beganMs)} ms`,
    );
  }
  await allAlive(lab);
  t.equal(await places.node2.netns.ping(places.node1.address), 1);
});

const HOSTILE = join(
  dirname(dirname(dirname(fileURLToPath(import.meta.url)))),
  'scripts/chaos/hostile-client.mjs',
);
const HARM_SECONDS = 5;
/** By TCP: a length, and less than that; and a question for `on-node1`, type A, of which nobody reads the answers. */
const HALF_QUERY = '\0\x40half';
const QUESTION = `\0\x01\x01\0\0\x01${'\0'.repeat(6)}\x08on-node1\0\0\x01\0\x01`;
const UNREAD = `\0${String.fromCharCode(QUESTION.length)}${QUESTION}`;

t.test(
  'programs that mean harm ask the resolver beside one that means well',
  { skip },
  async (t) => {
    const { lab, places } = await theWorld();
    const { netns } = places.node2;
    const pidOf = async () => (await lab.lab.status()).nodes[1]?.pid;
    const pid = await pidOf();
    const common = { host: '127.0.0.11', port: 53, seconds: HARM_SECONDS };
    const harm = [
      { mode: 'datagrams', bytes: 200, perSecond: 3000, garbage: true },
      { mode: 'hold', count: 300, say: HALF_QUERY },
      { mode: 'hold', count: 30, say: UNREAD, times: 20_000 },
    ].map((wish) =>
      netns.start(t, [process.execPath, HOSTILE, JSON.stringify({ ...common, ...wish })]),
    );
    const slowestMs = { udp: 0, tcp: 0 };
    let asked = 0;
    const isHarming = () => harm.some(({ child }) => child.exitCode === null);
    do {
      for (const transport of ['udp', 'tcp'] as const) {
        const beganMs = performance.now();
        const flag = transport === 'tcp' ? '+tcp' : '+notcp';
        // Its own queue at the socket is full of garbage, too: datagrams may be lost, as anywhere.
        const argv = ['dig', '@127.0.0.11', flag, '+short', '+tries=6', '+time=1', 'on-node1'];
        const [answer] = (await netns.must(argv)).trim().split('\n').slice(-1);
        t.equal(answer, places.node1.address, `by ${transport}`);
        slowestMs[transport] = Math.max(slowestMs[transport], performance.now() - beganMs);
        asked += 1;
      }
    } while (isHarming());
    t.ok(
      asked > 4,
      `${asked} questions, the slowest took ${Math.round(slowestMs.udp)} ms by UDP, ${Math.round(slowestMs.tcp)} ms by TCP`,
    );
    for (const { finished } of harm) {
      const { code, stdout, stderr } = await finished;
      t.equal(code, 0, stdout + stderr);
    }
    const { names } = (await lab.call('node2', 'GET', '/shoal/v1/status')) as {
      names: { refusals: Readonly<Record<string, number>> };
    };
    t.comment(JSON.stringify(names));
    t.ok((names.refusals['connectionsEvicted'] ?? 0) > 0, 'of many connections few are kept');
    t.ok((names.refusals['dns_not_a_query'] ?? 0) > 0, 'garbage is counted');
    t.equal(await pidOf(), pid, 'it is the same agent');
    await allAlive(lab);
  },
);
