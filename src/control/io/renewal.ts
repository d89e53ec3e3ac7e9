import type { TLSSocket } from 'node:tls';
import { SwarmError } from '../../base/swarm-error.js';
import type { NodeRole } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import {
  adoptTrust,
  type NodeIdentity,
  renewalReason,
  renewIdentity,
  rotationDelayMs,
  type SaveOptions,
  saveIdentity,
  showsNewRoot,
} from '../identity/index.js';
import type { ControlAddress } from '../wire/model.js';

/** After a renewal the next waits so long; after one that changed nothing, or failed, another is asked. */
const RETRY_MS = 2_000;
const RETRY_SOON_MS = 500;

export interface RenewalConfig {
  readonly identity: NodeIdentity;
  readonly dataDir: string;
  readonly log: Logger;
  readonly saveOptions: () => SaveOptions;
  /** While the node is a manager it keeps a manager's certificate, whatever is wished. */
  readonly isManager: () => boolean;
  /** What the managers have told: the node's role, and the roots to be trusted. */
  readonly told: () => { readonly role: NodeRole | undefined; readonly caPem: string } | undefined;
  /** Whom to ask, the likeliest first. */
  readonly remotes: () => readonly ControlAddress[];
  /** Nodes of the swarm, among which the renewals of a rotation are spread. */
  readonly nodes: () => number;
}

/** A node's certificate, renewed when it is old, when the node's role changes, and when the root does. */
export class Renewal {
  readonly #config: RenewalConfig;
  readonly #fraction = Math.random();
  readonly #listeners = new Set<(identity: NodeIdentity) => void>();
  #identity: NodeIdentity;
  #renewing: Promise<void> | undefined;
  #saving: Promise<void> = Promise.resolve();
  #notBeforeMs = 0;
  #turn = 0;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  constructor(config: RenewalConfig) {
    this.#config = config;
    this.#identity = config.identity;
  }

  get identity(): NodeIdentity {
    return this.#identity;
  }

  onIdentity(listener: (identity: NodeIdentity) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Before a connection. @throws SwarmError the manager's refusal; one that cannot be asked matters only after expiry. */
  async credentials(remote: ControlAddress): Promise<NodeIdentity> {
    if (this.#reason() !== undefined && Date.now() >= this.#notBeforeMs) await this.#renew(remote);
    return this.#identity;
  }

  /** True: the manager showed a root that is new to this node, which has a certificate by it now. */
  async renewedFor(socket: TLSSocket, remote: ControlAddress): Promise<boolean> {
    if (!showsNewRoot(this.#identity, socket) || Date.now() < this.#notBeforeMs) return false;
    const before = this.#identity;
    await this.#renew(remote);
    return this.#identity !== before;
  }

  /** Something may have made a renewal due; a rotation's are spread over a while. */
  look(): void {
    void this.#adopt();
    const reason = this.#reason();
    if (reason === undefined || this.#timer !== undefined || this.#stopped) return;
    const spreadMs = reason === 'root' ? rotationDelayMs(this.#config.nodes(), this.#fraction) : 0;
    const waitMs = Math.max(spreadMs, this.#notBeforeMs - Date.now(), 0);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.#renewSomewhere().finally(() => this.look());
    }, waitMs);
    this.#timer.unref();
  }

  async #renewSomewhere(): Promise<void> {
    const remotes = this.#config.remotes();
    const remote = remotes[this.#turn++ % Math.max(1, remotes.length)];
    if (remote === undefined) return;
    const before = this.#identity;
    try {
      await this.#renew(remote);
    } catch (error) {
      this.#config.log.warn({ remote, err: error }, 'certificate was refused');
    }
    if (this.#identity !== before) this.#turn = 0;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async finished(): Promise<void> {
    await this.#renewing?.catch(() => {});
  }

  #reason(): 'role' | 'root' | 'age' | undefined {
    const told = this.#config.told();
    const kept = told?.role === 'worker' && this.#config.isManager();
    return renewalReason(this.#identity, {
      nowMs: Date.now(),
      fraction: this.#fraction,
      role: kept ? undefined : told?.role,
      caPem: told?.caPem,
    });
  }

  /** Roots that a manager tells in a session are trusted at once; a certificate by them may come later. */
  async #adopt(): Promise<void> {
    const caPem = this.#config.told()?.caPem;
    if (caPem === undefined || caPem === this.#identity.caPem) return;
    const adopted = adoptTrust(this.#identity, caPem);
    if (adopted === undefined) return;
    this.#identity = adopted;
    this.#saving = this.#saving.then(async () => {
      if (this.#identity !== adopted) return;
      await saveIdentity(this.#config.dataDir, adopted, this.#config.saveOptions());
    });
    await this.#saving.catch(() => {});
  }

  #renew(remote: ControlAddress): Promise<void> {
    this.#renewing ??= this.#ask(remote).finally(() => {
      this.#renewing = undefined;
      const retryMs = this.#reason() === undefined ? RETRY_MS : RETRY_SOON_MS;
      this.#notBeforeMs = Date.now() + retryMs;
    });
    return this.#renewing;
  }

  async #ask(remote: ControlAddress): Promise<void> {
    const { log, dataDir, saveOptions } = this.#config;
    try {
      // What is being saved has the certificate of before.
      await this.#saving.catch(() => {});
      this.#identity = await renewIdentity(this.#identity, remote, dataDir, saveOptions());
      const { expiresAtMs, role } = this.#identity;
      log.info({ expiresAtMs, role }, 'certificate renewed');
    } catch (error) {
      if (error instanceof SwarmError && error.code !== 'SWARM_NO_MANAGER') throw error;
      log.warn({ remote, err: error }, 'certificate not renewed yet');
      return;
    }
    if (this.#stopped) return;
    for (const listener of this.#listeners) listener(this.#identity);
  }
}
