import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { AgentClient, socketPathOf } from './agent-client.js';
import { CliError, usage } from './error.js';
import { SOCKET_FLAG } from './network.js';

const TOKEN_BYTES = 16;
const MANAGE_PORT = 3376;

interface ClassicFlags {
  readonly socket?: string;
  readonly host: string;
  readonly strategy: string;
  readonly tls?: boolean;
  readonly tlscacert?: string;
  readonly tlscert?: string;
  readonly tlskey?: string;
}

export const isDiscovery = (text: string): boolean => text.includes('://');

const clientOf = (socket: string | undefined) => new AgentClient(socketPathOf(socket, process.env));

/** The token alone on standard output, as scripts want it. */
function create(): void {
  console.log(randomBytes(TOKEN_BYTES).toString('hex'));
  console.error(
    "It names a group of this cluster's nodes, and no service elsewhere knows of it: nodes of the swarm are put into it with 'shoal swarm join --addr ADDRESS:PORT token://TOKEN'.",
  );
}

/** `shoal swarm join … token://TOKEN`. */
export async function joinGroup(
  discovery: string,
  flags: { readonly socket?: string; readonly addr?: string },
): Promise<void> {
  const body = { discovery, address: flags.addr ?? '' };
  const answer = await clientOf(flags.socket).call('POST', '/shoal/v1/discovery/join', body);
  const { address } = answer as { readonly address: string };
  console.log(`This node is in ${discovery} as ${address}.`);
}

export async function leaveGroup(discovery: string, socket: string | undefined): Promise<void> {
  await clientOf(socket).call('POST', '/shoal/v1/discovery/leave', { discovery });
  console.log(`This node is in ${discovery} no more.`);
}

async function list(discovery: string, flags: { readonly socket?: string }): Promise<void> {
  const client = clientOf(flags.socket);
  const addresses = await client.call('POST', '/shoal/v1/discovery/list', { discovery });
  for (const address of addresses as readonly string[]) console.log(address);
}

/** Holds the endpoint open in the foreground, as the classic Swarm's manager was run. */
async function manage(discovery: string, flags: ClassicFlags): Promise<void> {
  const { host, port } = parseHost(flags.host);
  const files = { ca: flags.tlscacert, cert: flags.tlscert, key: flags.tlskey };
  const given = Object.values(files).filter((file) => file !== undefined);
  if (given.length !== 0 && given.length !== 3)
    throw usage('give --tlscacert, --tlscert and --tlskey together, or none of them');
  const body = JSON.stringify({
    ...{ host, port, discovery, strategy: flags.strategy },
    plain: flags.tls === false,
    ...(given.length === 0
      ? {}
      : {
          files: Object.fromEntries(Object.entries(files).map(([k, v]) => [k, resolve(v ?? '')])),
        }),
  });
  const socketPath = socketPathOf(flags.socket, process.env);
  const asked = request({
    ...{ socketPath, method: 'POST', path: '/shoal/v1/manage' },
    headers: { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body) },
  });
  asked.end(body);
  const [answer] = await once(asked, 'response').catch((error: Error) => {
    const message = `the agent on ${socketPath} cannot be asked: ${error.message}`;
    throw new CliError({ code: 'CLI_UNREACHABLE', socket: socketPath }, message);
  });
  answer.setEncoding('utf8');
  let text = '';
  let isTold = false;
  for await (const chunk of answer) {
    if (isTold) continue;
    text += chunk;
    if (answer.statusCode === 200 && text.includes('\n')) {
      isTold = true;
      const { port: open } = JSON.parse(text) as { readonly port: number };
      console.log(`Listening for HTTP addr=${host}:${open} proto=tcp`);
    }
  }
  if (answer.statusCode !== 200) {
    const { message } = JSON.parse(text) as { readonly message: string };
    const detail = { code: 'CLI_REFUSED', status: answer.statusCode, refusal: undefined } as const;
    throw new CliError(detail, message);
  }
  throw new CliError({ code: 'CLI_UNREACHABLE', socket: socketPath }, 'the agent has ended');
}

/** `tcp://0.0.0.0:3376`, `:3376`. */
function parseHost(text: string): { readonly host: string; readonly port: number } {
  const match = /^(?:tcp:\/\/)?(?:\[(?<v6>[^\]]+)\]|(?<v4>[^:/]*)):(?<port>\d{1,5})$/.exec(text);
  if (match === null) throw usage(`--host is tcp://ADDRESS:PORT, not '${text}'`);
  const { v6, v4, port } = match.groups ?? {};
  return { host: v6 ?? (v4 || '0.0.0.0'), port: Number(port) };
}

/** Declares what the classic Swarm's own command did. */
export function addClassicCommands(swarm: Command): void {
  swarm
    .command('create')
    .description('print a new token of a group of nodes, for token://TOKEN')
    .action(create);
  swarm
    .command('list')
    .argument('<discovery>', 'token://TOKEN')
    .description('list the nodes of a group')
    .option(...SOCKET_FLAG)
    .action(list);
  swarm
    .command('manage')
    .argument('[discovery]', 'token://TOKEN: only the nodes of this group', '')
    .description('show all engines of the cluster as one, until it is interrupted')
    .option('-H, --host <address>', 'where it listens', `tcp://0.0.0.0:${MANAGE_PORT}`)
    .option('--strategy <strategy>', 'spread, binpack or random', 'spread')
    .option('--no-tls', 'without TLS, on the loopback interface')
    .option('--tlsverify', 'as is the case anyhow: clients show certificates')
    .option('--tlscacert <file>', "CA of the clients' certificates (default: the swarm's own)")
    .option('--tlscert <file>', "the endpoint's certificate")
    .option('--tlskey <file>', 'its key')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
The agent has --classic-address, which does the same for as long as it runs.

Examples:
  shoal swarm manage                                 docker -H tcp://MANAGER:3376 --tlsverify info
  shoal swarm manage --strategy binpack token://TOKEN
  shoal swarm manage --no-tls -H tcp://127.0.0.1:3376`,
    )
    .action(manage);
}
