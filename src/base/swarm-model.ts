import type { Brand } from './brand.js';

/**
 * The nouns that the control plane keeps and the API shows, in Docker's sense of the words.
 *
 * `spec` is the user's wish and is stored as given; everything else is what the swarm made of it.
 * Times are milliseconds since the Unix epoch. Addresses are text, as `ipaddr.js` prints them.
 */

/** 25 characters of `[0-9a-z]`, as swarm-scoped ids are. */
export type NodeId = Brand<string, 'NodeId'>;
export type NetworkId = Brand<string, 'NetworkId'>;
export type ClusterId = Brand<string, 'ClusterId'>;
export type AttachmentId = Brand<string, 'AttachmentId'>;
export type SecretId = Brand<string, 'SecretId'>;
export type ConfigId = Brand<string, 'ConfigId'>;
export type ServiceId = Brand<string, 'ServiceId'>;
export type TaskId = Brand<string, 'TaskId'>;

export type Labels = Readonly<Record<string, string>>;

/** What every stored object carries. */
export interface ObjectMeta {
  /** Raised by one at each change of any object of the store; the CLI's concurrency control. */
  readonly version: number;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

export type NodeRole = 'worker' | 'manager';
export type NodeAvailability = 'active' | 'pause' | 'drain';
export type NodeState = 'unknown' | 'down' | 'ready' | 'disconnected';

/** The operator's words about a node. */
export interface NodeSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly role: NodeRole;
  readonly availability: NodeAvailability;
}

/** Something that a node has and tasks reserve: one by its name, or a number of alike ones. */
export type GenericResource =
  | { readonly kind: 'named'; readonly name: string; readonly value: string }
  | { readonly kind: 'discrete'; readonly name: string; readonly value: number };

/** What a node says about itself when it joins and whenever that changes. */
export interface NodeDescription {
  readonly hostname: string;
  readonly os: string;
  readonly architecture: string;
  readonly nanoCpus: number;
  readonly memoryBytes: number;
  /** Such as `gpu`: so many of them, or each by its name. */
  readonly genericResources?: readonly GenericResource[];
  readonly engineVersion: string;
  readonly engineLabels: Labels;
  /** Network drivers and the like, as `docker node inspect` lists them. */
  readonly plugins: readonly { readonly type: string; readonly name: string }[];
  /** PEM of the CA which this node trusts. */
  readonly trustRootPem: string;
  /** DER of the issuer's subject and public key, base64. */
  readonly certIssuerSubject: string;
  readonly certIssuerPublicKey: string;
}

export interface NodeObject extends ObjectMeta {
  readonly id: NodeId;
  readonly spec: NodeSpec;
  readonly description: NodeDescription;
  readonly state: NodeState;
  readonly stateMessage: string;
  /** Where the control plane sees the node: `docker node inspect` shows it. */
  readonly address: string;
  /** Underlay address and UDP port of the node's VTEP. */
  readonly dataPathAddress: string;
  readonly gossipAddress: string;
  readonly gossipPort: number;
  /** libp2p peer id made from the node's certified key. */
  readonly peerId: string;
  /** The role in the node's certificate, which follows `spec.role`; absent: the same. */
  readonly observedRole?: NodeRole;
  /** Present on managers only: members of the raft group. */
  readonly manager?: ManagerInfo;
  /** Which manager serves the node; absent: none, or not known. */
  readonly session?: NodeSession;
}

/** A node's session with a manager. */
export interface NodeSession {
  readonly manager: NodeId;
  /** Raised by the node at every attempt to open one: the largest is the latest. */
  readonly number: number;
}

/** What is kept of a manager. Who leads and who is reachable is seen, and not kept. */
export interface ManagerInfo {
  /** Its number in the raft group. */
  readonly raftId: number;
  /** `host:port` of the control port. */
  readonly address: string;
}

export type Reachability = 'unknown' | 'unreachable' | 'reachable';

/** A manager as the manager that is asked sees it. */
export interface ManagerStatus {
  readonly leader: boolean;
  readonly reachability: Reachability;
  /** `host:port` of the control port. */
  readonly address: string;
}

/** A node as it is shown: what is kept, and what is seen of it now. */
export type NodeView = Omit<NodeObject, 'manager'> & { readonly manager?: ManagerStatus };

export interface SubnetSpec {
  readonly subnet: string;
  readonly gateway?: string;
  readonly ipRange?: string;
  readonly auxAddresses?: Readonly<Record<string, string>>;
}

/** The user's words about a network; `ipam` as asked, possibly empty. */
export interface NetworkSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly driver: string;
  readonly driverOptions: Labels;
  readonly attachable: boolean;
  readonly internal: boolean;
  readonly ingress: boolean;
  readonly ipv6: boolean;
  readonly ipamDriver: string;
  readonly ipamOptions: Labels;
  readonly ipam: readonly SubnetSpec[];
}

/** A subnet as allocated: canonical, with its gateway. */
export interface Subnet {
  /** CIDR, for example `10.0.1.0/24`. */
  readonly subnet: string;
  readonly gateway: string;
  readonly ipRange?: string;
  readonly auxAddresses?: Readonly<Record<string, string>>;
}

export interface NetworkObject extends ObjectMeta {
  readonly id: NetworkId;
  readonly spec: NetworkSpec;
  /** VXLAN network identifier, from 4096 (ingress) and 4097 (others). */
  readonly vni: number;
  readonly subnets: readonly Subnet[];
  /** MTU that the user asked for; `undefined`: from the underlay. */
  readonly mtuBytes?: number;
  /** Its datagrams are sealed on the underlay. */
  readonly isSealed?: true;
}

/** An address on a network held by one thing on one node: what Docker calls an attachment task. */
export interface AttachmentObject extends ObjectMeta {
  readonly id: AttachmentId;
  readonly networkId: NetworkId;
  readonly nodeId: NodeId;
  /** Name that the network's resolver answers for. */
  readonly name: string;
  readonly aliases: readonly string[];
  /** `10.0.1.5/24` and, with IPv6, `fd00::5/64`. */
  readonly addresses: readonly string[];
  /** `02:42:0a:00:01:05`. */
  readonly mac: string;
}

/** Settings of the whole swarm; durations in milliseconds. */
export interface ClusterSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly taskHistoryRetentionLimit: number;
  readonly raft: {
    readonly snapshotInterval: number;
    readonly keepOldSnapshots: number;
    readonly logEntriesForSlowFollowers: number;
    readonly electionTick: number;
    readonly heartbeatTick: number;
  };
  readonly dispatcherHeartbeatMs: number;
  readonly nodeCertExpiryMs: number;
  /** Absent: as in `DEFAULT_CLUSTER_CA`. Certificate and key of a CA that was given are not here. */
  readonly ca?: ClusterCaSpec;
  readonly autolock: boolean;
}

export interface ClusterCaSpec {
  /** Raised by the user to have a new root made. */
  readonly forceRotate: number;
  readonly externalCas: readonly ExternalCa[];
}

/** A CA outside the swarm which signs in its name. */
export interface ExternalCa {
  readonly protocol: string;
  readonly url: string;
  readonly options: Labels;
  readonly caCertPem: string;
}

export interface ClusterObject extends ObjectMeta {
  readonly id: ClusterId;
  readonly spec: ClusterSpec;
  readonly defaultAddressPool: readonly string[];
  readonly subnetSize: number;
  readonly dataPathPort: number;
  readonly joinTokens: { readonly worker: string; readonly manager: string };
  readonly rootCaPem: string;
  readonly certIssuerSubject: string;
  readonly certIssuerPublicKey: string;
  readonly rootRotationInProgress: boolean;
}

/** How the contents are filled in on the node; the engine knows `golang`. */
export interface Templating {
  readonly name: string;
  readonly options: Labels;
}

export interface SecretSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly templating?: Templating;
}

/** A secret without its contents, which no reader of the API ever gets. */
export interface SecretObject extends ObjectMeta {
  readonly id: SecretId;
  readonly spec: SecretSpec;
}

export interface ConfigSpec {
  readonly name: string;
  readonly labels: Labels;
  readonly templating?: Templating;
}

export interface ConfigObject extends ObjectMeta {
  readonly id: ConfigId;
  readonly spec: ConfigSpec;
  /** Base64. */
  readonly data: string;
}
