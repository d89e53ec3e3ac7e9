import type { InitRequest, JoinRequest, LocalSwarm } from '../api/index.js';
import { SwarmError } from '../base/swarm-error.js';
import type { NodeAvailability } from '../base/swarm-model.js';
import {
  forgetSwarm,
  JoinAttempt,
  loadIdentity,
  Manager,
  ManagerSession,
  type NodeIdentity,
  type NodeRegistration,
} from '../control/index.js';
import { ActiveSwarm } from './active-swarm.js';
import {
  CONTROL_PORT,
  defaultAdvertiseAddress,
  formatHostPort,
  type HostPort,
  isUnspecified,
  localAddressOf,
  parseRemote,
  resolveAddress,
} from './addresses.js';
import type { AgentConfig } from './config.js';
import { hostAddresses, type StaticFacts } from './facts.js';
import type { Log } from './log.js';
import type { SavedSwarm, StateFile } from './state-file.js';

/** How long the first assignments may take before starting the data path is given up. */
const FIRST_ASSIGNMENTS_MS = 15_000;
/** How long `docker swarm join` waits before it answers that it goes on in the background. */
const JOIN_WAIT_MS = 20_000;
const LEAVE_SESSION_MS = 2000;

const NANO = 1e9;

/** The three addresses that a node is in a swarm with. */
interface Addresses {
  readonly listen: HostPort;
  readonly advertise: HostPort;
  readonly dataPathAddress: string;
}

export interface SwarmNodeOptions {
  readonly config: AgentConfig;
  readonly facts: StaticFacts;
  readonly state: StateFile;
  readonly log: Log;
  readonly onFatal: (error: Error) => void;
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
  | { readonly kind: 'error'; readonly message: string };

/**
 * Whether this node is in a swarm, and how it gets in and out: init, join, leave, and the way back
 * in after a restart. One of these at a time.
 */
export class SwarmNode {
  readonly #options: SwarmNodeOptions;
  #phase: Phase;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(options: SwarmNodeOptions) {
    this.#options = options;
    const saved = options.state.swarm;
    // From the first moment that it can be asked: else it could be made to join a second time.
    this.#phase =
      saved === undefined ? { kind: 'inactive' } : { kind: 'returning', remotes: saved.managers };
  }

  /** The swarm that this node is in, if it is. */
  get active(): ActiveSwarm | undefined {
    return this.#phase.kind === 'active' ? this.#phase.swarm : undefined;
  }

  /** @throws SwarmError SWARM_INACTIVE, SWARM_NOT_MANAGER */
  get manager(): Manager {
    const active = this.active;
    if (active === undefined)
      throw new SwarmError({ code: 'SWARM_INACTIVE' }, 'this node is in no swarm');
    if (active.manager === undefined) {
      throw new SwarmError({ code: 'SWARM_NOT_MANAGER' }, 'this node is a worker: ask a manager');
    }
    return active.manager;
  }

  /** Takes up the place that this node had before the agent stopped. */
  async restore(): Promise<void> {
    const { state, config, log } = this.#options;
    const saved = state.swarm;
    if (saved === undefined) return;
    await this.#queue(async () => {
      const identity = await loadIdentity(config.dataDir);
      if (identity === undefined) {
        this.#phase = { kind: 'inactive' };
        return;
      }
      log.info({ node: identity.nodeId, manager: saved.manager }, 'returning to the swarm');
      const manager = saved.manager ? await this.#openManager(saved, identity) : undefined;
      await this.#activate(saved, identity, manager);
    });
  }

  init(request: InitRequest): Promise<string> {
    return this.#queue(async () => {
      this.#refuseIfIn();
      if (request.autolock || request.forceNewCluster) {
        const what = request.autolock ? 'autolock' : '--force-new-cluster';
        throw new SwarmError({ code: 'SWARM_UNSUPPORTED' }, `${what} is not supported yet`);
      }
      const addresses = this.#resolve(request);
      const { config, log } = this.#options;
      await forgetSwarm(config.dataDir);
      const { manager, identity } = await Manager.create({
        dataDir: config.dataDir,
        clusterSpec: request.spec,
        ...(request.defaultAddressPool.length > 0
          ? { defaultAddressPool: [...request.defaultAddressPool] }
          : {}),
        subnetSize: request.subnetSize,
        dataPathPort: request.dataPathPort,
        listen: addresses.listen,
        advertise: addresses.advertise,
        node: this.#registration(addresses, request.availability),
        log: log.child({ part: 'control' }),
      });
      const saved: SavedSwarm = { ...addresses, managers: [addresses.advertise], manager: true };
      try {
        await this.#activate(saved, identity, manager);
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
        const { swarm } = this.#phase;
        if (swarm.manager !== undefined && !force) {
          throw new SwarmError(
            { code: 'SWARM_MANAGER_LEAVE', last: true },
            'this is the last manager: use --force',
          );
        }
        await swarm.leave();
        await swarm.session.leave(LEAVE_SESSION_MS).catch(() => undefined);
        await swarm.session.close();
        await swarm.manager?.close();
      }
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
      await swarm.manager?.close();
    });
  }

  /** The swarm as `docker info` shows it. */
  describe(): LocalSwarm {
    const phase = this.#phase;
    const none = {
      nodeId: '',
      nodeAddress: '',
      error: '',
      controlAvailable: false,
      remoteManagers: [],
    };
    if (phase.kind === 'error') return { ...none, state: 'error', error: phase.message };
    if (phase.kind === 'pending' || phase.kind === 'returning') {
      const remoteManagers = phase.remotes.map((remote) => ({
        nodeId: '',
        address: formatHostPort(remote),
      }));
      return { ...none, state: 'pending', remoteManagers };
    }
    if (phase.kind === 'inactive') return { ...none, state: 'inactive' };
    return this.#describeActive(phase.swarm);
  }

  #describeActive(swarm: ActiveSwarm): LocalSwarm {
    const { identity, manager, assignments } = swarm;
    const ids = assignments.nodes.filter((node) => node.role === 'manager').map((node) => node.id);
    const addresses = assignments.cluster.managers;
    const described = {
      state: 'active' as const,
      nodeId: identity.nodeId,
      nodeAddress: this.#options.state.swarm?.advertise.address ?? '',
      error: '',
      controlAvailable: manager !== undefined,
      remoteManagers: addresses.map((address, i) => ({
        nodeId: ids[i] ?? '',
        address: formatHostPort(address),
      })),
    };
    if (manager === undefined) return described;
    const nodes = manager.nodes();
    return {
      ...described,
      nodes: nodes.length,
      managers: nodes.filter((node) => node.manager !== undefined).length,
      cluster: manager.cluster(),
    };
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

  #resolve(request: {
    readonly listenAddress: string;
    readonly advertiseAddress: string;
    readonly dataPathAddress: string;
  }): Addresses {
    const host = hostAddresses();
    const listenText = request.listenAddress === '' ? '0.0.0.0' : request.listenAddress;
    const listen = resolveAddress(listenText, 'listen', CONTROL_PORT, host);
    const advertise =
      request.advertiseAddress === ''
        ? { address: defaultAdvertiseAddress(listen, host), port: listen.port }
        : resolveAddress(request.advertiseAddress, 'advertise', listen.port, host);
    const dataPathAddress =
      request.dataPathAddress === ''
        ? advertise.address
        : resolveAddress(request.dataPathAddress, 'dataPath', 0, host).address;
    // An IPv6 address is reached only where IPv6 is listened to.
    const everywhere =
      isUnspecified(listen.address) && advertise.address.includes(':') ? '::' : listen.address;
    return { listen: { ...listen, address: everywhere }, advertise, dataPathAddress };
  }

  #registration(addresses: Addresses, availability: NodeAvailability): NodeRegistration {
    const { config, facts } = this.#options;
    return {
      description: {
        hostname: config.hostname,
        os: 'linux',
        architecture: facts.architecture,
        nanoCpus: facts.cpuCount * NANO,
        memoryBytes: facts.memoryBytes,
        engineVersion: facts.agentVersion,
        engineLabels: facts.labels,
        plugins: [{ type: 'Network', name: 'overlay' }],
      },
      availability,
      address: addresses.advertise.address,
      dataPathAddress: addresses.dataPathAddress,
      gossipAddress: addresses.advertise.address,
      gossipPort: config.gossipPort,
    };
  }

  async #join(
    request: JoinRequest,
    remotes: readonly HostPort[],
    addresses: Addresses,
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
      const saved: SavedSwarm = { ...addresses, managers: [...managers], manager: false };
      await this.#activate(saved, identity, undefined);
      state.setSwarm(saved);
    } catch (error) {
      // A leave in between has already set the phase.
      if (this.#phase.kind === 'pending' && this.#phase.cancel === cancel)
        this.#phase = { kind: 'inactive' };
      if (this.#phase.kind !== 'active') await this.#forget();
      throw error;
    }
  }

  #openManager(saved: SavedSwarm, identity: NodeIdentity): Promise<Manager> {
    const { config, log } = this.#options;
    const { listen, advertise } = saved;
    return Manager.open({
      dataDir: config.dataDir,
      identity,
      listen,
      advertise,
      log: log.child({ part: 'control' }),
    });
  }

  async #activate(
    saved: SavedSwarm,
    identity: NodeIdentity,
    manager: Manager | undefined,
  ): Promise<void> {
    const { config, log, state, onFatal } = this.#options;
    // What is advertised may be a forwarded port elsewhere, which this host does not reach itself.
    const own = manager === undefined ? [] : [localAddressOf(saved.listen)];
    const session = await ManagerSession.open({
      identity,
      managers: [...own, ...saved.managers],
      registration: () => this.#registration(saved, 'active'),
      dataDir: config.dataDir,
      log: log.child({ part: 'control' }),
    });
    try {
      const assignments = await session.firstAssignments(FIRST_ASSIGNMENTS_MS);
      const swarm = await ActiveSwarm.open({
        config,
        log,
        state,
        saved,
        identity,
        manager,
        session,
        assignments,
        onFatal,
      });
      this.#phase = { kind: 'active', swarm };
      session.onEnd((end) => {
        if (end === 'removed') void this.#queue(() => this.#onRemoved(swarm));
      });
      log.info({ node: identity.nodeId, manager: manager !== undefined }, 'in the swarm');
    } catch (error) {
      await session.close();
      await manager?.close();
      throw error;
    }
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
    await this.#forget();
  }

  /** Removes what would bind this node to a swarm that it is no longer in. */
  async #forget(): Promise<void> {
    this.#options.state.setSwarm(undefined);
    this.#options.state.setAttachments([]);
    await forgetSwarm(this.#options.config.dataDir);
  }
}
