import fc from 'fast-check';
import t from 'tap';
import { Prng } from '../../../../src/base/prng.js';
import type { LogEntry, RaftId, SnapshotMeta } from '../../../../src/control/raft/core/types.js';
import { RaftStorageError } from '../../../../src/control/raft/core/wal-error.js';
import type { StorageWrite } from '../../../../src/control/raft/io/storage.js';
import { type DiskStorage, openRaftStorage } from '../../../../src/control/raft/io/wal-storage.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { MemoryFiles } from '../../../support/memory-files.js';
import {
  describe,
  EMPTY,
  lastIndexOf,
  type ModelState,
  modelAfter,
  modelRestart,
  SILENT,
  TestKeys,
  termOf,
} from '../../../support/storage-model.js';

const SEGMENT_BYTES = 4_096;

interface SavedSnapshot {
  readonly meta: SnapshotMeta;
  readonly content: Buffer;
  done: boolean;
}

/**
 * A manager's life on one disk: what it asks the storage to do, what was acknowledged, and what a restart may
 * therefore find.
 */
class Life {
  readonly random: () => number;
  readonly keys = new TestKeys();
  files = new MemoryFiles();
  /** The log after each write since the last acknowledged one, in order; the first is acknowledged. */
  states: ModelState[] = [EMPTY];
  snapshots: SavedSnapshot[] = [];
  term = 1;
  #nextByte = 0;

  constructor(random: () => number) {
    this.random = random;
  }

  below(count: number): number {
    return Math.floor(this.random() * count);
  }

  async open(): Promise<DiskStorage> {
    const { files, keys } = this;
    const config = { dir: '/d', keys, files, log: SILENT, segmentBytes: SEGMENT_BYTES };
    try {
      return await openRaftStorage({ ...config, spaceRetryMs: 0 });
    } catch (error) {
      if (!isFull(error)) throw error;
      files.capacityBytes = Number.POSITIVE_INFINITY;
      return openRaftStorage({ ...config, spaceRetryMs: 0 });
    }
  }

  get latest(): ModelState {
    return this.states[this.states.length - 1] as ModelState;
  }

  /** Any of these may be found. */
  mayFind(): string[] {
    const newestDone = this.snapshots.filter(({ done }) => done).pop();
    const after = this.snapshots.slice(
      newestDone === undefined ? 0 : this.snapshots.indexOf(newestDone),
    );
    const snapshots = newestDone === undefined ? [undefined, ...after] : after;
    return this.states.flatMap((state) =>
      snapshots.map((snapshot) => describe(modelRestart(state, snapshot?.meta))),
    );
  }

  /** As raft would: entries go on from the end, or replace what is not committed. */
  nextWrite(): StorageWrite {
    const { latest } = this;
    const committed = latest.hardState.commitIndex;
    const lastIndex = lastIndexOf(latest);
    if (this.below(6) === 0) this.term++;
    const replaces = this.below(4) === 0 && lastIndex > committed;
    const first = replaces ? committed + 1 + this.below(lastIndex - committed) : lastIndex + 1;
    if (replaces) this.term++;
    const entries: LogEntry[] = [];
    const count = this.below(5);
    for (let i = 0; i < count; i++) {
      const data = Buffer.alloc(this.below(40) === 0 ? 6_000 : this.below(500), this.#nextByte++);
      entries.push({ index: first + i, term: this.term, kind: 'command', data });
    }
    const end = count === 0 ? lastIndex : first + count - 1;
    const vote = this.below(4) as RaftId | 0;
    const commitIndex = committed + this.below(Math.max(1, end - committed + 1));
    const hardState = this.below(2) === 0 ? { term: this.term, vote, commitIndex } : undefined;
    return { entries, reset: undefined, hardState };
  }

  write(storage: DiskStorage, write: StorageWrite): Promise<boolean> {
    const state = modelAfter(this.latest, write);
    this.states.push(state);
    return new Promise((resolve, reject) =>
      storage.write(write, (failure) => {
        const at = this.states.indexOf(state);
        if (at === -1) return;
        if (failure?.kind === 'failed') reject(failure.error);
        else if (failure?.kind === 'full') this.states.splice(at, 1);
        else this.states.splice(0, at);
        resolve(failure === undefined);
      }),
    );
  }

  async save(storage: DiskStorage): Promise<void> {
    // Applied is only what is durable here.
    const durable = this.states[0] ?? EMPTY;
    const index = durable.hardState.commitIndex;
    const term = termOf(durable, index);
    const newest = this.snapshots[this.snapshots.length - 1]?.meta.index ?? 0;
    if (index === 0 || index < newest || term === undefined) return;
    const snapshot = this.#snapshot(index, term);
    const { content } = snapshot;
    const data = [content.subarray(0, 9), content.subarray(9)];
    if (!(await this.#unlessFull(snapshot, storage.saveSnapshot(snapshot.meta, data)))) return;
    snapshot.done = true;
    storage.compact(Math.max(0, index - this.below(4)));
  }

  /** A leader's, of entries that this member does not have. */
  async receive(storage: DiskStorage, files: MemoryFiles): Promise<void> {
    const newest = this.snapshots[this.snapshots.length - 1]?.meta.index ?? 0;
    const index = Math.max(lastIndexOf(this.latest), newest) + 1 + this.below(5);
    this.term++;
    const snapshot = this.#snapshot(index, this.term);
    const { content, meta } = snapshot;
    const received = async () => {
      const writer = await storage.receiveSnapshot(meta, content.length);
      await writer.write(content);
      await writer.finish();
    };
    if (!(await this.#unlessFull(snapshot, received()))) return;
    snapshot.done = true;
    const entry = {
      index: index + 1,
      term: this.term,
      kind: 'noop',
      data: Buffer.alloc(0),
    } as const;
    const entries = this.below(2) === 0 ? [entry] : [];
    const hardState = { term: this.term, vote: 0, commitIndex: index } as const;
    // The snapshot is there: raft insists.
    while (!(await this.write(storage, { entries, reset: meta, hardState }))) {
      files.capacityBytes = Number.POSITIVE_INFINITY;
      await new Promise((resolve) => setTimeout(resolve, 2));
      await this.alive(files);
    }
  }

  async #unlessFull(snapshot: SavedSnapshot, saved: Promise<void>): Promise<boolean> {
    try {
      await saved;
      return true;
    } catch (error) {
      if (!isFull(error)) throw error;
      this.snapshots.splice(this.snapshots.indexOf(snapshot), 1);
      return false;
    }
  }

  /** As other files come and go. */
  squeeze(): void {
    const { files } = this;
    const free = this.below(2) === 0 ? Number.POSITIVE_INFINITY : this.below(10_000);
    files.capacityBytes = files.usedBytes + free;
  }

  #snapshot(index: number, term: number): SavedSnapshot {
    const members = [{ id: 7 as RaftId, voter: true, context: `of ${index}` }];
    const content = Buffer.alloc(10 + this.below(3_000), this.#nextByte++);
    const snapshot = { meta: { index, term, members }, content, done: false };
    this.snapshots.push(snapshot);
    return snapshot;
  }

  /** The dead do nothing. */
  async alive(files: MemoryFiles): Promise<void> {
    if (files.operations >= files.cutAt) await new Promise<never>(() => {});
  }

  async live(storage: DiskStorage, files: MemoryFiles, steps: number): Promise<void> {
    const writing: Promise<boolean>[] = [];
    for (let i = 0; i < steps; i++) {
      await this.alive(files);
      const what = this.below(30);
      if (what === 0) await this.save(storage);
      else if (what === 1) {
        await Promise.all(writing.splice(0));
        await this.receive(storage, files);
      } else if (what === 2) this.keys.rotate();
      else if (what === 3) this.keys.forgetAllBut(storage.keyIds());
      else if (what === 4) this.squeeze();
      else if (what === 5) await new Promise((resolve) => setTimeout(resolve, 2));
      else writing.push(this.write(storage, this.nextWrite()));
      if (this.below(3) === 0) await writing[this.below(writing.length)];
    }
    await Promise.all(writing);
  }

  /** What was found is what there is from now on. */
  async settle(storage: DiskStorage, check: (ok: boolean, message: string) => void): Promise<void> {
    const found = describe(storage.restart);
    check(
      this.mayFind().includes(found),
      `found ${found}, not one of ${this.mayFind().join('\n')}`,
    );
    const { hardState, snapshot, entries } = storage.restart;
    this.states = [{ hardState, base: snapshot, entries }];
    this.term = Math.max(hardState.term, this.term);
    this.snapshots = this.snapshots.filter(({ meta }) => meta.index <= snapshot.index);
    const reader = await storage.openSnapshot();
    if (reader !== undefined) {
      const content = await reader.read(0, reader.sizeBytes);
      const same = this.snapshots.some(
        (saved) => saved.meta.index === reader.meta.index && saved.content.equals(content),
      );
      check(same, 'the content of the snapshot is what was saved');
      await reader.close();
    }
    const newest = this.snapshots[this.snapshots.length - 1];
    if (newest !== undefined) newest.done = true;
  }
}

function isFull(error: unknown): boolean {
  return error instanceof RaftStorageError && error.code === 'RAFT_STORAGE_FULL';
}

const check = (ok: boolean, message: string) => {
  if (!ok) throw new Error(message);
};

/** Lives, cut off at some operation, each on what the one before left. */
async function liveAndDie(seed: number, cuts: readonly number[], lies = false): Promise<void> {
  const prng = new Prng(seed);
  const life = new Life(() => prng.nextFloat());
  for (const cutAt of cuts) {
    life.files.cutAt = cutAt;
    life.files.lies = lies;
    const { files } = life;
    const alive = (async () => {
      const storage = await life.open();
      await life.alive(files);
      await life.settle(storage, check);
      await life.live(storage, files, 60);
      await storage.close();
    })();
    await Promise.race([alive, files.cut]);
    const killed = life.below(3) === 0;
    life.files = killed ? life.files.afterKill() : life.files.afterCut(life.random);
    if (life.below(4) === 0) life.squeeze();
  }
  const storage = await life.open();
  await life.settle(storage, check);
  await storage.close();
}

t.test('after a power cut at any operation, all that was acknowledged is there', async () => {
  const cut = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 250 }));
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 2 ** 31 }),
      fc.array(cut, { minLength: 1, maxLength: 6 }),
      (seed, cuts) => liveAndDie(seed, cuts),
    ),
    { numRuns: fuzzRuns(100) },
  );
});

t.test('a cut at each operation of one life, one after another', async () => {
  for (let cutAt = 1; cutAt < 120; cutAt++) await liveAndDie(4711, [cutAt]);
});

t.test('killed at each operation, then a power cut after the next acknowledgement', async (t) => {
  const keys = new TestKeys();
  const open = (files: MemoryFiles) =>
    openRaftStorage({ dir: '/d', keys, files, log: SILENT, segmentBytes: SEGMENT_BYTES });
  const write = (storage: DiskStorage, index: number, reset?: SnapshotMeta) =>
    new Promise<void>((resolve) => {
      const data = Buffer.alloc(700, index);
      const entries: LogEntry[] = [{ index, term: 1, kind: 'command', data }];
      storage.write({ entries, reset, hardState: undefined }, () => resolve());
    });
  const live = async (files: MemoryFiles) => {
    const storage = await open(files);
    for (let index = 1; index <= 12; index++) await write(storage, index);
    const meta = { index: 30, term: 1, members: [] };
    const writer = await storage.receiveSnapshot(meta, 5);
    await writer.write(Buffer.from('state'));
    await writer.finish();
    await write(storage, 31, meta);
    for (let index = 32; index <= 45; index++) await write(storage, index);
    await storage.close();
  };
  const whole = new MemoryFiles();
  await live(whole);
  for (let cutAt = 1; cutAt <= whole.operations; cutAt++) {
    const files = new MemoryFiles();
    files.cutAt = cutAt;
    await Promise.race([live(files), files.cut]);
    const restarted = files.afterKill();
    const storage = await open(restarted);
    const { restart } = storage;
    const index = (restart.entries.at(-1)?.index ?? restart.snapshot.index) + 1;
    await write(storage, index);
    // Nothing that was not flushed survives.
    const after = (await open(restarted.afterCut(() => 0))).restart;
    t.equal(after.snapshot.index, restart.snapshot.index, `cut at ${cutAt}`);
    t.equal(after.entries.at(-1)?.index, index, `cut at ${cutAt}`);
  }
});

t.test('a disk that does not flush what it says it has is found out', async (t) => {
  let lost = 0;
  for (let seed = 1; seed <= 40; seed++)
    await liveAndDie(seed, [60 + seed], true).catch(() => lost++);
  t.ok(lost > 20, `${lost} of 40`);
});
