import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import t from 'tap';
import { SwarmError } from '../../../src/base/swarm-error.js';
import { Gossip, type GossipKey, type Member } from '../../../src/gossip/index.js';

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const key = (id: number): GossipKey => ({ id, secret: new Uint8Array(32).fill(id) });

/** A port that is free for UDP and TCP right now. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

async function openGossip(self: string, port: number, keys = [key(1)]): Promise<Gossip> {
  return await Gossip.open({
    self,
    bindAddress: '127.0.0.1',
    port,
    advertiseAddress: '127.0.0.1',
    advertisePort: port,
    profile: 'lan',
    keys,
    seed: new Uint8Array(32).fill(self.charCodeAt(0)),
    log: silent,
  });
}

async function until(what: string, deadlineMs: number, test: () => boolean): Promise<number> {
  const startMs = performance.now();
  while (!test()) {
    if (performance.now() - startMs > deadlineMs) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return performance.now() - startMs;
}

const stateOf = (gossip: Gossip, id: string): Member['state'] | undefined =>
  gossip.members().find((member) => member.id === id)?.state;

t.test('three members join, change keys, lose one, bid another farewell', async (t) => {
  const ports = [await freePort(), await freePort(), await freePort()] as const;
  const a = await openGossip('a', ports[0]);
  const b = await openGossip('b', ports[1]);
  let c = await openGossip('c', ports[2]);
  t.teardown(() => Promise.all([a, b, c].map((gossip) => gossip.close())));
  const seed = { address: '127.0.0.1', port: ports[0] };
  b.join([seed]);
  c.join([seed]);
  const all = () =>
    [a, b, c].every((gossip) => gossip.members().filter((m) => m.state === 'alive').length === 3);
  t.comment(`joined after ${Math.round(await until('join', 5_000, all))} ms`);

  // Each knows the new key before the first one seals with it.
  for (const gossip of [a, b, c]) gossip.setKeys([key(1), key(2)]);
  for (const gossip of [a, b, c]) gossip.setKeys([key(2), key(1)]);
  const probesOf = () => a.stats().swim.probes;
  const before = probesOf();
  await until('packets under the new key', 5_000, () => probesOf() > before);
  for (const gossip of [a, b, c]) gossip.setKeys([key(2)]);
  await until('more of them', 5_000, () => probesOf() > before + 2);
  t.equal(a.stats().drops.seal_key_unknown, 0);
  t.ok(all(), 'nobody was lost by the rotation');

  await c.close();
  const deadMs = await until('c dead', 5_000, () =>
    [a, b].every((gossip) => stateOf(gossip, 'c') === 'dead'),
  );
  t.comment(`gone process known dead to all after ${Math.round(deadMs)} ms`);

  c = await openGossip('c', ports[2], [key(2)]);
  c.join([seed]);
  await until('c returned', 5_000, all);

  await b.leave(2_000);
  const left = () => [a, c].every((gossip) => stateOf(gossip, 'b') === 'left');
  t.comment(`farewell heard after ${Math.round(await until('b left', 2_000, left))} ms`);
});

t.test('a flood of garbage does not cost a member its life', async (t) => {
  const ports = [await freePort(), await freePort()] as const;
  const a = await openGossip('a', ports[0]);
  const b = await openGossip('b', ports[1]);
  const flood = createSocket('udp4');
  t.teardown(async () => {
    flood.close();
    await Promise.all([a.close(), b.close()]);
  });
  b.join([{ address: '127.0.0.1', port: ports[0] }]);
  await until('join', 5_000, () => stateOf(a, 'b') === 'alive' && stateOf(b, 'a') === 'alive');
  const seen: string[] = [];
  a.onMembers(({ member }) => seen.push(`${member.id} ${member.state}`));

  const forged = Buffer.alloc(200, 7);
  forged.writeUInt8(0x51, 0);
  forged.writeUInt8(1, 1);
  const garbage = Buffer.alloc(200, 9);
  const endMs = performance.now() + 1_500;
  while (performance.now() < endMs) {
    for (let i = 0; i < 50; i++) flood.send(i % 2 === 0 ? forged : garbage, ports[0], '127.0.0.1');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  const { drops } = a.stats();
  t.comment(`dropped ${JSON.stringify(drops)}`);
  t.ok(drops.seal_broken > 100, 'forgeries were counted');
  t.ok(drops.seal_version > 1_000, 'garbage was counted');
  t.ok(drops.source_throttled > 100, 'and their source no longer opened');
  t.strictSame(seen, []);
  t.equal(stateOf(b, 'a'), 'alive');
});

t.test('a taken port is refused with its holder', async (t) => {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  t.teardown(() => socket.close());
  const error = await openGossip('a', socket.address().port).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  t.ok(error instanceof SwarmError);
  const { detail } = error as SwarmError;
  t.match(detail, { code: 'SWARM_PORT_TAKEN', protocol: 'udp' });
  t.match(detail, { by: new RegExp(`process ${process.pid} `) });
});

t.test('an address of another host is refused', async (t) => {
  const config = { self: 'a', bindAddress: '192.0.2.1', port: 7946 };
  const rest = { advertisePort: 7946, profile: 'lan', keys: [key(1)], log: silent } as const;
  const seed = new Uint8Array(32);
  const refusal = (advertiseAddress: string) =>
    Gossip.open({ ...config, ...rest, seed, advertiseAddress }).then(
      () => undefined,
      (error: unknown) => (error as SwarmError).detail,
    );
  t.strictSame(await refusal('here'), { code: 'SWARM_BAD_ADDRESS', kind: 'advertise' });
  t.strictSame(await refusal('192.0.2.1'), { code: 'SWARM_BAD_ADDRESS', kind: 'listen' });
});
