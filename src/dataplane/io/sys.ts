import { closeSync, writeSync } from 'node:fs';
import { isIPv4, isIPv6 } from 'node:net';
import { constants } from 'node:os';
import ipaddr from 'ipaddr.js';
import koffi from 'koffi';
import { assert } from '../../base/assert.js';
import { AgentError } from '../../base/error.js';

export type SysErrorDetail =
  /** A system call failed; `errno` is the name (`EBUSY`), or the number as text if it has none. */
  | { readonly code: 'SYS_CALL_FAILED'; readonly call: string; readonly errno: string }
  /** There is no such network namespace (any more). */
  | { readonly code: 'NETNS_NOT_FOUND'; readonly path: string }
  /** The path exists and is not a network namespace. */
  | { readonly code: 'NETNS_INVALID'; readonly path: string }
  /** A link change was refused; `output` is what iproute2 said. */
  | { readonly code: 'LINK_CHANGE_FAILED'; readonly output: string };

/** A refusal of the operating system. */
export class SysError extends AgentError<SysErrorDetail> {}

const ERRNO_NAMES = new Map(
  Object.entries(constants.errno).map(([name, number]) => [number, name] as const),
);

/**
 * The calls as declared to the FFI. `null` is the process itself, whose libc (glibc or musl) is
 * already loaded; so no library name has to be guessed. `ioctl` is variadic in C, and on every
 * Linux ABI that Node runs on a variadic integer or pointer travels like a named one.
 */
function loadCalls() {
  const libc = koffi.load(null);
  return {
    open: libc.func('open', 'int', ['str', 'int']),
    setns: libc.func('setns', 'int', ['int', 'int']),
    ioctlPointer: libc.func('ioctl', 'int', ['int', 'ulong', 'void *']),
    ioctlValue: libc.func('ioctl', 'int', ['int', 'ulong', 'long']),
    socket: libc.func('socket', 'int', ['int', 'int', 'int']),
    setsockopt: libc.func('setsockopt', 'int', ['int', 'int', 'int', 'void *', 'uint']),
    bind: libc.func('bind', 'int', ['int', 'void *', 'uint']),
    listen: libc.func('listen', 'int', ['int', 'int']),
    eventfd: libc.func('eventfd', 'int', ['uint', 'int']),
  };
}

type Calls = ReturnType<typeof loadCalls>;

let loaded: Calls | undefined;

/** Loaded on first use: commands that need no system call start without it. */
export function calls(): Calls {
  loaded ??= loadCalls();
  return loaded;
}

/** Returns `result`, or throws the `errno` of `call` if it is -1. Must follow the call at once. */
export function check(result: number, call: string): number {
  if (result !== -1) return result;
  const number = koffi.errno();
  const errno = ERRNO_NAMES.get(number) ?? String(number);
  throw new SysError({ code: 'SYS_CALL_FAILED', call, errno }, `${call}: ${errno}`);
}

/** Whether `error` is a failed system call with this `errno` name. */
export function isErrno(error: unknown, errno: string): boolean {
  return (
    error instanceof SysError &&
    error.detail.code === 'SYS_CALL_FAILED' &&
    error.detail.errno === errno
  );
}

export const O_RDONLY = 0;
export const O_RDWR = 2;
export const O_NONBLOCK = 0o4000;
export const O_CLOEXEC = 0o2000000;

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = O_NONBLOCK;
const SOCK_CLOEXEC = O_CLOEXEC;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IP = 0;
const IP_TRANSPARENT = 19;
const IP_BIND_ADDRESS_NO_PORT = 24;
const IPV6_TRANSPARENT = 75;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const EFD_NONBLOCK = O_NONBLOCK;
const EFD_CLOEXEC = O_CLOEXEC;

// linux/sockios.h and linux/if.h
const SIOCGIFFLAGS = 0x8913;
const SIOCSIFFLAGS = 0x8914;
const IFF_UP = 1;
/** Bytes of an interface name with its end. */
export const IFNAMSIZ = 16;
/** Bytes of `struct ifreq`: the name, then a union of which only the flags are used here. */
const IFREQ_BYTES = 40;

/** A `struct ifreq`; the flags behind the name are in host byte order. */
export function encodeIfreq(name: string, flags = 0): Buffer {
  assert(Buffer.byteLength(name) < IFNAMSIZ, 'the interface name fits ifreq');
  const ifreq = Buffer.alloc(IFREQ_BYTES);
  ifreq.write(name, 0);
  ifreq.set(new Uint8Array(Uint16Array.of(flags).buffer), IFNAMSIZ);
  return ifreq;
}

/** Connections that may wait to be accepted. */
const LISTEN_BACKLOG = 64;

/** `struct sockaddr_in` or `sockaddr_in6`; only the family is in host byte order. */
function encodeSocketAddress(address: string, port: number): Buffer {
  const bytes = ipaddr.parse(address).toByteArray();
  const target = Buffer.alloc(isIPv4(address) ? 16 : 28);
  const family = isIPv4(address) ? AF_INET : AF_INET6;
  new DataView(target.buffer, target.byteOffset).setUint16(0, family, isLittleEndian);
  target.writeUInt16BE(port, 2);
  target.set(bytes, isIPv4(address) ? 4 : 8);
  return target;
}

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** An `int` as C sees it, for calls that read one through a pointer. */
export function int32(value: number): Int32Array {
  return Int32Array.of(value);
}

function openBoundSocket(type: number, address: string, port: number): number {
  assert(isIPv4(address) || isIPv6(address), 'the address is a literal');
  const c = calls();
  const family = isIPv4(address) ? AF_INET : AF_INET6;
  const fd = check(c.socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
  try {
    // A restarted agent takes its port back while old connections linger, and a server of the
    // namespace's own that also sets this may bind the wildcard address beside a UDP socket of ours.
    check(c.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, int32(1), 4), 'setsockopt SO_REUSEADDR');
    if (family === AF_INET6) {
      check(c.setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, int32(1), 4), 'setsockopt IPV6_V6ONLY');
    }
    if (isLoopback(address)) raiseLoopbackLink(fd);
    const target = encodeSocketAddress(address, port);
    check(c.bind(fd, target, target.length), `bind ${address} port ${port}`);
    if (type === SOCK_STREAM) check(c.listen(fd, LISTEN_BACKLOG), 'listen');
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

function isLoopback(address: string): boolean {
  return ipaddr.parse(address).range() === 'loopback';
}

/**
 * Brings `lo` up in the namespace of the socket `fd`. In a namespace whose `lo` never was up there is
 * no local route, and the kernel takes every address for a broadcast one: it lets the socket bind to it, and
 * then answers from another address, which no client accepts.
 */
function raiseLoopbackLink(fd: number): void {
  const c = calls();
  const ifreq = encodeIfreq('lo');
  check(c.ioctlPointer(fd, SIOCGIFFLAGS, ifreq), 'SIOCGIFFLAGS lo');
  const flags = new DataView(ifreq.buffer, ifreq.byteOffset + IFNAMSIZ, 2);
  const held = flags.getUint16(0, isLittleEndian);
  if ((held & IFF_UP) !== 0) return;
  flags.setUint16(0, held | IFF_UP, isLittleEndian);
  check(c.ioctlPointer(fd, SIOCSIFFLAGS, ifreq), 'SIOCSIFFLAGS lo');
}

/** A bound UDP socket of the calling thread's namespace, for `dgram`'s `bind({ fd })`. */
export function openUdpSocket(address: string, port: number): number {
  return openBoundSocket(SOCK_DGRAM, address, port);
}

/** A listening TCP socket of the calling thread's namespace, for `net`'s `listen({ fd })`. */
export function openTcpListener(address: string, port: number): number {
  return openBoundSocket(SOCK_STREAM, address, port);
}

/** A TCP socket that is neither bound nor connected, for `net.Socket`'s `fd`. */
export function openTcpSocket(address: string): number {
  const family = isIPv4(address) ? AF_INET : AF_INET6;
  return check(calls().socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), 'socket');
}

/**
 * A TCP socket bound to an address that need not be this host's, for `net.Socket`'s `fd`: what comes
 * back to it must be routed here. Needs CAP_NET_ADMIN.
 *
 * @param port 0: any.
 * @throws SysError SYS_CALL_FAILED: `EPERM`, `EADDRINUSE`, …
 */
export function openTcpSocketAs(address: string, port: number): number {
  const c = calls();
  const fd = openTcpSocket(address);
  const on = int32(1);
  try {
    check(c.setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, on, 4), 'setsockopt SO_REUSEADDR');
    const [level, option] = isIPv4(address)
      ? [IPPROTO_IP, IP_TRANSPARENT]
      : [IPPROTO_IPV6, IPV6_TRANSPARENT];
    check(c.setsockopt(fd, level, option, on, 4), 'setsockopt IP_TRANSPARENT');
    // Found when it connects: one that is in use towards others will do.
    if (port === 0)
      check(
        c.setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, on, 4),
        'setsockopt IP_BIND_ADDRESS_NO_PORT',
      );
    const source = encodeSocketAddress(address, port);
    check(c.bind(fd, source, source.length), `bind ${address} port ${port}`);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

/** An event counter that another thread can poll; the caller owns the descriptor. */
export function openEventfd(): number {
  return check(calls().eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), 'eventfd');
}

/** Raises the counter by one, which wakes whoever polls it. A full counter is awake already. */
export function signalEventfd(fd: number): void {
  try {
    writeSync(fd, new Uint8Array(BigUint64Array.of(1n).buffer));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
  }
}
