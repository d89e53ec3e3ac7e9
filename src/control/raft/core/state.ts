import type { MessageBody } from '../wire/records.js';
import type { RaftLog } from './log.js';
import type { MembershipHistory } from './membership.js';
import type { LogIndex, RaftConfig, RaftId, Term } from './types.js';
import type { WriteAhead } from './write-ahead.js';

/** What a member has in every role. Only `Raft` changes it. */
export interface RaftState {
  readonly config: RaftConfig;
  readonly log: RaftLog;
  readonly members: MembershipHistory;
  readonly writes: WriteAhead;
  term: Term;
  /** Who has this member's vote in `term`; 0: nobody. */
  vote: RaftId | 0;
  /** 0: none known. */
  leader: RaftId | 0;
  /** Never goes back. */
  commitIndex: LogIndex;
  /** The disk is full. */
  readOnly: boolean;
}

export interface Outbox {
  send(to: RaftId, body: MessageBody): void;
}
