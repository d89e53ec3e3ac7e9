import { closeSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { AssertionFailed, assert } from '../../base/assert.js';
import {
  calls,
  check,
  isErrno,
  O_CLOEXEC,
  O_RDONLY,
  openTcpListener,
  openTcpSocket,
  openUdpSocket,
  SysError,
} from './sys.js';

const CLONE_NEWNET = 0x4000_0000;
/** `statfs` type of namespace files, `NSFS_MAGIC` of the kernel's magic.h. */
const NSFS_MAGIC = 0x6e73_6673;

/** Where `ip netns add` keeps the namespaces that have a name. */
export const NETNS_FOLDER = '/run/netns';

/** The namespace file of a process. It names the namespace only as long as the process lives. */
export function netnsPathOfPid(pid: number): string {
  return `/proc/${pid}/ns/net`;
}

/** A path as users write it: a bare name means the one that `ip netns` knows. */
export function netnsPathOf(pathOrName: string): string {
  return pathOrName.includes('/') ? pathOrName : `${NETNS_FOLDER}/${pathOrName}`;
}

function notFound(path: string): SysError {
  const pid = /^\/proc\/(\d+)\/ns\/net$/.exec(path)?.[1];
  const what = pid === undefined ? `network namespace ${path}` : `process ${pid}`;
  return new SysError({ code: 'NETNS_NOT_FOUND', path }, `${what} does not exist`);
}

/**
 * What tells one namespace from another, whatever path it is reached by: device and inode of its
 * file. The same after a restart of the agent; after the namespace is gone its inode may be given to a new one,
 * so compare it together with something of the attachment itself (the TAP's name and MAC).
 *
 * @throws SysError NETNS_NOT_FOUND, NETNS_INVALID.
 */
export function netnsIdentity(path: string): string {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    // `ip netns add` leaves an ordinary file behind when the machine restarts.
    if (statfsSync(path).type !== NSFS_MAGIC) throw invalid(path);
    return `${dev}:${ino}`;
  } catch (error) {
    if (error instanceof SysError) throw error;
    throw notFound(path);
  }
}

function invalid(path: string): SysError {
  const message = `${path} is not a network namespace`;
  return new SysError({ code: 'NETNS_INVALID', path }, message);
}

function openNetns(path: string): number {
  try {
    return check(calls().open(path, O_RDONLY | O_CLOEXEC), `open ${path}`);
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ESRCH')) throw notFound(path);
    throw error;
  }
}

/**
 * Runs `work` with the calling thread in the namespace at `path`, and always comes back.
 *
 * `work` must be synchronous: at an `await` other code of this thread would run in the wrong
 * namespace. Sockets and TAPs opened inside stay in it afterwards. Other threads are not affected.
 *
 * @throws SysError NETNS_NOT_FOUND, NETNS_INVALID, and whatever `work` throws.
 */
export function inNetns<Result>(path: string, work: () => Result): Result {
  // Not /proc/self, which is the main thread's.
  const home = openNetns('/proc/thread-self/ns/net');
  try {
    const target = openNetns(path);
    try {
      check(calls().setns(target, CLONE_NEWNET), 'setns');
    } catch (error) {
      if (isErrno(error, 'EINVAL')) throw invalid(path);
      throw error;
    } finally {
      closeSync(target);
    }
    try {
      const result = work();
      assert(!(result instanceof Promise), 'work in a namespace is synchronous');
      return result;
    } finally {
      comeBack(home);
    }
  } finally {
    closeSync(home);
  }
}

/** A thread that stays in a foreign namespace would do everything else there: nothing is safe then. */
function comeBack(home: number): void {
  if (calls().setns(home, CLONE_NEWNET) !== 0) {
    throw new AssertionFailed('the thread cannot return to its own network namespace');
  }
}

/** `work` in the namespace at `path`, or here if that is `undefined`. */
export function inNetnsOrHere<Result>(path: string | undefined, work: () => Result): Result {
  return path === undefined ? work() : inNetns(path, work);
}

/**
 * A UDP socket bound in a namespace, for `dgram`'s `bind({ fd })`, which then owns it.
 *
 * @param path `undefined` is the caller's own namespace.
 * @throws SysError NETNS_NOT_FOUND, NETNS_INVALID, SYS_CALL_FAILED (`EADDRINUSE`; `EADDRNOTAVAIL` if
 *   the address is not there).
 */
export function openUdpInNetns(path: string | undefined, address: string, port: number): number {
  return inNetnsOrHere(path, () => openUdpSocket(address, port));
}

/** A listening TCP socket in a namespace, for `net`'s `listen({ fd })`; as `openUdpInNetns`. */
export function openTcpListenerInNetns(
  path: string | undefined,
  address: string,
  port: number,
): number {
  return inNetnsOrHere(path, () => openTcpListener(address, port));
}

/** A TCP socket that will connect to `address` from inside a namespace; as `openUdpInNetns`. */
export function openTcpClientInNetns(path: string | undefined, address: string): number {
  return inNetnsOrHere(path, () => openTcpSocket(address));
}

/** Names of all links in a namespace, up or down. */
export function linkNames(path: string | undefined): readonly string[] {
  const text = inNetnsOrHere(path, () => readFileSync('/proc/thread-self/net/dev', 'utf8'));
  return [...text.matchAll(/^\s*([^\s:|]+):/gm)].map((match) => match[1] ?? '');
}

/** `st` of a TCP socket that listens, and of a UDP socket that is bound and not connected. */
const LISTENS = { tcp: '0A', udp: '07' } as const;

/**
 * Ports of a namespace at which somebody takes connections or datagrams from outside.
 *
 * @throws SysError NETNS_NOT_FOUND, NETNS_INVALID.
 */
export function listeningPorts(path: string, protocol: 'tcp' | 'udp'): ReadonlySet<number> {
  const tables = inNetns(path, () =>
    [protocol, `${protocol}6`].map((name) =>
      readFileSync(`/proc/thread-self/net/${name}`, 'latin1'),
    ),
  );
  return portsThatListen(tables.join(''), LISTENS[protocol]);
}

/** Of tables as `/proc/net/tcp` has them: local address and port in hex, state in the fourth column. */
export function portsThatListen(table: string, state: string): ReadonlySet<number> {
  const ports = new Set<number>();
  for (const [, address = '', port = '', st] of table.matchAll(
    /^ *\d+: ([0-9A-F]{8,32}):([0-9A-F]{4}) \S+ ([0-9A-F]{2}) /gm,
  ))
    if (st === state && !isLoopback(address)) ports.add(Number.parseInt(port, 16));
  return ports;
}

/** Words of the address are as the machine keeps them. */
function isLoopback(address: string): boolean {
  return /^(?:[0-9A-F]{6}7F|7F[0-9A-F]{6}|0{24}(?:01000000|00000001))$/.test(address);
}

/** Links that one namespace may hold before no free name is looked for. */
const LINKS_MAX = 4096;

/** The first free name of the form `eth0`, `eth1`, … in a namespace. */
export function freeLinkName(path: string | undefined, stem = 'eth'): string {
  const taken = new Set(linkNames(path));
  for (let i = 0; i < LINKS_MAX; i++) {
    if (!taken.has(`${stem}${i}`)) return `${stem}${i}`;
  }
  throw new SysError(
    { code: 'LINK_CHANGE_FAILED', output: '' },
    `no free link name ${stem}N in the namespace`,
  );
}
