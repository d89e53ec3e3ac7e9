import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type CgroupLayout, type CgroupPlan, cgroupLayoutOf } from '../core/cgroups.js';

/** The kernel lets go of a control group a little after its last process. */
const REMOVE_ATTEMPTS_MAX = 40;
const REMOVE_PAUSE_MS = 25;

export function readCgroupLayout(): CgroupLayout | undefined {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'utf8');
    } catch {
      return '';
    }
  };
  return cgroupLayoutOf(read('/proc/self/mountinfo'), (folder) =>
    read(join(folder, 'cgroup.controllers')),
  );
}

/** @returns Whether the groups are there, and which limits could not be had, by their names. */
export function makeCgroups(plan: CgroupPlan): {
  readonly isMade: boolean;
  readonly lacks: string[];
} {
  try {
    for (const folder of plan.folders) mkdirSync(folder, { recursive: true });
  } catch {
    const lacks = [...plan.limits.map(({ what }) => what), ...plan.unheld];
    return { isMade: false, lacks: [...new Set(lacks)] };
  }
  for (const { path, value } of plan.delegations) tryWrite(path, value);
  const lacks = plan.limits.filter(({ path, value }) => !tryWrite(path, value));
  return { isMade: true, lacks: [...new Set([...lacks.map(({ what }) => what), ...plan.unheld])] };
}

function tryWrite(path: string, value: string): boolean {
  try {
    writeFileSync(path, value, { flag: 'r+' });
    return true;
  } catch {
    return false;
  }
}

/** Takes the groups of one task away; and the common ones where it was the last. */
export async function removeCgroups(task: string, folders: readonly string[]): Promise<void> {
  const own = folders.filter((folder) => basename(folder) === task);
  for (const folder of own) {
    for (let attempt = 0; !tryRemove(folder) && attempt < REMOVE_ATTEMPTS_MAX; attempt++) {
      await delay(REMOVE_PAUSE_MS);
    }
  }
  for (const folder of folders) if (!own.includes(folder)) tryRemove(folder);
}

/** @returns Whether it is gone. */
function tryRemove(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ENOENT';
  }
}
