import type { Mount } from '../../../base/service-model.js';
import type { RuntimeTask } from '../../core/runtime.js';
import { RuntimeError } from '../../core/runtime-error.js';
import type { PlanRecord } from '../wire/plan.js';
import { cleanPath, isBelow } from './paths.js';

/** What a task sees of the file system, as steps of its plan. */

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_BIND = 4096;
const MS_REC = 16_384;
const MS_PRIVATE = 1 << 18;
const MS_SLAVE = 1 << 19;
const QUIET = MS_NOSUID | MS_NODEV | MS_NOEXEC;

/** Mounts of one task. */
const MOUNTS_MAX = 128;
const SECRETS_FOLDER = '/run/secrets';

/** Not the shared ones: a task's mounts stay in the task. */
const PROPAGATION: Readonly<Record<string, number>> = {
  private: MS_PRIVATE,
  rprivate: MS_PRIVATE | MS_REC,
  slave: MS_SLAVE,
  rslave: MS_SLAVE | MS_REC,
};

/** What of `/proc` and `/sys` is hidden from a task, or not to be written by it: as in Docker. */
const MASKED_FILES: readonly string[] = [
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/sched_debug',
  '/proc/sysrq-trigger',
];
const MASKED_FOLDERS = ['/proc/acpi', '/proc/asound', '/proc/scsi'];
const READ_ONLY_FOLDERS = ['/proc/sys', '/proc/irq', '/proc/bus', '/proc/fs'];

/** Sockets through which names would be resolved by the host, past `resolv.conf`. */
const RESOLVER_SOCKETS = ['/run/nscd/socket', '/run/systemd/resolve/io.systemd.Resolve'];

/** Facts of this host and folders of this task. */
export interface ViewFacts {
  /** Of the task: `hosts`, `resolv.conf` and `hostname` are in it, `root` and `private` are empty folders. */
  readonly folder: string;
  /** Names in the root directory of the host. */
  readonly rootEntries: ReadonlySet<string>;
  /** Folder of a named volume, made already. */
  readonly volumeFolder: (mount: Mount) => string;
}

export function rejected(message: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_REJECTED' }, message);
}

/** Collects the steps of one task: sources are opened first, under the names that the host has. */
class ViewPlan {
  readonly #sources: PlanRecord[] = [];
  readonly #steps: PlanRecord[] = [];
  /** Targets of the user's mounts: below them, mount points are made for real. */
  readonly #targets: string[] = [];
  #count = 0;

  records(before: readonly PlanRecord[]): readonly PlanRecord[] {
    return [...before, ...this.#sources, ...this.#steps];
  }

  step(...record: PlanRecord): void {
    this.#steps.push(record);
  }

  /** @param kind `d`, `f`, or as a source is: `@N`. */
  mountPoint(target: string, kind: string): void {
    const isInside = this.#targets.some((known) => isBelow(target, known));
    this.step(isInside ? 'k' : 'p', target, kind);
  }

  addTarget(target: string): void {
    this.#targets.push(target);
  }

  /** @returns How a mount names this source. It is held before anything is mounted. */
  source(path: string, isRecursive: boolean): string {
    const index = this.#count++;
    this.#sources.push(['o', `${index}`, path, isRecursive ? '1' : '0']);
    return `@${index}`;
  }

  /** As `source`, for what the steps so far have made. */
  lateSource(path: string): string {
    const index = this.#count++;
    this.step('o', `${index}`, path, '0');
    return `@${index}`;
  }

  /** A file of the task's folder in place of one of the host. */
  bindFile(path: string, target: string): void {
    const source = this.source(path, false);
    this.mountPoint(target, 'f');
    this.step('m', target, source, '', `${MS_BIND}`, '');
  }
}

/** The steps that make the task's view, in order. */
export function viewPlanOf(task: RuntimeTask, facts: ViewFacts): readonly PlanRecord[] {
  const { container } = task;
  const plan = new ViewPlan();
  const mounts = [...(container.mounts ?? [])]
    .map((mount) => ({ ...mount, target: targetOf(mount) }))
    .sort((a, b) => a.target.split('/').length - b.target.split('/').length);
  if (mounts.length > MOUNTS_MAX) throw rejected(`a task has at most ${MOUNTS_MAX} mounts`);
  const files = filesOf(task);

  // Whatever the host mounts or unmounts later is seen; nothing that the task mounts gets out.
  const before: PlanRecord[] = [
    ['m', '/', 'none', '', `${MS_REC | MS_SLAVE}`, ''],
    ['x', 'nsfs'],
  ];
  const targets = [...mounts.map((m) => m.target), ...files.map((f) => f.target)];
  if (targets.some((target) => !facts.rootEntries.has(target.split('/')[1] ?? ''))) {
    before.push(['q', `${facts.folder}/root`]);
  }
  if (container.readOnly === true) plan.step('a', '/', '1', `${MS_RDONLY}`);
  kernelFiles(plan, task);
  plan.bindFile(`${facts.folder}/hosts`, '/etc/hosts');
  plan.bindFile(`${facts.folder}/hostname`, '/etc/hostname');
  if (task.network !== 'host' || container.dns !== undefined) {
    plan.bindFile(`${facts.folder}/resolv.conf`, '/etc/resolv.conf');
    for (const socket of RESOLVER_SOCKETS)
      plan.step('m', socket, '/dev/null', '', `${MS_BIND}`, '', 'optional');
  }
  const showFiles = writeFiles(plan, files, `${facts.folder}/private`);
  for (const mount of mounts) userMount(plan, mount, facts);
  showFiles();
  sysctls(plan, task);
  if (container.readOnly === true) plan.step('z', 'made mount points');
  processFiles(plan);
  return plan.records(before);
}

function kernelFiles(plan: ViewPlan, task: RuntimeTask): void {
  if (task.network !== 'host') plan.step('u', 'lo');
  // A new one, since it shows the links of the network namespace in which it was mounted.
  if (task.network !== 'host') {
    plan.step('m', '/sys', 'sysfs', 'sysfs', `${QUIET | MS_RDONLY}`, '', 'optional');
  } else {
    plan.step('a', '/sys', '1', `${MS_RDONLY}`, 'optional');
  }
  maskFolder(plan, '/sys/firmware');
  plan.step('m', '/dev/shm', 'shm', 'tmpfs', `${QUIET}`, 'mode=1777,size=64m', 'optional');
  plan.step('m', '/dev/mqueue', 'mqueue', 'mqueue', `${QUIET}`, '', 'optional');
}

/** `/proc` shows the processes of one run: all of it is made anew for each. */
function processFiles(plan: ViewPlan): void {
  plan.step('y', 'each run');
  plan.step('m', '/proc', 'proc', 'proc', `${QUIET}`, '');
  for (const path of MASKED_FILES)
    plan.step('m', path, '/dev/null', '', `${MS_BIND}`, '', 'optional');
  for (const path of MASKED_FOLDERS) maskFolder(plan, path);
  for (const path of READ_ONLY_FOLDERS) {
    plan.step('m', path, path, '', `${MS_BIND | MS_REC}`, '', 'optional');
    plan.step('a', path, '1', `${MS_RDONLY}`, 'optional');
  }
}

function maskFolder(plan: ViewPlan, path: string): void {
  plan.step('m', path, 'shoal', 'tmpfs', `${MS_RDONLY}`, 'size=0', 'optional');
}

function targetOf(mount: Mount): string {
  const target = cleanPath(mount.target);
  if (!mount.target.startsWith('/')) {
    throw rejected(`invalid mount target, must be an absolute path: ${mount.target}`);
  }
  if (target === '/') throw rejected(`invalid mount target: it cannot be the root directory`);
  return target;
}

function userMount(plan: ViewPlan, mount: Mount, facts: ViewFacts): void {
  const { target } = mount;
  switch (mount.type) {
    case 'bind': {
      if (!mount.source?.startsWith('/')) {
        throw rejected(
          `invalid bind mount source, must be an absolute path: ${mount.source ?? ''}`,
        );
      }
      bind(plan, mount, cleanPath(mount.source), mount.bind?.nonRecursive !== true);
      break;
    }
    case 'volume':
      bind(plan, mount, facts.volumeFolder(mount), false);
      break;
    case 'tmpfs': {
      const { sizeBytes, mode } = mount.tmpfs ?? {};
      const options = [
        `mode=${(mode ?? 0o1777).toString(8)}`,
        ...(sizeBytes === undefined ? [] : [`size=${sizeBytes}`]),
      ];
      const flags = (mount.readOnly === true ? MS_RDONLY : 0) | tmpfsFlags(mount);
      plan.mountPoint(target, 'd');
      plan.step('m', target, 'tmpfs', 'tmpfs', `${flags}`, options.join(','));
      break;
    }
    default:
      throw rejected(`mounts of the type ${mount.type} need an engine: the host runtime has none`);
  }
  plan.addTarget(target);
}

function tmpfsFlags(mount: Mount): number {
  const words = new Set((mount.tmpfs?.options ?? []).map(([word]) => word));
  const known = new Set(['exec', 'noexec', 'suid', 'nosuid', 'dev', 'nodev']);
  const unknown = [...words].find((word) => word === undefined || !known.has(word));
  if (unknown !== undefined) throw rejected(`invalid tmpfs option: ${unknown}`);
  return (
    (words.has('exec') ? 0 : MS_NOEXEC) |
    (words.has('suid') ? 0 : MS_NOSUID) |
    (words.has('dev') ? 0 : MS_NODEV)
  );
}

function bind(plan: ViewPlan, mount: Mount, path: string, isRecursive: boolean): void {
  const source = plan.source(path, isRecursive);
  const recursion = isRecursive ? MS_REC : 0;
  plan.mountPoint(mount.target, source);
  plan.step('m', mount.target, source, '', `${MS_BIND | recursion}`, '');
  const wanted = mount.bind?.propagation ?? '';
  const propagation = wanted === '' ? MS_PRIVATE | MS_REC : PROPAGATION[wanted];
  if (propagation === undefined) {
    throw rejected(
      `the host runtime has no propagation mode ${wanted}: use private, slave or rslave`,
    );
  }
  plan.step('m', mount.target, 'none', '', `${propagation}`, '');
  if (mount.readOnly === true) {
    const isDeep = isRecursive && mount.bind?.readOnlyNonRecursive !== true;
    plan.step('a', mount.target, isDeep ? '1' : '0', `${MS_RDONLY}`);
  }
}

/** A secret or config as a file of the task. */
interface TaskFile {
  readonly target: string;
  readonly uid: string;
  readonly gid: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

function filesOf(task: RuntimeTask): readonly TaskFile[] {
  const files: TaskFile[] = [];
  for (const { file, secretId, secretName } of task.container.secrets ?? []) {
    const data = task.secrets.get(secretId);
    if (data === undefined) throw failed(`the contents of the secret ${secretName} are not here`);
    if (file === undefined) continue;
    const target = file.name.startsWith('/') ? file.name : `${SECRETS_FOLDER}/${file.name}`;
    files.push({ ...file, target: cleanPath(target), data });
  }
  for (const { file, configId, configName, runtime } of task.container.configs ?? []) {
    if (runtime === true || file === undefined) continue;
    const data = task.configs.get(configId);
    if (data === undefined) throw failed(`the contents of the config ${configName} are not here`);
    files.push({ ...file, target: cleanPath(`/${file.name}`), data });
  }
  for (const { target, uid, gid } of files) {
    if (target === '/') throw rejected('a secret or config cannot take the place of the root');
    if (!/^\d+$/.test(uid) || !/^\d+$/.test(gid)) {
      throw rejected(`owner of ${target}: uid and gid are numbers`);
    }
  }
  return files;
}

function failed(message: string): RuntimeError {
  return new RuntimeError({ code: 'RUNTIME_FAILED' }, message);
}

/**
 * All contents go into one file system in memory, whose files are then shown where they belong.
 *
 * @returns What shows them, when the user's mounts are made.
 */
function writeFiles(plan: ViewPlan, files: readonly TaskFile[], folder: string): () => void {
  if (files.length === 0) return () => {};
  plan.step('m', folder, 'shoal', 'tmpfs', `${QUIET}`, 'mode=700');
  const sources = files.map(({ uid, gid, mode, data }, i) => {
    plan.step('f', `${folder}/${i}`, (mode & 0o7777).toString(8), uid, gid, data);
    return plan.lateSource(`${folder}/${i}`);
  });
  return () => {
    files.forEach(({ target }, i) => {
      plan.mountPoint(target, 'f');
      plan.step('m', target, sources[i] ?? '', '', `${MS_BIND}`, '');
      plan.step('a', target, '0', `${MS_RDONLY}`);
    });
  };
}

/** Those that belong to namespaces of the task; all others would change the host. */
const IPC_SYSCTLS = new Set([
  'kernel.msgmax',
  'kernel.msgmnb',
  'kernel.msgmni',
  'kernel.sem',
  'kernel.shmall',
  'kernel.shmmax',
  'kernel.shmmni',
  'kernel.shm_rmid_forced',
]);

function sysctls(plan: ViewPlan, task: RuntimeTask): void {
  if (task.network !== 'host') {
    // As in Docker: who is in a namespace of his own needs no privilege for a port or a ping.
    plan.step('w', '/proc/sys/net/ipv4/ip_unprivileged_port_start', '0', 'optional');
    plan.step('w', '/proc/sys/net/ipv4/ping_group_range', '0 2147483647', 'optional');
  }
  for (const [name, value] of Object.entries(task.container.sysctls ?? {})) {
    const isNet = name.startsWith('net.');
    if (!isNet && !IPC_SYSCTLS.has(name) && !name.startsWith('fs.mqueue.')) {
      throw rejected(`sysctl "${name}" is not in a separate kernel namespace`);
    }
    if (isNet && task.network === 'host') {
      throw rejected(`sysctl "${name}" not allowed in host network namespace`);
    }
    if (!/^[\w.\-/*]+$/.test(name) || name.includes('..'))
      throw rejected(`invalid sysctl: ${name}`);
    // A slash in a name stands for a dot, as in `net/ipv4/conf/eth0.100`.
    const path = name.includes('/') ? name : name.replaceAll('.', '/');
    plan.step('w', `/proc/sys/${path}`, value);
  }
}
