import { hkdfSync, randomBytes } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { makePrivateFolder, readFileIfAny, writeFileAtomic } from '../../io/files.js';
import { corrupt, diskFull, locked, newerSchema, wrongKey } from '../core/wal-error.js';
import { formatUnlockKey, parseUnlockKey, UNLOCK_KEY_BYTES } from '../wire/wal-unlock-key.js';
import {
  decodeVault,
  encodeVault,
  KEYS_MAX,
  type VaultFile,
  type VaultKey,
} from '../wire/wal-vault.js';
import { isSpaceError } from './wal-files.js';
import { type KeySource, NONCE_BYTES, openSealed, type StorageKey, sealInto } from './wal-seal.js';

const KEY_BYTES = 32;
const ID_BYTES = 8;
const SALT_BYTES = 16;
const SEALED_OVERHEAD_BYTES = NONCE_BYTES + 16;

export function generateUnlockKey(): string {
  return formatUnlockKey(randomBytes(UNLOCK_KEY_BYTES));
}

/** What a lock is made of: the key that the keys are sealed with, and where it comes from. */
interface Lock {
  readonly salt: Buffer;
  readonly keyEncryptionKey: Buffer;
}

/** The keys in the clear; newest last. */
interface OpenKeys {
  readonly dataKeys: readonly VaultKey[];
  readonly nodeKeys: readonly VaultKey[];
}

/**
 * The keys of one manager, in one file: data keys, with which log and snapshots are sealed, and node keys, with
 * which other files of the node are (`wrapSecret`). With autolock on, they are sealed with a key made of the
 * unlock key, which is nowhere on this node; without, they are in the clear, and only the file's mode protects
 * them, as with Docker.
 *
 * Every change replaces the one file, so at any moment exactly one unlock key (or none) opens everything: also
 * the node's own secrets, whose files need not change with it.
 */
export class Vault implements KeySource {
  readonly #path: string;
  #file: VaultFile;
  #keys: OpenKeys | undefined;
  #lock: Lock | undefined;
  /** Changes, one after another. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(
    path: string,
    file: VaultFile,
    keys: OpenKeys | undefined,
    lock: Lock | undefined,
  ) {
    this.#path = path;
    this.#file = file;
    this.#keys = keys;
    this.#lock = lock;
  }

  /**
   * Reads the file, or makes a new one.
   *
   * @param unlockKey Locks a new one from the start, so that its keys are never on disk in the clear; one that
   * exists is not opened with it.
   * @throws RaftStorageError RAFT_STORAGE_CORRUPT, RAFT_STORAGE_SCHEMA, RAFT_STORAGE_KEY, RAFT_STORAGE_FULL
   */
  static async open(path: string, unlockKey?: string): Promise<Vault> {
    await makePrivateFolder(dirname(path));
    await removeLeftOvers(path);
    const bytes = await readFileIfAny(path);
    if (bytes === undefined) {
      const lock = unlockKey === undefined ? undefined : makeLock(path, unlockKey);
      const keys = { dataKeys: [newKey()], nodeKeys: [newKey()] };
      const file = sealKeys(keys, lock);
      await replace(path, file);
      return new Vault(path, file, keys, lock);
    }
    const read = decodeVault(bytes.toString());
    if (read.kind === 'newer') throw newerSchema(path, read.version);
    if (read.kind === 'damaged') throw corrupt(path, 0, 'the keys are damaged');
    const { vault } = read;
    return new Vault(path, vault, vault.salt === undefined ? vault : undefined, undefined);
  }

  /** Whether it must be opened with `unlock` before there are any keys. */
  get locked(): boolean {
    return this.#keys === undefined;
  }

  /** Whether a restart will need the unlock key. */
  get autolock(): boolean {
    return this.#file.salt !== undefined;
  }

  /** @throws RaftStorageError RAFT_STORAGE_KEY: not the key, or not a key; nothing was changed. */
  unlock(unlockKey: string): void {
    const { salt } = this.#file;
    if (salt === undefined) return;
    const lock = makeLock(this.#path, unlockKey, salt);
    this.#keys = {
      dataKeys: this.#openKeys('data', this.#file.dataKeys, lock),
      nodeKeys: this.#openKeys('node', this.#file.nodeKeys, lock),
    };
    this.#lock = lock;
  }

  /** @throws RaftStorageError RAFT_STORAGE_LOCKED */
  currentKey(): StorageKey {
    return newestOf(this.#opened().dataKeys);
  }

  keyById(id: string): StorageKey | undefined {
    const key = this.#opened().dataKeys.find((one) => one.id === id);
    return key === undefined ? undefined : { id, secret: key.bytes };
  }

  /** Of the data keys, oldest first. */
  keyIds(): string[] {
    return this.#opened().dataKeys.map(({ id }) => id);
  }

  /**
   * A new data key for what is written from now on. The earlier ones stay until they are forgotten: when a
   * snapshot has covered all that they sealed, which `DiskStorage.keyIds` says. With `KEYS_MAX` of them there is
   * no new one.
   */
  rotate(): Promise<StorageKey> {
    return this.#change(({ dataKeys, nodeKeys }) => ({
      keys: { dataKeys: withNew(dataKeys), nodeKeys },
      lock: this.#lock,
    })).then(() => this.currentKey());
  }

  /** What was sealed with these can never be read again. The current one stays in any case. */
  forget(ids: Iterable<string>): Promise<void> {
    const gone = new Set(ids);
    return this.#change(({ dataKeys, nodeKeys }) => {
      const current = newestOf(dataKeys).id;
      const kept = dataKeys.filter(({ id }) => id === current || !gone.has(id));
      if (kept.length === dataKeys.length) return undefined;
      return { keys: { dataKeys: kept, nodeKeys }, lock: this.#lock };
    });
  }

  /**
   * Seals the keys with another unlock key from now on, or (`undefined`) with none. A vault that had no lock
   * gets new keys along with it, since the earlier ones were on disk in the clear: a snapshot should follow, and
   * secrets be wrapped anew.
   * @throws RaftStorageError RAFT_STORAGE_KEY (not an unlock key), RAFT_STORAGE_LOCKED, RAFT_STORAGE_FULL
   */
  lock(unlockKey: string | undefined): Promise<void> {
    return this.#change(({ dataKeys, nodeKeys }) => {
      if (unlockKey === undefined) return { keys: { dataKeys, nodeKeys }, lock: undefined };
      const lock = makeLock(this.#path, unlockKey);
      const exposed = this.#lock === undefined;
      const keys = exposed
        ? { dataKeys: withNew(dataKeys), nodeKeys: withNew(nodeKeys) }
        : { dataKeys, nodeKeys };
      return { keys, lock };
    });
  }

  /**
   * Seals a secret of this node, such as the private key of its certificate.
   *
   * @param purpose What `unwrapSecret` must be told as well.
   * @returns A line of text for a file.
   */
  wrapSecret(purpose: string, secret: Uint8Array): string {
    const { id, secret: key } = newestOf(this.#opened().nodeKeys);
    return `${id}.${seal(key, `secret ${purpose}`, secret).toString('base64')}`;
  }

  /** @throws RaftStorageError RAFT_STORAGE_KEY: wrapped by another vault, or for another purpose. */
  unwrapSecret(purpose: string, wrapped: string): Buffer {
    const [id = '', sealed = ''] = wrapped.split('.');
    const key = this.#opened().nodeKeys.find((one) => one.id === id);
    const bytes = Buffer.from(sealed, 'base64');
    const secret = key === undefined ? undefined : open(key.bytes, `secret ${purpose}`, bytes);
    if (secret === undefined)
      throw wrongKey(this.#path, `${this.#path} does not open the secret of this node`);
    return secret;
  }

  /** Whether it is sealed with the newest node key, so that the others are not needed for it. */
  isCurrent(wrapped: string): boolean {
    return wrapped.startsWith(`${newestOf(this.#opened().nodeKeys).id}.`);
  }

  /** To be called when all secrets of the node were wrapped anew. */
  forgetNodeKeys(): Promise<void> {
    return this.#change(({ dataKeys, nodeKeys }) =>
      nodeKeys.length === 1
        ? undefined
        : { keys: { dataKeys, nodeKeys: nodeKeys.slice(-1) }, lock: this.#lock },
    );
  }

  #opened(): OpenKeys {
    if (this.#keys === undefined) throw locked(this.#path);
    return this.#keys;
  }

  /** What holds in memory is what the file has: it changes when the file has. */
  #change(
    decide: (
      keys: OpenKeys,
    ) => { readonly keys: OpenKeys; readonly lock: Lock | undefined } | undefined,
  ): Promise<void> {
    const done = this.#changing.then(async () => {
      const next = decide(this.#opened());
      if (next === undefined) return;
      const file = sealKeys(next.keys, next.lock);
      await replace(this.#path, file);
      this.#file = file;
      this.#keys = next.keys;
      this.#lock = next.lock;
    });
    this.#changing = done.catch(() => {});
    return done;
  }

  #openKeys(kind: string, sealed: readonly VaultKey[], lock: Lock): VaultKey[] {
    return sealed.map(({ id, bytes }) => {
      const opened = open(lock.keyEncryptionKey, `${kind} key ${id}`, bytes);
      if (opened === undefined) throw wrongKey(this.#path, 'invalid key');
      return { id, bytes: opened };
    });
  }
}

function makeLock(path: string, unlockKey: string, salt: Buffer = randomBytes(SALT_BYTES)): Lock {
  const secret = parseUnlockKey(unlockKey);
  if (secret === undefined) throw wrongKey(path, 'invalid key');
  const derived = hkdfSync('sha256', secret, salt, 'shoal unlock key', KEY_BYTES);
  return { salt, keyEncryptionKey: Buffer.from(derived) };
}

function newKey(): VaultKey {
  return { id: randomBytes(ID_BYTES).toString('hex'), bytes: randomBytes(KEY_BYTES) };
}

/** Beyond the limit the oldest would go, which something may still be sealed with: so there is none. */
function withNew(keys: readonly VaultKey[]): readonly VaultKey[] {
  return keys.length < KEYS_MAX ? [...keys, newKey()] : keys;
}

function newestOf(keys: readonly VaultKey[]): StorageKey {
  const newest = keys[keys.length - 1] as VaultKey;
  return { id: newest.id, secret: newest.bytes };
}

function sealKeys(keys: OpenKeys, lock: Lock | undefined): VaultFile {
  if (lock === undefined) return { salt: undefined, ...keys };
  const sealAll = (kind: string, list: readonly VaultKey[]) =>
    list.map(({ id, bytes }) => ({
      id,
      bytes: seal(lock.keyEncryptionKey, `${kind} key ${id}`, bytes),
    }));
  return {
    salt: lock.salt,
    dataKeys: sealAll('data', keys.dataKeys),
    nodeKeys: sealAll('node', keys.nodeKeys),
  };
}

/** Key encryption keys and node keys seal little: random nonces will do. */
function seal(key: Uint8Array, name: string, plain: Uint8Array): Buffer {
  const sealed = Buffer.allocUnsafe(plain.length + SEALED_OVERHEAD_BYTES);
  const nonce = randomBytes(NONCE_BYTES);
  nonce.copy(sealed);
  sealInto(sealed, NONCE_BYTES, key, nonce, Buffer.from(name), [plain]);
  return sealed;
}

function open(key: Uint8Array, name: string, sealed: Buffer): Buffer | undefined {
  const nonce = sealed.subarray(0, NONCE_BYTES);
  return openSealed(key, nonce, Buffer.from(name), sealed.subarray(NONCE_BYTES));
}

/** A crash may have left a copy, with keys that are locked meanwhile. */
async function removeLeftOvers(path: string): Promise<void> {
  const prefix = `${basename(path)}.`;
  for (const name of await readdir(dirname(path)))
    if (name.startsWith(prefix) && name.endsWith('.tmp'))
      await rm(join(dirname(path), name), { force: true });
}

async function replace(path: string, file: VaultFile): Promise<void> {
  try {
    await writeFileAtomic(path, encodeVault(file));
  } catch (error) {
    throw isSpaceError(error) ? diskFull(path, error) : error;
  }
}
