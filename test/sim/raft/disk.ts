import { crc32 } from 'node:zlib';
import type { Prng } from '../../../src/base/prng.js';
import type { RaftRestart, SnapshotMeta } from '../../../src/control/raft/core/types.js';
import type { StorageWrite } from '../../../src/control/raft/io/storage.js';
import {
  decodeEntries,
  decodeHardState,
  decodeSnapshotMeta,
  encodeEntries,
  encodeHardState,
  encodeSnapshotMeta,
} from '../../../src/control/raft/wire/entry.js';
import { LogImage } from './log-image.js';
import type { MachineImage } from './machine.js';
import type { Scheduler } from './scheduler.js';
import type { Sights } from './sights.js';
import { Violation } from './violation.js';

export interface DiskConfig {
  /** Of one flush, uniform between the two. */
  readonly flushMs: readonly [number, number];
  /**
   * How it breaks its word, for showing that this is noticed: `early` says durable before it flushes,
   * `forgets_vote` and `forgets_term` flush all but that.
   */
  readonly lie: 'early' | 'forgets_vote' | 'forgets_term' | undefined;
}

export interface StoredSnapshot {
  readonly meta: SnapshotMeta;
  readonly image: MachineImage;
}

interface Queued {
  readonly write: StorageWrite;
  readonly bytes: Buffer;
  readonly durable: (failure?: 'full' | 'failed') => void;
}

const HARD_STATE = 1;
const RESET = 2;
const ENTRIES = 3;
const HEADER_BYTES = 8;
/** What is written whole or not at all. Far smaller than a real one, as the records here are small. */
const SECTOR_BYTES = 64;
const SNAPSHOTS_KEPT = 2;

/**
 * The disk of one member: a file of records with chained checksums, of which only the flushed part
 * survives a crash for certain. The rest may be there, be cut anywhere, or have holes.
 */
export class Disk {
  /** What is certainly on it. */
  readonly durable: LogImage;
  snapshots: StoredSnapshot[] = [];
  isFull = false;
  /** The next flush fails, and nobody knows what it wrote. */
  isFailing = false;
  /** Times as slow as usual. */
  slowness = 1;
  readonly #scheduler: Scheduler;
  readonly #prng: Prng;
  readonly #config: DiskConfig;
  readonly #sights: Sights;
  #synced: Buffer[] = [];
  #queue: Queued[] = [];
  #isFlushing = false;
  #isCompactionDue = false;
  #crc = 0;
  /** Counts crashes, so that what was under way before one is void. */
  #epoch = 0;

  constructor(
    scheduler: Scheduler,
    prng: Prng,
    config: DiskConfig,
    sights: Sights,
    first: SnapshotMeta,
  ) {
    this.#sights = sights;
    this.#scheduler = scheduler;
    this.#prng = prng;
    this.#config = config;
    this.durable = new LogImage(first);
    if (first.members.length > 0) this.#sync({ entries: [], reset: first, hardState: undefined });
  }

  write(write: StorageWrite, durable: Queued['durable']): void {
    if (this.#config.lie === 'early') this.#scheduler.after(0, () => durable());
    const done = this.#config.lie === 'early' ? () => {} : durable;
    this.#queue.push({ write, bytes: this.#encode(write), durable: done });
    this.#flushSoon();
  }

  /** `done` false: there was no room for it, or a crash came first. */
  saveSnapshot(meta: SnapshotMeta, image: MachineImage, done: (ok: boolean) => void): void {
    const epoch = this.#epoch;
    const delayMs = this.#latencyMs() * (1 + this.#prng.nextBelow(10));
    this.#scheduler.after(delayMs, () => {
      if (this.#epoch !== epoch || this.isFull) return done(false);
      this.snapshots.push({ meta, image });
      this.snapshots.sort((a, b) => b.meta.index - a.meta.index);
      this.snapshots.length = Math.min(this.snapshots.length, SNAPSHOTS_KEPT);
      done(true);
    });
  }

  /** The log up to the latest snapshot may go; done when nothing is being written. */
  compact(): void {
    this.#isCompactionDue = true;
    if (this.#queue.length === 0) this.#compactNow();
  }

  /** Power off. @param survives Whether a kill only: what was handed over is written all the same. */
  crash(survives: boolean): void {
    this.#epoch += 1;
    const unsynced = Buffer.concat(this.#queue.map(({ bytes }) => bytes));
    this.#queue = [];
    this.#isFlushing = false;
    this.#isCompactionDue = false;
    this.isFailing = false;
    this.#synced.push(survives ? unsynced : this.#damaged(unsynced));
  }

  /** Reads what is there, cuts off what is not whole, and makes that the truth. */
  recover(): RaftRestart {
    const found = this.#scan();
    if (found.lastIndex < this.durable.lastIndex && found.base.index <= this.durable.base.index)
      this.#expectTruncated(found);
    this.durable.base = found.base;
    this.durable.entries = found.entries;
    this.durable.hardState = found.hardState;
    const [latest] = this.snapshots;
    const snapshot =
      latest !== undefined && latest.meta.index > found.base.index ? latest.meta : found.base;
    // A snapshot that was received, but the log does not lead up to it: the log begins anew after it.
    if (found.termAt(snapshot.index) !== snapshot.term)
      this.#sync({ entries: [], reset: snapshot, hardState: undefined });
    const { base, entries, hardState } = this.durable;
    return { hardState, snapshot, entries: entries.slice(snapshot.index - base.index) };
  }

  /** The state that goes with `recover().snapshot`. */
  imageAt(meta: SnapshotMeta): MachineImage | undefined {
    return this.snapshots.find((stored) => stored.meta.index === meta.index)?.image;
  }

  #flushSoon(): void {
    if (this.#isFlushing) return;
    this.#isFlushing = true;
    const epoch = this.#epoch;
    // A moment in which more writes come to share the flush, and the flush itself.
    const gatherMs = this.#prng.nextFloat() * 0.2;
    this.#scheduler.after(gatherMs, () => {
      if (this.#epoch !== epoch) return;
      const count = this.#queue.length;
      this.#scheduler.after(this.#latencyMs(), () => {
        if (this.#epoch === epoch) this.#flushed(count);
      });
    });
  }

  #flushed(count: number): void {
    this.#isFlushing = false;
    if (this.isFailing) {
      // What follows is the crash of the process, in which everything unsynced may survive or not.
      this.#sights.see('disk_failed');
      this.#queue[0]?.durable('failed');
      return;
    }
    if (this.isFull) {
      this.#sights.see('disk_full');
      const refused = this.#queue;
      this.#queue = [];
      this.#resetChain();
      for (const { durable } of refused) durable('full');
      return;
    }
    const flushed = this.#queue.splice(0, count);
    for (const { bytes, write } of flushed) {
      this.#synced.push(bytes);
      this.durable.apply(this.#believed(write));
    }
    const epoch = this.#epoch;
    for (const { durable } of flushed) {
      durable();
      if (this.#epoch !== epoch) return;
    }
    if (this.#queue.length > 0) this.#flushSoon();
    else if (this.#isCompactionDue) this.#compactNow();
  }

  #compactNow(): void {
    this.#isCompactionDue = false;
    const [latest] = this.snapshots;
    if (latest === undefined || this.durable.termAt(latest.meta.index) !== latest.meta.term) return;
    this.durable.compact(latest.meta);
    this.#crc = 0;
    const { base, entries, hardState } = this.durable;
    this.#synced = [this.#encode({ entries, reset: base, hardState })];
  }

  #sync(write: StorageWrite): void {
    this.#synced.push(this.#encode(write));
    this.durable.apply(write);
  }

  /**
   * Records of one write: each may survive without those after it. The hard state is the last, since a commit
   * index without the entries that it is about would be said of whatever they were to replace.
   */
  #encode({ entries, reset, hardState }: StorageWrite): Buffer {
    const records: Buffer[] = [];
    if (reset !== undefined) records.push(this.#record(RESET, encodeSnapshotMeta(reset)));
    for (let i = 0; i < entries.length; ) {
      const count = 1 + this.#prng.nextBelow(4);
      records.push(this.#record(ENTRIES, encodeEntries(entries.slice(i, i + count))));
      i += count;
    }
    const { lie } = this.#config;
    if (hardState !== undefined && lie !== 'forgets_term') {
      const kept = lie === 'forgets_vote' ? { ...hardState, vote: 0 as const } : hardState;
      records.push(this.#record(HARD_STATE, encodeHardState(kept)));
    }
    return Buffer.concat(records);
  }

  #record(kind: number, payload: Uint8Array): Buffer {
    const record = Buffer.allocUnsafe(HEADER_BYTES + 1 + payload.length);
    record.writeUInt32BE(payload.length, 0);
    record[HEADER_BYTES] = kind;
    record.set(payload, HEADER_BYTES + 1);
    this.#crc = crc32(record.subarray(HEADER_BYTES), this.#crc);
    record.writeUInt32BE(this.#crc, 4);
    return record;
  }

  #scan(): LogImage {
    const file = Buffer.concat(this.#synced);
    const image = new LogImage({ index: 0, term: 0, members: [] });
    this.#crc = 0;
    let at = 0;
    while (at + HEADER_BYTES < file.length) {
      const end = at + HEADER_BYTES + 1 + file.readUInt32BE(at);
      if (end > file.length) break;
      const body = file.subarray(at + HEADER_BYTES, end);
      const crc = crc32(body, this.#crc);
      if (crc !== file.readUInt32BE(at + 4)) break;
      this.#crc = crc;
      image.apply(readRecord(body));
      at = end;
    }
    if (at > 0 && at < file.length) this.#sights.see('torn_write');
    this.#synced = [file.subarray(0, at)];
    return image;
  }

  #resetChain(): void {
    this.#crc = 0;
    const { base, entries, hardState } = this.durable;
    this.#synced = [this.#encode({ entries, reset: base, hardState })];
  }

  #damaged(bytes: Buffer): Buffer {
    const kind = this.#prng.nextBelow(4);
    if (kind === 0) return Buffer.alloc(0);
    if (kind === 1) return bytes;
    if (kind === 2) return bytes.subarray(0, this.#prng.nextBelow(bytes.length + 1));
    const holed = Buffer.from(bytes);
    for (let at = 0; at < holed.length; at += SECTOR_BYTES)
      if (this.#prng.chance(0.4)) holed.fill(0, at, Math.min(at + SECTOR_BYTES, holed.length));
    return holed;
  }

  /** A shorter log than the durable one is right only if a write that survived had truncated it. */
  #expectTruncated(found: LogImage): void {
    const isShorter = found.entries.every(({ index, term }) => this.durable.has(index, term));
    if (isShorter) throw new Violation('the simulated disk lost what it had flushed');
  }

  #believed(write: StorageWrite): StorageWrite {
    const { lie } = this.#config;
    const { hardState } = write;
    if (hardState === undefined || lie === undefined || lie === 'early') return write;
    return {
      ...write,
      hardState: lie === 'forgets_term' ? undefined : { ...hardState, vote: 0 },
    };
  }

  #latencyMs(): number {
    const [min, max] = this.#config.flushMs;
    return (min + this.#prng.nextFloat() * (max - min)) * this.slowness;
  }
}

function readRecord(body: Buffer): StorageWrite {
  const nothing: StorageWrite = { entries: [], reset: undefined, hardState: undefined };
  const payload = body.subarray(1);
  const write =
    body[0] === HARD_STATE
      ? { ...nothing, hardState: decodeHardState(payload) }
      : body[0] === RESET
        ? { ...nothing, reset: decodeSnapshotMeta(payload) }
        : { ...nothing, entries: decodeEntries(payload) ?? [] };
  if (write.entries.length === 0 && write.hardState === undefined && write.reset === undefined)
    throw new Violation('a record with a good checksum does not decode');
  return write;
}
