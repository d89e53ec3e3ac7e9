import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** A process as it can be recognised later: an id alone may by then belong to another. */
export interface ProcessRecord {
  readonly pid: number;
  /** Field 22 of proc_pid_stat(5), clock ticks since boot. */
  readonly startTicks: string;
  readonly bootId: string;
}

function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}

/** @returns `undefined` if there is no such process, or it has ended and only waits to be collected. */
function startTicksOf(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name before the last bracket may hold blanks.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return fields[0] === 'Z' ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** @returns `undefined` if it has ended already. */
export function recordProcess(pid: number): ProcessRecord | undefined {
  const startTicks = startTicksOf(pid);
  return startTicks === undefined ? undefined : { pid, startTicks, bootId: bootId() };
}

export function commandLineOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  } catch {
    return [];
  }
}

/**
 * Whether the recorded process still runs: same id, same start, same boot, and `words` one after
 * the other in its command line.
 */
export function isRunning(record: ProcessRecord, words: readonly string[]): boolean {
  if (record.bootId !== bootId() || startTicksOf(record.pid) !== record.startTicks) return false;
  const commandLine = commandLineOf(record.pid);
  // Empty while one program replaces another, as `nsenter` lets itself be replaced.
  return commandLine.join('') === '' || hasWords(commandLine, words);
}

export function hasWords(commandLine: readonly string[], words: readonly string[]): boolean {
  return commandLine.some((_, at) => words.every((word, i) => commandLine[at + i] === word));
}

const POLL_INTERVAL_MS = 25;
/** What an agent may take to say good-bye, ms. */
const TERM_PATIENCE_MS = 10_000;
const KILL_PATIENCE_MS = 5_000;

/** Ends a recorded process, kindly first. Harmless if it runs no more, or if its id was given away. */
export async function endProcess(record: ProcessRecord, words: readonly string[]): Promise<void> {
  for (const [signal, patienceMs] of [
    ['SIGTERM', TERM_PATIENCE_MS],
    ['SIGKILL', KILL_PATIENCE_MS],
  ] as const) {
    const deadlineMs = performance.now() + patienceMs;
    if (!isRunning(record, words)) return;
    try {
      process.kill(record.pid, signal);
      // One that is stopped would hear of it only then.
      process.kill(record.pid, 'SIGCONT');
    } catch {
      return;
    }
    while (performance.now() < deadlineMs) {
      if (!isRunning(record, words)) return;
      await delay(POLL_INTERVAL_MS);
    }
  }
}

/** Waits for the end of a recorded process, however long it takes. */
export async function untilEnded(record: ProcessRecord, words: readonly string[]): Promise<void> {
  while (isRunning(record, words)) await delay(POLL_INTERVAL_MS);
}
