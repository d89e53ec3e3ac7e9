/** `SWMTKN-1-`, the CA's SHA-256 in base 36, and a secret in base 36: Docker's form. */
const TOKEN = /^SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})$/;
const DIGEST_CHARS = 50;
const SECRET_CHARS = 25;
const DIGEST_BITS = 256n;

export interface JoinToken {
  /** SHA-256 of the CA certificate's DER, in hex. */
  readonly caDigest: string;
  readonly secret: string;
}

/** `undefined`: not a join token. */
export function parseJoinToken(text: string): JoinToken | undefined {
  const match = TOKEN.exec(text.trim());
  if (match === null) return undefined;
  let value = 0n;
  for (const char of match[1] ?? '') value = value * 36n + BigInt(Number.parseInt(char, 36));
  if (value >> DIGEST_BITS !== 0n) return undefined;
  return { caDigest: value.toString(16).padStart(64, '0'), secret: match[2] ?? '' };
}

export function formatJoinToken({ caDigest, secret }: JoinToken): string {
  return `SWMTKN-1-${BigInt(`0x${caDigest}`).toString(36).padStart(DIGEST_CHARS, '0')}-${secret}`;
}

/** A secret of 128 bits. @param random 16 random bytes. */
export function joinSecret(random: Uint8Array): string {
  let value = 0n;
  for (const byte of random.subarray(0, 16)) value = (value << 8n) | BigInt(byte);
  return value.toString(36).padStart(SECRET_CHARS, '0');
}
