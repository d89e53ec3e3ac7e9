import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { packageRoot } from '../../../base/io/package-root.js';
import { RuntimeError } from '../../core/runtime-error.js';

const NATIVE_SHIM = 'build/shoal-shim';
const PORTABLE_SHIM = 'dist/src/runtime/host/io/portable-shim.js';
/** Bytes of a supervisor's answer. */
const ANSWER_BYTES_MAX = 4096;

/** The program that stands by a task, and runs further commands inside one. */
export interface Shim {
  readonly kind: 'native' | 'portable';
  readonly taskCommand: readonly [string, ...string[]];
  readonly execCommand: readonly [string, ...string[]];
  readonly env: NodeJS.ProcessEnv;
}

/**
 * The native shim if it has been built, else the portable one.
 *
 * @param wanted That one only.
 */
export function findShim(wanted: Shim['kind'] | undefined): Shim | undefined {
  const root = packageRoot();
  const native = join(root, NATIVE_SHIM);
  if (wanted !== 'portable' && existsSync(native)) {
    return {
      kind: 'native',
      taskCommand: [native, 'task'],
      execCommand: [native, 'exec'],
      env: {},
    };
  }
  const portable = join(root, PORTABLE_SHIM);
  if (wanted === 'native' || !existsSync(portable)) return undefined;
  const node = [process.execPath, '--max-semi-space-size=1', portable] as const;
  const path = process.env['PATH'] ?? '/usr/bin:/bin';
  const env = { PATH: `${path}:/usr/local/sbin:/usr/sbin:/sbin` };
  return { kind: 'portable', taskCommand: [...node, 'task'], execCommand: [...node, 'exec'], env };
}

/** A process that is named beyond doubt. */
export interface ProcessId {
  readonly pid: number;
  /** Clock ticks since boot: tells a reused number. */
  readonly startTime: string;
}

/**
 * Starts a supervisor of its own session, which goes on when this process ends, and gives it its plan.
 *
 * @returns The supervisor, when all is ready for the command.
 * @throws RuntimeError RUNTIME_FAILED with the supervisor's words; it is gone then.
 */
export async function startSupervisor(
  shim: Shim,
  plan: Uint8Array,
  signal: AbortSignal,
): Promise<ProcessId> {
  const [program, ...args] = shim.taskCommand;
  const child = spawn(program, args, {
    cwd: '/',
    env: shim.env,
    detached: true,
    stdio: ['ignore', 'ignore', 'ignore', 'pipe'],
  });
  const spawned = new Promise<void>((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  // It outlives this process: nothing here may wait for its end.
  child.unref();
  const kill = () => child.kill('SIGKILL');
  signal.addEventListener('abort', kill, { once: true });
  try {
    await spawned;
    return await answerOf(child.stdio[3] as Duplex, plan, true);
  } catch (error) {
    kill();
    throw error instanceof RuntimeError ? error : failed(`supervisor of the task: ${error}`);
  } finally {
    signal.removeEventListener('abort', kill);
  }
}

/**
 * Gives a shim its plan.
 *
 * @param isLast Whether that is all there is to say.
 * @throws RuntimeError RUNTIME_FAILED with the shim's words.
 */
export async function answerOf(pipe: Duplex, plan: Uint8Array, isLast = false): Promise<ProcessId> {
  // A shim that gives up early closes its end; its answer says why.
  pipe.on('error', () => {});
  pipe.write(plan);
  let text = '';
  await new Promise<void>((resolve) => {
    pipe.on('close', resolve);
    pipe.on('end', resolve);
    pipe.on('data', (chunk) => {
      text += String(chunk);
      if (text.includes('\n') || text.length > ANSWER_BYTES_MAX) resolve();
    });
  });
  if (isLast) pipe.destroy();
  const ready = /^R (\d+) (\d+)\n/.exec(text);
  if (ready !== null) return { pid: Number(ready[1]), startTime: ready[2] ?? '' };
  const why = text.replace(/^E /, '').trim();
  throw failed(why === '' ? 'the shim ended early' : why);
}

function failed(message: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_FAILED' }, message);
}
