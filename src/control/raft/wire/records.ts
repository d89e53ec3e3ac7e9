import type { Brand } from '../../../base/brand.js';

/**
 * What is sent between members and what is on their disks. Terms and indexes count from 1; 0 means
 * "none yet".
 */

/** A member of one raft group: random, below 2^48, and never used again after the member was removed. */
export type RaftId = Brand<number, 'RaftId'>;
export type Term = number;
export type LogIndex = number;

/** `noop`: of a new leader. `members`: `data` is a membership as `wire/members.ts` has it. */
export type EntryKind = 'noop' | 'command' | 'members';

export interface LogEntry {
  readonly index: LogIndex;
  readonly term: Term;
  readonly kind: EntryKind;
  readonly data: Uint8Array;
}

/** Durable before any message that depends on it leaves (Raft paper, figure 2). */
export interface HardState {
  readonly term: Term;
  /** Who got this member's vote in `term`; 0: nobody. */
  readonly vote: RaftId | 0;
  /** A hint only: what is committed is found again in any case. */
  readonly commitIndex: LogIndex;
}

export interface Member {
  readonly id: RaftId;
  /** False: a learner, which gets the log and decides nothing. */
  readonly voter: boolean;
  /** What the shell needs to find the member (node id, address); the core does not look into it. */
  readonly context: string;
}

/** In effect from the moment it is in the log, committed or not (Ongaro's thesis, 4.1). */
export type Membership = readonly Member[];

/** What the log up to and including `index` amounts to. */
export interface SnapshotMeta {
  readonly index: LogIndex;
  readonly term: Term;
  readonly members: Membership;
}

interface Envelope {
  readonly from: RaftId;
  readonly to: RaftId;
  readonly term: Term;
}

export type RaftMessage = Envelope &
  (
    | {
        /** `pre_vote` carries the term that would be stood for, and changes nothing (thesis, 9.6). */
        readonly kind: 'pre_vote' | 'vote';
        readonly lastIndex: LogIndex;
        readonly lastTerm: Term;
        /** The leader itself asked for this election: a voter does not cling to it. */
        readonly transfer: boolean;
      }
    | { readonly kind: 'pre_vote_reply' | 'vote_reply'; readonly granted: boolean }
    | {
        readonly kind: 'append';
        readonly prevIndex: LogIndex;
        readonly prevTerm: Term;
        readonly entries: readonly LogEntry[];
        readonly commitIndex: LogIndex;
      }
    | {
        readonly kind: 'append_reply';
        /** Accepted: the log matches up to here, durably. Rejected: the `prevIndex` that was refused. */
        readonly index: LogIndex;
        readonly accepted: boolean;
        /** Rejected: the largest (index, term) of the follower's log that may match; else 0. */
        readonly hintIndex: LogIndex;
        readonly hintTerm: Term;
      }
    | {
        readonly kind: 'heartbeat';
        /** Never beyond what the follower is known to have. */
        readonly commitIndex: LogIndex;
        /** Latest round of read requests that an answer confirms; 0: none. Never used twice. */
        readonly readRound: number;
      }
    | { readonly kind: 'heartbeat_reply'; readonly readRound: number }
    /** Sent by the shell of the receiver when all chunks of a snapshot are durable there. */
    | { readonly kind: 'snapshot'; readonly meta: SnapshotMeta }
    | { readonly kind: 'timeout_now' }
    /** A follower asks its leader for a read index; `request` is the follower's, never used twice. */
    | { readonly kind: 'read_index'; readonly request: number }
    | { readonly kind: 'read_index_reply'; readonly request: number; readonly index: LogIndex }
  );

type Body<Message> = Message extends unknown ? Omit<Message, 'from' | 'to' | 'term'> : never;

/** A message without its envelope. */
export type MessageBody = Body<RaftMessage>;
