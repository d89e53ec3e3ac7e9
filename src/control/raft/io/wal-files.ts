import { constants, write as writeCallback } from 'node:fs';
import { open, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoOf, makePrivateFolder, PRIVATE_FILE_MODE, syncFolder } from '../../io/files.js';

/** What the storage needs of an open file; tests put failing and forgetful ones here. */
export interface StorageFile {
  /** Up to so many bytes; fewer only at the end of the file. */
  read(offsetBytes: number, lengthBytes: number): Promise<Buffer>;
  /** All of it; in a file opened `durable` it is on disk when this resolves. */
  write(bytes: Uint8Array, offsetBytes: number): Promise<void>;
  sync(): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}

/**
 * - `read`, `update`: the file exists.
 * - `create`: there is an empty one afterwards, with mode 0600.
 * - `durable`: it exists, and each write is flushed (O_DSYNC), in one trip to the thread pool: a write and an
 *   fdatasync take two.
 */
export type OpenMode = 'read' | 'update' | 'create' | 'durable';

export interface FileLayer {
  makeFolder(path: string): Promise<void>;
  list(folder: string): Promise<readonly { readonly name: string; readonly sizeBytes: number }[]>;
  open(path: string, mode: OpenMode): Promise<StorageFile>;
  rename(from: string, to: string): Promise<void>;
  /** No error if it is not there. */
  remove(path: string): Promise<void>;
  /** Makes new names, renames and removals durable. */
  syncFolder(path: string): Promise<void>;
}

const FLAGS: Readonly<Record<OpenMode, number>> = {
  read: constants.O_RDONLY,
  update: constants.O_RDWR,
  create: constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC,
  durable: constants.O_RDWR | constants.O_DSYNC,
};

export const realFiles: FileLayer = {
  makeFolder: makePrivateFolder,
  async list(folder) {
    const names = await readdir(folder);
    const found = await Promise.all(
      names.map(async (name) => ({ name, sizeBytes: (await stat(join(folder, name))).size })),
    );
    return found.sort((a, b) => (a.name < b.name ? -1 : 1));
  },
  async open(path, mode) {
    const handle = await open(path, FLAGS[mode], PRIVATE_FILE_MODE);
    const writing = new Set<Promise<void>>();
    return {
      async read(offsetBytes, lengthBytes) {
        const target = Buffer.allocUnsafe(lengthBytes);
        let done = 0;
        while (done < lengthBytes) {
          const { bytesRead } = await handle.read(
            target,
            done,
            lengthBytes - done,
            offsetBytes + done,
          );
          if (bytesRead === 0) break;
          done += bytesRead;
        }
        return target.subarray(0, done);
      },
      write(bytes, offsetBytes) {
        const written = writeAll(handle.fd, bytes, offsetBytes).finally(() =>
          writing.delete(written),
        );
        writing.add(written);
        return written;
      },
      sync: () => handle.sync(),
      truncate: (sizeBytes) => handle.truncate(sizeBytes),
      async close() {
        // The handle does not know of these, and the descriptor may be another file's in a moment.
        await Promise.allSettled(writing);
        await handle.close();
      },
    };
  },
  rename,
  remove: (path) => rm(path, { force: true }),
  syncFolder,
};

/** With callbacks: this is on the way of every commit, and file handles cost some microseconds more. */
function writeAll(fd: number, bytes: Uint8Array, offsetBytes: number): Promise<void> {
  return new Promise((resolve, reject) => {
    let done = 0;
    const next = () =>
      writeCallback(fd, bytes, done, bytes.length - done, offsetBytes + done, (error, count) => {
        if (error !== null) return reject(error);
        done += count;
        if (done >= bytes.length) return resolve();
        next();
      });
    next();
  });
}

/** What goes away when somebody frees space. */
export function isSpaceError(error: unknown): boolean {
  return ['ENOSPC', 'EDQUOT'].includes(errnoOf(error));
}
