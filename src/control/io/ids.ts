import { randomBytes } from 'node:crypto';

const ID_CHARS = 25;

/** An id of a swarm-scoped object: 25 characters of `[0-9a-z]`, 128 random bits, as Docker's are. */
export function newId<Id extends string>(): Id {
  let value = 0n;
  for (const byte of randomBytes(16)) value = (value << 8n) | BigInt(byte);
  return value.toString(36).padStart(ID_CHARS, '0') as Id;
}
