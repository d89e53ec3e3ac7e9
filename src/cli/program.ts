import { Command, CommanderError } from 'commander';
import { AssertionFailed } from '../base/assert.js';
import { AgentError } from '../base/error.js';
import { packageVersion } from '../base/io/package-root.js';
import { AgentClient, socketPathOf } from './agent-client.js';
import { addBenchCommands } from './bench.js';
import { addCertificateCommand } from './certificate.js';
import { EXIT_BUG, EXIT_FAILURE, EXIT_OK, EXIT_USAGE, exitCodeOf } from './error.js';
import { addFlowCommands } from './flows.js';
import { addHistoryCommand } from './history.js';
import { addLabCommands } from './lab/command.js';
import { addNetworkCommands, SOCKET_FLAG } from './network.js';
import { addNetworkObjectCommands } from './network-objects.js';
import { addNodeCommands } from './node.js';
import { formatValue, printJson } from './output.js';
import { addPluginCommands, pluginArguments } from './plugin.js';
import { addRecoverCommand } from './recover.js';
import { addRunCommand } from './run/command.js';
import { addServiceCommands } from './service/command.js';
import { addSnapshotCommands } from './snapshot.js';
import { addStackCommands } from './stack/command.js';
import { addSwarmCommands } from './swarm.js';

/**
 * Runs the `shoal` command.
 *
 * Errors become one sentence on stderr; nothing is thrown.
 *
 * @param line Without node and script.
 * @returns The exit code: 0; 1 on a refusal; 2 if the command line is wrong; what a command that was
 *   run exited with; 70 on a bug.
 */
export async function runCli(line: readonly string[]): Promise<number> {
  const argv = pluginArguments(line);
  if (argv === undefined) return EXIT_OK;
  let exitCode = EXIT_OK;
  try {
    const program = await makeProgram(argv, (code) => {
      exitCode = code;
    });
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (error) {
    return report(error, argv);
  }
}

/** Says what went wrong, and returns the exit code for it. */
function report(error: unknown, argv: readonly string[]): number {
  if (error instanceof CommanderError) return reportUsage(error, argv);
  if (error instanceof AgentError) {
    console.error(`shoal: ${oneLine(error.message)}`);
    return exitCodeOf(error);
  }
  const isOfSystem = error instanceof Error && 'code' in error;
  if (!isOfSystem || error instanceof AssertionFailed) return reportBug(error);
  console.error(`shoal: ${oneLine(error.message)}`);
  return EXIT_FAILURE;
}

/** What nobody foresaw: shown whole. */
export function reportBug(error: unknown): number {
  console.error(error instanceof Error ? error.stack : error);
  return EXIT_BUG;
}

function oneLine(text: string): string {
  return text.trim().replaceAll(/\s*\n\s*/g, ' ');
}

/** commander throws for help and version too, which are no errors. */
function reportUsage(error: CommanderError, argv: readonly string[]): number {
  if (error.exitCode === 0 || error.code === 'commander.help') return EXIT_OK;
  const command = argv.slice(0, 2).filter((word) => /^[a-z]+$/.test(word));
  const known = error.code === 'commander.unknownCommand' ? command.slice(0, -1) : command;
  const see = ['shoal', ...known, '--help'].join(' ');
  console.error(`shoal: ${oneLine(error.message).replace(/^error: |\.$/g, '')}: see '${see}'`);
  return EXIT_USAGE;
}

async function makeProgram(
  argv: readonly string[],
  setExitCode: (code: number) => void,
): Promise<Command> {
  const program = new Command('shoal')
    .description(
      'A cluster agent whose network comes first: overlay networks in userspace, with\nDocker Swarm’s words, ports and API.',
    )
    .version(versionText(), '-v, --version', 'print the version')
    .helpOption('-h, --help', 'show help')
    .helpCommand('help [command]', 'show help of a command')
    .enablePositionalOptions()
    .showSuggestionAfterError()
    .exitOverride()
    // Errors are printed by `report`, as one sentence; what is left is help, which was asked for.
    .configureOutput({
      outputError: () => {},
      writeErr: (text) => process.stdout.write(text),
    })
    .addHelpText('after', MAIN_EXAMPLES);
  await addAgentCommand(program, argv, setExitCode);
  addNetworkObjectCommands(addNetworkCommands(program));
  addSwarmCommands(program);
  addNodeCommands(program);
  addRunCommand(program, setExitCode);
  addServiceCommands(program);
  addStackCommands(program);
  addStatusCommand(program);
  addFlowCommands(program);
  addHistoryCommand(program);
  addSnapshotCommands(program);
  addRecoverCommand(program);
  addCertificateCommand(program);
  addPluginCommands(program);
  addLabCommands(program, setExitCode);
  addBenchCommands(program, setExitCode);
  program
    .command('version')
    .description('print the version')
    .action(() => console.log(versionText()));
  return program;
}

const MAIN_EXAMPLES = `
Examples:
  shoal lab up                                   try it: three agents on this machine
  shoal agent                                    run the agent of this host
  docker -H unix:///run/shoal/docker.sock swarm init
  shoal network attach mesh --netns blue         bring a namespace onto a network
  shoal run --network mesh -- curl http://web/   run a process on a network`;

function versionText(): string {
  return `shoal ${packageVersion()} (node ${process.versions.node}, ${process.platform} ${process.arch})`;
}

/** The agent's flags are loaded only where they are asked for: the other commands start faster. */
async function addAgentCommand(
  program: Command,
  argv: readonly string[],
  setExitCode: (code: number) => void,
): Promise<void> {
  const agent = program.command('agent').description('run the agent of this host');
  if (!argv.includes('agent')) return;
  const { addAgentFlags, runAgentCommand } = await import('../agent/command.js');
  addAgentFlags(agent)
    .addHelpText(
      'after',
      `
Examples:
  shoal agent
  shoal agent --data-dir /srv/shoal --socket /run/shoal/docker.sock --log-level debug
  shoal agent --config /etc/shoal/agent.json`,
    )
    .action(async (options: Readonly<Record<string, unknown>>) => {
      setExitCode(await runAgentCommand(options));
    });
}

function addStatusCommand(program: Command): void {
  program
    .command('status')
    .description("show the state of this host's agent")
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText('after', '\nExamples:\n  shoal status\n  shoal status --json')
    .action(async (flags: { readonly json?: boolean; readonly socket?: string }) => {
      const client = new AgentClient(socketPathOf(flags.socket, process.env));
      const status = await client.call('GET', '/shoal/v1/status');
      if (flags.json) printJson(status);
      else console.log(formatValue(status));
    });
}
