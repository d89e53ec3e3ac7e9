import { AgentError } from '../../../base/error.js';
import type { ProposalRefusal, RaftId } from '../core/types.js';

/** Why a member did not do what it was asked to. */
export type RaftErrorDetail =
  /** Nothing was done: ask `leader`; 0: none is known, or it is being changed: ask again in a moment. */
  | { readonly code: 'RAFT_NOT_LEADER'; readonly leader: RaftId | 0 }
  /** Taken up, and then leadership was lost or the member closed: it may be committed, or be yet. */
  | { readonly code: 'RAFT_OUTCOME_UNKNOWN' }
  /** Taken up and lost for certain, since another entry was committed in its place: proposing again is safe. */
  | { readonly code: 'RAFT_LOST' }
  /** Nothing was done, since too much waits already: later. */
  | { readonly code: 'RAFT_OVERLOADED' }
  /** Nothing was done: the disk of the leader is full. */
  | { readonly code: 'RAFT_READ_ONLY' }
  /** The membership was not changed. `members_busy`, `learner_behind`: try again later. */
  | { readonly code: 'RAFT_MEMBERS'; readonly reason: ProposalRefusal }
  /** A read found no leader that could confirm itself in time: there may be no quorum. */
  | { readonly code: 'RAFT_NO_LEADER' }
  /** What was to come about did not within `waitedMs`; it may still. */
  | { readonly code: 'RAFT_TIMEOUT'; readonly waitedMs: number }
  /** Nothing was done: this member is closed or has failed. */
  | { readonly code: 'RAFT_CLOSED' }
  /** Not retryable. */
  | { readonly code: 'RAFT_TOO_LARGE'; readonly sizeBytes: number; readonly sizeBytesMax: number }
  /** Not retryable: the disk has a snapshot that it cannot give, or one that belongs to another log. */
  | { readonly code: 'RAFT_SNAPSHOT_MISSING' };

export class RaftError extends AgentError<RaftErrorDetail> {}

export function closedError(): RaftError {
  return new RaftError({ code: 'RAFT_CLOSED' }, 'this manager is shutting down: ask another one');
}

export function unknownOutcome(): RaftError {
  return new RaftError(
    { code: 'RAFT_OUTCOME_UNKNOWN' },
    'the leader changed before the change was confirmed: look whether it was made',
  );
}

export function lostError(): RaftError {
  return new RaftError({ code: 'RAFT_LOST' }, 'the change was lost with its leader: try it again');
}

export function timeoutError(what: string, waitedMs: number): RaftError {
  return new RaftError(
    { code: 'RAFT_TIMEOUT', waitedMs },
    `${what} took longer than ${waitedMs} ms: try again`,
  );
}

/** @param leader Who was known to lead when the proposal was refused. */
export function refusalError(refused: ProposalRefusal, leader: RaftId | 0): RaftError {
  switch (refused) {
    case 'not_leader':
      return new RaftError(
        { code: 'RAFT_NOT_LEADER', leader },
        'this manager is not the leader: ask the leader',
      );
    case 'transferring':
      return new RaftError(
        { code: 'RAFT_NOT_LEADER', leader: 0 },
        'the leader is being changed: try again in a moment',
      );
    case 'overloaded':
      return new RaftError(
        { code: 'RAFT_OVERLOADED' },
        'too many changes wait to be stored: try again in a moment',
      );
    case 'read_only':
      return new RaftError(
        { code: 'RAFT_READ_ONLY' },
        'the disk of the leader is full: free some space, then try again',
      );
    case 'members_busy':
      return membersError(refused, 'another change of the managers is under way: try again');
    case 'members_invalid':
      return membersError(refused, 'the managers do not allow that change: list them first');
    case 'learner_behind':
      return membersError(refused, 'the new manager has not caught up yet: try again');
  }
}

function membersError(reason: ProposalRefusal, message: string): RaftError {
  return new RaftError({ code: 'RAFT_MEMBERS', reason }, message);
}
