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
  readonly #dirty = new Set<number>();

  constructor(durable: Buffer) {
    this.#durable = durable;
    this.content = Buffer.from(durable);
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
    if (this.#durable.length !== this.content.length) this.#durable = Buffer.from(this.content);
    else for (const sector of this.#dirty) copySector(this.content, this.#durable, sector);
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
  from.copy(to, sector * SECTOR_BYTES, sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
}

type NameChange = (names: Map<string, Inode>) => void;

/**
 * A disk with a write cache, for power cuts at any operation and for disks that are full or broken.
 * Sectors that were not flushed survive a cut or do not, each by chance; changes of names survive up to some
 * point, in order, as in a journal.
 */
export class MemoryFiles implements FileLayer {
  readonly #names: Map<string, Inode>;
  readonly #durableNames: Map<string, Inode>;
  readonly #changes: NameChange[] = [];
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

  constructor(names = new Map<string, Inode>()) {
    this.#names = new Map(names);
    this.#durableNames = names;
    this.cut = new Promise((resolve) => {
      this.#atCut = resolve;
    });
  }

  /** What the next start finds. */
  afterCut(random: () => number): MemoryFiles {
    const chance = () => random() < 0.5;
    const names = new Map(this.#durableNames);
    const kept = Math.floor(random() * (this.#changes.length + 1));
    for (const change of this.#changes.slice(0, kept)) change(names);
    const left = new Map<string, Inode>();
    for (const [path, inode] of names) left.set(path, inode.afterCut(chance));
    return new MemoryFiles(left);
  }

  /** As a process that ends without a power cut: all that was written is there. */
  afterKill(): MemoryFiles {
    const left = new Map<string, Inode>();
    for (const [path, { content }] of this.#names) left.set(path, new Inode(Buffer.from(content)));
    return new MemoryFiles(left);
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
    if (mode === 'create') {
      await this.#operation('open', path);
      const created = new Inode(Buffer.alloc(0));
      this.#change((names) => names.set(path, created));
    }
    return this.#fileOf(path, this.#inode(path), mode);
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#operation('rename', to);
    const inode = this.#inode(from);
    this.#change((names) => {
      names.delete(from);
      names.set(to, inode);
    });
  }

  async remove(path: string): Promise<void> {
    await this.#operation('remove', path);
    this.#change((names) => names.delete(path));
  }

  async syncFolder(path: string): Promise<void> {
    await this.#operation('sync_folder', path);
    for (const change of this.#changes.splice(0)) change(this.#durableNames);
  }

  #fileOf(path: string, inode: Inode, mode: OpenMode): StorageFile {
    let open = true;
    const check = () => {
      if (!open) throw errno('EBADF', path);
    };
    return {
      read: async (offset, length) => {
        check();
        await this.#alive();
        return Buffer.from(inode.content.subarray(offset, offset + length));
      },
      write: async (bytes, offset) => {
        check();
        if (mode === 'read') throw errno('EBADF', path);
        // The cut may come while the sectors are on their way: before this one, or before the flush.
        await this.#operation('write', path);
        const room = this.capacityBytes - this.usedBytes;
        const grows = offset + bytes.length - inode.content.length;
        if (grows > room) {
          const fits = bytes.length - grows + Math.max(0, room);
          if (fits > 0) inode.write(bytes.subarray(0, fits), offset);
          throw errno('ENOSPC', path);
        }
        inode.write(bytes, offset);
        if (mode !== 'durable' || this.lies) return;
        await this.#operation('sync', path);
        inode.sync();
      },
      sync: async () => {
        check();
        await this.#operation('sync', path);
        inode.sync();
      },
      truncate: async (sizeBytes) => {
        check();
        await this.#operation('truncate', path);
        inode.resize(sizeBytes);
      },
      close: async () => {
        check();
        open = false;
      },
    };
  }

  async #operation(operation: FileOperation, path: string): Promise<void> {
    await Promise.resolve();
    await this.#alive();
    this.operations++;
    if (this.operations >= this.cutAt) this.#atCut();
    await this.#alive();
    const fault = this.fault?.(operation, path);
    if (fault !== undefined) throw fault;
  }

  async #alive(): Promise<void> {
    if (this.operations >= this.cutAt) await new Promise<never>(() => {});
  }

  #change(change: NameChange): void {
    change(this.#names);
    this.#changes.push(change);
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
