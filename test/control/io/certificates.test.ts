import { join } from 'node:path';
import t from 'tap';
import {
  issueCertificate,
  makeIdentity,
  rawPublicKeyOf,
} from '../../../src/control/identity/index.js';
import {
  createManager,
  JoinAttempt,
  loadIdentity,
  ManagerSession,
  openManager,
  openVault,
} from '../../../src/control/index.js';
import { caOf } from '../../../src/control/io/manager-scope.js';
import { REGISTRATION, silent, withFolder } from '../support.js';
import { HOST, until, World } from './managers.js';

const DAY_MS = 86_400_000;

t.test('certificates are renewed with the old one, by old nodes too', async (t) => {
  await World.run({}, async (world) => {
    const { identity, session, dataDir } = await world.worker();
    await session.close();
    // As if most of its life were over: the half-way mark is long past.
    const aged = {
      ...identity,
      notBeforeMs: Date.now() - 80 * DAY_MS,
      expiresAtMs: Date.now() + DAY_MS,
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
    const past = () => Date.now() - 200 * DAY_MS;
    const place = {
      dataDir: join(dir, 'manager'),
      listen: { address: HOST, port: 0 },
      advertise: { address: HOST, port: 0 },
      log: silent,
      onFatal: (error: Error) => t.fail(error),
    };
    const created = await createManager({ ...place, node: REGISTRATION, now: past });
    await created.manager.close();
    t.ok(created.identity.expiresAtMs < Date.now());
    const vault = await openVault(place.dataDir);
    const { manager } = await openManager({ ...place, identity: created.identity, vault });
    t.ok(manager.identity.expiresAtMs > Date.now(), 'the manager has renewed its own');
    t.equal((await loadIdentity(place.dataDir))?.certPem, manager.identity.certPem);

    const dataDir = join(dir, 'worker');
    const joined = await JoinAttempt.start({
      token: manager.cluster().joinTokens.worker,
      remotes: [{ address: HOST, port: manager.port }],
      node: REGISTRATION,
      dataDir,
      log: silent,
    }).within(5_000);
    const { nodeId, clusterId, seed } = joined.identity;
    // A join looks at today's clock, so the certificate of the past is made by hand.
    const { certPem, caPem } = await issueCertificate(caOf(manager.group), {
      nodeId,
      clusterId,
      role: 'worker',
      publicKey: rawPublicKeyOf(seed),
      atMs: past(),
      lifeMs: 90 * DAY_MS,
    });
    const expired = makeIdentity(seed, certPem, caPem);
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
