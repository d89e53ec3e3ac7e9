import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { loadIdentity } from '../../../src/control/index.js';
import { networkSpec } from '../support.js';
import { overlaysOf, until, World } from './managers.js';

t.test('three managers hold the same; a follower reads what it has written', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    for (const seat of world.seats) {
      t.equal(seat.manager.stats().raft.members.length, 3);
      t.ok(seat.manager.stats().raft.members.every(({ voter }) => voter));
      // At once, without any wait: the answer comes when the own copy shows it.
      const { id } = await seat.manager.createNetwork(networkSpec(`of-${seat.id}`));
      t.ok(seat.manager.network(id));
      await seat.manager.createSecret({ name: `s-${seat.id}`, labels: {} }, 'c2VjcmV0');
      t.ok(seat.manager.secrets().some(({ spec }) => spec.name === `s-${seat.id}`));
    }
    const [follower = world.first] = world.followers;
    await t.rejects(follower.manager.createNetwork(networkSpec(`of-${world.first.id}`)), {
      code: 'SWARM_NAME_TAKEN',
    });
    for (const seat of world.seats) {
      t.equal(await seat.manager.fresh(), undefined, 'there is a quorum to ask');
      t.equal(overlaysOf(seat.manager).length, 3, 'a fresh copy has what the others have written');
      t.same(
        Buffer.concat([...seat.manager.capture()]),
        Buffer.concat([...world.first.manager.capture()]),
      );
      const views = seat.manager.nodes().map(({ manager }) => manager);
      t.equal(views.filter((view) => view?.leader === true).length, 1);
      t.ok(views.every((view) => view?.reachability === 'reachable'));
    }
  });
});

t.test('when the leader goes another leads, and nothing that was written is lost', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    const before = world.leader;
    const { session } = await world.worker();
    const written: string[] = [];
    let writing = true;
    // Writes all the time, through a manager that stays.
    const [stays] = world.followers;
    if (stays === undefined) throw new Error('no follower');
    const writer = (async () => {
      for (let i = 0; writing; i++)
        written.push((await stays.manager.createNetwork(networkSpec(`n${i}`))).id);
    })();
    await until('some are written', () => written.length >= 3);
    await before.close();
    await until('another leads', () => world.running.some((seat) => seat.leads));
    const then = written.length;
    await until('writes go on', () => written.length >= then + 3);
    writing = false;
    await writer;
    for (const seat of world.running) {
      await seat.manager.fresh();
      const known = new Set(overlaysOf(seat.manager).map(({ id }) => id as string));
      t.strictSame(
        written.filter((id) => !known.has(id)),
        [],
      );
      t.equal(known.size, written.length, 'none twice');
    }
    await until('its agent has gone to another', () => session.connected);
    await until('the lost one is shown as such', () => {
      const view = world.leader.manager.node(before.id)?.manager;
      return view?.reachability === 'unreachable' && !view.leader;
    });

    await before.reopen();
    await until('it has caught up', () => overlaysOf(before.manager).length === written.length);
    await until(
      'it is shown as reachable',
      () => world.leader.manager.node(before.id)?.manager?.reachability === 'reachable',
    );
    t.equal(world.leader.manager.stats().raft.members.length, 3);
  });
});

t.test('a manager that lost its disk comes back as another member in its own place', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const [lost] = world.followers;
    if (lost === undefined) throw new Error('no follower');
    const { raftId } = lost.manager.group.member;
    await world.first.manager.createNetwork(networkSpec('before'));
    await lost.close();
    await rm(join(lost.dataDir, 'control'), { recursive: true });
    const identity = await loadIdentity(lost.dataDir);
    if (identity === undefined) throw new Error('no identity');
    lost.take(await world.becomeManager(lost.dataDir, identity));
    t.not(lost.manager.group.member.raftId, raftId);
    t.ok(overlaysOf(lost.manager).some(({ spec }) => spec.name === 'before'));
    const members = () => world.leader.manager.stats().raft.members;
    await until(
      'the old member is out',
      () => members().length === 3 && members().every(({ id }) => (id as number) !== raftId),
    );
    await until(
      'the node says which member it is',
      () =>
        world.leader.manager.group.replica.state.row('node', lost.id)?.manager?.raftId ===
        lost.manager.group.member.raftId,
    );
    t.ok(await lost.manager.createNetwork(networkSpec('after')));
    t.equal(world.leader.manager.nodes().length, 3, 'the node is the same');
    t.equal(lost.ended, 0, 'what was said to the old member is not about the new one');
  });
});

t.test('a manager that has another address is found again by the others', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const [moved] = world.followers;
    if (moved === undefined) throw new Error('no follower');
    const { port } = moved.remote;
    await moved.close();
    await moved.reopen(undefined, 0);
    t.not(moved.remote.port, port);
    await until('the group knows', () =>
      world.seats.every((seat) =>
        seat.manager
          .stats()
          .raft.members.some(({ context }) => context.includes(`:${moved.remote.port}`)),
      ),
    );
    await until('it is reachable', () =>
      world.seats.every(
        (seat) => seat.manager.node(moved.id)?.manager?.reachability === 'reachable',
      ),
    );
    t.equal(
      world.leader.manager.node(moved.id)?.manager?.address,
      `${moved.remote.address}:${moved.remote.port}`,
    );
  });
});
