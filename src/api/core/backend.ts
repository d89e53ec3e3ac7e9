import type {
  AttachmentObject,
  ClusterSpec,
  NetworkObject,
  NetworkSpec,
  NodeSpec,
  NodeView,
} from '../../base/swarm-model.js';
import type {
  AttachRequest,
  DetachRequest,
  HostFacts,
  InitRequest,
  JoinRequest,
  LocalAttachment,
  LocalSwarm,
  Rotation,
  SwarmEvent,
} from '../wire/records.js';

/**
 * What the API needs of the agent, in the swarm's own words.
 *
 * Reads are synchronous and cheap: waiting CLIs poll several times a second. Writes refuse with a
 * `SwarmError`, whose code becomes Docker's status and words. Every id given to a write is full.
 */
export interface Backend {
  facts(): HostFacts;
  swarm(): LocalSwarm;
  /** Returns this node's id. */
  init(request: InitRequest): Promise<string>;
  join(request: JoinRequest): Promise<void>;
  leave(force: boolean): Promise<void>;
  updateCluster(version: number, spec: ClusterSpec, rotate: Rotation): Promise<void>;

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

  attach(request: AttachRequest): Promise<LocalAttachment>;
  /** Returns what is gone. */
  detach(request: DetachRequest): Promise<readonly LocalAttachment[]>;
  localAttachments(): readonly LocalAttachment[];

  /** A JSON value: members, digests of the tables, counters, driver. */
  status(): unknown;
  /** Prometheus text. */
  metrics(): Promise<string>;

  /** Returns the way to stop listening. Absent: `docker events` stays silent. */
  onEvent?(listener: (event: SwarmEvent) => void): () => void;
}
