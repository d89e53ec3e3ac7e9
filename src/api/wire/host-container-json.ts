import type { HostContainer, HostStats, HostTop } from './host-records.js';
import { formatTimeMs, TIME_ZERO } from './time.js';

const STATUS = { prepared: 'created', running: 'running', exited: 'exited' } as const;

/** `3 minutes`: as Docker's own list says it. */
export function spanText(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const steps = [
    { unit: 'second', size: 1, until: 60 },
    { unit: 'minute', size: 60, until: 3_600 },
    { unit: 'hour', size: 3_600, until: 48 * 3_600 },
    { unit: 'day', size: 86_400, until: 14 * 86_400 },
    { unit: 'week', size: 7 * 86_400, until: 60 * 86_400 },
    { unit: 'month', size: 30 * 86_400, until: 730 * 86_400 },
  ] as const;
  if (seconds < 1) return 'Less than a second';
  const step = steps.find(({ until }) => seconds < until);
  const count = Math.floor(seconds / (step?.size ?? 365 * 86_400));
  const unit = step?.unit ?? 'year';
  if (count === 1 && unit === 'minute') return 'About a minute';
  if (count === 1 && unit === 'hour') return 'About an hour';
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}

function statusText(container: HostContainer, nowMs: number): string {
  const { state, startedAtMs, exitCode = 0, health } = container;
  if (state === 'prepared') return 'Created';
  const since = spanText(Math.max(0, nowMs - (startedAtMs ?? nowMs)));
  if (state === 'exited') return `Exited (${exitCode}) ${since} ago`;
  return health === 'none'
    ? `Up ${since}`
    : `Up ${since} (${health === 'starting' ? 'health: starting' : health})`;
}

/** One of `GET /containers/json`. */
export function hostContainerJson(container: HostContainer, nowMs: number) {
  const { id, name, image, command, createdAtMs, labels, state } = container;
  return {
    Id: id,
    Names: [`/${name}`],
    Image: image,
    // Equal to the name it would be taken for one that is nothing but its id.
    ImageID: '',
    Command: command.join(' '),
    Created: Math.floor(createdAtMs / 1000),
    Ports: [],
    Labels: labels,
    State: STATUS[state],
    Status: statusText(container, nowMs),
    HostConfig: { NetworkMode: 'default' },
    NetworkSettings: { Networks: {} },
    Mounts: [],
  };
}

/** `GET /containers/{id}/json`. */
export function hostInspectJson(container: HostContainer) {
  const { id, name, image, command, env, labels, state, pid, createdAtMs, startedAtMs } = container;
  return {
    Id: id,
    Created: formatTimeMs(createdAtMs),
    Path: command[0] ?? '',
    Args: command.slice(1),
    State: {
      Status: STATUS[state],
      Running: state === 'running',
      Paused: false,
      Restarting: false,
      OOMKilled: container.oomKilled ?? false,
      Dead: false,
      Pid: pid,
      ExitCode: container.exitCode ?? 0,
      Error: container.error ?? '',
      StartedAt: startedAtMs === undefined ? TIME_ZERO : formatTimeMs(startedAtMs),
      FinishedAt: TIME_ZERO,
      ...(container.health === 'none'
        ? {}
        : { Health: { Status: container.health, FailingStreak: 0, Log: [] } }),
    },
    Image: image,
    Name: `/${name}`,
    RestartCount: 0,
    Driver: '',
    Platform: 'linux',
    MountLabel: '',
    ProcessLabel: '',
    AppArmorProfile: '',
    ExecIDs: null,
    HostConfig: { NetworkMode: 'default', LogConfig: { Type: 'shoal', Config: {} } },
    GraphDriver: { Data: null, Name: '' },
    Mounts: [],
    Config: {
      Hostname: '',
      Tty: container.tty,
      OpenStdin: false,
      AttachStdin: false,
      AttachStdout: false,
      AttachStderr: false,
      Env: env,
      Cmd: command,
      Image: image,
      Labels: labels,
    },
    NetworkSettings: { Networks: {} },
  };
}

/** Without counters of before: the CLI shows zero where it cannot take a difference. */
export function hostStatsJson(
  { id, name }: Pick<HostContainer, 'id' | 'name'>,
  stats: HostStats,
  before: HostStats | undefined,
  cpuCount: number,
) {
  const cpu = (of: HostStats | undefined) => ({
    cpu_usage: {
      total_usage: Number(of?.cpuNs ?? 0n),
      usage_in_kernelmode: Number(of?.cpuSystemNs ?? 0n),
      usage_in_usermode: Number((of?.cpuNs ?? 0n) - (of?.cpuSystemNs ?? 0n)),
    },
    // Of all processors together, as the kernel's own count goes on with the clock.
    system_cpu_usage: of === undefined ? 0 : Math.round(of.atMs * 1e6 * cpuCount),
    online_cpus: cpuCount,
    throttling_data: { periods: 0, throttled_periods: 0, throttled_time: 0 },
  });
  return {
    read: formatTimeMs(stats.atMs),
    preread: before === undefined ? TIME_ZERO : formatTimeMs(before.atMs),
    pids_stats: {
      current: stats.pids ?? 0,
      ...(stats.pidsLimit === undefined ? {} : { limit: stats.pidsLimit }),
    },
    blkio_stats: {},
    num_procs: 0,
    storage_stats: {},
    cpu_stats: cpu(stats),
    precpu_stats: cpu(before),
    memory_stats: {
      usage: stats.memoryBytes ?? 0,
      max_usage: stats.memoryMaxBytes ?? 0,
      stats: {},
      limit: stats.memoryLimitBytes ?? 0,
    },
    name: `/${name}`,
    id,
    networks: {},
  };
}

const pad = (value: number) => String(value).padStart(2, '0');

/** `GET /containers/{id}/top`, as `ps -ef` titles it. */
export function hostTopJson(processes: readonly HostTop[]) {
  return {
    Titles: ['UID', 'PID', 'PPID', 'C', 'STIME', 'TTY', 'TIME', 'CMD'],
    Processes: processes.map((one) => {
      const seconds = Math.floor(one.cpuMs / 1000);
      const time = `${pad(Math.floor(seconds / 3600))}:${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}`;
      return [
        String(one.uid),
        String(one.pid),
        String(one.parentPid),
        '0',
        formatTimeMs(one.startedAtMs).slice(11, 16),
        one.tty,
        time,
        one.command,
      ];
    }),
  };
}
