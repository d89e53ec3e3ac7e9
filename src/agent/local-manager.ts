import { SwarmError } from '../base/swarm-error.js';
import type { NodeAvailability } from '../base/swarm-model.js';
import {
  type ControlAddress,
  createManager,
  forceNewGroup,
  forgetSwarm,
  identityOf,
  joinManagers,
  loadedBy,
  loadIdentity,
  type Manager,
  type ManagerCreation,
  type ManagerPlace,
  type NodeIdentity,
  type NodeRegistration,
  openManager,
  openVault,
  parseSnapshotFile,
  RaftStorageError,
  readMember,
  removeState,
  removeVault,
  restoreGroup,
  savedBy,
  saveIdentity,
  settleRecovered,
  type Vault,
} from '../control/index.js';
import { formatHostPort, type HostPort } from './addresses.js';
import type { Log } from './log.js';

export interface LocalManagerOptions {
  readonly dataDir: string;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
  /** Where gossip last heard of a node. */
  readonly addressHint: (nodeId: string) => string | undefined;
}

/** Where a manager listens, and what it tells the others. */
export interface ManagerAddresses {
  readonly listen: HostPort;
  readonly advertise: HostPort;
}

/** The manager on this node, while there is one, and the keys of its disk. */
export class LocalManager {
  readonly #options: LocalManagerOptions;
  readonly #listeners = new Set<(manager: Manager) => void>();
  #vault: Vault | undefined;
  #unlockKey: string | undefined;
  #manager: Manager | undefined;

  constructor(options: LocalManagerOptions) {
    this.#options = options;
  }

  get manager(): Manager | undefined {
    return this.#manager;
  }

  /** Called with the present manager, and with each one that there will be. */
  onManager(listener: (manager: Manager) => void): void {
    this.#listeners.add(listener);
    if (this.#manager !== undefined) listener(this.#manager);
  }

  #use(manager: Manager): void {
    this.#manager = manager;
    for (const listener of this.#listeners) listener(manager);
  }

  /** Where it can be reached from this very node. */
  address(listen: HostPort): ControlAddress | undefined {
    if (this.#manager === undefined) return undefined;
    return { ...listen, port: this.#manager.port };
  }

  /** How the node's key is kept: with the keys of the manager's disk while there is a manager. */
  saveOptions(): ReturnType<typeof savedBy> {
    return this.#manager === undefined ? {} : savedBy(this.#manager.group.vault);
  }

  /** Whether the keys are there and locked: nothing can be done before `unlock`. */
  async isLocked(): Promise<boolean> {
    this.#vault = await openVault(this.#options.dataDir);
    return this.#vault.locked;
  }

  /** @throws SwarmError `SWARM_UNLOCK_KEY_REFUSED`, `SWARM_NOT_LOCKED`. */
  unlock(key: string): void {
    if (this.#vault?.locked !== true)
      throw new SwarmError({ code: 'SWARM_NOT_LOCKED' }, 'swarm is not locked');
    try {
      this.#vault.unlock(key);
      this.#unlockKey = key;
    } catch (error) {
      if (!(error instanceof RaftStorageError) || error.code !== 'RAFT_STORAGE_KEY') throw error;
      throw new SwarmError(
        { code: 'SWARM_UNLOCK_KEY_REFUSED' },
        'the unlock key is not the one of this swarm: docker swarm unlock-key prints it on another manager',
      );
    }
  }

  /** Of a node that was a manager when it stopped; `undefined`: it is in no swarm. */
  async loadIdentity(): Promise<NodeIdentity | undefined> {
    const { dataDir } = this.#options;
    const loaded = await loadIdentity(dataDir, loadedBy(this.#vault));
    return loaded === undefined || 'locked' in loaded ? undefined : loaded;
  }

  async create(
    addresses: ManagerAddresses,
    creation: Omit<ManagerCreation, keyof ManagerPlace>,
  ): Promise<NodeIdentity> {
    const { manager, identity } = await createManager({ ...this.#place(addresses), ...creation });
    this.#use(manager);
    return identity;
  }

  /** @returns The identity, renewed if it had expired. */
  async open(addresses: ManagerAddresses, identity: NodeIdentity): Promise<NodeIdentity> {
    this.#vault ??= await openVault(this.#options.dataDir);
    const opened = await openManager({
      ...this.#place(addresses),
      identity,
      vault: this.#vault,
      unlockKey: this.#unlockKey,
    });
    this.#use(opened.manager);
    return opened.identity;
  }

  async join(
    addresses: ManagerAddresses,
    identity: NodeIdentity,
    remotes: readonly ControlAddress[],
    signal: AbortSignal,
  ): Promise<void> {
    const place = this.#place(addresses);
    this.#use(await joinManagers({ ...place, identity, remotes, signal }));
  }

  /** The node is a manager no more: nothing of it stays on the disk. */
  async end(identity: NodeIdentity): Promise<void> {
    await this.close();
    this.#vault = undefined;
    this.#unlockKey = undefined;
    await saveIdentity(this.#options.dataDir, identity);
    await removeState(this.#options.dataDir);
    await removeVault(this.#options.dataDir);
  }

  async close(): Promise<void> {
    const manager = this.#manager;
    this.#manager = undefined;
    await manager?.close();
  }

  /**
   * Goes on alone with what this node holds. The manager must be closed.
   * @throws SwarmError `SWARM_INVALID`: there is nothing to go on with.
   */
  async forceNew(
    addresses: ManagerAddresses,
    identity: NodeIdentity,
    registration: NodeRegistration,
  ): Promise<NodeIdentity> {
    const { dataDir, log } = this.#options;
    this.#vault ??= await openVault(dataDir);
    await forceNewGroup({
      dataDir,
      log,
      vault: this.#vault,
      nodeId: identity.nodeId,
      advertise: addresses.advertise,
    });
    return this.#settle(addresses, identity, registration);
  }

  /**
   * Goes on alone with what a snapshot file holds. The manager must be closed.
   * @param identity The node's own, if it is of the snapshot's swarm.
   */
  async restore(
    bytes: Uint8Array,
    addresses: ManagerAddresses,
    identity: NodeIdentity | undefined,
    registration: NodeRegistration,
  ): Promise<NodeIdentity> {
    const { dataDir, log } = this.#options;
    const file = parseSnapshotFile(bytes);
    const own = identity?.clusterId === file.head.clusterId ? identity : undefined;
    const era = (await readMember(dataDir))?.era ?? 0;
    const used = own ?? (await identityOf(file, Date.now()));
    if (own === undefined) {
      await forgetSwarm(dataDir);
      this.#vault = undefined;
    } else await removeState(dataDir);
    this.#vault ??= await openVault(dataDir);
    await saveIdentity(dataDir, used, savedBy(this.#vault));
    const { advertise } = addresses;
    const place = { dataDir, log, vault: this.#vault, nodeId: used.nodeId, advertise };
    await restoreGroup(place, file, era);
    return this.#settle(addresses, used, registration);
  }

  async #settle(
    addresses: ManagerAddresses,
    identity: NodeIdentity,
    registration: NodeRegistration,
  ): Promise<NodeIdentity> {
    const opened = await this.open(addresses, identity);
    const manager = this.manager;
    if (manager === undefined) return opened;
    const { raftId } = manager.group.member;
    const address = formatHostPort(manager.group.advertised);
    await settleRecovered(manager.scope, { raftId, address }, registration);
    return opened;
  }

  #place({ listen, advertise }: ManagerAddresses): ManagerPlace {
    const { dataDir, log, onFatal, addressHint } = this.#options;
    return {
      dataDir,
      listen,
      advertise,
      log: log.child({ part: 'control' }),
      onFatal,
      addressHint,
    };
  }
}

/** What a node says of itself to its managers. */
export type Register = (availability: NodeAvailability) => NodeRegistration;
