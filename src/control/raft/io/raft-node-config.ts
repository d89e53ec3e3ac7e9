import type { Duplex } from 'node:stream';
import type { Logger } from '../../core/logger.js';
import type { RaftDropCounts } from '../core/drops.js';
import type { FollowerStatus, LogIndex, Member, RaftId, RaftStatus, Term } from '../core/types.js';
import type { StateMachine } from './applier.js';
import type { SnapshotReceiverStats } from './snapshot-receiver.js';
import type { SnapshotSenderStats } from './snapshot-sender.js';
import type { SnapshotterStats } from './snapshotter.js';
import type { RaftStorage, StorageStats } from './storage.js';
import type { TransportDrop } from './transport.js';

/** What a connection between members is for. */
export type RaftPurpose = 'log' | 'snapshot';

export interface RaftNodeConfig {
  readonly id: RaftId;
  /** Belongs to the node from now on, and is closed by it. */
  readonly storage: RaftStorage;
  readonly machine: StateMachine;
  readonly log: Logger;
  /** Connects to a member, authenticated; rejects with the cause (`ECONNREFUSED` is of interest). */
  readonly dial: (member: Member, purpose: RaftPurpose, signal: AbortSignal) => Promise<Duplex>;
  /** A follower stands after one to two times this without a leader. Default 500. */
  readonly electionTimeoutMs?: number;
  /** Default 100. */
  readonly heartbeatMs?: number;
  /** A snapshot is taken after so many entries, or entry bytes. Defaults 10,000 and 64 MiB. */
  readonly snapshotEntries?: number;
  readonly snapshotBytes?: number;
  /** Entries before a snapshot that slow followers still get as such. Default 500. */
  readonly keepEntries?: number;
  /** The disk failed, or there is a bug: the node has stopped, and the process must end. */
  readonly onFatal: (error: Error) => void;
}

export interface RaftNodeStatus extends RaftStatus {
  readonly lastIndex: LogIndex;
  /** Of the last entry: with `lastIndex`, how far this log goes. */
  readonly lastTerm: Term;
  readonly appliedIndex: LogIndex;
  /** Empty unless this member leads. */
  readonly followers: readonly FollowerStatus[];
  readonly peers: readonly { readonly id: RaftId; readonly connected: boolean }[];
  readonly storage: StorageStats;
  /** Proposals and reads that wait. */
  readonly proposals: number;
  readonly reads: number;
  readonly snapshots: SnapshotterStats & {
    readonly sending: SnapshotSenderStats;
    readonly receiving: SnapshotReceiverStats;
  };
  /** What was not sent, refused or cut off, by reason. */
  readonly dropped: Readonly<Partial<Record<TransportDrop, number>>>;
  /** Messages that arrived and went nowhere, by reason. */
  readonly ignored: Readonly<RaftDropCounts>;
  /** Stalls of the event loop while leading. */
  readonly stalls: number;
}
