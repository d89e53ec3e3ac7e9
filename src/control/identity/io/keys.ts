import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { type CertificateRequest, requestStatement } from '../wire/ca-messages.js';

/** PKCS #8 and SubjectPublicKeyInfo of Ed25519 (RFC 8410) before the 32 bytes of key. */
const PRIVATE_PREFIX = Buffer.from('302e020100300506032b657004220420', 'hex');
const PUBLIC_PREFIX = Buffer.from('302a300506032b6570032100', 'hex');
const KEY_BYTES = 32;

/** The Ed25519 key of which `seed` (32 bytes) is all there is. */
export function privateKeyOf(seed: Uint8Array): KeyObject {
  return createPrivateKey({
    key: Buffer.concat([PRIVATE_PREFIX, seed]),
    format: 'der',
    type: 'pkcs8',
  });
}

/** The 32 bytes of its public half. */
export function rawPublicKeyOf(seed: Uint8Array): Buffer {
  const spki = createPublicKey(privateKeyOf(seed)).export({ format: 'der', type: 'spki' });
  return spki.subarray(PUBLIC_PREFIX.length);
}

export function spkiOf(rawPublicKey: Uint8Array): Buffer {
  return Buffer.concat([PUBLIC_PREFIX, rawPublicKey]);
}

export function makeRequest(seed: Uint8Array, caDigest: string): CertificateRequest {
  const publicKey = rawPublicKeyOf(seed).toString('base64');
  const statement = Buffer.from(requestStatement(caDigest, publicKey));
  return { publicKey, proof: sign(null, statement, privateKeyOf(seed)).toString('base64') };
}

/** The public key of the request, 32 bytes, if its asker holds the private half. */
export function checkRequest(request: CertificateRequest, caDigest: string): Buffer | undefined {
  const raw = Buffer.from(request.publicKey, 'base64');
  if (raw.length !== KEY_BYTES) return undefined;
  try {
    const key = createPublicKey({ key: spkiOf(raw), format: 'der', type: 'spki' });
    // The text that is signed holds the canonical form only.
    const statement = Buffer.from(requestStatement(caDigest, raw.toString('base64')));
    const proven = verify(null, statement, key, Buffer.from(request.proof, 'base64'));
    return proven ? raw : undefined;
  } catch {
    return undefined;
  }
}
