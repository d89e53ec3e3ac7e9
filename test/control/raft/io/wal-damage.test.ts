import fc from 'fast-check';
import t from 'tap';
import type { LogEntry, RaftId } from '../../../../src/control/raft/core/types.js';
import { RaftStorageError } from '../../../../src/control/raft/core/wal-error.js';
import { type DiskStorage, openRaftStorage } from '../../../../src/control/raft/io/wal-storage.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { MemoryFiles } from '../../../support/memory-files.js';
import { describe, SILENT, TestKeys } from '../../../support/storage-model.js';

const SEGMENT_BYTES = 4_096;
const FRAME_AT = 64;

function openOn(files: MemoryFiles, keys = new TestKeys()): Promise<DiskStorage> {
  return openRaftStorage({ dir: '/d', keys, files, log: SILENT, segmentBytes: SEGMENT_BYTES });
}

function entriesOf(first: number, last: number, sizeBytes = 200): LogEntry[] {
  const entries: LogEntry[] = [];
  for (let index = first; index <= last; index++)
    entries.push({ index, term: 1, kind: 'command', data: Buffer.alloc(sizeBytes, index) });
  return entries;
}

async function write(storage: DiskStorage, entries: LogEntry[], commitIndex = 0): Promise<void> {
  const hardState = { term: 1, vote: 3 as RaftId, commitIndex };
  await new Promise<void>((resolve, reject) =>
    storage.write({ entries, reset: undefined, hardState }, (failure) =>
      failure === undefined ? resolve() : reject(new Error(failure.kind)),
    ),
  );
}

/** Entries 1 to 60 and 19 votes, each in a frame of its own, over several segments. */
async function filled(): Promise<MemoryFiles> {
  const files = new MemoryFiles();
  const storage = await openOn(files);
  for (let index = 1; index <= 60; index++) {
    await write(storage, entriesOf(index, index));
    if (index % 3 === 0 && index < 60) await write(storage, []);
  }
  await storage.close();
  return files;
}

const segmentOf = (number: number) => `/d/log/${number.toString(16).padStart(12, '0')}.wal`;

/** The segments with something in them. */
function written(files: MemoryFiles): string[] {
  return files
    .paths()
    .filter((path) => path.endsWith('.wal') && files.contentOf(path).some((byte) => byte !== 0));
}

/** Where the frames of a segment begin. */
function framesOf(bytes: Buffer): number[] {
  const starts: number[] = [];
  for (let at = FRAME_AT; bytes.toString('latin1', at, at + 4) === 'SHFR'; ) {
    starts.push(at);
    at += Math.ceil((40 + bytes.readUInt32BE(at + 4)) / 8) * 8;
  }
  return starts;
}

async function refusal(files: MemoryFiles, keys?: TestKeys): Promise<RaftStorageError['detail']> {
  try {
    await openOn(files, keys);
  } catch (error) {
    if (error instanceof RaftStorageError) return error.detail;
    throw error;
  }
  throw new Error('it opened');
}

t.test('a flipped bit is refused, or changes nothing', async (t) => {
  const pristine = await filled();
  const wanted = describe((await openOn(pristine.afterKill())).restart);
  const paths = written(pristine);
  t.ok(paths.length > 3, 'there are several segments');
  let refused = 0;
  const flip = async (number: number, byte: number, bit: number) => {
    const files = pristine.afterKill();
    const content = files.contentOf(paths[number % paths.length] as string);
    const at = byte % content.length;
    content[at] = (content[at] as number) ^ (1 << bit);
    try {
      const storage = await openOn(files);
      if (describe(storage.restart) !== wanted) throw new Error('something else was found');
    } catch (error) {
      if (!(error instanceof RaftStorageError)) throw error;
      refused++;
    }
  };
  await fc.assert(fc.asyncProperty(fc.nat(100), fc.nat(SEGMENT_BYTES), fc.nat(7), flip), {
    numRuns: fuzzRuns(400),
  });
  t.ok(refused > 300, `${refused} were refused`);
});

type Damage = (files: MemoryFiles, paths: readonly string[]) => void;

const REFUSED: readonly (readonly [string, Damage, string])[] = [
  [
    'a bit of the last frame',
    (files, paths) => {
      const content = files.contentOf(paths.at(-1) as string);
      const at = (framesOf(content).at(-1) as number) + 60;
      content[at] = (content[at] as number) ^ 4;
    },
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'a frame with whole ones after it',
    (files, paths) => {
      const content = files.contentOf(paths.at(-1) as string);
      content.fill(0, framesOf(content)[0], framesOf(content)[1]);
    },
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'a frame in the middle of the last segment that is zeros now',
    (files, paths) => {
      const content = files.contentOf(paths.at(-1) as string);
      const frames = framesOf(content);
      content.fill(0, frames.at(-3), frames.at(-2));
    },
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'the end of an older segment, which is zeros now',
    (files, paths) => {
      const content = files.contentOf(paths[1] as string);
      content.fill(0, framesOf(content).at(-1));
    },
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'an older segment that was cut off',
    (files, paths) => files.cutOff(paths[1] as string, 2_000),
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'a segment that is gone',
    (files, paths) => files.delete(paths[2] as string),
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'the first segment, gone',
    (files, paths) => files.delete(paths[0] as string),
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'the last segment with something in it, gone',
    (files, paths) => files.delete(paths.at(-1) as string),
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'an older segment that is nothing but zeros',
    (files, paths) => files.contentOf(paths[1] as string).fill(0),
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'two segments that changed places',
    (files, paths) => {
      const [, a, b] = paths.map((path) => files.contentOf(path));
      const copy = Buffer.from(a as Buffer);
      (b as Buffer).copy(a as Buffer);
      copy.copy(b as Buffer);
    },
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'a frame of another segment in the place of one',
    (files, paths) => {
      const from = files.contentOf(paths[1] as string);
      const to = files.contentOf(paths.at(-1) as string);
      from.copy(to, FRAME_AT, FRAME_AT, framesOf(from)[1]);
    },
    'RAFT_STORAGE_CORRUPT',
  ],
  [
    'a segment of a newer version',
    (files, paths) => files.contentOf(paths.at(-1) as string).writeUInt32BE(2, 8),
    'RAFT_STORAGE_SCHEMA',
  ],
];

t.test('what was acknowledged and is damaged is refused, with the file named', async (t) => {
  const pristine = await filled();
  for (const [name, damage, code] of REFUSED) {
    const files = pristine.afterKill();
    damage(files, written(files));
    const before = new Map(files.paths().map((path) => [path, Buffer.from(files.contentOf(path))]));
    const detail = await refusal(files);
    t.equal(detail.code, code, name);
    t.match(detail.file, /^\/d\/log\/0000/, name);
    const untouched = files.paths().filter((path) => path.endsWith('.wal'));
    t.ok(
      untouched.every((path) => before.get(path)?.equals(files.contentOf(path))),
      `${name}: nothing was changed`,
    );
  }
});

t.test('a vote that is missing at the end of an older segment is missed', async (t) => {
  const pristine = await filled();
  let votes = 0;
  for (const path of written(pristine).slice(0, -1)) {
    const files = pristine.afterKill();
    const content = files.contentOf(path);
    const last = framesOf(content).at(-1) as number;
    if (content.readUInt32BE(last + 4) < 100) votes++;
    content.fill(0, last);
    const detail = await refusal(files);
    t.equal(detail.code, 'RAFT_STORAGE_CORRUPT', path);
  }
  t.ok(votes > 0, 'some segments end with one');
});

t.test('a sector of the last frame that was never written is a torn end', async (t) => {
  const files = await filled();
  const before = await openOn(files);
  await write(before, entriesOf(61, 61));
  await write(before, entriesOf(62, 62, 2_000));
  await before.close();
  const wanted = 62;
  const last = written(files).at(-1) as string;
  const content = files.contentOf(last);
  const start = framesOf(content).at(-1) as number;
  const sector = Math.ceil(start / 512) * 512;
  content.fill(0, sector, sector + 512);
  const torn = Buffer.from(content);
  const storage = await openOn(files);
  t.equal(storage.restart.entries.length, wanted - 1, 'all but the frame that was torn');
  const kept = files.contentOf(`${last}.broken`);
  t.ok(kept.equals(torn.subarray(start)), 'what was cut off is kept');
  await write(storage, entriesOf(wanted, wanted + 3));
  await storage.close();
  const again = await openOn(files);
  t.equal(again.restart.entries.length, wanted + 3, 'and the log goes on');
});

t.test('keys: a missing one, a wrong one', async (t) => {
  const files = await filled();
  const missing = new TestKeys();
  missing.rotate();
  missing.forgetAllBut(new Set());
  t.equal((await refusal(files.afterKill(), missing)).code, 'RAFT_STORAGE_KEY');
  const wrong = new TestKeys();
  const { id } = wrong.currentKey();
  wrong.currentKey = () => ({ id, secret: Buffer.alloc(32, 99) });
  wrong.keyById = wrong.currentKey;
  t.equal((await refusal(files.afterKill(), wrong)).code, 'RAFT_STORAGE_KEY');
});

/** Snapshots of 20 and of 50 of 60 entries; `index`: up to where the log is compacted. */
async function withSnapshots(index: number): Promise<MemoryFiles> {
  const files = await filled();
  const storage = await openOn(files);
  await write(storage, [], 60);
  await storage.saveSnapshot({ index: 20, term: 1, members: [] }, [Buffer.alloc(9_000, 1)]);
  await storage.saveSnapshot({ index: 50, term: 1, members: [] }, [Buffer.alloc(9_000, 2)]);
  storage.compact(index);
  await storage.close();
  return files;
}

const snapshotsOf = (files: MemoryFiles) => files.paths().filter((path) => path.endsWith('.snap'));

t.test('an older snapshot stands in for one that is damaged', async (t) => {
  const files = await withSnapshots(50);
  t.notOk(files.paths().includes(segmentOf(1)), 'the log was compacted');
  const newest = files.contentOf(snapshotsOf(files)[1] as string);
  newest[500] = (newest[500] as number) ^ 1;
  const storage = await openOn(files);
  t.equal(storage.restart.snapshot.index, 20);
  t.equal(storage.restart.entries.length, 40, 'nothing was lost');
  const reader = await storage.openSnapshot();
  t.equal((await reader?.read(0, 10))?.[0], 1);
  await storage.saveSnapshot({ index: 55, term: 1, members: [] }, [Buffer.alloc(10)]);
  t.equal(snapshotsOf(files).length, 2, 'the damaged one is gone');
  await storage.close();
});

t.test('a damaged snapshot that nothing stands in for is refused', async (t) => {
  const files = await withSnapshots(50);
  const [oldest, newest] = snapshotsOf(files) as [string, string];
  files.delete(oldest);
  files.cutOff(newest, files.contentOf(newest).length - 1);
  const detail = await refusal(files);
  t.equal(detail.code, 'RAFT_STORAGE_CORRUPT');
  t.equal(detail.file, newest);
});

t.test('a snapshot without its log is refused: the vote is missing', async (t) => {
  const files = await withSnapshots(50);
  for (const path of files.paths()) if (path.startsWith('/d/log/')) files.delete(path);
  t.equal((await refusal(files)).code, 'RAFT_STORAGE_CORRUPT');
});

t.test('what a failed flush left in the page cache is flushed before it is believed', async (t) => {
  const files = new MemoryFiles();
  const storage = await openOn(files);
  await write(storage, entriesOf(1, 3));
  files.fault = (operation, path) =>
    operation === 'sync' && path.endsWith('.wal') ? new Error('EIO') : undefined;
  const failures: string[] = [];
  const queue = (first: number) =>
    new Promise<void>((resolve) =>
      storage.write(
        { entries: entriesOf(first, first), reset: undefined, hardState: undefined },
        (failure) => {
          failures.push(failure?.kind ?? 'durable');
          resolve();
        },
      ),
    );
  await Promise.all([queue(4), queue(5)]);
  files.fault = undefined;
  await queue(6);
  t.strictSame(failures, ['failed', 'failed', 'failed'], 'nothing is written after a failed flush');
  const restarted = files.afterKill();
  const found = (await openOn(restarted)).restart.entries.length;
  t.equal(found, 5, 'the page cache has the frame');
  const after = restarted.afterCut(() => 0.9);
  t.equal((await openOn(after)).restart.entries.length, 5, 'and the disk has it after the restart');
});
