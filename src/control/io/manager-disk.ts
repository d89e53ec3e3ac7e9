import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import type { Logger } from '../core/logger.js';
import type { LoadOptions, SaveOptions } from '../identity/index.js';
import { type DiskStorage, openRaftStorage, Vault } from '../raft/index.js';
import { makePrivateFolder, readFileIfAny, writeFileAtomic } from './files.js';

/** Folder of the replicated state inside the data folder. */
export const STORE_FOLDER = 'control';
const MEMBER_FILE = 'member.json';
const KEY_PURPOSE = 'node-key';

const memberSchema = z.object({
  schema: z.literal(1),
  raftId: z.int().min(1),
  /** Raised when the swarm was made anew of this manager's copy. */
  era: z.int().min(0),
});

/** Which member of the raft group this manager is; it never changes, and is never used twice. */
export type MemberFile = z.infer<typeof memberSchema>;

const folderOf = (dataDir: string) => join(dataDir, STORE_FOLDER);

const vaultPath = (dataDir: string) => join(dataDir, 'identity', 'raft-keys.json');

export function openVault(dataDir: string, unlockKey?: string): Promise<Vault> {
  return Vault.open(vaultPath(dataDir), unlockKey);
}

export function openStorage(dataDir: string, keys: Vault, log: Logger): Promise<DiskStorage> {
  return openRaftStorage({ dir: folderOf(dataDir), keys, log });
}

/** A number below 2^47 that no other member has, as good as certainly. */
export function newRaftId(): number {
  return 1 + (randomBytes(6).readUIntBE(0, 6) % (2 ** 47 - 1));
}

/** `undefined`: this node is no manager, or was one of an earlier form. */
export async function readMember(dataDir: string): Promise<MemberFile | undefined> {
  const bytes = await readFileIfAny(join(folderOf(dataDir), MEMBER_FILE));
  if (bytes === undefined) return undefined;
  try {
    return memberSchema.safeParse(JSON.parse(bytes.toString())).data;
  } catch {
    return undefined;
  }
}

export async function writeMember(dataDir: string, member: MemberFile): Promise<void> {
  await makePrivateFolder(folderOf(dataDir));
  await writeFileAtomic(join(folderOf(dataDir), MEMBER_FILE), `${JSON.stringify(member)}\n`);
}

/** The copy of the state is of no use any more: this node is no manager, or begins anew. */
export async function removeState(dataDir: string): Promise<void> {
  await rm(folderOf(dataDir), { recursive: true, force: true });
}

/** After the node's key was saved without it. */
export async function removeVault(dataDir: string): Promise<void> {
  await rm(vaultPath(dataDir), { force: true });
}

/** How the node's private key is kept: sealed while autolock is on. */
export function savedBy(vault: Vault | undefined): SaveOptions {
  if (vault === undefined || !vault.autolock) return {};
  return { wrap: (seed) => Buffer.from(vault.wrapSecret(KEY_PURPOSE, seed)) };
}

export function loadedBy(vault: Vault | undefined): LoadOptions {
  if (vault === undefined || vault.locked) return { unwrap: undefined };
  return {
    unwrap: (wrapped) => {
      try {
        return vault.unwrapSecret(KEY_PURPOSE, Buffer.from(wrapped).toString());
      } catch {
        return undefined;
      }
    },
  };
}
