import type { Command } from 'commander';
import { stringify } from 'yaml';
import { AgentClient, socketPathOf } from '../agent-client.js';
import { NAMESPACE_LABEL } from '../compose/convert.js';
import { type LoadedCompose, loadCompose, toStack } from '../compose/load.js';
import { SERVICE_HEADER, serviceRow, TASK_HEADER, taskRows } from '../docker-tables.js';
import { CliError, usage } from '../error.js';
import { exitCodeOfSignal } from '../foreground.js';
import { collect, SOCKET_FLAG } from '../network.js';
import { formatTable, printJson } from '../output.js';
import { StackApi } from './api.js';
import { deployStack } from './deploy.js';

const STACK_NAME = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$/;
const WAIT_SECONDS = 300;

interface FileFlags {
  readonly composeFile?: readonly string[];
  readonly envFile?: readonly string[];
  readonly profile?: readonly string[];
  readonly skipInterpolation?: boolean;
}

interface StackFlags extends FileFlags {
  readonly socket?: string;
  readonly json?: boolean;
  readonly prune?: boolean;
  readonly wait?: boolean;
  readonly waitTimeout: string;
  readonly quiet?: boolean;
  readonly trunc: boolean;
}

const warn = (message: string) => console.error(`warning: ${message}`);

function apiOf(flags: { readonly socket?: string }): StackApi {
  return new StackApi(new AgentClient(socketPathOf(flags.socket, process.env)));
}

function load(flags: FileFlags): LoadedCompose {
  if (flags.composeFile === undefined)
    throw usage('say which file: -c FILE, or -c - for standard input');
  return loadCompose({
    paths: flags.composeFile,
    env: process.env,
    warn,
    ...(flags.envFile && { envFiles: flags.envFile }),
    ...(flags.profile && { profiles: flags.profile }),
    ...(flags.skipInterpolation && { skipInterpolation: true }),
  });
}

function checkStackName(name: string): void {
  if (STACK_NAME.test(name)) return;
  throw usage(`a stack's name is letters, digits, '-', '_' and '.', not '${name}'`);
}

function timeoutOf(text: string): number {
  if (/^\d{1,6}$/.test(text) && Number(text) > 0) return Number(text) * 1000;
  throw usage(`--wait-timeout is a number of seconds, not '${text}'`);
}

async function deploy(name: string, flags: StackFlags): Promise<void> {
  checkStackName(name);
  const timeoutMs = timeoutOf(flags.waitTimeout);
  const loaded = load(flags);
  const stack = toStack(loaded, name, warn);
  const interrupted = new AbortController();
  const onSignal = () => interrupted.abort();
  process.once('SIGINT', onSignal);
  try {
    await deployStack(apiOf(flags), stack, {
      variables: loaded.variables,
      prune: flags.prune === true,
      wait: flags.wait === true,
      patience: {
        timeoutMs,
        signal: interrupted.signal,
        say: (line) => {
          if (!flags.quiet) console.error(line);
        },
      },
      say: (line) => console.log(line),
    });
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
    throw new CliError(
      { code: 'CLI_INTERRUPTED', exitCode: exitCodeOfSignal('SIGINT') },
      `interrupted: what was deployed of ${name} stays; deploy again to go on`,
    );
  } finally {
    process.off('SIGINT', onSignal);
  }
}

function nothingFound(name: string): CliError {
  return new CliError(
    { code: 'CLI_REFUSED', status: 404, refusal: undefined },
    `nothing found in stack: ${name}`,
  );
}

async function list(flags: StackFlags): Promise<void> {
  const counts = new Map<string, number>();
  for (const { Spec } of await apiOf(flags).services(undefined)) {
    const name = Spec.Labels?.[NAMESPACE_LABEL] ?? '';
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const rows = [...counts].toSorted(([a], [b]) => a.localeCompare(b, 'en', { numeric: true }));
  if (flags.json) return printJson(rows.map(([Name, Services]) => ({ Name, Services })));
  console.log(
    formatTable(
      ['NAME', 'SERVICES'],
      rows.map(([name, count]) => [name, String(count)]),
    ),
  );
}

async function services(name: string, flags: StackFlags): Promise<void> {
  const all = await apiOf(flags).services(name);
  if (all.length === 0) throw nothingFound(name);
  const sorted = all.toSorted((a, b) =>
    a.Spec.Name.localeCompare(b.Spec.Name, 'en', { numeric: true }),
  );
  if (flags.json) return printJson(sorted);
  console.log(formatTable(SERVICE_HEADER, sorted.map(serviceRow)));
}

async function ps(name: string, flags: StackFlags): Promise<void> {
  const api = apiOf(flags);
  const tasks = await api.tasks({ label: [`${NAMESPACE_LABEL}=${name}`] });
  if (tasks.length === 0) throw nothingFound(name);
  if (flags.json) return printJson(tasks);
  const names = (await api.services(name)).map(({ ID, Spec }) => [ID, Spec.Name] as const);
  const options = {
    services: new Map(names),
    nodes: await api.nodeNames(),
    nowMs: Date.now(),
    truncate: flags.trunc,
  };
  console.log(formatTable(TASK_HEADER, taskRows(tasks, options)));
}

async function remove(names: readonly string[], flags: StackFlags): Promise<void> {
  const api = apiOf(flags);
  for (const name of names) {
    const parts = {
      services: (await api.services(name)).map(({ ID, Spec }) => [ID, Spec.Name] as const),
      secrets: (await api.blobs('secrets', name)).map(({ ID, Spec }) => [ID, Spec.Name] as const),
      configs: (await api.blobs('configs', name)).map(({ ID, Spec }) => [ID, Spec.Name] as const),
      networks: (await api.networks(name)).map(({ Id, Name }) => [Id, Name] as const),
    };
    if (Object.values(parts).every((part) => part.length === 0)) throw nothingFound(name);
    for (const [kind, objects] of Object.entries(parts))
      for (const [id, object] of objects) {
        console.log(`Removing ${kind.slice(0, -1)} ${object}`);
        await api.remove(kind as keyof typeof parts, id);
      }
  }
}

function showConfig(flags: FileFlags): void {
  const { file } = load(flags);
  process.stdout.write(stringify(JSON.parse(JSON.stringify(file))));
}

function addFileFlags(command: Command): Command {
  return command
    .option(
      '-c, --compose-file <path>',
      "a compose file, '-' for standard input; repeatable",
      collect,
    )
    .option(
      '--env-file <path>',
      "variables, in place of '.env' beside the file; repeatable",
      collect,
    )
    .option('--profile <name>', 'services of this profile too; repeatable', collect);
}

/** Declares `shoal stack …`. */
export function addStackCommands(program: Command): void {
  const stack = program
    .command('stack')
    .description('deploy compose files, with .env, extends, include and depends_on');
  addFileFlags(stack.command('deploy'))
    .alias('up')
    .argument('<stack>', "the stack's name")
    .description('bring the swarm in line with a compose file')
    .option('--prune', 'remove services that the file does not have')
    .option('--wait', 'return when all of it runs')
    .option('--wait-timeout <seconds>', 'patience with one service', String(WAIT_SECONDS))
    .option('-q, --quiet', 'no progress')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
Services are made in the order of depends_on, each when what it waits for is there. A secret or config
whose contents have changed becomes a new version, and the services that use it are updated.

Examples:
  shoal stack deploy -c compose.yml shop
  shoal stack deploy -c compose.yml -c compose.prod.yml --prune --wait shop`,
    )
    .action(deploy);
  stack
    .command('ls')
    .description('list stacks')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(list);
  stack
    .command('services')
    .argument('<stack>')
    .description("list a stack's services")
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(services);
  stack
    .command('ps')
    .argument('<stack>')
    .description("list a stack's tasks")
    .option('--no-trunc', 'do not shorten')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(ps);
  stack
    .command('rm')
    .alias('down')
    .argument('<stack...>')
    .description('remove stacks: services, secrets, configs, networks')
    .option(...SOCKET_FLAG)
    .action(remove);
  addFileFlags(stack.command('config'))
    .description('print the file as it is meant: merged, filled in, checked')
    .option('--skip-interpolation', 'leave variables as they are')
    .action(showConfig);
}
