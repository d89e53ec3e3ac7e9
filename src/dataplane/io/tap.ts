import { closeSync } from 'node:fs';
import { assert } from '../../base/assert.js';
import { inNetnsOrHere } from './netns.js';
import {
  calls,
  check,
  encodeIfreq,
  IFNAMSIZ,
  int32,
  isErrno,
  O_CLOEXEC,
  O_NONBLOCK,
  O_RDWR,
} from './sys.js';

// linux/if_tun.h
const TUNSETIFF = 0x4004_54ca;
const TUNSETPERSIST = 0x4004_54cb;
const TUNSETOFFLOAD = 0x4004_54d0;
const TUNSETVNETHDRSZ = 0x4004_54d8;

const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

const TUN_F_CSUM = 0x01;
const TUN_F_TSO4 = 0x02;
const TUN_F_TSO6 = 0x04;
const TUN_F_USO4 = 0x20;
const TUN_F_USO6 = 0x40;

/** Bytes of the virtio-net header in front of every frame, virtio 1.2 §5.1.6, without `num_buffers`. */
export const VNET_HEADER_BYTES = 10;

export interface TapOptions {
  /** Namespace file in which the TAP is made; `undefined` is the caller's own. */
  readonly netns?: string | undefined;
  /** Interface name, 1 to 15 bytes. */
  readonly name: string;
  /** Lets the kernel hand over super-frames (TSO, USO) and partial checksums. */
  readonly offloads: boolean;
  /** The TAP stays when its descriptor is closed, so that it survives a restart of the agent. */
  readonly persist: boolean;
  /** One of several queues: call once per queue, each time with this set. */
  readonly multiQueue?: boolean | undefined;
}

/**
 * Opens a TAP in a namespace: makes it, or attaches to a persistent one of that name.
 *
 * Every frame carries a virtio-net header of `VNET_HEADER_BYTES`. The caller owns the descriptor,
 * which is non-blocking and not inherited by children.
 *
 * @returns The file descriptor.
 * @throws SysError NETNS_NOT_FOUND, NETNS_INVALID; SYS_CALL_FAILED with `EBUSY` (another process
 *   holds the TAP), `EINVAL` (a link of that name is no such TAP), `EPERM`, `ENOENT` (no tun driver).
 */
export function openTap(options: TapOptions): number {
  const nameBytes = Buffer.byteLength(options.name);
  assert(nameBytes > 0 && nameBytes < IFNAMSIZ, 'the interface name fits ifreq');
  return inNetnsOrHere(options.netns, () => openTapHere(options));
}

function openTapHere(options: TapOptions): number {
  const c = calls();
  const path = '/dev/net/tun';
  const fd = check(c.open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC), `open ${path}`);
  try {
    const queues = options.multiQueue === true ? IFF_MULTI_QUEUE : 0;
    const ifreq = encodeIfreq(options.name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | queues);
    check(c.ioctlPointer(fd, TUNSETIFF, ifreq), `TUNSETIFF ${options.name}`);
    check(c.ioctlPointer(fd, TUNSETVNETHDRSZ, int32(VNET_HEADER_BYTES)), 'TUNSETVNETHDRSZ');
    setOffloads(fd, options.offloads);
    setTapPersistence(fd, options.persist);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return fd;
}

function setOffloads(fd: number, offloads: boolean): void {
  const c = calls();
  const tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
  if (!offloads) {
    check(c.ioctlValue(fd, TUNSETOFFLOAD, 0), 'TUNSETOFFLOAD');
    return;
  }
  try {
    check(c.ioctlValue(fd, TUNSETOFFLOAD, tcp | TUN_F_USO4 | TUN_F_USO6), 'TUNSETOFFLOAD');
  } catch (error) {
    // Kernels before 6.2 know no UDP segmentation on a TAP.
    if (!isErrno(error, 'EINVAL')) throw error;
    check(c.ioctlValue(fd, TUNSETOFFLOAD, tcp), 'TUNSETOFFLOAD');
  }
}

/** Whether the TAP stays when the last descriptor is closed. */
export function setTapPersistence(fd: number, persist: boolean): void {
  check(calls().ioctlValue(fd, TUNSETPERSIST, persist ? 1 : 0), 'TUNSETPERSIST');
}
