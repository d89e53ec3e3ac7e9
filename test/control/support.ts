import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type {
  AttachmentId,
  ClusterId,
  ClusterSpec,
  NetworkId,
  NetworkSpec,
  NodeId,
  NodeObject,
} from '../../src/base/swarm-model.js';
import type { Logger } from '../../src/control/core/logger.js';
import type { Command, CommandBody } from '../../src/control/store/core/command.js';
import { decide } from '../../src/control/store/core/decide.js';
import { State } from '../../src/control/store/core/state.js';
import type { NodeRegistration } from '../../src/control/wire/model.js';

export const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };

export async function withFolder<T>(work: (dir: string) => Promise<T>): Promise<T> {
  const dir = await mkdtemp(join(tmpdir(), 'shc-'));
  try {
    return await work(dir);
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

const padded = (text: string | number) => String(text).padStart(25, '0');
export const nodeId = (n: string | number) => padded(n) as NodeId;
export const networkId = (n: string | number) => padded(n) as NetworkId;
export const attachmentId = (n: string | number) => padded(n) as AttachmentId;

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
  dispatcherHeartbeatMs: 5_000,
  nodeCertExpiryMs: 7_776_000_000,
  autolock: false,
};

export function clusterCreate(
  pools: readonly string[] = ['10.0.0.0/8'],
  subnetSize = 24,
): CommandBody {
  return {
    kind: 'cluster_create',
    cluster: {
      id: padded('c') as ClusterId,
      spec: CLUSTER_SPEC,
      defaultAddressPool: pools,
      subnetSize,
      dataPathPort: 4789,
      joinTokens: { worker: 'w', manager: 'm' },
      rootCaPem: 'ca',
      certIssuerSubject: '',
      certIssuerPublicKey: '',
      rootRotationInProgress: false,
    },
    secrets: {
      ca: {},
      gossipKeys: [
        { id: 0, secret: 'a' },
        { id: 1, secret: 'b' },
      ],
      gossipKeysRotatedAtMs: 0,
      ulaPrefix: 'fd12:3456:789a::/48',
    },
  };
}

export const REGISTRATION: NodeRegistration = {
  description: {
    hostname: 'host',
    os: 'linux',
    architecture: 'x86_64',
    nanoCpus: 2e9,
    memoryBytes: 2 ** 31,
    engineVersion: '0.1.0',
    engineLabels: {},
    plugins: [{ type: 'Network', name: 'overlay' }],
  },
  availability: 'active',
  address: '127.0.0.1',
  dataPathAddress: '',
  gossipAddress: '',
  gossipPort: 7946,
};

export function node(
  id: NodeId,
  role: 'worker' | 'manager' = 'worker',
): Omit<NodeObject, 'version' | 'createdAtMs' | 'updatedAtMs'> {
  return {
    id,
    spec: { name: '', labels: {}, role, availability: 'active' },
    description: {
      ...REGISTRATION.description,
      trustRootPem: 'ca',
      certIssuerSubject: '',
      certIssuerPublicKey: '',
    },
    state: 'ready',
    stateMessage: '',
    address: '127.0.0.1',
    dataPathAddress: '127.0.0.1',
    gossipAddress: '127.0.0.1',
    gossipPort: 7946,
    peerId: `peer-${id}`,
  };
}

export function networkSpec(name: string, more: Partial<NetworkSpec> = {}): NetworkSpec {
  return {
    name,
    labels: {},
    driver: 'overlay',
    driverOptions: {},
    attachable: true,
    internal: false,
    ingress: false,
    ipv6: false,
    ipamDriver: 'default',
    ipamOptions: {},
    ipam: [],
    ...more,
  };
}

/** A state with a clock: every command is a second after the one before. */
export class Bench {
  readonly state = new State();
  #atMs = 1_000_000;

  constructor(first: CommandBody = clusterCreate()) {
    this.do(first);
  }

  do(body: CommandBody): string {
    this.#atMs += 1_000;
    const command: Command = { ...body, atMs: this.#atMs };
    const { changes, id } = decide(this.state, command);
    this.state.commit(changes);
    return id;
  }

  /** Code and message of a refusal, or nothing. */
  refusal(body: CommandBody): { code: string; message: string } | undefined {
    const before = JSON.stringify(this.state.snapshot());
    try {
      this.do(body);
      return undefined;
    } catch (error) {
      if (JSON.stringify(this.state.snapshot()) !== before) throw new Error('a refusal changed it');
      return { code: (error as { code: string }).code, message: (error as Error).message };
    }
  }

  network(id: string | number, more: Partial<NetworkSpec> = {}, name = `net${id}`): string {
    return this.do({ kind: 'network_create', id: networkId(id), spec: networkSpec(name, more) });
  }

  attach(id: string | number, network: string, more: object = {}): string {
    return this.do({
      kind: 'attachment_create',
      id: attachmentId(id),
      nodeId: nodeId(1),
      request: { key: `k${id}`, network, addresses: [], name: `n${id}`, aliases: [], ...more },
    });
  }
}
