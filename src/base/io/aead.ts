import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';

/** AES-256-GCM, RFC 5116: bytes of its tag. */
export const AEAD_TAG_BYTES = 16;

const CIPHER = 'aes-256-gcm';

/** Where things lie in a sealed message: a header, of which the first bytes are authenticated; the ciphertext; the tag. */
export interface AeadShape {
  readonly headerBytes: number;
  readonly authenticatedBytes: number;
}

/** Fills in ciphertext and tag behind the header, which is there. `nonce`: 12 bytes, never twice with a key. */
export function sealAead(
  message: Buffer,
  shape: AeadShape,
  key: KeyObject,
  nonce: Uint8Array,
  plain: Uint8Array,
): void {
  const cipher = createCipheriv(CIPHER, key, nonce);
  cipher.setAAD(message.subarray(0, shape.authenticatedBytes));
  message.set(cipher.update(plain), shape.headerBytes);
  cipher.final();
  message.set(cipher.getAuthTag(), message.length - AEAD_TAG_BYTES);
}

/** @returns The plain text; `undefined` for what this key has not sealed. `message` is no shorter than header and tag. */
export function openAead(
  message: Buffer,
  shape: AeadShape,
  key: KeyObject,
  nonce: Uint8Array,
): Buffer | undefined {
  const end = message.length - AEAD_TAG_BYTES;
  const decipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: AEAD_TAG_BYTES });
  decipher.setAAD(message.subarray(0, shape.authenticatedBytes));
  decipher.setAuthTag(message.subarray(end));
  const plain = decipher.update(message.subarray(shape.headerBytes, end));
  try {
    decipher.final();
  } catch {
    return undefined;
  }
  return plain;
}
