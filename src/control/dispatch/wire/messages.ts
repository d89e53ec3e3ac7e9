import { z } from 'zod';
import type { ServiceEntry } from '../../../base/service-model.js';
import type {
  AttachmentId,
  ClusterId,
  ConfigId,
  NetworkId,
  NetworkObject,
  NodeAvailability,
  NodeId,
  NodeRole,
  NodeState,
  SecretId,
  ServiceId,
  TaskId,
} from '../../../base/swarm-model.js';
import type { AttachRequest, KeyedAttachment } from '../../wire/attachment.js';
import type { GossipKeyText } from '../../wire/gossip-key.js';
import {
  attachmentIdSchema,
  availabilitySchema,
  type ControlAddress,
  clusterIdSchema,
  controlAddressSchema,
  type NodeRegistration,
  networkIdSchema,
  networkSchema,
  nodeIdSchema,
  nodeStateSchema,
  portSchema,
  registrationSchema,
  roleSchema,
  textSchema,
} from '../../wire/model.js';
import { type Refusal, refusalSchema } from '../../wire/refusal.js';
import {
  type AssignedConfig,
  type AssignedSecret,
  type AssignedTask,
  assignedConfigSchema,
  assignedSecretSchema,
  assignedTaskSchema,
  configIdSchema,
  REPORTS_MAX,
  reportSchema,
  secretIdSchema,
  serviceEntrySchema,
  serviceIdSchema,
  type TaskReport,
  taskIdSchema,
} from '../../wire/task-model.js';

/** Longest name and number of aliases of one attachment. */
const NAME_CHARS_MAX = 255;
const ALIASES_MAX = 64;

/** What every node knows of every other. */
export interface NodeEntry {
  readonly id: NodeId;
  readonly hostname: string;
  readonly role: NodeRole;
  readonly availability: NodeAvailability;
  readonly state: NodeState;
  readonly peerId: string;
  readonly address: string;
  readonly dataPathAddress: string;
  readonly gossipAddress: string;
  readonly gossipPort: number;
}

/** What every node knows of the swarm. */
export interface ClusterFacts {
  readonly id: ClusterId;
  readonly dataPathPort: number;
  readonly heartbeatMs: number;
  readonly rootCaPem: string;
  readonly managers: readonly ControlAddress[];
  /** One of them, which has enough to do. */
  readonly leader?: ControlAddress;
}

export interface TableChange<Id, Row> {
  readonly put: readonly Row[];
  readonly remove: readonly Id[];
}

/** What is different since the assignments of the version before; absent parts are as they were. */
export interface AssignmentsChange {
  /** Raised when the state was put back to an earlier one; versions count within an era. */
  readonly era: number;
  readonly version: number;
  readonly cluster?: ClusterFacts;
  /** First seals, all open. */
  readonly gossipKeys?: readonly GossipKeyText[];
  readonly networks?: TableChange<NetworkId, NetworkObject>;
  readonly nodes?: TableChange<NodeId, NodeEntry>;
  readonly services?: TableChange<ServiceId, ServiceEntry>;
  readonly attachments?: TableChange<AttachmentId, KeyedAttachment>;
  readonly tasks?: TableChange<TaskId, AssignedTask>;
  /** Never written to a disk. What no task refers to any more is forgotten. */
  readonly secrets?: TableChange<SecretId, AssignedSecret>;
  readonly configs?: TableChange<ConfigId, AssignedConfig>;
}

/** From an agent to its manager. `request` numbers questions, for the answer to name. */
export type AgentMessage =
  | {
      readonly kind: 'hello';
      readonly registration: NodeRegistration;
      /** Larger than that of any session before: the largest is the latest, whoever serves it. */
      readonly session: number;
      /** Of the assignments that the agent has, which no manager may take it back from; 0: none. */
      readonly era: number;
      readonly version: number;
      /** The agent has none of the contents of its secrets. */
      readonly bare: boolean;
    }
  | { readonly kind: 'heartbeat' }
  /** What has become of tasks; answered when the managers have it. */
  | { readonly kind: 'status'; readonly request: number; readonly reports: readonly TaskReport[] }
  | { readonly kind: 'registration'; readonly registration: NodeRegistration }
  | { readonly kind: 'attach'; readonly request: number; readonly wish: AttachRequest }
  | { readonly kind: 'detach'; readonly request: number; readonly id: AttachmentId }
  | { readonly kind: 'leave'; readonly request: number };

export type ManagerMessage =
  /**
   * `stale`: the manager cannot reach most of the others, so that its state may be an old one, and
   * nothing can be changed. The welcome is said again when the session is known to all managers.
   */
  | { readonly kind: 'welcome'; readonly heartbeatMs: number; readonly stale: boolean }
  | { readonly kind: 'heartbeat'; readonly heartbeatMs: number; readonly stale: boolean }
  | { readonly kind: 'probe' }
  | {
      readonly kind: 'assignments';
      /** Everything known before is void. */
      readonly reset: boolean;
      /** False: more parts of the same version follow. */
      readonly done: boolean;
      readonly change: AssignmentsChange;
    }
  | { readonly kind: 'answer'; readonly request: number; readonly attachment?: KeyedAttachment }
  | { readonly kind: 'refused'; readonly request: number; readonly refusal: Refusal }
  | {
      readonly kind: 'goodbye';
      readonly reason: GoodbyeReason;
      /** `replaced`: the number of the session that did it. */
      readonly session?: number;
    };

/**
 * `removed`: the node is no member of the swarm any more. `replaced`: it has a later session.
 * `behind`: the manager knows less than the agent does. `closing`: the manager ends.
 */
export type GoodbyeReason = 'removed' | 'replaced' | 'behind' | 'closing';

const requestSchema = z.int().min(0);
const versionSchema = z.int().min(0);
const nameSchema = z.string().max(NAME_CHARS_MAX);

const agentMessageSchema: z.ZodType<AgentMessage> = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('hello'),
    registration: registrationSchema,
    session: z.int().min(1),
    era: versionSchema,
    version: versionSchema,
    bare: z.boolean().default(false),
  }),
  z.object({ kind: z.literal('heartbeat') }),
  z.object({
    kind: z.literal('status'),
    request: requestSchema,
    reports: z.array(reportSchema).max(REPORTS_MAX),
  }),
  z.object({ kind: z.literal('registration'), registration: registrationSchema }),
  z.object({
    kind: z.literal('attach'),
    request: requestSchema,
    wish: z.object({
      key: z.string().min(1).max(NAME_CHARS_MAX),
      network: nameSchema,
      addresses: z.array(z.string().max(64)).max(2),
      name: nameSchema,
      aliases: z.array(nameSchema).max(ALIASES_MAX),
    }),
  }),
  z.object({ kind: z.literal('detach'), request: requestSchema, id: attachmentIdSchema }),
  z.object({ kind: z.literal('leave'), request: requestSchema }),
]);

const attachmentSchema: z.ZodType<KeyedAttachment> = z.object({
  id: attachmentIdSchema,
  version: z.number(),
  createdAtMs: z.number(),
  updatedAtMs: z.number(),
  key: nameSchema,
  networkId: networkIdSchema,
  nodeId: nodeIdSchema,
  name: nameSchema,
  aliases: z.array(nameSchema),
  addresses: z.array(nameSchema),
  mac: nameSchema,
});

const nodeEntrySchema: z.ZodType<NodeEntry> = z.object({
  id: nodeIdSchema,
  hostname: textSchema,
  role: roleSchema,
  availability: availabilitySchema,
  state: nodeStateSchema,
  peerId: textSchema,
  address: textSchema,
  dataPathAddress: textSchema,
  gossipAddress: textSchema,
  gossipPort: portSchema,
});

const changeSchema: z.ZodType<AssignmentsChange> = z.object({
  era: versionSchema.default(0),
  version: versionSchema,
  cluster: z
    .object({
      id: clusterIdSchema,
      dataPathPort: portSchema,
      heartbeatMs: z.number().positive(),
      rootCaPem: z.string(),
      managers: z.array(controlAddressSchema),
      leader: controlAddressSchema.exactOptional(),
    })
    .exactOptional(),
  gossipKeys: z
    .array(z.object({ id: z.int().min(0).max(255), secret: z.base64().length(44) }))
    .exactOptional(),
  networks: z
    .object({ put: z.array(networkSchema), remove: z.array(networkIdSchema) })
    .exactOptional(),
  nodes: z.object({ put: z.array(nodeEntrySchema), remove: z.array(nodeIdSchema) }).exactOptional(),
  services: z
    .object({ put: z.array(serviceEntrySchema), remove: z.array(serviceIdSchema) })
    .exactOptional(),
  attachments: z
    .object({ put: z.array(attachmentSchema), remove: z.array(attachmentIdSchema) })
    .exactOptional(),
  tasks: z
    .object({ put: z.array(assignedTaskSchema), remove: z.array(taskIdSchema) })
    .exactOptional(),
  secrets: z
    .object({ put: z.array(assignedSecretSchema), remove: z.array(secretIdSchema) })
    .exactOptional(),
  configs: z
    .object({ put: z.array(assignedConfigSchema), remove: z.array(configIdSchema) })
    .exactOptional(),
});

const managerMessageSchema: z.ZodType<ManagerMessage> = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('welcome'),
    heartbeatMs: z.number().positive(),
    stale: z.boolean(),
  }),
  z.object({
    kind: z.literal('heartbeat'),
    heartbeatMs: z.number().positive(),
    stale: z.boolean(),
  }),
  z.object({ kind: z.literal('probe') }),
  z.object({
    kind: z.literal('assignments'),
    reset: z.boolean(),
    done: z.boolean(),
    change: changeSchema,
  }),
  z.object({
    kind: z.literal('answer'),
    request: requestSchema,
    attachment: attachmentSchema.exactOptional(),
  }),
  z.object({ kind: z.literal('refused'), request: requestSchema, refusal: refusalSchema }),
  z.object({
    kind: z.literal('goodbye'),
    reason: z.enum(['removed', 'replaced', 'behind', 'closing']),
    session: z.int().min(0).exactOptional(),
  }),
]);

/** `undefined`: not a message of this protocol. */
export function parseAgentMessage(value: unknown): AgentMessage | undefined {
  return agentMessageSchema.safeParse(value).data;
}

export function parseManagerMessage(value: unknown): ManagerMessage | undefined {
  return managerMessageSchema.safeParse(value).data;
}

export function parseAssignmentsChange(value: unknown): AssignmentsChange | undefined {
  return changeSchema.safeParse(value).data;
}
