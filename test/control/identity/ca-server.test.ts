import { randomBytes } from 'node:crypto';
import { connect as connectTcp } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { createServer, type TLSSocket } from 'node:tls';
import t from 'tap';
import type { NodeId } from '../../../src/base/swarm-model.js';
import {
  createAuthority,
  digestOf,
  issueNodeCertificate,
  makeIdentity,
  type NodeIdentity,
  newJoinToken,
  rawPublicKeyOf,
  renewalReason,
} from '../../../src/control/identity/index.js';
import { makeRequest } from '../../../src/control/identity/io/keys.js';
import { Channel } from '../../../src/control/io/channel.js';
import { ask, connectTls } from '../../../src/control/io/connect.js';
import { encodeFrame } from '../../../src/control/wire/frame.js';
import { ALPN_CA } from '../../../src/control/wire/protocol.js';
import { REGISTRATION } from '../support.js';
import { CaWorld, clusterId, codeOf, DAY_MS, HOST } from './world.js';

async function until(what: string, holds: () => boolean): Promise<void> {
  for (const endMs = Date.now() + 20_000; !holds(); await sleep(5))
    if (Date.now() > endMs) throw new Error(`it did not come to pass that ${what}`);
}

async function dial(world: CaWorld): Promise<TLSSocket> {
  const common = { remote: world.remote, alpn: ALPN_CA, timeoutMs: 20_000 };
  const socket = await connectTls(common);
  // What is sent in vain is refused in several ways.
  return socket.on('error', () => {});
}

/** A certificate of this CA whose life is over since `agoMs`. */
async function expired(world: CaWorld, of: NodeIdentity, agoMs: number): Promise<NodeIdentity> {
  const { rootPem, rootKeyPem } = world.state;
  const certPem = await issueNodeCertificate(
    { caPem: rootPem, caKeyPem: rootKeyPem },
    {
      nodeId: of.nodeId,
      clusterId,
      role: of.role,
      publicKey: rawPublicKeyOf(of.seed),
      atMs: Date.now() - agoMs - DAY_MS,
      lifeMs: DAY_MS,
    },
  );
  const identity = makeIdentity(of.seed, certPem, rootPem);
  if (identity === undefined) throw new Error('no identity');
  return identity;
}

t.test('the token says the role; the same key is the same node', async (t) => {
  await CaWorld.run(async (world) => {
    const manager = await world.joined(world.tokens.manager);
    t.equal(manager.role, 'manager');
    t.equal((await world.joined(world.tokens.worker)).role, 'worker');
    const again = (await world.join(world.tokens.worker, { seed: manager.seed })).identity;
    t.equal(again.nodeId, manager.nodeId);
    t.equal(again.peerId, manager.peerId);
    t.equal(again.role, 'manager', 'which a token does not change');
    t.equal(world.ca.stats().joins, 3);
  });
});

t.test('promotion and demotion come with the renewed certificate', async (t) => {
  await CaWorld.run(async (world) => {
    let identity = await world.joined();
    const facts = { nowMs: Date.now(), fraction: 0 };
    for (const role of ['manager', 'worker'] as const) {
      world.members.set(identity.nodeId, { role, peerId: identity.peerId });
      t.equal(renewalReason(identity, { ...facts, role }), 'role');
      const renewed = await world.renew(identity);
      t.equal(renewed.role, role);
      t.equal(renewed.nodeId, identity.nodeId);
      t.equal(renewalReason(renewed, { ...facts, role }), undefined);
      t.equal(await world.visit(renewed), `${role} ${identity.nodeId}`);
      identity = renewed;
    }
    const middleMs = (identity.notBeforeMs + identity.expiresAtMs) / 2;
    t.equal(renewalReason(identity, { nowMs: middleMs - 1, fraction: 0 }), undefined);
    t.equal(renewalReason(identity, { nowMs: middleMs, fraction: 0 }), 'age');
    t.equal(world.ca.stats().renewals, 2);
  });
});

t.test('who gets no certificate: counted by reason, logged once', async (t) => {
  await CaWorld.run(async (world) => {
    const member = await world.joined();
    const refused = async (name: string, work: Promise<unknown>, code: string) =>
      t.equal(await codeOf(work), code, name);
    const stale = newJoinToken(world.state.rootPem);
    await refused('a wrong token', world.join(stale), 'SWARM_TOKEN_REFUSED');
    await refused('again', world.join(stale), 'SWARM_TOKEN_REFUSED');

    const seed = randomBytes(32);
    const { caPem, caKeyPem } = await createAuthority(Date.now());
    const other = { nodeId: member.nodeId, clusterId, role: 'manager' } as const;
    const life = { atMs: Date.now(), lifeMs: DAY_MS, publicKey: rawPublicKeyOf(seed) };
    const forged = await issueNodeCertificate({ caPem, caKeyPem }, { ...other, ...life });
    const stranger = makeIdentity(seed, forged, caPem);
    if (stranger === undefined) throw new Error('no identity');
    const trusting = { ...stranger, caPem: world.state.rootPem };
    await refused('a foreign CA', world.renew(trusting), 'SWARM_TOKEN_REFUSED');

    const graced = await expired(world, member, 300 * DAY_MS);
    t.equal((await world.renew(graced)).nodeId, member.nodeId, 'expired, within the grace');
    const forgotten = await expired(world, member, 400 * DAY_MS);
    await refused('expired for too long', world.renew(forgotten), 'SWARM_TOKEN_REFUSED');

    const nobody = await world.joined();
    world.members.delete(nobody.nodeId);
    await refused('no member', world.renew(nobody), 'SWARM_TOKEN_REFUSED');
    world.removed.add(member.nodeId);
    for (let i = 0; i < 3; i++)
      await refused('removed', world.renew(member), 'SWARM_TOKEN_REFUSED');
    t.strictSame(world.ca.stats().refused, {
      no_certificate: 0,
      foreign_ca: 1,
      wrong_cluster: 0,
      removed: 3,
      expired: 1,
      wrong_role: 0,
      wrong_token: 2,
      no_proof: 0,
      wrong_key: 0,
      not_member: 1,
      not_now: 0,
      backend: 0,
    });
    t.strictSame(
      world.logged.map(({ fields }) => fields['reason']),
      ['wrong_token', 'foreign_ca', 'expired', 'not_member', 'removed'],
    );
    t.notOk(JSON.stringify(world.logged).includes(stale), 'tokens are not in the log');
  });
});

t.test('a key is certified only for who holds it, and a member keeps its own', async (t) => {
  await CaWorld.run(async (world) => {
    const member = await world.joined();
    const { keyPem, certPem, caPem } = member;
    const asked = async (message: object, keys: object = {}) => {
      const common = { remote: world.remote, alpn: ALPN_CA, timeoutMs: 20_000 };
      const socket = await connectTls({ ...common, caPem, ...keys });
      const reply = (await ask(socket, message, 20_000)) as { refusal?: { detail: object } };
      return reply.refusal?.detail;
    };
    const foreign = makeRequest(randomBytes(32), 'ab'.repeat(32));
    const join = { kind: 'join', token: world.tokens.worker, registration: REGISTRATION };
    t.match(await asked({ ...join, request: foreign }), { code: 'SWARM_INVALID' });
    t.equal(world.ca.stats().refused.no_proof, 1);
    const request = makeRequest(randomBytes(32), digestOf(caPem) ?? '');
    t.match(await asked({ kind: 'renew', request }), { code: 'SWARM_TOKEN_REFUSED' });
    t.equal(world.ca.stats().refused.no_certificate, 1);
    t.match(await asked({ kind: 'renew', request }, { keyPem, certPem }), {
      code: 'SWARM_TOKEN_REFUSED',
    });
    t.equal(world.ca.stats().refused.wrong_key, 1);
    world.members.set(member.nodeId, { role: 'worker', peerId: 'another' });
    t.equal(await codeOf(world.renew(member)), 'SWARM_TOKEN_REFUSED', 'the store has another key');
    t.equal(world.ca.stats().refused.wrong_key, 2);
  });
});

t.test('a manager that cannot answer says so, and is asked again', async (t) => {
  await CaWorld.run(async (world) => {
    const member = await world.joined();
    let failures = 2;
    const admit = world.admit.bind(world);
    world.admit = (role, peerId) => {
      if (failures-- > 0) throw new Error('no leader');
      return admit(role, peerId);
    };
    t.equal((await world.joined()).role, 'worker', 'the attempt to join goes on');
    t.equal(world.ca.stats().refused.not_now, 2);
    world.members.get = () => {
      throw new Error('no leader');
    };
    t.equal(await codeOf(world.renew(member)), 'SWARM_NO_MANAGER');
  });
});

t.test('a joiner shows its token to nobody but the CA that the token names', async (t) => {
  await CaWorld.run(async (world) => {
    await world.startRotation();
    const evil = await createAuthority(Date.now());
    const seed = randomBytes(32);
    const certPem = await issueNodeCertificate(evil, {
      nodeId: 'e'.repeat(25) as NodeId,
      clusterId,
      role: 'manager',
      publicKey: rawPublicKeyOf(seed),
      atMs: Date.now(),
      lifeMs: DAY_MS,
    });
    const { keyPem } = makeIdentity(seed, certPem, evil.caPem) ?? { keyPem: '' };
    const heard: unknown[] = [];
    const server = createServer(
      { key: keyPem, cert: certPem, ALPNProtocols: [ALPN_CA], minVersion: 'TLSv1.3' },
      (socket) => {
        const channel = new Channel(socket, {
          onMessage: (message) => {
            heard.push(message);
            // The real root is among them, as it is known to all, and the other one first.
            channel.send({ kind: 'ca', caPem: evil.caPem + world.state.rootPem });
          },
          onClose() {},
        });
      },
    );
    server.on('tlsClientError', () => heard.push('handshake refused'));
    await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
    const { port } = server.address() as { port: number };
    const enough = new AbortController();
    const between = Object.create(world, { remote: { value: { address: HOST, port } } }) as CaWorld;
    const attempt = codeOf(between.join(world.tokens.worker, { signal: enough.signal }));
    await until('it tried twice', () => heard.length >= 4);
    enough.abort();
    t.equal(await attempt, 'SWARM_NO_MANAGER');
    t.strictSame(
      [...new Set(heard.map((message) => JSON.stringify(message)))].sort(),
      ['"handshake refused"', '{"kind":"ca_get"}'].sort(),
    );
    server.close();
  });
});

t.test('those who dawdle are cut off, and hold up nobody', async (t) => {
  await CaWorld.run(async (world) => {
    const frame = encodeFrame({ kind: 'ca_get' });
    const slow = await dial(world);
    const closed = new Promise<void>((resolve) => slow.once('close', () => resolve()));
    let sent = 0;
    const drip = setInterval(() => {
      if (!slow.destroyed && sent < frame.length - 1) slow.write(frame.subarray(sent, ++sent));
    }, 20);
    t.equal((await world.joined()).role, 'worker', 'meanwhile');
    await closed;
    clearInterval(drip);
    await until('all ended', () => world.ca.stats().conversations === 0);
    t.match(world.ca.stats(), { timeouts: 1, abandoned: 0, joins: 1 });
    const silent = connectTcp(world.remote.port, HOST);
    await sleep(20);
    silent.destroy();
  }, 1_000);
});

t.test('frames that are too long, nonsense and haste end a conversation', async (t) => {
  await CaWorld.run(async (world) => {
    const send = async (bytes: Uint8Array) => {
      const socket = await dial(world);
      socket.resume();
      const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
      socket.write(bytes);
      await closed;
      await until('it ended', () => world.ca.stats().conversations === 0);
    };
    await send(Buffer.from('0004000100', 'hex'));
    t.match(world.ca.stats(), { abandoned: 1, malformed: 0 }, 'one byte over the limit');
    await send(Buffer.from('7fffffff', 'hex'));
    t.match(world.ca.stats(), { abandoned: 2, malformed: 0 });
    await send(encodeFrame({ kind: 'give_me_the_key' }));
    await send(Buffer.from('00000001ff', 'hex'));
    t.match(world.ca.stats(), { abandoned: 2, malformed: 2 });
    const join = { kind: 'join', token: 'x'.repeat(90), registration: REGISTRATION };
    const request = makeRequest(randomBytes(32), 'ab');
    const one = encodeFrame({ ...join, request });
    await send(Buffer.concat([one, one]));
    t.match(world.ca.stats(), { malformed: 3, timeouts: 0 });
  });
});

t.test('one address gets so many conversations and no more', async (t) => {
  await CaWorld.run(async (world) => {
    const sockets = await Promise.all(Array.from({ length: 130 }, () => dial(world)));
    for (const socket of sockets) socket.resume();
    await until('the rest were closed', () => world.ca.stats().overflows === 2);
    t.equal(world.ca.stats().conversations, 128);
    for (const socket of sockets) socket.destroy();
    await until('all ended', () => world.ca.stats().conversations === 0);
    t.match(world.ca.stats(), { abandoned: 128 });
    t.equal((await world.joined()).role, 'worker');
  });
});
