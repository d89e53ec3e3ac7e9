import type { ContainerSpec, HealthConfig, Mount, Resources } from '../../../base/service-model.js';
import type { RuntimeTask } from '../../core/runtime.js';

/** Whose task a container runs, and on behalf of which agent: a host may have several. */
export const TASK_LABEL = 'com.docker.shoal.task';
export const OWNER_LABEL = 'com.docker.shoal.owner';
/** A sandbox and not a task's container; not shown to users. */
export const SANDBOX_LABEL = 'com.docker.shoal.sandbox';
/** Id and name of the swarm's own making, by which Docker's tools know a task. */
export const SWARM_TASK_LABEL = 'com.docker.swarm.task.id';

type Json = Readonly<Record<string, unknown>>;

/** A file of the host that a secret or config was written to, for one place in the container. */
export interface TaskFile {
  readonly source: string;
  readonly target: string;
}

const NS_PER_MS = 1e6;

/** Body of `POST /containers/create` for the task's own container. */
export function containerJson(
  task: RuntimeTask,
  owner: string,
  sandboxId: string | undefined,
  files: readonly TaskFile[],
): Json {
  const { container: spec, resources } = task;
  // What joins a sandbox takes hostname, hosts and resolver from it, and may not name its own.
  const isHost = sandboxId === undefined;
  return compact({
    Image: spec.image,
    Entrypoint: spec.command,
    Cmd: spec.args,
    Env: spec.env,
    WorkingDir: spec.dir,
    User: spec.user,
    Tty: spec.tty,
    OpenStdin: spec.openStdin,
    StopSignal: spec.stopSignal,
    Labels: { ...task.labels, [TASK_LABEL]: task.id, [OWNER_LABEL]: owner },
    Healthcheck: healthJson(spec.health),
    Hostname: isHost ? spec.hostname : undefined,
    HostConfig: compact({
      NetworkMode: isHost ? 'host' : `container:${sandboxId}`,
      ...(isHost ? namesJson(task) : {}),
      Sysctls: sysctls(spec, (name) => isHost || !isNetwork(name)),
      ...limitsJson(resources),
      Mounts: [...(spec.mounts ?? []).map(mountJson), ...files.map(fileJson)],
      GroupAdd: spec.groups,
      CapAdd: spec.capabilityAdd,
      CapDrop: spec.capabilityDrop,
      Init: spec.init,
      ReadonlyRootfs: spec.readOnly,
      Isolation: spec.isolation,
      OomScoreAdj: spec.oomScoreAdj,
      SecurityOpt: securityOptions(spec.privileges),
      Ulimits: spec.ulimits?.map(({ name, hard, soft }) => ({
        Name: name,
        Hard: hard,
        Soft: soft,
      })),
      LogConfig:
        task.logDriver === undefined
          ? undefined
          : { Type: task.logDriver.name, Config: task.logDriver.options ?? {} },
    }),
  });
}

/** Body for the sandbox: nothing but a namespace, and the files that go with a name. */
export function sandboxJson(task: RuntimeTask, owner: string, image: string): Json {
  return compact({
    Image: image,
    // Told apart by it in /proc, whatever else has the same number by now.
    Cmd: [task.id],
    Hostname: task.container.hostname,
    Labels: { [SANDBOX_LABEL]: task.id, [OWNER_LABEL]: owner },
    HostConfig: compact({
      NetworkMode: 'none',
      ...namesJson(task),
      Sysctls: sysctls(task.container, isNetwork),
      ReadonlyRootfs: true,
      CapDrop: ['ALL'],
      SecurityOpt: ['no-new-privileges'],
      LogConfig: { Type: 'none', Config: {} },
    }),
  });
}

/** `/etc/hosts` and `/etc/resolv.conf`. */
function namesJson({ container, network, hosts }: RuntimeTask): Json {
  const { dns } = container;
  const own = network === 'resolver' ? ['127.0.0.11'] : [];
  const servers = [...own, ...(dns?.nameservers ?? [])];
  const options = dns?.options ?? (network === 'resolver' ? ['ndots:0'] : undefined);
  return {
    Dns: servers.length === 0 ? undefined : servers,
    DnsSearch: dns?.search,
    DnsOptions: options,
    ExtraHosts: [
      // Its own host name is in the file already.
      ...hosts.flatMap(({ address, name }) => (name === '' ? [] : [`${name}:${address}`])),
      ...(container.hosts ?? []).flatMap(hostEntries),
    ],
  };
}

/** `10.0.0.5 db database`: one entry for each name. */
function hostEntries(line: string): string[] {
  const [address = '', ...names] = line.trim().split(/\s+/);
  return names.map((name) => `${name}:${address}`);
}

const isNetwork = (name: string) => name.startsWith('net.');

function sysctls(spec: ContainerSpec, wants: (name: string) => boolean): Json | undefined {
  const kept = Object.entries(spec.sysctls ?? {}).filter(([name]) => wants(name));
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

function limitsJson(resources: Resources | undefined): Json {
  const { limits, reservations } = resources ?? {};
  return {
    Memory: limits?.memoryBytes,
    NanoCpus: limits?.nanoCpus,
    PidsLimit: limits?.pids,
    MemoryReservation: reservations?.memoryBytes,
    MemorySwap: resources?.swapBytes,
    MemorySwappiness: resources?.memorySwappiness,
  };
}

function healthJson(health: HealthConfig | undefined): Json | undefined {
  if (health === undefined) return undefined;
  const ns = (ms: number | undefined) =>
    ms === undefined ? undefined : Math.round(ms * NS_PER_MS);
  return compact({
    Test: health.test,
    Interval: ns(health.intervalMs),
    Timeout: ns(health.timeoutMs),
    StartPeriod: ns(health.startPeriodMs),
    StartInterval: ns(health.startIntervalMs),
    Retries: health.retries,
  });
}

function mountJson(mount: Mount): Json {
  const { bind, volume, tmpfs } = mount;
  return compact({
    Type: mount.type,
    Source: mount.source,
    Target: mount.target,
    ReadOnly: mount.readOnly,
    Consistency: mount.consistency,
    BindOptions:
      bind &&
      compact({
        Propagation: bind.propagation,
        NonRecursive: bind.nonRecursive,
        CreateMountpoint: bind.createMountpoint,
        ReadOnlyNonRecursive: bind.readOnlyNonRecursive,
        ReadOnlyForceRecursive: bind.readOnlyForceRecursive,
      }),
    VolumeOptions:
      volume &&
      compact({
        NoCopy: volume.noCopy,
        Labels: volume.labels,
        Subpath: volume.subpath,
        DriverConfig:
          volume.driver && compact({ Name: volume.driver.name, Options: volume.driver.options }),
      }),
    TmpfsOptions:
      tmpfs && compact({ SizeBytes: tmpfs.sizeBytes, Mode: tmpfs.mode, Options: tmpfs.options }),
  });
}

const fileJson = ({ source, target }: TaskFile): Json => ({
  Type: 'bind',
  Source: source,
  Target: target,
  ReadOnly: true,
});

/** Docker's `Privileges` of a service, as the options of a container that they stand for. */
function securityOptions(privileges: ContainerSpec['privileges']): string[] | undefined {
  if (privileges === undefined) return undefined;
  const part = (name: string) => (privileges[name] ?? {}) as Readonly<Record<string, unknown>>;
  const options: string[] = [];
  const selinux = part('SELinuxContext');
  if (selinux['Disable'] === true) options.push('label=disable');
  for (const [key, name] of Object.entries({
    User: 'user',
    Role: 'role',
    Type: 'type',
    Level: 'level',
  }))
    if (typeof selinux[key] === 'string' && selinux[key] !== '')
      options.push(`label=${name}:${selinux[key]}`);
  const seccomp = part('Seccomp');
  if (seccomp['Mode'] === 'unconfined') options.push('seccomp=unconfined');
  if (seccomp['Mode'] === 'custom' && typeof seccomp['Profile'] === 'string')
    options.push(`seccomp=${Buffer.from(seccomp['Profile'], 'base64').toString()}`);
  if (part('AppArmor')['Mode'] === 'disabled') options.push('apparmor=unconfined');
  const credential = part('CredentialSpec');
  for (const [key, scheme] of Object.entries({ File: 'file', Registry: 'registry' }))
    if (typeof credential[key] === 'string' && credential[key] !== '')
      options.push(`credentialspec=${scheme}://${credential[key]}`);
  if (privileges['NoNewPrivileges'] === true) options.push('no-new-privileges=true');
  return options.length === 0 ? undefined : options;
}

/** Without what was not said: the engine would take null for a word. */
function compact(json: Json): Json {
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== undefined));
}
