import type {
  ServiceSpec,
  TaskObject,
  TaskState,
  TaskStatus,
  UpdateStatus,
} from '../../../base/service-model.js';
import type {
  AttachmentId,
  ClusterObject,
  ClusterSpec,
  ConfigId,
  ConfigSpec,
  GenericResource,
  Labels,
  ManagerInfo,
  NetworkId,
  NetworkSpec,
  NodeId,
  NodeObject,
  NodeRole,
  NodeSpec,
  ObjectMeta,
  SecretId,
  SecretSpec,
  ServiceId,
  TaskId,
} from '../../../base/swarm-model.js';
import type { AttachRequest } from '../../wire/attachment.js';
import type { TaskReport } from '../../wire/task-model.js';
import type { ClusterSecrets } from './rows.js';

/** What a node shows of itself, and what its managers see of it. */
export type NodeObservation = Partial<
  Pick<
    NodeObject,
    | 'description'
    | 'state'
    | 'stateMessage'
    | 'address'
    | 'dataPathAddress'
    | 'gossipAddress'
    | 'gossipPort'
    | 'manager'
    | 'session'
  >
>;

/**
 * A task that is to be. All else is taken from its service, and nothing is done if that has another
 * spec by now.
 */
export type NewTask = Pick<
  TaskObject,
  | 'id'
  | 'serviceId'
  | 'slot'
  | 'nodeId'
  | 'specVersion'
  | 'desiredState'
  | 'status'
  | 'assignedResources'
  | 'startsAtMs'
>;

type JoinTokens = ClusterObject['joinTokens'];

/** What everyone may know of the CA. */
export type ClusterTrust = Pick<
  ClusterObject,
  'rootCaPem' | 'certIssuerSubject' | 'certIssuerPublicKey' | 'rootRotationInProgress'
>;

/**
 * Every change of the cluster's state, as data. All dice are rolled and all clocks read before:
 * applying the same commands in the same order gives the same state anywhere.
 */
export type CommandBody =
  | {
      readonly kind: 'cluster_create';
      readonly cluster: Omit<ClusterObject, keyof ObjectMeta>;
      readonly secrets: ClusterSecrets;
    }
  | {
      readonly kind: 'cluster_update';
      readonly version: number;
      readonly spec: ClusterSpec;
      /** Those that take the place of the present ones. */
      readonly joinTokens: Partial<JoinTokens>;
      /** Takes the place of the present one; must be there when autolock is turned on. */
      readonly unlockKey?: string;
    }
  /** A new root is to take the place of the present one; see `ClusterSecrets.ca`. */
  | {
      readonly kind: 'ca_rotation_start';
      readonly ca: object;
      readonly trust: ClusterTrust;
    }
  /** All nodes trust the new root; `version`: of the cluster as it was when that was found. */
  | {
      readonly kind: 'ca_rotation_finish';
      readonly version: number;
      readonly ca: object;
      readonly trust: ClusterTrust;
      /** Tokens name the root by its digest. */
      readonly joinTokens: JoinTokens;
    }
  /** The next key begins to seal; `secret` (base64 of 32 bytes) is made known, to seal one rotation later. */
  | { readonly kind: 'gossip_keys_rotate'; readonly secret: string }
  /** Answers with the id of the node that has this peer id already, if there is one. */
  | { readonly kind: 'node_create'; readonly node: Omit<NodeObject, keyof ObjectMeta> }
  | {
      readonly kind: 'node_update';
      readonly nodeId: NodeId;
      readonly version: number;
      readonly spec: NodeSpec;
    }
  | {
      readonly kind: 'node_observe';
      readonly nodeId: NodeId;
      readonly observation: NodeObservation;
      /** Nothing is done unless this is the number of the node's session; 0: it never had one. */
      readonly ifSession?: number;
    }
  /** All nodes that are ready become what a manager knows of them when it starts: nothing. */
  | { readonly kind: 'nodes_forget_state'; readonly except: NodeId; readonly stateMessage: string }
  | { readonly kind: 'node_leave'; readonly nodeId: NodeId }
  /** What became of a promotion or demotion: the role certified, and the place in the raft group. */
  | {
      readonly kind: 'node_role';
      readonly nodeId: NodeId;
      readonly role: NodeRole;
      /** Absent: the node is no member of the raft group. */
      readonly manager?: ManagerInfo;
    }
  /** From then on the node's certificate opens nothing: only members are served. */
  | {
      readonly kind: 'node_remove';
      readonly nodeId: NodeId;
      readonly force: boolean;
      /** When its certificate expires; absent: as if it had got one now. */
      readonly certExpiresAtMs?: number;
    }
  | { readonly kind: 'network_create'; readonly id: NetworkId; readonly spec: NetworkSpec }
  | { readonly kind: 'network_remove'; readonly ref: string }
  /** The network that every swarm begins with; `id` is not used if there is one already. */
  | { readonly kind: 'ingress_create'; readonly id: NetworkId }
  /** Nodes that are not on the ingress network yet get a place on it. */
  | { readonly kind: 'ingress_attach' }
  | {
      readonly kind: 'attachment_create';
      readonly id: AttachmentId;
      readonly nodeId: NodeId;
      readonly request: AttachRequest;
    }
  /** `nodeId`: only that node's; without it anyone's. Removing what is gone succeeds. */
  | { readonly kind: 'attachment_remove'; readonly id: AttachmentId; readonly nodeId?: NodeId }
  /** `data`: base64. */
  | {
      readonly kind: 'secret_create';
      readonly id: SecretId;
      readonly spec: SecretSpec;
      readonly data: string;
    }
  /** Labels only: `name` and `data`, where given, must be what they are. */
  | {
      readonly kind: 'secret_update';
      readonly id: SecretId;
      readonly version: number;
      readonly labels: Labels;
      readonly name?: string;
      readonly data?: string;
    }
  | { readonly kind: 'secret_remove'; readonly id: SecretId }
  | {
      readonly kind: 'config_create';
      readonly id: ConfigId;
      readonly spec: ConfigSpec;
      readonly data: string;
    }
  | {
      readonly kind: 'config_update';
      readonly id: ConfigId;
      readonly version: number;
      readonly labels: Labels;
      readonly name?: string;
      readonly data?: string;
    }
  | { readonly kind: 'config_remove'; readonly id: ConfigId }
  /** `registryAuth`: base64 JSON of `X-Registry-Auth`. */
  | {
      readonly kind: 'service_create';
      readonly id: ServiceId;
      readonly spec: ServiceSpec;
      readonly registryAuth?: string;
    }
  /** Without `spec` the one before takes the place of the present one. */
  | {
      readonly kind: 'service_update';
      readonly id: ServiceId;
      readonly version: number;
      readonly spec?: ServiceSpec;
      readonly registryAuth?: string;
      /** Whose credentials are kept where none are given. */
      readonly authFrom: 'spec' | 'previous-spec';
    }
  /** Its tasks are to end; afterwards it is purged. */
  | { readonly kind: 'service_remove'; readonly id: ServiceId }
  /** Nothing is done while it has tasks, or unless it was removed. */
  | { readonly kind: 'service_purge'; readonly id: ServiceId }
  /** How the update to the spec of `specVersion` goes. */
  | {
      readonly kind: 'service_status';
      readonly id: ServiceId;
      readonly specVersion: number;
      readonly updateStatus: UpdateStatus;
    }
  /** The update to the spec of `specVersion` failed: the spec before takes its place. */
  | {
      readonly kind: 'service_rollback';
      readonly id: ServiceId;
      readonly specVersion: number;
      readonly updateStatus: UpdateStatus;
    }
  /** Placed already if it has a node and its state is `assigned`. */
  | { readonly kind: 'task_create'; readonly task: NewTask }
  /** Places the task, once and for all. */
  | {
      readonly kind: 'task_assign';
      readonly id: TaskId;
      readonly nodeId: NodeId;
      readonly status: TaskStatus;
      readonly assignedResources?: readonly GenericResource[];
    }
  | { readonly kind: 'task_desired'; readonly id: TaskId; readonly desiredState: TaskState }
  /** `nodeId`: that node says so, of its own tasks; without it the leader. */
  | {
      readonly kind: 'task_status';
      readonly nodeId?: NodeId;
      readonly reports: readonly TaskReport[];
    }
  | { readonly kind: 'task_remove'; readonly id: TaskId };

export type CommandKind = CommandBody['kind'] | 'transaction';

/** All of the commands or none: the first refusal is that of the whole. */
export interface Transaction {
  readonly kind: 'transaction';
  readonly commands: readonly CommandBody[];
}

interface Given {
  /** When it was given, in milliseconds since the Unix epoch. */
  readonly atMs: number;
  /** Who gave it, for the history. */
  readonly by?: string;
}

export type SingleCommand = CommandBody & Given;
export type Command = (CommandBody | Transaction) & Given;

const KINDS: Readonly<Record<CommandKind, true>> = {
  cluster_create: true,
  cluster_update: true,
  ca_rotation_start: true,
  ca_rotation_finish: true,
  gossip_keys_rotate: true,
  node_create: true,
  node_update: true,
  node_observe: true,
  nodes_forget_state: true,
  node_leave: true,
  node_role: true,
  node_remove: true,
  network_create: true,
  network_remove: true,
  ingress_create: true,
  ingress_attach: true,
  attachment_create: true,
  attachment_remove: true,
  secret_create: true,
  secret_update: true,
  secret_remove: true,
  config_create: true,
  config_update: true,
  config_remove: true,
  service_create: true,
  service_update: true,
  service_remove: true,
  service_purge: true,
  service_status: true,
  service_rollback: true,
  task_create: true,
  task_assign: true,
  task_desired: true,
  task_status: true,
  task_remove: true,
  transaction: true,
};

function isKnown(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const { kind } = value as { readonly kind?: unknown };
  return typeof kind === 'string' && Object.hasOwn(KINDS, kind);
}

/**
 * Whether this program knows how to do what is asked. What it does not know, a newer one made: it may
 * not be proposed here, since managers of this age could not go on with the log after it.
 */
export function isCommand(value: unknown): value is Command {
  if (!isKnown(value)) return false;
  const { kind, atMs, commands } = value as Record<string, unknown>;
  if (typeof atMs !== 'number') return false;
  if (kind !== 'transaction') return true;
  const isPart = (part: unknown) =>
    isKnown(part) && (part as { readonly kind: string }).kind !== 'transaction';
  return Array.isArray(commands) && commands.every(isPart);
}
