import { randomBytes } from 'node:crypto';
import t from 'tap';
import {
  describeSnapshot,
  forceNewGroup,
  identityOf,
  openManager,
  openVault,
  parseSnapshotFile,
  readMember,
  removeState,
  restoreGroup,
  saveIdentity,
  saveSnapshotFile,
  settleRecovered,
} from '../../../src/control/index.js';
import { networkSpec, REGISTRATION } from '../support.js';
import { HOST, overlaysOf, refusalOf, type Seat, until, World } from './managers.js';

/** Where a recovery works: nothing may run there. */
async function placeOf(world: World, seat: Seat) {
  const { dataDir } = seat;
  const vault = await openVault(dataDir);
  return { dataDir, log: world.log, vault, nodeId: seat.id, advertise: seat.remote };
}

async function settle(seat: Seat): Promise<void> {
  const { scope, group } = seat.manager;
  const address = `${HOST}:${seat.manager.port}`;
  await settleRecovered(scope, { raftId: group.member.raftId, address }, REGISTRATION);
}

t.test('one manager of three goes on alone with all that it holds', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const { identity, session } = await world.worker();
    await world.manager.createNetwork(networkSpec('mesh'));
    const [survivor, back, lost] = world.seats;
    if (survivor === undefined || back === undefined || lost === undefined) throw new Error('few');
    await survivor.manager.fresh();
    await Promise.all(world.seats.map((seat) => seat.close()));

    const member = await forceNewGroup(await placeOf(world, survivor));
    t.equal(member.era, 1);
    await survivor.reopen();
    await settle(survivor);
    t.ok(survivor.leads);
    t.equal(survivor.manager.stats().raft.members.length, 1);
    t.equal(overlaysOf(survivor.manager)[0]?.spec.name, 'mesh', 'also what was written last');
    t.equal(await survivor.manager.fresh(), undefined);
    await until('the others are workers until they are promoted', () =>
      [back, lost].every(({ id }) => {
        const node = survivor.manager.node(id);
        return node?.spec.role === 'worker' && node.manager === undefined;
      }),
    );
    const { id } = await survivor.manager.createNetwork(networkSpec('after'));
    await until('its agents follow', () =>
      Boolean(session.connected && session.assignments()?.networks.some((net) => net.id === id)),
    );
    t.equal(survivor.manager.node(identity.nodeId)?.state, 'ready');

    // One of the lost comes back as it was: it disturbs nobody, and is nobody.
    await back.reopen();
    await t.rejects(back.manager.group.leader.callLeader('raft.holds', {}, { timeoutMs: 1_000 }));
    t.ok(survivor.leads);
    t.equal(survivor.manager.stats().raft.members.length, 1);
    await back.close();

    const node = survivor.manager.node(back.id);
    if (node === undefined) throw new Error('no node');
    await survivor.manager.updateNode(back.id, node.version, { ...node.spec, role: 'manager' });
    back.take(await world.becomeManager(back.dataDir, back.identity));
    t.equal(back.manager.group.member.era, 1, 'it is of this era now');
    t.equal(overlaysOf(back.manager).length, 2);
    t.ok(await back.manager.createNetwork(networkSpec('together')));
  });
});

t.test('what is no whole snapshot file is refused, whatever is wrong with it', async (t) => {
  await World.run({}, async (world) => {
    const planted = randomBytes(12).toString('hex');
    await world.manager.createNetwork(networkSpec('mesh'));
    const data = Buffer.from(planted).toString('base64');
    await world.manager.createSecret({ name: 'tls-key', labels: {} }, data);
    const bytes = saveSnapshotFile(world.manager);
    const file = parseSnapshotFile(bytes);
    t.match(file.head, { clusterId: world.manager.cluster().id, era: 0, schema: 1 });
    const described = JSON.stringify(describeSnapshot(file));
    t.match(JSON.parse(described), {
      cluster: 'default',
      nodes: [{ id: world.first.id, role: 'manager', manager: `${HOST}:${world.manager.port}` }],
      networks: [{ name: 'ingress' }, { name: 'mesh' }],
      secrets: ['tls-key'],
    });
    for (const hidden of [planted, data, world.manager.cluster().joinTokens.worker, 'PRIVATE'])
      t.notOk(described.includes(hidden), 'a description tells no secrets');

    const head = bytes.indexOf(0x0a) + 1;
    for (const length of [0, 1, head - 1, head, head + 1, bytes.length - 1])
      t.match(
        refusalOf(() => parseSnapshotFile(bytes.subarray(0, length))),
        { code: 'SWARM_INVALID' },
        `${length} bytes of it`,
      );
    for (let at = head; at < bytes.length; at += 1 + Math.floor(bytes.length / 40)) {
      const damaged = Buffer.from(bytes);
      damaged[at] = (damaged[at] ?? 0) ^ 1;
      t.match(
        refusalOf(() => parseSnapshotFile(damaged)),
        { code: 'SWARM_INVALID', message: /checksum/ },
        `damaged at ${at}`,
      );
    }
    const longer = Buffer.concat([bytes, Buffer.from('x')]);
    for (const other of [longer, randomBytes(10_000), Buffer.from('{"format":"shoal-snapshot"}\n')])
      t.match(
        refusalOf(() => parseSnapshotFile(other)),
        { code: 'SWARM_INVALID' },
      );
  });
});

t.test('a snapshot takes its swarm back to what was, and agents along', async (t) => {
  await World.run({ managers: 2 }, async (world) => {
    await world.settled();
    const { session } = await world.worker();
    const [seat, other] = world.seats;
    if (seat === undefined || other === undefined) throw new Error('too few');
    await seat.manager.createNetwork(networkSpec('kept'));
    await seat.manager.fresh();
    const file = parseSnapshotFile(saveSnapshotFile(seat.manager));
    await seat.manager.createNetwork(networkSpec('undone'));
    const knows = (name: string) =>
      session.assignments()?.networks.some(({ spec }) => spec.name === name) === true;
    await until('agents know it', () => knows('undone'));
    await Promise.all(world.seats.map((one) => one.close()));

    const era = (await readMember(seat.dataDir))?.era ?? 0;
    await removeState(seat.dataDir);
    const member = await restoreGroup(await placeOf(world, seat), file, era);
    t.equal(member.era, 1);
    await seat.reopen();
    await until('it leads', () => seat.leads);
    await settle(seat);
    t.strictSame(
      overlaysOf(seat.manager).map(({ spec }) => spec.name),
      ['kept'],
    );
    t.equal(seat.manager.node(other.id)?.spec.role, 'worker');
    await until('an agent that had seen more goes back, too', () => !knows('undone'));
    t.ok(knows('kept'));
    t.ok(await seat.manager.createNetwork(networkSpec('anew')));

    // What was restored is on this disk for good.
    await seat.close();
    await seat.reopen();
    await until('it leads again', () => seat.leads);
    t.equal(overlaysOf(seat.manager).length, 2);
  });
});

t.test('a snapshot of another swarm makes a node its manager, under a new name', async (t) => {
  await World.run({}, async (world) => {
    await world.manager.createNetwork(networkSpec('mesh'));
    const file = parseSnapshotFile(saveSnapshotFile(world.manager));
    const identity = await identityOf(file, Date.now());
    t.equal(identity.clusterId, world.first.identity.clusterId);
    t.not(identity.nodeId, world.first.id);

    const dataDir = world.folder('restored');
    const vault = await openVault(dataDir);
    await saveIdentity(dataDir, identity);
    const advertise = { address: HOST, port: 0 };
    await restoreGroup(
      { dataDir, log: world.log, vault, nodeId: identity.nodeId, advertise },
      file,
      0,
    );
    const { manager } = await openManager({ ...world.place(dataDir), identity, vault });
    try {
      const address = `${HOST}:${manager.port}`;
      const { raftId } = manager.group.member;
      await settleRecovered(manager.scope, { raftId, address }, REGISTRATION);
      t.equal(manager.cluster().id, world.manager.cluster().id);
      t.equal(overlaysOf(manager)[0]?.spec.name, 'mesh');
      t.match(manager.node(identity.nodeId), { spec: { role: 'manager' }, manager: { address } });
      t.equal(manager.node(world.first.id)?.spec.role, 'worker');
    } finally {
      await manager.close();
    }
  });
});

t.test('a node does not open the state of a swarm that it is not in', async (t) => {
  await World.run({}, async (world) => {
    await World.run({}, async (foreign) => {
      await world.first.close();
      const vault = await openVault(world.first.dataDir);
      const { identity } = foreign.first;
      const place = { ...world.place(world.first.dataDir), identity, vault };
      await t.rejects(openManager(place), { code: 'SWARM_INVALID', message: /another swarm/ });
    });
    await t.rejects(
      openManager({
        ...world.place(world.folder('empty')),
        identity: world.first.identity,
        vault: await openVault(world.folder('empty')),
      }),
      { code: 'SWARM_INVALID', message: /no state of a manager/ },
    );
  });
});
