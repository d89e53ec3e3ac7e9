import { type ChildProcess, execFile, fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Runs a program that prints one line of JSON. */
export async function askProgram<Answer>(
  path: string,
  args: readonly string[],
  timeoutMs = 120_000,
): Promise<Answer> {
  const { stdout } = await run(path, [...args], { timeout: timeoutMs, killSignal: 'SIGKILL' });
  return JSON.parse(stdout) as Answer;
}

/** A port that was free a moment ago. */
export async function freePort(address: string): Promise<number> {
  const server = createServer();
  server.listen(0, address);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

export async function endOf(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** User and system time, in clock ticks of 10 ms. */
export function cpuMsOf(pid: number | undefined): number {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) * 10;
  } catch {
    return 0;
  }
}

export function rssBytesOf(pid: number | undefined): number {
  const line = /VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return Number(line?.[1]) * 1024;
}

type Message = { readonly kind: string };
type Reply = { readonly call: number; readonly result?: unknown; readonly error?: string };

/** A program of this bench in a process of its own, which answers one question after another. */
export class Worker<Question extends Message> {
  readonly child: ChildProcess;
  readonly #open = new Map<number, (reply: Reply) => void>();
  #lastCall = 0;

  constructor(name: string, execArgv: readonly string[] = []) {
    const path = fileURLToPath(new URL(`./${name}.js`, import.meta.url));
    this.child = fork(path, { execArgv: [...execArgv] });
    this.child.on('message', (reply: Reply) => {
      this.#open.get(reply.call)?.(reply);
      this.#open.delete(reply.call);
    });
    this.child.on('exit', () => {
      for (const settle of this.#open.values()) settle({ call: 0, error: `the ${name} has ended` });
      this.#open.clear();
    });
  }

  ask<Answer>(question: Question): Promise<Answer> {
    const call = ++this.#lastCall;
    return new Promise((resolve, reject) => {
      this.#open.set(call, ({ error, result }) =>
        error === undefined ? resolve(result as Answer) : reject(new Error(error)),
      );
      this.child.send({ ...question, call });
    });
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await endOf(this.child);
  }
}

/** The other end of `Worker`. */
export function answer<Question extends Message>(
  work: (question: Question) => Promise<unknown>,
): void {
  process.on('message', (question: Question & { readonly call: number }) => {
    const { call } = question;
    work(question).then(
      (result) => process.send?.({ call, result }),
      (error: unknown) => process.send?.({ call, error: String((error as Error).stack ?? error) }),
    );
  });
  process.on('disconnect', () => process.exit(0));
}
