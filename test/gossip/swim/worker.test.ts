import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import type { Gossip as GossipType, Member } from '../../../src/gossip/index.js';

/** Only the built agent runs SWIM in a thread: `npm test` builds before it tests. */
const door = new URL('../../../dist/src/gossip/index.js', import.meta.url);
const isBuilt = existsSync(fileURLToPath(door));

const silent = { debug() {}, info() {}, warn() {}, error() {} };

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function until(what: string, deadlineMs: number, test: () => boolean): Promise<void> {
  const startMs = performance.now();
  while (!test()) {
    if (performance.now() - startMs > deadlineMs) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

t.test('a blocked main thread misses no probe', { skip: !isBuilt && 'not built' }, async (t) => {
  const { Gossip } = (await import(door.href)) as { Gossip: typeof GossipType };
  const open = async (self: string, port: number) =>
    await Gossip.open({
      self,
      bindAddress: '127.0.0.1',
      port,
      advertiseAddress: '127.0.0.1',
      advertisePort: port,
      profile: 'lan',
      keys: [{ id: 1, secret: new Uint8Array(32).fill(1) }],
      seed: new Uint8Array(32).fill(port & 255),
      log: silent,
    });
  const ports = [await freePort(), await freePort(), await freePort()] as const;
  const [a, b, c] = await Promise.all([
    open('a', ports[0]),
    open('b', ports[1]),
    open('c', ports[2]),
  ]);
  t.teardown(() => Promise.all([a, b, c].map((gossip) => gossip.close())));
  for (const gossip of [b, c]) gossip.join([{ address: '127.0.0.1', port: ports[0] }]);
  const isAlive = ({ state }: Member) => state === 'alive';
  const all = () => [a, b, c].every((gossip) => gossip.members().filter(isAlive).length === 3);
  await until('join', 10_000, all);

  const seen: string[] = [];
  for (const gossip of [a, b, c]) {
    gossip.onMembers(({ member }) => seen.push(`${member.id} ${member.state}`));
  }
  const failedBefore = a.stats().swim.probesFailed;
  // All three share this thread, and none of them notices.
  for (let i = 0; i < 3; i++) {
    const endMs = performance.now() + 1_500;
    while (performance.now() < endMs);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  await until('fresh counts', 5_000, () => a.stats().swim.probes >= 3);
  t.strictSame(seen, []);
  t.equal(a.stats().swim.probesFailed, failedBefore);
  t.comment(`late wake-ups of the worker: ${a.stats().swim.lateWakes}`);

  const port = ports[2];
  const error = await open('d', port).then(
    () => undefined,
    (reason: unknown) => reason as { detail?: unknown },
  );
  t.match(error?.detail, { code: 'SWARM_PORT_TAKEN', port, protocol: 'udp' });

  await c.leave(2_000);
  const left = () => [a, b].every((g) => g.members().some(({ state }) => state === 'left'));
  await until('farewell', 2_000, left);
  t.pass('and farewells arrive');
});
