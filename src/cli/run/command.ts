import type { Command } from 'commander';
import { AgentClient, socketPathOf } from '../agent-client.js';
import { usage } from '../error.js';
import { checkIp, checkName, collect, SOCKET_FLAG } from '../network.js';
import { type RunRequest, runOnNetworks } from './run.js';

export interface RunFlags {
  readonly network?: readonly string[];
  readonly ip?: string;
  readonly name?: string;
  readonly alias?: readonly string[];
  readonly hostname?: string;
  readonly env?: readonly string[];
  readonly workdir?: string;
  readonly socket?: string;
}

/** `K=V` sets, `K` alone passes on our own value, as in docker. */
export function parseEnv(
  texts: readonly string[],
  own: NodeJS.ProcessEnv,
): Readonly<Record<string, string>> {
  const env: Record<string, string> = {};
  for (const text of texts) {
    const at = text.indexOf('=');
    const key = at === -1 ? text : text.slice(0, at);
    if (key === '' || key.includes('\0'))
      throw usage(`--env must be KEY=VALUE or KEY, not '${text}'`);
    const value = at === -1 ? own[key] : text.slice(at + 1);
    if (value !== undefined) env[key] = value;
  }
  return env;
}

/** Checks the flags and makes the request of them. */
export function runRequestOf(
  command: readonly string[],
  flags: RunFlags,
  own: NodeJS.ProcessEnv,
): RunRequest {
  const networks = flags.network ?? [];
  if (networks.length === 0) throw usage('say which network to run on: --network NET');
  if (new Set(networks).size !== networks.length) throw usage('a network is named twice');
  checkIp(flags.ip);
  if (flags.ip !== undefined && networks.length > 1) {
    throw usage('--ip is for one network: give one --network, or no --ip');
  }
  for (const flag of ['name', 'hostname'] as const) {
    const value = flags[flag];
    if (value !== undefined) checkName(`--${flag}`, value);
  }
  if ((flags.hostname ?? '').length > 64) throw usage('--hostname must have at most 64 characters');
  for (const alias of flags.alias ?? []) checkName('--alias', alias);
  return {
    networks,
    ip: flags.ip,
    name: flags.name,
    aliases: flags.alias ?? [],
    hostname: flags.hostname,
    env: parseEnv(flags.env ?? [], own),
    workdir: flags.workdir,
    command,
  };
}

/** Declares `shoal run`. */
export function addRunCommand(program: Command, setExitCode: (code: number) => void): void {
  program
    .command('run')
    .description('run a process of this host on overlay networks')
    .argument('<command...>', "the command and its arguments, best after '--'")
    .option('--network <network>', 'network to attach to, repeatable', collect)
    .option('--ip <address>', 'a wish for the address')
    .option('--name <name>', 'name that the others find it by (default: the host name)')
    .option('--alias <name>', 'one more name, repeatable', collect)
    .option('--hostname <name>', 'its host name (default: the name, or a random one)')
    .option('-e, --env <key=value>', 'environment variable, repeatable', collect)
    .option('-w, --workdir <dir>', 'folder to start in')
    .option('--rm', 'as in docker; always so: nothing is left when the command ends')
    .option(...SOCKET_FLAG)
    .passThroughOptions()
    .addHelpText(
      'after',
      `
The command has network, mount, UTS and IPC namespaces of its own and shares files, processes and
users with this host. It starts when its addresses and names work. Exit code: the command's; 128+n
after signal n; 127 not found; 126 not executable; 125 if shoal itself failed.

Examples:
  shoal run --network mesh --name web -- python3 -m http.server 80
  shoal run --network mesh -- curl http://web/
  shoal run --network mesh --network back --hostname box -- bash`,
    )
    .action(async (command: readonly string[], flags: RunFlags) => {
      const request = runRequestOf(command, flags, process.env);
      const client = new AgentClient(socketPathOf(flags.socket, process.env));
      setExitCode(
        await runOnNetworks(client, request, (text) => console.error(`shoal: warning: ${text}`)),
      );
    });
}
