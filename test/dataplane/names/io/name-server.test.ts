import { execFile, execFileSync, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { promisify } from 'node:util';
import t from 'tap';
import { runIpBatch } from '../../../../src/dataplane/io/link.js';
import { openTcpListenerInNetns, openUdpInNetns } from '../../../../src/dataplane/io/netns.js';
import {
  NAME_SERVER_ADDRESS,
  NameIndex,
  NameServer,
} from '../../../../src/dataplane/names/index.js';
import {
  frameMessage,
  MessageSplitter,
} from '../../../../src/dataplane/names/io/stream-messages.js';
import { cannotMakeNamespaces, makeNetns } from '../../sys/netns-fixture.js';
import { decode, encode } from '../core/packets.js';

const hasDig = spawnSync('dig', ['-v']).status === 0;
const skip = cannotMakeNamespaces || (hasDig ? false : 'needs dig');
const linuxOnly = process.platform === 'linux' ? false : 'needs Linux';
const log = { warn: () => {}, debug: () => {} };

const many = Array.from({ length: 90 }, (_, i) => `10.0.2.${i + 1}`);
const NAMES = new NameIndex([
  {
    network: 'mesh',
    entries: [
      { name: 'web', aliases: ['www'], addresses: ['10.0.0.2', '10.0.0.3', 'fd00:10::2'] },
      { name: 'many', aliases: [], addresses: many },
    ],
  },
]);

type Teardown = { teardown(work: () => unknown): unknown };

/** A server on loopback of this namespace, and the port that it got. */
async function openHere(
  t: Teardown,
  upstreams: readonly string[] = [],
): Promise<{ server: NameServer; port: number }> {
  for (let attempt = 0; ; attempt++) {
    const port = 20_000 + Math.floor(Math.random() * 20_000);
    try {
      const tcpFd = openTcpListenerInNetns(undefined, '127.0.0.1', port);
      const udpFd = openUdpInNetns(undefined, '127.0.0.1', port);
      const server = await NameServer.open({ udpFd, tcpFd, names: NAMES, upstreams, seed: 1, log });
      t.teardown(() => server.close());
      return { server, port };
    } catch (error) {
      if (attempt === 5) throw error;
    }
  }
}

async function askUdp(port: number, message: Buffer): Promise<Buffer> {
  const socket = createSocket('udp4');
  try {
    socket.send(message, port, '127.0.0.1');
    const [reply] = (await once(socket, 'message', { signal: AbortSignal.timeout(8_000) })) as [
      Buffer,
    ];
    return reply;
  } finally {
    socket.close();
  }
}

/** An upstream on loopback that answers, lies, or keeps silent as `answer` says. */
async function openUpstream(
  t: Teardown,
  answer: (query: Buffer) => readonly Buffer[],
): Promise<string> {
  const socket = createSocket('udp4');
  socket.on('message', (query, client) => {
    for (const reply of answer(query)) socket.send(reply, client.port, client.address);
  });
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.teardown(() => socket.close());
  return `127.0.0.1#${socket.address().port}`;
}

/** The messages that a chunk completes. */
function messagesOf(splitter: MessageSplitter, chunk: Buffer): readonly Buffer[] {
  splitter.push(chunk);
  const messages: Buffer[] = [];
  for (let next = splitter.take(); next !== undefined; next = splitter.take()) messages.push(next);
  return messages;
}

/** A response to `query` with an rcode and no records. */
function respond(query: Buffer, rcode: number): Buffer {
  const response = Buffer.from(query);
  response.writeUInt16BE(0x8180 | rcode, 2);
  return response;
}

t.test('dig in the namespace gets names, pointers and long answers', { skip }, async (t) => {
  const netns = makeNetns(t);
  await runIpBatch(netns.path, ['link set dev lo up']);
  const server = await NameServer.open({
    udpFd: openUdpInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
    tcpFd: openTcpListenerInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
    names: NAMES,
    upstreams: [],
    seed: 1,
    log,
  });
  t.teardown(() => server.close());
  const dig = async (...args: string[]) => {
    const command = [
      'netns',
      'exec',
      netns.name,
      'dig',
      '@127.0.0.11',
      '+tries=1',
      '+time=5',
      ...args,
    ];
    const { stdout } = await promisify(execFile)('ip', command);
    return stdout;
  };
  t.strictSame((await dig('+short', 'web', 'A')).trim().split('\n').sort(), [
    '10.0.0.2',
    '10.0.0.3',
  ]);
  t.equal((await dig('+short', 'WWW.mesh', 'AAAA')).trim(), 'fd00:10::2');
  t.equal((await dig('+short', '-x', '10.0.0.3')).trim(), 'web.mesh.');
  t.match(await dig('nobody'), /status: NXDOMAIN/);
  t.match(await dig('example.com'), /status: SERVFAIL/);
  t.equal((await dig('+short', '+tcp', 'tasks.many')).trim().split('\n').length, 90);
  t.equal((await dig('+short', '+noedns', 'many')).trim().split('\n').length, 90, 'TC, then TCP');
  t.match(await dig('+noedns', '+ignore', 'many'), /flags: qr tc/);
  t.match(server.stats(), { forwardsFailed: 0, sendErrors: 0, names: 6 });

  server.setNames(new NameIndex([]));
  t.match(await dig('web'), /status: NXDOMAIN/, 'a new table holds at once');
});

t.test('getent in the namespace resolves through resolv.conf', { skip }, async (t) => {
  const netns = makeNetns(t);
  // The C library asks for IPv4 only where an IPv4 address besides loopback exists.
  await runIpBatch(netns.path, [
    'link set dev lo up',
    'link add eth0 type bridge',
    'address add 10.0.0.100/24 dev eth0',
    'link set dev eth0 up',
  ]);
  const server = await NameServer.open({
    udpFd: openUdpInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
    tcpFd: openTcpListenerInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
    names: NAMES,
    upstreams: [],
    seed: 1,
    log,
  });
  t.teardown(() => server.close());
  const script =
    'f=$(mktemp); echo "nameserver 127.0.0.11" >$f; mount --bind $f /etc/resolv.conf; rm $f; exec getent ahostsv4 web';
  const { stdout } = await promisify(execFile)('ip', [
    'netns',
    'exec',
    netns.name,
    'sh',
    '-c',
    script,
  ]);
  t.match(stdout, /10\.0\.0\.2/);
  t.match(stdout, /10\.0\.0\.3/);
});

t.test('it answers from its own address where loopback never was up', { skip }, async (t) => {
  const netns = makeNetns(t);
  const server = await NameServer.open({
    udpFd: openUdpInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
    tcpFd: openTcpListenerInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
    names: NAMES,
    upstreams: [],
    seed: 1,
    log,
  });
  t.teardown(() => server.close());
  const dig = ['dig', '@127.0.0.11', '+short', '+tries=1', '+time=5', 'web'];
  const { stdout } = await promisify(execFile)('ip', ['netns', 'exec', netns.name, ...dig]);
  t.match(stdout, /10\.0\.0\.2/);
});

t.test('the sockets go when the server is closed', { skip }, async (t) => {
  const netns = makeNetns(t);
  await runIpBatch(netns.path, ['link set dev lo up']);
  for (let i = 0; i < 3; i++) {
    const server = await NameServer.open({
      udpFd: openUdpInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
      tcpFd: openTcpListenerInNetns(netns.path, NAME_SERVER_ADDRESS, 53),
      names: NAMES,
      upstreams: [],
      seed: 1,
      log,
    });
    await server.close();
    await server.close();
  }
  const left = execFileSync('ip', ['netns', 'exec', netns.name, 'ss', '-Hlntu'], {
    encoding: 'utf8',
  });
  t.equal(left, '');
});

t.test(
  'names of the world are asked upstream, under another id',
  { skip: linuxOnly },
  async (t) => {
    const ids: number[] = [];
    const upstream = await openUpstream(t, (query) => {
      ids.push(query.readUInt16BE(0));
      return [respond(query, 3)];
    });
    const { server, port } = await openHere(t, [upstream]);
    for (let id = 1; id <= 8; id++) {
      const reply = decode(await askUdp(port, encode('example.com', 'A', { id })));
      t.match(reply, { id, rcode: 'NXDOMAIN' });
    }
    t.notSame(ids, [1, 2, 3, 4, 5, 6, 7, 8], 'ids are our own');
    t.match(server.stats(), { repliesForwarded: 8, forwardsWaiting: 0, queriesUdp: 8 });
  },
);

t.test('a forged answer is passed over, a failing upstream too', { skip: linuxOnly }, async (t) => {
  const failing = await openUpstream(t, (query) => [respond(query, 2)]);
  const good = await openUpstream(t, (query) => {
    const forged = respond(query, 0);
    forged.writeUInt16BE((query.readUInt16BE(0) + 1) & 0xffff, 0);
    return [Buffer.alloc(3), forged, respond(query, 3)];
  });
  const refused = '127.0.0.1#9';
  const { port } = await openHere(t, [refused, failing, good]);
  t.equal(decode(await askUdp(port, encode('example.com', 'A'))).rcode, 'NXDOMAIN');
});

t.test(
  'an upstream that stays silent ends in SERVFAIL, in time',
  { skip: linuxOnly },
  async (t) => {
    const silent = await openUpstream(t, () => []);
    const { server, port } = await openHere(t, [silent]);
    t.equal(decode(await askUdp(port, encode('example.com', 'A'))).rcode, 'SERVFAIL');
    t.match(server.stats(), { forwardsFailed: 1, forwardsWaiting: 0 });
  },
);

t.test('closing does not wait for upstreams', { skip: linuxOnly }, async (t) => {
  const silent = await openUpstream(t, () => []);
  const { server, port } = await openHere(t, [silent]);
  const socket = createSocket('udp4');
  socket.send(encode('example.com', 'A'), port, '127.0.0.1');
  while (server.stats().forwardsWaiting === 0) await new Promise((done) => setImmediate(done));
  await server.close();
  socket.close();
  t.pass('closed');
});

t.test(
  'TCP: queries in one piece or in many, and forwarded by TCP',
  { skip: linuxOnly },
  async (t) => {
    const upstream = createServer((socket) => {
      const splitter = new MessageSplitter();
      socket.on('error', () => {});
      socket.on('data', (chunk) => {
        for (const query of messagesOf(splitter, chunk))
          socket.write(frameMessage(respond(query, 3)));
      });
    });
    upstream.listen(0, '127.0.0.1');
    await once(upstream, 'listening');
    t.teardown(() => upstream.close());
    const { port: upstreamPort } = upstream.address() as { port: number };
    const { server, port } = await openHere(t, [`127.0.0.1#${upstreamPort}`]);
    const socket = connect(port, '127.0.0.1');
    const splitter = new MessageSplitter();
    const replies: Buffer[] = [];
    socket.on('data', (chunk) => replies.push(...messagesOf(splitter, chunk)));
    const wire = Buffer.concat([
      frameMessage(encode('web', 'A', { id: 1 })),
      frameMessage(encode('many', 'A', { id: 2 })),
      frameMessage(encode('example.com', 'A', { id: 3 })),
    ]);
    for (const byte of wire) socket.write(Buffer.of(byte));
    while (replies.length < 3) await once(socket, 'data', { signal: AbortSignal.timeout(5_000) });
    const byId = new Map(replies.map((reply) => [decode(reply).id, decode(reply)]));
    t.equal(byId.get(1)?.answers.length, 2);
    t.equal(byId.get(2)?.answers.length, 90);
    t.equal(byId.get(3)?.rcode, 'NXDOMAIN');
    t.equal(server.stats().queriesTcp, 3);
    socket.destroy();
  },
);

t.test('noise is counted and answered by nothing', { skip: linuxOnly }, async (t) => {
  const { server, port } = await openHere(t);
  const socket = createSocket('udp4');
  socket.send(Buffer.from('noise'), port, '127.0.0.1');
  socket.send(respond(encode('web', 'A'), 0), port, '127.0.0.1');
  t.equal(decode(await askUdp(port, encode('web', 'A'))).rcode, 'NOERROR', 'and the server lives');
  t.strictSame(server.stats().drops, { dns_truncated: 1, dns_not_a_query: 1 });
  socket.close();
});
