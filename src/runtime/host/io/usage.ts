import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { TaskProcess } from '../../core/runtime.js';
import { processOf } from '../core/usage.js';
import { readText } from './host-facts.js';

/** Processes that are looked at, or told, of one task. */
const PROCESSES_MAX = 5000;
/** `USER_HZ`: the same on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

/** All processes of a task, by its PID namespace: those that it moved into other control groups too. */
export function processesOf(firstPid: number): readonly TaskProcess[] {
  const bootSeconds = Number(/^btime (\d+)$/m.exec(readText('/proc/stat'))?.[1] ?? 0);
  const clock = { bootMs: bootSeconds * 1000, ticksPerSecond: TICKS_PER_SECOND };
  const wanted = namespaceOf(firstPid);
  if (wanted === undefined) return [];
  const pids = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => namespaceOf(pid) === wanted)
    .slice(0, PROCESSES_MAX);
  const processes = pids.flatMap((pid) => {
    try {
      const read = (file: string) => readFileSync(`/proc/${pid}/${file}`, 'utf8');
      const files = { stat: read('stat'), status: read('status'), cmdline: read('cmdline') };
      return processOf(pid, files, clock) ?? [];
    } catch {
      // It ended meanwhile.
      return [];
    }
  });
  return processes.sort((a, b) => a.startedAtMs - b.startedAtMs || a.pid - b.pid);
}

function namespaceOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}
