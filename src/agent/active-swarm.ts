import { randomInt } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { AttachRequest, DetachRequest, LocalAttachment } from '../api/index.js';
import { readCheck } from '../base/check-labels.js';
import { SwarmError } from '../base/swarm-error.js';
import type { NetworkObject } from '../base/swarm-model.js';
import type { Assignments, Manager, ManagerSession, NodeIdentity } from '../control/index.js';
import { balanceOfLabels } from '../dataplane/ingress/index.js';
import { listeningPorts, Outside, openTcpClientInNetns } from '../dataplane/io/index.js';
import { type NamedService, type NetworkNames, serviceNames } from '../dataplane/names/index.js';
import {
  type AddressFamily,
  collectEndpoints,
  type DeriveStats,
  deriveTables,
  type EndpointRecord,
  encodeEndpointRecord,
  type LocalPort,
  type OverlayInputs,
  type OverlayService,
  segmentMtuBytes,
} from '../dataplane/overlay/index.js';
import { Gossip } from '../gossip/index.js';
import type { PublishedTask } from '../runtime/index.js';
import { NodeAcknowledgements } from './acknowledgements.js';
import { formatHostPort } from './addresses.js';
import { type AttachableNetwork, type Attachment, Attachments, viewOf } from './attachments.js';
import type { AgentConfig } from './config.js';
import { Dataplane } from './dataplane.js';
import { ARCHITECTURE, hostAddresses, underlayMtuBytes } from './facts.js';
import { hostPortsOf, NodeIngress, vipsOn, withoutPrefix } from './ingress.js';
import type { Log } from './log.js';
import { NameServers, type NameTotals } from './name-servers.js';
import { NodeApi, type NodeDocker } from './node-api.js';
import { NodeTasks } from './node-tasks.js';
import { OutsideRuntime } from './outside-runtime.js';
import type { Runtimes } from './runtimes.js';
import type { SavedSwarm, StateFile } from './state-file.js';
import { NodeChecks } from './task-checks.js';
import { RECORD_HEAD_START_MS, TaskInterfaces } from './task-interfaces.js';

/** What a node in a swarm runs on. */
export interface ActiveSwarmOptions {
  readonly config: AgentConfig;
  readonly log: Log;
  readonly state: StateFile;
  readonly saved: SavedSwarm;
  readonly identity: NodeIdentity;
  readonly manager: () => Manager | undefined;
  readonly session: ManagerSession;
  /** The first assignments; later ones come from the session. */
  readonly assignments: Assignments;
  /** Something broke that the node cannot go on without. */
  readonly onFatal: (error: Error) => void;
  /** Docker's API of this node, for other nodes. */
  readonly docker?: NodeDocker;
  /** What runs this node's tasks. */
  readonly runtimes: Runtimes;
}

const LEAVE_GOSSIP_MS = 2000;
/** Tasks that take longer to end when the node leaves are killed. */
const LEAVE_TASKS_MS = 15_000;

/** Networks whose records one agent follows; gossip itself takes a few more. */
const TOPICS_MAX = 500;

/**
 * One node's part in a swarm: gossip, packet thread, attachments and names, kept in step.
 *
 * Everything that packets are decided by is derived anew from members, assignments, records and
 * attachments whenever one of them changes; nothing is patched.
 */
export class ActiveSwarm {
  readonly session: ManagerSession;
  readonly gossip: Gossip;
  readonly dataplane: Dataplane;
  readonly attachments: Attachments;
  /** What this node asks others, and what they ask it. */
  readonly nodeApi: NodeApi;
  readonly ingress: NodeIngress;
  readonly outside = new Outside();
  /** Of what was published here, by all live nodes. */
  readonly acknowledgements: NodeAcknowledgements;
  /** Of this node's tasks. */
  readonly checks: NodeChecks;
  /** Absent while the node begins. */
  #tasks: NodeTasks | undefined;
  readonly #options: ActiveSwarmOptions;
  readonly #names: NameServers;
  /** Differs from node to node. */
  readonly #namesSeed = randomInt(2 ** 32);
  readonly #underlayMtuBytes: number;
  readonly #family: AddressFamily;
  readonly #unsubscribe: (() => void)[] = [];
  #assignments: Assignments;
  #subscribed = new Set<string>();
  #deriveStats: Readonly<DeriveStats> | undefined;
  #malformedRecords = 0;
  #isScheduled = false;
  #isClosed = false;

  private constructor(options: ActiveSwarmOptions, gossip: Gossip, dataplane: Dataplane) {
    this.#options = options;
    this.session = options.session;
    this.gossip = gossip;
    this.dataplane = dataplane;
    this.#assignments = options.assignments;
    this.nodeApi = new NodeApi({
      gossip,
      self: options.identity.nodeId,
      isManager: (id) =>
        this.#assignments.nodes.some((node) => node.id === id && node.role === 'manager'),
      tasks: { logs: (...asked) => this.#logs(...asked) },
      ...(options.docker === undefined ? {} : { docker: options.docker }),
      facts: { answer: (...asked) => this.acknowledgements.answer(...asked) },
      log: options.log,
    });
    this.acknowledgements = new NodeAcknowledgements({
      self: options.identity.nodeId,
      records: gossip.records,
      isDerived: () => !this.#isScheduled,
      settled: () => dataplane.settled(),
      flowsTo: (taskId) => this.ingress.flowsTo(taskId),
      ask: (...asked) => this.nodeApi.askFacts(...asked),
      log: options.log,
    });
    this.#names = new NameServers(options.log);
    const { dataPathAddress } = options.saved;
    this.#underlayMtuBytes = underlayMtuBytes(dataPathAddress);
    this.#family = dataPathAddress.includes(':') ? 'ipv6' : 'ipv4';
    this.attachments = new Attachments(options.config.hostname, {
      state: options.state,
      log: options.log,
      offloads: dataplane.driver === 'native',
      network: (ref) => this.#attachable(ref),
      allocate: (request) => this.session.attach(request),
      release: (id) => this.session.detach(id),
      addPort: (attachment, fd) => this.#addPort(attachment, fd),
      raised: (attachment) => this.#onRaised(attachment),
      removePort: (attachment) => this.#removePort(attachment),
      changed: (attachment) => this.#onChanged(attachment),
    });
    this.ingress = new NodeIngress(options.log, this.attachments, options.config);
    this.checks = new NodeChecks({
      seed: randomInt(2 ** 32),
      checkOf: (serviceId) => {
        const service = this.#service(serviceId);
        return service && readCheck(service.labels, service.ports).check;
      },
      openIn: openTcpClientInNetns,
      changed: (id, isFailing) => this.#onChecked(id, isFailing),
    });
  }

  /**
   * Opens the ports (UDP and TCP gossip, UDP data path) and brings the attachments back.
   *
   * @throws SwarmError SWARM_PORT_TAKEN; nothing stays open then.
   */
  static async open(options: ActiveSwarmOptions): Promise<ActiveSwarm> {
    const { config, log, saved, identity, assignments } = options;
    const gossip = await Gossip.open({
      self: identity.nodeId,
      bindAddress: saved.advertise.address.includes(':') ? '::' : '0.0.0.0',
      port: config.gossipPort,
      advertiseAddress: saved.advertise.address,
      advertisePort: config.gossipPort,
      profile: config.gossipProfile,
      keys: assignments.gossipKeys,
      seed: identity.seed,
      log: log.child({ part: 'gossip' }),
    });
    let dataplane: Dataplane;
    try {
      dataplane = await Dataplane.open(
        {
          driver: config.dataPathDriver,
          io: {
            udpPort: assignments.cluster.dataPathPort,
            receiveBufferBytes: config.receiveBufferBytes,
            busyPollMicros: config.busyPollMicros,
            sourcePorts: config.sourcePorts,
          },
          self: identity.nodeId,
          ring: assignments.gossipKeys,
          dataDir: config.dataDir,
        },
        options.onFatal,
      );
    } catch (error) {
      await gossip.close();
      throw error;
    }
    log.info({ driver: dataplane.driver, reason: dataplane.reason }, 'data path is open');
    const swarm = new ActiveSwarm(options, gossip, dataplane);
    swarm.#follow();
    await swarm.attachments.restore();
    swarm.#openTasks();
    return swarm;
  }

  /** What runs here for the swarm; absent while the node begins. */
  get tasks(): NodeTasks | undefined {
    return this.#tasks;
  }

  get assignments(): Assignments {
    return this.#assignments;
  }

  /** As renewed last. */
  get identity(): NodeIdentity {
    return this.session.identity;
  }

  /** The manager on this node, while it is one. */
  get manager(): Manager | undefined {
    return this.#options.manager();
  }

  /** Done when the namespace can be used: its names work, and the others know it. */
  async attach(request: AttachRequest): Promise<LocalAttachment> {
    const attachment = await this.attachments.attach(request);
    if (this.gossip.members().length > 1) await delay(RECORD_HEAD_START_MS);
    await this.#names.opened();
    return attachment;
  }

  detach(request: DetachRequest): Promise<readonly LocalAttachment[]> {
    return this.attachments.detach(request);
  }

  /** What was attached here by hand: the swarm's own come and go with tasks and published ports. */
  localAttachments(): readonly LocalAttachment[] {
    return this.attachments
      .list()
      .filter((a) => a.assigned === undefined)
      .map(viewOf);
  }

  deriveStats(): Readonly<DeriveStats> & { readonly malformed: number } {
    const none: DeriveStats = {
      suspended: 0,
      ownerUnknown: 0,
      networkUnknown: 0,
      vniMismatch: 0,
      addressInvalid: 0,
      macConflicts: 0,
      addressConflicts: 0,
      vtepClaimed: 0,
      staticUnsealed: 0,
      refused: 0,
    };
    return { ...(this.#deriveStats ?? none), malformed: this.#malformedRecords };
  }

  nameStats(): NameTotals {
    return this.#names.stats();
  }

  /** Says good-bye to the other members and takes everything away, for good. */
  async leave(): Promise<void> {
    await this.#stop(true);
    await this.gossip.leave(LEAVE_GOSSIP_MS);
  }

  /** Takes away what was made on this host; attachments come back at the next start. */
  async close(): Promise<void> {
    await this.#stop(false);
    await this.gossip.close();
  }

  async #stop(forget: boolean): Promise<void> {
    if (this.#isClosed) return;
    for (const end of this.#unsubscribe) end();
    // Before their interfaces: they may have something to say at their end.
    if (forget) await this.#tasks?.leave(LEAVE_TASKS_MS);
    else await this.#tasks?.close();
    this.checks.close();
    this.acknowledgements.close();
    this.nodeApi.close();
    await this.ingress.close();
    await this.attachments.close(forget);
    if (forget) await this.outside.remove();
    this.#isClosed = true;
    await this.#names.close();
    await this.dataplane.close();
  }

  #openTasks(): void {
    const { config, session, runtimes, log, identity } = this.#options;
    const networks = new TaskInterfaces({
      attachments: this.attachments,
      checks: this.checks,
      hasOthers: () => this.gossip.members().length > 1,
      acknowledgements: this.acknowledgements,
      portsOf: (serviceId) => this.#service(serviceId)?.ports ?? [],
      listeningPorts,
      drainMs: (serviceId) => balanceOfLabels(this.#service(serviceId)?.labels ?? {}).drainMs,
      namesOpened: () => this.#names.opened(),
    });
    const { hostname, dataDir } = config;
    const node = { id: identity.nodeId, hostname, os: 'linux', architecture: ARCHITECTURE };
    const publish = (id: string, published: PublishedTask | undefined) =>
      this.ingress.setHostPorts(id, published === undefined ? [] : hostPortsOf(published));
    const outside = runtimes.all.map((runtime) =>
      config.outside === 'none'
        ? runtime
        : new OutsideRuntime(runtime, this.outside, (id) => this.#isForOutside(id), log),
    );
    const options = { dataDir, runtimes: outside, session, networks, publish, node, log };
    this.#tasks = new NodeTasks(this.#assignments, options);
  }

  /** As with Docker: not where all its networks are internal, or it wants none at all. */
  #isForOutside(id: string): boolean {
    const task = this.#assignments.tasks.find((one) => one.id === id);
    if (task === undefined) return false;
    const wanted = (task.spec.networks ?? []).map(({ target }) => target as string);
    if (wanted.includes('none')) return false;
    return this.reachesOutside(task.networks.map(({ networkId }) => networkId));
  }

  /** Whether what is on these networks, and on no other, gets outside. */
  reachesOutside(networkIds: readonly string[]): boolean {
    return this.#options.config.outside !== 'none' && !this.#areInternal(networkIds);
  }

  #areInternal(networkIds: readonly string[]): boolean {
    const networks = this.#assignments.networks.filter(({ id }) => networkIds.includes(id));
    return networks.length > 0 && networks.every(({ spec }) => spec.internal);
  }

  #logs(...[id, query, signal]: Parameters<NodeTasks['logs']>): ReturnType<NodeTasks['logs']> {
    if (this.#tasks === undefined)
      throw new SwarmError({ code: 'SWARM_INACTIVE' }, 'the node is only beginning: ask again');
    return this.#tasks.logs(id, query, signal);
  }

  #follow(): void {
    this.#unsubscribe.push(
      this.session.onAssignments((assignments) => this.#onAssignments(assignments)),
      this.gossip.onMembers(() => this.#onMembers()),
      this.gossip.records.onChange(() => this.#schedule()),
    );
    // Members too may be known already: whoever is not, is not asked to acknowledge.
    this.#onMembers();
    // Others may have come while the ports were opened, which takes seconds on a busy host.
    this.#onAssignments(this.session.assignments() ?? this.#assignments);
  }

  #onAssignments(assignments: Assignments): void {
    this.#assignments = assignments;
    this.gossip.setKeys(assignments.gossipKeys);
    this.dataplane.setRing(assignments.gossipKeys);
    const others = assignments.nodes.filter((node) => node.id !== this.identity.nodeId);
    this.gossip.setAdmitted(new Map(others.map((node) => [node.id, node.peerId])));
    this.gossip.join(
      others
        .filter((node) => node.gossipAddress !== '')
        .map((node) => ({ address: node.gossipAddress, port: node.gossipPort })),
    );
    this.#followTopics();
    void this.attachments.reconcile((attachment) => this.#isKnown(attachment));
    this.#schedule();
  }

  /**
   * Every agent holds the records of every network, since any may be attached to next; beyond
   * `TOPICS_MAX` only those of the networks that it is attached to and of the oldest others.
   */
  #followTopics(): void {
    const attached = this.attachments.list().map((a) => a.saved.networkId);
    const all = this.#assignments.networks.map((network) => network.id as string);
    const wanted = new Set([...new Set([...attached, ...all])].slice(0, TOPICS_MAX));
    for (const topic of this.#subscribed) {
      if (!wanted.has(topic)) this.gossip.records.unsubscribe(topic);
    }
    for (const topic of wanted) {
      if (!this.#subscribed.has(topic)) this.gossip.records.subscribe(topic);
    }
    this.#subscribed = wanted;
  }

  #onMembers(): void {
    const others = this.gossip
      .members()
      .filter(
        ({ id, state }) => id !== this.identity.nodeId && state !== 'dead' && state !== 'left',
      );
    this.acknowledgements.setMembers(others.map(({ id }) => id));
    this.manager?.reportMembership(new Map(this.gossip.members().map((m) => [m.id, m.state])));
    this.#schedule();
  }

  /** Whether the swarm still grants an attachment; asked only while the manager is heard. */
  #isKnown(attachment: Attachment): boolean {
    const { networkId } = attachment.saved;
    return this.#assignments.networks.some((network) => network.id === networkId);
  }

  #attachable(reference: string): AttachableNetwork | undefined {
    const network = findNetwork(this.#assignments.networks, reference);
    if (network === undefined) return undefined;
    const mtuBytes = segmentMtuBytes(network, this.#underlayMtuBytes, this.#family);
    if (mtuBytes === undefined) {
      throw new SwarmError(
        { code: 'SWARM_INVALID' },
        `the underlay's MTU of ${this.#underlayMtuBytes} leaves no room for an overlay: raise it`,
      );
    }
    if (network.isSealed === true && !this.dataplane.canSeal) {
      throw new SwarmError(
        { code: 'SWARM_UNSUPPORTED' },
        `network ${network.spec.name} is encrypted, and this node's packet driver cannot seal: use --data-path-driver portable`,
      );
    }
    const { id, vni, subnets, spec } = network;
    const { name, attachable, ingress: isIngress } = spec;
    return { id, name, vni, subnets, attachable, mtuBytes, isIngress };
  }

  #addPort(attachment: Attachment, fd: number): void {
    this.#followTopics();
    this.#derive();
    this.dataplane.addPort(attachment.saved.id, fd);
  }

  #onRaised(attachment: Attachment): void {
    const { saved, vni } = attachment;
    this.gossip.records.publish(
      saved.networkId,
      saved.id,
      encodeEndpointRecord(this.#recordOf(attachment, vni)),
    );
    this.#schedule();
  }

  /** The others are told by the records of its endpoints. */
  #onChecked(taskId: string, isFailing: boolean): void {
    const fields = { task: taskId };
    if (isFailing) this.#options.log.warn(fields, 'task fails its checks, and is passed over');
    else this.#options.log.info(fields, 'task passes its checks again');
    for (const { saved, assigned } of this.attachments.list())
      if (assigned?.service?.taskId === taskId)
        this.attachments.setEndpointFailing(saved.id, isFailing);
  }

  #onChanged(attachment: Attachment): void {
    if (attachment.state === 'up') this.#onRaised(attachment);
    else this.#schedule();
  }

  #removePort(attachment: Attachment): void {
    this.dataplane.removePort(attachment.saved.id);
    this.#derive();
    this.gossip.records.publish(attachment.saved.networkId, attachment.saved.id, undefined);
  }

  #recordOf(attachment: Attachment, vni: number): EndpointRecord {
    const { saved, assigned, answersDatagrams, answersDatagrams6 } = attachment;
    const { service, endpointState, isFailing } = assigned ?? {};
    return {
      version: 1,
      networkId: saved.networkId,
      vni,
      mac: saved.mac,
      addresses: saved.addresses,
      name: saved.name,
      aliases: saved.aliases,
      vtepAddress: this.#options.saved.dataPathAddress,
      vtepPort: this.#assignments.cluster.dataPathPort,
      createdAtMs: saved.createdAtMs,
      ...(service && { service }),
      ...(endpointState && { state: endpointState }),
      ...(isFailing && { isFailing }),
      ...(answersDatagrams && { answersDatagrams }),
      ...(answersDatagrams6 && { answersDatagrams6 }),
    };
  }

  /** Derives once for all changes of this turn of the event loop. */
  #schedule(): void {
    if (this.#isScheduled || this.#isClosed) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (!this.#isClosed) this.#derive();
    });
  }

  #derive(): void {
    const records = this.#assignments.networks.flatMap((network) =>
      this.gossip.records.entries(network.id),
    );
    const { endpoints, malformed } = collectEndpoints(records);
    const inputs: OverlayInputs = {
      self: {
        id: this.identity.nodeId,
        vtep: {
          address: this.#options.saved.dataPathAddress,
          udpPort: this.#assignments.cluster.dataPathPort,
        },
      },
      ownAddresses: hostAddresses()
        .map((a) => a.address)
        .filter((a) => !a.startsWith('fe80:')),
      family: this.#family,
      underlayMtuBytes: this.#underlayMtuBytes,
      members: this.gossip.members(),
      networks: this.#assignments.networks,
      endpoints,
      ports: this.attachments.list().map(portOf),
      services: this.#overlayServices(),
      staticVteps: this.#options.config.staticVteps.map(({ port, ...vtep }) => ({
        ...vtep,
        udpPort: port,
      })),
    };
    const { tables, stats } = deriveTables(inputs);
    this.#deriveStats = stats;
    this.#malformedRecords = malformed;
    this.dataplane.publish(tables);
    // A resolver's sockets need the loopback, which comes up with the interface.
    const raised = this.attachments.list().filter((a) => a.state === 'up');
    this.#names.update(
      // The host's own place among the tasks is no reason to answer its programs.
      raised.filter((a) => a.assigned?.purpose !== 'ingress'),
      (networkId) => this.#namesOf(networkId, endpoints),
      (networkIds) => !this.#areInternal(networkIds),
    );
    this.checks.follow();
    this.ingress.update({
      self: this.identity.nodeId,
      assignments: this.#assignments,
      endpoints,
      members: inputs.members,
      attachments: this.attachments.list(),
    });
    this.acknowledgements.derived();
  }

  #service(id: string): Assignments['services'][number] | undefined {
    return this.#assignments.services.find((service) => service.id === id);
  }

  #servicesOn(networkId: string): NamedService[] {
    return this.#assignments.services.flatMap((service) => {
      const place = service.networks.find(({ target }) => target === networkId);
      if (place === undefined) return [];
      const { id, name } = service;
      const ports = service.ports.map(({ name, protocol, targetPort }) => ({
        name,
        protocol,
        port: targetPort,
      }));
      const aliases = place.aliases ?? [];
      const { ceiling } = balanceOfLabels(service.labels).balance.outlier;
      return [{ id, name, aliases, vips: vipsOn(service, networkId), ports, ceiling }];
    });
  }

  /** Services with VIPs on networks that tasks talk on. */
  #overlayServices(): OverlayService[] {
    const networks = this.#assignments.networks.filter((n) => !n.spec.ingress);
    return this.#assignments.services.flatMap((service) => {
      const vips = networks.flatMap(({ id }) =>
        vipsOn(service, id).map((address) => ({ networkId: id, address })),
      );
      const { balance } = balanceOfLabels(service.labels);
      return vips.length === 0 ? [] : [{ id: service.id, vips, balance }];
    });
  }

  /** The names of one network: its own endpoints, and those of owners that are not dead. */
  #namesOf(networkId: string, endpoints: OverlayInputs['endpoints']): NetworkNames {
    const gone = new Set(
      this.gossip
        .members()
        .filter((m) => m.state === 'dead' || m.state === 'left')
        .map((m) => m.id),
    );
    const remote = endpoints
      .filter(
        ({ owner, record }) =>
          record.networkId === networkId && owner !== this.identity.nodeId && !gone.has(owner),
      )
      .map(({ record }) => record);
    const own = this.attachments
      .list()
      .filter((a) => a.saved.networkId === networkId)
      .map(({ saved, assigned }) => ({
        ...saved,
        service: assigned?.service,
        state: assigned?.endpointState,
        isFailing: assigned?.isFailing,
      }));
    const network = this.#assignments.networks.find((n) => n.id === networkId);
    // Services are reached by their ports there, not by names.
    if (network?.spec.ingress === true) return { network: network.spec.name, entries: [] };
    return serviceNames(
      network?.spec.name ?? networkId,
      this.#servicesOn(networkId),
      [...remote, ...own].map(({ name, aliases, addresses, service, state, isFailing }) => ({
        name,
        aliases,
        addresses: addresses.map(withoutPrefix),
        state: state ?? 'ready',
        isFailing,
        service,
      })),
      this.#namesSeed,
    );
  }

  /** For people and for comparison between nodes: see `shoal status`. */
  describe(): Record<string, unknown> {
    const { manager, saved } = { manager: this.manager !== undefined, saved: this.#options.saved };
    return {
      node: this.identity.nodeId,
      role: this.identity.role,
      manager,
      managerReachable: this.session.connected,
      dataPath: {
        driver: this.dataplane.driver,
        reason: this.dataplane.reason,
        address: formatHostPort({
          address: saved.dataPathAddress,
          port: this.#assignments.cluster.dataPathPort,
        }),
        underlayMtuBytes: this.#underlayMtuBytes,
      },
      members: this.gossip.members(),
    };
  }
}

function portOf({ saved, assigned }: Attachment): LocalPort {
  const { id, networkId, mac, addresses, createdAtMs } = saved;
  const { service, endpointState: state, isFailing } = assigned ?? {};
  return { id, networkId, mac, addresses, createdAtMs, service, state, isFailing };
}

/** By id, then by name, then by an unambiguous beginning of an id. */
export function findNetwork(
  networks: readonly NetworkObject[],
  reference: string,
): NetworkObject | undefined {
  const exact =
    networks.find((n) => n.id === reference) ?? networks.find((n) => n.spec.name === reference);
  if (exact !== undefined || reference === '') return exact;
  const byPrefix = networks.filter((n) => n.id.startsWith(reference));
  if (byPrefix.length > 1) {
    throw new SwarmError(
      { code: 'SWARM_AMBIGUOUS', kind: 'network', ref: reference, count: byPrefix.length },
      `network ${reference} is ambiguous (${byPrefix.length} matches): give more of the id`,
    );
  }
  return byPrefix[0];
}
