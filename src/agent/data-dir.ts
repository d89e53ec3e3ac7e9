import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PreflightError } from './preflight.js';

const LOCK_FILE = 'agent.lock';

/** When a process started, in clock ticks since boot: tells a reused pid from the old one. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const afterName = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    // Field 3 is the state; a zombie holds nothing any more.
    return afterName[0] === 'Z' ? undefined : afterName[19];
  } catch {
    return undefined;
  }
}

/**
 * Takes the data directory for this process; a lock left by a dead agent is taken over.
 *
 * @returns A function that gives it back.
 * @throws PreflightError PREFLIGHT_LOCKED
 */
export function lockDataDir(dataDir: string): () => void {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  const path = join(dataDir, LOCK_FILE);
  const mine = `${process.pid} ${startTimeOf(process.pid) ?? ''}`;
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      writeFileSync(path, mine, { flag: 'wx', mode: 0o600 });
      return () => rmSync(path, { force: true });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
    const [pid = '', startTime = ''] = readFileSync(path, 'utf8').split(' ');
    if (startTime !== '' && startTimeOf(Number(pid)) === startTime) {
      throw new PreflightError(
        { code: 'PREFLIGHT_LOCKED', pid: Number(pid) },
        `another agent (process ${pid}) already works on ${dataDir}: stop it, or choose another --data-dir`,
      );
    }
    rmSync(path, { force: true });
  }
  throw new PreflightError(
    { code: 'PREFLIGHT_LOCKED', pid: 0 },
    `${path} cannot be taken: remove it by hand`,
  );
}
