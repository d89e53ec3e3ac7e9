import t from 'tap';
import { networkSpec } from '../support.js';
import { overlaysOf, until, World } from './managers.js';

/** The last write is known as committed with the next one only, and until then not shown without a quorum. */
async function write(world: World): Promise<void> {
  await world.first.manager.createNetwork(networkSpec('mesh'));
  await world.first.manager.createSecret({ name: 'next', labels: {} }, 'eA==');
}

t.test('all managers restart at once: each has its state before anybody leads', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    await write(world);
    for (const seat of world.seats) await seat.manager.fresh();
    await Promise.all(world.seats.map((seat) => seat.close()));
    const [one, ...others] = world.seats;
    await one?.reopen();
    t.equal(one?.manager.stats().raft.leader, 0, 'there is no leader');
    t.ok(
      one?.manager.networks().some(({ spec }) => spec.name === 'mesh'),
      'its state is there',
    );
    await Promise.all(others.map((seat) => seat.reopen()));
    await world.settled();
    for (const seat of world.seats) {
      t.equal(await seat.manager.fresh(), undefined);
      t.ok(overlaysOf(seat.manager).some(({ spec }) => spec.name === 'mesh'));
      t.equal(seat.manager.secrets().length, 1, 'the very last write, too');
      t.ok(await seat.manager.createNetwork(networkSpec(`again-${seat.id}`)));
    }
    t.equal(world.first.manager.stats().raft.members.length, 3);
  });
});

t.test('without a quorum a manager answers from its copy and refuses changes', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    await write(world);
    const { session } = await world.worker();
    const [alone, ...others] = world.seats;
    if (alone === undefined) throw new Error('no manager');
    await alone.manager.fresh();
    await Promise.all(world.seats.map((seat) => seat.close()));
    await alone.reopen();

    t.equal(overlaysOf(alone.manager)[0]?.spec.name, 'mesh');
    t.equal(alone.manager.cluster().spec.name, 'default');
    let startMs = performance.now();
    const first = await alone.manager.fresh();
    t.ok(performance.now() - startMs < 3_000, 'answered in bounded time');
    t.type(first, 'number', 'it says how old it is');
    startMs = performance.now();
    await t.rejects(alone.manager.createNetwork(networkSpec('refused')), {
      code: 'SWARM_NO_QUORUM',
      message: /no leader/,
    });
    const tookMs = performance.now() - startMs;
    t.ok(tookMs < 7_000, `refused after ${Math.round(tookMs)} ms`);
    t.ok(((await alone.manager.fresh()) ?? 0) > (first ?? 0), 'older with every second');
    t.equal(alone.manager.nodes().filter((node) => node.manager?.leader === true).length, 0);

    // What an agent had goes on meanwhile.
    t.equal(session.assignments()?.networks.length, 2);
    await others[0]?.reopen();
    await until('there is a quorum again', () => world.running.some((seat) => seat.leads));
    t.equal(await alone.manager.fresh(), undefined);
    t.ok(
      await alone.manager.createNetwork(networkSpec('refused')),
      'what was refused is not there',
    );
  });
});

t.test('demoting is refused where it would cost the quorum', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const { leader } = world;
    const [gone, stays] = world.followers;
    if (gone === undefined || stays === undefined) throw new Error('no followers');
    await gone.close();
    await until(
      'it is missed',
      () => leader.manager.node(gone.id)?.manager?.reachability === 'unreachable',
    );
    const demote = async (id: string) => {
      const node = leader.manager.node(id);
      if (node === undefined) throw new Error('no node');
      await leader.manager.updateNode(id, node.version, { ...node.spec, role: 'worker' });
    };
    await t.rejects(demote(stays.id), { message: /loss of quorum/ });
    await demote(gone.id);
    await until('it is out', () => leader.manager.stats().raft.members.length === 2);
    await until('its row says so, too', () => leader.manager.node(gone.id)?.manager === undefined);
    t.ok(await stays.manager.createNetwork(networkSpec('after')));
  });
});
