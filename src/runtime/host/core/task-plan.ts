import type { DescriptorLimits } from '../../../base/descriptor-limits.js';
import type { ContainerSpec } from '../../../base/service-model.js';
import type { RuntimeTask } from '../../core/runtime.js';
import { hasNul, type PlanRecord } from '../wire/plan.js';
import { capabilitiesOf } from './capabilities.js';
import type { CgroupPlan } from './cgroups.js';
import { logOptionsOf } from './log-options.js';
import { RLIMIT_DATA, RLIMIT_NOFILE, rlimitOf } from './rlimits.js';
import { SIGTERM, signalOf } from './signals.js';
import type { CommandRecord, LimitRecord, TaskRecord } from './task-record.js';
import { identityOf } from './users.js';
import { rejected, type ViewFacts, viewPlanOf } from './view.js';

const CLONE_NEWNS = 0x0002_0000;
const CLONE_NEWUTS = 0x0400_0000;
const CLONE_NEWIPC = 0x0800_0000;
const CLONE_NEWNET = 0x4000_0000;

const PATH_DEFAULT = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** Words of a command, and variables of an environment. */
export const STRINGS_MAX = 4000;
/** Bytes of one of them: the kernel's own limit. */
const STRING_BYTES_MAX = 131_071;
/** Further groups of a user: the supervisor's own limit. */
const GROUPS_MAX = 64;
const HOSTNAME_BYTES_MAX = 64;
const OOM_SCORE_MAX = 1000;

export interface HostFacts extends ViewFacts {
  readonly passwd: string;
  readonly group: string;
  readonly hostname: string;
  /** Of descriptors, for tasks that wish nothing else; absent: as the agent has it. */
  readonly descriptors?: DescriptorLimits;
}

/** What the agent must know of a task, and what its supervisor is told. */
export interface TaskPlan {
  readonly record: TaskRecord;
  readonly records: readonly PlanRecord[];
  readonly hostname: string;
}

/** @throws RuntimeError RUNTIME_REJECTED with one sentence that says which wish cannot be met. */
export function taskPlanOf(
  task: RuntimeTask,
  containerId: string,
  cgroups: CgroupPlan,
  facts: HostFacts,
): TaskPlan {
  const { container } = task;
  const hostname = hostnameOf(task, containerId, facts);
  const command = {
    ...commandOf(container, hostname, facts),
    limits: limitsOf(task, cgroups, facts.descriptors),
  };
  const log = logOptionsOf(task.logDriver);
  const stopSignal = container.stopSignal === undefined ? SIGTERM : signalOf(container.stopSignal);
  if (stopSignal === undefined) throw rejected(`invalid signal: ${container.stopSignal}`);
  checkPrivileges(container.privileges);
  const namespaces =
    CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | (task.network === 'host' ? 0 : CLONE_NEWNET);

  const settings: PlanRecord[] = [
    ['D', facts.folder],
    ['N', `${namespaces}`],
    ['H', hostname],
    ['I', container.init === false ? '0' : '1'],
    ...commandRecords(command),
    ...cgroups.procs.map((path): PlanRecord => ['G', path]),
  ];
  if (container.tty === true) settings.push(['T', '24', '80']);
  if (log !== undefined) settings.push(['L', `${log.fileBytesMax}`, `${log.filesMax}`]);
  if (cgroups.oomEvents !== undefined) settings.push(['O', cgroups.oomEvents]);
  const score = container.oomScoreAdj;
  if (score !== undefined && score !== 0) {
    if (!Number.isInteger(score) || Math.abs(score) > OOM_SCORE_MAX) {
      throw rejected(`invalid value for oom-score-adj, range is [-1000, 1000]: ${score}`);
    }
    settings.push(['S', `${score}`]);
  }
  const record: TaskRecord = {
    id: task.id,
    name: task.name,
    containerId,
    labels: task.labels,
    network: task.network,
    log: log ?? null,
    stopSignal,
    ...(container.health === undefined ? {} : { health: container.health }),
    cgroups: { folders: cgroups.folders, procs: cgroups.procs },
    command,
  };
  return { record, records: [...settings, ...viewPlanOf(task, facts)], hostname };
}

function hostnameOf(task: RuntimeTask, containerId: string, facts: HostFacts): string {
  const wanted = task.container.hostname;
  if (wanted === undefined || wanted === '') {
    return task.network === 'host' ? facts.hostname : containerId.slice(0, 12);
  }
  if (wanted.length > HOSTNAME_BYTES_MAX || !/^[\w.-]+$/.test(wanted)) {
    throw rejected(`invalid hostname: ${wanted}`);
  }
  return wanted;
}

function commandOf(container: ContainerSpec, hostname: string, facts: HostFacts): CommandRecord {
  const argv = [...(container.command ?? []), ...(container.args ?? [])];
  if (argv.length === 0 || argv[0] === '') {
    throw rejected('no command specified: the image host runs what is given after it');
  }
  const identity = identityOf(
    container.user ?? '',
    container.groups ?? [],
    facts.passwd,
    facts.group,
  );
  if (typeof identity === 'string') throw rejected(identity);
  if (identity.groups.length > GROUPS_MAX)
    throw rejected(`a user has at most ${GROUPS_MAX} groups`);
  const capabilities = capabilitiesOf(
    container.capabilityAdd ?? [],
    container.capabilityDrop ?? [],
  );
  if (typeof capabilities === 'string') throw rejected(`invalid capability: ${capabilities}`);
  const env = environmentOf(
    [
      `PATH=${PATH_DEFAULT}`,
      `HOSTNAME=${hostname}`,
      `HOME=${identity.home}`,
      ...(container.tty === true ? ['TERM=xterm'] : []),
    ],
    container.env ?? [],
  );
  const cwd = container.dir === undefined || container.dir === '' ? '/' : container.dir;
  if (!cwd.startsWith('/')) {
    throw rejected(`the working directory '${cwd}' is invalid, it needs to be an absolute path`);
  }
  for (const [what, list] of [
    ['a command', argv],
    ['an environment', env],
  ] as const) {
    if (list.length > STRINGS_MAX) throw rejected(`${what} has at most ${STRINGS_MAX} entries`);
    if (list.some((text) => hasNul(text) || text.length > STRING_BYTES_MAX)) {
      throw rejected(`${what} has an entry that is too long or holds a NUL`);
    }
  }
  return {
    argv,
    env,
    cwd,
    uid: identity.uid,
    gid: identity.gid,
    groups: identity.groups,
    capabilities: capabilities.toString(16),
    noNewPrivileges: container.privileges?.['NoNewPrivileges'] === true,
  };
}

/** Later entries replace earlier ones of the same name; a name without a value takes its variable away. */
export function environmentOf(base: readonly string[], changes: readonly string[]): string[] {
  const values = new Map<string, string>();
  for (const entry of [...base, ...changes]) {
    const at = entry.indexOf('=');
    if (at < 0) values.delete(entry);
    else values.set(entry.slice(0, at), entry);
  }
  return [...values.values()];
}

/** The settings with which a command is run, the task's own or a further one. */
export function commandRecords(command: CommandRecord): PlanRecord[] {
  return [
    ...command.argv.map((word): PlanRecord => ['A', word]),
    ...command.env.map((entry): PlanRecord => ['E', entry]),
    ['W', command.cwd],
    ['U', `${command.uid}`, `${command.gid}`],
    ...command.groups.map((group): PlanRecord => ['V', `${group}`]),
    ['C', command.capabilities],
    ['P', command.noNewPrivileges ? '1' : '0'],
    ...(command.limits ?? []).map(
      ({ resource, soft, hard }): PlanRecord => ['R', `${resource}`, `${soft}`, `${hard}`],
    ),
  ];
}

function limitsOf(
  task: RuntimeTask,
  cgroups: CgroupPlan,
  descriptors: DescriptorLimits | undefined,
): LimitRecord[] {
  const limits = (task.container.ulimits ?? []).map(({ name, soft, hard }): LimitRecord => {
    const resource = rlimitOf(name);
    if (resource === undefined) throw rejected(`invalid ulimit type: ${name}`);
    if (hard !== -1 && (soft > hard || soft === -1)) {
      throw rejected(
        `ulimit soft limit must be less than or equal to hard limit: ${soft} > ${hard}`,
      );
    }
    return { resource, soft, hard };
  });
  if (descriptors !== undefined && limits.every(({ resource }) => resource !== RLIMIT_NOFILE)) {
    limits.push({ resource: RLIMIT_NOFILE, ...descriptors });
  }
  const memory = task.resources?.limits?.memoryBytes;
  if (memory !== undefined && cgroups.unheld.includes('limit-memory')) {
    // For each process alone, and only what it allocates; better than nothing.
    limits.push({ resource: RLIMIT_DATA, soft: memory, hard: memory });
  }
  return limits;
}

function checkPrivileges(privileges: ContainerSpec['privileges']): void {
  if (privileges === undefined) return;
  const seccomp =
    (privileges['Seccomp'] as { Mode?: string } | null | undefined)?.Mode ?? 'default';
  if (seccomp === 'custom') throw rejected('the host runtime has no seccomp profiles');
  const selinux = privileges['SELinuxContext'] as { Disable?: boolean } | null | undefined;
  if (selinux && selinux.Disable !== true) {
    throw rejected('the host runtime sets no SELinux context');
  }
  const credentials = privileges['CredentialSpec'];
  if (credentials) throw rejected('credential specs are for Windows');
}

const HOSTS = `127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
`;

/** `/etc/hosts` of a task. */
export function hostsTextOf(task: RuntimeTask, hostname: string): string {
  const own = task.hosts.map(
    ({ address, name }) => `${address}\t${name === '' ? hostname : name}\n`,
  );
  const extra = (task.container.hosts ?? []).map((line) => {
    const [address = '', ...names] = line.trim().split(/\s+/);
    if (!/^[0-9a-fA-F:.]+$/.test(address) || names.length === 0) {
      throw rejected(`invalid line for the hosts file: ${line}`);
    }
    return `${address}\t${names.join(' ')}\n`;
  });
  return HOSTS + [...extra, ...own].join('');
}

/** `/etc/resolv.conf` of a task; names of its networks are asked at 127.0.0.11. */
export function resolvConfOf(task: RuntimeTask, ofHost: string): string {
  const dns = task.container.dns ?? {};
  const hostLines = (word: string) =>
    ofHost.split('\n').filter((line) => line.startsWith(`${word} `));
  for (const text of [...(dns.nameservers ?? []), ...(dns.search ?? []), ...(dns.options ?? [])]) {
    if (!/^[^\s#;]+$/.test(text)) throw rejected(`invalid dns setting: ${text}`);
  }
  const servers =
    task.network === 'resolver'
      ? ['nameserver 127.0.0.11']
      : dns.nameservers?.length
        ? dns.nameservers.map((server) => `nameserver ${server}`)
        : hostLines('nameserver');
  const search = dns.search?.length
    ? [`search ${dns.search.join(' ')}`]
    : task.network === 'host'
      ? hostLines('search')
      : [];
  const options = [
    ...(dns.options ?? []),
    ...(task.network === 'resolver' && !dns.options?.some((o) => o.startsWith('ndots:'))
      ? ['ndots:0']
      : []),
  ];
  return `${[...servers, ...search, ...(options.length > 0 ? [`options ${options.join(' ')}`] : [])].join('\n')}\n`;
}
