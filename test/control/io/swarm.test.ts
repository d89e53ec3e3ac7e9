import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as connectTls } from 'node:tls';
import t from 'tap';
import { SwarmError } from '../../../src/base/swarm-error.js';
import {
  issueNodeCertificate,
  makeIdentity,
  rawPublicKeyOf,
} from '../../../src/control/identity/index.js';
import {
  forgetSwarm,
  JoinAttempt,
  loadIdentity,
  Manager,
  ManagerSession,
  type NodeIdentity,
} from '../../../src/control/index.js';
import { encodeFrame } from '../../../src/control/wire/frame.js';
import { networkSpec, REGISTRATION, silent, withFolder } from '../support.js';

const HOST = '127.0.0.1';

async function until(what: string, holds: () => boolean, timeoutMs = 10_000): Promise<void> {
  const endMs = Date.now() + timeoutMs;
  while (!holds()) {
    if (Date.now() > endMs)
      throw new Error(`in ${timeoutMs} ms it did not come to pass that ${what}`);
    await sleep(10);
  }
}

function refusalOf(work: () => unknown): unknown {
  try {
    return work();
  } catch (error) {
    return error;
  }
}

/** A manager and whatever joins it, all gone at the end. */
class World {
  readonly dir: string;
  readonly #open: { close(): Promise<void> }[] = [];
  manager!: Manager;
  identity!: NodeIdentity;
  #nodes = 0;

  constructor(dir: string) {
    this.dir = dir;
  }

  static async run(work: (world: World) => Promise<void>, heartbeatMs = 5_000): Promise<void> {
    await withFolder(async (dir) => {
      const world = new World(dir);
      const created = await Manager.create({
        dataDir: join(dir, 'manager'),
        clusterSpec: { dispatcherHeartbeatMs: heartbeatMs },
        listen: { address: HOST, port: 0 },
        advertise: { address: HOST, port: 0 },
        node: REGISTRATION,
        log: silent,
      });
      world.manager = created.manager;
      world.identity = created.identity;
      try {
        await work(world);
      } finally {
        for (const one of world.#open) await one.close();
        await world.manager.close();
      }
    });
  }

  get remote() {
    return { address: HOST, port: this.manager.port };
  }

  join(token: string, more: object = {}): JoinAttempt {
    return JoinAttempt.start({
      token,
      remotes: [this.remote],
      node: { ...REGISTRATION, description: { ...REGISTRATION.description, hostname: 'worker' } },
      dataDir: join(this.dir, `worker-${++this.#nodes}`),
      log: silent,
      ...more,
    });
  }

  async worker(): Promise<{ identity: NodeIdentity; session: ManagerSession; dataDir: string }> {
    const dataDir = join(this.dir, `worker-${this.#nodes + 1}`);
    const { identity, managers } = await this.join(this.manager.cluster().joinTokens.worker).within(
      5_000,
    );
    const session = await this.session(identity, dataDir, managers);
    await session.firstAssignments(5_000);
    return { identity, session, dataDir };
  }

  async session(
    identity: NodeIdentity,
    dataDir: string,
    managers: readonly { address: string; port: number }[] = [this.remote],
  ): Promise<ManagerSession> {
    const session = await ManagerSession.open({
      identity,
      managers,
      registration: () => REGISTRATION,
      dataDir,
      log: silent,
    });
    this.#open.push(session);
    return session;
  }

  async restart(): Promise<void> {
    const { port } = this.manager;
    await this.manager.close();
    this.manager = await Manager.open({
      dataDir: join(this.dir, 'manager'),
      identity: this.identity,
      listen: { address: HOST, port },
      advertise: { address: HOST, port },
      log: silent,
    });
  }
}

t.test('a worker joins, is told everything, gets addresses, and leaves', async (t) => {
  await World.run(async (world) => {
    const { manager } = world;
    await manager.createNetwork(networkSpec('ingress', { ingress: true, attachable: false }));
    const own = await world.session(world.identity, join(world.dir, 'manager'));
    const { identity, session, dataDir } = await world.worker();
    t.equal(manager.nodes().length, 2);
    t.match(manager.node(identity.nodeId), {
      state: 'ready',
      address: HOST,
      dataPathAddress: HOST,
      peerId: identity.peerId,
      spec: { role: 'worker', availability: 'active' },
      description: { trustRootPem: manager.cluster().rootCaPem },
    });
    t.match(manager.node(world.identity.nodeId)?.manager, {
      leader: true,
      address: `${HOST}:${manager.port}`,
    });
    t.equal((await loadIdentity(dataDir))?.nodeId, identity.nodeId);

    const network = await manager.createNetwork(networkSpec('mesh'));
    await until('the worker knows the network', () => session.assignments()?.networks.length === 2);
    const assignments = session.assignments();
    t.equal(assignments?.gossipKeys.length, 2);
    t.equal(assignments?.gossipKeys[0]?.secret.length, 32);
    t.strictSame(assignments?.cluster.managers, [world.remote]);
    await until(
      'both know both',
      () => session.assignments()?.nodes.length === 2 && own.assignments()?.nodes.length === 2,
    );
    t.match(
      own.assignments()?.nodes.find((node) => node.id === identity.nodeId),
      { peerId: identity.peerId, gossipPort: 7946, state: 'ready' },
    );

    const wish = { networkId: network.id, name: 'web', aliases: ['www'], key: 'one' };
    const [first, again] = await Promise.all([session.attach(wish), session.attach(wish)]);
    t.equal(first.id, again.id, 'the same key is the same attachment');
    t.strictSame(first.addresses, ['10.0.1.2/24']);
    const wanted = await own.attach({ networkId: 'mesh', ip: '10.0.1.9', name: 'db', aliases: [] });
    t.strictSame(wanted.addresses, ['10.0.1.9/24']);
    await t.rejects(own.attach({ networkId: 'mesh', ip: '10.0.1.9', name: 'x', aliases: [] }), {
      code: 'SWARM_INVALID',
      message: /in use by task/,
    });
    await t.rejects(session.attach({ networkId: 'ingress', name: 'x', aliases: [] }), {
      code: 'SWARM_NOT_ATTACHABLE',
    });
    await t.rejects(session.detach(wanted.id), { code: 'SWARM_NOT_FOUND' }, "not another node's");
    await until('it is among its own', () => session.assignments()?.attachments[0]?.key === 'one');
    await t.rejects(manager.removeNetwork('mesh'), { code: 'SWARM_IN_USE' });

    await session.leave(5_000);
    t.equal(session.ended, 'left');
    t.equal(manager.node(identity.nodeId)?.state, 'down');
    t.strictSame(
      manager.attachments().map(({ id }) => id),
      [wanted.id],
      'its addresses are free',
    );
    await manager.removeNode(identity.nodeId, false);
    await own.detach(wanted.id);
    await own.detach(wanted.id);
    await manager.removeNetwork('mesh');
    await until('the manager node is told', () => own.assignments()?.networks.length === 1);
    await forgetSwarm(dataDir);
    t.equal(await loadIdentity(dataDir), undefined);
  });
});

t.test('tokens: wrong, rotated, malformed, of another swarm, of a manager', async (t) => {
  await World.run(async (world) => {
    const { manager } = world;
    const { worker, manager: managerToken } = manager.cluster().joinTokens;
    const startedMs = Date.now();
    await t.rejects(world.join(`${worker.slice(0, -4)}0000`).within(5_000), {
      code: 'SWARM_TOKEN_REFUSED',
    });
    t.ok(Date.now() - startedMs < 1_000, `refused after ${Date.now() - startedMs} ms`);
    t.match(
      refusalOf(() => world.join('nonsense')),
      { code: 'SWARM_TOKEN_MALFORMED' },
    );
    await t.rejects(world.join(managerToken).within(5_000), {
      code: 'SWARM_UNSUPPORTED',
      message: /one manager for now/,
    });
    const foreign = `${worker.slice(0, 9)}0aaaaaa${worker.slice(16)}`;
    await t.rejects(world.join(foreign).within(5_000), {
      code: 'SWARM_CA_MISMATCH',
      message: /^remote CA does not match fingerprint\. Expected: [0-9a-f]{64}$/,
    });
    const { version, spec } = manager.cluster();
    await manager.updateCluster(version, spec, { workerToken: true });
    await t.rejects(world.join(worker).within(5_000), { code: 'SWARM_TOKEN_REFUSED' });
    t.equal(manager.cluster().joinTokens.manager, managerToken, 'the other stays');
    const { identity } = await world.join(manager.cluster().joinTokens.worker).within(5_000);
    t.ok(manager.node(identity.nodeId));
    await t.rejects(manager.updateCluster(version, spec, {}), { code: 'SWARM_OUT_OF_SEQUENCE' });
    t.equal(manager.nodes().length, 2, 'refused ones left nothing behind');
  });
});

t.test(
  'joining goes on in the background until a manager is there, or it is cancelled',
  async (t) => {
    await World.run(async (world) => {
      const token = world.manager.cluster().joinTokens.worker;
      const { port } = world.manager;
      await world.manager.close();
      const attempt = world.join(token, { remotes: [{ address: HOST, port }] });
      await t.rejects(attempt.within(300), { code: 'SWARM_JOIN_TIMEOUT' });
      const cancel = new AbortController();
      const cancelled = world.join(token, {
        remotes: [{ address: HOST, port }],
        signal: cancel.signal,
      });
      cancel.abort();
      await t.rejects(cancelled.done, { code: 'SWARM_NO_MANAGER' });
      world.manager = await Manager.open({
        dataDir: join(world.dir, 'manager'),
        identity: world.identity,
        listen: { address: HOST, port },
        advertise: { address: HOST, port },
        log: silent,
      });
      const { identity } = await attempt.done;
      t.ok(world.manager.node(identity.nodeId));
      t.equal(world.manager.nodes().length, 2);
    });
  },
);

t.test(
  'a session comes back after the manager restarts, and an agent starts without one',
  async (t) => {
    await World.run(async (world) => {
      const { identity, session, dataDir } = await world.worker();
      const network = await world.manager.createNetwork(networkSpec('mesh'));
      await session.attach({ networkId: network.id, name: 'a', aliases: [], key: 'a' });
      await until('it is known', () => session.assignments()?.attachments.length === 1);
      const { port } = world.manager;
      await world.manager.close();
      await until('the session is down', () => !session.connected);
      await t.rejects(
        session.attach({ networkId: network.id, name: 'b', aliases: [], timeoutMs: 100 }),
        { code: 'SWARM_NO_MANAGER' },
      );
      const refused = t.rejects(session.attach({ networkId: network.id, name: 'c', aliases: [] }), {
        code: 'SWARM_NO_MANAGER',
      });
      await session.close();
      await refused;
      const alone = await world.session(identity, dataDir, [{ address: HOST, port }]);
      t.equal(alone.connected, false);
      t.strictSame(
        alone.assignments()?.networks.map(({ spec }) => spec.name),
        ['mesh'],
        'from disk',
      );
      t.equal(alone.assignments()?.attachments[0]?.key, 'a');
      const patient = alone.attach({ networkId: network.id, name: 'd', aliases: [] });

      world.manager = await Manager.open({
        dataDir: join(world.dir, 'manager'),
        identity: world.identity,
        listen: { address: HOST, port },
        advertise: { address: HOST, port },
        log: silent,
      });
      t.equal(world.manager.node(identity.nodeId)?.state, 'unknown');
      t.equal(world.manager.node(world.identity.nodeId)?.state, 'ready');
      t.strictSame((await patient).addresses, ['10.0.0.3/24'], 'asked before, answered now');
      await until('it is ready', () => world.manager.node(identity.nodeId)?.state === 'ready');
      t.equal(
        (await alone.attach({ networkId: network.id, name: 'a', aliases: [], key: 'a' }))
          .addresses[0],
        '10.0.0.2/24',
      );
    });
  },
);

t.test('a removed node is told so, and its certificate opens nothing any more', async (t) => {
  await World.run(async (world) => {
    const { identity, session, dataDir } = await world.worker();
    await t.rejects(world.manager.removeNode(identity.nodeId, false), {
      code: 'SWARM_NODE_NOT_DOWN',
    });
    let end = '';
    session.onEnd((why) => {
      end = why;
    });
    await world.manager.removeNode(identity.nodeId, true);
    await until('the node knows', () => end === 'removed');
    const again = await world.session(identity, dataDir);
    await until('it is told again', () => again.ended === 'removed');
    await t.rejects(world.manager.removeNode(world.identity.nodeId, true), {
      code: 'SWARM_INVALID',
      message: /is a cluster manager/,
    });
    t.equal(world.manager.nodes().length, 1);
  });
});

t.test(
  'a node that dies is down as soon as gossip says so, and after three heartbeats anyway',
  async (t) => {
    await World.run(async (world) => {
      const first = await world.worker();
      const second = await world.worker();
      const state = (identity: NodeIdentity) => world.manager.node(identity.nodeId)?.state;
      await first.session.close();
      world.manager.reportMembership(new Map([[first.identity.nodeId, 'dead']]));
      await until('the first is down', () => state(first.identity) === 'down', 1_000);
      t.match(
        world.manager.node(first.identity.nodeId)?.stateMessage,
        /gossip and the session agree/,
      );
      world.manager.reportMembership(new Map([[second.identity.nodeId, 'dead']]));
      await sleep(1_300);
      t.equal(state(second.identity), 'ready', 'it answers on its session');
      world.manager.reportMembership(new Map());
      const { version, spec } = world.manager.cluster();
      await world.manager.updateCluster(version, { ...spec, dispatcherHeartbeatMs: 200 });
      await until(
        'it beats faster',
        () => second.session.assignments()?.cluster.heartbeatMs === 200,
      );
      await second.session.close();
      await until('the second is down', () => state(second.identity) === 'down', 2_000);
      t.equal(world.manager.node(second.identity.nodeId)?.stateMessage, 'heartbeat failure');
      const back = await world.session(second.identity, second.dataDir);
      await until('it is back', () => state(second.identity) === 'ready' && back.connected);
    });
  },
);

t.test('noise on the port harms nobody', async (t) => {
  await World.run(async (world) => {
    const { port } = world.manager;
    const sockets: Socket[] = [];
    for (let i = 0; i < 150; i++) {
      const socket = connect(port, HOST);
      socket.on('error', () => {});
      socket.write(i % 3 === 0 ? 'GET / HTTP/1.1\r\n\r\n' : randomBytes(1 + i * 13));
      sockets.push(socket);
    }
    const options = { port, host: HOST, rejectUnauthorized: false, minVersion: 'TLSv1.3' as const };
    const garbage = [
      Buffer.from([0xff, 0xff, 0xff, 0xff]),
      Buffer.from([0, 0, 0, 3, 1, 2, 3]),
      randomBytes(5_000),
      encodeFrame({ kind: 'join', token: 'x'.repeat(300) }),
      encodeFrame({ kind: 'renew', request: { publicKey: 'A'.repeat(44), proof: 'A'.repeat(88) } }),
    ];
    for (const ALPNProtocols of [['shoal-ca/1'], ['shoal-dispatch/1'], ['h2'], []]) {
      for (const bytes of garbage) {
        const socket = connectTls({ ...options, ALPNProtocols });
        socket.on('error', () => {});
        socket.on('data', () => {});
        socket.on('secureConnect', () => socket.write(bytes));
        sockets.push(socket);
      }
    }
    const { session } = await world.worker();
    t.ok(session.connected, 'a node joins all the same');
    for (const socket of sockets) socket.destroy();
    await until('all are gone', () => world.manager.stats().listener.handshakes === 0);
    const { listener } = world.manager.stats();
    t.ok(listener.failedHandshakes > 50, `${listener.failedHandshakes} failed handshakes`);
    t.ok(listener.strangers >= 1, `${listener.strangers} strangers`);
  });
});

t.test('a member that talks nonsense loses its session, and no other does', async (t) => {
  await World.run(async (world) => {
    const { identity } = await world.worker();
    const other = await world.worker();
    const { keyPem, certPem, caPem } = identity;
    const speak = (bytes: Uint8Array) =>
      new Promise<void>((resolve) => {
        const socket = connectTls(
          {
            port: world.manager.port,
            host: HOST,
            servername: 'swarm-manager',
            key: keyPem,
            cert: certPem,
            ca: caPem,
            ALPNProtocols: ['shoal-dispatch/1'],
          },
          () => socket.write(bytes),
        );
        socket.on('data', () => {});
        socket.on('error', () => {});
        socket.on('close', () => resolve());
      });
    await speak(encodeFrame({ kind: 'hello', registration: 5 }));
    await speak(
      encodeFrame({
        kind: 'attach',
        request: 1,
        wish: { key: 'k', network: 'n', addresses: [], name: '', aliases: [] },
      }),
    );
    await speak(Buffer.from([0x7f, 0, 0, 0]));
    t.ok(other.session.connected);
    t.ok(world.manager.stats().dispatcher.refusedSessions >= 2);
  });
});

t.test('a taken port is named with its holder, and nothing is left behind', async (t) => {
  await withFolder(async (dir) => {
    const server = createServer().listen(0, HOST);
    await new Promise((resolve) => server.once('listening', resolve));
    const { port } = server.address() as { port: number };
    const creation = {
      dataDir: dir,
      listen: { address: HOST, port },
      advertise: { address: HOST, port },
      node: REGISTRATION,
      log: silent,
    };
    const error = await Manager.create(creation).then(
      () => undefined,
      (e: unknown) => e,
    );
    t.ok(error instanceof SwarmError);
    t.match((error as SwarmError).detail, {
      code: 'SWARM_PORT_TAKEN',
      port,
      protocol: 'tcp',
      by: new RegExp(`pid ${process.pid}`),
    });
    t.equal(await loadIdentity(dir), undefined);
    await t.rejects(Manager.create({ ...creation, listen: { address: '192.0.2.1', port: 0 } }), {
      code: 'SWARM_BAD_ADDRESS',
    });
    await t.rejects(Manager.create({ ...creation, defaultAddressPool: ['10.0.0.1/8'] }), {
      code: 'SWARM_INVALID',
    });
    server.close();
    const { manager, identity } = await Manager.create(creation);
    t.equal(manager.port, port);
    const store = await readFile(join(dir, 'control', 'journal'), 'utf8');
    t.match(store, identity.nodeId);
    await manager.close();
  });
});

t.test('certificates are renewed with the old one, by old nodes too', async (t) => {
  await World.run(async (world) => {
    const { identity, session, dataDir } = await world.worker();
    await session.close();
    // As if most of its life were over: the half-way mark is long past.
    const aged = {
      ...identity,
      notBeforeMs: Date.now() - 80 * 86_400_000,
      expiresAtMs: Date.now() + 86_400_000,
    };
    const renewing = await world.session(aged, dataDir);
    await until('it has a session', () => renewing.connected);
    t.not(renewing.identity.certPem, identity.certPem);
    t.equal(renewing.identity.nodeId, identity.nodeId);
    t.equal(renewing.identity.peerId, identity.peerId, 'the key stays');
    t.equal((await loadIdentity(dataDir))?.certPem, renewing.identity.certPem);
    await world.manager.removeNode(identity.nodeId, true);
    await until('it ended', () => renewing.ended === 'removed');
    const barred = await world.session(aged, dataDir);
    await until('it cannot renew any more', () => barred.ended === 'removed');
  });
});

t.test('a swarm that was off until its certificates had expired comes back', async (t) => {
  await withFolder(async (dir) => {
    const past = () => Date.now() - 200 * 86_400_000;
    const place = {
      dataDir: join(dir, 'manager'),
      listen: { address: HOST, port: 0 },
      advertise: { address: HOST, port: 0 },
      log: silent,
    };
    const created = await Manager.create({ ...place, node: REGISTRATION, now: past });
    const dataDir = join(dir, 'worker');
    // A join would look at today's clock, so the certificate is asked of the past by hand.
    const { caKeyPem } = JSON.parse(
      (await readFile(join(dir, 'manager', 'control', 'journal'), 'utf8'))
        .split('\n')[1]
        ?.replace(/^\S+ \S+ /, '') ?? '',
    ).commands[0].secrets as { caKeyPem: string };
    await created.manager.close();
    const manager = await Manager.open({ ...place, identity: created.identity });
    t.ok(manager.identity.expiresAtMs > Date.now(), 'the manager has renewed its own');
    const joined = await JoinAttempt.start({
      token: manager.cluster().joinTokens.worker,
      remotes: [{ address: HOST, port: manager.port }],
      node: REGISTRATION,
      dataDir,
      log: silent,
    }).within(5_000);
    const caPem = manager.cluster().rootCaPem;
    const { nodeId, clusterId } = joined.identity;
    const certPem = await issueNodeCertificate(
      { caPem, caKeyPem },
      {
        nodeId,
        clusterId,
        role: 'worker',
        publicKey: rawPublicKeyOf(joined.identity.seed),
        atMs: past(),
        lifeMs: 90 * 86_400_000,
      },
    );
    const expired = makeIdentity(joined.identity.seed, certPem, caPem);
    if (expired === undefined) throw new Error('no identity');
    t.ok(expired.expiresAtMs < Date.now());
    const session = await ManagerSession.open({
      identity: expired,
      managers: [{ address: HOST, port: manager.port }],
      registration: () => REGISTRATION,
      dataDir,
      log: silent,
    });
    await until('it is connected', () => session.connected);
    t.ok(session.identity.expiresAtMs > Date.now());
    await session.close();
    await manager.close();
  });
});

t.test('gossip keys rotate, and agents hear of it; a second manager role is refused', async (t) => {
  await World.run(async (world) => {
    const { identity, session } = await world.worker();
    const ids = () => session.assignments()?.gossipKeys.map(({ id }) => id);
    t.strictSame(ids(), [0, 1]);
    await world.manager.rotateGossipKeys();
    await until('the keys are there', () => ids()?.join() === '1,0,2');
    const node = world.manager.node(identity.nodeId);
    if (node === undefined) throw new Error('no node');
    await t.rejects(
      world.manager.updateNode(node.id, node.version, { ...node.spec, role: 'manager' }),
      { code: 'SWARM_UNSUPPORTED' },
    );
    await world.manager.updateNode(node.id, node.version, { ...node.spec, availability: 'drain' });
    await until(
      'it is told',
      () => session.assignments()?.nodes.find(({ id }) => id === node.id)?.availability === 'drain',
    );
    await world.restart();
    await until('it is back', () => session.connected);
    t.strictSame(ids(), [1, 0, 2]);
    t.equal(world.manager.node(node.id)?.spec.availability, 'drain');
  });
});
