import type { LogIndex, Membership, Term } from '../core/types.js';
import { encodeMembers } from '../wire/members.js';
import type { RaftStorage, StorageFailure } from './storage.js';

/** Where a log ends. */
export interface LogEnd {
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  readonly term: Term;
}

export function logEndOf(storage: RaftStorage): LogEnd {
  const { snapshot, entries, hardState } = storage.restart;
  const last = entries.at(-1) ?? snapshot;
  return { lastIndex: last.index, lastTerm: last.term, term: hardState.term };
}

/**
 * Writes down who the members are, as an entry of a new term after whatever the log holds. On an empty
 * disk this begins a group; on another it is the way back after most members were lost for good:
 * all entries that this member has count from then on, committed or not.
 *
 * Not to be done while a `RaftNode` runs on the storage. The node is opened on the storage anew.
 */
export async function seedMembership(storage: RaftStorage, members: Membership): Promise<void> {
  const { hardState } = storage.restart;
  const { lastIndex, lastTerm, term } = logEndOf(storage);
  const next = Math.max(term, lastTerm) + 1;
  const failure = await new Promise<StorageFailure | undefined>((resolve) => {
    storage.write(
      {
        entries: [
          { index: lastIndex + 1, term: next, kind: 'members', data: encodeMembers(members) },
        ],
        reset: undefined,
        hardState: { term: next, vote: 0, commitIndex: hardState.commitIndex },
      },
      resolve,
    );
  });
  if (failure?.kind === 'failed') throw failure.error;
  if (failure?.kind === 'full') throw new Error('no space is left on the disk: free some first');
}
