import { createHash, type Hash, randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { SnapshotMeta } from '../core/types.js';
import { corrupt, newerSchema, wrongKey } from '../core/wal-error.js';
import { SALT_BYTES } from '../wire/wal-frame.js';
import {
  CHUNK_BYTES,
  contentBytes,
  decodeDescription,
  decodeSnapshotHeader,
  decodeTrailer,
  encodeDescription,
  encodeSnapshotHeader,
  encodeTrailer,
  partName,
  SEALED_OVERHEAD_BYTES,
  SNAPSHOT_HEADER_BYTES,
  type SnapshotDescription,
  TRAILER_BYTES,
} from '../wire/wal-snapshot.js';
import type { SnapshotReader } from './storage.js';
import type { FileLayer, StorageFile } from './wal-files.js';
import {
  fileKey,
  type KeySource,
  NONCE_BYTES,
  openSealed,
  type StorageKey,
  sealInto,
} from './wal-seal.js';

const SEALED_CHUNK_BYTES = CHUNK_BYTES + SEALED_OVERHEAD_BYTES;
/** So that the flush at the end is not one long one, which those of the log would have to wait for. */
const SYNC_EVERY_CHUNKS = 32;

function contentKey(key: StorageKey, salt: Uint8Array): Buffer {
  return fileKey(key, salt, 'raft snapshot');
}

function sealPart(key: Uint8Array, name: Uint8Array, plain: Uint8Array): Buffer {
  const sealed = Buffer.allocUnsafe(plain.length + SEALED_OVERHEAD_BYTES);
  // A file that is gone on with may get other content in the same place: so no counters here.
  const nonce = randomBytes(NONCE_BYTES);
  nonce.copy(sealed);
  sealInto(sealed, NONCE_BYTES, key, nonce, name, [plain]);
  return sealed;
}

function openPart(key: Uint8Array, name: Uint8Array, sealed: Buffer): Buffer | undefined {
  return openSealed(key, sealed.subarray(0, NONCE_BYTES), name, sealed.subarray(NONCE_BYTES));
}

interface OpenedHead {
  readonly description: SnapshotDescription;
  readonly keyId: string;
  readonly key: Buffer;
  /** Where the chunks begin. */
  readonly startBytes: number;
}

async function readHead(file: StorageFile, path: string, keys: KeySource): Promise<OpenedHead> {
  const read = decodeSnapshotHeader(await file.read(0, SNAPSHOT_HEADER_BYTES), crc32);
  if (read.kind === 'newer') throw newerSchema(path, read.version);
  if (read.kind === 'damaged') throw corrupt(path, 0, 'the header of the snapshot is damaged');
  const { descriptionBytes, keyId, salt } = read.header;
  const dataKey = keys.keyById(keyId);
  if (dataKey === undefined)
    throw wrongKey(path, `the key ${keyId} of ${path} is not among the keys of this manager`);
  const key = contentKey(dataKey, salt);
  const sealed = await file.read(SNAPSHOT_HEADER_BYTES, descriptionBytes);
  const plain = openPart(key, partName('description', 0), sealed);
  const description = plain === undefined ? undefined : decodeDescription(plain);
  if (description === undefined)
    throw corrupt(path, SNAPSHOT_HEADER_BYTES, 'the description of the snapshot is damaged');
  return { description, keyId, key, startBytes: SNAPSHOT_HEADER_BYTES + descriptionBytes };
}

/** A snapshot that is being written: not valid before `finish`. */
export class SnapshotFileWriter {
  readonly path: string;
  readonly keyId: string;
  readonly #file: StorageFile;
  readonly #key: Buffer;
  readonly #startBytes: number;
  readonly #hash: Hash;
  #chunks: number;
  readonly #buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  #buffered = 0;
  #closed = false;

  private constructor(
    path: string,
    file: StorageFile,
    head: Omit<OpenedHead, 'description'>,
    hash: Hash,
    chunks: number,
  ) {
    this.path = path;
    this.keyId = head.keyId;
    this.#file = file;
    this.#key = head.key;
    this.#startBytes = head.startBytes;
    this.#hash = hash;
    this.#chunks = chunks;
  }

  static async create(
    files: FileLayer,
    path: string,
    key: StorageKey,
    description: SnapshotDescription,
  ): Promise<SnapshotFileWriter> {
    const salt = randomBytes(SALT_BYTES);
    const partKey = contentKey(key, salt);
    const sealed = sealPart(partKey, partName('description', 0), encodeDescription(description));
    const header = { descriptionBytes: sealed.length, keyId: key.id, salt };
    const file = await files.open(path, 'create');
    try {
      await file.write(Buffer.concat([encodeSnapshotHeader(header, crc32), sealed]), 0);
    } catch (error) {
      await file.close();
      throw error;
    }
    const startBytes = SNAPSHOT_HEADER_BYTES + sealed.length;
    const head = { keyId: key.id, key: partKey, startBytes };
    return new SnapshotFileWriter(path, file, head, createHash('sha256'), 0);
  }

  /**
   * Goes on with one that was abandoned, after the chunks of it that are whole. `undefined`: it is of something
   * else, or sealed with another key, or damaged.
   */
  static async resume(
    files: FileLayer,
    path: string,
    keys: KeySource,
    wanted: SnapshotDescription,
  ): Promise<SnapshotFileWriter | undefined> {
    const file = await files.open(path, 'update');
    try {
      const head = await readHead(file, path, keys);
      const same = Buffer.from(encodeDescription(head.description)).equals(
        encodeDescription(wanted),
      );
      if (same && head.keyId === keys.currentKey().id) {
        const hash = createHash('sha256');
        const chunks = await readWholeChunks(file, head, wanted.sizeBytes, hash);
        await file.truncate(head.startBytes + chunks * SEALED_CHUNK_BYTES);
        return new SnapshotFileWriter(path, file, head, hash, chunks);
      }
    } catch {
      // It was worth a try: the transmission begins anew.
    }
    await file.close();
    return undefined;
  }

  get sizeBytes(): number {
    return this.#chunks * CHUNK_BYTES + this.#buffered;
  }

  async append(bytes: Uint8Array): Promise<void> {
    let at = 0;
    while (at < bytes.length) {
      const count = Math.min(bytes.length - at, CHUNK_BYTES - this.#buffered);
      this.#buffer.set(bytes.subarray(at, at + count), this.#buffered);
      this.#buffered += count;
      at += count;
      if (this.#buffered === CHUNK_BYTES) await this.#writeChunk();
    }
  }

  /** Writes the end of it, and flushes all. @returns SHA-256 of the content. */
  async finish(): Promise<Buffer> {
    const sizeBytes = this.sizeBytes;
    if (this.#buffered > 0) await this.#writeChunk();
    const digest = this.#hash.digest();
    const trailer = encodeTrailer(sizeBytes, digest);
    const start = this.#startBytes + (this.#chunks - 1) * SEALED_CHUNK_BYTES;
    const lastBytes = sizeBytes - (this.#chunks - 1) * CHUNK_BYTES + SEALED_OVERHEAD_BYTES;
    const at = this.#chunks === 0 ? this.#startBytes : start + lastBytes;
    await this.#file.write(sealPart(this.#key, partName('trailer', this.#chunks), trailer), at);
    await this.#file.sync();
    await this.close();
    return digest;
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    await this.#file.close();
  }

  async #writeChunk(): Promise<void> {
    const plain = this.#buffer.subarray(0, this.#buffered);
    this.#hash.update(plain);
    const sealed = sealPart(this.#key, partName('chunk', this.#chunks), plain);
    await this.#file.write(sealed, this.#startBytes + this.#chunks * SEALED_CHUNK_BYTES);
    this.#chunks++;
    this.#buffered = 0;
    if (this.#chunks % SYNC_EVERY_CHUNKS === 0) await this.#file.sync();
  }
}

async function readWholeChunks(
  file: StorageFile,
  head: OpenedHead,
  sizeBytes: number,
  hash: Hash,
): Promise<number> {
  const most = Math.floor(sizeBytes / CHUNK_BYTES);
  let chunks = 0;
  while (chunks < most) {
    const at = head.startBytes + chunks * SEALED_CHUNK_BYTES;
    const sealed = await file.read(at, SEALED_CHUNK_BYTES);
    const plain =
      sealed.length === SEALED_CHUNK_BYTES
        ? openPart(head.key, partName('chunk', chunks), sealed)
        : undefined;
    if (plain === undefined) break;
    hash.update(plain);
    chunks++;
  }
  return chunks;
}

/** A finished snapshot, opened. */
export class SnapshotFileReader implements SnapshotReader {
  readonly meta: SnapshotMeta;
  readonly sizeBytes: number;
  readonly digest: Uint8Array;
  readonly keyId: string;
  readonly #path: string;
  readonly #file: StorageFile;
  readonly #head: OpenedHead;
  /** The chunk that was read last: small reads in a row take it once. */
  #chunk: { readonly number: number; readonly plain: Buffer } | undefined;

  private constructor(
    path: string,
    file: StorageFile,
    head: OpenedHead,
    sizeBytes: number,
    digest: Uint8Array,
  ) {
    this.meta = head.description.meta;
    this.sizeBytes = sizeBytes;
    this.digest = digest;
    this.keyId = head.keyId;
    this.#path = path;
    this.#file = file;
    this.#head = head;
  }

  /** @throws RaftStorageError RAFT_STORAGE_CORRUPT, RAFT_STORAGE_KEY, RAFT_STORAGE_SCHEMA */
  static async open(
    files: FileLayer,
    path: string,
    fileBytes: number,
    keys: KeySource,
  ): Promise<SnapshotFileReader> {
    const file = await files.open(path, 'read');
    try {
      const head = await readHead(file, path, keys);
      const trailerAt = fileBytes - TRAILER_BYTES - SEALED_OVERHEAD_BYTES;
      const content = contentBytes(trailerAt - head.startBytes);
      const sealed = await file.read(Math.max(0, trailerAt), TRAILER_BYTES + SEALED_OVERHEAD_BYTES);
      const chunks = Math.ceil((content ?? 0) / CHUNK_BYTES);
      const plain = openPart(head.key, partName('trailer', chunks), sealed);
      const trailer = plain === undefined ? undefined : decodeTrailer(plain);
      if (trailer === undefined || trailer.sizeBytes !== content)
        throw corrupt(path, Math.max(0, trailerAt), 'the end of the snapshot is damaged');
      return new SnapshotFileReader(path, file, head, trailer.sizeBytes, trailer.digest);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async read(offsetBytes: number, lengthBytes: number): Promise<Uint8Array> {
    const end = Math.min(offsetBytes + lengthBytes, this.sizeBytes);
    const parts: Buffer[] = [];
    let at = offsetBytes;
    while (at < end) {
      const number = Math.floor(at / CHUNK_BYTES);
      const plain = await this.#readChunk(number);
      const start = at - number * CHUNK_BYTES;
      const part = plain.subarray(start, Math.min(plain.length, end - number * CHUNK_BYTES));
      parts.push(part);
      at += part.length;
    }
    return parts.length === 1 ? (parts[0] as Buffer) : Buffer.concat(parts);
  }

  /** Reads all of it. @throws RaftStorageError RAFT_STORAGE_CORRUPT */
  async verify(): Promise<void> {
    const hash = createHash('sha256');
    for (let at = 0; at < this.sizeBytes; at += CHUNK_BYTES)
      hash.update(await this.read(at, CHUNK_BYTES));
    if (!hash.digest().equals(this.digest))
      throw corrupt(this.#path, 0, 'the content of the snapshot is damaged');
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  async #readChunk(number: number): Promise<Buffer> {
    if (this.#chunk?.number === number) return this.#chunk.plain;
    const plainBytes = Math.min(CHUNK_BYTES, this.sizeBytes - number * CHUNK_BYTES);
    const at = this.#head.startBytes + number * SEALED_CHUNK_BYTES;
    const sealed = await this.#file.read(at, plainBytes + SEALED_OVERHEAD_BYTES);
    const plain = openPart(this.#head.key, partName('chunk', number), sealed);
    if (plain === undefined) throw corrupt(this.#path, at, 'the snapshot is damaged');
    this.#chunk = { number, plain };
    return plain;
  }
}
