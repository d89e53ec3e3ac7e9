import type { Command } from 'commander';
import type { RecoveryReport } from '../agent/recovery-report.js';
import { AgentClient, socketPathOf } from './agent-client.js';
import { CliError } from './error.js';
import { SOCKET_FLAG } from './network.js';
import { formatTable, printJson } from './output.js';

/** Making a swarm anew of one manager includes starting it. */
const TIMEOUT_MS = 120_000;

interface RecoverFlags {
  readonly force?: boolean;
  readonly json?: boolean;
  readonly socket?: string;
}

interface Survivor {
  readonly nodeId?: string;
  readonly address?: string;
  readonly role?: string;
  readonly term?: number;
  readonly lastIndex?: number;
  readonly commitIndex?: number;
  readonly appliedIndex?: number;
  readonly version?: number;
  /** Why it did not answer. */
  readonly unreachable?: string;
}

/** What every manager that is left holds, for people. */
export function formatRecovery(report: RecoveryReport): string {
  const { quorum, self, best } = report;
  const members = new Map(self.members.map(({ nodeId, address }) => [nodeId, address]));
  const others = report.others as readonly Survivor[];
  const rows = [self as Survivor, ...others].map((one, i) => [
    `${one.nodeId ?? '-'}${i === 0 ? ' *' : ''}`,
    one.address ?? members.get(one.nodeId as typeof self.nodeId) ?? '-',
    one.role ?? '-',
    ...[one.term, one.lastIndex, one.commitIndex, one.appliedIndex, one.version].map((number) =>
      number === undefined ? '-' : String(number),
    ),
    one.unreachable === undefined ? 'yes' : `no: ${one.unreachable}`,
  ]);
  const header = ['NODE', 'ADDRESS', 'ROLE', 'TERM', 'LAST', 'COMMIT', 'APPLIED', 'VERSION'];
  return [
    formatTable([...header, 'REACHABLE'], rows),
    '',
    `Quorum:  ${quorum.needed} of ${quorum.voters} managers are needed, ${quorum.reachable} can be reached`,
    `Leader:  ${report.hasLeader ? 'yes' : 'none'}`,
    `Longest: the log of ${best === self.nodeId ? 'this node' : `node ${best}`}`,
    `Advice:  ${report.advice}`,
  ].join('\n');
}

async function recover(flags: RecoverFlags): Promise<void> {
  const client = new AgentClient(socketPathOf(flags.socket, process.env), TIMEOUT_MS);
  const report = (await client.call('GET', '/shoal/v1/recover')) as RecoveryReport;
  if (flags.force !== true) {
    if (flags.json) printJson(report);
    else console.log(formatRecovery(report));
    return;
  }
  console.error(formatRecovery(report));
  if (report.hasLeader) {
    const message = 'nothing was changed: the managers have a leader';
    throw new CliError({ code: 'CLI_REFUSED', status: 409, refusal: undefined }, message);
  }
  const done = (await client.call('POST', '/shoal/v1/recover', { force: true })) as {
    readonly nodeId?: string;
  };
  if (flags.json) printJson(done);
  else
    console.log(
      `recovered: node ${done.nodeId ?? '-'} is the only manager; promote others again (docker node promote)`,
    );
}

/** Declares `shoal recover`. */
export function addRecoverCommand(program: Command): void {
  program
    .command('recover')
    .description(
      'tell what each manager that is left holds; with --force, go on with this one alone',
    )
    .option('--force', 'make this node the only manager: what it does not hold is lost')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
For a swarm that has lost more than half of its managers for good. Without --force nothing is
changed. While the managers have a leader there is nothing to recover, and it refuses.

Examples:
  shoal recover
  shoal recover --force`,
    )
    .action(recover);
}
