import { execFileSync } from 'node:child_process';
import {
  appendFile,
  copyFile,
  mkdir,
  readdir,
  readFile,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Change } from '../../../../src/control/store/core/state.js';
import { type OpenJournalFile, openJournalFile } from '../../../../src/control/store/io/journal.js';
import { Store } from '../../../../src/control/store/io/store.js';
import { encodeRecord } from '../../../../src/control/store/wire/record.js';
import { clusterCreate, networkId, networkSpec, silent, withFolder } from '../../support.js';

const MOUNT = 'mount';
const UNMOUNT = 'umount';

const open = (dir: string, more: object = {}) => Store.open({ dir, log: silent, ...more });
const create = (store: Store, n: number) =>
  store.propose({
    kind: 'network_create',
    id: networkId(n),
    spec: networkSpec(`net${n}`),
    atMs: n,
  });
const begin = (store: Store) => store.propose({ ...clusterCreate(), atMs: 1 });
const names = (store: Store) => [...store.state.rows('network')].map(({ spec }) => spec.name);

t.test('what was acknowledged is there after a restart', async (t) => {
  await withFolder(async (dir) => {
    const store = await open(dir);
    await begin(store);
    await Promise.all([1, 2, 3].map((n) => create(store, n)));
    await t.rejects(create(store, 2), { code: 'SWARM_NAME_TAKEN' });
    const before = JSON.stringify(store.state.snapshot());
    await store.close();
    await t.rejects(create(store, 4), { code: 'CONTROL_STORE_CLOSED' });
    const again = await open(dir);
    t.equal(JSON.stringify(again.state.snapshot()), before);
    t.equal((await stat(join(dir, 'journal'))).mode & 0o777, 0o600);
    await again.close();
  });
});

t.test(
  'nobody sees a change before the disk has it, and waiting commands share a flush',
  async (t) => {
    await withFolder(async (dir) => {
      let flushes = 0;
      let seen: string[] = [];
      let store: Store | undefined;
      const openFile: OpenJournalFile = async (path) => {
        const file = await openJournalFile(path);
        return {
          ...file,
          datasync: async () => {
            flushes++;
            if (store !== undefined) seen = names(store);
            await file.datasync();
          },
        };
      };
      store = await open(dir, { openFile });
      await begin(store);
      const heard: Change[] = [];
      store.watch((changes) => heard.push(...changes));
      flushes = 0;
      await Promise.all(Array.from({ length: 100 }, (_, n) => create(store as Store, n)));
      t.ok(flushes <= 2, `${flushes} flushes`);
      t.strictSame(seen, [], 'during the flush nothing was visible');
      t.equal(heard.length, 100);
      await store.close();
    });
  },
);

t.test('a journal cut at any byte opens, with every line that was whole', async (t) => {
  await withFolder(async (dir) => {
    const first = join(dir, 'first');
    const store = await open(first);
    await begin(store);
    const ends: number[] = [store.journalBytes];
    for (let n = 1; n <= 4; n++) {
      await create(store, n);
      ends.push(store.journalBytes);
    }
    await store.close();
    const bytes = await readFile(join(first, 'journal'));
    for (let cut = ends[0] as number; cut <= bytes.length; cut++) {
      const copy = join(dir, 'copy');
      await mkdir(copy);
      await writeFile(join(copy, 'journal'), bytes.subarray(0, cut));
      const again = await open(copy);
      const acknowledged = ends.filter((end) => end <= cut).length - 1;
      if (names(again).length !== acknowledged) t.fail(`cut at ${cut}: ${names(again)}`);
      if (cut % 50 === 0) {
        await create(again, 9);
        await again.close();
        const third = await open(copy);
        if (names(third).length !== acknowledged + 1) t.fail(`after a cut at ${cut}`);
        await third.close();
      } else await again.close();
      await rm(copy, { recursive: true });
    }
    t.pass('held');
  });
});

t.test('damage in the middle is refused by name and place', async (t) => {
  await withFolder(async (dir) => {
    const store = await open(dir);
    await begin(store);
    const damagedAt = store.journalBytes;
    for (const n of [1, 2]) await create(store, n);
    await store.close();
    const path = join(dir, 'journal');
    const bytes = await readFile(path);
    bytes[damagedAt + 40] = (bytes[damagedAt + 40] ?? 0) ^ 1;
    await writeFile(path, bytes);
    await t.rejects(open(dir), {
      code: 'CONTROL_STORE_CORRUPT',
      detail: { file: path, offsetBytes: damagedAt },
      message: /is damaged at byte \d+: restore it from a copy/,
    });
    await writeFile(path, encodeRecord({ schema: 99 }));
    await t.rejects(open(dir), {
      code: 'CONTROL_STORE_SCHEMA',
      message: /newer version \(schema 99/,
    });
    await writeFile(path, 'no journal at all');
    await t.rejects(open(dir), { code: 'CONTROL_STORE_CORRUPT' });
  });
});

t.test('a line that is missing in the middle is noticed', async (t) => {
  await withFolder(async (dir) => {
    const store = await open(dir);
    await begin(store);
    const from = store.journalBytes;
    await create(store, 1);
    const to = store.journalBytes;
    await create(store, 2);
    await store.close();
    const path = join(dir, 'journal');
    const bytes = await readFile(path);
    await writeFile(path, Buffer.concat([bytes.subarray(0, from), bytes.subarray(to)]));
    await t.rejects(open(dir), { code: 'CONTROL_STORE_CORRUPT' });
  });
});

t.test(
  'a long journal becomes a snapshot, and a crash between the two loses nothing',
  async (t) => {
    await withFolder(async (dir) => {
      const live = join(dir, 'live');
      const store = await open(live, { journalBytesMax: 4_000 });
      await begin(store);
      let biggest = 0;
      for (let n = 0; n < 60; n++) {
        await create(store, n);
        biggest = Math.max(biggest, store.journalBytes);
      }
      await store.close();
      t.ok(biggest < 8_000, `${biggest} bytes at most`);
      t.notOk((await readdir(live)).some((name) => name.endsWith('.tmp')));
      const again = await open(live);
      t.equal(names(again).length, 60);
      // As after a crash: the new snapshot, and the journal from before it, and a half-made file.
      await again.close();
      const crashed = join(dir, 'crashed');
      const old = await open(crashed);
      await begin(old);
      for (let n = 0; n < 10; n++) await create(old, n);
      await old.close();
      await copyFile(join(crashed, 'journal'), join(dir, 'old-journal'));
      const compacting = await open(crashed, { journalBytesMax: 1 });
      await create(compacting, 10);
      await compacting.close();
      await copyFile(join(dir, 'old-journal'), join(crashed, 'journal'));
      await writeFile(join(crashed, 'snapshot.1-1.tmp'), 'half');
      await t.rejects(
        open(crashed).then((one) => one.close().then(() => Promise.reject(new Error('opened')))),
        { message: 'opened' },
      );
      const healed = await open(crashed);
      t.equal(names(healed).length, 11);
      t.notOk((await readdir(crashed)).includes('snapshot.1-1.tmp'));
      await healed.close();
    });
  },
);

t.test(
  'a failed write is refused and undone; if it cannot be undone nothing more is written',
  async (t) => {
    await withFolder(async (dir) => {
      let failing: 'no' | 'sync' | 'all' = 'no';
      const fail = () =>
        Promise.reject(Object.assign(new Error('EIO: i/o error'), { code: 'EIO' }));
      const openFile: OpenJournalFile = async (path) => {
        const file = await openJournalFile(path);
        let synced = false;
        return {
          ...file,
          datasync: () => {
            if (failing === 'all') return fail();
            if (failing === 'sync' && !synced) {
              synced = true;
              return fail();
            }
            return file.datasync();
          },
        };
      };
      const store = await open(dir, { openFile });
      await begin(store);
      failing = 'sync';
      await t.rejects(create(store, 1), { code: 'CONTROL_STORE_FAILED' });
      failing = 'no';
      t.strictSame(names(store), []);
      await create(store, 2);
      failing = 'all';
      await t.rejects(create(store, 3), {
        code: 'CONTROL_STORE_FAILED',
        message: /restart the agent/,
      });
      failing = 'no';
      await t.rejects(create(store, 4), { code: 'CONTROL_STORE_FAILED' });
      t.strictSame(names(store), ['net2']);
      await store.close();
      const again = await open(dir);
      t.strictSame(names(again), ['net2']);
      await again.close();
    });
  },
);

t.test('a full disk refuses the write and loses nothing', async (t) => {
  await withFolder(async (dir) => {
    const mounted = join(dir, 'small');
    await mkdir(mounted);
    try {
      execFileSync(MOUNT, ['-t', 'tmpfs', '-o', 'size=64k', 'shc-small', mounted], {
        stdio: 'ignore',
      });
    } catch {
      t.pass('a small file system is mounted', { skip: 'needs root' });
      return;
    }
    try {
      const store = await open(mounted);
      await begin(store);
      let kept = 0;
      let refusal: unknown;
      for (let n = 0; n < 500 && refusal === undefined; n++)
        await create(store, n).then(
          () => kept++,
          (error: unknown) => {
            refusal = error;
          },
        );
      t.match(refusal, { code: 'CONTROL_STORE_FULL' });
      t.equal(names(store).length, kept);
      await t.rejects(create(store, 1000), { code: 'CONTROL_STORE_FULL' });
      await store.close();
      const again = await open(mounted);
      t.equal(names(again).length, kept, 'all that was acknowledged');
      await again.close();
    } finally {
      execFileSync(UNMOUNT, [mounted]);
    }
  });
});

t.test('bytes after the last line that are no line are cut off and kept aside', async (t) => {
  await withFolder(async (dir) => {
    const store = await open(dir);
    await begin(store);
    await store.close();
    await appendFile(join(dir, 'journal'), Buffer.alloc(700));
    const again = await open(dir);
    await create(again, 1);
    await again.close();
    t.equal((await readFile(join(dir, 'journal.torn'))).length, 700);
    const third = await open(dir);
    t.strictSame(names(third), ['net1']);
    await third.close();
  });
});
