import { dirname } from 'node:path';
import type { FileLayer, OpenMode, StorageFile } from '../../src/control/raft/io/wal-files.js';

const SECTOR_BYTES = 512;

export type FileOperation =
  | 'open'
  | 'write'
  | 'sync'
  | 'truncate'
  | 'rename'
  | 'remove'
  | 'sync_folder';

/** What a power cut leaves of a file: all that was flushed, and any of the sectors that were not. */
class Inode {
  content: Buffer;
  #durable: Buffer;
  readonly #dirty: Set<number>;

  constructor(durable: Buffer, content = Buffer.from(durable), dirty = new Set<number>()) {
    this.#durable = durable;
    this.content = content;
    this.#dirty = dirty;
  }

  copy(): Inode {
    return new Inode(Buffer.from(this.#durable), Buffer.from(this.content), new Set(this.#dirty));
  }

  /** A flush that failed: the pages count as clean afterwards, and the disk does not have them. */
  failSync(): void {
    this.#dirty.clear();
  }

  write(bytes: Uint8Array, offset: number): void {
    const end = offset + bytes.length;
    if (end > this.content.length) this.resize(end);
    this.content.set(bytes, offset);
    for (let at = Math.floor(offset / SECTOR_BYTES); at * SECTOR_BYTES < end; at++)
      this.#dirty.add(at);
  }

  resize(sizeBytes: number): void {
    const resized = Buffer.alloc(sizeBytes);
    this.content.copy(resized);
    this.content = resized;
  }

  sync(): void {
    if (this.#durable.length !== this.content.length) {
      const resized = Buffer.alloc(this.content.length);
      this.#durable.copy(resized);
      this.#durable = resized;
    }
    for (const sector of this.#dirty) copySector(this.content, this.#durable, sector);
    this.#dirty.clear();
  }

  afterCut(chance: () => boolean): Inode {
    const resized = this.#durable.length !== this.content.length && chance();
    const left = Buffer.alloc(resized ? this.content.length : this.#durable.length);
    this.#durable.copy(left);
    for (const sector of this.#dirty) if (chance()) copySector(this.content, left, sector);
    return new Inode(left);
  }
}

function copySector(from: Buffer, to: Buffer, sector: number): void {
  // A file that was cut off ends before it.
  if (sector * SECTOR_BYTES >= from.length) return;
  from.copy(to, sector * SECTOR_BYTES, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
}

/** `inode` undefined: the name goes. */
interface NameChange {
  readonly path: string;
  readonly inode: Inode | undefined;
}

function applyTo(names: Map<string, Inode>, { path, inode }: NameChange): void {
  if (inode === undefined) names.delete(path);
  else names.set(path, inode);
}

/**
 * A disk with a write cache, for power cuts at any operation and for disks that are full or broken.
 * Sectors that were not flushed survive a cut or do not, each by chance; changes of names survive up to some
 * point, in order, as in a journal.
 */
export class MemoryFiles implements FileLayer {
  readonly #names: Map<string, Inode>;
  readonly #durableNames: Map<string, Inode>;
  #changes: NameChange[] = [];
  readonly #folders = new Set<string>();
  /** Operations so far. */
  operations = 0;
  /** From this operation on, nothing is done and nothing answers. */
  cutAt = Number.POSITIVE_INFINITY;
  /** Writes that would take more than this fail as on a full disk. */
  capacityBytes = Number.POSITIVE_INFINITY;
  /** Says that it has flushed what it has not. */
  lies = false;
  /** An error for this operation; asked before each. */
  fault: ((operation: FileOperation, path: string) => Error | undefined) | undefined;
  readonly cut: Promise<void>;
  #atCut: () => void = () => {};

  constructor(durableNames = new Map<string, Inode>(), names = new Map(durableNames)) {
    this.#names = names;
    this.#durableNames = durableNames;
    this.cut = new Promise((resolve) => {
      this.#atCut = resolve;
    });
  }

  /** What the next start finds. */
  afterCut(random: () => number): MemoryFiles {
    const chance = () => random() < 0.5;
    const names = new Map(this.#durableNames);
    const kept = Math.floor(random() * (this.#changes.length + 1));
    for (const change of this.#changes.slice(0, kept)) applyTo(names, change);
    const left = new Map<string, Inode>();
    for (const [path, inode] of names) left.set(path, inode.afterCut(chance));
    return new MemoryFiles(left);
  }

  /** As a process that ends without a power cut: all that was written is there, and not all is flushed. */
  afterKill(): MemoryFiles {
    const copies = new Map<Inode, Inode>();
    const copyOf = (inode: Inode) => {
      const copy = copies.get(inode) ?? inode.copy();
      copies.set(inode, copy);
      return copy;
    };
    const copyAll = (names: ReadonlyMap<string, Inode>) =>
      new Map([...names].map(([path, inode]) => [path, copyOf(inode)]));
    const next = new MemoryFiles(copyAll(this.#durableNames), copyAll(this.#names));
    for (const { path, inode } of this.#changes)
      next.#changes.push({ path, inode: inode === undefined ? undefined : copyOf(inode) });
    return next;
  }

  get usedBytes(): number {
    let sum = 0;
    for (const { content } of this.#names.values()) sum += content.length;
    return sum;
  }

  paths(): string[] {
    return [...this.#names.keys()].sort();
  }

  /** To look at or to damage. */
  contentOf(path: string): Buffer {
    return this.#inode(path).content;
  }

  cutOff(path: string, sizeBytes: number): void {
    this.#inode(path).resize(sizeBytes);
  }

  delete(path: string): void {
    this.#names.delete(path);
  }

  async makeFolder(path: string): Promise<void> {
    this.#folders.add(path);
  }

  async list(folder: string) {
    if (!this.#folders.has(folder)) throw errno('ENOENT', folder);
    return [...this.#names]
      .filter(([path]) => dirname(path) === folder)
      .map(([path, { content }]) => ({
        name: path.slice(folder.length + 1),
        sizeBytes: content.length,
      }))
      .sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async open(path: string, mode: OpenMode): Promise<StorageFile> {
    if (mode === 'create')
      await this.#operation('open', path, () => {
        const created = new Inode(Buffer.alloc(0));
        this.#change({ path, inode: created });
      });
    return this.#fileOf(path, this.#inode(path), mode);
  }

  rename(from: string, to: string): Promise<void> {
    return this.#operation('rename', to, () => {
      const inode = this.#inode(from);
      this.#change({ path: to, inode }, { path: from, inode: undefined });
    });
  }

  remove(path: string): Promise<void> {
    return this.#operation('remove', path, () => this.#change({ path, inode: undefined }));
  }

  syncFolder(path: string): Promise<void> {
    return this.#operation('sync_folder', path, () => {
      const flushed = this.#changes.filter((change) => dirname(change.path) === path);
      for (const change of flushed) applyTo(this.#durableNames, change);
      this.#changes = this.#changes.filter((change) => !flushed.includes(change));
    });
  }

  #fileOf(path: string, inode: Inode, mode: OpenMode): StorageFile {
    let open = true;
    const check = () => {
      if (!open) throw errno('EBADF', path);
    };
    const flush = () =>
      this.#operation(
        'sync',
        path,
        () => inode.sync(),
        () => inode.failSync(),
      );
    return {
      read: async (offset, length) => {
        check();
        await this.#alive();
        return Buffer.from(inode.content.subarray(offset, offset + length));
      },
      write: async (bytes, offset) => {
        check();
        if (mode === 'read') throw errno('EBADF', path);
        await this.#operation(
          'write',
          path,
          () => this.#write(inode, path, bytes, offset),
          // Half of it got there.
          () => inode.write(bytes.subarray(0, bytes.length >> 1), offset),
        );
        // The cut may come here, while the sectors are on their way.
        if (mode === 'durable' && !this.lies) await flush();
      },
      sync: async () => {
        check();
        await flush();
      },
      truncate: async (sizeBytes) => {
        check();
        await this.#operation('truncate', path, () => inode.resize(sizeBytes));
      },
      close: async () => {
        check();
        open = false;
      },
    };
  }

  #write(inode: Inode, path: string, bytes: Uint8Array, offset: number): void {
    const room = this.capacityBytes - this.usedBytes;
    const grows = offset + bytes.length - inode.content.length;
    const fits = grows <= Math.max(0, room) ? bytes.length : bytes.length - grows + room;
    if (fits > 0) inode.write(bytes.subarray(0, fits), offset);
    if (fits < bytes.length) throw errno('ENOSPC', path);
  }

  /** The effect comes at once with the count: after the cut nothing happens any more. */
  async #operation(
    operation: FileOperation,
    path: string,
    effect: () => void,
    failed?: () => void,
  ): Promise<void> {
    await Promise.resolve();
    await this.#alive();
    this.operations++;
    if (this.operations >= this.cutAt) {
      this.#atCut();
      await new Promise<never>(() => {});
    }
    const fault = this.fault?.(operation, path);
    if (fault === undefined) return effect();
    failed?.();
    throw fault;
  }

  async #alive(): Promise<void> {
    if (this.operations >= this.cutAt) await new Promise<never>(() => {});
  }

  #change(...changes: readonly NameChange[]): void {
    for (const change of changes) applyTo(this.#names, change);
    this.#changes.push(...changes);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw errno('ENOENT', path);
    return inode;
  }
}

export function errno(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code });
}
