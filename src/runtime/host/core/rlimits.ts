/** Numbers of `setrlimit`, linux/resource.h (generic; the same on x86 and arm). */
const RESOURCES: Readonly<Record<string, number>> = {
  cpu: 0,
  fsize: 1,
  data: 2,
  stack: 3,
  core: 4,
  rss: 5,
  nproc: 6,
  nofile: 7,
  memlock: 8,
  as: 9,
  locks: 10,
  sigpending: 11,
  msgqueue: 12,
  nice: 13,
  rtprio: 14,
  rttime: 15,
};

export const RLIMIT_DATA = 2;
export const RLIMIT_NOFILE = 7;

/** The number of a limit by the name that `--ulimit` uses. */
export function rlimitOf(name: string): number | undefined {
  return Object.hasOwn(RESOURCES, name) ? RESOURCES[name] : undefined;
}
