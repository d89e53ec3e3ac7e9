import { closeSync } from 'node:fs';
import { constants, endianness } from 'node:os';
import koffi from 'koffi';
import { portHolder } from '../../base/io/port-holder.js';
import { SwarmError } from '../../base/swarm-error.js';
import { calls, check, int32, isErrno } from './sys.js';

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM_NONBLOCK_CLOEXEC = 2 | 0o4000 | 0o2000000;

const SOL_SOCKET = 1;
const SO_RCVBUF = 8;
const SO_NO_CHECK = 11;
const SO_RCVBUFFORCE = 33;
const SO_MEMINFO = 55;
const IPPROTO_IP = 0;
const IP_MTU_DISCOVER = 10;
const IPPROTO_IPV6 = 41;
const IPV6_MTU_DISCOVER = 23;
const IPV6_V6ONLY = 26;
const IPPROTO_UDP = 17;
const UDP_NO_CHECK6_RX = 102;
/**
 * Never fragment here (a VTEP must not, RFC 7348 §4.3), let routers do as they like, and believe no
 * path MTU that somebody claims: for both families the same number.
 */
const PMTUDISC_INTERFACE = 4;

/** `struct sk_meminfo`: nine 32-bit words, of which the last counts drops. */
const MEMINFO_WORDS = 9;
const MEMINFO_DROPS = 8;

const EAGAIN = constants.errno.EAGAIN;
const EINTR = constants.errno.EINTR;

function loadFileCalls() {
  const libc = koffi.load(null);
  return {
    read: libc.func('read', 'int64_t', ['int', 'void *', 'size_t']),
    write: libc.func('write', 'int64_t', ['int', 'void *', 'size_t']),
    getsockopt: libc.func('getsockopt', 'int', ['int', 'int', 'int', 'void *', 'void *']),
  };
}

let loaded: ReturnType<typeof loadFileCalls> | undefined;

/** What a non-blocking read or write of a whole frame came to, when not to a number of bytes. */
export const WOULD_BLOCK = -1;
export const FAILED = -2;

/** Reads one frame into `target`. @returns Bytes, `WOULD_BLOCK`, or `FAILED`: the device is gone. */
export function readFrame(fd: number, target: Buffer): number {
  loaded ??= loadFileCalls();
  const count = Number(loaded.read(fd, target, target.length));
  return count >= 0 ? count : failure();
}

/** Writes one frame. @returns Bytes, `WOULD_BLOCK`, or `FAILED`. */
export function writeFrame(fd: number, frame: Buffer): number {
  loaded ??= loadFileCalls();
  const count = Number(loaded.write(fd, frame, frame.length));
  return count >= 0 ? count : failure();
}

function failure(): number {
  const errno = koffi.errno();
  return errno === EAGAIN || errno === EINTR ? WOULD_BLOCK : FAILED;
}

/**
 * A bound UDP socket as VXLAN wants it: outer checksum zero on IPv4 (RFC 7348 §4.1), zero accepted on
 * IPv6 (RFC 6935), a large receive buffer, no fragmentation.
 *
 * @param port 0 lets the system choose.
 * @returns The descriptor; `undefined` if the system has no such address family.
 * @throws SwarmError SWARM_PORT_TAKEN; SysError for anything else.
 */
export function openVxlanSocket(
  family: 'ipv4' | 'ipv6',
  port: number,
  receiveBufferBytes: number,
): number | undefined {
  const c = calls();
  let fd: number;
  try {
    const domain = family === 'ipv4' ? AF_INET : AF_INET6;
    fd = check(c.socket(domain, SOCK_DGRAM_NONBLOCK_CLOEXEC, 0), 'socket');
  } catch (error) {
    if (isErrno(error, 'EAFNOSUPPORT')) return undefined;
    throw error;
  }
  try {
    setOptions(fd, family, receiveBufferBytes);
    bindToAll(fd, family, port);
  } catch (error) {
    closeSync(fd);
    if (isErrno(error, 'EADDRINUSE')) throw portTaken(port);
    // IPv6 that is switched off lets a socket be made, but has no `::` to bind.
    if (isErrno(error, 'EADDRNOTAVAIL') && family === 'ipv6') return undefined;
    throw error;
  }
  return fd;
}

function setOptions(fd: number, family: 'ipv4' | 'ipv6', receiveBufferBytes: number): void {
  const set = (level: number, option: number, value: number) =>
    calls().setsockopt(fd, level, option, int32(value), 4);
  // Beyond the system's limit only with CAP_NET_ADMIN; else as much as is allowed.
  if (set(SOL_SOCKET, SO_RCVBUFFORCE, receiveBufferBytes) !== 0)
    check(set(SOL_SOCKET, SO_RCVBUF, receiveBufferBytes), 'setsockopt SO_RCVBUF');
  if (family === 'ipv4') {
    check(set(SOL_SOCKET, SO_NO_CHECK, 1), 'setsockopt SO_NO_CHECK');
    check(set(IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_INTERFACE), 'setsockopt IP_MTU_DISCOVER');
    return;
  }
  check(set(IPPROTO_IPV6, IPV6_V6ONLY, 1), 'setsockopt IPV6_V6ONLY');
  check(set(IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_INTERFACE), 'setsockopt IPV6_MTU_DISCOVER');
  check(set(IPPROTO_UDP, UDP_NO_CHECK6_RX, 1), 'setsockopt UDP_NO_CHECK6_RX');
}

function bindToAll(fd: number, family: 'ipv4' | 'ipv6', port: number): void {
  const address = Buffer.alloc(family === 'ipv4' ? 16 : 28);
  const domain = family === 'ipv4' ? AF_INET : AF_INET6;
  if (endianness() === 'LE') address.writeUInt16LE(domain, 0);
  else address.writeUInt16BE(domain, 0);
  address.writeUInt16BE(port, 2);
  check(calls().bind(fd, address, address.length), `bind port ${port}`);
}

function portTaken(port: number): SwarmError {
  const by = portHolder('udp', port);
  return new SwarmError(
    { code: 'SWARM_PORT_TAKEN', port, protocol: 'udp', by },
    `UDP port ${port} is taken by ${by}: free it, or choose another data path port`,
  );
}

/** Datagrams that the socket's receive buffer had no room for; 0 where the system does not tell. */
export function socketDrops(fd: number): number {
  loaded ??= loadFileCalls();
  const info = new Uint32Array(MEMINFO_WORDS);
  const length = Uint32Array.of(info.byteLength);
  const result = loaded.getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, length);
  return result === 0 ? (info[MEMINFO_DROPS] ?? 0) : 0;
}
