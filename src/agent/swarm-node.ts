import { discoveryLabel } from '../api/classic/index.js';
import type { InitRequest, JoinRequest, LocalSwarm } from '../api/index.js';
import { SwarmError } from '../base/swarm-error.js';
import type { NodeAvailability } from '../base/swarm-model.js';
import {
  forgetSwarm,
  JoinAttempt,
  loadIdentity,
  type Manager,
  ManagerSession,
  type NodeIdentity,
  type NodeRegistration,
  parseSnapshotFile,
} from '../control/index.js';
import { ActiveSwarm } from './active-swarm.js';
import { formatHostPort, type HostPort, localAddressOf, parseRemote } from './addresses.js';
import type { AgentConfig } from './config.js';
import { describeActive, NO_SWARM } from './describe-swarm.js';
import { hostAddresses, type StaticFacts } from './facts.js';
import { LocalManager } from './local-manager.js';
import type { Log } from './log.js';
import { ManagerRole } from './manager-role.js';
import type { NodeDocker } from './node-api.js';
import {
  type AddressWishes,
  type NodeAddresses,
  readdressed,
  registrationOf,
  resolveAddresses,
} from './node-place.js';
import type { Runtimes } from './runtimes.js';
import type { SavedSwarm, StateFile } from './state-file.js';

/** How long the first assignments may take before starting the data path is given up. */
const FIRST_ASSIGNMENTS_MS = 15_000;
/** How long `docker swarm join` waits before it answers that it goes on in the background. */
const JOIN_WAIT_MS = 20_000;
const LEAVE_SESSION_MS = 2000;

export interface SwarmNodeOptions {
  readonly config: AgentConfig;
  readonly facts: StaticFacts;
  readonly state: StateFile;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
  /** Docker's API of this node, for other nodes. */
  readonly docker?: NodeDocker;
  /** What runs tasks here. */
  readonly runtimes: Runtimes;
}

type Phase =
  | { readonly kind: 'inactive' }
  /** On its way back in after a restart. */
  | { readonly kind: 'returning'; readonly remotes: readonly HostPort[] }
  | {
      readonly kind: 'pending';
      readonly cancel: AbortController;
      readonly remotes: readonly HostPort[];
    }
  | { readonly kind: 'active'; readonly swarm: ActiveSwarm }
  /** A manager whose disk waits for its key. */
  | { readonly kind: 'locked' }
  | { readonly kind: 'error'; readonly message: string };

/**
 * Whether this node is in a swarm, and how it gets in and out: init, join, leave, and the way back
 * in after a restart. One of these at a time.
 */
export class SwarmNode {
  readonly #options: SwarmNodeOptions;
  readonly #local: LocalManager;
  #phase: Phase;
  #turn: Promise<unknown> = Promise.resolve();
  readonly #role: ManagerRole;

  constructor(options: SwarmNodeOptions) {
    this.#options = options;
    const { config, log, onFatal } = options;
    this.#local = new LocalManager({
      dataDir: config.dataDir,
      log,
      onFatal,
      addressHint: (nodeId) => this.#heardAt(nodeId),
    });
    this.#role = new ManagerRole({
      log,
      state: options.state,
      local: this.#local,
      queue: (work) => this.#queue(work),
      isActive: (swarm) => this.active === swarm,
    });
    const saved = options.state.swarm;
    // From the first moment that it can be asked: else it could be made to join a second time.
    this.#phase =
      saved === undefined ? { kind: 'inactive' } : { kind: 'returning', remotes: saved.managers };
  }

  /** As `LocalManager.onManager`. */
  onManager(listener: (manager: Manager) => void): void {
    this.#local.onManager(listener);
  }

  /** The swarm that this node is in, if it is. */
  get active(): ActiveSwarm | undefined {
    return this.#phase.kind === 'active' ? this.#phase.swarm : undefined;
  }

  /** @throws SwarmError SWARM_INACTIVE, SWARM_NOT_MANAGER */
  get manager(): Manager {
    const active = this.active;
    if (this.#phase.kind === 'locked') throw lockedError();
    if (active === undefined)
      throw new SwarmError({ code: 'SWARM_INACTIVE' }, 'this node is in no swarm');
    if (active.manager === undefined) {
      throw new SwarmError({ code: 'SWARM_NOT_MANAGER' }, 'this node is a worker: ask a manager');
    }
    return active.manager;
  }

  /** While the node is on its way back in, the end of that; in no more than `timeoutMs`. */
  async returned(timeoutMs: number): Promise<void> {
    if (this.#phase.kind !== 'returning') return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#turn, late]);
    clearTimeout(timer);
  }

  /** Takes up the place that this node had before the agent stopped. */
  async restore(): Promise<void> {
    const { state, log } = this.#options;
    const saved = state.swarm;
    if (saved === undefined) return;
    await this.#queue(async () => {
      if (saved.manager && (await this.#local.isLocked())) {
        log.warn('the swarm is locked: docker swarm unlock opens it');
        this.#phase = { kind: 'locked' };
        return;
      }
      await this.#return(saved);
    });
  }

  /** @throws SwarmError SWARM_NOT_LOCKED, SWARM_UNLOCK_KEY_REFUSED */
  unlock(key: string): Promise<void> {
    return this.#queue(async () => {
      const saved = this.#options.state.swarm;
      if (this.#phase.kind !== 'locked' || saved === undefined)
        throw new SwarmError({ code: 'SWARM_NOT_LOCKED' }, 'swarm is not locked');
      this.#local.unlock(key);
      this.#phase = { kind: 'returning', remotes: saved.managers };
      await this.#return(saved);
    });
  }

  async #return(saved: SavedSwarm): Promise<void> {
    const { config, log } = this.#options;
    const identity = saved.manager
      ? await this.#local.loadIdentity()
      : await loadIdentity(config.dataDir);
    if (identity === undefined) {
      this.#phase = { kind: 'inactive' };
      return;
    }
    log.info({ node: identity.nodeId, manager: saved.manager }, 'returning to the swarm');
    const now = readdressed(saved, hostAddresses());
    if (now !== saved) {
      log.warn({ from: saved.advertise.address, to: now.advertise.address }, 'this node has moved');
      this.#options.state.setSwarm(now);
    }
    const renewed = saved.manager ? await this.#local.open(now, identity) : identity;
    await this.#activate(now, renewed);
  }

  init(request: InitRequest): Promise<string> {
    return this.#queue(async () => {
      if (request.forceNewCluster && this.#options.state.swarm !== undefined)
        return this.#forceNew();
      this.#refuseIfIn();
      const addresses = this.#resolve(request);
      await forgetSwarm(this.#options.config.dataDir);
      const identity = await this.#local.create(addresses, {
        clusterSpec: { ...request.spec, autolock: request.autolock },
        ...(request.defaultAddressPool.length > 0
          ? { defaultAddressPool: [...request.defaultAddressPool] }
          : {}),
        subnetSize: request.subnetSize,
        dataPathPort: request.dataPathPort,
        node: this.#registration(addresses, request.availability),
      });
      const saved: SavedSwarm = { ...addresses, managers: [addresses.advertise], manager: true };
      try {
        await this.#activate(saved, identity);
      } catch (error) {
        await this.#forget();
        throw error;
      }
      this.#options.state.setSwarm(saved);
      return identity.nodeId;
    });
  }

  /**
   * Joins, waiting at most as long as Docker does; afterwards the attempt goes on.
   *
   * @throws SwarmError SWARM_TOKEN_MALFORMED, SWARM_TOKEN_REFUSED, SWARM_CA_MISMATCH, SWARM_JOIN_TIMEOUT, …
   */
  async join(request: JoinRequest): Promise<void> {
    this.#refuseIfIn();
    if (request.remoteAddresses.length === 0) {
      throw new SwarmError(
        { code: 'SWARM_BAD_ADDRESS', kind: 'remote' },
        'at least one manager must be named',
      );
    }
    const remotes = request.remoteAddresses.map(parseRemote);
    const addresses = this.#resolve(request);
    const cancel = new AbortController();
    this.#phase = { kind: 'pending', cancel, remotes };
    const attempt = this.#queue(() => this.#join(request, remotes, addresses, cancel));
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () =>
          reject(
            new SwarmError(
              { code: 'SWARM_JOIN_TIMEOUT' },
              'no manager answered in time: still trying',
            ),
          ),
        JOIN_WAIT_MS,
      );
    });
    // Its failure is the caller's as long as the caller waits, and the log's afterwards.
    attempt.catch((error: Error) =>
      this.#options.log.warn({ error: error.message }, 'joining failed'),
    );
    try {
      await Promise.race([attempt, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }

  async leave(force: boolean): Promise<void> {
    const phase = this.#phase;
    if (phase.kind === 'inactive') {
      throw new SwarmError({ code: 'SWARM_NOT_PART' }, 'this node is not part of a swarm');
    }
    if (phase.kind === 'pending') {
      phase.cancel.abort();
      this.#phase = { kind: 'inactive' };
      return;
    }
    await this.#queue(async () => {
      if (this.#phase.kind === 'active') {
        await this.#leaveActive(this.#phase.swarm, force);
      } else if (this.#options.state.swarm?.manager === true && !force) {
        throw managerLeave(false);
      }
      await this.#local.close();
      await this.#forget();
      this.#phase = { kind: 'inactive' };
    });
  }

  /** Stops without leaving: the next start returns to the swarm. */
  async close(): Promise<void> {
    if (this.#phase.kind === 'pending') this.#phase.cancel.abort();
    await this.#queue(async () => {
      if (this.#phase.kind !== 'active') return;
      const { swarm } = this.#phase;
      this.#phase = { kind: 'inactive' };
      await swarm.close();
      await swarm.session.close();
      await this.#local.close();
    });
  }

  /** The swarm as `docker info` shows it. */
  describe(): LocalSwarm {
    const phase = this.#phase;
    if (phase.kind === 'error') return { ...NO_SWARM, state: 'error', error: phase.message };
    if (phase.kind === 'locked') return { ...NO_SWARM, state: 'locked' };
    if (phase.kind === 'pending' || phase.kind === 'returning') {
      const remoteManagers = phase.remotes.map((remote) => ({
        nodeId: '',
        address: formatHostPort(remote),
      }));
      return { ...NO_SWARM, state: 'pending', remoteManagers };
    }
    if (phase.kind === 'inactive') return { ...NO_SWARM, state: 'inactive' };
    return describeActive(phase.swarm, this.#options.state.swarm?.advertise.address ?? '');
  }

  #queue<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = this.#turn.then(work);
    this.#turn = result.catch(() => undefined);
    return result;
  }

  #refuseIfIn(): void {
    if (this.#phase.kind === 'inactive') return;
    throw new SwarmError(
      { code: 'SWARM_ALREADY_ACTIVE' },
      'this node is already part of a swarm: leave it first',
    );
  }

  #resolve(request: AddressWishes): NodeAddresses {
    return resolveAddresses(request, hostAddresses());
  }

  #registration(addresses: NodeAddresses, availability: NodeAvailability): NodeRegistration {
    const { config, facts, runtimes } = this.#options;
    const groups = Object.entries(this.#options.state.discovery).map(([token, address]) => [
      discoveryLabel(token),
      address,
    ]);
    const grouped = { ...facts, labels: { ...facts.labels, ...Object.fromEntries(groups) } };
    return registrationOf(config, grouped, runtimes, addresses, availability);
  }

  async #join(
    request: JoinRequest,
    remotes: readonly HostPort[],
    addresses: NodeAddresses,
    cancel: AbortController,
  ): Promise<void> {
    const { config, log, state } = this.#options;
    try {
      await forgetSwarm(config.dataDir);
      const attempt = JoinAttempt.start({
        token: request.joinToken,
        remotes: [...remotes],
        node: this.#registration(addresses, request.availability),
        dataDir: config.dataDir,
        log: log.child({ part: 'control' }),
        signal: cancel.signal,
      });
      const { identity, managers } = await attempt.done;
      const manager = identity.role === 'manager';
      const saved: SavedSwarm = { ...addresses, managers: [...managers], manager };
      if (manager) await this.#local.join(addresses, identity, managers, cancel.signal);
      await this.#activate(saved, identity);
      state.setSwarm(saved);
    } catch (error) {
      // A leave in between has already set the phase.
      if (this.#phase.kind === 'pending' && this.#phase.cancel === cancel)
        this.#phase = { kind: 'inactive' };
      if (this.#phase.kind !== 'active') await this.#forget();
      throw error;
    }
  }

  async #activate(saved: SavedSwarm, identity: NodeIdentity): Promise<void> {
    const { config, log, state, onFatal, docker, runtimes } = this.#options;
    const session = await ManagerSession.open({
      identity,
      managers: saved.managers,
      registration: () => this.#registration(saved, 'active'),
      dataDir: config.dataDir,
      log: log.child({ part: 'control' }),
      saveOptions: () => this.#local.saveOptions(),
      // What is advertised may be a forwarded port elsewhere, which this host does not reach itself.
      localManager: () => this.#local.address(localAddressOf(saved.listen)),
      extraManagers: () => this.#managersHeardOf(),
    });
    try {
      const assignments = await session.firstAssignments(FIRST_ASSIGNMENTS_MS);
      const swarm = await ActiveSwarm.open({
        config,
        log,
        state,
        saved,
        identity,
        manager: () => this.#local.manager,
        session,
        assignments,
        onFatal,
        runtimes,
        ...(docker === undefined ? {} : { docker }),
      });
      this.#phase = { kind: 'active', swarm };
      this.#follow(swarm, saved);
      log.info(
        { node: identity.nodeId, manager: this.#local.manager !== undefined },
        'in the swarm',
      );
    } catch (error) {
      await session.close();
      await this.#local.close();
      throw error;
    }
  }

  /** The node is to be a manager, or not to be one any more, or no member at all. */
  #follow(swarm: ActiveSwarm, saved: SavedSwarm): void {
    swarm.session.onEnd((end) => {
      if (end === 'removed') void this.#queue(() => this.#onRemoved(swarm));
    });
    this.#role.follow(swarm, saved);
  }

  /** Goes on alone after most managers were lost. @returns This node's id. */
  async #forceNew(): Promise<string> {
    const { state } = this.#options;
    const saved = state.swarm;
    if (saved === undefined || !saved.manager)
      throw new SwarmError(
        { code: 'SWARM_INVALID' },
        'this node is no manager of a swarm: --force-new-cluster goes on with what a manager holds',
      );
    if (this.#phase.kind === 'locked') throw lockedError();
    const identity = this.active?.identity ?? (await this.#local.loadIdentity());
    if (identity === undefined)
      throw new SwarmError({ code: 'SWARM_INVALID' }, 'this node has no identity any more');
    await this.#standStill();
    const registration = this.#registration(saved, 'active');
    const renewed = await this.#local.forceNew(saved, identity, registration);
    const alone: SavedSwarm = { ...saved, managers: [saved.advertise], manager: true };
    state.setSwarm(alone);
    await this.#activate(alone, renewed);
    return renewed.nodeId;
  }

  /** @returns This node's id. @throws SwarmError SWARM_INVALID, SWARM_LOCKED */
  forceNewCluster(): Promise<string> {
    return this.#queue(() => this.#forceNew());
  }

  /** Becomes the only manager of what a snapshot file holds. @returns This node's id. */
  restoreSnapshot(bytes: Uint8Array): Promise<string> {
    return this.#queue(async () => {
      const { state } = this.#options;
      if (this.#phase.kind === 'locked') throw lockedError();
      parseSnapshotFile(bytes);
      const addresses: NodeAddresses =
        state.swarm ??
        this.#resolve({ listenAddress: '', advertiseAddress: '', dataPathAddress: '' });
      const identity = this.active?.identity;
      await this.#standStill();
      const registration = this.#registration(addresses, 'active');
      const used = await this.#local.restore(bytes, addresses, identity, registration);
      const saved = { ...addresses, managers: [addresses.advertise], manager: true };
      state.setSwarm(saved);
      await this.#activate(saved, used);
      return used.nodeId;
    });
  }

  /** Stops all that runs, without a word to anybody. */
  async #standStill(): Promise<void> {
    if (this.#phase.kind === 'pending') this.#phase.cancel.abort();
    const { active } = this;
    this.#phase = { kind: 'returning', remotes: [] };
    await active?.close();
    await active?.session.close();
    await this.#local.close();
  }

  async #leaveActive(swarm: ActiveSwarm, force: boolean): Promise<void> {
    const { manager } = swarm;
    if (manager !== undefined && !force) {
      const managers = manager.nodes().filter((node) => node.manager !== undefined);
      throw managerLeave(managers.length <= 1);
    }
    await manager?.leaveGroup();
    await swarm.leave();
    await swarm.session.leave(LEAVE_SESSION_MS).catch(() => undefined);
    await swarm.session.close();
  }

  #heardAt(nodeId: string): string | undefined {
    const member = this.active?.gossip.members().find(({ id }) => id === nodeId);
    return member?.state === 'alive' ? member.address : undefined;
  }

  /** Managers at the addresses where gossip hears them now. */
  #managersHeardOf(): readonly HostPort[] {
    const { active } = this;
    if (active === undefined) return [];
    const ports = new Set(active.assignments.cluster.managers.map(({ port }) => port));
    return active.assignments.nodes
      .filter(({ role }) => role === 'manager')
      .flatMap(({ id }) => {
        const address = this.#heardAt(id);
        return address === undefined ? [] : [...ports].map((port) => ({ address, port }));
      });
  }

  /** The manager does not know this node any more: its place, and what hung on it, is gone. */
  async #onRemoved(swarm: ActiveSwarm): Promise<void> {
    if (this.active !== swarm) return;
    const message =
      'this node was removed from the swarm: leave it (docker swarm leave), then join again';
    this.#options.log.error(message);
    this.#phase = { kind: 'error', message };
    await swarm.leave();
    await swarm.session.close();
    await this.#local.close();
    await this.#forget();
  }

  /** Removes what would bind this node to a swarm that it is no longer in. */
  async #forget(): Promise<void> {
    this.#options.state.setSwarm(undefined);
    this.#options.state.setAttachments([]);
    await forgetSwarm(this.#options.config.dataDir);
  }
}

function lockedError(): SwarmError {
  return new SwarmError(
    { code: 'SWARM_LOCKED' },
    'the swarm is locked: unlock it first (docker swarm unlock)',
  );
}

function managerLeave(last: boolean): SwarmError {
  return new SwarmError(
    { code: 'SWARM_MANAGER_LEAVE', last },
    'this node is a manager: demote it first, or leave with --force',
  );
}
