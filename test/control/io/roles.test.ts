import t from 'tap';
import { loadIdentity } from '../../../src/control/index.js';
import { certifiedRoleOf } from '../../../src/control/io/manager-ca.js';
import { networkSpec } from '../support.js';
import { overlaysOf, type Seat, until, World } from './managers.js';

/** What an agent does when its manager is one no more. */
async function becomeWorker(seat: Seat): Promise<void> {
  await seat.closeManager();
  seat.session.reopen();
}

async function setRole(world: World, id: string, role: 'manager' | 'worker'): Promise<void> {
  const { manager } = world.leader;
  const node = manager.node(id);
  if (node === undefined) throw new Error('no node');
  await manager.updateNode(id, node.version, { ...node.spec, role });
}

t.test('a promoted worker gets a certificate by which it becomes a manager', async (t) => {
  await World.run({}, async (world) => {
    const { identity, session, dataDir } = await world.worker();
    t.equal(identity.role, 'worker');
    await t.rejects(world.becomeManager(dataDir, identity), /cancelled/, 'not by its own wish');
    t.equal(world.manager.stats().raft.members.length, 1);
    await setRole(world, identity.nodeId, 'manager');
    await until('it has the certificate', () => session.identity.role === 'manager');
    t.equal((await loadIdentity(dataDir))?.role, 'manager');
    t.equal(session.identity.peerId, identity.peerId, 'the key stays');
    const manager = await world.becomeManager(dataDir, session.identity);
    try {
      t.equal(world.manager.stats().raft.members.length, 2);
      t.ok(await manager.createNetwork(networkSpec('mesh')));
      t.equal(overlaysOf(world.manager).length, 1);
      await until(
        'all agents know both',
        () => session.assignments()?.cluster.managers.length === 2,
      );
    } finally {
      await manager.close();
    }
  });
});

t.test(
  'a demoted manager is out of the group, is told so, and gets a worker’s certificate',
  async (t) => {
    await World.run({ managers: 3 }, async (world) => {
      await world.settled();
      const [seat] = world.followers;
      if (seat === undefined) throw new Error('no follower');
      const session = await seat.openSession();
      await session.firstAssignments(5_000);
      const asManager = seat.identity;
      await setRole(world, seat.id, 'worker');
      await until('it is told', () => seat.ended === 1);
      const members = () => world.leader.manager.stats().raft.members;
      await until('it is out', () => members().length === 2);
      await becomeWorker(seat);
      await until(
        'its row has no manager',
        () => world.leader.manager.node(seat.id)?.manager === undefined,
      );
      await until('it has the certificate', () => seat.identity.role === 'worker');
      t.equal((await loadIdentity(seat.dataDir))?.role, 'worker');
      t.equal(seat.identity.peerId, asManager.peerId);
      t.ok(await world.leader.manager.createNetwork(networkSpec('after')));

      // The certificate of before is good for years, and for nothing.
      await t.rejects(world.becomeManager(seat.dataDir, asManager));
      t.equal(members().length, 2);
      t.ok(world.running.some((one) => one.manager.stats().peers.wrong_role > 0));
    });
  },
);

t.test('a leader that is demoted hands over first, and goes', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const { leader } = world;
    await setRole(world, leader.id, 'worker');
    await until('it is told', () => leader.ended === 1);
    await leader.close();
    await until('another leads', () => world.running.some((seat) => seat.leads));
    await until('it is out', () => world.leader.manager.stats().raft.members.length === 2);
    await until('its row says so', () => {
      const row = world.leader.manager.group.replica.state.row('node', leader.id);
      return row !== undefined && certifiedRoleOf(row) === 'worker';
    });
    t.ok(await world.leader.manager.createNetwork(networkSpec('after')));
  });
});

t.test('the last manager stays one', async (t) => {
  await World.run({}, async (world) => {
    await t.rejects(setRole(world, world.first.id, 'worker'), { code: 'SWARM_PRECONDITION' });
    t.equal(world.first.ended, 0);
    t.equal(await world.manager.leaveGroup(), false, 'nobody to tell');
  });
});

t.test('a manager that leaves takes its vote along', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const { leader } = world;
    t.equal(await leader.manager.leaveGroup(), true);
    await until('another leads', () => world.followers.length === 2 && world.leader !== leader);
    await until('it is out', () => world.leader.manager.stats().raft.members.length === 2);
    await leader.close();
    t.match(world.leader.manager.node(leader.id), { spec: { role: 'worker' } });
    const [gone] = world.followers;
    // Two voters are left: with one of them away there would be no quorum.
    t.ok(await gone?.manager.createNetwork(networkSpec('after')));
  });
});

t.test('a removed manager’s certificate is refused everywhere, at once', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const [seat] = world.followers;
    if (seat === undefined) throw new Error('no follower');
    await seat.manager.createNetwork(networkSpec('by-it'));
    await setRole(world, seat.id, 'worker');
    await until('it is out', () => world.leader.manager.stats().raft.members.length === 2);
    await until('its row says so', () => world.leader.manager.node(seat.id)?.manager === undefined);
    await world.leader.manager.removeNode(seat.id, true);
    // It goes on trying, over the connections that it had.
    const startMs = performance.now();
    await t.rejects(seat.manager.createNetwork(networkSpec('refused')));
    t.ok(performance.now() - startMs < 16_000);
    t.notOk(overlaysOf(world.leader.manager).some(({ spec }) => spec.name === 'refused'));
  });
});
