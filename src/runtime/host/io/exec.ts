import { type ChildProcess, spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';
import type { ExecProcess, ExecSpec, ExecStreams } from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import { ALL_CAPABILITIES } from '../core/capabilities.js';
import { commandRecords, environmentOf, STRINGS_MAX } from '../core/task-plan.js';
import type { CommandRecord, TaskRecord } from '../core/task-record.js';
import { identityOf } from '../core/users.js';
import { encodePlan, hasNul, type PlanRecord } from '../wire/plan.js';
import { readText } from './host-facts.js';
import { answerOf, type ProcessId, type Shim } from './shim.js';

const EXIT_UNKNOWN = 255;

/**
 * Runs a command inside a task; with the task's own environment, user and rights, where `spec` says nothing else.
 *
 * @param first First process of the task's present run.
 * @throws RuntimeError RUNTIME_FAILED
 */
export async function runExec(
  shim: Shim,
  record: TaskRecord,
  folder: string,
  first: ProcessId,
  spec: ExecSpec,
  streams: ExecStreams,
  signal: AbortSignal,
): Promise<ExecProcess> {
  const plan = encodePlan(execRecords(record, folder, first, spec));
  const [program, ...args] = shim.execCommand;
  const child = spawn(program, args, {
    cwd: '/',
    env: shim.env,
    stdio: [streams.stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe', 'pipe'],
  });
  const exited = exitOf(child);
  const control = child.stdio[3] as Duplex;
  // The command ends when this end is closed, in whatever way.
  const cut = () => control.destroy();
  signal.addEventListener('abort', cut, { once: true });
  const finished = finish(child, exited, streams).finally(() => {
    signal.removeEventListener('abort', cut);
    control.destroy();
  });
  try {
    signal.throwIfAborted();
    const { pid } = await answerOf(control, plan);
    return {
      pid,
      resize: ({ rows, columns }) => {
        if (control.writable) control.write(`size ${rows} ${columns}\n`);
      },
      exited: finished,
    };
  } catch (error) {
    cut();
    await finished;
    if (error instanceof RuntimeError) throw error;
    throw new RuntimeError({ code: 'RUNTIME_FAILED' }, `exec: ${error}`);
  }
}

function execRecords(
  record: TaskRecord,
  folder: string,
  first: ProcessId,
  spec: ExecSpec,
): PlanRecord[] {
  const command = execCommandOf(record, spec);
  const records: PlanRecord[] = [
    ['D', folder],
    ['X', `${first.pid}`, first.startTime],
    ...commandRecords(command),
    ...record.cgroups.procs.map((path): PlanRecord => ['G', path]),
  ];
  const { rows = 24, columns = 80 } = spec.size ?? {};
  if (spec.tty) records.push(['T', `${rows}`, `${columns}`]);
  return records;
}

function execCommandOf({ command }: TaskRecord, spec: ExecSpec): CommandRecord {
  const strings = [...spec.command, ...(spec.env ?? [])];
  if (spec.command.length === 0) throw rejected('no command specified');
  if (strings.length > STRINGS_MAX || strings.some(hasNul)) {
    throw rejected('the command is too long or holds a NUL');
  }
  const identity =
    spec.user === undefined || spec.user === ''
      ? command
      : identityOf(spec.user, [], readText('/etc/passwd'), readText('/etc/group'));
  if (typeof identity === 'string') throw rejected(identity);
  const { uid, gid, groups } = identity;
  const home = 'home' in identity ? [`HOME=${identity.home}`] : [];
  const terminal = spec.tty ? ['TERM=xterm'] : [];
  return {
    argv: spec.command,
    env: environmentOf([...terminal, ...command.env, ...home], spec.env ?? []),
    cwd: spec.dir === undefined || spec.dir === '' ? command.cwd : spec.dir,
    uid,
    gid,
    groups,
    capabilities: spec.privileged === true ? ALL_CAPABILITIES.toString(16) : command.capabilities,
    noNewPrivileges: command.noNewPrivileges,
    limits: command.limits ?? [],
  };
}

function rejected(message: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_REJECTED' }, message);
}

async function exitOf(child: ChildProcess): Promise<number> {
  return await new Promise<number>((resolve) => {
    child.once('error', () => resolve(EXIT_UNKNOWN));
    child.once('exit', (code) => resolve(code ?? EXIT_UNKNOWN));
  });
}

/** Carries all output to its taker, however slow that is; the exit code comes after it. */
async function finish(
  child: ChildProcess,
  exited: Promise<number>,
  streams: ExecStreams,
): Promise<number> {
  const carry = async (stream: 'stdout' | 'stderr') => {
    try {
      for await (const chunk of child[stream] ?? []) await streams.output(stream, chunk);
    } catch {
      // The taker is gone: so is the reason to go on reading. The command sees a closed pipe.
      child[stream]?.destroy();
    }
  };
  void feed(child, streams.stdin);
  const [code] = await Promise.all([exited, carry('stdout'), carry('stderr')]);
  child.stdin?.destroy();
  return code;
}

async function feed(child: ChildProcess, input: ExecStreams['stdin']): Promise<void> {
  const { stdin } = child;
  if (stdin === null || input === undefined) return;
  // A command that reads no more has closed its end.
  stdin.on('error', () => {});
  try {
    for await (const chunk of input) {
      if (!stdin.writable) return;
      if (stdin.write(chunk)) continue;
      await new Promise<void>((resolve) => {
        stdin.once('drain', resolve);
        stdin.once('close', resolve);
      });
    }
  } catch {
    // Who wrote has gone: as if the input had ended.
  }
  stdin.end();
}
