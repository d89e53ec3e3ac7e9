import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { CliError } from './error.js';

/** Signals that whoever started us means for the command that we run. */
const FORWARDED = [
  'SIGINT',
  'SIGTERM',
  'SIGHUP',
  'SIGQUIT',
  'SIGWINCH',
  'SIGUSR1',
  'SIGUSR2',
] as const;
/** Those that a terminal sends to everything in its foreground, so to the command as well. */
const SENT_BY_TERMINAL = new Set<NodeJS.Signals>(['SIGINT', 'SIGQUIT', 'SIGWINCH']);

/** 128 and the number of the signal, as shells have it. */
export function exitCodeOfSignal(signal: NodeJS.Signals): number {
  return 128 + constants.signals[signal];
}

interface Terminal {
  readonly controlled: boolean;
  readonly inForeground: boolean;
}

/** How this process stands to a terminal: fields 5, 7 and 8 of proc_pid_stat(5). */
function terminalOfSelf(): Terminal {
  try {
    const text = readFileSync('/proc/self/stat', 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const [group, terminal, foreground] = [fields[2], fields[4], fields[5]];
    return { controlled: terminal !== '0', inForeground: terminal !== '0' && group === foreground };
  } catch {
    return { controlled: false, inForeground: false };
  }
}

/**
 * Spawns a command that shares our terminal and our standard streams.
 *
 * Without a controlling terminal it gets a session of its own: signals to our process group (a
 * supervisor's) then reach it once, through us, and not twice.
 */
export function spawnForeground(
  command: string,
  args: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  return spawn(command, args, {
    stdio: 'inherit',
    ...options,
    detached: !terminalOfSelf().controlled,
  });
}

/**
 * Forwards signals to `child` until `stop` is called.
 *
 * @param onSignal Is told of each signal, also of those the terminal delivers itself.
 */
export function forwardSignals(
  child: ChildProcess,
  onSignal: (signal: NodeJS.Signals) => void = () => {},
): { stop(): void } {
  const listener = (signal: NodeJS.Signals) => {
    onSignal(signal);
    if (SENT_BY_TERMINAL.has(signal) && terminalOfSelf().inForeground) return;
    child.kill(signal);
  };
  for (const signal of FORWARDED) process.on(signal, listener);
  return {
    stop: () => {
      for (const signal of FORWARDED) process.off(signal, listener);
    },
  };
}

/**
 * Waits for the end of a child.
 *
 * @returns Its exit code, or 128 and the number of the signal that ended it.
 * @throws CliError CLI_TOOL_FAILED if it could not be started.
 */
export function exitOf(child: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    child.once('error', (error) => reject(cannotStart(child.spawnfile, error)));
    child.once('exit', (code, signal) => {
      resolve(signal === null ? (code ?? 1) : exitCodeOfSignal(signal));
    });
  });
}

function cannotStart(tool: string, error: NodeJS.ErrnoException): CliError {
  const hint = error.code === 'ENOENT' ? 'it is not installed' : error.message;
  return new CliError({ code: 'CLI_TOOL_FAILED', tool }, `${tool} cannot be run: ${hint}`);
}

/** Runs a command in the foreground to its end. Returns and throws as `exitOf`. */
export async function runForeground(
  command: string,
  args: readonly string[],
  options: SpawnOptions = {},
): Promise<number> {
  const child = spawnForeground(command, args, options);
  const signals = forwardSignals(child);
  try {
    return await exitOf(child);
  } finally {
    signals.stop();
  }
}
