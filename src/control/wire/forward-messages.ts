import { z } from 'zod';
import type { NodeId } from '../../base/swarm-model.js';
import { type ControlAddress, controlAddressSchema, nodeIdSchema } from './model.js';
import { type Refusal, refusalSchema } from './refusal.js';

/**
 * `shoal-forward/1`: what managers ask of each other, above all of the leader. Many questions are
 * under way at once; `request` numbers them, and answers come in any order.
 */
export const ALPN_FORWARD = 'shoal-forward/1';

/** Largest message: a command of 1.5 MiB, or what a call answers about ten thousand nodes. */
export const FORWARD_BYTES_MAX = 4 << 20;
/** Longest id of a proposal, and longest name of a method. */
const NAME_CHARS_MAX = 64;
/** Longest id of an object that a proposal was about. */
const ID_CHARS_MAX = 255;
const REASON_CHARS_MAX = 1_024;

/** Where the leader is, as the one who was asked sees it. */
export interface LeaderHint {
  readonly nodeId: NodeId;
  readonly address: ControlAddress;
}

/** What became of a proposal. */
export type ProposeOutcome =
  /** It holds; `index` is of the log entry that has it. */
  | { readonly kind: 'done'; readonly id: string; readonly index: number }
  /** The store said no, for good: nothing was changed. */
  | { readonly kind: 'refused'; readonly refusal: Refusal }
  /** Not taken up: someone else leads. */
  | { readonly kind: 'not_leader'; readonly leader?: LeaderHint }
  /** Not taken up: too much to do, or a full disk. The same again later may succeed. */
  | { readonly kind: 'busy'; readonly reason: string }
  /** It may hold, now or later: only the same `dedupe` again is safe. */
  | { readonly kind: 'unknown' };

/** What became of a call. */
export type CallOutcome =
  | { readonly kind: 'result'; readonly result: unknown }
  | Exclude<ProposeOutcome, { readonly kind: 'done' }>;

export type ForwardRequest =
  | {
      readonly kind: 'propose';
      readonly request: number;
      /** Made up by the proposer: however often it comes, the command is done once. */
      readonly dedupe: string;
      /** A command of the store, judged by whoever takes it up. */
      readonly command: unknown;
    }
  | {
      readonly kind: 'call';
      readonly request: number;
      readonly method: string;
      readonly params?: unknown;
    }
  /** The asker does not wait any more. A proposal may hold all the same. */
  | { readonly kind: 'cancel'; readonly request: number }
  | { readonly kind: 'ping' };

export type ForwardResponse =
  | ((ProposeOutcome | CallOutcome) & { readonly request: number })
  | { readonly kind: 'pong' };

const requestSchema = z.int().min(0);
const nameSchema = z.string().min(1).max(NAME_CHARS_MAX);
const reasonSchema = z.string().max(REASON_CHARS_MAX);

const requestMessageSchema: z.ZodType<ForwardRequest> = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('propose'),
    request: requestSchema,
    dedupe: nameSchema,
    command: z.looseObject({ kind: nameSchema }),
  }),
  z.object({
    kind: z.literal('call'),
    request: requestSchema,
    method: nameSchema,
    params: z.unknown().optional(),
  }),
  z.object({ kind: z.literal('cancel'), request: requestSchema }),
  z.object({ kind: z.literal('ping') }),
]);

const hintSchema: z.ZodType<LeaderHint> = z.object({
  nodeId: nodeIdSchema,
  address: controlAddressSchema,
});

const responseMessageSchema: z.ZodType<ForwardResponse> = z.discriminatedUnion('kind', [
  z.object({
    kind: z.literal('done'),
    request: requestSchema,
    id: z.string().max(ID_CHARS_MAX),
    index: z.int().min(0),
  }),
  z.object({ kind: z.literal('refused'), request: requestSchema, refusal: refusalSchema }),
  z.object({
    kind: z.literal('not_leader'),
    request: requestSchema,
    leader: hintSchema.exactOptional(),
  }),
  z.object({ kind: z.literal('busy'), request: requestSchema, reason: reasonSchema }),
  z.object({ kind: z.literal('unknown'), request: requestSchema }),
  z.object({ kind: z.literal('result'), request: requestSchema, result: z.unknown() }),
  z.object({ kind: z.literal('pong') }),
]);

/** `undefined`: not a message of this protocol. */
export function parseForwardRequest(value: unknown): ForwardRequest | undefined {
  return requestMessageSchema.safeParse(value).data;
}

export function parseForwardResponse(value: unknown): ForwardResponse | undefined {
  return responseMessageSchema.safeParse(value).data;
}

/** A reason that fits into a message. */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.slice(0, REASON_CHARS_MAX);
}
