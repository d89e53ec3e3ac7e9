import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ASSIGNMENTS_NAME } from '../dispatch/index.js';
import { removeIdentity } from '../identity/index.js';
import { STORE_FOLDER } from './manager-disk.js';

/** Removes all that the control plane keeps in `dataDir`: after a leave, and before joining anew. */
export async function forgetSwarm(dataDir: string): Promise<void> {
  // The identity first: without it nothing of the rest is ever used.
  await removeIdentity(dataDir);
  await rm(join(dataDir, ASSIGNMENTS_NAME), { force: true });
  await rm(join(dataDir, STORE_FOLDER), { recursive: true, force: true });
}
