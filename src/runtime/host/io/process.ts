import { readFileSync } from 'node:fs';
import type { ProcessId } from './shim.js';

/** When a process started, in clock ticks since boot; `undefined` if it is gone, or only waits to be buried. */
export function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** Kills that very process, not another that has its number by now. */
export function killProcess({ pid, startTime }: ProcessId): void {
  if (pid <= 1 || startTimeOf(pid) !== startTime) return;
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended in between.
  }
}
