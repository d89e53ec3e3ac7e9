import { randomBytes } from 'node:crypto';
import { copyFile, mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { openVault, RaftStorageError, type Vault } from '../../../src/control/index.js';
import { caOf, secretsOf } from '../../../src/control/io/manager-scope.js';
import { networkSpec } from '../support.js';
import { filesBelow, overlaysOf, refusalOf, type Seat, until, World } from './managers.js';

/** What no file may hold. */
function secretsIn(world: World, planted: string): Map<string, string> {
  const { group } = world.manager;
  const { gossipKeys } = secretsOf(group);
  const { joinTokens } = world.manager.cluster();
  const keyPems = JSON.stringify(caOf(group)).match(/BEGIN [A-Z ]*PRIVATE KEY-----\\n([^\\]+)/);
  return new Map([
    ['the secret', planted],
    ['the secret in base64', Buffer.from(planted).toString('base64')],
    ['a gossip key', gossipKeys[0]?.secret ?? ''],
    ['a join token', joinTokens.worker],
    ['the key of the CA', keyPems?.[1] ?? ''],
    ['the unlock key', world.manager.unlockKey() ?? randomBytes(8).toString('hex')],
  ]);
}

/** The keys as a thief would have them: another process must not open those of a manager that runs. */
async function keysOnDisk(seat: Seat): Promise<Vault> {
  const copy = seat.world.folder('stolen');
  await mkdir(join(copy, 'identity'), { recursive: true });
  await copyFile(
    join(seat.dataDir, 'identity', 'raft-keys.json'),
    join(copy, 'identity', 'raft-keys.json'),
  );
  return openVault(copy);
}

async function opensWith(seat: Seat, key: string): Promise<boolean> {
  const vault = await keysOnDisk(seat);
  if (!vault.locked) return false;
  try {
    vault.unlock(key);
    return true;
  } catch (error) {
    if (error instanceof RaftStorageError && error.code === 'RAFT_STORAGE_KEY') return false;
    throw error;
  }
}

async function change(world: World, autolock: boolean, unlockKey = false): Promise<void> {
  const { version, spec } = world.manager.cluster();
  await world.manager.updateCluster(version, { ...spec, autolock }, { unlockKey });
}

t.test('no secret of the swarm is on any manager’s disk in the clear', async (t) => {
  await World.run({ managers: 3 }, async (world) => {
    await world.settled();
    const planted = `planted-${randomBytes(12).toString('hex')}`;
    const data = Buffer.from(planted).toString('base64');
    await world.seatAt(1).manager.createSecret({ name: 'tls-key', labels: {} }, data);
    await world.manager.fresh();
    t.equal(secretsOf(world.seatAt(2).manager.group).gossipKeys.length, 2);
    const look = async (when: string) => {
      const secrets = secretsIn(world, planted);
      for (const [what, secret] of secrets) t.ok(secret.length >= 8, `${what} is known`);
      const files = await filesBelow(world.dir);
      t.ok(files.length > 9, `${files.length} files`);
      for (const { path, bytes } of files)
        for (const [what, secret] of secrets)
          if (bytes.includes(secret)) t.fail(`${what} is in ${path} ${when}`);
    };
    await look('without a lock');
    await world.manager.group.replica.raft.snapshot();
    await look('in a snapshot');
    await change(world, true);
    await until('all are locked', () =>
      world.seats.every((seat) => seat.manager.group.vault.autolock),
    );
    await look('with a lock');
    t.notOk(
      JSON.stringify(world.manager.secrets()).includes(data),
      'nor is it shown to who lists secrets',
    );
    for (const { line } of world.lines)
      for (const [what, secret] of secretsIn(world, planted))
        if (line.includes(secret)) t.fail(`${what} was logged: ${line}`);
  });
});

t.test('autolock: on, another key, off; at every time one key opens each manager', async (t) => {
  await World.run({ managers: 2 }, async (world) => {
    await world.settled();
    await world.manager.createNetwork(networkSpec('mesh'));
    const seeds = world.seats.map(({ identity }) => Buffer.from(identity.seed).toString('base64'));
    const seedsOnDisk = async () => {
      const files = await filesBelow(world.dir);
      return seeds.filter((seed) => files.some(({ bytes }) => bytes.includes(seed))).length;
    };
    t.equal(await seedsOnDisk(), 2);
    await change(world, true);
    const first = world.manager.unlockKey() ?? '';
    t.match(first, /^SWMKEY-1-/);
    await until('both have the key', async () =>
      (await Promise.all(world.seats.map((seat) => opensWith(seat, first)))).every(Boolean),
    );
    await until('no node’s key is in the clear', async () => (await seedsOnDisk()) === 0);

    const [, other] = world.seats;
    if (other === undefined) throw new Error('no second manager');
    await other.close();
    const locked = await openVault(other.dataDir);
    t.equal(locked.locked, true);
    t.throws(() => locked.currentKey(), { code: 'RAFT_STORAGE_LOCKED' });
    const wrong = `SWMKEY-1-${randomBytes(32).toString('base64').replace('=', '')}`;
    t.match(
      refusalOf(() => locked.unlock(wrong)),
      { code: 'RAFT_STORAGE_KEY' },
    );
    t.match(
      refusalOf(() => locked.unlock('nonsense')),
      { code: 'RAFT_STORAGE_KEY' },
    );
    await other.reopen(first);
    await world.settled();
    t.equal(overlaysOf(other.manager).length, 1);

    await change(world, true, true);
    const second = world.manager.unlockKey() ?? '';
    t.not(second, first);
    for (const seat of world.seats) {
      await until('the new key opens it', () => opensWith(seat, second));
      t.equal(await opensWith(seat, first), false, 'the old one does not');
    }
    await Promise.all(world.seats.map((seat) => seat.close()));
    await Promise.all(world.seats.map((seat) => seat.reopen(second)));
    await world.settled();
    t.ok(await other.manager.createNetwork(networkSpec('again')));

    await change(world, false);
    t.equal(world.manager.unlockKey(), undefined);
    for (const seat of world.seats)
      await until('it is open', async () => !(await keysOnDisk(seat)).locked);
    await until('the nodes’ keys are as before', async () => (await seedsOnDisk()) === 2);
    await other.close();
    await other.reopen();
    t.equal(overlaysOf(other.manager).length, 2);
  });
});

t.test(
  'a manager that joins a locked swarm is locked, and one that slept learns of it',
  async (t) => {
    await World.run({ managers: 2 }, async (world) => {
      await world.settled();
      const third = await world.joinAsManager();
      await third.close();
      await change(world, true);
      const key = world.manager.unlockKey() ?? '';
      const fourth = await world.joinAsManager();
      await until('who joins is locked', () => opensWith(fourth, key));
      await until('no key is in the clear', async () =>
        (await filesBelow(fourth.dataDir)).every(
          ({ bytes }) => !bytes.includes(Buffer.from(fourth.identity.seed).toString('base64')),
        ),
      );
      await third.reopen();
      await until('who was off is locked', () => opensWith(third, key));
      t.ok(await third.manager.createNetwork(networkSpec('mesh')));
    });
  },
);
