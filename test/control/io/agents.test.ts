import t from 'tap';
import type { NodeIdentity } from '../../../src/control/index.js';
import { networkSpec } from '../support.js';
import { until, World } from './managers.js';

t.test(
  'a session comes back after the manager restarts, and an agent starts without one',
  async (t) => {
    await World.run({}, async (world) => {
      const { identity, session, dataDir } = await world.worker();
      const network = await world.manager.createNetwork(networkSpec('mesh'));
      await session.attach({ networkId: network.id, name: 'a', aliases: [], key: 'a' });
      await until(
        'it is known',
        () => session.assignments()?.attachments.some(({ key }) => key === 'a') === true,
      );
      const { remote } = world.first;
      await world.first.close();
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
      const alone = await world.session(identity, dataDir, [remote]);
      t.equal(alone.connected, false);
      t.strictSame(
        alone.assignments()?.networks.map(({ spec }) => spec.name),
        ['ingress', 'mesh'],
        'from disk',
      );
      t.ok(alone.assignments()?.attachments.some(({ key }) => key === 'a'));
      const patient = alone.attach({ networkId: network.id, name: 'd', aliases: [] });

      await world.first.reopen();
      t.equal(world.manager.node(world.first.id)?.state, 'ready');
      t.strictSame((await patient).addresses, ['10.0.1.3/24'], 'asked before, answered now');
      await until('it is ready', () => world.manager.node(identity.nodeId)?.state === 'ready');
      t.equal(
        (await alone.attach({ networkId: network.id, name: 'a', aliases: [], key: 'a' }))
          .addresses[0],
        '10.0.1.2/24',
      );
    });
  },
);

t.test('a removed node is told so, and its certificate opens nothing any more', async (t) => {
  await World.run({}, async (world) => {
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
    await t.rejects(world.manager.removeNode(world.first.id, true), {
      code: 'SWARM_PRECONDITION',
      message: /is a cluster manager/,
    });
    t.equal(world.manager.nodes().length, 1);
  });
});

t.test(
  'a node that dies is down as soon as gossip says so, and after three heartbeats anyway',
  async (t) => {
    await World.run({}, async (world) => {
      const first = await world.worker();
      const second = await world.worker();
      const state = (identity: NodeIdentity) => world.manager.node(identity.nodeId)?.state;
      const beat = async (dispatcherHeartbeatMs: number) => {
        const { version, spec } = world.manager.cluster();
        await world.manager.updateCluster(version, { ...spec, dispatcherHeartbeatMs });
        await until(
          'its beat is told',
          () => second.session.assignments()?.cluster.heartbeatMs === dispatcherHeartbeatMs,
        );
      };
      await first.session.close();
      world.manager.reportMembership(new Map([[first.identity.nodeId, 'dead']]));
      await until('the first is down', () => state(first.identity) === 'down', 1_000);
      t.match(
        world.manager.node(first.identity.nodeId)?.stateMessage,
        /gossip and the session agree/,
      );
      await beat(200);
      world.manager.reportMembership(new Map([[second.identity.nodeId, 'dead']]));
      const slanderedMs = performance.now();
      await until('a while passes', () => performance.now() - slanderedMs > 1_300);
      t.equal(state(second.identity), 'ready', 'it answers on its session');
      world.manager.reportMembership(new Map());
      await second.session.close();
      await until('the second is down', () => state(second.identity) === 'down', 2_000);
      t.equal(world.manager.node(second.identity.nodeId)?.stateMessage, 'heartbeat failure');
      const back = await world.session(second.identity, second.dataDir);
      await until('it is back', () => state(second.identity) === 'ready' && back.connected);
    });
  },
);

t.test('gossip keys rotate when they are old, and agents hear of it', async (t) => {
  await World.run({}, async (world) => {
    const { identity, session } = await world.worker();
    const ids = () => session.assignments()?.gossipKeys.map(({ id }) => id);
    t.strictSame(ids(), [0, 1]);
    world.aheadMs = 12 * 3_600_000;
    await until('the keys are there', () => ids()?.join() === '1,0,2');
    const node = world.manager.node(identity.nodeId);
    if (node === undefined) throw new Error('no node');
    await world.manager.updateNode(node.id, node.version, { ...node.spec, availability: 'drain' });
    await until(
      'it is told',
      () => session.assignments()?.nodes.find(({ id }) => id === node.id)?.availability === 'drain',
    );
    await world.first.close();
    await world.first.reopen();
    await until('it is back', () => session.connected);
    t.strictSame(ids(), [1, 0, 2]);
    t.equal(world.manager.node(node.id)?.spec.availability, 'drain');
  });
});
