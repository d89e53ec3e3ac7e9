import { z } from 'zod';
import type { ServiceObject, ServiceSpec, TaskObject } from '../../base/service-model.js';
import { SwarmError } from '../../base/swarm-error.js';
import type {
  AttachmentId,
  AttachmentObject,
  ClusterObject,
  ClusterSpec,
  ConfigId,
  ConfigObject,
  ConfigSpec,
  Labels,
  ManagerStatus,
  NetworkId,
  NetworkObject,
  NetworkSpec,
  NodeDescription,
  NodeId,
  NodeObject,
  NodeSpec,
  NodeView,
  SecretId,
  SecretObject,
  SecretSpec,
  ServiceId,
  TaskId,
} from '../../base/swarm-model.js';
import {
  Dispatcher,
  type DispatcherStats,
  formatControlAddress,
  type MembershipState,
} from '../dispatch/index.js';
import {
  type ApiCertificate,
  type ApiCertificateRequest,
  CaServer,
  type CaServerStats,
  type GivenRoot,
  issueApiCertificate,
  type NodeIdentity,
  newJoinToken,
  type PeerJudgeStats,
  publicTrust,
  refuseExternalCas,
  startRotation,
} from '../identity/index.js';
import { Outdated } from '../orchestrate/index.js';
import { generateUnlockKey, type RaftNodeStatus } from '../raft/index.js';
import {
  type ChangeListener,
  type CommandBody,
  type HistoryEntry,
  networkOf,
  ONLY_ROW,
} from '../store/index.js';
import { parseMemberContext } from '../wire/member-context.js';
import { NotLeader } from './forward-server.js';
import { newId } from './ids.js';
import type { LeaderClientStats } from './leader-client.js';
import { LeaderDuties } from './leader-duties.js';
import type { ListenerStats } from './listener.js';
import { caBackend } from './manager-ca.js';
import { dispatchBackend } from './manager-dispatch.js';
import type { ManagerGroup } from './manager-group.js';
import { ManagerLock } from './manager-lock.js';
import { caOf, clusterOf, type ManagerScope, secretsOf } from './manager-scope.js';
import { LeaderOrchestrator } from './orchestrator.js';

/** How long a reader waits for the word of a quorum before it is answered with what is known here. */
const FRESH_MS_MAX = 1_500;
/** How often it is looked who of the managers is reachable. */
const LOOK_INTERVAL_MS = 500;
const CUT_OFF_MS = 3_000;
const LEAVE_GROUP_MS_MAX = 5_000;
/** A manager that could not tell its address tells it again after so long. */
const ADDRESS_RETRY_MS = 1_000;

const removedSchema = z.object({ raftId: z.int().min(1) });

export interface ManagerStats {
  readonly listener: ListenerStats;
  readonly dispatcher: DispatcherStats;
  readonly raft: RaftNodeStatus;
  readonly ca: CaServerStats;
  readonly peers: PeerJudgeStats;
  readonly leader: LeaderClientStats;
}

/** What else is to change with the settings of the swarm. */
export interface ClusterChange {
  readonly workerToken?: boolean;
  readonly managerToken?: boolean;
  readonly unlockKey?: boolean;
  /** The root is to change. */
  readonly root?: boolean;
  /** The root that is to take its place; absent: the swarm makes one. */
  readonly givenRoot?: GivenRoot;
}

/** The new contents of a secret or config, of which only the labels may differ. */
export interface BlobChange {
  readonly name: string;
  readonly labels: Labels;
  /** Base64. */
  readonly data?: string;
}

/** A new spec of a service, or with `rollback` the one before. */
export interface ServiceChange {
  readonly spec: ServiceSpec;
  readonly rollback: boolean;
  readonly auth: { readonly encoded?: string };
  /** Without `auth.encoded`: whose credentials to keep. */
  readonly authFrom: 'spec' | 'previous-spec';
}

/**
 * One of the swarm's managers: serves agents, joiners and readers from its own copy of the state,
 * and brings changes to whoever leads.
 *
 * Reads are of this copy and immediate; `fresh` makes it as new as the question. A change answers
 * when most managers have it on disk and this copy shows it.
 */
export class Manager {
  readonly #group: ManagerGroup;
  readonly #scope: ManagerScope;
  readonly #dispatcher: Dispatcher;
  readonly #caServer: CaServer;
  readonly #duties: LeaderDuties;
  readonly #orchestrator: LeaderOrchestrator;
  readonly #lock: ManagerLock;
  readonly #timer: NodeJS.Timeout;
  /** By the service as it is now: asked for five times a second by every CLI that waits. */
  readonly #outdated = new WeakMap<ServiceObject, Outdated>();
  readonly #endListeners = new Set<() => void>();
  readonly #unsubscribe: (() => void)[] = [];
  #freshAtMs = performance.now();
  #reachable: ReadonlySet<NodeId> = new Set();
  #seenLeading = false;
  #wasMember = false;
  #closed = false;

  /** The group's state must be here. @param unlockKey What the disk was opened with. */
  constructor(group: ManagerGroup, unlockKey: string | undefined) {
    this.#group = group;
    const { place, replica, leader } = group;
    const { nodeId: self, clusterId } = group.identity;
    const now = place.now ?? Date.now;
    this.#scope = {
      log: place.log,
      self,
      clusterId,
      replica,
      leader,
      now,
      identity: () => group.identity,
      propose: (body) => leader.propose({ ...body, atMs: now() }),
    };
    this.#dispatcher = new Dispatcher(
      dispatchBackend(this.#scope, {
        era: () => group.member.era,
        leader: () => this.#leaderId(),
        stale: () => this.#leaderId() === undefined,
      }),
    );
    this.#caServer = new CaServer(caBackend(this.#scope, () => group.managers()));
    this.#duties = new LeaderDuties(this.#scope, (member) => group.tellRemoved(member));
    this.#orchestrator = new LeaderOrchestrator(this.#scope);
    this.#lock = new ManagerLock(group, unlockKey);
    group.serve(
      {
        onCa: (socket, remoteAddress) => this.#caServer.serve(socket, remoteAddress),
        onDispatch: (socket, remoteAddress) => {
          const peer = group.agentJudge.judge(socket, remoteAddress);
          if (peer !== undefined && !this.#closed)
            this.#dispatcher.accept(socket, peer.nodeId, remoteAddress, { issuer: peer.issuer });
          else socket.destroy();
        },
      },
      {
        'raft.leave': (_params, from) => this.#onLeave(from),
        'raft.removed': (params) => this.#onRemoved(params),
      },
    );
    this.#unsubscribe.push(
      replica.watch((changes) => {
        this.#dispatcher.changed(changes);
        if (changes.some(({ table }) => table === 'secrets')) this.#lock.follow();
        for (const { table, key, after } of changes)
          if (table === 'node' && after === undefined) this.#dispatcher.remove(key as NodeId);
      }),
      // What came and went in a gap is in no change: agents are told everything anew.
      replica.onRestored(() => this.#dispatcher.changed()),
      replica.onStatus(() => this.#look()),
    );
    this.#timer = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
    this.#timer.unref();
    this.#look();
    this.#lock.follow();
    void this.#tellAddress();
  }

  get group(): ManagerGroup {
    return this.#group;
  }

  get scope(): ManagerScope {
    return this.#scope;
  }

  /** The port that is listened on. */
  get port(): number {
    return this.#group.port;
  }

  get identity(): NodeIdentity {
    return this.#group.identity;
  }

  /** The node's certificate was renewed. */
  useIdentity(identity: NodeIdentity): void {
    this.#group.useIdentity(identity);
  }

  /** No leader has been heard of for a while: what this manager says of roles may be old. */
  get isCutOff(): boolean {
    return performance.now() - this.#freshAtMs > CUT_OFF_MS;
  }

  /** Called once, when this node is no member of the group any more: it was demoted or removed. */
  onEnd(listener: () => void): void {
    this.#endListeners.add(listener);
  }

  /**
   * Makes this copy as new as the call. Answers how old it may be, in milliseconds, when there is no
   * quorum to ask, and `undefined` when it is fresh.
   */
  async fresh(): Promise<number | undefined> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<false>((resolve) => {
      timer = setTimeout(resolve, FRESH_MS_MAX, false);
    });
    const read = this.#scope.replica.raft.read().then(
      () => true,
      () => false,
    );
    const isFresh = await Promise.race([read, late]);
    clearTimeout(timer);
    if (isFresh) {
      this.#freshAtMs = performance.now();
      return undefined;
    }
    return Math.round(performance.now() - this.#freshAtMs);
  }

  cluster(): ClusterObject {
    return clusterOf(this.#scope);
  }

  nodes(): NodeView[] {
    return [...this.#state.rows('node')].map((node) => this.#viewOf(node));
  }

  node(id: string): NodeView | undefined {
    const node = this.#state.row('node', id);
    return node && this.#viewOf(node);
  }

  networks(): NetworkObject[] {
    return [...this.#state.rows('network')];
  }

  network(id: string): NetworkObject | undefined {
    return this.#state.row('network', id);
  }

  attachments(): AttachmentObject[] {
    return [...this.#state.rows('attachment')];
  }

  /** Without their contents. */
  secrets(): SecretObject[] {
    return [...this.#state.rows('secret')].map(({ data: _, ...secret }) => secret);
  }

  configs(): ConfigObject[] {
    return [...this.#state.rows('config')];
  }

  /** None that is being removed. */
  services(): ServiceObject[] {
    return [...this.#state.rows('service')].filter((service) => service.pendingDelete !== true);
  }

  service(id: string): ServiceObject | undefined {
    const service = this.#state.row('service', id);
    return service?.pendingDelete === true ? undefined : service;
  }

  /** @returns Its id; `undefined`: no service has this name. */
  serviceByName(name: string): string | undefined {
    return this.#state.serviceByName(name);
  }

  tasks(): TaskObject[] {
    return [...this.#state.rows('task')];
  }

  task(id: string): TaskObject | undefined {
    return this.#state.row('task', id);
  }

  tasksOfService(id: string): TaskObject[] {
    return this.#tasksOf(this.#state.tasksOfService(id as ServiceId));
  }

  /** The task is as the service's present spec wants it, where it matters to the task. */
  isUpToDate(service: ServiceObject, task: TaskObject): boolean {
    let outdated = this.#outdated.get(service);
    if (outdated === undefined) {
      const nodeOf = ({ nodeId }: Pick<TaskObject, 'nodeId'>) =>
        nodeId && this.#state.row('node', nodeId);
      outdated = new Outdated({ service, nodeOf });
      this.#outdated.set(service, outdated);
    }
    return !outdated.has(task);
  }

  tasksOnNode(id: string): TaskObject[] {
    return this.#tasksOf(this.#state.tasksOnNode(id as NodeId));
  }

  /** By the swarm's CA, as it is now. */
  apiCertificate(
    request: Omit<ApiCertificateRequest, 'clusterId' | 'atMs'>,
  ): Promise<ApiCertificate> {
    const { clusterId, now } = this.#scope;
    return issueApiCertificate(caOf(this.#scope), { ...request, clusterId, atMs: now() });
  }

  /** Called with the changes of each entry of the log, after they are made. @returns Ends it. */
  onChange(listener: ChangeListener): () => void {
    return this.#scope.replica.watch(listener);
  }

  history(): readonly HistoryEntry[] {
    return this.#scope.replica.history();
  }

  /** `undefined`: autolock is off. */
  unlockKey(): string | undefined {
    return secretsOf(this.#scope).unlockKey;
  }

  stats(): ManagerStats {
    return {
      listener: this.#group.listener.stats(),
      dispatcher: this.#dispatcher.stats(),
      raft: this.#scope.replica.status,
      ca: this.#caServer.stats(),
      peers: this.#group.judge.stats(),
      leader: this.#scope.leader.stats(),
    };
  }

  /** @throws SwarmError `SWARM_OUT_OF_SEQUENCE`, `SWARM_INVALID`, `SWARM_UNSUPPORTED`. */
  async updateCluster(
    version: number,
    spec: ClusterSpec,
    change: ClusterChange = {},
  ): Promise<void> {
    refuseExternalCas(spec.ca?.externalCas ?? []);
    const { rootCaPem } = this.cluster();
    const needsKey = change.unlockKey === true || this.unlockKey() === undefined;
    const update: CommandBody = {
      kind: 'cluster_update',
      version,
      spec,
      joinTokens: {
        ...(change.workerToken === true && { worker: newJoinToken(rootCaPem) }),
        ...(change.managerToken === true && { manager: newJoinToken(rootCaPem) }),
      },
      ...(spec.autolock && needsKey && { unlockKey: generateUnlockKey() }),
    };
    if (change.root !== true) {
      await this.#propose(update);
      return;
    }
    // What the new root is computed from must be what the user has seen.
    await this.#scope.replica.raft.read().catch(() => {});
    const ca = await startRotation(caOf(this.#scope), {
      atMs: this.#scope.now(),
      forceRotate: spec.ca?.forceRotate ?? 0,
      given: change.givenRoot,
    });
    await this.#scope.leader.propose({
      kind: 'transaction',
      commands: [update, { kind: 'ca_rotation_start', ca, trust: await publicTrust(ca) }],
      atMs: this.#scope.now(),
    });
  }

  /** @throws SwarmError `SWARM_NOT_FOUND`, `SWARM_OUT_OF_SEQUENCE`, or why the role must stay. */
  async updateNode(id: string, version: number, spec: NodeSpec): Promise<void> {
    const node = this.#state.row('node', id);
    if (node?.manager !== undefined && spec.role === 'worker') this.#checkDemotion(node);
    await this.#propose({ kind: 'node_update', nodeId: id as NodeId, version, spec });
  }

  /** @throws SwarmError `SWARM_NOT_FOUND`, `SWARM_NODE_NOT_DOWN`; `SWARM_INVALID` for a manager. */
  async removeNode(id: string, force: boolean): Promise<void> {
    await this.#propose({ kind: 'node_remove', nodeId: id as NodeId, force });
  }

  /** @throws SwarmError see `checkNetworkSpec` and `allocateSubnets` of the store. */
  async createNetwork(spec: NetworkSpec): Promise<NetworkObject> {
    const id = await this.#propose({ kind: 'network_create', id: newId<NetworkId>(), spec });
    return networkOf(this.#state, id);
  }

  /** @param ref Id, name, or unique prefix of an id. @throws SwarmError `SWARM_NOT_FOUND`, `SWARM_IN_USE`. */
  async removeNetwork(ref: string): Promise<void> {
    await this.#propose({ kind: 'network_remove', ref });
  }

  /** Releases an attachment of any node, as an operator may. */
  async removeAttachment(id: AttachmentId): Promise<void> {
    await this.#propose({ kind: 'attachment_remove', id });
  }

  /** @param data Base64. */
  createSecret(spec: SecretSpec, data: string): Promise<string> {
    return this.#propose({ kind: 'secret_create', id: newId<SecretId>(), spec, data });
  }

  async updateSecret(id: string, version: number, change: BlobChange): Promise<void> {
    await this.#propose({ kind: 'secret_update', id: id as SecretId, version, ...change });
  }

  async removeSecret(id: string): Promise<void> {
    await this.#propose({ kind: 'secret_remove', id: id as SecretId });
  }

  /** @param data Base64. */
  createConfig(spec: ConfigSpec, data: string): Promise<string> {
    return this.#propose({ kind: 'config_create', id: newId<ConfigId>(), spec, data });
  }

  async updateConfig(id: string, version: number, change: BlobChange): Promise<void> {
    await this.#propose({ kind: 'config_update', id: id as ConfigId, version, ...change });
  }

  async removeConfig(id: string): Promise<void> {
    await this.#propose({ kind: 'config_remove', id: id as ConfigId });
  }

  /** @throws SwarmError `SWARM_INVALID`, `SWARM_NAME_TAKEN`, … in swarmkit's words. */
  async createService(
    spec: ServiceSpec,
    { encoded }: { readonly encoded?: string },
  ): Promise<{ readonly id: string; readonly warnings: readonly string[] }> {
    const id = await this.#propose({
      kind: 'service_create',
      id: newId<ServiceId>(),
      spec,
      ...(encoded !== undefined && { registryAuth: encoded }),
    });
    return { id, warnings: [] };
  }

  /** @throws SwarmError as `createService`, and `SWARM_NOT_FOUND`, `SWARM_OUT_OF_SEQUENCE`. */
  async updateService(
    id: string,
    version: number,
    { spec, rollback, auth: { encoded }, authFrom }: ServiceChange,
  ): Promise<{ readonly id: string; readonly warnings: readonly string[] }> {
    await this.#propose({
      kind: 'service_update',
      id: id as ServiceId,
      version,
      authFrom,
      ...(!rollback && { spec }),
      ...(encoded !== undefined && { registryAuth: encoded }),
    });
    return { id, warnings: [] };
  }

  /** Its tasks end afterwards. @throws SwarmError `SWARM_NOT_FOUND`. */
  async removeService(id: string): Promise<void> {
    await this.#propose({ kind: 'service_remove', id: id as ServiceId });
  }

  /** The whole state as it is here, in chunks. */
  capture(): Iterable<Uint8Array> {
    return this.#scope.replica.capture();
  }

  /** What gossip knows of all members: the second witness before a node is called down. */
  reportMembership(states: ReadonlyMap<string, MembershipState>): void {
    if (this.#closed) return;
    this.#dispatcher.reportMembership(states);
    this.#scope.replica.raft.updateDials();
  }

  /** Called after changes of any object. */
  watch(listener: () => void): () => void {
    return this.#scope.replica.watch(() => listener());
  }

  /**
   * Leaves the group of managers before the node leaves the swarm, so that the others do not count
   * it among those that are lost. @returns False: no leader was there to be told.
   */
  async leaveGroup(): Promise<boolean> {
    if (this.#scope.replica.status.members.length <= 1) return false;
    try {
      if (this.#scope.replica.status.role === 'leader')
        await this.#scope.replica.raft.transferLeadership();
      await this.#scope.leader.callLeader(
        'raft.leave',
        {},
        {
          timeoutMs: LEAVE_GROUP_MS_MAX,
          repeatable: true,
        },
      );
      return true;
    } catch (error) {
      this.#scope.log.warn({ err: error }, 'left without a word to the other managers');
      return false;
    }
  }

  /** Tells the agents, finishes what was begun, and lets the port go. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    for (const end of this.#unsubscribe) end();
    this.#duties.close();
    this.#orchestrator.close();
    this.#dispatcher.close();
    await this.#lock.close();
    await this.#group.close();
  }

  get #state() {
    return this.#scope.replica.state;
  }

  #tasksOf(ids: ReadonlySet<TaskId>): TaskObject[] {
    return [...ids].flatMap((id) => this.#state.row('task', id) ?? []);
  }

  async #propose(body: CommandBody): Promise<string> {
    return (await this.#scope.propose(body)).id;
  }

  #leaderId(): NodeId | undefined {
    const place = this.#group.leaderPlace();
    if (place === undefined) return undefined;
    return place.local ? this.#scope.self : place.nodeId;
  }

  #viewOf(node: NodeObject): NodeView {
    const { manager, ...rest } = { ...node, description: this.#trusting(node.description) };
    if (manager === undefined) return rest;
    const status: ManagerStatus = {
      leader: this.#leaderId() === node.id,
      reachability: this.#reachable.has(node.id) ? 'reachable' : 'unreachable',
      address: manager.address,
    };
    return { ...rest, manager: status };
  }

  /** Whoever has a certificate by the root that signs was given that root along with it. */
  #trusting(description: NodeDescription): NodeDescription {
    const { rootCaPem, certIssuerPublicKey, rootRotationInProgress } = this.cluster();
    const renewed = description.certIssuerPublicKey === certIssuerPublicKey;
    if (rootRotationInProgress || !renewed) return description;
    return { ...description, trustRootPem: rootCaPem };
  }

  /** Members that can be asked: by the leader's own measure where it leads, by connections elsewhere. */
  #reachableNow(): Set<NodeId> {
    const { id, role, members, followers, peers, leader } = this.#scope.replica.status;
    const there = new Set<number>([id]);
    if (leader !== 0) there.add(leader);
    if (role === 'leader') {
      for (const follower of followers) if (follower.active) there.add(follower.id);
    } else for (const peer of peers) if (peer.connected) there.add(peer.id);
    return new Set(
      members.flatMap((member) => {
        const context = there.has(member.id) && parseMemberContext(member.context);
        return context ? [context.nodeId] : [];
      }),
    );
  }

  #look(): void {
    if (this.#closed) return;
    const { role, leaderReady, members, id } = this.#scope.replica.status;
    const leading = role === 'leader' && leaderReady;
    this.#reachable = this.#reachableNow();
    if (this.#leaderId() !== undefined) this.#freshAtMs = performance.now();
    this.#dispatcher.setManagers(leading, this.#reachable);
    if (leading !== this.#seenLeading) {
      this.#seenLeading = leading;
      this.#scope.log.info({ leading }, leading ? 'this manager leads' : 'this manager follows');
      if (leading) this.#duties.wake();
    }
    const isMember = members.some((member) => member.id === id);
    if (isMember) this.#wasMember = true;
    // Also a demotion that the node slept through: its row says so when the others have told it.
    else if (this.#wasMember) this.#end();
    if (this.#state.row('cluster', ONLY_ROW) !== undefined) {
      const own = this.#state.row('node', this.#scope.self);
      if (own !== undefined && own.manager === undefined && own.spec.role === 'worker') this.#end();
    }
  }

  #end(): void {
    if (this.#closed) return;
    for (const listener of this.#endListeners) listener();
    this.#endListeners.clear();
  }

  #checkDemotion(node: NodeObject): void {
    const voters = this.#scope.replica.status.members.filter(({ voter }) => voter);
    const left = voters.filter(({ id }) => id !== node.manager?.raftId);
    const there = left.filter((member) => {
      const context = parseMemberContext(member.context);
      return context !== undefined && this.#reachable.has(context.nodeId);
    });
    if (left.length === 0 || there.length > left.length / 2) return;
    throw new SwarmError(
      { code: 'SWARM_INVALID' },
      "can't remove member from the raft: this would result in a loss of quorum",
    );
  }

  /** The word of a manager, and managers are trusted. */
  #onRemoved(params: unknown): Promise<unknown> {
    // It may be about the member that this node was before it came back with an empty disk.
    const raftId = removedSchema.safeParse(params).data?.raftId;
    if (raftId === this.#group.member.raftId) setImmediate(() => this.#end());
    return Promise.resolve({});
  }

  /** On the leader: a manager leaves for good. The rest follows from its role. */
  async #onLeave(from: NodeId): Promise<unknown> {
    if (this.#scope.replica.status.role !== 'leader') throw new NotLeader(this.#group.leaderHint());
    const node = this.#state.row('node', from);
    if (node === undefined || node.spec.role === 'worker') return {};
    this.#checkDemotion(node);
    const spec: NodeSpec = { ...node.spec, role: 'worker' };
    await this.updateNode(from, node.version, spec);
    return {};
  }

  /** The address that this manager has now, in case it is another than before. */
  async #tellAddress(): Promise<void> {
    const { self } = this.#scope;
    const { raftId } = this.#group.member;
    const address = formatControlAddress(this.#group.advertised);
    while (!this.#closed) {
      const own = this.#state.row('node', self)?.manager;
      if (own === undefined || (own.raftId === raftId && own.address === address)) return;
      try {
        await this.#propose({
          kind: 'node_observe',
          nodeId: self,
          observation: { manager: { raftId, address } },
        });
      } catch {
        await new Promise((resolve) => setTimeout(resolve, ADDRESS_RETRY_MS).unref());
      }
    }
  }
}
