import { join } from 'node:path';
import { type FileLayer, isSpaceError, type StorageFile } from './wal-files.js';

/** The zeros are written in pieces, so that a flush of the log need not wait for all of them. */
const FILL_BYTES = 1024 * 1024;
export const SEGMENT_SUFFIX = '.wal';

export function segmentName(sequence: number): string {
  return `${sequence.toString(16).padStart(12, '0')}${SEGMENT_SUFFIX}`;
}

/** `undefined`: the name of something else. */
export function sequenceOf(name: string): number | undefined {
  const digits = /^([0-9a-f]{12})\.wal$/.exec(name)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

/** A segment file of nothing but zeros, on disk with its name. */
export interface Spare {
  readonly sequence: number;
  readonly path: string;
  /** Opened `durable`. */
  readonly file: StorageFile;
  readonly sizeBytes: number;
}

/**
 * Keeps one segment ahead of the log, filled with zeros: a write into blocks that are there already needs no
 * change of the file's size or its blocks, which doubles the rate of flushes, and it needs no space.
 */
export class SegmentPool {
  readonly #folder: string;
  readonly #files: FileLayer;
  readonly #segmentBytes: number;
  #spare: Spare | undefined;
  #preparing: Promise<void> | undefined;
  #failure: unknown;

  /** @param spare One that was there already. */
  constructor(folder: string, files: FileLayer, segmentBytes: number, spare: Spare | undefined) {
    this.#folder = folder;
    this.#files = files;
    this.#segmentBytes = segmentBytes;
    this.#spare = spare;
  }

  get hasSpare(): boolean {
    return this.#spare !== undefined;
  }

  /** Begins to make the one with this number, in the background, unless there is one. */
  prepare(sequence: number): Promise<void> {
    if (this.#spare !== undefined) return Promise.resolve();
    this.#preparing ??= this.#make(sequence).finally(() => {
      this.#preparing = undefined;
    });
    return this.#preparing;
  }

  /**
   * The one that is ready, or about to be. `undefined`: the disk was full when it was tried.
   * @throws Error of the disk, otherwise.
   */
  async take(): Promise<Spare | undefined> {
    await this.#preparing;
    if (this.#failure !== undefined) throw this.#failure;
    const spare = this.#spare;
    this.#spare = undefined;
    return spare;
  }

  /** One that could not be written to; it is not all zeros any more. */
  async discard(spare: Spare): Promise<void> {
    await spare.file.close();
    await this.#files.remove(spare.path);
    await this.#files.syncFolder(this.#folder);
  }

  async close(): Promise<void> {
    await this.#preparing;
    await this.#spare?.file.close();
    this.#spare = undefined;
  }

  async #make(sequence: number): Promise<void> {
    const path = join(this.#folder, segmentName(sequence));
    const temporary = `${path}.tmp`;
    try {
      await fillWithZeros(this.#files, temporary, this.#segmentBytes);
      await this.#files.rename(temporary, path);
      await this.#files.syncFolder(this.#folder);
      const file = await this.#files.open(path, 'durable');
      this.#spare = { sequence, path, file, sizeBytes: this.#segmentBytes };
    } catch (error) {
      if (!isSpaceError(error)) this.#failure = error;
      // What it had got would be all that is free.
      await this.#files.remove(temporary).catch(() => {});
    }
  }
}

async function fillWithZeros(files: FileLayer, path: string, sizeBytes: number): Promise<void> {
  const file = await files.open(path, 'create');
  try {
    const zeros = Buffer.alloc(Math.min(FILL_BYTES, sizeBytes));
    for (let at = 0; at < sizeBytes; at += zeros.length)
      await file.write(zeros.subarray(0, Math.min(zeros.length, sizeBytes - at)), at);
    await file.sync();
  } finally {
    await file.close();
  }
}
