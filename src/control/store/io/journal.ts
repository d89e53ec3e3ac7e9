import { type FileHandle, open } from 'node:fs/promises';
import { PRIVATE_FILE_MODE } from '../../io/files.js';

/** What the store needs of the file that it appends to; tests put failing ones here. */
export interface JournalFile {
  /** Writes all bytes at `offset`. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /** Durable from here on. */
  datasync(): Promise<void>;
  truncate(sizeBytes: number): Promise<void>;
  close(): Promise<void>;
}

export type OpenJournalFile = (path: string) => Promise<JournalFile>;

/** The file of that path, which exists. */
export const openJournalFile: OpenJournalFile = async (path) => {
  const handle = await open(path, 'r+', PRIVATE_FILE_MODE);
  return {
    write: (bytes, offset) => writeAll(handle, bytes, offset),
    datasync: () => handle.datasync(),
    truncate: (sizeBytes) => handle.truncate(sizeBytes),
    close: () => handle.close(),
  };
};

async function writeAll(handle: FileHandle, bytes: Uint8Array, offset: number): Promise<void> {
  let written = 0;
  while (written < bytes.length) {
    const { bytesWritten } = await handle.write(
      bytes,
      written,
      bytes.length - written,
      offset + written,
    );
    written += bytesWritten;
  }
}
