import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { SwarmError } from '../../../src/base/swarm-error.js';
import { createManager, forgetSwarm, loadIdentity } from '../../../src/control/index.js';
import { networkSpec, REGISTRATION, silent, withFolder } from '../support.js';
import { filesBelow, HOST, refusalOf, until, World } from './managers.js';

t.test('a worker joins, is told everything, gets addresses, and leaves', async (t) => {
  await World.run({}, async (world) => {
    const { manager, first } = world;
    const own = await first.openSession();
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
    t.match(manager.node(first.id)?.manager, {
      leader: true,
      reachability: 'reachable',
      address: `${HOST}:${manager.port}`,
    });
    t.equal((await loadIdentity(dataDir))?.nodeId, identity.nodeId);

    const network = await manager.createNetwork(networkSpec('mesh'));
    await until('the worker knows the network', () => session.assignments()?.networks.length === 2);
    const assignments = session.assignments();
    t.equal(assignments?.gossipKeys.length, 2);
    t.equal(assignments?.gossipKeys[0]?.secret.length, 32);
    t.strictSame(assignments?.cluster.managers, [first.remote]);
    await until(
      'both know both',
      () => session.assignments()?.nodes.length === 2 && own.assignments()?.nodes.length === 2,
    );
    t.match(
      own.assignments()?.nodes.find((node) => node.id === identity.nodeId),
      { peerId: identity.peerId, gossipPort: 7946, state: 'ready' },
    );

    const wish = { networkId: network.id, name: 'web', aliases: ['www'], key: 'one' };
    const [one, again] = await Promise.all([session.attach(wish), session.attach(wish)]);
    t.equal(one.id, again.id, 'the same key is the same attachment');
    t.strictSame(one.addresses, ['10.0.1.2/24']);
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
    await until(
      'it is among its own',
      () => session.assignments()?.attachments.some(({ key }) => key === 'one') === true,
    );
    await t.rejects(manager.removeNetwork('mesh'), { code: 'SWARM_IN_USE' });

    await session.leave(5_000);
    t.equal(session.ended, 'left');
    t.equal(manager.node(identity.nodeId)?.state, 'down');
    t.strictSame(
      manager.attachments().flatMap(({ id, name }) => (name.startsWith('ingress-') ? [] : [id])),
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
  await World.run({}, async (world) => {
    const { manager } = world;
    const { worker, manager: managerToken } = manager.cluster().joinTokens;
    const startedMs = performance.now();
    await t.rejects(world.join(`${worker.slice(0, -4)}0000`).within(5_000), {
      code: 'SWARM_TOKEN_REFUSED',
    });
    const tookMs = performance.now() - startedMs;
    t.ok(tookMs < 1_000, `refused after ${tookMs} ms`);
    t.match(
      refusalOf(() => world.join('nonsense')),
      { code: 'SWARM_TOKEN_MALFORMED' },
    );
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

    const joined = await world.join(managerToken).within(5_000);
    t.equal(joined.identity.role, 'manager');
    t.match(manager.node(joined.identity.nodeId), { spec: { role: 'manager' } });
    t.equal(manager.node(joined.identity.nodeId)?.manager, undefined, 'no member of the group yet');
    t.equal(manager.stats().raft.members.length, 1);
  });
});

t.test(
  'joining goes on in the background until a manager is there, or it is cancelled',
  async (t) => {
    await World.run({}, async (world) => {
      const token = world.manager.cluster().joinTokens.worker;
      const remotes = [world.first.remote];
      await world.first.close();
      const attempt = world.join(token, { remotes });
      await t.rejects(attempt.within(300), { code: 'SWARM_JOIN_TIMEOUT' });
      const cancel = new AbortController();
      const cancelled = world.join(token, { remotes, signal: cancel.signal });
      cancel.abort();
      await t.rejects(cancelled.done, { code: 'SWARM_NO_MANAGER' });
      await world.first.reopen();
      const { identity } = await attempt.done;
      t.ok(world.manager.node(identity.nodeId));
      t.equal(world.manager.nodes().length, 2);
    });
  },
);

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
      onFatal: (error: Error) => t.fail(error),
    };
    const error = await createManager(creation).then(
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
    await t.rejects(createManager({ ...creation, listen: { address: '192.0.2.1', port: 0 } }), {
      code: 'SWARM_BAD_ADDRESS',
    });
    await t.rejects(createManager({ ...creation, defaultAddressPool: ['10.0.0.1/8'] }), {
      code: 'SWARM_INVALID',
    });
    t.strictSame(await filesBelow(dir).then(namesOf), ['identity/raft-keys.json'], 'keys only');
    server.close();
    const { manager, identity } = await createManager(creation);
    t.equal(manager.port, port);
    await manager.close();
    for (const { path, bytes } of await filesBelow(join(dir, 'control')))
      t.notOk(bytes.includes(identity.nodeId), `${path} is sealed`);

    function namesOf(files: readonly { readonly path: string }[]): string[] {
      return files.map(({ path }) => path.slice(dir.length + 1));
    }
  });
});
