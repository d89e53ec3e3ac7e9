import type { Command } from 'commander';
import { AgentClient, socketPathOf } from './agent-client.js';
import { TASK_HEADER, taskRows, titleCase } from './docker-tables.js';
import { usage } from './error.js';
import { collect, SOCKET_FLAG } from './network.js';
import { formatTable, printJson } from './output.js';
import { mappingOf } from './service/values.js';
import { StackApi } from './stack/api.js';

interface NodeFlags {
  readonly socket?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly trunc?: boolean;
  readonly force?: boolean;
  readonly availability?: string;
  readonly role?: string;
  readonly labelAdd?: readonly string[];
  readonly labelRm?: readonly string[];
}

interface NodeSpecJson {
  readonly Labels?: Readonly<Record<string, string>>;
  readonly Role: string;
  readonly Availability: string;
}

interface NodeJson {
  readonly ID: string;
  readonly Version: { readonly Index: number };
  readonly Spec: NodeSpecJson;
  readonly Description: {
    readonly Hostname: string;
    readonly Engine: { readonly EngineVersion: string };
  };
  readonly Status: { readonly State: string };
  readonly ManagerStatus?: { readonly Leader?: boolean; readonly Reachability: string };
}

function clientOf(flags: NodeFlags): AgentClient {
  return new AgentClient(socketPathOf(flags.socket, process.env));
}

/** @param ref Id, unique prefix of an id, hostname, or `self`. */
async function nodeOf(client: AgentClient, ref: string): Promise<NodeJson> {
  const id = ref === 'self' ? await selfId(client) : ref;
  return (await client.call('GET', `/nodes/${encodeURIComponent(id)}`)) as NodeJson;
}

async function selfId(client: AgentClient): Promise<string> {
  const info = (await client.call('GET', '/info')) as { Swarm: { NodeID: string } };
  return info.Swarm.NodeID;
}

async function list(flags: NodeFlags): Promise<void> {
  const client = clientOf(flags);
  const nodes = (await client.call('GET', '/nodes')) as NodeJson[];
  const sorted = nodes.toSorted((a, b) =>
    a.Description.Hostname.localeCompare(b.Description.Hostname, 'en', { numeric: true }),
  );
  if (flags.json) return printJson(sorted);
  if (flags.quiet) {
    for (const { ID } of sorted) console.log(ID);
    return;
  }
  const self = await selfId(client);
  console.log(
    formatTable(
      ['ID', 'HOSTNAME', 'STATUS', 'AVAILABILITY', 'MANAGER STATUS', 'ENGINE VERSION'],
      sorted.map((node) => [
        `${node.ID}${node.ID === self ? ' *' : ''}`,
        node.Description.Hostname,
        titleCase(node.Status.State),
        titleCase(node.Spec.Availability),
        managerStatus(node),
        node.Description.Engine.EngineVersion,
      ]),
    ),
  );
}

function managerStatus({ ManagerStatus }: NodeJson): string {
  if (ManagerStatus === undefined) return '';
  return ManagerStatus.Leader ? 'Leader' : titleCase(ManagerStatus.Reachability);
}

async function ps(refs: readonly string[], flags: NodeFlags): Promise<void> {
  const client = clientOf(flags);
  const api = new StackApi(client);
  const asked = refs.length === 0 ? ['self'] : refs;
  const nodes = await Promise.all(asked.map((ref) => nodeOf(client, ref)));
  const tasks = await api.tasks({ node: nodes.map(({ ID }) => ID) });
  if (flags.json) return printJson(tasks);
  const services = (await api.allServices()).map(({ ID, Spec }) => [ID, Spec.Name] as const);
  const options = {
    services: new Map(services),
    nodes: await api.nodeNames(),
    nowMs: Date.now(),
    truncate: flags.trunc !== false,
  };
  console.log(formatTable(TASK_HEADER, taskRows(tasks, options)));
}

async function inspect(refs: readonly string[], flags: NodeFlags): Promise<void> {
  const client = clientOf(flags);
  printJson(await Promise.all(refs.map((ref) => nodeOf(client, ref))));
}

async function change(
  refs: readonly string[],
  flags: NodeFlags,
  after: (spec: NodeSpecJson) => NodeSpecJson,
): Promise<void> {
  const client = clientOf(flags);
  for (const ref of refs) {
    const { ID, Version, Spec } = await nodeOf(client, ref);
    await client.call('POST', `/nodes/${ID}/update?version=${Version.Index}`, after(Spec));
    console.log(ref);
  }
}

async function update(ref: string, flags: NodeFlags): Promise<void> {
  const { availability, role, labelAdd, labelRm } = flags;
  if ([availability, role, labelAdd, labelRm].every((one) => one === undefined))
    throw usage('say what is to change: --availability, --role, --label-add or --label-rm');
  await change([ref], flags, (spec) => {
    const kept = Object.entries(spec.Labels ?? {}).filter(([key]) => !labelRm?.includes(key));
    return {
      ...spec,
      ...(availability !== undefined && { Availability: availability }),
      ...(role !== undefined && { Role: role }),
      Labels: { ...Object.fromEntries(kept), ...mappingOf(labelAdd) },
    };
  });
}

async function remove(refs: readonly string[], flags: NodeFlags): Promise<void> {
  const client = clientOf(flags);
  for (const ref of refs) {
    const { ID } = await nodeOf(client, ref);
    await client.call('DELETE', `/nodes/${ID}?force=${flags.force ? 1 : 0}`);
    console.log(ref);
  }
}

/** Declares `shoal node …`. */
export function addNodeCommands(program: Command): void {
  const node = program.command('node').description("show and change the swarm's nodes");
  node
    .command('ls')
    .description('list nodes')
    .option('-q, --quiet', 'ids only')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(list);
  node
    .command('ps')
    .argument('[node...]', 'default: this one')
    .description('list the tasks of nodes')
    .option('--no-trunc', 'do not shorten')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(ps);
  node
    .command('inspect')
    .argument('<node...>')
    .description('show nodes as JSON')
    .option(...SOCKET_FLAG)
    .action(inspect);
  node
    .command('update')
    .argument('<node>')
    .description('change a node')
    .option('--availability <state>', 'active, pause or drain')
    .option('--role <role>', 'worker or manager')
    .option('--label-add <key=value>', 'repeatable', collect)
    .option('--label-rm <key>', 'repeatable', collect)
    .option(...SOCKET_FLAG)
    .action(update);
  for (const [verb, role] of [
    ['promote', 'manager'],
    ['demote', 'worker'],
  ] as const)
    node
      .command(verb)
      .argument('<node...>')
      .description(`make nodes ${role}s`)
      .option(...SOCKET_FLAG)
      .action((refs: readonly string[], flags: NodeFlags) =>
        change(refs, flags, (spec) => ({ ...spec, Role: role })),
      );
  node
    .command('rm')
    .argument('<node...>')
    .description('remove nodes that are down')
    .option('-f, --force', 'also those that are not')
    .option(...SOCKET_FLAG)
    .action(remove);
}
