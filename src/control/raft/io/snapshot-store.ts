import { join } from 'node:path';
import type { Logger } from '../../core/logger.js';
import type { LogIndex, SnapshotMeta } from '../core/types.js';
import { diskFull, RaftStorageError } from '../core/wal-error.js';
import { NO_SNAPSHOT } from '../core/wal-recovery.js';
import { SnapshotFileReader, SnapshotFileWriter } from './snapshot-file.js';
import type { SnapshotReader, SnapshotWriter } from './storage.js';
import { type FileLayer, isSpaceError } from './wal-files.js';
import type { KeySource } from './wal-seal.js';

export interface SnapshotStoreConfig {
  readonly folder: string;
  readonly files: FileLayer;
  readonly keys: KeySource;
  readonly log: Logger;
  /** How many are kept, at least one: an older one helps when the newest turns out to be damaged. */
  readonly keep: number;
}

interface StoredSnapshot {
  readonly path: string;
  readonly index: LogIndex;
  readonly term: number;
  readonly sizeBytes: number;
  readonly keyId: string;
}

const PARTIAL = 'received.part';

function nameOf(meta: SnapshotMeta): string {
  const hex = (value: number) => value.toString(16).padStart(14, '0');
  return `${hex(meta.index)}-${hex(meta.term)}.snap`;
}

function parseName(name: string): { index: number; term: number } | undefined {
  const parts = /^([0-9a-f]{14})-([0-9a-f]{14})\.snap$/.exec(name);
  if (parts === null) return undefined;
  return {
    index: Number.parseInt(parts[1] ?? '', 16),
    term: Number.parseInt(parts[2] ?? '', 16),
  };
}

/** The snapshots of one manager, each a file that appears whole or not at all. */
export class SnapshotStore {
  readonly #config: SnapshotStoreConfig;
  /** Oldest first. */
  #stored: StoredSnapshot[] = [];
  #newest: SnapshotMeta = NO_SNAPSHOT;
  #receiving: ReceivedSnapshot | undefined;
  #temporaries = 0;
  /** Of snapshots that are being written. */
  readonly #writing: string[] = [];
  /** Damaged ones, which go when there is a new one. */
  readonly #broken: string[] = [];
  /** Set if the newest was damaged and an older one stands in for it. */
  #damage: RaftStorageError | undefined;

  private constructor(config: SnapshotStoreConfig) {
    this.#config = config;
  }

  /**
   * Reads the newest snapshot from end to end, and falls back on an older one if it is damaged: whether that
   * will do, the log must say.
   * @throws RaftStorageError
   */
  static async open(config: SnapshotStoreConfig): Promise<SnapshotStore> {
    const store = new SnapshotStore(config);
    await store.#open();
    return store;
  }

  /** Of the newest that is whole; index 0: there is none. */
  get newest(): SnapshotMeta {
    return this.#newest;
  }

  get oldestIndex(): LogIndex {
    return this.#stored[0]?.index ?? 0;
  }

  get damage(): RaftStorageError | undefined {
    return this.#damage;
  }

  get bytes(): number {
    return this.#stored.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  }

  /** What something here is sealed with, or is being sealed with. */
  keyIds(): string[] {
    const ids = [...this.#stored.map(({ keyId }) => keyId), ...this.#writing];
    if (this.#receiving?.over === false) ids.push(this.#receiving.keyId);
    return ids;
  }

  async save(
    meta: SnapshotMeta,
    data: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  ): Promise<void> {
    const { folder, files, keys } = this.#config;
    const path = join(folder, `${nameOf(meta)}.${this.#temporaries++}.tmp`);
    const key = keys.currentKey();
    this.#writing.push(key.id);
    try {
      const description = { meta, sizeBytes: 0, digest: new Uint8Array(0) };
      const writer = await SnapshotFileWriter.create(files, path, key, description);
      try {
        for await (const chunk of data) await writer.append(chunk);
        await writer.finish();
      } finally {
        await writer.close();
      }
      await this.#install(path, meta, writer.keyId);
    } catch (error) {
      await files.remove(path);
      throw isSpaceError(error) ? diskFull(path, error) : error;
    } finally {
      this.#writing.splice(this.#writing.indexOf(key.id), 1);
    }
  }

  async openNewest(): Promise<SnapshotReader | undefined> {
    const newest = this.#stored[this.#stored.length - 1];
    if (newest === undefined) return undefined;
    const { files, keys } = this.#config;
    return SnapshotFileReader.open(files, newest.path, newest.sizeBytes, keys);
  }

  async receive(
    meta: SnapshotMeta,
    sizeBytes: number,
    digest: Uint8Array | undefined,
  ): Promise<SnapshotWriter> {
    await this.#receiving?.abandon();
    const { folder, files, keys } = this.#config;
    const path = join(folder, PARTIAL);
    const description = { meta, sizeBytes, digest: digest ?? new Uint8Array(0) };
    const listed = await files.list(folder);
    const resumed =
      digest !== undefined && listed.some(({ name }) => name === PARTIAL)
        ? await SnapshotFileWriter.resume(files, path, keys, description)
        : undefined;
    try {
      const writer =
        resumed ?? (await SnapshotFileWriter.create(files, path, keys.currentKey(), description));
      const install = () => this.#install(path, meta, writer.keyId);
      this.#receiving = new ReceivedSnapshot(writer, description, files, install);
      return this.#receiving;
    } catch (error) {
      throw isSpaceError(error) ? diskFull(path, error) : error;
    }
  }

  async close(): Promise<void> {
    await this.#receiving?.abandon();
  }

  async #open(): Promise<void> {
    const { folder, files, keys, log } = this.#config;
    await files.makeFolder(folder);
    // A name that is there is on the disk only after this, if the process ended after a rename.
    await files.syncFolder(folder);
    const found: { path: string; index: number; term: number; sizeBytes: number }[] = [];
    for (const { name, sizeBytes } of await files.list(folder)) {
      const path = join(folder, name);
      if (name.endsWith('.tmp')) await files.remove(path);
      const parsed = parseName(name);
      if (parsed !== undefined) found.push({ path, sizeBytes, ...parsed });
    }
    found.sort((a, b) => b.index - a.index || b.term - a.term);
    for (const snapshot of found) {
      try {
        const reader = await SnapshotFileReader.open(
          files,
          snapshot.path,
          snapshot.sizeBytes,
          keys,
        );
        try {
          if (this.#newest === NO_SNAPSHOT) {
            await reader.verify();
            this.#newest = reader.meta;
          }
          this.#stored.unshift({ ...snapshot, keyId: reader.keyId });
        } finally {
          await reader.close();
        }
      } catch (error) {
        if (!(error instanceof RaftStorageError)) throw error;
        const { code } = error.detail;
        const passable = this.#newest !== NO_SNAPSHOT || code === 'RAFT_STORAGE_CORRUPT';
        if (!passable) throw error;
        log.warn({ path: snapshot.path, error }, 'a snapshot cannot be read, and is passed over');
        this.#broken.push(snapshot.path);
        if (this.#newest === NO_SNAPSHOT) this.#damage ??= error;
      }
    }
  }

  async #install(temporary: string, meta: SnapshotMeta, keyId: string): Promise<void> {
    const { folder, files } = this.#config;
    if (meta.index < this.#newest.index) {
      // A newer one of a leader came while this one was made.
      await files.remove(temporary);
      return;
    }
    const path = join(folder, nameOf(meta));
    await files.rename(temporary, path);
    await files.syncFolder(folder);
    const listed = await files.list(folder);
    const sizeBytes = listed.find(({ name }) => name === nameOf(meta))?.sizeBytes ?? 0;
    this.#stored = this.#stored.filter((stored) => stored.path !== path);
    this.#stored.push({ path, index: meta.index, term: meta.term, sizeBytes, keyId });
    this.#newest = meta;
    this.#damage = undefined;
    await this.#dropOld(keyId);
  }

  /** Also those under a key that was replaced: they are what keeps it needed. */
  async #dropOld(keyId: string): Promise<void> {
    const { files, keep } = this.#config;
    const first = this.#stored.length - Math.max(1, keep);
    const dropped = this.#stored.filter((stored, i) => i < first || stored.keyId !== keyId);
    this.#stored = this.#stored.filter((stored) => !dropped.includes(stored));
    for (const path of [...this.#broken.splice(0), ...dropped.map((stored) => stored.path)])
      if (!this.#stored.some((stored) => stored.path === path)) await files.remove(path);
  }
}

class ReceivedSnapshot implements SnapshotWriter {
  readonly offsetBytes: number;
  readonly keyId: string;
  readonly #writer: SnapshotFileWriter;
  readonly #sizeBytes: number;
  readonly #digest: Uint8Array;
  readonly #files: FileLayer;
  readonly #install: () => Promise<void>;
  /** Nothing of it is under way any more. */
  over = false;
  #open = true;

  constructor(
    writer: SnapshotFileWriter,
    announced: { readonly sizeBytes: number; readonly digest: Uint8Array },
    files: FileLayer,
    install: () => Promise<void>,
  ) {
    this.offsetBytes = writer.sizeBytes;
    this.keyId = writer.keyId;
    this.#writer = writer;
    this.#sizeBytes = announced.sizeBytes;
    this.#digest = announced.digest;
    this.#files = files;
    this.#install = install;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#checkOpen();
    if (this.#writer.sizeBytes + chunk.length > this.#sizeBytes)
      return this.#giveUp(new Error('the snapshot is longer than was announced'));
    try {
      await this.#writer.append(chunk);
    } catch (error) {
      await this.#giveUp(isSpaceError(error) ? diskFull(this.#writer.path, error) : error);
    }
  }

  async finish(): Promise<void> {
    this.#checkOpen();
    if (this.#writer.sizeBytes !== this.#sizeBytes)
      return this.#giveUp(new Error('the snapshot is shorter than was announced'));
    try {
      const digest = await this.#writer.finish();
      if (this.#digest.length > 0 && !digest.equals(this.#digest))
        throw new Error('the content of the snapshot is not what was announced');
      this.#open = false;
      await this.#install();
      this.over = true;
    } catch (error) {
      await this.#giveUp(isSpaceError(error) ? diskFull(this.#writer.path, error) : error);
    }
  }

  async abandon(): Promise<void> {
    if (!this.#open) return;
    this.#open = false;
    await this.#writer.close();
    this.over = true;
  }

  /** What is there is of no use, or is what fills the disk. */
  async #giveUp(error: unknown): Promise<never> {
    this.#open = false;
    await this.#writer.close();
    await this.#files.remove(this.#writer.path);
    this.over = true;
    throw error;
  }

  #checkOpen(): void {
    if (!this.#open) throw new Error('the snapshot was given up before');
  }
}
