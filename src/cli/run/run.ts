import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import type { LocalAttachment } from '../../api/index.js';
import { AgentError } from '../../base/error.js';
import { takeStartedSoftLimit } from '../../base/io/descriptors.js';
import type { AgentClient } from '../agent-client.js';
import { CliError } from '../error.js';
import { exitCodeOfSignal, exitOf, forwardSignals, spawnForeground } from '../foreground.js';
import { makeSandboxFiles, type SandboxFiles, sandboxCommandLine } from './sandbox.js';

export interface RunRequest {
  /** At least one, attached in this order. */
  readonly networks: readonly string[];
  readonly ip: string | undefined;
  readonly name: string | undefined;
  readonly aliases: readonly string[];
  readonly hostname: string | undefined;
  readonly env: Readonly<Record<string, string>>;
  readonly workdir: string | undefined;
  readonly command: readonly string[];
}

/** Patience with the namespaces, ms: they stand within a few. */
const READY_TIMEOUT_MS = 20_000;

/** Signals that end the whole attempt while the command has not started yet. */
const ENDING = new Set<NodeJS.Signals>(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT']);

function failed(message: string): CliError {
  return new CliError({ code: 'CLI_RUN_FAILED' }, message);
}

/**
 * Runs a plain process on overlay networks: in network, mount, UTS and IPC namespaces of its own,
 * which it enters when its addresses and names work and which go when it ends.
 *
 * @param warn Is told what went wrong after the command has ended.
 * @returns The command's exit code as `docker run` gives it: 128 + n after signal n, 127 not found,
 *   126 not executable.
 * @throws CliError CLI_RUN_FAILED (exit 125), CLI_INTERRUPTED.
 */
export async function runOnNetworks(
  client: AgentClient,
  request: RunRequest,
  warn: (message: string) => void,
): Promise<number> {
  const files = makeSandboxFiles();
  try {
    return await runInSandbox(client, request, files, warn);
  } finally {
    files.close();
  }
}

async function runInSandbox(
  client: AgentClient,
  request: RunRequest,
  files: SandboxFiles,
  warn: (message: string) => void,
): Promise<number> {
  const name = request.name ?? request.hostname ?? randomBytes(6).toString('hex');
  const hostname = request.hostname ?? name;
  const { workdir, command } = request;
  const descriptors = takeStartedSoftLimit();
  const sandbox = { hostname, workdir, descriptors, command };
  const [program = '', ...args] = sandboxCommandLine(files, sandbox);
  const child = spawnForeground(program, args, {
    stdio: ['inherit', 'inherit', 'inherit', 'pipe'],
    env: { ...process.env, HOSTNAME: hostname, ...request.env },
  });
  let interruptedBy: NodeJS.Signals | undefined;
  let isStarted = false;
  const signals = forwardSignals(child, (signal) => {
    if (isStarted || !ENDING.has(signal)) return;
    interruptedBy = signal;
    // The gate holds nothing that would have to be tidied up.
    child.kill('SIGKILL');
  });
  const exited = exitOf(child);
  exited.catch(() => {});
  const attachments: LocalAttachment[] = [];
  try {
    const gate = child.stdio[3] as Duplex;
    gate.on('error', () => {});
    await untilReady(gate, exited);
    files.unlink();
    await attachAll(client, request, name, child, attachments);
    files.writeHosts(
      hostname,
      attachments.flatMap((a) => a.addresses),
    );
    if (interruptedBy === undefined) {
      isStarted = true;
      gate.end('go\n');
    }
    const code = await exited;
    if (interruptedBy === undefined) return code;
    throw interrupted(interruptedBy);
  } catch (error) {
    child.kill('SIGKILL');
    await exited.catch(() => {});
    if (interruptedBy !== undefined) throw interrupted(interruptedBy);
    throw error instanceof AgentError ? failed(error.message) : error;
  } finally {
    signals.stop();
    await detachAll(client, attachments, warn);
  }
}

function interrupted(signal: NodeJS.Signals): CliError {
  const detail = { code: 'CLI_INTERRUPTED', exitCode: exitCodeOfSignal(signal) } as const;
  return new CliError(detail, `${signal} before the command was started`);
}

async function untilReady(gate: Duplex, exited: Promise<number>): Promise<void> {
  const ready = once(gate, 'data', { signal: AbortSignal.timeout(READY_TIMEOUT_MS) }).then(
    () => true,
    () => false,
  );
  const early = exited.then(() => false);
  if (await Promise.race([ready, early])) return;
  throw failed(
    process.getuid?.() === 0
      ? 'the namespaces of the command could not be made'
      : 'the namespaces of the command could not be made: run as root',
  );
}

async function attachAll(
  client: AgentClient,
  request: RunRequest,
  name: string,
  child: ChildProcess,
  attachments: LocalAttachment[],
): Promise<void> {
  for (const network of request.networks) {
    const made = await client.call('POST', '/shoal/v1/attachments', {
      network,
      target: { kind: 'pid', pid: child.pid },
      aliases: request.aliases,
      name,
      ...(request.ip === undefined ? {} : { ip: request.ip }),
    });
    attachments.push(made as LocalAttachment);
  }
}

/** The agent would notice in time by itself; so a failure here only delays the address's release. */
async function detachAll(
  client: AgentClient,
  attachments: readonly LocalAttachment[],
  warn: (message: string) => void,
): Promise<void> {
  for (const { id, networkName } of attachments) {
    try {
      await client.call('POST', '/shoal/v1/detach', { id });
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      // It noticed already.
      if (error.detail.code === 'CLI_REFUSED' && error.detail.status === 404) continue;
      warn(`could not detach from ${networkName}: ${error.message}`);
    }
  }
}
