import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { packageRoot } from '../../base/io/package-root.js';
import type { PacketBatch } from '../core/batch.js';
import type { ProxyBinding } from '../core/proxy-binding.js';

/** An open native driver; passed back to every call. */
export type NativeHandle = { readonly opaque: unique symbol };

/** Bits of what `wait` found. */
export const PORTS_READY = 1;
export const UNDERLAY_READY = 2;
export const WOKEN = 4;

export interface NativeOptions {
  readonly udpPort: number;
  readonly receiveBufferBytes: number;
  readonly busyPollMicros: number;
  readonly sourcePorts: number;
  readonly egress: PacketBatch;
  /** Bytes of the egress arena before its scratch. */
  readonly egressRowBytes: number;
  readonly ingress: PacketBatch;
  readonly ingressRowBytes: number;
  /** One number per name in `STATS_FIELDS`. */
  readonly stats: Float64Array;
}

/** The functions of `src/dataplane/native/binding.cc`; the proxy's are another part's. */
export interface NativeBinding extends ProxyBinding {
  /** @throws Error with code `EADDRINUSE`, `EACCES` or `ESYSTEM`; `message` names the call. */
  open(options: NativeOptions): NativeHandle;
  close(handle: NativeHandle): void;
  wakeFd(handle: NativeHandle): number;
  addPort(handle: NativeHandle, index: number, fd: number): void;
  removePort(handle: NativeHandle, index: number): void;
  /** @param address 16 bytes, IPv4 as `::ffff:a.b.c.d`. */
  setVtep(handle: NativeHandle, index: number, address: Uint8Array, udpPort: number): void;
  removeVtep(handle: NativeHandle, index: number): void;
  /** Whether the process has an OpenSSL that the addon can use. */
  canSeal(): boolean;
  allowSeals(handle: NativeHandle, first: bigint, count: bigint): void;
  /** @param keys Each of 3 bytes of id, 32 of secret, 4 of salt; the one that seals first; none: forgets. */
  setSeals(handle: NativeHandle, index: number, keys: Uint8Array): void;
  raisePriority(handle: NativeHandle): void;
  wait(handle: NativeHandle, timeoutMs: number): number;
  readPorts(handle: NativeHandle): number;
  readUnderlay(handle: NativeHandle): number;
  performEgress(handle: NativeHandle, outputs: number): void;
  performIngress(handle: NativeHandle, outputs: number): void;
  /** For tests: the datagrams that a frame, behind its virtio-net header, becomes. */
  segment(frame: Uint8Array, vni: number): Uint8Array[];
  /** For tests: what is written to a port, behind virtio-net headers, for datagrams of one batch. */
  coalesce(datagrams: readonly Uint8Array[], takesUdpSegments?: boolean): Uint8Array[];
  /** For tests: the one's complement sum of `bytes`, folded to 16 bits, in memory order. */
  checksum(bytes: Uint8Array): number;
}

const ADDON = 'build/shoal-native.node';

let loaded: NativeBinding | undefined;
let reason = '';

/** The addon, or `undefined` where it cannot be had; `nativeUnavailableReason` then says why. */
export function loadNative(): NativeBinding | undefined {
  if (loaded !== undefined) return loaded;
  if (process.platform !== 'linux') {
    reason = `the native packet driver is for Linux, not ${process.platform}`;
    return undefined;
  }
  const path = join(packageRoot(), ADDON);
  if (!existsSync(path)) {
    reason = `the native packet driver is not built: ${ADDON} is missing (needs a C++ compiler when set up)`;
    return undefined;
  }
  try {
    loaded = createRequire(import.meta.url)(path) as NativeBinding;
  } catch (error) {
    reason = `the native packet driver does not load: ${error instanceof Error ? error.message : String(error)}`;
  }
  return loaded;
}

/** Why the last `loadNative` returned nothing; empty if it did not. */
export function nativeUnavailableReason(): string {
  return loaded === undefined ? reason : '';
}
