import { AgentError } from '../../base/error.js';
import { type LeaderHint, type ProposeOutcome, reasonOf } from '../wire/forward-messages.js';
import { refusalOf } from '../wire/refusal.js';

/**
 * What became of a proposal to this manager's own raft node, in words that may travel. `leader`
 * is asked when this manager does not lead (any more).
 */
export async function outcomeOf(
  proposed: Promise<{ readonly id: string; readonly index: number }>,
  leader: () => LeaderHint | undefined,
): Promise<ProposeOutcome> {
  try {
    const { id, index } = await proposed;
    return { kind: 'done', id, index };
  } catch (error) {
    const refusal = refusalOf(error);
    if (refusal !== undefined) return { kind: 'refused', refusal };
    switch (error instanceof AgentError ? error.code : '') {
      case 'RAFT_NOT_LEADER': {
        const hint = leader();
        return { kind: 'not_leader', ...(hint && { leader: hint }) };
      }
      case 'RAFT_TOO_LARGE':
        return {
          kind: 'refused',
          refusal: { detail: { code: 'SWARM_INVALID' }, message: reasonOf(error) },
        };
      case 'RAFT_OVERLOADED':
      case 'RAFT_READ_ONLY':
      case 'RAFT_CLOSED':
        return { kind: 'busy', reason: reasonOf(error) };
      default:
        // Also for what nobody thought of: the same again is harmless, a false "no" is not.
        return { kind: 'unknown' };
    }
  }
}
