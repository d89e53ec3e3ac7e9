import {
  chmodSync,
  closeSync,
  createWriteStream,
  existsSync,
  fsyncSync,
  openSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { resolve } from 'node:path';
import type { Command } from 'commander';
import { AgentClient, socketPathOf } from './agent-client.js';
import { CliError, usage } from './error.js';
import { SOCKET_FLAG } from './network.js';
import { formatTable, printJson } from './output.js';

/** A swarm that is made anew of a snapshot, or a large snapshot, takes its time. */
const TIMEOUT_MS = 120_000;
const PROGRESS_BYTES = 1 << 20;

interface SnapshotFlags {
  readonly force?: boolean;
  readonly json?: boolean;
  readonly socket?: string;
}

/** What the agent tells of a snapshot file. */
export interface SnapshotDescription {
  readonly clusterId: string;
  readonly cluster?: string;
  readonly version: number;
  readonly index: number;
  readonly term: number;
  readonly createdAt: string;
  readonly sizeBytes: number;
  readonly objects: Readonly<Record<string, number>>;
  readonly nodes: readonly {
    readonly id: string;
    readonly hostname: string;
    readonly role: string;
    readonly manager?: string;
  }[];
  readonly networks: readonly {
    readonly id: string;
    readonly name: string;
    readonly vni: number;
  }[];
  readonly secrets: readonly string[];
  readonly configs: readonly string[];
}

const clientOf = (flags: SnapshotFlags) =>
  new AgentClient(socketPathOf(flags.socket, process.env), TIMEOUT_MS);

/** The file appears when it is whole. */
async function save(file: string, flags: SnapshotFlags): Promise<void> {
  const path = resolve(file);
  if (existsSync(path) && flags.force !== true)
    throw usage(`${path} is there already: --force overwrites it`);
  const partial = `${path}.partial`;
  let size = 0;
  let shown = 0;
  try {
    rmSync(partial, { force: true });
    const sink = createWriteStream(partial, { fd: openSync(partial, 'wx', 0o600) });
    await clientOf(flags).download('/shoal/v1/snapshot', sink, (bytes) => {
      size = bytes;
      if (bytes - shown < PROGRESS_BYTES) return;
      shown = bytes;
      console.error(`snapshot: ${Math.floor(bytes / PROGRESS_BYTES)} MiB`);
    });
    chmodSync(partial, 0o600);
    sync(partial);
    renameSync(partial, path);
  } catch (error) {
    rmSync(partial, { force: true });
    throw error;
  }
  console.log(
    `${path}: ${size} bytes; it holds every secret of the swarm in the clear: keep it safe`,
  );
}

/** A snapshot that a power cut takes away is none. */
function sync(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

async function inspectAt(client: AgentClient, file: string): Promise<SnapshotDescription> {
  const path = resolve(file);
  if (!existsSync(path)) throw usage(`there is no file ${path}`);
  const described = await client.call('POST', '/shoal/v1/snapshot/inspect', { path });
  return described as SnapshotDescription;
}

/** What a snapshot holds, for people. */
export function describeSnapshot(snapshot: SnapshotDescription): string {
  const { clusterId, cluster, version, index, term, createdAt, sizeBytes } = snapshot;
  const counts = Object.entries(snapshot.objects).filter(([, count]) => count > 0);
  const lines = [
    `Swarm:    ${clusterId}${cluster === undefined ? '' : ` (${cluster})`}`,
    `Taken:    ${createdAt}, at version ${version} (index ${index}, term ${term})`,
    `Size:     ${sizeBytes} bytes`,
    `Objects:  ${counts.map(([name, count]) => `${name} ${count}`).join(', ')}`,
    `Networks: ${listOf(snapshot.networks.map(({ name }) => name))}`,
    `Secrets:  ${listOf(snapshot.secrets)}`,
    `Configs:  ${listOf(snapshot.configs)}`,
    '',
    formatTable(
      ['NODE', 'HOSTNAME', 'ROLE', 'MANAGER ADDRESS'],
      snapshot.nodes.map(({ id, hostname, role, manager }) => [id, hostname, role, manager ?? '-']),
    ),
  ];
  return lines.join('\n');
}

function listOf(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.join(', ');
}

async function inspect(file: string, flags: SnapshotFlags): Promise<void> {
  const described = await inspectAt(clientOf(flags), file);
  if (flags.json) printJson(described);
  else console.log(describeSnapshot(described));
}

/** What a restore will do, said before it is done. */
export function explainRestore(snapshot: SnapshotDescription): string {
  const others = snapshot.nodes.filter(({ role }) => role === 'manager').length;
  return [
    describeSnapshot(snapshot),
    '',
    'Restoring it makes this node the only manager of that swarm, as it was then:',
    '  - all that was changed since is lost, and what this node holds of a swarm now is replaced;',
    `  - the ${others} managers of the snapshot are workers until they are promoted again;`,
    '  - nodes of that swarm come back by themselves if they find this one at an address they know,',
    '    others join again with a token;',
    '  - other managers of it that still run must be stopped first, or there are two swarms of one name.',
  ].join('\n');
}

async function restore(file: string, flags: SnapshotFlags): Promise<void> {
  const client = clientOf(flags);
  const described = await inspectAt(client, file);
  console.error(explainRestore(described));
  if (flags.force !== true)
    throw new CliError({ code: 'CLI_USAGE' }, 'nothing was changed: --force restores it');
  const path = resolve(file);
  const done = (await client.call('POST', '/shoal/v1/snapshot/restore', { path })) as {
    readonly nodeId?: string;
  };
  if (flags.json) printJson(done);
  else
    console.log(
      `restored: node ${done.nodeId ?? '-'} is the manager of swarm ${described.clusterId}`,
    );
}

/** Declares `shoal snapshot …`. */
export function addSnapshotCommands(program: Command): void {
  const snapshot = program
    .command('snapshot')
    .description('save the whole state of the swarm to a file, look into one, make a swarm of it');
  snapshot
    .command('save')
    .argument('<file>')
    .description('save the state of the swarm, as this manager has it, while all goes on')
    .option('--force', 'overwrite the file')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
The file can be read by its owner only, for it holds all secrets in the clear.

Examples:
  shoal snapshot save /var/backups/swarm.snapshot
  shoal snapshot save --force swarm.snapshot`,
    )
    .action(save);
  snapshot
    .command('inspect')
    .argument('<file>')
    .description("tell what a snapshot file on the agent's host holds, without its secrets")
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      '\nExamples:\n  shoal snapshot inspect swarm.snapshot\n  shoal snapshot inspect swarm.snapshot --json',
    )
    .action(inspect);
  snapshot
    .command('restore')
    .argument('<file>')
    .description('make this node the only manager of the swarm in a snapshot file')
    .option('--force', 'do it, instead of telling what would be done')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .addHelpText(
      'after',
      `
Without --force it tells what would be done, and does nothing.

Examples:
  shoal snapshot restore swarm.snapshot
  shoal snapshot restore swarm.snapshot --force`,
    )
    .action(restore);
}
