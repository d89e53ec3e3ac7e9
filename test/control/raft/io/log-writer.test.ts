import t, { type Test } from 'tap';
import type { RaftPersist } from '../../../../src/control/raft/core/types.js';
import { LogWriter } from '../../../../src/control/raft/io/log-writer.js';
import { MemoryDisk, MemoryStorage } from '../../../support/memory-storage.js';
import { until } from './cluster.js';

let lastId = 0;

function persist(index?: number): RaftPersist {
  return {
    persistId: ++lastId,
    entries:
      index === undefined ? [] : [{ index, term: 1, kind: 'command', data: Buffer.from('x') }],
    reset: undefined,
    hardState: undefined,
    messages: [],
  };
}

function writer(t: Test) {
  const disk = new MemoryDisk();
  const durable: number[] = [];
  const full: boolean[] = [];
  const failures: Error[] = [];
  const subject = new LogWriter({
    storage: new MemoryStorage(disk),
    onDurable: ({ persistId }) => durable.push(persistId),
    onFull: (on) => full.push(on),
    onFailed: (error) => failures.push(error),
  });
  t.teardown(() => subject.stop());
  const write = (index?: number) => {
    const next = persist(index);
    subject.write(next);
    return next.persistId;
  };
  return { disk, durable, full, failures, subject, write };
}

t.test('what needs no disk waits for what was before it, and for nothing else', async (t) => {
  const { durable, write } = writer(t);
  const first = write();
  t.strictSame(durable, [first], 'at once');
  const ids = [write(1), write(), write(2), write()];
  t.strictSame(durable, [first]);
  await until('all are durable', () => durable.length === 5);
  t.strictSame(durable, [first, ...ids]);
});

t.test('on a full disk nothing is lost or reordered, and all is there afterwards', async (t) => {
  const { disk, durable, full, subject, write } = writer(t);
  const before = write(1);
  await until('durable', () => durable.length === 1);
  disk.full = true;
  const ids = [write(2), write(3)];
  await until('full', () => subject.full);
  ids.push(write(4), write(), write(), write(), write(5));
  const flushes = disk.flushes;
  await until('it is tried again', () => disk.flushes > flushes);
  t.strictSame(durable, [before]);
  disk.full = false;
  await until('it has room again', () => !subject.full);
  await until('all are durable', () => durable.at(-1) === ids.at(-1));
  t.strictSame(full, [true, false]);
  t.strictSame(
    disk.entries.map(({ index }) => index),
    [1, 2, 3, 4, 5],
  );
  t.strictSame(
    durable,
    [before, ...ids].filter((id) => durable.includes(id)),
    'in order',
  );
  t.ok(durable.length <= 6, 'of those without content only the last was kept');
});

t.test('a failure is final', async (t) => {
  const { disk, durable, failures, write } = writer(t);
  disk.failure = new Error('broken');
  write(1);
  write(2);
  await until('it has failed', () => failures.length > 0);
  disk.failure = undefined;
  write(3);
  await new Promise((resolve) => setImmediate(resolve));
  t.strictSame(durable, []);
  t.equal(failures.length, 1);
  t.strictSame(disk.entries, []);
});
