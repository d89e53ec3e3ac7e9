import type { Command } from 'commander';
import type { HistoryItem } from '../api/index.js';
import { AgentClient, socketPathOf } from './agent-client.js';
import { usage } from './error.js';
import { SOCKET_FLAG } from './network.js';
import { formatTable, printJson } from './output.js';

interface HistoryFlags {
  readonly limit: string;
  readonly object?: string;
  readonly json?: boolean;
  readonly socket?: string;
}

/** The path that asks for what the flags say. */
export function historyPathOf(flags: Pick<HistoryFlags, 'limit' | 'object'>): string {
  if (!/^[1-9]\d{0,4}$/.test(flags.limit))
    throw usage(`--limit must be a number from 1 to 10000, not '${flags.limit}'`);
  const query = new URLSearchParams({ limit: flags.limit });
  if (flags.object !== undefined) query.set('object', flags.object);
  return `/shoal/v1/history?${query}`;
}

/** The latest last, as a log. */
export function formatHistory(items: readonly HistoryItem[]): string {
  return formatTable(
    ['TIME', 'VERSION', 'ACTION', 'OBJECT', 'ID', 'NAME', 'COMMAND', 'NOTE'],
    items.map(({ atMs, version, action, objectKind, id, name, kind, note, by }) => [
      new Date(atMs).toISOString(),
      String(version),
      action,
      objectKind,
      id.slice(0, 12),
      name,
      by === undefined ? kind : `${kind} by ${by}`,
      note ?? '',
    ]),
  );
}

async function history(flags: HistoryFlags): Promise<void> {
  const path = historyPathOf(flags);
  const client = new AgentClient(socketPathOf(flags.socket, process.env));
  const items = (await client.call('GET', path)) as readonly HistoryItem[];
  if (flags.json) printJson(items);
  else console.log(formatHistory(items));
}

/** Declares `shoal history`. */
export function addHistoryCommand(program: Command): void {
  program
    .command('history')
    .description('what changed in the swarm, and when; asked on a manager')
    .option('--limit <n>', 'the latest so many changes', '100')
    .option('--object <ref>', 'only of one kind of object, or of one id or name')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
Examples:
  shoal history
  shoal history --object node2 --limit 20
  shoal history --object network --json`,
    )
    .action(history);
}
