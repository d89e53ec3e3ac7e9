import type {
  AttachRequest,
  Backend,
  BlobUpdate,
  ClientCertificate,
  ClientCertificateRequest,
  DetachRequest,
  FlowsAnswer,
  FlowsQuery,
  Freshness,
  HistoryItem,
  HistoryQuery,
  HostFacts,
  InitRequest,
  JoinRequest,
  LocalAttachment,
  LocalSwarm,
  PortItem,
  RecoverRequest,
  RegistryAuth,
  Rotation,
  ServiceAnswer,
  ServiceUpdate,
  SwarmEvent,
  TaskLogQuery,
  TaskLogRecord,
} from '../../src/api/index.js';
import type {
  ServiceObject,
  ServiceSpec,
  TaskObject,
  VirtualIp,
} from '../../src/base/service-model.js';
import { SwarmError, type SwarmErrorDetail } from '../../src/base/swarm-error.js';
import type {
  AttachmentId,
  AttachmentObject,
  ClusterId,
  ClusterObject,
  ClusterSpec,
  ConfigId,
  ConfigObject,
  ConfigSpec,
  NetworkId,
  NetworkObject,
  NetworkSpec,
  NodeId,
  NodeSpec,
  NodeView,
  ObjectMeta,
  SecretId,
  SecretObject,
  SecretSpec,
  ServiceId,
} from '../../src/base/swarm-model.js';

const refuse = (detail: SwarmErrorDetail, message = `refused: ${detail.code}`): never => {
  throw new SwarmError(detail, message);
};

const id25 = (text: string) => text.padEnd(25, '0');
const ADDRESS = '192.168.78.11';
const PEM = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n';
export const AT_MS = Date.UTC(2026, 10, 20, 16, 1, 46, 169);
export const TOKEN = `SWMTKN-1-${'1'.repeat(50)}-${'a'.repeat(25)}`;

const INACTIVE: LocalSwarm = {
  state: 'inactive',
  nodeId: '',
  nodeAddress: '',
  error: '',
  controlAvailable: false,
  remoteManagers: [],
};

/** A swarm in memory: enough of one to answer every route, and no more. */
export class FakeBackend implements Backend {
  /** What each write was asked, in order. */
  readonly asked: unknown[][] = [];
  /** The next write is refused with it. */
  refusal: SwarmErrorDetail | undefined;
  local: LocalSwarm = INACTIVE;
  nodeObjects: NodeView[] = [];
  networkObjects: NetworkObject[] = [];
  attachmentObjects: AttachmentObject[] = [];
  localObjects: LocalAttachment[] = [];
  warnings: string[] = [];
  /** With their contents, as a careless agent would hand them over. */
  secretObjects: (SecretObject & { readonly data: string })[] = [];
  configObjects: ConfigObject[] = [];
  serviceObjects: ServiceObject[] = [];
  taskObjects: TaskObject[] = [];
  logLines: TaskLogRecord[] = [];
  serviceWarnings: string[] = [];
  /** A follower's answer ends with the lines that are there. */
  followsEnd = false;
  /** With `refusal`. */
  refusalWords: string | undefined;
  historyItems: HistoryItem[] = [];
  openFlows: FlowsAnswer['flows'] = [];
  key = '';
  freshness: Freshness = {};
  /** Questions that were to be answered freshly. */
  freshened = 0;
  snapshot: AsyncIterable<Uint8Array> | Iterable<Uint8Array> = [];
  readonly #listeners = new Set<(event: SwarmEvent) => void>();
  #version = 10;

  static manager(): FakeBackend {
    const backend = new FakeBackend();
    backend.#activate();
    return backend;
  }

  static worker(): FakeBackend {
    const backend = FakeBackend.manager();
    const { cluster: _, nodes: __, managers: ___, ...rest } = backend.local;
    backend.local = { ...rest, nodeId: id25('worker'), controlAvailable: false };
    backend.nodeObjects = [];
    return backend;
  }

  facts(): HostFacts {
    return {
      id: 'c38d2e0e-053e-468c-92cd-7b5ca1d3fa05',
      hostname: 'mn1',
      kernelVersion: '6.18.44',
      operatingSystem: 'Debian GNU/Linux 12 (bookworm)',
      architecture: 'x86_64',
      cpuCount: 2,
      memoryBytes: 25_276_502_016,
      agentVersion: '0.1.0',
      gitCommit: '411e817',
      builtAtMs: AT_MS,
      dataDir: '/var/lib/shoal',
      dataPathDriver: { name: 'native (TAP + UDP GSO)', reason: 'the addon is built' },
      ingressDriver: { name: 'native', reason: 'the addon is built' },
      warnings: this.warnings,
      labels: { rack: 'r1' },
    };
  }

  swarm(): LocalSwarm {
    return this.local;
  }

  async init(request: InitRequest): Promise<string> {
    this.#ask('init', request);
    if (this.local.state !== 'inactive') refuse({ code: 'SWARM_ALREADY_ACTIVE' });
    if (request.advertiseAddress === 'nosuchif') {
      refuse({ code: 'SWARM_BAD_ADDRESS', kind: 'advertise' });
    }
    this.#activate(request.spec);
    return this.local.nodeId;
  }

  async join(request: JoinRequest): Promise<void> {
    this.#ask('join', request);
    if (this.local.state !== 'inactive') refuse({ code: 'SWARM_ALREADY_ACTIVE' });
    if (!request.joinToken.startsWith('SWMTKN-1-')) refuse({ code: 'SWARM_TOKEN_MALFORMED' });
    this.local = FakeBackend.worker().local;
  }

  async leave(force: boolean): Promise<void> {
    this.#ask('leave', force);
    if (this.local.state === 'inactive') refuse({ code: 'SWARM_NOT_PART' });
    if (this.local.controlAvailable && !force) {
      const managers = this.nodeObjects.filter(({ manager }) => manager !== undefined);
      refuse({ code: 'SWARM_MANAGER_LEAVE', last: managers.length === 1 });
    }
    this.local = INACTIVE;
    this.nodeObjects = [];
    this.networkObjects = [];
  }

  async updateCluster(version: number, spec: ClusterSpec, rotate: Rotation): Promise<void> {
    this.#ask('updateCluster', version, spec, rotate);
    const { cluster } = this.local;
    if (cluster === undefined) return refuse({ code: 'SWARM_NOT_MANAGER' });
    if (cluster.version !== version) refuse({ code: 'SWARM_OUT_OF_SEQUENCE' });
    const { worker, manager } = cluster.joinTokens;
    if (!spec.autolock) this.key = '';
    else if (rotate.managerUnlockKey || this.key === '')
      this.key = `SWMKEY-1-${String(this.#version).padStart(43, 'k')}`;
    const joinTokens = {
      worker: rotate.workerToken ? worker.replace(/a+$/, 'b'.repeat(25)) : worker,
      manager,
    };
    this.local = {
      ...this.local,
      cluster: { ...cluster, spec, joinTokens, version: ++this.#version },
    };
  }

  async freshen(): Promise<Freshness> {
    this.freshened += 1;
    return this.freshness;
  }

  async unlockKey(): Promise<string> {
    return this.key;
  }

  async unlock(key: string): Promise<void> {
    this.#ask('unlock', key);
    if (key !== this.key) refuse({ code: 'SWARM_UNLOCK_KEY_REFUSED' });
    this.#activate();
  }

  secrets(): readonly SecretObject[] {
    return this.secretObjects;
  }

  async createSecret(spec: SecretSpec, data: string): Promise<string> {
    this.#ask('createSecret', spec, data);
    if (this.secretObjects.some((secret) => secret.spec.name === spec.name))
      refuse({ code: 'SWARM_NAME_TAKEN', kind: 'secret', name: spec.name });
    const id = id25(`secret${this.secretObjects.length}`) as SecretId;
    this.secretObjects = [...this.secretObjects, { ...meta, id, spec, data }];
    return id;
  }

  async updateSecret(id: string, version: number, update: BlobUpdate): Promise<void> {
    this.#ask('updateSecret', id, version, update);
    this.secretObjects = this.secretObjects.map((secret) =>
      secret.id === id ? this.#updated(secret, version, update) : secret,
    );
  }

  async removeSecret(id: string): Promise<void> {
    this.#ask('removeSecret', id);
    this.secretObjects = this.secretObjects.filter((secret) => secret.id !== id);
  }

  configs(): readonly ConfigObject[] {
    return this.configObjects;
  }

  async createConfig(spec: ConfigSpec, data: string): Promise<string> {
    this.#ask('createConfig', spec, data);
    if (this.configObjects.some((config) => config.spec.name === spec.name))
      refuse({ code: 'SWARM_NAME_TAKEN', kind: 'config', name: spec.name });
    const id = id25(`config${this.configObjects.length}`) as ConfigId;
    this.configObjects = [...this.configObjects, { ...meta, id, spec, data }];
    return id;
  }

  async updateConfig(id: string, version: number, update: BlobUpdate): Promise<void> {
    this.#ask('updateConfig', id, version, update);
    this.configObjects = this.configObjects.map((config) =>
      config.id === id ? this.#updated(config, version, update) : config,
    );
  }

  async removeConfig(id: string): Promise<void> {
    this.#ask('removeConfig', id);
    this.configObjects = this.configObjects.filter((config) => config.id !== id);
  }

  services(): readonly ServiceObject[] {
    return this.serviceObjects;
  }

  service(id: string): ServiceObject | undefined {
    return this.serviceObjects.find((service) => service.id === id);
  }

  tasks(): readonly TaskObject[] {
    return this.taskObjects;
  }

  task(id: string): TaskObject | undefined {
    return this.taskObjects.find((task) => task.id === id);
  }

  tasksOfService(id: string): readonly TaskObject[] {
    return this.taskObjects.filter(({ serviceId }) => serviceId === id);
  }

  isUpToDate(service: ServiceObject, task: TaskObject): boolean {
    return service.specVersion === task.specVersion;
  }

  async createService(spec: ServiceSpec, auth: RegistryAuth): Promise<ServiceAnswer> {
    this.#ask('createService', spec, auth);
    const { name } = spec;
    if (this.serviceObjects.some((service) => service.spec.name === name))
      refuse({ code: 'SWARM_NAME_TAKEN', kind: 'service', name });
    const id = id25(`service${this.serviceObjects.length}`) as ServiceId;
    const service = serviceObject(id, spec, { virtualIps: this.virtualIpsOf(spec) });
    this.serviceObjects = [...this.serviceObjects, service];
    return { id, warnings: this.serviceWarnings };
  }

  virtualIpsOf(spec: ServiceSpec): VirtualIp[] {
    if (spec.endpoint?.mode === 'dnsrr') return [];
    return (spec.task.networks ?? []).map(({ target }, index) => ({
      networkId: target,
      address: `10.0.${index + 1}.2/24`,
    }));
  }

  async updateService(id: string, version: number, update: ServiceUpdate): Promise<ServiceAnswer> {
    this.#ask('updateService', id, version, update);
    this.serviceObjects = this.serviceObjects.map((service) => {
      if (service.id !== id) return service;
      if (service.version !== version) refuse({ code: 'SWARM_OUT_OF_SEQUENCE' });
      const spec = update.rollback ? (service.previousSpec ?? service.spec) : update.spec;
      return {
        ...service,
        spec,
        previousSpec: service.spec,
        specVersion: version,
        version: ++this.#version,
      };
    });
    return { id, warnings: this.serviceWarnings };
  }

  async removeService(id: string): Promise<void> {
    this.#ask('removeService', id);
    this.serviceObjects = this.serviceObjects.filter((service) => service.id !== id);
  }

  async *logs(query: TaskLogQuery, signal: AbortSignal): AsyncGenerator<TaskLogRecord> {
    this.asked.push(['logs', query]);
    for (const line of this.logLines) {
      const isAsked = line.serviceId === query.serviceId || line.taskId === query.taskId;
      if (isAsked && query[line.stream]) yield line;
    }
    if (query.follow && !this.followsEnd && !signal.aborted)
      await new Promise<void>((resolve) => {
        signal.addEventListener('abort', () => resolve(), { once: true });
      });
  }

  history({ limit, object }: HistoryQuery): readonly HistoryItem[] {
    return this.historyItems.filter(({ name }) => name === (object ?? name)).slice(-limit);
  }

  async saveSnapshot(): Promise<AsyncIterable<Uint8Array> | Iterable<Uint8Array>> {
    return this.snapshot;
  }

  async inspectSnapshot(path: string): Promise<unknown> {
    return { path };
  }

  async restoreSnapshot(path: string): Promise<unknown> {
    this.#ask('restoreSnapshot', path);
    return { restored: path };
  }

  async clientCertificate(request: ClientCertificateRequest): Promise<ClientCertificate> {
    this.#ask('clientCertificate', request);
    return { caPem: PEM, certPem: PEM, keyPem: PEM };
  }

  async explainRecovery(): Promise<unknown> {
    return { appliedIndex: 7 };
  }

  async recover(request: RecoverRequest): Promise<unknown> {
    this.#ask('recover', request);
    return { recovered: true };
  }

  #updated<
    Blob extends ObjectMeta & {
      readonly spec: SecretSpec;
      readonly data: string;
    },
  >(blob: Blob, version: number, { name, labels, data = blob.data }: BlobUpdate): Blob {
    if (data !== blob.data || name !== blob.spec.name)
      refuse({ code: 'SWARM_INVALID' }, 'only updates to Labels are allowed');
    if (blob.version !== version) refuse({ code: 'SWARM_OUT_OF_SEQUENCE' });
    return { ...blob, spec: { ...blob.spec, labels }, version: ++this.#version };
  }

  nodes(): readonly NodeView[] {
    return this.nodeObjects;
  }

  async updateNode(id: string, version: number, spec: NodeSpec): Promise<void> {
    this.#ask('updateNode', id, version, spec);
    this.nodeObjects = this.nodeObjects.map((node) => {
      if (node.id !== id) return node;
      if (node.version !== version) refuse({ code: 'SWARM_OUT_OF_SEQUENCE' });
      return { ...node, spec, version: ++this.#version };
    });
  }

  async removeNode(id: string, force: boolean): Promise<void> {
    this.#ask('removeNode', id, force);
    const node = this.nodeObjects.find((one) => one.id === id);
    if (node?.state !== 'down' && !force) refuse({ code: 'SWARM_NODE_NOT_DOWN', nodeId: id });
    this.nodeObjects = this.nodeObjects.filter((one) => one.id !== id);
  }

  networks(): readonly NetworkObject[] {
    return this.networkObjects;
  }

  attachments(): readonly AttachmentObject[] {
    return this.attachmentObjects;
  }

  async createNetwork(spec: NetworkSpec): Promise<NetworkObject> {
    this.#ask('createNetwork', spec);
    if (this.networkObjects.some((network) => network.spec.name === spec.name)) {
      refuse({ code: 'SWARM_NAME_TAKEN', kind: 'network', name: spec.name });
    }
    const number = this.networkObjects.length;
    const network = networkObject(`net${number}`, spec, 4097 + number);
    this.networkObjects = [...this.networkObjects, network];
    this.emit({
      kind: 'network',
      action: 'create',
      id: network.id,
      attributes: { name: spec.name },
      atMs: AT_MS,
    });
    return network;
  }

  async removeNetwork(id: string): Promise<void> {
    this.#ask('removeNetwork', id);
    const user = this.attachmentObjects.find(({ networkId }) => networkId === id);
    if (user !== undefined) {
      refuse({ code: 'SWARM_IN_USE', kind: 'network', id, by: `task ${user.id}` });
    }
    this.networkObjects = this.networkObjects.filter((network) => network.id !== id);
  }

  async attach(request: AttachRequest): Promise<LocalAttachment> {
    this.#ask('attach', request);
    const network = this.networkObjects.find(({ spec }) => spec.name === request.network);
    if (network === undefined) {
      return refuse({ code: 'SWARM_NOT_FOUND', kind: 'network', ref: request.network });
    }
    const common = {
      id: id25(`att${this.localObjects.length}`) as AttachmentId,
      networkId: network.id,
      name: request.name ?? 'c1',
      aliases: request.aliases,
      addresses: [request.ip === undefined ? '10.0.1.5/24' : `${request.ip}/24`, 'fd00::5/64'],
      mac: '02:42:0a:00:01:05',
    };
    const local: LocalAttachment = {
      ...common,
      networkName: network.spec.name,
      target: request.target,
      ifname: request.ifname ?? 'eth0',
      mtuBytes: 1450,
      state: 'up',
    };
    this.localObjects.push(local);
    const nodeId = this.local.nodeId as NodeId;
    this.attachmentObjects.push({
      ...common,
      nodeId,
      version: 1,
      createdAtMs: AT_MS,
      updatedAtMs: AT_MS,
    });
    return local;
  }

  async detach(request: DetachRequest): Promise<readonly LocalAttachment[]> {
    this.#ask('detach', request);
    const gone = this.localObjects.filter(
      ({ id, networkName, target }) =>
        (request.id === undefined || id === request.id) &&
        (request.network === undefined || networkName === request.network) &&
        (request.host === undefined || target.kind === 'host'),
    );
    if (gone.length === 0) {
      refuse({ code: 'SWARM_NOT_FOUND', kind: 'attachment', ref: request.id ?? '' });
    }
    const ids = new Set(gone.map(({ id }) => id));
    this.localObjects = this.localObjects.filter(({ id }) => !ids.has(id));
    this.attachmentObjects = this.attachmentObjects.filter(({ id }) => !ids.has(id));
    return gone;
  }

  localAttachments(): readonly LocalAttachment[] {
    return this.localObjects;
  }

  flows({ service, limit }: FlowsQuery): FlowsAnswer {
    const flows = this.openFlows.filter(
      ({ serviceName }) => serviceName === (service ?? serviceName),
    );
    return { total: flows.length, flows: flows.slice(0, limit) };
  }

  publishedPorts(): readonly PortItem[] {
    return [];
  }

  status(): unknown {
    return { members: [] };
  }

  async metrics(): Promise<string> {
    return 'shoal_up 1\n';
  }

  onEvent(listener: (event: SwarmEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  get listenersCount(): number {
    return this.#listeners.size;
  }

  emit(event: SwarmEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  #ask(...what: unknown[]): void {
    this.asked.push(what);
    const { refusal } = this;
    this.refusal = undefined;
    if (refusal !== undefined) refuse(refusal, this.refusalWords);
  }

  #activate(spec: ClusterSpec = CLUSTER_SPEC): void {
    const nodeId = id25('manager');
    this.nodeObjects = [
      nodeObject('manager', 'mn1', { leader: true }),
      nodeObject('worker', 'mn2'),
    ];
    this.local = {
      state: 'active',
      nodeId,
      nodeAddress: ADDRESS,
      error: '',
      controlAvailable: true,
      remoteManagers: [{ nodeId, address: `${ADDRESS}:2377` }],
      nodes: this.nodeObjects.length,
      managers: 1,
      cluster: { ...clusterObject(spec), version: this.#version },
    };
  }
}

export const CLUSTER_SPEC: ClusterSpec = {
  name: 'default',
  labels: {},
  taskHistoryRetentionLimit: 5,
  raft: {
    snapshotInterval: 10_000,
    keepOldSnapshots: 0,
    logEntriesForSlowFollowers: 500,
    electionTick: 10,
    heartbeatTick: 1,
  },
  dispatcherHeartbeatMs: 5000,
  nodeCertExpiryMs: 7_776_000_000,
  autolock: false,
};

const meta = { version: 9, createdAtMs: AT_MS, updatedAtMs: AT_MS + 1 };
const issuer = { certIssuerSubject: 'MBMx', certIssuerPublicKey: 'MFkw' };

function clusterObject(spec: ClusterSpec): ClusterObject {
  return {
    ...meta,
    ...issuer,
    id: id25('cluster') as ClusterId,
    spec,
    defaultAddressPool: ['10.0.0.0/8'],
    subnetSize: 24,
    dataPathPort: 4789,
    joinTokens: { worker: TOKEN, manager: TOKEN.replace(/a+$/, 'm'.repeat(25)) },
    rootCaPem: PEM,
    rootRotationInProgress: false,
  };
}

export function nodeObject(
  name: string,
  hostname: string,
  manager?: { leader: boolean },
): NodeView {
  const address = manager === undefined ? '192.168.78.12' : ADDRESS;
  return {
    ...meta,
    id: id25(name) as NodeId,
    spec: {
      name: '',
      labels: {},
      role: manager === undefined ? 'worker' : 'manager',
      availability: 'active',
    },
    description: {
      ...issuer,
      hostname,
      os: 'linux',
      architecture: 'x86_64',
      nanoCpus: 2_000_000_000,
      memoryBytes: 25_276_502_016,
      engineVersion: '0.1.0',
      engineLabels: { rack: 'r1' },
      plugins: [{ type: 'Network', name: 'overlay' }],
      trustRootPem: PEM,
    },
    state: 'ready',
    stateMessage: '',
    address,
    dataPathAddress: address,
    gossipAddress: address,
    gossipPort: 7946,
    peerId: '12D3Koo',
    ...(manager === undefined
      ? {}
      : {
          manager: {
            leader: manager.leader,
            reachability: 'reachable' as const,
            address: `${address}:2377`,
          },
        }),
  };
}

export function serviceObject(
  id: ServiceId,
  spec: ServiceSpec,
  {
    virtualIps = [] as readonly VirtualIp[],
    ...more
  }: Partial<ServiceObject> & {
    virtualIps?: readonly VirtualIp[];
  } = {},
): ServiceObject {
  const ports = (spec.endpoint?.ports ?? []).map((port, index) => ({
    ...port,
    publishedPort: port.publishedPort ?? 30_000 + index,
  }));
  return {
    ...meta,
    id,
    spec,
    specVersion: 9,
    endpoint: { spec: spec.endpoint ?? { mode: 'vip' }, ports, virtualIps },
    ...more,
  };
}

export function networkObject(name: string, spec: NetworkSpec, vni: number): NetworkObject {
  const third = vni - 4096;
  return {
    ...meta,
    id: id25(name) as NetworkId,
    spec,
    vni,
    subnets:
      spec.ipam.length > 0
        ? spec.ipam.map(({ subnet, gateway, ...rest }) => ({
            ...rest,
            subnet,
            gateway: gateway ?? subnet.replace(/\d+\/\d+$/, '1'),
          }))
        : [{ subnet: `10.0.${third}.0/24`, gateway: `10.0.${third}.1` }],
  };
}
