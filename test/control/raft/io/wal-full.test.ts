import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmdirSync } from 'node:fs';
import { rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import type { LogEntry, RaftId } from '../../../../src/control/raft/core/types.js';
import type { StorageWrite } from '../../../../src/control/raft/io/storage.js';
import { type DiskStorage, openRaftStorage } from '../../../../src/control/raft/io/wal-storage.js';
import { errno, MemoryFiles } from '../../../support/memory-files.js';
import { SILENT, TestKeys } from '../../../support/storage-model.js';

const SEGMENT_BYTES = 8_192;

// The storage's own timer keeps no process alive.
const alive = setInterval(() => {}, 1_000);
t.teardown(() => clearInterval(alive));

function entry(index: number, sizeBytes = 300): LogEntry {
  return { index, term: 1, kind: 'command', data: Buffer.alloc(sizeBytes, index) };
}

const entryWrite = (index: number, sizeBytes?: number): StorageWrite => ({
  entries: [entry(index, sizeBytes)],
  reset: undefined,
  hardState: undefined,
});

const voteWrite = (term: number): StorageWrite => ({
  entries: [],
  reset: undefined,
  hardState: { term, vote: 5 as RaftId, commitIndex: 0 },
});

/** 'durable', 'full' or 'failed'. */
function outcome(storage: DiskStorage, write: StorageWrite): Promise<string> {
  return new Promise((resolve) =>
    storage.write(write, (failure) => resolve(failure?.kind ?? 'durable')),
  );
}

interface Opened {
  readonly storage: DiskStorage;
  readonly space: boolean[];
  readonly spaceAgain: Promise<void>;
}

async function openOn(files: MemoryFiles | undefined, dir = '/d'): Promise<Opened> {
  const space: boolean[] = [];
  let again: () => void = () => {};
  const spaceAgain = new Promise<void>((resolve) => {
    again = resolve;
  });
  const storage = await openRaftStorage({
    dir,
    keys: new TestKeys(),
    log: SILENT,
    segmentBytes: SEGMENT_BYTES,
    spaceRetryMs: 5,
    onDiskSpace: (free) => {
      space.push(free);
      if (free) again();
    },
    ...(files === undefined ? {} : { files }),
  });
  return { storage, space, spaceAgain };
}

/** Writes entries until one is refused. @returns The last that is durable. */
async function fill(storage: DiskStorage, first: number): Promise<number> {
  for (let index = first; ; index++) {
    const got = await outcome(storage, entryWrite(index));
    if (got === 'full') return index - 1;
    if (got !== 'durable' || index > 10_000) throw new Error(got);
  }
}

t.test('on a full disk entries are refused, votes are written, and space is noticed', async (t) => {
  const files = new MemoryFiles();
  const { storage, space, spaceAgain } = await openOn(files);
  t.equal(await outcome(storage, entryWrite(1)), 'durable');
  files.capacityBytes = files.usedBytes;
  const last = await fill(storage, 2);
  t.ok(last >= 20, 'all that was allocated is used first');
  t.strictSame(space, [false]);
  t.ok(storage.stats().full);
  t.equal(await outcome(storage, entryWrite(last + 1)), 'full', 'still');
  for (let term = 2; term < 5; term++)
    t.equal(await outcome(storage, voteWrite(term)), 'durable', 'a vote has its place');
  await t.rejects(storage.saveSnapshot({ index: 1, term: 1, members: [] }, [Buffer.alloc(9)]), {
    code: 'RAFT_STORAGE_FULL',
  });
  t.notOk(
    files.paths().some((path) => path.endsWith('.tmp')),
    'nothing half-written is left',
  );

  const restarted = await openOn(files.afterKill());
  t.equal(restarted.storage.restart.entries.length, last);
  t.equal(restarted.storage.restart.hardState.term, 4);

  files.capacityBytes = Number.POSITIVE_INFINITY;
  await spaceAgain;
  t.strictSame(space, [false, true]);
  t.notOk(storage.stats().full);
  t.equal(await outcome(storage, entryWrite(last + 1)), 'durable');
  await storage.close();
  const after = await openOn(files);
  t.equal(after.storage.restart.entries.length, last + 1);
});

t.test('what waits behind a write that found no space is refused with it', async (t) => {
  const files = new MemoryFiles();
  const { storage } = await openOn(files);
  files.capacityBytes = files.usedBytes;
  const last = await fill(storage, 1);
  const outcomes = Promise.all([
    outcome(storage, entryWrite(last + 1)),
    outcome(storage, voteWrite(7)),
  ]);
  t.strictSame(await outcomes, ['full', 'full']);
  t.equal(await outcome(storage, voteWrite(8)), 'durable');
});

t.test(
  'a write that failed half way leaves nothing, whatever is written there later',
  async (t) => {
    for (const sizeBytes of [10, 300, 2_000]) {
      const files = new MemoryFiles();
      const { storage, spaceAgain } = await openOn(files);
      t.equal(await outcome(storage, entryWrite(1)), 'durable');
      // As on a file system that allocates anew for every write.
      files.fault = (operation, path) =>
        operation === 'write' && path.endsWith('.wal') ? errno('ENOSPC', path) : undefined;
      t.equal(await outcome(storage, entryWrite(2, 1_000)), 'full');
      t.equal((await openOn(files.afterKill())).storage.restart.entries.length, 1);
      files.fault = undefined;
      await spaceAgain;
      t.equal(await outcome(storage, entryWrite(2, sizeBytes)), 'durable');
      const { entries } = (await openOn(files.afterKill())).storage.restart;
      t.strictSame(
        entries.map(({ data }) => data.length),
        [300, sizeBytes],
      );
      await storage.close();
    }
  },
);

t.test('a folder for which there is no room is refused', async (t) => {
  const files = new MemoryFiles();
  files.capacityBytes = 5_000;
  await t.rejects(openOn(files), { code: 'RAFT_STORAGE_FULL' });
});

const skip = process.getuid?.() === 0 ? false : 'mounting needs root';

t.test('the same on a file system that is really full', { skip }, async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'shoal-full-'));
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', dir]);
  t.teardown(() => {
    execFileSync('umount', ['-l', dir]);
    rmdirSync(dir);
  });
  const { storage, space, spaceAgain } = await openOn(undefined, join(dir, 'raft'));
  t.equal(await outcome(storage, entryWrite(1)), 'durable');
  // The rest is taken by something else.
  const ballast = join(dir, 'ballast');
  const { bavail, bsize } = await statfs(dir);
  await writeFile(ballast, Buffer.alloc((bavail - 3) * bsize));
  const last = await fill(storage, 2);
  t.strictSame(space, [false]);
  t.equal(await outcome(storage, voteWrite(9)), 'durable');
  await rm(ballast);
  await spaceAgain;
  t.equal(await outcome(storage, entryWrite(last + 1)), 'durable');
  await storage.close();
  const { storage: after } = await openOn(undefined, join(dir, 'raft'));
  t.equal(after.restart.entries.length, last + 1);
  t.equal(after.restart.hardState.term, 9);
  await after.close();
});
