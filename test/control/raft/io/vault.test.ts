import { mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t from 'tap';
import type { RaftStorageError } from '../../../../src/control/raft/core/wal-error.js';
import { generateUnlockKey, Vault } from '../../../../src/control/raft/io/vault.js';
import { openRaftStorage } from '../../../../src/control/raft/io/wal-storage.js';
import {
  formatUnlockKey,
  parseUnlockKey,
} from '../../../../src/control/raft/wire/wal-unlock-key.js';
import { SILENT } from '../../../support/storage-model.js';

const secretOf = (vault: Vault) => Buffer.from(vault.currentKey().secret).toString('base64');

function refusal(run: () => unknown): RaftStorageError['code'] | undefined {
  try {
    run();
    return undefined;
  } catch (error) {
    return (error as RaftStorageError).code;
  }
}

t.test('unlock keys are written as Docker does', async (t) => {
  const text = 'SWMKEY-1-ZN/Z5zUuKepsoVEBdtHWm503UPR+w+ClJwPGVeZeoEE';
  t.equal(formatUnlockKey(parseUnlockKey(text) as Buffer), text);
  t.equal(parseUnlockKey(` ${text}\n`)?.length, 32);
  for (const wrong of [
    '',
    'SWMKEY-1-',
    text.slice(0, -1),
    `${text}A`,
    `${text}=`,
    text.replace('SWMKEY-1', 'SWMKEY-2'),
    text.replace(/E$/, 'F'),
    text.slice('SWMKEY-1-'.length),
  ])
    t.equal(parseUnlockKey(wrong), undefined, wrong);
  t.match(generateUnlockKey(), /^SWMKEY-1-[A-Za-z0-9+/]{43}$/);
  t.not(generateUnlockKey(), generateUnlockKey());
});

t.test('without a lock a restart finds the keys, in a file of nobody else', async (t) => {
  const path = join(t.testdir(), 'identity', 'raft-keys.json');
  const vault = await Vault.open(path);
  t.notOk(vault.locked);
  t.notOk(vault.autolock);
  t.equal((await stat(path)).mode & 0o777, 0o600);
  t.equal((await stat(join(path, '..'))).mode & 0o777, 0o700);
  const again = await Vault.open(path);
  t.equal(secretOf(again), secretOf(vault));
  t.equal(again.currentKey().id, vault.currentKey().id);
});

t.test('with a lock a restart needs the key, and only that one', async (t) => {
  const path = join(t.testdir(), 'raft-keys.json');
  const vault = await Vault.open(path);
  const exposed = secretOf(vault);
  const unlockKey = generateUnlockKey();
  await vault.lock(unlockKey);
  t.not(secretOf(vault), exposed, 'a key that was on disk in the clear seals nothing more');
  t.equal(vault.keyIds().length, 2, 'and what it sealed can still be read');
  const text = await readFile(path, 'utf8');
  t.notOk(text.includes(secretOf(vault)) || text.includes(exposed), 'no key is in the clear');

  const again = await Vault.open(path);
  t.ok(again.locked && again.autolock);
  t.equal(
    refusal(() => again.currentKey()),
    'RAFT_STORAGE_LOCKED',
  );
  t.equal(
    refusal(() => again.keyById('0')),
    'RAFT_STORAGE_LOCKED',
  );
  await t.rejects(again.rotate(), { code: 'RAFT_STORAGE_LOCKED' });
  for (const wrong of [generateUnlockKey(), 'SWMKEY-1-no', ''])
    t.equal(
      refusal(() => again.unlock(wrong)),
      'RAFT_STORAGE_KEY',
    );
  t.ok(again.locked, 'and stays locked');
  again.unlock(unlockKey);
  t.notOk(again.locked);
  t.equal(secretOf(again), secretOf(vault));
});

t.test('a vault that is locked from the start was never open on disk', async (t) => {
  const path = join(t.testdir(), 'raft-keys.json');
  const unlockKey = generateUnlockKey();
  const vault = await Vault.open(path, unlockKey);
  t.notOk(vault.locked);
  t.notOk((await readFile(path, 'utf8')).includes(secretOf(vault)));
  const again = await Vault.open(path);
  t.ok(again.locked);
  again.unlock(unlockKey);
  t.equal(secretOf(again), secretOf(vault));
});

t.test('another unlock key, then none: keys stay, and at no moment two lead in', async (t) => {
  const path = join(t.testdir(), 'raft-keys.json');
  const [first, second] = [generateUnlockKey(), generateUnlockKey()];
  const vault = await Vault.open(path, first);
  const key = secretOf(vault);
  await vault.lock(second);
  const rotated = await Vault.open(path);
  t.equal(
    refusal(() => rotated.unlock(first)),
    'RAFT_STORAGE_KEY',
    'the old one is void',
  );
  rotated.unlock(second);
  t.equal(secretOf(rotated), key, 'the data keys are the same');
  await rotated.lock(undefined);
  const clear = await Vault.open(path);
  t.notOk(clear.locked || clear.autolock);
  t.equal(secretOf(clear), key);
});

t.test('a change that cannot be written changes nothing', async (t) => {
  const path = join(t.testdir(), 'raft-keys.json');
  const vault = await Vault.open(path);
  const key = secretOf(vault);
  // A file cannot replace a folder with something in it, whoever asks.
  await rm(path);
  await mkdir(join(path, 'x'), { recursive: true });
  await t.rejects(vault.lock(generateUnlockKey()));
  await t.rejects(vault.rotate());
  t.equal(secretOf(vault), key);
  t.notOk(vault.autolock);
  t.strictSame(await readdir(dirname(path)), ['raft-keys.json'], 'nothing is left of the attempts');
});

t.test('keys are rotated, kept and forgotten, in order', async (t) => {
  const path = join(t.testdir(), 'raft-keys.json');
  const vault = await Vault.open(path);
  const first = vault.currentKey().id;
  const [second, third] = await Promise.all([vault.rotate(), vault.rotate()]);
  t.equal(vault.keyIds().length, 3);
  t.equal(vault.currentKey().id, third.id);
  await vault.forget([first, third.id]);
  t.strictSame(vault.keyIds(), [second.id, third.id], 'never the current one');
  t.equal(vault.keyById(first), undefined);
  t.strictSame((await Vault.open(path)).keyIds(), [second.id, third.id]);
  for (let i = 0; i < 70; i++) await vault.rotate();
  t.equal(vault.keyIds().length, 64, 'not without end');
  t.strictSame((await Vault.open(path)).keyIds(), vault.keyIds());
});

t.test('secrets of the node are wrapped with what the one file has', async (t) => {
  const path = join(t.testdir(), 'raft-keys.json');
  const vault = await Vault.open(path);
  const secret = Buffer.from('a private key');
  const early = vault.wrapSecret('tls', secret);
  t.ok(vault.unwrapSecret('tls', early).equals(secret));
  const unlockKey = generateUnlockKey();
  await vault.lock(unlockKey);
  t.notOk(vault.isCurrent(early), 'its key was on disk in the clear');
  t.ok(vault.unwrapSecret('tls', early).equals(secret), 'but it can be read');
  const wrapped = vault.wrapSecret('tls', secret);
  t.ok(vault.isCurrent(wrapped));
  await vault.forgetNodeKeys();
  t.equal(
    refusal(() => vault.unwrapSecret('tls', early)),
    'RAFT_STORAGE_KEY',
  );
  t.equal(
    refusal(() => vault.unwrapSecret('other', wrapped)),
    'RAFT_STORAGE_KEY',
  );
  for (const garbage of ['', '.', 'x', `${wrapped.slice(0, 17)}AA`, wrapped.slice(0, -4)])
    t.equal(
      refusal(() => vault.unwrapSecret('tls', garbage)),
      'RAFT_STORAGE_KEY',
      garbage,
    );
  const again = await Vault.open(path);
  t.equal(
    refusal(() => again.unwrapSecret('tls', wrapped)),
    'RAFT_STORAGE_LOCKED',
  );
  again.unlock(unlockKey);
  t.ok(again.unwrapSecret('tls', wrapped).equals(secret));
  const rotated = generateUnlockKey();
  await again.lock(rotated);
  t.ok(again.isCurrent(wrapped), 'another unlock key needs no other file to change');
});

t.test('a damaged or newer file is refused, and left-overs of a crash go', async (t) => {
  const dir = t.testdir();
  const path = join(dir, 'raft-keys.json');
  await Vault.open(path);
  const text = await readFile(path, 'utf8');
  const cases: readonly (readonly [string, string])[] = [
    ['', 'RAFT_STORAGE_CORRUPT'],
    ['null', 'RAFT_STORAGE_CORRUPT'],
    [text.slice(0, -9), 'RAFT_STORAGE_CORRUPT'],
    [text.replace('"key"', '"kee"'), 'RAFT_STORAGE_CORRUPT'],
    [text.replace('"lock": null', '"lock": {}'), 'RAFT_STORAGE_CORRUPT'],
    [text.replace('"lock": null,', ''), 'RAFT_STORAGE_CORRUPT'],
    [text.replace('"version": 1', '"version": 2'), 'RAFT_STORAGE_SCHEMA'],
  ];
  for (const [content, code] of cases) {
    await writeFile(path, content);
    await t.rejects(Vault.open(path), { code }, content.slice(0, 30));
  }
  await writeFile(path, text);
  await writeFile(`${path}.99-0.tmp`, text);
  await Vault.open(path);
  t.strictSame(await readdir(dir), ['raft-keys.json']);
});

t.test('on a real disk: modes, a lock, rotation, and nothing in the clear', async (t) => {
  const dir = t.testdir();
  const vaultPath = join(dir, 'identity', 'raft-keys.json');
  const vault = await Vault.open(vaultPath);
  const open = (keys: Vault) =>
    openRaftStorage({ dir: join(dir, 'raft'), keys, log: SILENT, segmentBytes: 65_536 });
  const planted = 'correct horse battery staple';
  let storage = await open(vault);
  const write = (index: number) =>
    new Promise<void>((resolve) =>
      storage.write(
        {
          entries: [{ index, term: 1, kind: 'command', data: Buffer.from(planted.repeat(9)) }],
          reset: undefined,
          hardState: { term: 1, vote: 0, commitIndex: index },
        },
        () => resolve(),
      ),
    );
  for (let index = 1; index <= 20; index++) await write(index);
  const exposed = vault.currentKey().id;
  const unlockKey = generateUnlockKey();
  await vault.lock(unlockKey);
  for (let index = 21; index <= 40; index++) await write(index);
  t.strictSame([...storage.keyIds()].sort(), [exposed, vault.currentKey().id].sort());
  await storage.saveSnapshot({ index: 40, term: 1, members: [] }, [Buffer.from(planted)]);
  storage.compact(40);
  t.strictSame([...storage.keyIds()], [vault.currentKey().id], 'a snapshot makes the old one idle');
  await vault.forget(vault.keyIds().filter((id) => !storage.keyIds().has(id)));
  await storage.close();

  for (const folder of ['log', 'snapshots']) {
    t.equal((await stat(join(dir, 'raft', folder))).mode & 0o777, 0o700);
    for (const name of await readdir(join(dir, 'raft', folder))) {
      const path = join(dir, 'raft', folder, name);
      t.equal((await stat(path)).mode & 0o777, 0o600, name);
      t.notOk((await readFile(path)).includes(planted.slice(0, 9)), `${name} holds no secret`);
    }
  }
  const locked = await Vault.open(vaultPath);
  await t.rejects(open(locked), { code: 'RAFT_STORAGE_LOCKED' });
  await t.rejects(open(await Vault.open(join(dir, 'strange.json'))), { code: 'RAFT_STORAGE_KEY' });
  locked.unlock(unlockKey);
  storage = await open(locked);
  t.equal(storage.restart.snapshot.index, 40);
  await storage.close();
});
