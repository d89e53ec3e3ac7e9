import { type ChildProcess, spawn, spawnSync } from 'node:child_process';

/** Runs a command to its end; throws with what it printed when it fails. */
export function run(command: string, ...args: string[]): string {
  const result = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  if (result.status === 0) return result.stdout;
  const why = result.error?.message ?? `${result.stderr}${result.stdout}`.trim();
  throw new Error(`${command} ${args.join(' ')}: ${why}`);
}

/** Like `run`, for commands whose failure is no matter (deleting what may be gone). */
export function tryRun(command: string, ...args: string[]): boolean {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

/** A program started in a network namespace; `done` resolves with its standard output. */
export interface Running {
  readonly child: ChildProcess;
  readonly done: Promise<string>;
}

/** Starts `argv` inside the namespace at `/run/netns/NAME`, with a hard bound on its life. */
export function startIn(netns: string, timeoutMs: number, ...argv: string[]): Running {
  const child = spawn('nsenter', [`--net=/run/netns/${netns}`, '--', ...argv], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk) => {
    out += chunk;
  });
  child.stderr.on('data', (chunk) => {
    err += chunk;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
  const done = new Promise<string>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve(out);
      else
        reject(
          new Error(`${argv.join(' ')}: exit ${code ?? signal}: ${err.trim()} ${out.slice(-500)}`),
        );
    });
  });
  return { child, done };
}

export const delay = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** Polls until `condition` holds; throws after `timeoutMs`. */
export async function until(
  what: string,
  timeoutMs: number,
  condition: () => boolean,
): Promise<void> {
  const end = Date.now() + timeoutMs;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`${what}: not within ${timeoutMs} ms`);
    await delay(50);
  }
}
