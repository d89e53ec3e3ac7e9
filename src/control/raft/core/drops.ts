/** Why a message of a peer went nowhere. Each value is also the name of its counter. */
export const RAFT_DROPS = [
  /** Addressed to another member, or from this one. */
  'misaddressed',
  /** Of an earlier term, and nothing that an answer would help with. */
  'stale_term',
  /** Asks for a vote while there is a leader: ordinary for a member that was cut off. */
  'leader_alive',
  /** Claims to lead a term that has another leader. */
  'second_leader',
  /** An answer or a question of somebody who is no member. */
  'unknown_sender',
  /** Entries with gaps, or with terms that do not fit. */
  'entries_invalid',
  /** A membership that cannot be read, or has no voter. */
  'members_invalid',
  /** A snapshot of no place in a log, or without a voter. */
  'snapshot_invalid',
  /** Would replace an entry that is committed. */
  'committed_conflict',
  /** Speaks of an index or a round that does not exist here. */
  'beyond_log',
  /** An answer to no question, or not in this role. */
  'unexpected',
  /** A follower's read while too many wait. */
  'reads_overflow',
] as const;

export type RaftDrop = (typeof RAFT_DROPS)[number];
export type RaftDropCounts = Record<RaftDrop, number>;

export function noDrops(): RaftDropCounts {
  return Object.fromEntries(RAFT_DROPS.map((drop) => [drop, 0])) as RaftDropCounts;
}
