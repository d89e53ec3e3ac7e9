import { randomBytes } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { assert } from '../../base/assert.js';
import { DEFAULT_CLUSTER_SPEC, DEFAULT_SUBNET_SIZE } from '../../base/swarm-defaults.js';
import { SwarmError } from '../../base/swarm-error.js';
import type {
  AttachmentId,
  AttachmentObject,
  ClusterId,
  ClusterObject,
  ClusterSpec,
  NetworkId,
  NetworkObject,
  NetworkSpec,
  NodeDescription,
  NodeId,
  NodeObject,
  NodeRole,
  NodeSpec,
} from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import {
  type DispatchBackend,
  Dispatcher,
  type DispatcherStats,
  formatControlAddress,
  type MembershipState,
} from '../dispatch/index.js';
import {
  type CaBackend,
  createAuthority,
  type IssuerFacts,
  issueNodeCertificate,
  issuerFacts,
  makeIdentity,
  type NodeIdentity,
  newJoinToken,
  peerIdOf,
  rawPublicKeyOf,
  readNodeCertificate,
  renewalAtMs,
  saveIdentity,
  serveCa,
} from '../identity/index.js';
import {
  type CommandBody,
  checkClusterSpec,
  checkDefaultPools,
  type NodeObservation,
  networkOf,
  ONLY_ROW,
  Store,
} from '../store/index.js';
import type { KeyedAttachment } from '../wire/attachment.js';
import type { ControlAddress, NodeRegistration } from '../wire/model.js';
import { newId } from './ids.js';
import { Listener, type ListenerStats } from './listener.js';

/** Folder of the store inside the data folder. */
export const STORE_FOLDER = 'control';
const GOSSIP_KEY_BYTES = 32;
const GOSSIP_KEY_LIFE_MS = 12 * 3_600_000;
/** How often what is due by the calendar is looked for: keys, certificates. */
const CHORES_INTERVAL_MS = 60_000;

/** Docker's default. */
const DEFAULT_ADDRESS_POOL: readonly string[] = ['10.0.0.0/8'];
const DEFAULT_DATA_PATH_PORT = 4789;

export interface ManagerPlace {
  readonly dataDir: string;
  /** Port 0: any free one, which is then advertised if `advertise.port` is 0, too. */
  readonly listen: ControlAddress;
  readonly advertise: ControlAddress;
  readonly log: Logger;
  /** Milliseconds since the Unix epoch. */
  readonly now?: () => number;
}

export interface ManagerCreation extends ManagerPlace {
  readonly clusterSpec?: Partial<ClusterSpec>;
  readonly defaultAddressPool?: readonly string[];
  readonly subnetSize?: number;
  readonly dataPathPort?: number;
  readonly node: NodeRegistration;
}

export interface ManagerStats {
  readonly listener: ListenerStats;
  readonly dispatcher: DispatcherStats;
}

/**
 * The swarm's one manager in its first form: keeps the cluster's state on its own disk, admits
 * nodes, gives out addresses, and tells every agent what it needs to know.
 *
 * Reads are of what is durable, and immediate. Changes answer when they are durable.
 */
export class Manager {
  readonly #place: ManagerPlace;
  readonly #store: Store;
  readonly #dispatcher: Dispatcher;
  readonly #now: () => number;
  readonly #chores: NodeJS.Timeout;
  readonly #renewalFraction = Math.random();
  #listener: Listener | undefined;
  #identity: NodeIdentity;
  #closed = false;

  private constructor(place: ManagerPlace, store: Store, identity: NodeIdentity) {
    this.#place = place;
    this.#store = store;
    this.#identity = identity;
    this.#now = place.now ?? Date.now;
    this.#dispatcher = new Dispatcher(this.#dispatchBackend());
    store.watch((changes) => this.#dispatcher.changed(changes));
    this.#chores = setInterval(() => void this.#doChores(), CHORES_INTERVAL_MS);
    this.#chores.unref();
  }

  /**
   * Makes a new swarm, of which this node is the first member and manager.
   * @throws SwarmError `SWARM_INVALID`, `SWARM_UNSUPPORTED`, `SWARM_PORT_TAKEN`,
   *   `SWARM_BAD_ADDRESS`; nothing is left behind then.
   */
  static async create(
    o: ManagerCreation,
  ): Promise<{ readonly manager: Manager; readonly identity: NodeIdentity }> {
    const now = o.now ?? Date.now;
    const spec = { ...DEFAULT_CLUSTER_SPEC, ...o.clusterSpec };
    checkClusterSpec(spec);
    checkDefaultPools(
      o.defaultAddressPool ?? DEFAULT_ADDRESS_POOL,
      o.subnetSize ?? DEFAULT_SUBNET_SIZE,
    );
    const authority = await createAuthority(now());
    const issuer = await issuerFacts(authority.caPem);
    const seed = randomBytes(32);
    const ids = { nodeId: newId<NodeId>(), clusterId: newId<ClusterId>() };
    const certPem = await issueNodeCertificate(authority, {
      ...ids,
      role: 'manager',
      publicKey: rawPublicKeyOf(seed),
      atMs: now(),
      lifeMs: spec.nodeCertExpiryMs,
    });
    const identity = makeIdentity(seed, certPem, authority.caPem);
    assert(identity !== undefined, 'what was just issued is valid');
    const dir = join(o.dataDir, STORE_FOLDER);
    await rm(dir, { recursive: true, force: true });
    const store = await Store.open({ dir, log: o.log });
    try {
      for (const command of firstCommands(o, spec, identity, authority.caKeyPem, issuer))
        await store.propose({ ...command, atMs: now() });
      const manager = await Manager.#start(o, store, identity);
      await saveIdentity(o.dataDir, identity);
      return { manager, identity };
    } catch (error) {
      await store.close();
      await rm(dir, { recursive: true, force: true });
      throw error;
    }
  }

  /**
   * After a restart. Nodes other than this one are unknown until they are heard of.
   * @throws SwarmError `SWARM_PORT_TAKEN`, `SWARM_BAD_ADDRESS`; ControlError for the store.
   */
  static async open(o: ManagerPlace & { readonly identity: NodeIdentity }): Promise<Manager> {
    const store = await Store.open({ dir: join(o.dataDir, STORE_FOLDER), log: o.log });
    try {
      if (store.state.row('cluster', ONLY_ROW)?.id !== o.identity.clusterId)
        throw new SwarmError(
          { code: 'SWARM_INVALID' },
          `${o.dataDir} holds no state of the swarm that this node is in`,
        );
      await store.propose({
        kind: 'nodes_forget_state',
        except: o.identity.nodeId,
        stateMessage: 'the manager was restarted',
        atMs: (o.now ?? Date.now)(),
      });
      return await Manager.#start(o, store, o.identity);
    } catch (error) {
      await store.close();
      throw error;
    }
  }

  static async #start(place: ManagerPlace, store: Store, identity: NodeIdentity): Promise<Manager> {
    const manager = new Manager(place, store, identity);
    try {
      // First, since the own certificate may have expired while nothing ran.
      await manager.#doChores();
      await manager.#listen();
      manager.#dispatcher.setManagers(true, new Set([identity.nodeId]));
      return manager;
    } catch (error) {
      await manager.#stop();
      throw error;
    }
  }

  /** The port that is listened on. */
  get port(): number {
    return this.#listener?.port ?? 0;
  }

  /** This manager's own, as renewed last. */
  get identity(): NodeIdentity {
    return this.#identity;
  }

  cluster(): ClusterObject {
    const cluster = this.#store.state.row('cluster', ONLY_ROW);
    assert(cluster !== undefined, 'a manager has a cluster');
    return cluster;
  }

  nodes(): NodeObject[] {
    return [...this.#store.state.rows('node')];
  }

  node(id: string): NodeObject | undefined {
    return this.#store.state.row('node', id);
  }

  networks(): NetworkObject[] {
    return [...this.#store.state.rows('network')];
  }

  network(id: string): NetworkObject | undefined {
    return this.#store.state.row('network', id);
  }

  attachments(): AttachmentObject[] {
    return [...this.#store.state.rows('attachment')];
  }

  stats(): ManagerStats {
    assert(this.#listener !== undefined, 'a started manager listens');
    return { listener: this.#listener.stats(), dispatcher: this.#dispatcher.stats() };
  }

  /** @throws SwarmError `SWARM_OUT_OF_SEQUENCE`, `SWARM_INVALID`, `SWARM_UNSUPPORTED`. */
  async updateCluster(
    version: number,
    spec: ClusterSpec,
    rotate: { readonly workerToken?: boolean; readonly managerToken?: boolean } = {},
  ): Promise<void> {
    const { rootCaPem } = this.cluster();
    await this.#propose({
      kind: 'cluster_update',
      version,
      spec,
      joinTokens: {
        ...(rotate.workerToken === true && { worker: newJoinToken(rootCaPem) }),
        ...(rotate.managerToken === true && { manager: newJoinToken(rootCaPem) }),
      },
    });
  }

  /** @throws SwarmError `SWARM_NOT_FOUND`, `SWARM_OUT_OF_SEQUENCE`, or why the role must stay. */
  async updateNode(id: string, version: number, spec: NodeSpec): Promise<void> {
    await this.#propose({ kind: 'node_update', nodeId: id as NodeId, version, spec });
  }

  /** @throws SwarmError `SWARM_NOT_FOUND`, `SWARM_NODE_NOT_DOWN`; `SWARM_INVALID` for a manager. */
  async removeNode(id: string, force: boolean): Promise<void> {
    await this.#propose({ kind: 'node_remove', nodeId: id as NodeId, force });
    this.#dispatcher.remove(id as NodeId);
  }

  /** @throws SwarmError see `checkNetworkSpec` and `allocateSubnets` of the store. */
  async createNetwork(spec: NetworkSpec): Promise<NetworkObject> {
    const id = await this.#propose({ kind: 'network_create', id: newId<NetworkId>(), spec });
    return networkOf(this.#store.state, id);
  }

  /** @param ref Id, name, or unique prefix of an id. @throws SwarmError `SWARM_NOT_FOUND`, `SWARM_IN_USE`. */
  async removeNetwork(ref: string): Promise<void> {
    await this.#propose({ kind: 'network_remove', ref });
  }

  /** Releases an attachment of any node, as an operator may. */
  async removeAttachment(id: AttachmentId): Promise<void> {
    await this.#propose({ kind: 'attachment_remove', id });
  }

  /** Brings the next gossip key into use and announces another; done by itself every 12 hours. */
  async rotateGossipKeys(): Promise<void> {
    const secret = randomBytes(GOSSIP_KEY_BYTES).toString('base64');
    await this.#propose({ kind: 'gossip_keys_rotate', secret });
  }

  /** What gossip knows of all members: the second witness before a node is called down. */
  reportMembership(states: ReadonlyMap<string, MembershipState>): void {
    if (!this.#closed) this.#dispatcher.reportMembership(states);
  }

  /** Called after changes of any object. */
  watch(listener: () => void): () => void {
    return this.#store.watch(() => listener());
  }

  /** Tells the agents, finishes what was begun, and lets the port go. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.#stop();
    await this.#store.close();
  }

  async #stop(): Promise<void> {
    this.#closed = true;
    clearInterval(this.#chores);
    this.#dispatcher.close();
    await this.#listener?.close();
  }

  #propose(body: CommandBody): Promise<string> {
    return this.#store.propose({ ...body, atMs: this.#now() });
  }

  async #listen(): Promise<void> {
    const { listen, advertise, log } = this.#place;
    const { keyPem, certPem, caPem } = this.#identity;
    const caBackend = this.#caBackend();
    this.#listener = await Listener.open({
      listen,
      keyPem,
      certPem,
      caPem,
      log,
      onCa: (socket, remoteAddress) => serveCa(socket, remoteAddress, caBackend),
      onDispatch: (socket, remoteAddress) => this.#onDispatch(socket, remoteAddress),
    });
    const port = advertise.port === 0 ? this.#listener.port : advertise.port;
    const address = formatControlAddress({ address: advertise.address, port });
    const manager = { raftId: 1, address };
    await this.#observe(this.#identity.nodeId, { manager });
  }

  #onDispatch(socket: TLSSocket, remoteAddress: string): void {
    const certificate = socket.getPeerX509Certificate();
    const certified = certificate && readNodeCertificate(certificate, this.#identity.caPem);
    if (certified?.clusterId === this.#identity.clusterId && !this.#closed)
      this.#dispatcher.accept(socket, certified.nodeId, remoteAddress);
    else socket.destroy();
  }

  async #observe(nodeId: NodeId, observation: NodeObservation): Promise<void> {
    await this.#propose({ kind: 'node_observe', nodeId, observation });
  }

  #managers(): ControlAddress[] {
    const { advertise } = this.#place;
    return [{ address: advertise.address, port: advertise.port || this.port }];
  }

  #describe(registration: NodeRegistration): NodeDescription {
    const { rootCaPem, certIssuerSubject, certIssuerPublicKey } = this.cluster();
    return {
      ...registration.description,
      trustRootPem: rootCaPem,
      certIssuerSubject,
      certIssuerPublicKey,
    };
  }

  #caBackend(): CaBackend {
    const { log } = this.#place;
    return {
      clusterId: this.#identity.clusterId,
      caPem: this.#identity.caPem,
      log,
      nowMs: this.#now,
      joinTokens: () => this.cluster().joinTokens,
      managers: () => this.#managers(),
      roleOf: (nodeId) => this.node(nodeId)?.spec.role,
      issue: (nodeId, role, publicKey) => this.#issue(nodeId, role, publicKey),
      admit: async (role, peerId, registration, remoteAddress) => {
        const id = (await this.#propose({
          kind: 'node_create',
          node: {
            id: newId<NodeId>(),
            spec: { name: '', labels: {}, role, availability: registration.availability },
            description: this.#describe(registration),
            state: 'unknown',
            stateMessage: '',
            peerId,
            ...addressesOf(registration, remoteAddress),
          },
        })) as NodeId;
        log.info({ node: id, remoteAddress }, 'node joined');
        return id;
      },
    };
  }

  #issue(nodeId: NodeId, role: NodeRole, publicKey: Uint8Array): Promise<string> {
    const secrets = this.#store.state.row('secrets', ONLY_ROW);
    assert(secrets !== undefined, 'a manager has the key of the CA');
    return issueNodeCertificate(
      { caPem: this.#identity.caPem, caKeyPem: secrets.caKeyPem },
      {
        nodeId,
        role,
        publicKey,
        clusterId: this.#identity.clusterId,
        atMs: this.#now(),
        lifeMs: this.cluster().spec.nodeCertExpiryMs,
      },
    );
  }

  #dispatchBackend(): DispatchBackend {
    const { log } = this.#place;
    const { state } = this.#store;
    const row = (id: string): KeyedAttachment => {
      const attachment = state.row('attachment', id);
      assert(attachment !== undefined, 'an attachment that was made is there');
      return attachment;
    };
    return {
      log,
      self: this.#identity.nodeId,
      source: () => ({
        version: state.version,
        cluster: this.cluster(),
        gossipKeys: state.row('secrets', ONLY_ROW)?.gossipKeys ?? [],
        networks: state.rows('network'),
        nodes: state.rows('node'),
      }),
      attachmentsOf: (nodeId) =>
        new Map([...state.attachmentsOf(nodeId)].map((id) => [id, row(id)])),
      node: (nodeId) => state.row('node', nodeId),
      register: (nodeId, registration, remoteAddress, session) =>
        this.#observe(nodeId, {
          description: this.#describe(registration),
          ...addressesOf(registration, remoteAddress),
          ...(session && { state: 'ready', stateMessage: '', session }),
        }),
      attach: async (nodeId, request) => {
        const id = newId<AttachmentId>();
        return row(await this.#propose({ kind: 'attachment_create', id, nodeId, request }));
      },
      detach: async (nodeId, id) => {
        await this.#propose({ kind: 'attachment_remove', id, nodeId });
      },
      leave: async (nodeId) => {
        await this.#propose({ kind: 'node_leave', nodeId });
        log.info({ node: nodeId }, 'node left');
      },
      setState: async (nodeId, nodeState, stateMessage, ifSession) => {
        log.info({ node: nodeId, state: nodeState, stateMessage }, 'node changed');
        const observation = { state: nodeState, stateMessage };
        await this.#propose({ kind: 'node_observe', nodeId, observation, ifSession });
      },
    };
  }

  /** What is due by the calendar. */
  async #doChores(): Promise<void> {
    const secrets = this.#store.state.row('secrets', ONLY_ROW);
    try {
      if (secrets && this.#now() >= secrets.gossipKeysRotatedAtMs + GOSSIP_KEY_LIFE_MS)
        await this.rotateGossipKeys();
      if (this.#now() >= renewalAtMs(this.#identity, this.#renewalFraction)) await this.#renew();
    } catch (error) {
      if (!this.#closed) this.#place.log.error({ err: error }, 'a chore of the manager failed');
    }
  }

  async #renew(): Promise<void> {
    const { seed, nodeId, caPem } = this.#identity;
    const certPem = await this.#issue(nodeId, 'manager', rawPublicKeyOf(seed));
    const renewed = makeIdentity(seed, certPem, caPem);
    assert(renewed !== undefined, 'what was just issued is valid');
    await saveIdentity(this.#place.dataDir, renewed);
    this.#identity = renewed;
    this.#listener?.setCertificate(renewed.keyPem, renewed.certPem, renewed.caPem);
    this.#place.log.info({ expiresAtMs: renewed.expiresAtMs }, 'own certificate renewed');
  }
}

/** What a new swarm begins with: itself, and this node. */
function firstCommands(
  o: ManagerCreation,
  spec: ClusterSpec,
  identity: NodeIdentity,
  caKeyPem: string,
  issuer: IssuerFacts,
): readonly CommandBody[] {
  const { caPem, nodeId, clusterId } = identity;
  const trust = {
    certIssuerSubject: issuer.subject,
    certIssuerPublicKey: issuer.publicKey,
  };
  const key = (id: number) => ({ id, secret: randomBytes(GOSSIP_KEY_BYTES).toString('base64') });
  const address = formatControlAddress(o.advertise);
  return [
    {
      kind: 'cluster_create',
      cluster: {
        id: clusterId,
        spec,
        defaultAddressPool: o.defaultAddressPool ?? DEFAULT_ADDRESS_POOL,
        subnetSize: o.subnetSize ?? DEFAULT_SUBNET_SIZE,
        dataPathPort: o.dataPathPort ?? DEFAULT_DATA_PATH_PORT,
        joinTokens: { worker: newJoinToken(caPem), manager: newJoinToken(caPem) },
        rootCaPem: caPem,
        ...trust,
        rootRotationInProgress: false,
      },
      secrets: {
        caKeyPem,
        gossipKeys: [key(0), key(1)],
        gossipKeysRotatedAtMs: (o.now ?? Date.now)(),
        ulaPrefix: newUlaPrefix(),
      },
    },
    {
      kind: 'node_create',
      node: {
        id: nodeId,
        spec: { name: '', labels: {}, role: 'manager', availability: o.node.availability },
        description: { ...o.node.description, trustRootPem: caPem, ...trust },
        state: 'ready',
        stateMessage: '',
        peerId: peerIdOf(rawPublicKeyOf(identity.seed)),
        manager: { raftId: 1, address },
        ...addressesOf(o.node, o.advertise.address),
      },
    },
  ];
}

/** RFC 4193: fd and forty random bits. */
function newUlaPrefix(): string {
  const hex = randomBytes(5).toString('hex');
  return `fd${hex.slice(0, 2)}:${hex.slice(2, 6)}:${hex.slice(6, 10)}::/48`;
}

/** What the node left open is as the manager sees it. */
function addressesOf(
  registration: NodeRegistration,
  remoteAddress: string,
): Pick<NodeObject, 'address' | 'dataPathAddress' | 'gossipAddress' | 'gossipPort'> {
  const address = registration.address || remoteAddress;
  return {
    address,
    dataPathAddress: registration.dataPathAddress || address,
    gossipAddress: registration.gossipAddress || address,
    gossipPort: registration.gossipPort,
  };
}
