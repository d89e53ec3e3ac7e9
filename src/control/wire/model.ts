import { z } from 'zod';
import type {
  AttachmentId,
  ClusterId,
  GenericResource,
  NetworkId,
  NetworkObject,
  NodeAvailability,
  NodeDescription,
  NodeId,
  NodeRole,
  NodeState,
} from '../../base/swarm-model.js';

/** Longest text of one field that a peer may send. */
export const TEXT_CHARS_MAX = 4096;
/** Most entries of one label map or list inside one object. */
export const LIST_ENTRIES_MAX = 1024;

const ID_PATTERN = /^[0-9a-z]{25}$/;

export function idSchema<Id extends string>(): z.ZodType<Id> {
  return z.custom<Id>((value) => typeof value === 'string' && ID_PATTERN.test(value));
}

export const nodeIdSchema = idSchema<NodeId>();
export const networkIdSchema = idSchema<NetworkId>();
export const clusterIdSchema = idSchema<ClusterId>();
export const attachmentIdSchema = idSchema<AttachmentId>();

export const textSchema = z.string().max(TEXT_CHARS_MAX);
export const labelsSchema = z
  .record(textSchema, textSchema)
  .refine((labels) => Object.keys(labels).length <= LIST_ENTRIES_MAX);
export const portSchema = z.int().min(0).max(65535);
export const roleSchema: z.ZodType<NodeRole> = z.enum(['worker', 'manager']);
export const nodeStateSchema: z.ZodType<NodeState> = z.enum([
  'unknown',
  'down',
  'ready',
  'disconnected',
]);
export const availabilitySchema: z.ZodType<NodeAvailability> = z.enum(['active', 'pause', 'drain']);

/** A control port: an address literal or a host name, and a TCP port. */
export interface ControlAddress {
  readonly address: string;
  readonly port: number;
}

export const controlAddressSchema: z.ZodType<ControlAddress> = z.object({
  address: z.string().min(1).max(255),
  port: portSchema,
});

/** What a node says about itself; what it trusts is known from its certificate. */
export type NodeSelfDescription = Omit<
  NodeDescription,
  'trustRootPem' | 'certIssuerSubject' | 'certIssuerPublicKey'
>;

/** What a node tells its manager when it joins and at the start of every session. */
export interface NodeRegistration {
  readonly description: NodeSelfDescription;
  /** Counts at joining only; afterwards the operator's `node update` rules. */
  readonly availability: NodeAvailability;
  /** The node's advertised address; empty: as the manager sees it. */
  readonly address: string;
  /** Underlay address of the node's VTEP; empty: the same as `address`. */
  readonly dataPathAddress: string;
  /** Where gossip reaches the node; empty: the same as `address`. */
  readonly gossipAddress: string;
  readonly gossipPort: number;
}

export const genericResourceSchema: z.ZodType<GenericResource> = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('named'), name: textSchema, value: textSchema }),
  z.object({ kind: z.literal('discrete'), name: textSchema, value: z.number() }),
]);

const addressSchema = z.string().max(255);

export const registrationSchema: z.ZodType<NodeRegistration> = z.object({
  description: z.object({
    hostname: textSchema,
    os: textSchema,
    architecture: textSchema,
    nanoCpus: z.number().min(0),
    memoryBytes: z.number().min(0),
    genericResources: z.array(genericResourceSchema).max(LIST_ENTRIES_MAX).exactOptional(),
    engineVersion: textSchema,
    engineLabels: labelsSchema,
    plugins: z.array(z.object({ type: textSchema, name: textSchema })).max(LIST_ENTRIES_MAX),
  }),
  availability: availabilitySchema,
  address: addressSchema,
  dataPathAddress: addressSchema,
  gossipAddress: addressSchema,
  gossipPort: portSchema,
});

/** Shared by the networks of assignments; the manager has judged and bounded the contents. */
export const networkSchema: z.ZodType<NetworkObject> = z.object({
  id: networkIdSchema,
  version: z.number(),
  createdAtMs: z.number(),
  updatedAtMs: z.number(),
  spec: z.object({
    name: z.string(),
    labels: z.record(z.string(), z.string()),
    driver: z.string(),
    driverOptions: z.record(z.string(), z.string()),
    attachable: z.boolean(),
    internal: z.boolean(),
    ingress: z.boolean(),
    ipv6: z.boolean(),
    ipamDriver: z.string(),
    ipamOptions: z.record(z.string(), z.string()),
    ipam: z.array(
      z.object({
        subnet: z.string(),
        gateway: z.string().exactOptional(),
        ipRange: z.string().exactOptional(),
        auxAddresses: z.record(z.string(), z.string()).exactOptional(),
      }),
    ),
  }),
  vni: z.int(),
  subnets: z.array(
    z.object({
      subnet: z.string(),
      gateway: z.string(),
      ipRange: z.string().exactOptional(),
      auxAddresses: z.record(z.string(), z.string()).exactOptional(),
    }),
  ),
  mtuBytes: z.int().exactOptional(),
  isSealed: z.literal(true).exactOptional(),
});
