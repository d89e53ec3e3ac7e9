import { saveIdentity } from '../identity/index.js';
import { savedBy } from './manager-disk.js';
import type { ManagerGroup } from './manager-group.js';
import { secretsOf } from './manager-scope.js';

/** After a failure, such as a full disk: a lock that was decided must come about. */
const RETRY_MS = 1_000;

/**
 * Keeps the lock of this manager's disk what the swarm has decided: autolock on or off, and which
 * key. What earlier keys have sealed is replaced by a snapshot, and the keys are forgotten.
 */
export class ManagerLock {
  readonly #group: ManagerGroup;
  #key: string | undefined;
  /** Whether all that lies on the disk is known to be kept by the lock as it is. */
  #settled = false;
  #running: Promise<void> | undefined;
  #again = false;
  #retry: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(group: ManagerGroup, unlockKey: string | undefined) {
    this.#group = group;
    this.#key = unlockKey;
  }

  /** The secrets of the swarm may have changed. */
  follow(): void {
    if (this.#closed) return;
    if (this.#running !== undefined) {
      this.#again = true;
      return;
    }
    this.#running = this.#apply()
      .catch((error: unknown) => {
        this.#group.place.log.error({ err: error }, 'the lock of the disk was not changed yet');
        if (this.#closed) return;
        clearTimeout(this.#retry);
        this.#retry = setTimeout(() => this.follow(), RETRY_MS);
        this.#retry.unref();
      })
      .finally(() => {
        this.#running = undefined;
        if (!this.#again) return;
        this.#again = false;
        this.follow();
      });
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retry);
    await this.#running;
  }

  async #apply(): Promise<void> {
    const { vault, storage, replica, place } = this.#group;
    const wanted = secretsOf(this.#group).unlockKey;
    if (wanted !== this.#key) {
      this.#settled = false;
      await vault.lock(wanted);
      this.#key = wanted;
      place.log.info({ autolock: wanted !== undefined }, 'the lock of the disk was changed');
    }
    // Also what a manager that was killed in the middle has left undone.
    if (this.#settled) return;
    await saveIdentity(place.dataDir, this.#group.identity, savedBy(vault));
    await vault.forgetNodeKeys();
    if (vault.keyIds().length === 1) {
      this.#settled = true;
      return;
    }
    if (this.#closed) return;
    // Whatever lies on the disk is sealed with the new keys from here on.
    await replica.raft.snapshot();
    const used = storage.keyIds();
    const { id } = vault.currentKey();
    await vault.forget(vault.keyIds().filter((one) => one !== id && !used.has(one)));
    this.#settled = true;
  }
}
