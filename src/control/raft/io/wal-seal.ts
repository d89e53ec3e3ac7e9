import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import { TAG_BYTES } from '../wire/wal-frame.js';

/** A data encryption key of this manager. */
export interface StorageKey {
  /** 16 hexadecimal digits. */
  readonly id: string;
  /** 32 bytes. */
  readonly secret: Uint8Array;
}

/** Where the storage has its keys from; `Vault` is one. */
export interface KeySource {
  /** For what is written from now on. @throws RaftStorageError RAFT_STORAGE_LOCKED */
  currentKey(): StorageKey;
  keyById(id: string): StorageKey | undefined;
}

export const NONCE_BYTES = 12;

/**
 * Every file has a key of its own, made of the data key and the file's random salt. So a counter is enough
 * for a nonce in it, whatever became of earlier files.
 */
export function fileKey(key: StorageKey, salt: Uint8Array, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', key.secret, salt, `shoal ${purpose}`, 32));
}

/** @returns How many bytes were written: those of `plain`, and the tag. */
export function sealInto(
  target: Buffer,
  offset: number,
  key: Uint8Array,
  nonce: Uint8Array,
  bound: Uint8Array,
  plain: readonly Uint8Array[],
): number {
  const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  cipher.setAAD(bound);
  let at = offset;
  for (const part of plain) {
    target.set(cipher.update(part), at);
    at += part.length;
  }
  cipher.final();
  target.set(cipher.getAuthTag(), at);
  return at + TAG_BYTES - offset;
}

/** @param sealed With the tag at its end. @returns `undefined`: not sealed with this, or damaged. */
export function openSealed(
  key: Uint8Array,
  nonce: Uint8Array,
  bound: Uint8Array,
  sealed: Uint8Array,
): Buffer | undefined {
  if (sealed.length < TAG_BYTES) return undefined;
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES });
  decipher.setAAD(bound);
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES));
  const plain = decipher.update(sealed.subarray(0, sealed.length - TAG_BYTES));
  try {
    decipher.final();
    return plain;
  } catch {
    return undefined;
  }
}

/** Of the frame with this number, in a file that has its own key. */
export function frameNonce(counter: number): Buffer {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeUInt32BE(counter, NONCE_BYTES - 4);
  return nonce;
}
