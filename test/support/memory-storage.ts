import { createHash } from 'node:crypto';
import type {
  HardState,
  LogEntry,
  RaftRestart,
  SnapshotMeta,
} from '../../src/control/raft/core/types.js';
import type {
  RaftStorage,
  SnapshotReader,
  SnapshotWriter,
  StorageFailure,
  StorageStats,
  StorageWrite,
} from '../../src/control/raft/io/storage.js';

interface StoredSnapshot {
  readonly meta: SnapshotMeta;
  readonly content: Buffer;
}

interface PartialSnapshot extends StoredSnapshot {
  readonly sizeBytes: number;
  readonly digest: string;
}

/** What survives the process: hand it to the next `MemoryStorage` for a restart. */
export class MemoryDisk {
  hardState: HardState = { term: 0, vote: 0, commitIndex: 0 };
  /** What the log was last reset to, or is compacted to. */
  base: SnapshotMeta = { index: 0, term: 0, members: [] };
  entries: LogEntry[] = [];
  snapshot: StoredSnapshot | undefined;
  partial: PartialSnapshot | undefined;
  /** Switch to true: writes are refused as on a full disk. */
  full = false;
  /** Set: the next flush fails for good. */
  failure: Error | undefined;
  /** How long a flush takes, in real milliseconds; 0: one turn of the event loop. */
  flushMs = 0;
  flushes = 0;
  entriesWritten = 0;

  /** The newest snapshot, and the log after it if the log agrees with it. */
  restart(): RaftRestart {
    const newest = this.snapshot?.meta;
    if (newest !== undefined && newest.index > this.base.index) {
      const { index, term } = newest;
      const agrees = this.entries.some((entry) => entry.index === index && entry.term === term);
      this.base = newest;
      this.entries = agrees ? this.entries.filter((entry) => entry.index > index) : [];
    }
    const { term, vote, commitIndex } = this.hardState;
    this.hardState = {
      term: Math.max(term, this.base.term),
      vote: this.base.term > term ? 0 : vote,
      commitIndex: Math.max(commitIndex, this.base.index),
    };
    return { hardState: this.hardState, snapshot: this.base, entries: [...this.entries] };
  }
}

interface Queued {
  readonly write: StorageWrite;
  readonly durable: (failure?: StorageFailure) => void;
}

function check(condition: boolean, message: string): void {
  if (!condition) throw new Error(`memory storage: ${message}`);
}

/**
 * A `RaftStorage` without a disk, which insists on its contract: entries without gaps, no commit index
 * beyond the log, resets only to a snapshot that is there.
 */
export class MemoryStorage implements RaftStorage {
  readonly restart: RaftRestart;
  readonly disk: MemoryDisk;
  #queue: Queued[] = [];
  #flushing = false;
  #crashed = false;
  #closed = false;
  #failed: Error | undefined;
  readonly #idle: (() => void)[] = [];
  #receiving: MemorySnapshotWriter | undefined;
  /** Of no effect but for tests that ask. */
  #compactedIndex = 0;

  constructor(disk = new MemoryDisk()) {
    this.disk = disk;
    this.restart = disk.restart();
  }

  write(write: StorageWrite, durable: (failure?: StorageFailure) => void): void {
    check(!this.#closed, 'written to after close');
    this.#queue.push({ write, durable });
    if (!this.#flushing) {
      this.#flushing = true;
      setImmediate(() => this.#flush());
    }
  }

  /** As if the process ended now: what is queued is lost, and no callback comes any more. */
  crash(): void {
    this.#crashed = true;
    this.#closed = true;
  }

  async saveSnapshot(
    meta: SnapshotMeta,
    data: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of data) chunks.push(Uint8Array.from(chunk));
    if (this.#crashed) return;
    if (this.disk.full) throw new Error('memory storage: full');
    this.#install({ meta, content: Buffer.concat(chunks) });
  }

  async openSnapshot(): Promise<SnapshotReader | undefined> {
    const { snapshot } = this.disk;
    if (snapshot === undefined) return undefined;
    const { meta, content } = snapshot;
    return {
      meta,
      sizeBytes: content.length,
      digest: digestOf(content),
      read: async (offsetBytes, lengthBytes) =>
        Uint8Array.from(content.subarray(offsetBytes, offsetBytes + lengthBytes)),
      close: async () => {},
    };
  }

  async receiveSnapshot(
    meta: SnapshotMeta,
    sizeBytes: number,
    digest?: Uint8Array,
  ): Promise<SnapshotWriter> {
    await this.#receiving?.abandon();
    const wanted = digest === undefined ? '' : Buffer.from(digest).toString('hex');
    const { partial } = this.disk;
    const resumed =
      wanted !== '' && partial?.digest === wanted && sameMeta(partial.meta, meta)
        ? partial.content
        : Buffer.alloc(0);
    const writer = new MemorySnapshotWriter(
      { meta, sizeBytes, digest: wanted, content: resumed },
      (kept) => {
        if (!this.#crashed) this.disk.partial = kept;
      },
      (snapshot) => {
        if (!this.#crashed) this.#install(snapshot);
      },
    );
    this.#receiving = writer;
    return writer;
  }

  compact(index: number): void {
    const { snapshot } = this.disk;
    check(index <= (snapshot?.meta.index ?? 0), 'compacted beyond the snapshot');
    this.#compactedIndex = Math.max(index, this.#compactedIndex);
  }

  get compactedIndex(): number {
    return this.#compactedIndex;
  }

  stats(): StorageStats {
    return {
      segments: 1,
      bytes: this.disk.entries.reduce((sum, entry) => sum + entry.data.length, 0),
      flushes: this.disk.flushes,
      entriesWritten: this.disk.entriesWritten,
      flushMsP50: this.disk.flushMs,
      flushMsMax: this.disk.flushMs,
      full: this.disk.full,
    };
  }

  async close(): Promise<void> {
    if (!this.#closed && this.#flushing)
      await new Promise<void>((resolve) => this.#idle.push(resolve));
    this.#closed = true;
  }

  #flush(): void {
    const batch = this.#queue;
    this.#queue = [];
    const finish = () => {
      if (this.#crashed) return;
      const failure = this.#outcome();
      for (const { write } of batch) if (failure === undefined) this.#store(write);
      // What was queued meanwhile builds on what failed.
      if (failure !== undefined) batch.push(...this.#queue.splice(0));
      this.disk.flushes++;
      for (const { durable } of batch) durable(failure);
      if (this.#queue.length > 0) setImmediate(() => this.#flush());
      else {
        this.#flushing = false;
        for (const resolve of this.#idle.splice(0)) resolve();
      }
    };
    if (this.disk.flushMs === 0) finish();
    else setTimeout(finish, this.disk.flushMs);
  }

  #outcome(): StorageFailure | undefined {
    this.#failed ??= this.disk.failure;
    if (this.#failed !== undefined) return { kind: 'failed', error: this.#failed };
    return this.disk.full ? { kind: 'full' } : undefined;
  }

  #store({ entries, reset, hardState }: StorageWrite): void {
    const { disk } = this;
    if (reset !== undefined) {
      const covered = reset.index === 0 || reset.index === disk.snapshot?.meta.index;
      check(covered, 'reset to a snapshot that is not there');
      disk.base = reset;
      disk.entries = [];
    }
    const first = entries[0];
    if (first !== undefined) {
      check(first.index > disk.base.index, 'an entry under the snapshot');
      check(first.index <= this.#lastIndex() + 1, `a gap before entry ${first.index}`);
      disk.entries = disk.entries.filter((entry) => entry.index < first.index);
      for (const [i, entry] of entries.entries()) {
        check(entry.index === first.index + i, 'entries out of order');
        disk.entries.push({ ...entry, data: Uint8Array.from(entry.data) });
      }
      disk.entriesWritten += entries.length;
    }
    if (hardState !== undefined) {
      check(hardState.commitIndex <= this.#lastIndex(), 'a commit index beyond the log');
      disk.hardState = hardState;
    }
  }

  #lastIndex(): number {
    return Math.max(this.disk.base.index, this.disk.entries.at(-1)?.index ?? 0);
  }

  #install(snapshot: StoredSnapshot): void {
    const { disk } = this;
    if (snapshot.meta.index < (disk.snapshot?.meta.index ?? 0)) return;
    disk.snapshot = snapshot;
    disk.partial = undefined;
  }
}

class MemorySnapshotWriter implements SnapshotWriter {
  readonly offsetBytes: number;
  #partial: PartialSnapshot;
  #open = true;
  readonly #keep: (partial: PartialSnapshot) => void;
  readonly #install: (snapshot: StoredSnapshot) => void;

  constructor(
    partial: PartialSnapshot,
    keep: (partial: PartialSnapshot) => void,
    install: (snapshot: StoredSnapshot) => void,
  ) {
    this.#partial = partial;
    this.offsetBytes = partial.content.length;
    this.#keep = keep;
    this.#install = install;
  }

  async write(chunk: Uint8Array): Promise<void> {
    check(this.#open, 'a chunk for a snapshot that was abandoned');
    const content = Buffer.concat([this.#partial.content, chunk]);
    if (content.length > this.#partial.sizeBytes) throw new Error('longer than announced');
    this.#partial = { ...this.#partial, content };
  }

  async finish(): Promise<void> {
    check(this.#open, 'a snapshot that was abandoned is finished');
    this.#open = false;
    const { meta, content, sizeBytes, digest } = this.#partial;
    if (content.length !== sizeBytes) throw new Error('shorter than announced');
    if (digest !== '' && digestOf(content).toString('hex') !== digest)
      throw new Error('not the content that was announced');
    this.#install({ meta, content });
  }

  async abandon(): Promise<void> {
    if (this.#open) this.#keep(this.#partial);
    this.#open = false;
  }
}

function digestOf(content: Uint8Array): Buffer {
  return createHash('sha256').update(content).digest();
}

function sameMeta(a: SnapshotMeta, b: SnapshotMeta): boolean {
  return a.index === b.index && a.term === b.term;
}
