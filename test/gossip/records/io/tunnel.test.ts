import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { Duplex, Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import t, { type Test } from 'tap';
import { Planes, until } from './planes.js';

const never = new AbortController().signal;

/** As node:stream/consumers does, but without destroying what can still be written to. */
async function buffer(stream: Readable): Promise<Buffer> {
  const chunks: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => chunks.push(chunk));
  await once(stream, 'end');
  return Buffer.concat(chunks);
}

async function twoPlanes(t: Test): Promise<Planes> {
  const planes = new Planes();
  t.teardown(() => planes.close());
  await planes.add('a', 'b');
  planes.tell();
  return planes;
}

t.test('bytes pass both ways, and each direction ends by itself', async (t) => {
  const planes = await twoPlanes(t);
  const heard: string[] = [];
  planes.get('b').tunnels.onTunnel((tunnel, from) => {
    heard.push(from);
    // Answers only after the other side has ended.
    void buffer(tunnel).then((bytes) => tunnel.end(`${bytes.length} bytes`));
  });
  const tunnel = await planes.get('a').tunnels.open('b', never);
  const bytes = Buffer.alloc(5_000_000, 'x');
  tunnel.end(bytes);
  t.equal(String(await buffer(tunnel)), '5000000 bytes');
  t.strictSame(heard, ['a'], 'who opened it is known');
  t.not(await until(() => planes.get('b').stats().tunnels === 0), -1);
  t.equal(planes.get('a').stats().tunnels, 0);
});

t.test('what arrives is what was sent, in order', async (t) => {
  const planes = await twoPlanes(t);
  planes.get('b').tunnels.onTunnel((tunnel) => void pipeline(tunnel, tunnel).catch(() => {}));
  const tunnel = await planes.get('a').tunnels.open('b', never);
  const bytes = Buffer.alloc(3_000_000);
  for (let i = 0; i < bytes.length; i += 4) bytes.writeUInt32BE(i, i);
  const back = buffer(tunnel);
  for (let i = 0; i < bytes.length; i += 70_001) tunnel.write(bytes.subarray(i, i + 70_001));
  tunnel.end();
  t.ok(bytes.equals(await back));
});

t.test('a reader that pauses stops the writer, and loses nothing', async (t) => {
  const planes = await twoPlanes(t);
  const opened = new Promise<Duplex>((resolve) => {
    planes.get('b').tunnels.onTunnel(resolve);
  });
  const sender = await planes.get('a').tunnels.open('b', never);
  const reader = await opened;
  const chunk = Buffer.alloc(65_536, 1);
  // Reads fast at first, so that the window would grow as far as it may.
  let readBytes = 0;
  reader.on('data', (bytes: Buffer) => {
    readBytes += bytes.length;
  });
  let sentBytes = 0;
  let isOver = false;
  const sending = (async () => {
    while (!isOver) {
      sentBytes += chunk.length;
      if (!sender.write(chunk)) await once(sender, 'drain');
    }
    sender.end();
  })();
  t.not(await until(() => readBytes > 20_000_000), -1);
  reader.pause();
  let before = -1;
  const standsStill = () => {
    const still = before === sentBytes;
    before = sentBytes;
    return still;
  };
  await new Promise((resolve) => setTimeout(resolve, 300));
  standsStill();
  await new Promise((resolve) => setTimeout(resolve, 100));
  t.ok(standsStill(), 'the writer waits');
  t.ok(sentBytes - readBytes < 8_000_000, `${sentBytes - readBytes} bytes are under way`);
  isOver = true;
  reader.resume();
  await sending;
  await once(reader, 'end');
  t.equal(readBytes, sentBytes);
});

t.test('HTTP, with an upgrade, goes through it', async (t) => {
  const planes = await twoPlanes(t);
  const server = createServer((_request, response) => response.end('hello'));
  server.on('upgrade', (_request, socket) => {
    socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n');
    void buffer(socket).then((bytes) => socket.end(`got ${bytes}`));
  });
  planes.get('b').tunnels.onTunnel((tunnel) => server.emit('connection', tunnel));
  const open = () => planes.get('a').tunnels.open('b', never);

  const tunnel = await open();
  const plain = request({ path: '/', createConnection: () => tunnel }).end();
  const [response] = await once(plain, 'response');
  t.equal(String(await buffer(response)), 'hello');

  const second = await open();
  const upgrade = request({
    path: '/',
    createConnection: () => second,
    headers: { connection: 'Upgrade', upgrade: 'tcp' },
  }).end();
  const [, socket] = (await once(upgrade, 'upgrade')) as [unknown, Duplex];
  socket.end('words');
  t.equal(String(await buffer(socket)), 'got words');
});

t.test('a tunnel that breaks is an error for both, and not an end', async (t) => {
  const planes = await twoPlanes(t);
  const opened = new Promise<Duplex>((resolve) => {
    planes.get('b').tunnels.onTunnel(resolve);
  });
  const tunnel = await planes.get('a').tunnels.open('b', never);
  const other = await opened;
  tunnel.write('half a sen');
  t.equal(String((await once(other, 'data'))[0]), 'half a sen');
  const failures = Promise.all([once(other, 'error'), once(tunnel, 'error')]);
  planes.get('b').setAdmitted(new Map());
  await failures;
  t.equal(planes.get('a').stats().tunnels, 0);
});

t.test('the other side is told when one gives up', async (t) => {
  const planes = await twoPlanes(t);
  const opened = new Promise<Duplex>((resolve) => {
    planes.get('b').tunnels.onTunnel(resolve);
  });
  const tunnel = await planes.get('a').tunnels.open('b', never);
  const other = await opened;
  tunnel.destroy();
  await once(other, 'error');
});

t.test('refused: nobody listens, the member is unknown, dead, or the asker was none', async (t) => {
  const planes = await twoPlanes(t);
  const { tunnels } = planes.get('a');
  const quiet = await tunnels.open('b', never);
  await once(quiet, 'error');

  await t.rejects(tunnels.open('nobody', never), { code: 'SWARM_UNREACHABLE' });

  planes.get('b').tunnels.onTunnel((tunnel) => tunnel.resume());
  planes.get('b').setAdmitted(new Map());
  const a = planes.get('a');
  t.not(await until(() => a.stats().connections === 0), -1);
  await t.rejects(tunnels.open('b', never), { code: 'SWARM_UNREACHABLE' });

  planes.tell();
  await planes.get('b').close();
  await t.rejects(tunnels.open('b', never), { code: 'SWARM_UNREACHABLE' }, 'gone');
  await t.rejects(tunnels.open('b', AbortSignal.abort(new Error('enough'))), { message: 'enough' });
});

t.test('so many tunnels with one member, and no more', async (t) => {
  const planes = await twoPlanes(t);
  const { tunnels } = planes.get('a');
  planes.get('b').tunnels.onTunnel((tunnel) => tunnel.on('error', () => {}).resume());
  const open: Duplex[] = [];
  for (let i = 0; i < 64; i++) open.push(await tunnels.open('b', never));
  await t.rejects(tunnels.open('b', never), { code: 'SWARM_EXHAUSTED' });
  const first = open[0];
  if (first !== undefined) await once(first.destroy(), 'close');
  await tunnels.open('b', never);
});
