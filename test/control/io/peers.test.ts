import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import type { TLSSocket } from 'node:tls';
import t from 'tap';
import type { ClusterId } from '../../../src/base/swarm-model.js';
import {
  createAuthority,
  initialCaState,
  issueCertificate,
  makeIdentity,
  rawPublicKeyOf,
} from '../../../src/control/identity/index.js';
import type { NodeIdentity } from '../../../src/control/index.js';
import { ask, connectTls } from '../../../src/control/io/connect.js';
import { caOf } from '../../../src/control/io/manager-scope.js';
import { ALPN_FORWARD } from '../../../src/control/wire/forward-messages.js';
import { encodeFrame } from '../../../src/control/wire/frame.js';
import {
  ALPN_CA,
  ALPN_DISPATCH,
  ALPN_RAFT,
  ALPN_RAFT_SNAPSHOT,
} from '../../../src/control/wire/protocol.js';
import { networkSpec } from '../support.js';
import { HOST, until, World } from './managers.js';

const AMONG_MANAGERS = [ALPN_RAFT, ALPN_RAFT_SNAPSHOT, ALPN_FORWARD];
const DAY_MS = 86_400_000;

function connectAs(
  world: World,
  alpn: string,
  identity: Pick<NodeIdentity, 'keyPem' | 'certPem'> | undefined,
): Promise<TLSSocket> {
  const { keyPem, certPem } = identity ?? {};
  return connectTls({
    remote: world.first.remote,
    alpn,
    ...(keyPem !== undefined && certPem !== undefined && { keyPem, certPem }),
    timeoutMs: 2_000,
  });
}

/** Resolves to what came, when the other side has hung up. */
function goneBy(socket: TLSSocket, timeoutMs: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const timer = setTimeout(() => {
      socket.destroy();
      reject(new Error(`still connected after ${timeoutMs} ms`));
    }, timeoutMs);
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    socket.on('error', () => {});
    socket.on('close', () => {
      clearTimeout(timer);
      resolve(Buffer.concat(chunks));
    });
  });
}

async function certified(
  world: World,
  more: { readonly atMs?: number; readonly clusterId?: ClusterId; readonly own?: boolean } = {},
): Promise<NodeIdentity> {
  const { nodeId, clusterId, seed } = world.first.identity;
  const atMs = more.atMs ?? Date.now();
  const ca =
    more.own === false ? initialCaState(await createAuthority(atMs)) : caOf(world.manager.group);
  const { certPem, caPem } = await issueCertificate(ca, {
    nodeId,
    clusterId: more.clusterId ?? clusterId,
    role: 'manager',
    publicKey: rawPublicKeyOf(seed),
    atMs,
    lifeMs: DAY_MS,
  });
  const identity = makeIdentity(seed, certPem, caPem);
  if (identity === undefined) throw new Error('no identity');
  return identity;
}

t.test('who is no manager of this swarm is refused where managers talk', async (t) => {
  await World.run({}, async (world) => {
    const worker = await world.worker();
    const removed = await world.worker();
    await removed.session.close();
    await world.manager.removeNode(removed.identity.nodeId, true);
    const cases = [
      ['nobody', undefined, 'no_certificate'],
      ['a worker', worker.identity, 'wrong_role'],
      ['a removed node', removed.identity, 'removed'],
      ['a manager of a foreign CA', await certified(world, { own: false }), 'foreign_ca'],
      ['an expired manager', await certified(world, { atMs: Date.now() - 2 * DAY_MS }), 'expired'],
      [
        'a manager of another cluster',
        await certified(world, { clusterId: 'a'.repeat(25) as ClusterId }),
        'wrong_cluster',
      ],
    ] as const;
    for (const [who, identity, reason] of cases) {
      const before = world.manager.stats().peers[reason];
      for (const alpn of AMONG_MANAGERS) {
        const said = await goneBy(await connectAs(world, alpn, identity), 2_000);
        t.equal(said.length, 0, `${who} is told nothing on ${alpn}`);
      }
      t.equal(world.manager.stats().peers[reason], before + AMONG_MANAGERS.length, who);
    }
    t.equal(world.said(/a peer was refused/).length, cases.length, 'each is logged once');
    t.equal(world.said(/BEGIN|SWMTKN/).length, 0, 'and no key or token is');

    const manager = await certified(world);
    const socket = await connectAs(world, ALPN_FORWARD, manager);
    const answer = await ask(socket, { kind: 'call', request: 1, method: 'raft.holds' }, 2_000);
    t.match(answer, { kind: 'result', result: { role: 'leader' } }, 'a manager is answered');
    t.ok(worker.session.connected);
  });
});

t.test('a removed node’s certificate is refused on every protocol', async (t) => {
  await World.run({}, async (world) => {
    const { identity, session, dataDir } = await world.worker();
    await session.close();
    await world.manager.removeNode(identity.nodeId, true);
    const again = await world.session(identity, dataDir);
    await until('its session is over', () => again.ended === 'removed');
    t.equal(again.assignments()?.version, session.assignments()?.version, 'it was told nothing');
    const socket = await connectAs(world, ALPN_CA, identity);
    const publicKey = Buffer.from(rawPublicKeyOf(identity.seed)).toString('base64');
    const renewal = { kind: 'renew', request: { publicKey, proof: 'A'.repeat(88) } };
    const said = await ask(socket, renewal, 2_000).catch(() => ({ kind: 'refused' }));
    t.match(said, { kind: 'refused' });
    t.notOk(JSON.stringify(said).includes('CERTIFICATE'));
  });
});

t.test('too much, nonsense and too little end a connection, and nothing else', async (t) => {
  await World.run({ managers: 2 }, async (world) => {
    await world.settled();
    const manager = await certified(world);
    const { session } = await world.worker();
    const greedy = [
      Buffer.from([0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0x7f, 0, 0, 0]),
      Buffer.concat([Buffer.from([0x01, 0, 0, 0]), randomBytes(70_000)]),
      encodeFrame({ kind: 'propose', request: -1 }),
    ];
    for (const alpn of [...AMONG_MANAGERS, ALPN_DISPATCH, ALPN_CA])
      for (const bytes of greedy) {
        const socket = await connectAs(world, alpn, manager);
        const gone = goneBy(socket, 6_000);
        socket.write(bytes);
        await gone;
      }
    t.ok(session.connected);
    t.ok(await world.seatAt(1).manager.createNetwork(networkSpec('mesh')));
    t.equal(world.manager.stats().raft.members.length, 2);
  });
});

t.test('who is silent, before or after the handshake, is hung up on', async (t) => {
  await World.run({ managers: 2 }, async (world) => {
    await world.settled();
    const manager = await certified(world);
    const { session } = await world.worker();
    const plain = await Promise.all(
      [Buffer.alloc(0), Buffer.from([0x16, 0x03]), Buffer.from('GET / HTTP/1.1\r\n')].map(
        (bytes) =>
          new Promise<{ closed: Promise<void> }>((resolve) => {
            const socket = connect(world.manager.port, HOST, () => {
              if (bytes.length > 0) socket.write(bytes);
              resolve({ closed: new Promise((closed) => socket.once('close', () => closed())) });
            });
            socket.on('error', () => {});
            socket.resume();
          }),
      ),
    );
    const shaken = await Promise.all(
      [ALPN_RAFT, ALPN_RAFT_SNAPSHOT, ALPN_DISPATCH].map(async (alpn) => {
        const socket = await connectAs(world, alpn, manager);
        // The beginning of a frame, which never goes on.
        socket.write(Buffer.from([0, 0]));
        return goneBy(socket, 9_000);
      }),
    );
    t.equal(shaken.length, 3);
    await Promise.all(plain.map(({ closed }) => closed));
    t.ok(world.manager.stats().listener.failedHandshakes >= 2);
    t.equal(world.manager.stats().listener.handshakes, 0);
    t.ok(session.connected);
    t.ok(await world.seatAt(1).manager.createNetwork(networkSpec('mesh')));
  });
});
