import { createPrivateKey, type KeyObject, webcrypto } from 'node:crypto';
import type { X509Certificate as ParsedCertificate } from '@peculiar/x509';

/** Only where certificates are made: it takes 19 MB, which workers need not spend. */
export async function loadX509() {
  // The library reads metadata while it is loaded, so this comes first.
  await import('reflect-metadata');
  return import('@peculiar/x509');
}

export type X509 = Awaited<ReturnType<typeof loadX509>>;

/** Whole seconds: RFC 5280 §4.1.2.5 allows no fractions. */
export function wholeSeconds(ms: number): Date {
  return new Date(Math.floor(ms / 1_000) * 1_000);
}

export function pemOf(certificate: ParsedCertificate): string {
  return `${certificate.toString('pem')}\n`;
}

const RSA_BITS_MIN = 2_048;
const CURVES: Readonly<Record<string, { readonly namedCurve: string; readonly hash: string }>> = {
  prime256v1: { namedCurve: 'P-256', hash: 'SHA-256' },
  secp384r1: { namedCurve: 'P-384', hash: 'SHA-384' },
  secp521r1: { namedCurve: 'P-521', hash: 'SHA-512' },
};

export interface Signer {
  readonly signingKey: webcrypto.CryptoKey;
  readonly signingAlgorithm: { readonly name: string; readonly hash: string };
}

function algorithmOf(
  key: KeyObject,
): { name: string; hash: string; namedCurve?: string } | undefined {
  const { namedCurve = '', modulusLength = 0 } = key.asymmetricKeyDetails ?? {};
  if (key.asymmetricKeyType === 'rsa' && modulusLength >= RSA_BITS_MIN)
    return { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' };
  const curve = key.asymmetricKeyType === 'ec' ? CURVES[namedCurve] : undefined;
  return curve && { name: 'ECDSA', ...curve };
}

/** Whether certificates can be signed with it: ECDSA on a NIST curve, or RSA from 2048 bits. */
export function canSign(key: KeyObject): boolean {
  return algorithmOf(key) !== undefined;
}

/** @throws Error for a key that `canSign` does not know. */
export async function signerOf(keyPem: string): Promise<Signer> {
  const key = createPrivateKey(keyPem);
  const algorithm = algorithmOf(key);
  if (algorithm === undefined) throw new Error('not a key that certificates are signed with');
  const { name, hash } = algorithm;
  const pkcs8 = key.export({ format: 'der', type: 'pkcs8' });
  const signingKey = await webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, false, ['sign']);
  return { signingKey, signingAlgorithm: { name, hash } };
}
