import type { TaskProcess, TaskStats } from '../../core/runtime.js';
import type { CgroupLayout } from './cgroups.js';

/** Above it, a limit of the old hierarchy means that there is none. */
const UNLIMITED = 2 ** 62;

/** @param read A file of the task's group in the hierarchy of a controller; `undefined` if it is not there. */
export function usageOf(
  layout: CgroupLayout,
  read: (controller: string, file: string) => string | undefined,
): Omit<TaskStats, 'atMs'> {
  const isNew = layout.version === 2;
  const number = (controller: string, file: string) => limitOf(read(controller, file));
  const field = (controller: string, file: string, key: string) => {
    const match = new RegExp(`^${key} (\\d+)$`, 'm').exec(read(controller, file) ?? '');
    return match === null ? undefined : Number(match[1]);
  };
  const nanoseconds = (value: number | undefined, factor: number) =>
    value === undefined ? undefined : BigInt(Math.round(value)) * BigInt(factor);

  const used = number('memory', isNew ? 'memory.current' : 'memory.usage_in_bytes');
  // What is only cached of files can be had back at any time: as Docker counts.
  const inactive = field('memory', 'memory.stat', isNew ? 'inactive_file' : 'total_inactive_file');
  return compact({
    cpuNs: isNew
      ? nanoseconds(field('cpu', 'cpu.stat', 'usage_usec'), 1000)
      : nanoseconds(number('cpuacct', 'cpuacct.usage'), 1),
    cpuSystemNs: isNew
      ? nanoseconds(field('cpu', 'cpu.stat', 'system_usec'), 1000)
      : nanoseconds(number('cpuacct', 'cpuacct.usage_sys'), 1),
    memoryBytes: used === undefined ? undefined : Math.max(0, used - (inactive ?? 0)),
    memoryMaxBytes: number('memory', isNew ? 'memory.peak' : 'memory.max_usage_in_bytes'),
    memoryLimitBytes: number('memory', isNew ? 'memory.max' : 'memory.limit_in_bytes'),
    pids: number('pids', 'pids.current'),
    pidsLimit: number('pids', 'pids.max'),
  });
}

function limitOf(text: string | undefined): number | undefined {
  if (text === undefined || !/^\d+\s*$/.test(text)) return undefined;
  const value = Number(text);
  return value >= UNLIMITED ? undefined : value;
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function compact<T extends object>(fields: T): Defined<T> {
  const entries = Object.entries(fields).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Defined<T>;
}

/** What `/proc/PID` says of a process; `undefined` if that is not whole, since it has ended. */
export function processOf(
  pid: number,
  files: { readonly stat: string; readonly status: string; readonly cmdline: string },
  clock: { readonly bootMs: number; readonly ticksPerSecond: number },
): TaskProcess | undefined {
  const name = /\((.*)\)/s.exec(files.stat)?.[1];
  const fields = files.stat.slice(files.stat.lastIndexOf(')') + 2).split(' ');
  const uid = /^Uid:\s+(\d+)/m.exec(files.status)?.[1];
  const [, parent, , , terminal] = fields;
  if (name === undefined || uid === undefined || fields.length < 20) return undefined;
  const tickMs = 1000 / clock.ticksPerSecond;
  const words = files.cmdline.split('\0').filter((word) => word !== '');
  return {
    pid,
    parentPid: Number(parent),
    uid: Number(uid),
    startedAtMs: clock.bootMs + Number(fields[19]) * tickMs,
    cpuMs: (Number(fields[11]) + Number(fields[12])) * tickMs,
    tty: ttyOf(Number(terminal)),
    command: words.length === 0 ? `[${name}]` : words.join(' '),
  };
}

/** `pts/3`, from the number of a terminal's device. */
function ttyOf(device: number): string {
  const major = (device >> 8) & 0xfff;
  const minor = (device & 0xff) | ((device >> 12) & 0xfff00);
  if (major >= 136 && major <= 143) return `pts/${(major - 136) * 256 + minor}`;
  return device === 0 ? '?' : `tty${minor}`;
}
