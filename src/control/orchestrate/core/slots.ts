import type { TaskObject } from '../../../base/service-model.js';
import type { Draft } from './draft.js';
import { isWanted, type SlotKey, slotRows } from './facts.js';
import { shouldRestart } from './policy.js';

/** One place of a service that is filled. */
export interface Slot {
  readonly key: SlotKey;
  /** The oldest first. */
  readonly rows: readonly TaskObject[];
  /**
   * Those that are to run; if there are none, the one that has ended and is not to be followed by
   * another, until an update makes it outdated.
   */
  readonly live: readonly TaskObject[];
}

/** @returns The slots that count as filled, and the rows of those that do not. */
export function slotsOf(draft: Draft): {
  readonly filled: Slot[];
  readonly dead: ReadonlyMap<SlotKey, readonly TaskObject[]>;
} {
  const filled: Slot[] = [];
  const dead = new Map<SlotKey, readonly TaskObject[]>();
  for (const [key, rows] of slotRows(draft)) {
    const live = liveOf(draft, rows);
    if (live.length > 0) filled.push({ key, rows, live });
    else dead.set(key, rows);
  }
  return { filled, dead };
}

function liveOf(draft: Draft, rows: readonly TaskObject[]): readonly TaskObject[] {
  const active = rows.filter(isWanted);
  if (active.length > 0) return active;
  // A rollback brings back every replica, also one that failed for good.
  if (draft.service.updateStatus?.state === 'rollback_started') return [];
  const newest = rows.at(-1);
  if (newest === undefined || newest.desiredState === 'remove') return [];
  return shouldRestart(draft, newest, rows) ? [] : [newest];
}
