import type { Command } from 'commander';
import { AgentClient, socketPathOf } from './agent-client.js';
import { shortId } from './docker-tables.js';
import { usage } from './error.js';
import { collect, SOCKET_FLAG } from './network.js';
import { formatTable, printJson } from './output.js';
import { mappingOf } from './service/values.js';

interface NetworkFlags {
  readonly socket?: string;
  readonly json?: boolean;
  readonly driver: string;
  readonly attachable?: boolean;
  readonly internal?: boolean;
  readonly ipv6?: boolean;
  readonly subnet?: readonly string[];
  readonly gateway?: readonly string[];
  readonly ipRange?: readonly string[];
  readonly label?: readonly string[];
  readonly opt?: readonly string[];
}

interface NetworkJson {
  readonly Id: string;
  readonly Name: string;
  readonly Driver: string;
  readonly Scope: string;
}

function clientOf(flags: { readonly socket?: string }): AgentClient {
  return new AgentClient(socketPathOf(flags.socket, process.env));
}

async function create(name: string, flags: NetworkFlags): Promise<void> {
  const { subnet = [], gateway = [], ipRange = [] } = flags;
  if (gateway.length > subnet.length || ipRange.length > subnet.length)
    throw usage('every --gateway and --ip-range belongs to a --subnet, in the same order');
  const config = subnet.map((one, at) => ({
    Subnet: one,
    ...(gateway[at] !== undefined && { Gateway: gateway[at] }),
    ...(ipRange[at] !== undefined && { IPRange: ipRange[at] }),
  }));
  const made = (await clientOf(flags).call('POST', '/networks/create', {
    Name: name,
    Driver: flags.driver,
    Attachable: flags.attachable === true,
    Internal: flags.internal === true,
    EnableIPv6: flags.ipv6 === true,
    Labels: mappingOf(flags.label),
    Options: mappingOf(flags.opt),
    IPAM: { Driver: 'default', Config: config },
  })) as { readonly Id: string };
  console.log(made.Id);
}

async function list(flags: NetworkFlags): Promise<void> {
  const all = (await clientOf(flags).call('GET', '/networks')) as NetworkJson[];
  const sorted = all.toSorted((a, b) => a.Name.localeCompare(b.Name, 'en', { numeric: true }));
  if (flags.json) return printJson(sorted);
  const rows = sorted.map(({ Id, Name, Driver, Scope }) => [shortId(Id), Name, Driver, Scope]);
  console.log(formatTable(['NETWORK ID', 'NAME', 'DRIVER', 'SCOPE'], rows));
}

async function inspect(refs: readonly string[], flags: NetworkFlags): Promise<void> {
  const client = clientOf(flags);
  const all = refs.map((ref) => client.call('GET', `/networks/${encodeURIComponent(ref)}`));
  printJson(await Promise.all(all));
}

async function remove(refs: readonly string[], flags: NetworkFlags): Promise<void> {
  const client = clientOf(flags);
  for (const ref of refs) {
    await client.call('DELETE', `/networks/${encodeURIComponent(ref)}`);
    console.log(ref);
  }
}

/** Declares what `shoal network` does with the networks themselves. */
export function addNetworkObjectCommands(network: Command): void {
  network
    .command('create')
    .argument('<name>')
    .description('make a network')
    .option('-d, --driver <name>', 'driver', 'overlay')
    .option('--attachable', 'others than services may attach to it')
    .option('--internal', 'without a way out')
    .option('--ipv6', 'with IPv6 too')
    .option('--subnet <cidr>', 'repeatable', collect)
    .option('--gateway <address>', 'of the subnet; repeatable', collect)
    .option('--ip-range <cidr>', 'of the subnet; repeatable', collect)
    .option('--label <key=value>', 'repeatable', collect)
    .option('-o, --opt <key=value>', 'option of the driver; repeatable', collect)
    .option(...SOCKET_FLAG)
    .addHelpText('after', '\nExamples:\n  shoal network create --attachable mesh')
    .action(create);
  network
    .command('ls')
    .description('list networks')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(list);
  network
    .command('inspect')
    .argument('<network...>')
    .description('show networks as JSON')
    .option(...SOCKET_FLAG)
    .action(inspect);
  network
    .command('rm')
    .argument('<network...>')
    .description('remove networks')
    .option(...SOCKET_FLAG)
    .action(remove);
}
