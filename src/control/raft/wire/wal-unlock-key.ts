/** The key that opens a locked manager, as people keep it: Docker's form of 32 random bytes. */
const PREFIX = 'SWMKEY-1-';
export const UNLOCK_KEY_BYTES = 32;

/** @param bytes 32 of them. */
export function formatUnlockKey(bytes: Uint8Array): string {
  return PREFIX + Buffer.from(bytes).toString('base64').replace('=', '');
}

/** `undefined`: not such a key. White space around it is of copying. */
export function parseUnlockKey(text: string): Buffer | undefined {
  const trimmed = text.trim();
  const bytes = Buffer.from(trimmed.slice(PREFIX.length), 'base64');
  // The one way to write it, so that a mistyped last character is seen.
  return bytes.length === UNLOCK_KEY_BYTES && formatUnlockKey(bytes) === trimmed
    ? bytes
    : undefined;
}
