import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

const built = join(root, 'dist/main.js');

/** The command as built; without a build from its source, which takes a second longer each time. */
export const shoalCommand: readonly string[] = existsSync(built)
  ? [process.execPath, built]
  : [process.execPath, ...process.execArgv, join(root, 'src/main.ts')];

export interface Finished {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function startShoal(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): { readonly child: ChildProcess; readonly finished: Promise<Finished> } {
  const [program = '', ...before] = shoalCommand;
  const { DOCKER_HOST: _host, SHOAL_SOCKET: _socket, ...own } = process.env;
  const child = spawn(program, [...before, ...args], {
    env: { ...own, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const finished = once(child, 'close').then(([code, signal]) => ({
    code,
    signal,
    stdout,
    stderr,
  }));
  return { child, finished };
}

export function shoal(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Finished> {
  return startShoal(args, env).finished;
}

export interface Call {
  readonly method: string;
  readonly path: string;
  readonly body: unknown;
}

type Answer = { readonly status: number; readonly body: unknown };

export type Teardown = { teardown(work: () => unknown): unknown };

/** A folder that goes when the test ends. */
export function scratch(t: Teardown): string {
  const folder = mkdtempSync(join(tmpdir(), 'shl-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Something that answers on a unix socket in an agent's place, and remembers what it was asked. */
export async function fakeAgent(
  t: Teardown,
  answer: (call: Call) => Answer | Promise<Answer>,
): Promise<{ readonly socket: string; readonly calls: Call[] }> {
  const socket = join(scratch(t), 'agent.sock');
  const calls: Call[] = [];
  const server = createServer(async (request, response) => {
    let text = '';
    for await (const chunk of request) text += chunk;
    const call = {
      method: request.method ?? '',
      path: request.url ?? '',
      body: text === '' ? undefined : JSON.parse(text),
    };
    calls.push(call);
    const { status, body } = await answer(call);
    response.statusCode = status;
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  });
  server.listen(socket);
  await once(server, 'listening');
  t.teardown(() => server.close());
  return { socket, calls };
}

/** Waits until `holds`, or fails after 30 s. */
export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + 30_000;
  while (!(await holds())) {
    if (performance.now() > deadlineMs) throw new Error(`not within 30 s: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
