import { createHash } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import type { RaftId, SnapshotMeta } from '../../../../src/control/raft/core/types.js';
import { SnapshotStore } from '../../../../src/control/raft/io/snapshot-store.js';
import type { SnapshotReader } from '../../../../src/control/raft/io/storage.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { MemoryFiles } from '../../../support/memory-files.js';
import { SILENT, TestKeys } from '../../../support/storage-model.js';

const CHUNK_BYTES = 256 * 1024;
const members = [{ id: 9 as RaftId, voter: true, context: 'somewhere' }];
const meta = (index: number, term = 1): SnapshotMeta => ({ index, term, members });

function openOn(files: MemoryFiles, keys = new TestKeys(), keep = 2): Promise<SnapshotStore> {
  return SnapshotStore.open({ folder: '/s', files, keys, log: SILENT, keep });
}

/** Bytes that repeat nowhere near. */
function contentOf(sizeBytes: number, seed = 1): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  for (let i = 0; i < sizeBytes; i++) bytes[i] = (i * 31 + (i >> 8) * 7 + seed) & 0xff;
  return bytes;
}

const digestOf = (bytes: Buffer) => createHash('sha256').update(bytes).digest();

async function newest(store: SnapshotStore): Promise<SnapshotReader> {
  const reader = await store.openNewest();
  if (reader === undefined) throw new Error('there is none');
  return reader;
}

const readAll = async (store: SnapshotStore): Promise<Buffer> => {
  const reader = await newest(store);
  return Buffer.from(await reader.read(0, reader.sizeBytes + 1));
};

t.test('content of any size comes back, from any offset', async (t) => {
  const sizes = [0, 1, 1_000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 77];
  for (const sizeBytes of sizes) {
    const files = new MemoryFiles();
    const store = await openOn(files);
    const content = contentOf(sizeBytes);
    await store.save(meta(5), [content.subarray(0, 700), content.subarray(700)]);
    const again = await openOn(files.afterCut(() => 0));
    t.strictSame(again.newest, meta(5), `${sizeBytes} bytes`);
    const reader = await newest(again);
    t.equal(reader.sizeBytes, sizeBytes);
    t.ok(digestOf(content).equals(Buffer.from(reader.digest)));
    for (const offset of [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, sizeBytes - 1, sizeBytes])
      for (const length of [1, 10, CHUNK_BYTES, 2 * CHUNK_BYTES]) {
        const at = Math.max(0, offset);
        const got = Buffer.from(await reader.read(at, length));
        if (!got.equals(content.subarray(at, at + length))) t.fail(`${at}, ${length}`);
      }
    await reader.close();
  }
});

t.test('what is cut off, changed or moved is not a snapshot any more', async (t) => {
  const pristine = new MemoryFiles();
  const content = contentOf(2 * CHUNK_BYTES + 100);
  await (await openOn(pristine)).save(meta(5), [content]);
  const [path = ''] = pristine.paths();
  const sizeBytes = pristine.contentOf(path).length;
  const damaged = async (damage: (files: MemoryFiles) => void) => {
    const files = pristine.afterKill();
    damage(files);
    const store = await openOn(files);
    return store.newest.index === 0 && store.damage?.code === 'RAFT_STORAGE_CORRUPT';
  };
  for (const left of [0, 63, 64, 300, sizeBytes - 80, sizeBytes - 1])
    t.ok(await damaged((files) => files.cutOff(path, left)), `cut off at ${left}`);
  const moved = (files: MemoryFiles) => {
    const bytes = files.contentOf(path);
    const sealed = CHUNK_BYTES + 28;
    const start = bytes.length - 66 - 2 * sealed - 128;
    const first = Buffer.from(bytes.subarray(start, start + sealed));
    bytes.copy(bytes, start, start + sealed, start + 2 * sealed);
    first.copy(bytes, start + sealed);
  };
  t.ok(await damaged(moved), 'two chunks that changed places');
  await fc.assert(
    fc.asyncProperty(fc.nat(sizeBytes - 1), fc.nat(7), async (at, bit) => {
      const files = pristine.afterKill();
      const bytes = files.contentOf(path);
      bytes[at] = (bytes[at] as number) ^ (1 << bit);
      try {
        return (await openOn(files)).newest.index === 0;
      } catch {
        // A newer version, or another key.
        return at < 24;
      }
    }),
    { numRuns: fuzzRuns(60) },
  );
});

t.test('so many are kept, and one under a replaced key is not', async (t) => {
  const files = new MemoryFiles();
  const keys = new TestKeys();
  const store = await openOn(files, keys, 3);
  for (let index = 1; index <= 5; index++) await store.save(meta(index), [contentOf(10)]);
  t.equal(files.paths().length, 3);
  t.equal(store.oldestIndex, 3);
  await store.save(meta(4), [contentOf(10)]);
  t.equal(store.newest.index, 5, 'one that is older than the newest is not taken');
  keys.rotate();
  await store.save(meta(5), [contentOf(20)]);
  t.equal(files.paths().length, 1, 'the same state, sealed anew');
  t.strictSame(store.keyIds(), [keys.currentKey().id]);
  t.equal((await readAll(store)).length, 20);
});

t.test('a snapshot that cannot be made leaves nothing', async (t) => {
  const files = new MemoryFiles();
  const store = await openOn(files);
  await store.save(meta(1), [contentOf(10)]);
  async function* breaksOff(): AsyncGenerator<Uint8Array> {
    yield contentOf(CHUNK_BYTES * 2);
    throw new Error('broke off');
  }
  await t.rejects(store.save(meta(2), breaksOff()), { message: 'broke off' });
  t.equal(files.paths().length, 1);
  t.equal(store.newest.index, 1);
  t.strictSame(store.keyIds().length, 1);
});

t.test('a transmission that was cut off goes on where it was', async (t) => {
  const content = contentOf(4 * CHUNK_BYTES + 500);
  const digest = digestOf(content);
  let files = new MemoryFiles();
  const first = await (await openOn(files)).receive(meta(8), content.length, digest);
  t.equal(first.offsetBytes, 0);
  await first.write(content.subarray(0, 2 * CHUNK_BYTES + 40));
  await first.abandon();
  await t.rejects(first.write(content), 'it was abandoned');

  files = files.afterKill();
  let store = await openOn(files);
  t.equal(store.newest.index, 0, 'half a snapshot is none');
  const second = await store.receive(meta(8), content.length, digest);
  t.equal(second.offsetBytes, 2 * CHUNK_BYTES, 'whole chunks are kept');
  await second.write(content.subarray(second.offsetBytes, 3 * CHUNK_BYTES));

  // A power cut this time: what was not flushed is gone, or is not.
  files = files.afterCut(() => 0.4);
  store = await openOn(files);
  const third = await store.receive(meta(8), content.length, digest);
  t.ok(third.offsetBytes % CHUNK_BYTES === 0 && third.offsetBytes <= 3 * CHUNK_BYTES);
  await third.write(content.subarray(third.offsetBytes));
  await third.finish();
  t.strictSame(store.newest, meta(8));
  t.ok((await readAll(store)).equals(content));
  t.equal(files.paths().length, 1, 'nothing of the attempts is left');
});

t.test('an attempt of something else is not gone on with', async (t) => {
  const content = contentOf(3 * CHUNK_BYTES);
  const digest = digestOf(content);
  const cases = [
    ['the same', meta(8), content.length, digest, 2 * CHUNK_BYTES],
    ['another index', meta(9), content.length, digest, 0],
    ['another term', meta(8, 2), content.length, digest, 0],
    ['another size', meta(8), content.length + 1, digest, 0],
    ['other content', meta(8), content.length, digestOf(contentOf(9)), 0],
    ['nothing announced', meta(8), content.length, undefined, 0],
  ] as const;
  for (const [name, wanted, sizeBytes, wantedDigest, offsetBytes] of cases) {
    const files = new MemoryFiles();
    const store = await openOn(files);
    const writer = await store.receive(meta(8), content.length, digest);
    await writer.write(content.subarray(0, 2 * CHUNK_BYTES));
    await writer.abandon();
    const next = await store.receive(wanted, sizeBytes, wantedDigest);
    t.equal(next.offsetBytes, offsetBytes, name);
  }
  const files = new MemoryFiles();
  const keys = new TestKeys();
  const store = await openOn(files, keys);
  const writer = await store.receive(meta(8), content.length, digest);
  await writer.write(content.subarray(0, 2 * CHUNK_BYTES));
  keys.rotate();
  const next = await store.receive(meta(8), content.length, digest);
  t.equal(next.offsetBytes, 0, 'sealed with a key that was replaced');
});

t.test('content that is not what was announced is refused', async (t) => {
  const content = contentOf(1_000);
  const other = contentOf(1_000, 2);
  const attempts: readonly (readonly [string, Buffer])[] = [
    ['shorter', content.subarray(1)],
    ['longer', Buffer.concat([content, content])],
    ['other', other],
  ];
  for (const [name, sent] of attempts) {
    const files = new MemoryFiles();
    const store = await openOn(files);
    const writer = await store.receive(meta(3), content.length, digestOf(content));
    const send = async () => {
      await writer.write(sent);
      await writer.finish();
    };
    await t.rejects(send(), name);
    t.equal(store.newest.index, 0, name);
    t.strictSame(files.paths(), [], `${name}: nothing is left`);
    t.strictSame(store.keyIds(), []);
  }
});

t.test('nothing of the content is on the disk in the clear', async (t) => {
  const files = new MemoryFiles();
  const store = await openOn(files);
  const secret = 'correct horse battery staple';
  await store.save(meta(1), [Buffer.from(`${secret} and so on`)]);
  const writer = await store.receive(meta(2), CHUNK_BYTES * 2, undefined);
  await writer.write(Buffer.alloc(CHUNK_BYTES + 10, secret));
  for (const path of files.paths()) {
    t.notOk(files.contentOf(path).includes(secret), path);
    t.notOk(files.contentOf(path).includes('somewhere'), `${path}: nor who the members are`);
  }
});
