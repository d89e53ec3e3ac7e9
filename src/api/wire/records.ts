import type { ObjectKind } from '../../base/swarm-error.js';
import type {
  AttachmentId,
  ClusterObject,
  ClusterSpec,
  GenericResource,
  Labels,
  NetworkId,
  NodeAvailability,
} from '../../base/swarm-model.js';

/** What this host and this agent are, for `docker info`, `docker version` and `docker node`. */
export interface HostFacts {
  /** Made once per agent and kept on disk; `docker info` prints it as `ID`. */
  readonly id: string;
  readonly hostname: string;
  /** As `uname -r` prints it. */
  readonly kernelVersion: string;
  /** For people: `Debian GNU/Linux 12 (bookworm)`. */
  readonly operatingSystem: string;
  /** As `uname -m` prints it: `x86_64`, `aarch64`. */
  readonly architecture: string;
  readonly cpuCount: number;
  readonly memoryBytes: number;
  readonly agentVersion: string;
  readonly gitCommit: string;
  /** When the agent was built; 0: unknown. */
  readonly builtAtMs: number;
  readonly dataDir: string;
  /** Which driver moves the packets, for example `native (TAP + UDP GSO)`, and why that one. */
  readonly dataPathDriver: { readonly name: string; readonly reason: string };
  /** Of published ports. */
  readonly ingressDriver: { readonly name: string; readonly reason: string };
  /** Each is one sentence that `docker info` prints. */
  readonly warnings: readonly string[];
  readonly labels: Labels;
  readonly genericResources?: readonly GenericResource[];
}

export type LocalState = 'inactive' | 'pending' | 'active' | 'error' | 'locked';

/** The swarm as this node sees itself in it. */
export interface LocalSwarm {
  readonly state: LocalState;
  /** Empty while the node is in no swarm. */
  readonly nodeId: string;
  readonly nodeAddress: string;
  /** Why the state is `error` (or still `pending`); else empty. */
  readonly error: string;
  /** This node is a manager and can be asked for the swarm's objects. */
  readonly controlAvailable: boolean;
  /** `address` is `host:port` of a manager's control port. */
  readonly remoteManagers: readonly { readonly nodeId: string; readonly address: string }[];
  /** The next three are known on managers only. */
  readonly nodes?: number;
  readonly managers?: number;
  readonly cluster?: ClusterObject;
}

export interface InitRequest {
  /** `host:port` or an interface's name, as the user gave it. */
  readonly listenAddress: string;
  /** Empty: choose one. */
  readonly advertiseAddress: string;
  /** Empty: the same as the advertised one. */
  readonly dataPathAddress: string;
  readonly dataPathPort: number;
  /** CIDRs; empty: the agent's default. */
  readonly defaultAddressPool: readonly string[];
  /** Prefix length of the subnets cut from the pool. */
  readonly subnetSize: number;
  readonly forceNewCluster: boolean;
  readonly autolock: boolean;
  readonly availability: NodeAvailability;
  readonly spec: ClusterSpec;
}

export interface JoinRequest {
  readonly listenAddress: string;
  readonly advertiseAddress: string;
  readonly dataPathAddress: string;
  /** At least one `host:port` of a manager. */
  readonly remoteAddresses: readonly string[];
  readonly joinToken: string;
  readonly availability: NodeAvailability;
}

/** Which secrets of the swarm an update also renews. */
export interface Rotation {
  readonly workerToken: boolean;
  readonly managerToken: boolean;
  readonly managerUnlockKey: boolean;
  /** The root is to change: the counter was raised, or a root is given. */
  readonly rootCa: boolean;
  /** The root that is to take its place; absent: the swarm makes one. */
  readonly givenRoot?: {
    readonly certPem: string;
    /** Absent: the user keeps it. */
    readonly keyPem?: string;
  };
}

/** How old the answers may be that this node gives. */
export interface Freshness {
  /** Milliseconds since a quorum was last heard of; absent: there is one, and all is fresh. */
  readonly staleMs?: number;
}

/** A new version of a secret or config: Docker lets the labels change, and compares the rest. */
export interface BlobUpdate {
  readonly name: string;
  readonly labels: Labels;
  /** Base64; absent: not said. */
  readonly data?: string;
}

export interface HistoryQuery {
  /** The latest so many, of those that match. */
  readonly limit: number;
  /** Kind, id or name of an object; absent: all. */
  readonly object?: string;
}

export interface FlowsQuery {
  /** Flows that are named at most. */
  readonly limit: number;
  /** Id or name; absent: all. */
  readonly service?: string;
}

/** Open flows of this node's published ports, of which some are named. */
export interface FlowsAnswer {
  readonly total: number;
  readonly flows: readonly {
    readonly client: string;
    readonly clientPort: number;
    /** `tcp/80`. */
    readonly port: string;
    readonly serviceId: string;
    readonly serviceName: string;
    /** Absent while no task has it. */
    readonly taskId?: string;
    /** The task's address and port. */
    readonly backend?: string;
    readonly ageMs: number;
    /** Absent where they are known at the end only. */
    readonly bytesUp?: number;
    readonly bytesDown?: number;
  }[];
}

/** What one published port of this node has seen since it is open. */
export interface PortItem {
  readonly serviceId: string;
  readonly serviceName: string;
  readonly port: string;
  readonly newFlows: number;
  readonly openFlows: number;
  /** By reason. */
  readonly refused: Readonly<Record<string, number>>;
  readonly connects: number;
  readonly failedConnects: number;
  readonly readyTasks: number;
  /** Addresses of this node where it is open; `::` for all, IPv4 too. */
  readonly openAt: readonly string[];
}

/** One change of one object. */
export interface HistoryItem {
  readonly version: number;
  readonly atMs: number;
  /** The command, as the store calls it. */
  readonly kind: string;
  readonly action: 'create' | 'update' | 'remove';
  readonly objectKind: string;
  readonly id: string;
  readonly name: string;
  readonly note?: string;
  readonly by?: string;
}

export interface RecoverRequest {
  /** The user has read `explainRecovery` and means it. */
  readonly force: boolean;
}

export interface ClientCertificateRequest {
  /** Whose it is: said in the certificate. */
  readonly name: string;
  readonly lifeMs: number;
}

/** PEM texts, as the docker CLI wants them in three files. */
export interface ClientCertificate {
  readonly caPem: string;
  readonly certPem: string;
  readonly keyPem: string;
}

export type AttachTarget =
  | { readonly kind: 'netns'; readonly path: string }
  | { readonly kind: 'pid'; readonly pid: number }
  | { readonly kind: 'host' };

export interface AttachRequest {
  /** Name, id or unique prefix of an id; resolved by the backend. */
  readonly network: string;
  readonly target: AttachTarget;
  readonly ip?: string;
  readonly name?: string;
  readonly aliases: readonly string[];
  /** Name of the interface in the target; chosen if absent. */
  readonly ifname?: string;
  /** Id of the engine's container whose namespace it is. */
  readonly container?: string;
}

/** How a container is to be on an overlay. */
export interface OverlayEndpoint {
  readonly aliases: readonly string[];
  readonly ip?: string | undefined;
}

/** All given members must hold of an attachment that is to go. */
export interface DetachRequest {
  readonly id?: string;
  readonly network?: string;
  readonly netns?: string;
  readonly pid?: number;
  readonly host?: boolean;
}

/** An attachment which this node made. */
export interface LocalAttachment {
  readonly id: AttachmentId;
  readonly networkId: NetworkId;
  readonly networkName: string;
  readonly target: AttachTarget;
  readonly ifname: string;
  /** `10.0.1.5/24`. */
  readonly addresses: readonly string[];
  readonly mac: string;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly mtuBytes: number;
  readonly state: 'up' | 'waiting' | 'failed';
  readonly error?: string;
  /** Id of the engine's container whose namespace it is. */
  readonly container?: string;
}

/** Something happened to an object of the swarm: a line of `docker events`. */
export interface SwarmEvent {
  readonly kind: ObjectKind;
  readonly action: 'create' | 'update' | 'remove' | 'connect' | 'disconnect';
  readonly id: string;
  /** At least `name`. */
  readonly attributes: Labels;
  readonly atMs: number;
}

/** `shoal swarm manage`. */
export interface ManageRequest {
  readonly host: string;
  readonly port: number;
  /** Without TLS. */
  readonly plain: boolean;
  readonly strategy: string;
  /** `token://…`; empty: all nodes. */
  readonly discovery: string;
  /** PEM files of the agent's host; absent: the swarm's own CA. */
  readonly files?: { readonly cert: string; readonly key: string; readonly ca: string };
}
