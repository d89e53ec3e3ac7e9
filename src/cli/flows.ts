import type { Command } from 'commander';
import type { FlowsAnswer, PortItem } from '../api/index.js';
import { AgentClient, socketPathOf } from './agent-client.js';
import { usage } from './error.js';
import { SOCKET_FLAG } from './network.js';
import { formatTable, printJson } from './output.js';

interface FlowsFlags {
  readonly limit: string;
  readonly service?: string;
  readonly json?: boolean;
  readonly socket?: string;
}

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'] as const;

/** Open flows as a table, and how many more there are. */
export function formatFlows({ total, flows }: FlowsAnswer): string {
  const table = formatTable(
    ['CLIENT', 'PORT', 'SERVICE', 'TASK', 'BACKEND', 'AGE', 'UP', 'DOWN'],
    flows.map((flow) => [
      `${flow.client.includes(':') ? `[${flow.client}]` : flow.client}:${flow.clientPort}`,
      flow.port,
      flow.serviceName,
      flow.taskId?.slice(0, 12) ?? '-',
      flow.backend ?? '-',
      formatAge(flow.ageMs),
      formatBytes(flow.bytesUp),
      formatBytes(flow.bytesDown),
    ]),
  );
  const more = total - flows.length;
  return more > 0 ? `${table}\n… and ${more} more` : table;
}

/** Published ports as a table. */
export function formatPorts(ports: readonly PortItem[]): string {
  return formatTable(
    ['SERVICE', 'PORT', 'NEW', 'OPEN', 'REFUSED', 'CONNECTS', 'FAILED', 'READY TASKS', 'OPEN AT'],
    ports.map((port) => [
      port.serviceName,
      port.port,
      String(port.newFlows),
      String(port.openFlows),
      String(Object.values(port.refused).reduce((sum, count) => sum + count, 0)),
      String(port.connects),
      String(port.failedConnects),
      String(port.readyTasks),
      port.openAt.map((place) => (place === '::' ? '*' : place)).join(',') || '-',
    ]),
  );
}

function formatAge(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60
    ? `${minutes}m${seconds % 60}s`
    : `${Math.floor(minutes / 60)}h${minutes % 60}m`;
}

function formatBytes(bytes: number | undefined): string {
  if (bytes === undefined) return '-';
  const step = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), UNITS.length - 1);
  const scaled = bytes / 1000 ** step;
  return `${step === 0 ? scaled : scaled.toFixed(1)}${UNITS[step]}`;
}

async function flows(flags: FlowsFlags): Promise<void> {
  if (!/^[1-9]\d{0,4}$/.test(flags.limit) || Number(flags.limit) > 10_000)
    throw usage(`--limit must be a number from 1 to 10000, not '${flags.limit}'`);
  const query = new URLSearchParams({ limit: flags.limit });
  if (flags.service !== undefined) query.set('service', flags.service);
  const client = new AgentClient(socketPathOf(flags.socket, process.env));
  const answer = (await client.call('GET', `/shoal/v1/flows?${query}`)) as FlowsAnswer;
  if (flags.json) printJson(answer);
  else console.log(formatFlows(answer));
}

async function topServices(flags: Pick<FlowsFlags, 'json' | 'socket'>): Promise<void> {
  const client = new AgentClient(socketPathOf(flags.socket, process.env));
  const ports = (await client.call('GET', '/shoal/v1/ports')) as readonly PortItem[];
  if (flags.json) printJson(ports);
  else console.log(formatPorts(ports));
}

/** Declares `shoal flows` and `shoal top services`. */
export function addFlowCommands(program: Command): void {
  program
    .command('flows')
    .description('open flows of the published ports of this node')
    .option('--service <ref>', 'only of one service, by id or name')
    .option('--limit <n>', 'at most so many', '100')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      '\nExamples:\n  shoal flows\n  shoal flows --service web --limit 20 --json',
    )
    .action(flows);
  program
    .command('top')
    .description('what is busy on this node')
    .command('services')
    .description('published ports of this node by flows, since each is open')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText('after', '\nExamples:\n  shoal top services\n  shoal top services --json')
    .action(topServices);
}
