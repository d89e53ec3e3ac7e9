import type { Command } from 'commander';
import { AgentClient, socketPathOf } from './agent-client.js';
import { addClassicCommands, isDiscovery, joinGroup, leaveGroup } from './classic.js';
import { usage } from './error.js';
import { collect, SOCKET_FLAG } from './network.js';

const CONTROL_PORT = 2377;

interface SwarmFlags {
  readonly socket?: string;
  readonly advertiseAddr?: string;
  readonly listenAddr: string;
  readonly dataPathAddr?: string;
  readonly dataPathPort?: string;
  readonly defaultAddrPool?: readonly string[];
  readonly defaultAddrPoolMaskLength: string;
  readonly availability: string;
  readonly autolock?: boolean;
  readonly forceNewCluster?: boolean;
  readonly token?: string;
  readonly force?: boolean;
  readonly rotate?: boolean;
  readonly quiet?: boolean;
  readonly addr?: string;
}

interface SwarmJson {
  readonly Version: { readonly Index: number };
  readonly Spec: unknown;
  readonly JoinTokens: { readonly Worker: string; readonly Manager: string };
}

function clientOf(flags: SwarmFlags): AgentClient {
  return new AgentClient(socketPathOf(flags.socket, process.env));
}

function numberOf(flag: string, text: string): number {
  if (/^\d{1,5}$/.test(text)) return Number(text);
  throw usage(`${flag} is a number, not '${text}'`);
}

async function init(flags: SwarmFlags): Promise<void> {
  const client = clientOf(flags);
  const id = await client.call('POST', '/swarm/init', {
    ListenAddr: flags.listenAddr,
    AdvertiseAddr: flags.advertiseAddr ?? '',
    DataPathAddr: flags.dataPathAddr ?? '',
    DataPathPort: numberOf('--data-path-port', flags.dataPathPort ?? '0'),
    DefaultAddrPool: flags.defaultAddrPool ?? [],
    SubnetSize: numberOf('--default-addr-pool-mask-length', flags.defaultAddrPoolMaskLength),
    ForceNewCluster: flags.forceNewCluster === true,
    AutoLockManagers: flags.autolock === true,
    Availability: flags.availability,
    Spec: { EncryptionConfig: { AutoLockManagers: flags.autolock === true } },
  });
  console.log(`Swarm initialized: current node (${id}) is now a manager.\n`);
  await printJoin(client, 'worker');
  console.log(
    "To add a manager to this swarm, run 'shoal swarm join-token manager' and follow the instructions.\n",
  );
  if (flags.autolock) await printUnlockKey(client);
}

async function printJoin(client: AgentClient, role: 'worker' | 'manager'): Promise<void> {
  const { JoinTokens } = (await client.call('GET', '/swarm')) as SwarmJson;
  const token = role === 'worker' ? JoinTokens.Worker : JoinTokens.Manager;
  const address = await ownAddress(client);
  console.log(`To add a ${role} to this swarm, run the following command:\n`);
  console.log(`    shoal swarm join --token ${token} ${address}\n`);
}

async function ownAddress(client: AgentClient): Promise<string> {
  const info = (await client.call('GET', '/info')) as {
    readonly Swarm: {
      readonly NodeID: string;
      readonly NodeAddr: string;
      readonly RemoteManagers?: readonly { readonly NodeID: string; readonly Addr: string }[];
    };
  };
  const { NodeID, NodeAddr, RemoteManagers } = info.Swarm;
  const own = RemoteManagers?.find((manager) => manager.NodeID === NodeID);
  return own?.Addr ?? `${NodeAddr}:${CONTROL_PORT}`;
}

async function join(address: string, flags: SwarmFlags): Promise<void> {
  if (isDiscovery(address)) return joinGroup(address, flags);
  if (flags.token === undefined) throw usage('say which token: --token SWMTKN-1-…');
  const client = clientOf(flags);
  await client.call('POST', '/swarm/join', {
    ListenAddr: flags.listenAddr,
    AdvertiseAddr: flags.advertiseAddr ?? '',
    DataPathAddr: flags.dataPathAddr ?? '',
    RemoteAddrs: [/:\d+$/.test(address) ? address : `${address}:${CONTROL_PORT}`],
    JoinToken: flags.token,
    Availability: flags.availability,
  });
  const info = (await client.call('GET', '/info')) as {
    readonly Swarm: { readonly ControlAvailable: boolean };
  };
  console.log(
    `This node joined a swarm as a ${info.Swarm.ControlAvailable ? 'manager' : 'worker'}.`,
  );
}

async function leave(group: string | undefined, flags: SwarmFlags): Promise<void> {
  if (group !== undefined) return leaveGroup(group, flags.socket);
  await clientOf(flags).call('POST', `/swarm/leave?force=${flags.force ? 1 : 0}`);
  console.log('Node left the swarm.');
}

async function joinToken(role: string, flags: SwarmFlags): Promise<void> {
  if (role !== 'worker' && role !== 'manager') throw usage('say worker or manager');
  const client = clientOf(flags);
  if (flags.rotate) {
    const { Version, Spec } = (await client.call('GET', '/swarm')) as SwarmJson;
    const which = role === 'worker' ? 'rotateWorkerToken' : 'rotateManagerToken';
    await client.call('POST', `/swarm/update?version=${Version.Index}&${which}=true`, Spec);
    if (!flags.quiet) console.log(`Successfully rotated ${role} join token.\n`);
  }
  if (!flags.quiet) return printJoin(client, role);
  const { JoinTokens } = (await client.call('GET', '/swarm')) as SwarmJson;
  console.log(role === 'worker' ? JoinTokens.Worker : JoinTokens.Manager);
}

async function printUnlockKey(client: AgentClient): Promise<void> {
  const { UnlockKey } = (await client.call('GET', '/swarm/unlockkey')) as { UnlockKey: string };
  console.log(
    UnlockKey === ''
      ? 'Autolock is off: no key is needed.'
      : `To unlock a manager after it restarts, run 'shoal swarm unlock' with this key:\n\n    ${UnlockKey}\n\nKeep it: without it no manager comes back after a restart.`,
  );
}

async function unlock(key: string, flags: SwarmFlags): Promise<void> {
  await clientOf(flags).call('POST', '/swarm/unlock', { UnlockKey: key });
}

function addAddressFlags(command: Command): Command {
  return command
    .option('--advertise-addr <address>', 'where the others find this node: address or interface')
    .option('--listen-addr <address>', 'where the control port listens', `0.0.0.0:${CONTROL_PORT}`)
    .option('--data-path-addr <address>', 'where frames come and go: address or interface')
    .option('--availability <state>', 'active, pause or drain', 'active');
}

/** Declares `shoal swarm …`. */
export function addSwarmCommands(program: Command): void {
  const swarm = program.command('swarm').description('make, join and leave a swarm');
  addAddressFlags(swarm.command('init'))
    .description('make a swarm with this node as its manager')
    .option('--data-path-port <port>', 'UDP port of frames')
    .option('--default-addr-pool <cidr>', 'where subnets come from; repeatable', collect)
    .option('--default-addr-pool-mask-length <bits>', 'size of subnets', '24')
    .option('--autolock', "seal the managers' disks with a key")
    .option('--force-new-cluster', 'go on with what this manager holds')
    .option(...SOCKET_FLAG)
    .action(init);
  addAddressFlags(swarm.command('join'))
    .argument('<address>', "a manager's address, with its port unless it is 2377, or token://TOKEN")
    .description('join a swarm, or as one of its nodes a group')
    .option('--addr <address:port>', "with token://TOKEN: this node's address there")
    .option('--token <token>', 'as printed by swarm init or join-token')
    .option(...SOCKET_FLAG)
    .action(join);
  swarm
    .command('leave')
    .argument('[group]', 'token://TOKEN: leave only this group')
    .description('leave the swarm, or a group of it')
    .option('-f, --force', 'also as a manager')
    .option(...SOCKET_FLAG)
    .action(leave);
  swarm
    .command('join-token')
    .argument('<role>', 'worker or manager')
    .description('print how to join')
    .option('--rotate', 'make a new token; the old one opens nothing')
    .option('-q, --quiet', 'the token only')
    .option(...SOCKET_FLAG)
    .action(joinToken);
  swarm
    .command('unlock-key')
    .description("print the key that opens managers' disks")
    .option(...SOCKET_FLAG)
    .action((flags: SwarmFlags) => printUnlockKey(clientOf(flags)));
  swarm
    .command('unlock')
    .argument('<key>')
    .description("open this manager's disk")
    .option(...SOCKET_FLAG)
    .action(unlock);
  addClassicCommands(swarm);
}
