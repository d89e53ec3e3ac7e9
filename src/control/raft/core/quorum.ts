import type { RaftId } from './types.js';

/** How many of `voters` decide: more than half, so that any two quorums share a member. */
export function quorumOf(voters: number): number {
  return Math.floor(voters / 2) + 1;
}

/** The largest number that a quorum of the voters has reached; 0 without voters. */
export function reachedByQuorum(voters: readonly RaftId[], of: (voter: RaftId) => number): number {
  if (voters.length === 0) return 0;
  const reached = voters.map(of).sort((a, b) => b - a);
  return reached[quorumOf(voters.length) - 1] as number;
}

export type Verdict = 'won' | 'lost' | 'open';

/** `lost`: a quorum can no longer be had. Without voters nobody wins. */
export function verdict(voters: readonly RaftId[], votes: ReadonlyMap<RaftId, boolean>): Verdict {
  const needed = quorumOf(voters.length);
  const granted = voters.filter((voter) => votes.get(voter) === true).length;
  const refused = voters.filter((voter) => votes.get(voter) === false).length;
  if (granted >= needed) return 'won';
  return voters.length - refused < needed ? 'lost' : 'open';
}
