import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { LEAN_ENVIRONMENT, LEAN_FLAGS } from '../../base/io/lean-process.js';
import { AgentClient } from '../agent-client.js';
import { CliError } from '../error.js';
import { builtProgram } from '../paths.js';
import { isRunning, type ProcessRecord, recordProcess } from './process.js';
import type { LabNode } from './state.js';
import { netnsPath } from './tools.js';

export type LabDriver = 'auto' | 'native' | 'portable';

/** How the agents of a lab are started. */
export interface LabAgentOptions {
  readonly driver: LabDriver;
  readonly logLevel: string;
  /** The command in front of `agent`; by default node and the built program. */
  readonly command?: readonly string[] | undefined;
  /** More flags of the agent. */
  readonly extraFlags?: readonly string[] | undefined;
}

const POLL_INTERVAL_MS = 50;
/** What an agent may take until its socket answers, ms. */
const START_TIMEOUT_MS = 30_000;

/** Words by which the command line of a node's agent is recognised. */
export function wordsOf(node: Pick<LabNode, 'dataDir'>): readonly string[] {
  return ['--data-dir', node.dataDir];
}

export function agentRuns(node: LabNode): boolean {
  return node.agent !== undefined && isRunning(node.agent, wordsOf(node));
}

function outputFileOf(node: LabNode): string {
  return join(node.dataDir, 'agent.out');
}

/**
 * Starts the agent of a node in its namespace, in a session of its own: it stays when we end.
 *
 * @throws CliError LAB_AGENT_FAILED, CLI_TOOL_FAILED.
 */
export function startAgent(node: LabNode, options: LabAgentOptions): ProcessRecord {
  mkdirSync(node.dataDir, { recursive: true });
  mkdirSync(dirname(node.socket), { recursive: true });
  const command = options.command ?? [process.execPath, ...LEAN_FLAGS, builtMain()];
  const [program, ...args] = [
    'nsenter',
    `--net=${netnsPath(node.netns)}`,
    '--',
    ...command,
    'agent',
    ...wordsOf(node),
    ...['--socket', node.socket, '--hostname', node.name, '--log-file', node.logFile],
    ...['--log-level', options.logLevel, '--data-path-driver', options.driver],
    // An engine of this host is none of a lab's nodes.
    ...['--engine-socket', 'none'],
    ...(options.extraFlags ?? []),
  ] as const;
  const output = openSync(outputFileOf(node), 'a');
  try {
    const { SHOAL_SOCKET: _socket, DOCKER_HOST: _host, ...env } = process.env;
    const child = spawn(program, args, {
      detached: true,
      stdio: ['ignore', output, output],
      env: { ...env, ...LEAN_ENVIRONMENT },
    });
    child.on('error', () => {});
    child.unref();
    const record = child.pid === undefined ? undefined : recordProcess(child.pid);
    if (record === undefined) throw failed(node, 'its agent did not start');
    return record;
  } finally {
    closeSync(output);
  }
}

function builtMain(): string {
  const path = builtProgram('main.js');
  if (existsSync(path)) return path;
  const message = `the program is not built (${path} is missing): run 'npm run build'`;
  throw new CliError({ code: 'CLI_TOOL_FAILED', tool: 'shoal' }, message);
}

function failed(node: LabNode, what: string): CliError {
  const last = lastWords(outputFileOf(node)) ?? lastWords(node.logFile);
  const words = last === undefined ? '' : `: ${last}`;
  const message = `${node.name}: ${what}${words} (see ${node.logFile} and ${outputFileOf(node)})`;
  return new CliError({ code: 'LAB_AGENT_FAILED', node: node.name }, message);
}

/** The last line of a file that says something: not the inside of a stack or of an object. */
function lastWords(path: string): string | undefined {
  if (!existsSync(path)) return undefined;
  const lines = readFileSync(path, 'utf8').split('\n');
  return lines.findLast((line) => /^[^\s{}].*\w/.test(line))?.slice(0, 400);
}

/**
 * Waits until the agent answers on its socket.
 *
 * @throws CliError LAB_AGENT_FAILED if it ends instead, or takes too long.
 */
export async function untilAgentAnswers(node: LabNode, signal?: AbortSignal): Promise<void> {
  const client = new AgentClient(node.socket, 2_000);
  const deadlineMs = performance.now() + START_TIMEOUT_MS;
  while (performance.now() < deadlineMs) {
    signal?.throwIfAborted();
    try {
      await client.call('GET', '/_ping');
      return;
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
    }
    if (!agentRuns(node)) throw failed(node, 'its agent has ended');
    await delay(POLL_INTERVAL_MS);
  }
  throw failed(node, `its agent did not answer within ${START_TIMEOUT_MS / 1000} s`);
}
