import type {
  HardState,
  LogEntry,
  LogIndex,
  Membership,
  RaftId,
  RaftMessage,
  SnapshotMeta,
  Term,
} from '../wire/records.js';

export type {
  EntryKind,
  HardState,
  LogEntry,
  LogIndex,
  Member,
  Membership,
  RaftId,
  RaftMessage,
  SnapshotMeta,
  Term,
} from '../wire/records.js';

/**
 * The words of the consensus core: what goes in (`RaftInput`), what comes out (`RaftReady`), and how
 * the core is told what the disk holds. The records of `wire/records.ts` are part of the vocabulary.
 */

export type RaftRole = 'follower' | 'pre_candidate' | 'candidate' | 'leader';

export type RaftInput =
  | { readonly kind: 'timeout' }
  | { readonly kind: 'message'; readonly message: RaftMessage }
  /**
   * Leader only. `token` comes back in `ready.proposals` with the index, or with a refusal; a proposal
   * whose index comes back may still be lost when the leadership is.
   */
  | { readonly kind: 'propose'; readonly token: number; readonly data: Uint8Array }
  /** One step from the present membership: add a learner, promote one, remove or re-describe one. */
  | { readonly kind: 'propose_members'; readonly token: number; readonly change: MemberChange }
  /** All effects of the `Ready` with this `persistId`, and of those before it, are on disk. */
  | { readonly kind: 'persisted'; readonly persistId: number }
  /** The state machine has everything up to here. */
  | { readonly kind: 'applied'; readonly index: LogIndex }
  /** A snapshot of the own state machine is durable: the log before it may go, but for a tail. */
  | { readonly kind: 'compact'; readonly meta: SnapshotMeta; readonly keepEntries: number }
  /** A linearizable read is wanted; `request` is never used twice. Answer: `ready.reads`. */
  | { readonly kind: 'read'; readonly request: number }
  /** To the best follower, or to a named one. */
  | { readonly kind: 'transfer'; readonly to?: RaftId }
  /**
   * The connection to a peer is gone and dialling it again is refused: its process has ended. If it was
   * the leader, there is no point in waiting a whole election timeout.
   */
  | { readonly kind: 'peer_gone'; readonly peer: RaftId }
  /** What was sent to a peer may be lost: probe before streaming again. */
  | { readonly kind: 'peer_unreachable'; readonly peer: RaftId }
  /** The end of a snapshot's transmission, which `ready.snapshots` had asked for. */
  | { readonly kind: 'snapshot_sent'; readonly to: RaftId; readonly ok: boolean }
  /** The disk is full (or has room again): a leader gives its place away, and proposals are refused. */
  | { readonly kind: 'read_only'; readonly on: boolean }
  /** Stand for election now (tests, and the first member of a new group). */
  | { readonly kind: 'campaign' };

export type MemberChange =
  | { readonly kind: 'add_learner'; readonly id: RaftId; readonly context: string }
  | { readonly kind: 'promote'; readonly id: RaftId }
  | { readonly kind: 'remove'; readonly id: RaftId }
  | { readonly kind: 'describe'; readonly id: RaftId; readonly context: string };

/** Why a proposal was not taken up: nothing of it is in any log. */
export type ProposalRefusal =
  | 'not_leader'
  /** Leadership is being handed over: ask the next leader in a moment. */
  | 'transferring'
  /** Too many uncommitted bytes: later. */
  | 'overloaded'
  | 'read_only'
  /** Another membership change is not committed yet, or this term has committed nothing yet. */
  | 'members_busy'
  /** No such member, or already one; or the last voter would go. */
  | 'members_invalid'
  /** A learner that lags too far behind to vote. */
  | 'learner_behind';

export type ProposalOutcome =
  | { readonly token: number; readonly index: LogIndex; readonly term: Term }
  | { readonly token: number; readonly refused: ProposalRefusal };

/**
 * What must be done, in this order:
 *
 * 1. `messages` may leave at once: nothing in them depends on this member's disk.
 * 2. `persist` goes to the disk, after that of every earlier `Ready`, flushed; then the core is stepped
 *    `persisted` and `persist.messages` may leave. Several may be flushed together.
 * 3. `restore`: the state machine is replaced by that snapshot, before anything is applied.
 * 4. `committed` is applied in order; then the core is stepped `applied`. All of it is durable here.
 * 5. `reads` whose index is applied may be answered.
 */
export interface RaftReady {
  readonly messages: readonly RaftMessage[];
  readonly persist: RaftPersist | undefined;
  /** A snapshot that was received and accepted; it is durable already. */
  readonly restore: SnapshotMeta | undefined;
  readonly committed: readonly LogEntry[];
  readonly proposals: readonly ProposalOutcome[];
  /** `index` undefined: there is no leader to ask, or it was lost: ask again with a new number. */
  readonly reads: readonly { readonly request: number; readonly index: LogIndex | undefined }[];
  /** Followers that need a snapshot; the shell sends its latest, and says how that ended. */
  readonly snapshots: readonly RaftId[];
  /** Present if any of it has changed. */
  readonly status: RaftStatus | undefined;
}

export interface RaftPersist {
  readonly persistId: number;
  /** Replaces whatever the disk has from `entries[0].index` on. */
  readonly entries: readonly LogEntry[];
  /** Everything in the disk's log is void, and it begins anew after this snapshot. */
  readonly reset: SnapshotMeta | undefined;
  readonly hardState: HardState | undefined;
  /** Leave when this is durable, and not before: votes, and answers to appends. */
  readonly messages: readonly RaftMessage[];
}

export interface RaftStatus {
  readonly id: RaftId;
  readonly role: RaftRole;
  readonly term: Term;
  /** 0: none known. */
  readonly leader: RaftId | 0;
  readonly commitIndex: LogIndex;
  readonly members: Membership;
  /** True once an entry of its own term is committed: only then does it know what is committed. */
  readonly leaderReady: boolean;
  readonly readOnly: boolean;
}

/** What a leader knows of one follower, for people and for choosing whom to hand over to. */
export interface FollowerStatus {
  readonly id: RaftId;
  readonly matchIndex: LogIndex;
  readonly mode: 'probe' | 'replicate' | 'snapshot';
  /** Heard of within an election timeout. */
  readonly active: boolean;
}

/** Times in milliseconds, sizes in bytes. Defaults in `core/config.ts`. */
export interface RaftConfig {
  readonly id: RaftId;
  /**
   * Of the election deadlines, and of the numbers by which a follower tells its reads from those of earlier
   * runs: another one at every start.
   */
  readonly seed: number;
  /** A follower stands after one to two times this without a leader. */
  readonly electionTimeoutMs: number;
  readonly heartbeatMs: number;
  /** Entry bytes of one append message. */
  readonly appendBytesMax: number;
  readonly inflightMessagesMax: number;
  readonly inflightBytesMax: number;
  readonly uncommittedBytesMax: number;
  /** A learner at most so many entries behind may be promoted. */
  readonly learnerLagMax: number;
}

/** What the disk held when the member started. */
export interface RaftRestart {
  readonly hardState: HardState;
  /** Where the log begins; `index` 0 and the first members for a new group; no members: a joiner. */
  readonly snapshot: SnapshotMeta;
  /** Contiguous, from `snapshot.index + 1` on. */
  readonly entries: readonly LogEntry[];
}
