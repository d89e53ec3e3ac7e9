import type { Command } from 'commander';
import { split } from 'shlex';
import { AgentClient, socketPathOf } from '../agent-client.js';
import type { Json } from '../compose/convert.js';
import { composeError } from '../compose/error.js';
import { SERVICE_HEADER, serviceRow, TASK_HEADER, taskRows } from '../docker-tables.js';
import { CliError, usage } from '../error.js';
import { collect, SOCKET_FLAG } from '../network.js';
import { formatTable, printJson } from '../output.js';
import { StackApi } from '../stack/api.js';
import { waitConverged } from '../stack/wait.js';
import { followLogs } from './logs.js';
import { type ServiceFlags, serviceSpec } from './spec.js';
import { isSame, type UpdateFlags, updatedSpec } from './update.js';

const CONVERGE_SECONDS = 300;

interface CommonFlags {
  readonly socket?: string;
  readonly json?: boolean;
  readonly quiet?: boolean;
  readonly detach?: boolean;
  readonly trunc?: boolean;
}

function clientOf(flags: CommonFlags): AgentClient {
  return new AgentClient(socketPathOf(flags.socket, process.env));
}

/** Fills in what only the swarm knows: the ids of secrets and configs that are named. */
async function withIds(api: StackApi, spec: Json): Promise<Json> {
  const template = spec['TaskTemplate'] as Json;
  const container = template['ContainerSpec'] as Json;
  const resolve = async (key: 'Secrets' | 'Configs', nameKey: string, idKey: string) => {
    const references = container[key] as readonly Json[] | undefined;
    if (references === undefined) return {};
    const kind = key === 'Secrets' ? 'secrets' : 'configs';
    const resolved = await Promise.all(
      references.map(async (reference) => {
        const name = String(reference[nameKey]);
        const found = await api.blob(kind, name);
        if (found === undefined)
          throw composeError(kind, `${kind.slice(0, -1)} not found: ${name}`);
        return { ...reference, [idKey]: found.ID };
      }),
    );
    return { [key]: resolved };
  };
  const files = {
    ...(await resolve('Secrets', 'SecretName', 'SecretID')),
    ...(await resolve('Configs', 'ConfigName', 'ConfigID')),
  };
  return {
    ...spec,
    TaskTemplate: { ...template, ContainerSpec: { ...container, ...files } },
  };
}

async function converge(api: StackApi, id: string, flags: CommonFlags): Promise<void> {
  if (flags.detach) return;
  await waitConverged(api, id, {
    timeoutMs: CONVERGE_SECONDS * 1000,
    signal: new AbortController().signal,
    say: (line) => {
      if (!flags.quiet) console.error(line);
    },
  });
}

async function create(
  image: string,
  args: readonly string[],
  flags: ServiceFlags & CommonFlags,
): Promise<void> {
  const api = new StackApi(clientOf(flags));
  const id = await api.createService(await withIds(api, serviceSpec(image, args, flags)));
  console.log(id);
  await converge(api, id, flags);
}

async function update(name: string, flags: UpdateFlags & CommonFlags): Promise<void> {
  const api = new StackApi(clientOf(flags));
  const service = await api.service(name);
  if (flags.rollback) {
    await api.rollbackService(service);
  } else {
    const args = flags.args === undefined ? undefined : split(flags.args);
    const before = service.Spec as unknown as Json;
    const after = updatedSpec(before, flags, args);
    if (isSame(before, after)) throw usage('say what is to change: see its flags');
    await api.updateService(service, await withIds(api, after));
  }
  console.log(name);
  await converge(api, service.ID, flags);
}

async function scale(pairs: readonly string[], flags: CommonFlags): Promise<void> {
  const wishes = pairs.map((pair) => {
    const match = /^(?<name>[^=]+)=(?<count>\d{1,7})$/.exec(pair)?.groups;
    if (match === undefined) throw usage(`say SERVICE=REPLICAS, not '${pair}'`);
    return { name: match['name'] ?? '', replicas: match['count'] ?? '' };
  });
  const api = new StackApi(clientOf(flags));
  for (const { name, replicas } of wishes) {
    const service = await api.service(name);
    if (!('Replicated' in service.Spec.Mode) && !('ReplicatedJob' in service.Spec.Mode))
      throw usage(`${name}: scale can only be used with replicated or replicated-job mode`);
    const Mode =
      'Replicated' in service.Spec.Mode
        ? { Replicated: { Replicas: Number(replicas) } }
        : {
            ReplicatedJob: {
              ...(service.Spec.Mode['ReplicatedJob'] as Json),
              TotalCompletions: Number(replicas),
            },
          };
    await api.updateService(service, { ...service.Spec, Mode });
    console.log(`${name} scaled to ${replicas}`);
  }
  for (const { name } of wishes) await converge(api, name, flags);
}

async function list(flags: CommonFlags): Promise<void> {
  const api = new StackApi(clientOf(flags));
  const all = (await api.allServices()).toSorted((a, b) =>
    a.Spec.Name.localeCompare(b.Spec.Name, 'en', { numeric: true }),
  );
  if (flags.json) printJson(all);
  else if (flags.quiet) for (const { ID } of all) console.log(ID);
  else console.log(formatTable(SERVICE_HEADER, all.map(serviceRow)));
}

async function ps(names: readonly string[], flags: CommonFlags): Promise<void> {
  const api = new StackApi(clientOf(flags));
  const services = await Promise.all(names.map((name) => api.service(name)));
  const tasks = await api.tasks({ service: services.map(({ ID }) => ID) });
  if (flags.json) return printJson(tasks);
  const options = {
    services: new Map(services.map(({ ID, Spec }) => [ID, Spec.Name])),
    nodes: await api.nodeNames(),
    nowMs: Date.now(),
    truncate: flags.trunc !== false,
  };
  console.log(formatTable(TASK_HEADER, taskRows(tasks, options)));
}

async function inspect(names: readonly string[], flags: CommonFlags): Promise<void> {
  const api = new StackApi(clientOf(flags));
  printJson(await Promise.all(names.map((name) => api.service(name))));
}

async function rollback(name: string, flags: CommonFlags): Promise<void> {
  await update(name, { ...flags, rollback: true });
}

/** Goes on with the others when one is not there, as docker does, and fails in the end. */
async function remove(names: readonly string[], flags: CommonFlags): Promise<void> {
  const api = new StackApi(clientOf(flags));
  const failures: CliError[] = [];
  for (const name of names) {
    try {
      await api.remove('services', name);
      console.log(name);
    } catch (error) {
      if (!(error instanceof CliError)) throw error;
      failures.push(error);
    }
  }
  const [first, ...others] = failures;
  if (first === undefined) return;
  for (const other of others) console.error(`shoal: ${other.message}`);
  throw first;
}

type Flag = readonly [flags: string, description: string];

/** Flags that take a value's place; both in `create` and `update`. */
const SHARED: readonly Flag[] = [
  ['--replicas <n>', 'number of tasks'],
  ['--endpoint-mode <mode>', 'vip or dnsrr'],
  ['--limit-cpu <n>', 'most processors of a task, such as 0.5'],
  ['--limit-memory <bytes>', 'most memory of a task, such as 50M'],
  ['--limit-pids <n>', 'most processes of a task'],
  ['--reserve-cpu <n>', 'processors that must be free for it'],
  ['--reserve-memory <bytes>', 'memory that must be free for it'],
  ['--replicas-max-per-node <n>', 'most tasks on one node'],
  ['--restart-condition <when>', 'none, on-failure or any'],
  ['--restart-delay <duration>', 'between attempts'],
  ['--restart-max-attempts <n>', 'before giving up'],
  ['--restart-window <duration>', 'in which attempts are counted'],
  ...(['update', 'rollback'] as const).flatMap((kind): Flag[] => [
    [`--${kind}-parallelism <n>`, 'tasks at a time, 0 for all'],
    [`--${kind}-delay <duration>`, 'between tasks'],
    [`--${kind}-monitor <duration>`, 'how long a new task is watched'],
    [`--${kind}-order <order>`, 'stop-first or start-first'],
    [`--${kind}-failure-action <action>`, 'pause, continue or rollback'],
    [`--${kind}-max-failure-ratio <ratio>`, 'of tasks that may fail'],
  ]),
  ['--health-cmd <command>', 'tells whether a task is healthy'],
  ['--health-interval <duration>', 'between two checks'],
  ['--health-timeout <duration>', 'of one check'],
  ['--health-retries <n>', 'failures until a task is unhealthy'],
  ['--health-start-period <duration>', 'in which failures do not count'],
  ['--no-healthcheck', 'no check, not even that of the image'],
  ['--hostname <name>', 'in the tasks'],
  ['--user <user>', 'user or user:group, names or numbers'],
  ['--workdir <path>', 'working folder'],
  ['--entrypoint <command>', "in place of the image's"],
  ['--stop-signal <signal>', 'to stop a task'],
  ['--stop-grace-period <duration>', 'until a task is killed'],
  ['--init', 'run an init process'],
  ['--tty', 'a terminal for the tasks'],
  ['--read-only', 'a root that cannot be written'],
];

const CREATE_LISTS: readonly Flag[] = [
  ['-l, --label <key=value>', 'label of the service'],
  ['--container-label <key=value>', 'label of its containers'],
  ['-e, --env <key=value>', 'environment variable'],
  ['--env-file <path>', 'file of variables'],
  ['--mount <mount>', 'type=bind,source=/a,target=/b,readonly'],
  ['--network <network>', 'name, or name=NET,alias=A'],
  ['-p, --publish <port>', '8080:80, or published=8080,target=80,mode=host'],
  ['--secret <secret>', 'name, or source=NAME,target=FILE,mode=0400'],
  ['--config <config>', 'name, or source=NAME,target=/path'],
  ['--constraint <expression>', 'such as node.labels.zone==a'],
  ['--placement-pref <preference>', 'spread=node.labels.zone'],
  ['--host <name:address>', 'line of /etc/hosts'],
  ['--dns <address>', 'name server'],
  ['--dns-search <domain>', 'search domain'],
  ['--dns-option <option>', 'option of the resolver'],
  ['--group <group>', 'further group'],
  ['--cap-add <capability>', 'capability to add'],
  ['--cap-drop <capability>', 'capability to drop'],
  ['--sysctl <key=value>', 'kernel setting of its namespaces'],
  ['--ulimit <name=soft:hard>', 'limit'],
  ['--log-opt <key=value>', 'option of the log driver'],
];

const CHANGES = [
  'env',
  'label',
  'container-label',
  'publish',
  'mount',
  'network',
  'constraint',
  'secret',
  'config',
] as const;

/** Declares `shoal service …`. */
export function addServiceCommands(program: Command): void {
  const service = program.command('service').description('run and change services');
  const make = service
    .command('create')
    .argument('<image>', "an image, or 'host' for a command of the host")
    .argument('[command...]', 'its arguments')
    .passThroughOptions()
    .description('make a service')
    .option('--name <name>', 'name of the service')
    .option('--mode <mode>', 'replicated, global, replicated-job or global-job', 'replicated')
    .option('--max-concurrent <n>', 'tasks of a job at a time')
    .option('--log-driver <name>', 'log driver');
  for (const [flags, text] of SHARED) make.option(flags, text);
  for (const [flags, text] of CREATE_LISTS) make.option(flags, `${text}; repeatable`, collect);
  addWaiting(make)
    .addHelpText(
      'after',
      `
Examples:
  shoal service create --name web --replicas 3 -p 8080:80 --network mesh nginx:1.27
  shoal service create --name files -p 8080:80 host python3 -m http.server 80`,
    )
    .action(create);

  const change = service
    .command('update')
    .argument('<service>')
    .description('change a service')
    .option('--image <image>', 'image')
    .option('--args <text>', 'arguments')
    .option('--force', 'replace all tasks')
    .option('--rollback', 'back to the spec before');
  for (const [flags, text] of SHARED) change.option(flags, text);
  for (const name of CHANGES) {
    change.option(`--${name}-add <value>`, `add or change; repeatable`, collect);
    change.option(`--${name}-rm <name>`, `remove; repeatable`, collect);
  }
  addWaiting(change).action(update);

  addWaiting(
    service
      .command('scale')
      .argument('<service=replicas...>')
      .description('change how many tasks there are'),
  ).action(scale);
  addWaiting(
    service.command('rollback').argument('<service>').description('go back to the spec before'),
  ).action(rollback);
  service
    .command('ls')
    .description('list services')
    .option('-q, --quiet', 'ids only')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(list);
  service
    .command('ps')
    .argument('<service...>')
    .description('list tasks of services')
    .option('--no-trunc', 'do not shorten')
    .option('--json', 'print JSON')
    .option(...SOCKET_FLAG)
    .action(ps);
  service
    .command('inspect')
    .argument('<service...>')
    .description('show services as JSON')
    .option(...SOCKET_FLAG)
    .action(inspect);
  service
    .command('rm')
    .argument('<service...>')
    .description('remove services')
    .option(...SOCKET_FLAG)
    .action(remove);
  service
    .command('logs')
    .argument('<service|task>')
    .description('show what its tasks have written')
    .option('-f, --follow', 'go on with what they write')
    .option('-n, --tail <lines>', 'so many from the end of each task', 'all')
    .option('--since <when>', 'a time, or so long ago: 10m')
    .option('-t, --timestamps', 'with times')
    .option('--raw', 'without the names of tasks')
    .option(...SOCKET_FLAG)
    .action(followLogs);
}

function addWaiting(command: Command): Command {
  return command
    .option('-d, --detach', 'do not wait until it has converged')
    .option('-q, --quiet', 'no progress')
    .option(...SOCKET_FLAG);
}
