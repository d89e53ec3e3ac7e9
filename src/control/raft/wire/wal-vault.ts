/**
 * The key file of a manager: JSON, of version 1. Each key is in the clear (`key`) or sealed (`sealed`: nonce,
 * ciphertext, tag) with what the unlock key and `lock.salt` give; all of a file are one or the other. The newest
 * key is the last.
 */
export const VAULT_VERSION = 1;
const SALT_BYTES = 16;
const KEY_BYTES = 32;
const SEALED_BYTES = 12 + KEY_BYTES + 16;
/** A key goes when nothing is sealed with it any more; this many are never in use at once. */
export const KEYS_MAX = 64;

export interface VaultKey {
  /** 16 hexadecimal digits. */
  readonly id: string;
  /** 32 bytes, or 60 sealed ones. */
  readonly bytes: Buffer;
}

export interface VaultFile {
  /** 16 bytes; `undefined`: the keys are in the clear. */
  readonly salt: Buffer | undefined;
  readonly dataKeys: readonly VaultKey[];
  readonly nodeKeys: readonly VaultKey[];
}

export type VaultFileRead =
  | { readonly kind: 'vault'; readonly vault: VaultFile }
  | { readonly kind: 'newer'; readonly version: number }
  | { readonly kind: 'damaged' };

export function encodeVault({ salt, dataKeys, nodeKeys }: VaultFile): string {
  const keys = (list: readonly VaultKey[]) =>
    list.map(({ id, bytes }) => ({
      id,
      [salt === undefined ? 'key' : 'sealed']: bytes.toString('base64'),
    }));
  const content = {
    version: VAULT_VERSION,
    lock: salt === undefined ? null : { salt: salt.toString('base64') },
    dataKeys: keys(dataKeys),
    nodeKeys: keys(nodeKeys),
  };
  return `${JSON.stringify(content, undefined, 2)}\n`;
}

export function decodeVault(text: string): VaultFileRead {
  const content = parseObject(text);
  const version = content?.['version'];
  if (content === undefined || typeof version !== 'number') return { kind: 'damaged' };
  if (version > VAULT_VERSION) return { kind: 'newer', version };
  const { lock } = content as { lock?: unknown };
  const salt = lock === null ? undefined : bytesOf((lock as Fields | undefined)?.['salt']);
  const field = salt === undefined ? 'key' : 'sealed';
  const dataKeys = keysOf(content['dataKeys'], field);
  const nodeKeys = keysOf(content['nodeKeys'], field);
  const lockWhole = lock === null || salt?.length === SALT_BYTES;
  if (!lockWhole || dataKeys === undefined || nodeKeys === undefined) return { kind: 'damaged' };
  return { kind: 'vault', vault: { salt, dataKeys, nodeKeys } };
}

type Fields = Readonly<Record<string, unknown>>;

function parseObject(text: string): Fields | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? (value as Fields) : undefined;
  } catch {
    return undefined;
  }
}

function bytesOf(value: unknown): Buffer | undefined {
  return typeof value === 'string' ? Buffer.from(value, 'base64') : undefined;
}

function keysOf(list: unknown, field: 'key' | 'sealed'): VaultKey[] | undefined {
  if (!Array.isArray(list) || list.length === 0 || list.length > KEYS_MAX) return undefined;
  const keys: VaultKey[] = [];
  for (const item of list as readonly (Fields | null)[]) {
    const id = item?.['id'];
    const bytes = bytesOf(item?.[field]);
    const wanted = field === 'key' ? KEY_BYTES : SEALED_BYTES;
    if (typeof id !== 'string' || !/^[0-9a-f]{16}$/.test(id)) return undefined;
    if (bytes?.length !== wanted) return undefined;
    keys.push({ id, bytes });
  }
  return keys;
}
