import { type ChildProcess, spawn, spawnSync } from 'node:child_process';

/** What holds for the length of a test, or of a file. */
export type Teardown = { teardown(work: () => unknown): unknown };

export interface Finished {
  /** Exit code; 128 and the signal's place is left to the caller. */
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>> | undefined;
  readonly input?: string | undefined;
  /** After this it is killed; default 30 s. */
  readonly timeoutMs?: number | undefined;
}

export interface Running {
  readonly child: ChildProcess;
  readonly finished: Promise<Finished>;
  /** What it has written so far, both streams. */
  output(): string;
  stop(signal?: NodeJS.Signals): Promise<Finished>;
}

const TIMEOUT_MS_DEFAULT = 30_000;

/** This process's environment without what would point docker or shoal at another agent. */
export function cleanEnv(): Record<string, string | undefined> {
  const {
    DOCKER_HOST: _host,
    SHOAL_SOCKET: _socket,
    DOCKER_CONTEXT: _context,
    ...env
  } = process.env;
  return env;
}

/** Starts a program; whoever gave `t` need not end it. */
export function start(t: Teardown, argv: readonly string[], options: RunOptions = {}): Running {
  const running = launch(argv, options);
  t.teardown(() => running.stop('SIGKILL'));
  return running;
}

/** Starts a program that the caller ends. */
export function launch(argv: readonly string[], options: RunOptions = {}): Running {
  const [program = '', ...args] = argv;
  const child = spawn(program, args, {
    env: { ...cleanEnv(), ...options.env },
    stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin?.on('error', () => undefined);
  child.stdin?.end(options.input);
  const finished = new Promise<Finished>((resolve) => {
    child.on('error', (error) => {
      resolve({ code: null, signal: null, stdout, stderr: `${stderr}${error.message}` });
    });
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  const stop = (signal: NodeJS.Signals = 'SIGTERM'): Promise<Finished> => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal);
    return finished;
  };
  return { child, finished, output: () => stdout + stderr, stop };
}

/** Runs a program to its end. */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<Finished> {
  const running = launch(argv, options);
  const timer = setTimeout(
    () => running.child.kill('SIGKILL'),
    options.timeoutMs ?? TIMEOUT_MS_DEFAULT,
  );
  try {
    return await running.finished;
  } finally {
    clearTimeout(timer);
  }
}

/** Runs a program that must succeed. @returns What it wrote to standard output. */
export async function must(argv: readonly string[], options: RunOptions = {}): Promise<string> {
  const { code, signal, stdout, stderr } = await run(argv, options);
  if (code === 0) return stdout;
  throw new Error(`${argv.join(' ')}: exit ${code ?? signal}: ${stderr || stdout}`);
}

/**
 * Polls until `probe` gives something else than `undefined` or `false`.
 *
 * @returns What it gave.
 */
export async function until<Value>(
  what: string,
  timeoutMs: number,
  probe: () => Value | Promise<Value>,
): Promise<Exclude<Value, undefined | false>> {
  const deadlineMs = performance.now() + timeoutMs;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== false) return value as Exclude<Value, undefined | false>;
    if (performance.now() >= deadlineMs) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

export function hasTool(name: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${name}`], { stdio: 'ignore' }).status === 0;
}
