import { z } from 'zod';
import { SwarmError, type SwarmErrorDetail } from '../../base/swarm-error.js';
import { textSchema } from './model.js';

/** A refusal on its way to the one who asked. */
export interface Refusal {
  readonly detail: SwarmErrorDetail;
  readonly message: string;
}

const text = textSchema;
const kind = z.enum(['node', 'network', 'attachment', 'service', 'task', 'secret', 'config']);

/** Only what a manager may refuse over the wire; a newer manager's codes become `SWARM_INVALID`. */
const detailSchema = z.union([
  z.discriminatedUnion('code', [
    z.object({ code: z.literal('SWARM_TOKEN_MALFORMED') }),
    z.object({ code: z.literal('SWARM_TOKEN_REFUSED') }),
    z.object({ code: z.literal('SWARM_NO_MANAGER') }),
    z.object({ code: z.literal('SWARM_NOT_FOUND'), kind, ref: text }),
    z.object({ code: z.literal('SWARM_AMBIGUOUS'), kind, ref: text, count: z.int() }),
    z.object({ code: z.literal('SWARM_NAME_TAKEN'), kind, name: text }),
    z.object({ code: z.literal('SWARM_IN_USE'), kind, id: text, by: text }),
    z.object({ code: z.literal('SWARM_OUT_OF_SEQUENCE') }),
    z.object({ code: z.literal('SWARM_NODE_NOT_DOWN'), nodeId: text }),
    z.object({ code: z.literal('SWARM_INVALID') }),
    z.object({ code: z.literal('SWARM_PRECONDITION') }),
    z.object({ code: z.literal('SWARM_INTERNAL') }),
    z.object({ code: z.literal('SWARM_NO_QUORUM') }),
    z.object({ code: z.literal('SWARM_OUTCOME_UNKNOWN') }),
    z.object({ code: z.literal('SWARM_LOCKED') }),
    z.object({ code: z.literal('SWARM_UNSUPPORTED') }),
    z.object({ code: z.literal('SWARM_NOT_ATTACHABLE'), network: text }),
    z.object({ code: z.literal('SWARM_EXHAUSTED'), what: text }),
  ]),
  z.object({ code: text }).transform(() => ({ code: 'SWARM_INVALID' as const })),
]);

export const refusalSchema: z.ZodType<Refusal> = z.object({ detail: detailSchema, message: text });

/** `undefined` for anything that is not a refusal: that is the manager's own trouble. */
export function refusalOf(error: unknown): Refusal | undefined {
  return error instanceof SwarmError ? { detail: error.detail, message: error.message } : undefined;
}

export function errorOf(refusal: Refusal): SwarmError {
  return new SwarmError(refusal.detail, refusal.message);
}
