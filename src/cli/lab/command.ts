import type { Command } from 'commander';
import { CliError, usage } from '../error.js';
import { exitCodeOfSignal, runForeground } from '../foreground.js';
import { formatTable, printJson } from '../output.js';
import type { LabDriver } from './agent.js';
import { LAB_SIGNALS, Lab, type LabSignal, type LabStatus, type LabUpOptions } from './lab.js';

/** Under the current folder. */
const LAB_DIR_DEFAULT = '.shoal/lab';

interface LabFlags {
  readonly dir: string;
  readonly json?: boolean;
}

export interface UpFlags extends LabFlags {
  readonly nodes?: string;
  readonly managers?: string;
  readonly swarm: boolean;
  readonly mtu: string;
  readonly ipv6?: boolean;
  readonly driver: string;
  readonly logLevel: string;
}

function numberOf(flag: string, text: string): number {
  if (/^\d{1,6}$/.test(text)) return Number(text);
  throw usage(`${flag} must be a number, not '${text}'`);
}

function driverOf(text: string): LabDriver {
  if (text === 'auto' || text === 'native' || text === 'portable') return text;
  throw usage(`--driver must be auto, native or portable, not '${text}'`);
}

/** Checks the flags of `lab up`. */
export function upOptionsOf(flags: UpFlags): LabUpOptions {
  return {
    nodes: flags.nodes === undefined ? undefined : numberOf('--nodes', flags.nodes),
    managers: flags.managers === undefined ? undefined : numberOf('--managers', flags.managers),
    swarm: flags.swarm,
    mtuBytes: numberOf('--mtu', flags.mtu),
    ipv6: flags.ipv6 ?? false,
    driver: driverOf(flags.driver),
    logLevel: flags.logLevel,
  };
}

function labOf(flags: LabFlags): Lab {
  return new Lab({ dir: flags.dir, onProgress: (line) => console.error(`lab: ${line}`) });
}

/** Brings the lab up; a signal meanwhile takes it down again. */
async function up(flags: UpFlags): Promise<void> {
  const options = upOptionsOf(flags);
  const lab = labOf(flags);
  const interrupted = new AbortController();
  let by: NodeJS.Signals | undefined;
  const onSignal = (signal: NodeJS.Signals) => {
    by ??= signal;
    interrupted.abort();
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, onSignal);
  try {
    const status = await lab.up({ ...options, signal: interrupted.signal });
    printStatus(status, flags);
  } catch (error) {
    if (by === undefined) throw error;
    console.error(`lab: ${by}, taking down what was made`);
    await lab.down();
    const detail = { code: 'CLI_INTERRUPTED', exitCode: exitCodeOfSignal(by) } as const;
    throw new CliError(detail, 'the lab was not brought up', { cause: error });
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
  }
}

function printStatus(status: LabStatus, flags: LabFlags): void {
  if (flags.json) {
    printJson(status);
    return;
  }
  console.log(
    formatTable(
      ['NODE', 'STATE', 'MANAGER', 'PID', 'ADDRESS', 'NAMESPACE', 'SOCKET'],
      status.nodes.map((node) => [
        node.name,
        node.state,
        node.manager ?? '-',
        node.pid === undefined ? '-' : String(node.pid),
        [node.address, node.address6].filter(Boolean).join(','),
        node.namespace,
        node.socket,
      ]),
    ),
  );
  if (status.partition.length > 0) console.log(`partitioned: ${formatGroups(status.partition)}`);
}

function formatGroups(groups: readonly (readonly string[])[]): string {
  return groups.map((group) => group.join(',')).join(' | ');
}

async function exec(name: string, command: readonly string[], flags: LabFlags): Promise<number> {
  const lab = labOf(flags);
  const [program = '', ...args] = lab.commandIn(name, command);
  return runForeground(program, args, { env: { ...process.env, ...lab.envOf(name) } });
}

/** Quoted for any POSIX shell. */
function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

const DIR_FLAG = ['--dir <dir>', 'folder of the lab', LAB_DIR_DEFAULT] as const;

/** Declares `shoal lab …`. */
export function addLabCommands(program: Command, setExitCode: (code: number) => void): void {
  const lab = program
    .command('lab')
    .description('a cluster on this machine: every agent in a network namespace of its own')
    .addHelpText(
      'after',
      `
Examples:
  shoal lab up --nodes 3
  shoal lab exec node1 -- docker network create -d overlay --attachable mesh
  shoal lab exec node2 -- shoal run --network mesh --name web -- python3 -m http.server 80
  shoal lab partition node1,node2 node3 && shoal lab heal
  shoal lab kill node1 && shoal lab start node1
  shoal lab down`,
    );
  addUpCommand(lab);
  addAgentCommands(lab);
  addUseCommands(lab, setExitCode);
  addWireCommands(lab);
}

function addUpCommand(lab: Command): void {
  lab
    .command('up')
    .description('bring a lab up, or complete one that is')
    .option('--nodes <n>', 'number of nodes (default: 3)')
    .option('--managers <n>', 'the first so many nodes are managers, 1 to 7 (default: 1)')
    .option('--no-swarm', 'only start the agents, in no swarm')
    .option('--mtu <bytes>', 'MTU of the wire', '1500')
    .option('--ipv6', 'give the nodes IPv6 addresses too')
    .option('--driver <driver>', 'packet driver: auto, native or portable', 'auto')
    .option('--log-level <level>', 'log level of the agents', 'info')
    .option('--json', 'print JSON')
    .option(...DIR_FLAG)
    .addHelpText(
      'after',
      `
Repeating it is harmless: nodes that are up stay, what is missing is made, workers that are to be
managers are promoted. A second lab beside the first needs a folder of its own (--dir).

Examples:
  shoal lab up
  shoal lab up --nodes 3 --managers 3
  shoal lab up --nodes 5 --mtu 9000 --dir /tmp/lab5
  shoal lab up --nodes 2 --no-swarm --driver portable`,
    )
    .action(up);
  lab
    .command('down')
    .description('take a lab down: agents, namespaces, data')
    .option(...DIR_FLAG)
    .addHelpText('after', '\nExamples:\n  shoal lab down\n  shoal lab down --dir /tmp/lab5')
    .action((flags: LabFlags) => labOf(flags).down());
}

function signalOf(text: string): LabSignal {
  const name = text.toUpperCase().replace(/^(SIG)?/, 'SIG');
  const found = LAB_SIGNALS.find((signal) => signal === name);
  if (found !== undefined) return found;
  throw usage(`--signal must be one of ${LAB_SIGNALS.join(', ')}, not '${text}'`);
}

function addAgentCommands(lab: Command): void {
  lab
    .command('kill')
    .description('send a signal to the agent of a node: a crash, unless another is named')
    .argument('<node>')
    .option('--signal <name>', 'KILL, TERM, INT, QUIT, ABRT, STOP or CONT', 'KILL')
    .option(...DIR_FLAG)
    .addHelpText(
      'after',
      `
Its network and its data stay; 'shoal lab start' brings it back.

Examples:
  shoal lab kill node1
  shoal lab kill node1 --signal TERM
  shoal lab kill node2 --signal STOP && sleep 5 && shoal lab kill node2 --signal CONT`,
    )
    .action(async (node: string, flags: LabFlags & { readonly signal: string }) => {
      const signal = signalOf(flags.signal);
      const runs = await labOf(flags).signalAgent(node, signal);
      console.log(`${node}: ${signal}${runs ? '' : ', its agent has ended'}`);
    });
  lab
    .command('start')
    .description('start the agent of a node that was killed')
    .argument('<node>')
    .option('--driver <driver>', 'packet driver: auto, native or portable', 'auto')
    .option('--log-level <level>', 'log level of the agent', 'info')
    .option(...DIR_FLAG)
    .addHelpText(
      'after',
      `
One that runs stays as it is.

Examples:
  shoal lab start node1
  shoal lab start node1 --log-level debug`,
    )
    .action(
      async (
        node: string,
        flags: LabFlags & { readonly driver: string; readonly logLevel: string },
      ) => {
        const options = { driver: driverOf(flags.driver), logLevel: flags.logLevel };
        await labOf(flags).startAgent(node, options);
      },
    );
}

function addUseCommands(lab: Command, setExitCode: (code: number) => void): void {
  lab
    .command('status')
    .description('list the nodes')
    .option('--json', 'print JSON')
    .option(...DIR_FLAG)
    .addHelpText('after', '\nExamples:\n  shoal lab status\n  shoal lab status --json')
    .action(async (flags: LabFlags) => printStatus(await labOf(flags).status(), flags));
  lab
    .command('exec')
    .description("run a command in a node's network, with docker and shoal pointed at its agent")
    .argument('<node>')
    .argument('<command...>', "the command and its arguments, after '--'")
    .option(...DIR_FLAG)
    .addHelpText(
      'after',
      `
Examples:
  shoal lab exec node1 -- docker node ls
  shoal lab exec node2 -- ip -br addr
  shoal lab exec node3 -- bash`,
    )
    .action(async (node: string, command: readonly string[], flags: LabFlags) => {
      setExitCode(await exec(node, command, flags));
    });
  lab
    .command('env')
    .description("print the shell variables that point docker and shoal at a node's agent")
    .argument('<node>')
    .option(...DIR_FLAG)
    .addHelpText('after', '\nExamples:\n  eval "$(shoal lab env node1)" && docker node ls')
    .action((node: string, flags: LabFlags) => {
      for (const [key, value] of Object.entries(labOf(flags).envOf(node))) {
        console.log(`export ${key}=${quote(value)}`);
      }
    });
}

function addWireCommands(lab: Command): void {
  lab
    .command('partition')
    .description('cut the wire between groups of nodes')
    .argument('<group...>', 'node names joined by commas; nodes not named form one more group')
    .option(...DIR_FLAG)
    .addHelpText(
      'after',
      `
Nodes reach those of their own group and no others, until 'shoal lab heal' or the next partition.

Examples:
  shoal lab partition node3                  node3 alone, all others together
  shoal lab partition node1,node2 node3      with five nodes: node4 and node5 form a third group`,
    )
    .action(async (groups: readonly string[], flags: LabFlags) => {
      console.log(`partitioned: ${formatGroups(await labOf(flags).partition(groups))}`);
    });
  lab
    .command('heal')
    .description('join all groups again')
    .option(...DIR_FLAG)
    .addHelpText('after', '\nExamples:\n  shoal lab heal')
    .action((flags: LabFlags) => labOf(flags).heal());
}
