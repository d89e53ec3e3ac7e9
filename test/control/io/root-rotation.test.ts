import t from 'tap';
import { networkSpec } from '../support.js';
import { overlaysOf, until, World } from './managers.js';

t.test('the root of the swarm changes while everything goes on', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    for (const seat of world.seats) await (await seat.openSession()).firstAssignments(5_000);
    const workers = [await world.worker(), await world.worker()];
    await until('all nodes are ready', () =>
      world.manager.nodes().every((node) => node.state === 'ready'),
    );
    const before = world.manager.cluster();
    const written: string[] = [];
    let rotating = true;
    const writer = (async () => {
      for (let i = 0; rotating; i++) {
        const seat = world.seatAt(i % 3);
        written.push((await seat.manager.createNetwork(networkSpec(`n${i}`))).id);
      }
    })();

    const { version, spec } = before;
    await world.seatAt(1).manager.updateCluster(version, spec, { root: true });
    await until('the rotation is over', () =>
      world.seats.every(({ manager }) => {
        const { rootRotationInProgress, rootCaPem } = manager.cluster();
        return !rootRotationInProgress && rootCaPem !== before.rootCaPem;
      }),
    );
    rotating = false;
    await writer;
    t.ok(written.length > 0, `${written.length} writes went on meanwhile`);
    const { rootCaPem, joinTokens, certIssuerPublicKey } = world.manager.cluster();
    t.not(joinTokens.worker, before.joinTokens.worker);
    const nodes = [
      ...workers.map(({ session }) => session.identity),
      ...world.seats.map((s) => s.identity),
    ];
    for (const identity of nodes) t.equal(identity.issuer.publicKey, certIssuerPublicKey);
    await until('all are connected', () => workers.every(({ session }) => session.connected));
    await until('all trust the new root alone', () =>
      workers.every(({ session }) => session.identity.caPem === rootCaPem),
    );

    await t.rejects(world.join(before.joinTokens.worker).within(5_000), {
      code: 'SWARM_CA_MISMATCH',
    });
    await world.join(joinTokens.worker).within(5_000);
    const { leader } = world;
    await leader.close();
    await until('another leads', () => world.running.some((seat) => seat.leads));
    await leader.reopen();
    await until('it has caught up', () => overlaysOf(leader.manager).length === written.length);
    t.ok(await leader.manager.createNetwork(networkSpec('after')));
  });
});
