import { z } from 'zod';
import {
  type ConfigReference,
  type ContainerSpec,
  type NetworkTarget,
  type PortConfig,
  type Resources,
  type SecretReference,
  type ServiceEntry,
  TASK_STATES,
  type TaskNetwork,
  type TaskObject,
  type TaskSpec,
  type TaskState,
  type TaskStatus,
} from '../../base/service-model.js';
import type { ConfigId, SecretId, ServiceId, TaskId, Templating } from '../../base/swarm-model.js';
import {
  genericResourceSchema,
  idSchema,
  networkIdSchema,
  nodeIdSchema,
  textSchema,
} from './model.js';

/** Reports of one message. */
export const REPORTS_MAX = 1_024;

/** A task as its node is told of it. */
export interface AssignedTask extends TaskObject {
  /** Of tasks whose image may still have to be pulled. */
  readonly registryAuth?: string;
}

/** A secret or a config with its contents, base64. */
export interface AssignedBlob<Id extends string> {
  readonly id: Id;
  readonly name: string;
  readonly templating?: Templating;
  readonly data: string;
}

export type AssignedSecret = AssignedBlob<SecretId>;
export type AssignedConfig = AssignedBlob<ConfigId>;

/** What a node says of one of its tasks. */
export interface TaskReport {
  readonly taskId: TaskId;
  readonly status: TaskStatus;
}

// Of what managers tell only the form is looked at: they have judged and bounded the contents.
const text = z.string();
const texts = z.array(text).readonly();
const labels = z.record(text, text);
const number = z.number();
const flag = z.boolean();

export const serviceIdSchema = idSchema<ServiceId>();
export const taskIdSchema = idSchema<TaskId>();
export const secretIdSchema = idSchema<SecretId>();
export const configIdSchema = idSchema<ConfigId>();

const stateSchema: z.ZodType<TaskState> = z.enum(TASK_STATES);

const portFields = {
  name: text.exactOptional(),
  protocol: z.enum(['tcp', 'udp', 'sctp']),
  targetPort: number,
  publishMode: z.enum(['ingress', 'host']),
};
const portSchema: z.ZodType<PortConfig> = z.object({
  ...portFields,
  publishedPort: number.exactOptional(),
});
const openPortSchema: z.ZodType<PortConfig & { readonly publishedPort: number }> = z.object({
  ...portFields,
  publishedPort: number,
});

const statusFields = {
  state: stateSchema,
  atMs: number,
  health: z.enum(['none', 'starting', 'healthy', 'unhealthy']).exactOptional(),
};
const containerStatusFields = { pid: number, exitCode: number.exactOptional() };
const statusSchema: z.ZodType<TaskStatus> = z.object({
  ...statusFields,
  message: text,
  error: text.exactOptional(),
  container: z.object({ id: text, ...containerStatusFields }).exactOptional(),
  ports: z.array(openPortSchema).exactOptional(),
});

/** Ports of one task. */
const REPORTED_PORTS_MAX = 1_024;

/** From a node, and so with bounds. Only the managers make tasks, place them, and give them up. */
export const reportSchema: z.ZodType<TaskReport> = z.object({
  taskId: taskIdSchema,
  status: z.object({
    ...statusFields,
    state: z.enum([
      'accepted',
      'preparing',
      'ready',
      'starting',
      'running',
      'complete',
      'shutdown',
      'failed',
      'rejected',
      'remove',
    ]),
    message: textSchema,
    error: textSchema.exactOptional(),
    container: z.object({ id: textSchema, ...containerStatusFields }).exactOptional(),
    ports: z.array(openPortSchema).max(REPORTED_PORTS_MAX).exactOptional(),
  }),
});

const fileSchema = z.object({ name: text, uid: text, gid: text, mode: number });
const secretReferenceSchema: z.ZodType<SecretReference> = z.object({
  secretId: secretIdSchema,
  secretName: text,
  file: fileSchema.exactOptional(),
});
const configReferenceSchema: z.ZodType<ConfigReference> = z.object({
  configId: configIdSchema,
  configName: text,
  file: fileSchema.exactOptional(),
  runtime: flag.exactOptional(),
});

const mountSchema = z.object({
  type: z.enum(['bind', 'volume', 'tmpfs', 'npipe', 'cluster', 'image']),
  source: text.exactOptional(),
  target: text,
  readOnly: flag.exactOptional(),
  consistency: text.exactOptional(),
  bind: z
    .object({
      propagation: text.exactOptional(),
      nonRecursive: flag.exactOptional(),
      createMountpoint: flag.exactOptional(),
      readOnlyNonRecursive: flag.exactOptional(),
      readOnlyForceRecursive: flag.exactOptional(),
    })
    .exactOptional(),
  volume: z
    .object({
      noCopy: flag.exactOptional(),
      labels: labels.exactOptional(),
      subpath: text.exactOptional(),
      driver: z
        .object({ name: text.exactOptional(), options: labels.exactOptional() })
        .exactOptional(),
    })
    .exactOptional(),
  tmpfs: z
    .object({
      sizeBytes: number.exactOptional(),
      mode: number.exactOptional(),
      options: z.array(texts).exactOptional(),
    })
    .exactOptional(),
});

const containerSchema: z.ZodType<ContainerSpec> = z.object({
  image: text,
  labels: labels.exactOptional(),
  command: texts.exactOptional(),
  args: texts.exactOptional(),
  hostname: text.exactOptional(),
  env: texts.exactOptional(),
  dir: text.exactOptional(),
  user: text.exactOptional(),
  groups: texts.exactOptional(),
  privileges: z.record(text, z.unknown()).exactOptional(),
  init: flag.exactOptional(),
  stopSignal: text.exactOptional(),
  tty: flag.exactOptional(),
  openStdin: flag.exactOptional(),
  readOnly: flag.exactOptional(),
  mounts: z.array(mountSchema).exactOptional(),
  stopGracePeriodMs: number.exactOptional(),
  health: z
    .object({
      test: texts.exactOptional(),
      intervalMs: number.exactOptional(),
      timeoutMs: number.exactOptional(),
      startPeriodMs: number.exactOptional(),
      startIntervalMs: number.exactOptional(),
      retries: number.exactOptional(),
    })
    .exactOptional(),
  hosts: texts.exactOptional(),
  dns: z
    .object({
      nameservers: texts.exactOptional(),
      search: texts.exactOptional(),
      options: texts.exactOptional(),
    })
    .exactOptional(),
  secrets: z.array(secretReferenceSchema).exactOptional(),
  configs: z.array(configReferenceSchema).exactOptional(),
  isolation: text.exactOptional(),
  sysctls: labels.exactOptional(),
  capabilityAdd: texts.exactOptional(),
  capabilityDrop: texts.exactOptional(),
  ulimits: z.array(z.object({ name: text, hard: number, soft: number })).exactOptional(),
  oomScoreAdj: number.exactOptional(),
});

const quantities = { nanoCpus: number.exactOptional(), memoryBytes: number.exactOptional() };
const resourcesSchema: z.ZodType<Resources> = z.object({
  limits: z.object({ ...quantities, pids: number.exactOptional() }).exactOptional(),
  reservations: z
    .object({ ...quantities, generic: z.array(genericResourceSchema).exactOptional() })
    .exactOptional(),
  swapBytes: number.exactOptional(),
  memorySwappiness: number.exactOptional(),
});

/** An id, or the name of one of the node's own networks. */
const networkTargetSchema: z.ZodType<NetworkTarget> = z.object({
  target: z.custom<NetworkTarget['target']>((value) => typeof value === 'string'),
  aliases: texts.exactOptional(),
  driverOptions: labels.exactOptional(),
});

const specSchema: z.ZodType<TaskSpec> = z.object({
  container: containerSchema,
  resources: resourcesSchema.exactOptional(),
  restart: z
    .object({
      condition: z.enum(['none', 'on-failure', 'any']).exactOptional(),
      delayMs: number.exactOptional(),
      maxAttempts: number.exactOptional(),
      windowMs: number.exactOptional(),
    })
    .exactOptional(),
  placement: z
    .object({
      constraints: texts.exactOptional(),
      spreadOver: texts.exactOptional(),
      maxReplicas: number.exactOptional(),
      platforms: z
        .array(z.object({ architecture: text.exactOptional(), os: text.exactOptional() }))
        .exactOptional(),
    })
    .exactOptional(),
  networks: z.array(networkTargetSchema).exactOptional(),
  logDriver: z.object({ name: text, options: labels.exactOptional() }).exactOptional(),
  forceUpdate: number.exactOptional(),
  runtime: text.exactOptional(),
});

const taskNetworkSchema: z.ZodType<TaskNetwork> = z.object({
  networkId: networkIdSchema,
  attachmentId: text,
  addresses: texts,
  mac: text,
  aliases: texts,
});

export const assignedTaskSchema: z.ZodType<AssignedTask> = z.object({
  id: taskIdSchema,
  version: number,
  createdAtMs: number,
  updatedAtMs: number,
  serviceId: serviceIdSchema,
  serviceName: text,
  serviceLabels: labels,
  slot: number,
  nodeId: nodeIdSchema.exactOptional(),
  spec: specSchema,
  specVersion: number,
  jobIteration: number.exactOptional(),
  desiredState: stateSchema,
  status: statusSchema,
  startsAtMs: number.exactOptional(),
  runningAtMs: number.exactOptional(),
  endedAtMs: number.exactOptional(),
  networks: z.array(taskNetworkSchema),
  ports: z.array(portSchema),
  assignedResources: z.array(genericResourceSchema).exactOptional(),
  registryAuth: text.exactOptional(),
});

const blobFields = {
  name: text,
  templating: z.object({ name: text, options: labels }).exactOptional(),
  data: text,
};
export const assignedSecretSchema: z.ZodType<AssignedSecret> = z.object({
  id: secretIdSchema,
  ...blobFields,
});
export const assignedConfigSchema: z.ZodType<AssignedConfig> = z.object({
  id: configIdSchema,
  ...blobFields,
});

export const serviceEntrySchema: z.ZodType<ServiceEntry> = z.object({
  id: serviceIdSchema,
  version: number,
  name: text,
  labels,
  endpointMode: z.enum(['vip', 'dnsrr']),
  virtualIps: z.array(z.object({ networkId: networkIdSchema, address: text.exactOptional() })),
  ports: z.array(openPortSchema),
  networks: z.array(networkTargetSchema),
});
