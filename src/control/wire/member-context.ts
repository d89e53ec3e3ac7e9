import { z } from 'zod';
import type { NodeId } from '../../base/swarm-model.js';
import { nodeIdSchema } from './model.js';

/** What a raft member's `context` says: which node it is, and where it was when that was written. */
export interface MemberContext {
  readonly nodeId: NodeId;
  /** `host:port` of the control port. */
  readonly address: string;
}

const schema: z.ZodType<MemberContext> = z.object({
  nodeId: nodeIdSchema,
  address: z.string().max(300),
});

export function formatMemberContext(context: MemberContext): string {
  return JSON.stringify({ nodeId: context.nodeId, address: context.address });
}

/** `undefined`: not such a text. */
export function parseMemberContext(text: string): MemberContext | undefined {
  try {
    return schema.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
