import { constants } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { LogEntry } from '../../src/control/raft/core/types.js';
import { type DiskStorage, openRaftStorage } from '../../src/control/raft/io/wal-storage.js';

/** What one way to the disk did. */
export interface DiskRate {
  readonly name: string;
  /** Flushes, one after another or with so many writers at once. */
  readonly flushesPerSecond: number;
  readonly entriesPerSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

const ENTRY_BYTES = 256;
const FILE_BYTES = 16 * 1024 * 1024;

/**
 * The disk's own rate of flushed writes into a file that is there, by the three ways that Node has, and the
 * log's: with batches in one write, and with writers that each wait for their own.
 *
 * @param folder On the disk that is meant; nothing is left there.
 */
export async function measureWal(folder: string, secondsEach: number): Promise<DiskRate[]> {
  const dir = await mkdtemp(join(folder, 'shoal-wal-'));
  try {
    const rates: DiskRate[] = [];
    for (const entries of [1, 16, 64]) rates.push(...(await raw(dir, entries, secondsEach)));
    const key = { id: '0123456789abcdef', secret: Buffer.alloc(32, 7) };
    const storage = await openRaftStorage({
      dir: join(dir, 'raft'),
      keys: { currentKey: () => key, keyById: () => key },
      log: { debug() {}, info() {}, warn() {}, error() {} },
    });
    const log = new LogUnderLoad(storage);
    for (const entries of [1, 16, 64])
      rates.push(await log.measure(`log, writes of ${entries}`, 1, entries, secondsEach));
    for (const writers of [16, 64, 256])
      rates.push(await log.measure(`log, ${writers} writers`, writers, 1, secondsEach));
    await storage.close();
    return rates;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

async function raw(dir: string, entries: number, seconds: number): Promise<DiskRate[]> {
  const bytes = Buffer.alloc(ENTRY_BYTES * entries + 64, 1);
  const path = join(dir, 'raw');
  const file = await open(path, 'w');
  await file.write(Buffer.alloc(FILE_BYTES));
  await file.sync();
  await file.close();
  const rates: DiskRate[] = [];
  for (const [name, flags, datasync] of [
    ['write + fdatasync', constants.O_RDWR, true],
    ['O_DSYNC write', constants.O_RDWR | constants.O_DSYNC, false],
  ] as const) {
    const target = await open(path, flags);
    let at = 0;
    const flush = async () => {
      await target.write(bytes, 0, bytes.length, at);
      if (datasync) await target.datasync();
      at = at + 2 * bytes.length > FILE_BYTES ? 0 : at + bytes.length;
    };
    rates.push(await timed(`disk, ${name}, ${entries} entries`, 1, entries, seconds, flush));
    await target.close();
  }
  return rates;
}

class LogUnderLoad {
  readonly #storage: DiskStorage;
  #lastIndex = 0;
  readonly #data = Buffer.alloc(ENTRY_BYTES, 1);

  constructor(storage: DiskStorage) {
    this.#storage = storage;
  }

  async measure(
    name: string,
    writers: number,
    entries: number,
    seconds: number,
  ): Promise<DiskRate> {
    const before = this.#storage.stats().flushes;
    const startMs = performance.now();
    const rate = await timed(name, writers, entries, seconds, () => this.#write(entries));
    const flushes = this.#storage.stats().flushes - before;
    return { ...rate, flushesPerSecond: (flushes / (performance.now() - startMs)) * 1_000 };
  }

  #write(count: number): Promise<void> {
    const entries: LogEntry[] = [];
    for (let i = 0; i < count; i++)
      entries.push({ index: ++this.#lastIndex, term: 1, kind: 'command', data: this.#data });
    return new Promise((resolve, reject) =>
      this.#storage.write({ entries, reset: undefined, hardState: undefined }, (failure) =>
        failure === undefined ? resolve() : reject(new Error(failure.kind)),
      ),
    );
  }
}

async function timed(
  name: string,
  writers: number,
  entries: number,
  seconds: number,
  flush: () => Promise<void>,
): Promise<DiskRate> {
  const tookMs: number[] = [];
  const startMs = performance.now();
  const endMs = startMs + seconds * 1_000;
  const writer = async () => {
    while (performance.now() < endMs) {
      const beginMs = performance.now();
      await flush();
      tookMs.push(performance.now() - beginMs);
    }
  };
  await Promise.all(Array.from({ length: writers }, writer));
  const perSecond = (tookMs.length / (performance.now() - startMs)) * 1_000;
  tookMs.sort((a, b) => a - b);
  return {
    name,
    flushesPerSecond: perSecond,
    entriesPerSecond: perSecond * entries,
    p50Ms: tookMs[tookMs.length >> 1] ?? 0,
    p99Ms: tookMs[Math.floor(tookMs.length * 0.99)] ?? 0,
  };
}
