/** What a run must come upon now and then, or it shows little. */
export const SIGHTS = [
  'election',
  'log_cut',
  'proposal_lost',
  'read_at_follower',
  'torn_write',
  'disk_full',
  'disk_failed',
  'own_snapshot',
  'snapshot_restored',
  'snapshot_resumed',
  'snapshot_interrupted',
  'learner_added',
  'learner_promoted',
  'member_removed',
  'leader_removed',
  'handed_over',
  'ended_midway',
] as const;

export type Sight = (typeof SIGHTS)[number];

/** How often each was seen. */
export class Sights {
  readonly counts = new Map<Sight, number>(SIGHTS.map((sight) => [sight, 0]));

  see(sight: Sight, times = 1): void {
    this.counts.set(sight, (this.counts.get(sight) ?? 0) + times);
  }
}
