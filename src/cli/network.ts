import { isIP } from 'node:net';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import type { AttachTarget, DetachRequest, LocalAttachment } from '../api/index.js';
import { AgentClient, socketPathOf } from './agent-client.js';
import { usage } from './error.js';
import { formatTable, printJson } from './output.js';

/** Appends one more value of a repeatable option. */
export function collect(value: string, all: readonly string[] = []): readonly string[] {
  return [...all, value];
}

const LABEL_PATTERN = /^[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?$/;
const IFNAME_PATTERN = /^[^\s/:]{1,15}$/;

/** Throws a usage error unless `address` is an IPv4 or IPv6 literal. */
export function checkIp(address: string | undefined): void {
  if (address === undefined || isIP(address) !== 0) return;
  throw usage(`--ip must be an IPv4 or IPv6 address, not '${address}'`);
}

/** Throws a usage error unless `name` can be asked for in DNS. */
export function checkName(flag: string, name: string): void {
  if (LABEL_PATTERN.test(name)) return;
  throw usage(`${flag} must be a host name of letters, digits, '-', '_' and '.', not '${name}'`);
}

export interface TargetFlags {
  readonly netns?: string;
  readonly pid?: string;
  readonly host?: boolean;
}

/**
 * The namespace that is meant: exactly one flag says it. A bare name is one of `ip netns`; another
 * path is made absolute, for the agent has a working directory of its own.
 */
export function targetOf(flags: TargetFlags): AttachTarget {
  const given = [flags.netns, flags.pid, flags.host].filter((flag) => flag !== undefined);
  if (given.length !== 1) {
    throw usage('say which namespace is meant: one of --netns PATH, --pid N or --host');
  }
  if (flags.netns !== undefined) {
    const isName = /^[^/]+$/.test(flags.netns) && flags.netns !== '.' && flags.netns !== '..';
    return { kind: 'netns', path: isName ? `/run/netns/${flags.netns}` : resolve(flags.netns) };
  }
  if (flags.pid !== undefined) {
    const pid = Number(flags.pid);
    if (!/^\d{1,10}$/.test(flags.pid) || pid === 0) {
      throw usage(`--pid must be a process id, not '${flags.pid}'`);
    }
    return { kind: 'pid', pid };
  }
  return { kind: 'host' };
}

interface AttachFlags extends TargetFlags {
  readonly ip?: string;
  readonly name?: string;
  readonly alias?: readonly string[];
  readonly ifname?: string;
  readonly json?: boolean;
  readonly socket?: string;
}

async function attach(network: string, flags: AttachFlags): Promise<void> {
  const target = targetOf(flags);
  checkIp(flags.ip);
  if (flags.name !== undefined) checkName('--name', flags.name);
  for (const alias of flags.alias ?? []) checkName('--alias', alias);
  if (flags.ifname !== undefined && !IFNAME_PATTERN.test(flags.ifname)) {
    throw usage(`--ifname must be 1 to 15 characters without '/' and ':', not '${flags.ifname}'`);
  }
  const client = new AgentClient(socketPathOf(flags.socket, process.env));
  const made = (await client.call('POST', '/shoal/v1/attachments', {
    network,
    target,
    aliases: flags.alias ?? [],
    ...(flags.ip === undefined ? {} : { ip: flags.ip }),
    ...(flags.name === undefined ? {} : { name: flags.name }),
    ...(flags.ifname === undefined ? {} : { ifname: flags.ifname }),
  })) as LocalAttachment;
  if (flags.json) printJson(made);
  else console.log(describe(made));
}

function describe(a: LocalAttachment): string {
  const addresses = a.addresses.join(', ');
  return `${a.name} is attached to ${a.networkName}: ${a.ifname} ${addresses} ${a.mac} mtu ${a.mtuBytes}`;
}

/** Without a target the argument may be the id of the attachment itself. */
export function detachRequestOf(ref: string, flags: TargetFlags): DetachRequest {
  const hasTarget =
    flags.netns !== undefined || flags.pid !== undefined || flags.host !== undefined;
  if (!hasTarget) return { id: ref };
  const target = targetOf(flags);
  switch (target.kind) {
    case 'netns':
      return { network: ref, netns: target.path };
    case 'pid':
      return { network: ref, pid: target.pid };
    case 'host':
      return { network: ref, host: true };
  }
}

async function detach(ref: string, flags: AttachFlags): Promise<void> {
  const client = new AgentClient(socketPathOf(flags.socket, process.env));
  const body = detachRequestOf(ref, flags);
  const gone = (await client.call('POST', '/shoal/v1/detach', body)) as LocalAttachment[];
  if (flags.json) printJson(gone);
  else for (const a of gone) console.log(`${a.name} is detached from ${a.networkName}`);
}

function formatTarget(target: AttachTarget): string {
  switch (target.kind) {
    case 'netns':
      return target.path.replace(/^\/(var\/)?run\/netns\//, '');
    case 'pid':
      return `pid ${target.pid}`;
    case 'host':
      return 'host';
  }
}

async function list(flags: AttachFlags): Promise<void> {
  const client = new AgentClient(socketPathOf(flags.socket, process.env));
  const all = (await client.call('GET', '/shoal/v1/attachments')) as LocalAttachment[];
  if (flags.json) return printJson(all);
  console.log(
    formatTable(
      ['ID', 'NETWORK', 'NAME', 'TARGET', 'INTERFACE', 'ADDRESSES', 'MAC', 'MTU', 'STATE'],
      all.map((a) => [
        a.id.slice(0, 12),
        a.networkName,
        a.name,
        formatTarget(a.target),
        a.ifname,
        a.addresses.join(','),
        a.mac,
        String(a.mtuBytes),
        a.error === undefined ? a.state : `${a.state}: ${a.error}`,
      ]),
    ),
  );
}

export const SOCKET_FLAG = [
  '--socket <path>',
  "the agent's unix socket (default: $SHOAL_SOCKET, $DOCKER_HOST or /run/shoal/docker.sock)",
] as const;

function addTargetFlags(command: Command): Command {
  return command
    .option('--netns <path>', "a network namespace: a path, or a name of 'ip netns'")
    .option('--pid <n>', 'the network namespace of a process')
    .option('--host', "this host's own network namespace");
}

/** Declares `shoal network …`; returns it for more. */
export function addNetworkCommands(program: Command): Command {
  const network = program
    .command('network')
    .description('make overlay networks, and attach namespaces of this host to them');
  addTargetFlags(network.command('attach'))
    .argument('<network>', 'name or id of an attachable overlay network')
    .description('attach a network namespace to a network')
    .option('--ip <address>', 'a wish for the address')
    .option('--name <name>', 'name that the others find it by')
    .option('--alias <name>', 'one more name, repeatable', collect)
    .option('--ifname <name>', 'interface name in the namespace (default: the first free ethN)')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
Examples:
  ip netns add blue && shoal network attach mesh --netns blue --name blue
  shoal network attach mesh --pid 4711 --ip 10.0.1.9 --alias db
  shoal network attach mesh --host`,
    )
    .action(attach);
  addTargetFlags(network.command('detach'))
    .argument(
      '<network|id>',
      'the network, together with the namespace; or the id of the attachment',
    )
    .description('take a network namespace off a network')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
Examples:
  shoal network detach mesh --netns blue
  shoal network detach 3f2a9c   # an id of 'shoal network attachments'`,
    )
    .action(detach);
  network
    .command('attachments')
    .description("list this host's attachments")
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      '\nExamples:\n  shoal network attachments\n  shoal network attachments --json',
    )
    .action(list);
  return network;
}
