import type {
  AttachmentObject,
  ClusterSpec,
  ConfigObject,
  ConfigSpec,
  NetworkObject,
  NetworkSpec,
  NodeSpec,
  NodeView,
  SecretObject,
  SecretSpec,
} from '../../base/swarm-model.js';
import type {
  AttachRequest,
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
  Rotation,
  SwarmEvent,
} from '../wire/records.js';
import type { ClassicVerbs } from './classic-verbs.js';
import type { ServiceBackend } from './service-backend.js';

/**
 * What the API needs of the agent, in the swarm's own words.
 *
 * Reads are synchronous and cheap: waiting CLIs poll several times a second. Writes refuse with a
 * `SwarmError`, whose code becomes Docker's status and words. Every id given to a write is full.
 */
export interface Backend extends ServiceBackend {
  facts(): HostFacts;
  swarm(): LocalSwarm;
  /**
   * Asked before the swarm's objects are read: makes this node's knowledge at least as new as the
   * question, or says how old it is when there is no quorum to ask. At once on anything but a
   * manager. Never throws, and never waits for longer than a user would.
   */
  freshen(): Promise<Freshness>;

  /** Returns this node's id. `SWARM_LOCKED` where the disk is. */
  init(request: InitRequest): Promise<string>;
  join(request: JoinRequest): Promise<void>;
  leave(force: boolean): Promise<void>;
  updateCluster(version: number, spec: ClusterSpec, rotate: Rotation): Promise<void>;
  /** Empty: autolock is off. */
  unlockKey(): Promise<string>;
  /** Of a node whose state is `locked`. `SWARM_UNLOCK_KEY_REFUSED`. */
  unlock(key: string): Promise<void>;

  /** What this node knows of the swarm: all on a manager, less elsewhere. Never throws. */
  nodes(): readonly NodeView[];
  updateNode(id: string, version: number, spec: NodeSpec): Promise<void>;
  removeNode(id: string, force: boolean): Promise<void>;

  /** As `nodes`. */
  networks(): readonly NetworkObject[];
  /** As `nodes`. */
  attachments(): readonly AttachmentObject[];
  createNetwork(spec: NetworkSpec): Promise<NetworkObject>;
  removeNetwork(id: string): Promise<void>;

  /** Of managers; empty elsewhere. What comes along beyond the type is not shown. */
  secrets(): readonly SecretObject[];
  /** `data`: base64. Returns the id. */
  createSecret(spec: SecretSpec, data: string): Promise<string>;
  updateSecret(id: string, version: number, update: BlobUpdate): Promise<void>;
  removeSecret(id: string): Promise<void>;
  /** As `secrets`. */
  configs(): readonly ConfigObject[];
  createConfig(spec: ConfigSpec, data: string): Promise<string>;
  updateConfig(id: string, version: number, update: BlobUpdate): Promise<void>;
  removeConfig(id: string): Promise<void>;

  attach(request: AttachRequest): Promise<LocalAttachment>;
  /** Returns what is gone. */
  detach(request: DetachRequest): Promise<readonly LocalAttachment[]>;
  localAttachments(): readonly LocalAttachment[];

  /** For clients that come by TCP: by the swarm's CA, of managers. */
  clientCertificate(request: ClientCertificateRequest): Promise<ClientCertificate>;

  /** The classic Swarm's face. Absent: there is none. */
  readonly classic?: ClassicVerbs;

  /** A JSON value: members, digests of the tables, counters, driver. */
  status(): unknown;
  /** Of this node. @throws SwarmError where it is in no swarm. */
  flows(query: FlowsQuery): FlowsAnswer;
  /** As `flows`. */
  publishedPorts(): readonly PortItem[];
  /** Prometheus text. */
  metrics(): Promise<string>;

  /** What changed when, the latest last; of managers. */
  history(query: HistoryQuery): readonly HistoryItem[];
  /** The whole state of the swarm as this manager has it, with all its secrets. */
  saveSnapshot(): Promise<AsyncIterable<Uint8Array> | Iterable<Uint8Array>>;
  /** A JSON value that tells what a file of this host holds; no secrets. */
  inspectSnapshot(path: string): Promise<unknown>;
  /** The swarm becomes what the file holds. Returns a JSON value that tells what was done. */
  restoreSnapshot(path: string): Promise<unknown>;
  /** A JSON value: what this node holds of a swarm that has lost its quorum, and what could be done. */
  explainRecovery(): Promise<unknown>;
  /** Goes on with this node as the only manager. Returns a JSON value that tells what was done. */
  recover(request: RecoverRequest): Promise<unknown>;

  /** Returns the way to stop listening. Absent: `docker events` stays silent. */
  onEvent?(listener: (event: SwarmEvent) => void): () => void;
}
