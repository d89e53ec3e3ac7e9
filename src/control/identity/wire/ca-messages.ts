import { z } from 'zod';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import {
  type ControlAddress,
  clusterIdSchema,
  controlAddressSchema,
  type NodeRegistration,
  nodeIdSchema,
  registrationSchema,
  roleSchema,
} from '../../wire/model.js';
import { type Refusal, refusalSchema } from '../../wire/refusal.js';

/** A public key and the proof that its private half is held: what a PKCS #10 request is for. */
export interface CertificateRequest {
  /** Ed25519, 32 bytes, base64. */
  readonly publicKey: string;
  /** Signature over `requestStatement`, base64. */
  readonly proof: string;
}

export type CaRequest =
  | { readonly kind: 'ca_get' }
  | {
      readonly kind: 'join';
      readonly token: string;
      readonly request: CertificateRequest;
      readonly registration: NodeRegistration;
    }
  /** Asked with the present certificate, whose key the new one keeps. */
  | { readonly kind: 'renew'; readonly request: CertificateRequest };

export type CaReply =
  /** All roots of the swarm: a joiner goes on with the one that its token names. */
  | { readonly kind: 'ca'; readonly caPem: string }
  | {
      readonly kind: 'certificate';
      readonly nodeId: NodeId;
      readonly clusterId: ClusterId;
      readonly role: NodeRole;
      /** The node's, then the intermediates that it is to show with it. */
      readonly certPem: string;
      /** All roots that the node is to trust from here on. */
      readonly caPem: string;
      readonly managers: readonly ControlAddress[];
    }
  | { readonly kind: 'refused'; readonly refusal: Refusal };

/** What is signed: bound to one swarm, and to nothing else that an Ed25519 key may sign. */
export function requestStatement(caDigest: string, publicKey: string): string {
  return `shoal certificate request 1\n${caDigest}\n${publicKey}\n`;
}

const PEM_CHARS_MAX = 16_384;
const pemSchema = z.string().max(PEM_CHARS_MAX);
const requestSchema: z.ZodType<CertificateRequest> = z.object({
  publicKey: z.string().length(44),
  proof: z.string().length(88),
});

const caRequestSchema: z.ZodType<CaRequest> = z.union([
  z.object({ kind: z.literal('ca_get') }),
  z.object({
    kind: z.literal('join'),
    token: z.string().max(256),
    request: requestSchema,
    registration: registrationSchema,
  }),
  z.object({ kind: z.literal('renew'), request: requestSchema }),
]);

const caReplySchema: z.ZodType<CaReply> = z.union([
  z.object({ kind: z.literal('ca'), caPem: pemSchema }),
  z.object({
    kind: z.literal('certificate'),
    nodeId: nodeIdSchema,
    clusterId: clusterIdSchema,
    role: roleSchema,
    certPem: pemSchema,
    caPem: pemSchema,
    managers: z.array(controlAddressSchema).max(64),
  }),
  z.object({ kind: z.literal('refused'), refusal: refusalSchema }),
]);

/** `undefined`: not a request of this protocol. */
export function parseCaRequest(value: unknown): CaRequest | undefined {
  return caRequestSchema.safeParse(value).data;
}

export function parseCaReply(value: unknown): CaReply | undefined {
  return caReplySchema.safeParse(value).data;
}
