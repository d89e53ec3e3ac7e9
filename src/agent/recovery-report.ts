import type { Manager, ManagerHolds } from '../control/index.js';

const ASK_MS_MAX = 2_000;

export interface RecoveryReport {
  readonly hasLeader: boolean;
  readonly quorum: { readonly voters: number; readonly needed: number; readonly reachable: number };
  readonly self: ManagerHolds;
  /** The same of the others that answered, or why one did not. */
  readonly others: readonly unknown[];
  /** The node whose log is the longest of those that are left. */
  readonly best: string;
  readonly advice: string;
}

/** What every manager that is left holds, so that nobody makes a swarm anew of the wrong one. */
export async function explainRecovery(manager: Manager): Promise<RecoveryReport> {
  const self = manager.group.holds();
  const others = await manager.group.othersHold(ASK_MS_MAX);
  const there = [self, ...others.filter(isHolding)];
  const voters = self.members.filter(({ voter }) => voter).length;
  const needed = Math.floor(voters / 2) + 1;
  const [best = self] = there.toSorted(
    // As raft votes: a member that stood for election has a later term, and maybe an older log.
    (a, b) => b.lastTerm - a.lastTerm || b.lastIndex - a.lastIndex,
  );
  const hasLeader = there.some(({ leader }) => leader !== 0);
  return {
    hasLeader,
    quorum: { voters, needed, reachable: there.length },
    self,
    others,
    best: best.nodeId,
    advice: adviceOf(hasLeader, there.length >= needed, best.nodeId === self.nodeId, best.address),
  };
}

function adviceOf(
  hasLeader: boolean,
  enough: boolean,
  isBest: boolean,
  bestAddress: string,
): string {
  if (hasLeader) return 'the managers have a leader: nothing has to be recovered';
  if (enough)
    return 'more than half of the managers can be reached: wait for them to choose a leader';
  if (!isBest)
    return `the manager at ${bestAddress} has a longer log than this one: recover there, or what only it has is lost`;
  return 'bring other managers back if you can; if they are lost for good, this node can go on alone: shoal recover --force';
}

function isHolding(answer: unknown): answer is ManagerHolds {
  return typeof answer === 'object' && answer !== null && 'lastIndex' in answer;
}
