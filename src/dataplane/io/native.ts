import ipaddr from 'ipaddr.js';
import { assert } from '../../base/assert.js';
import { portHolder } from '../../base/io/port-holder.js';
import { SwarmError } from '../../base/swarm-error.js';
import { PacketBatch } from '../core/batch.js';
import type {
  PacketHandler,
  PacketIo,
  PacketIoConfig,
  PacketIoKind,
  PacketIoStats,
} from '../core/packet-io.js';
import { SEAL_SALT_BYTES, SEAL_SECRET_BYTES, type SealKeys } from '../core/seal.js';
import type { NativeBinding, NativeHandle } from './native-binding.js';
import { PORTS_READY, UNDERLAY_READY, WOKEN } from './native-binding.js';

/** Room for the frames of one egress batch: sixteen full super-frames, or 64 smaller ones. */
const EGRESS_ROW_BYTES = 1024 * 1024 + 128 * 1024;
/** 256 receive slots of 65,728 bytes each: a train of 64 KiB, its sender, and room in front. */
const INGRESS_ROW_BYTES = 256 * 65_728;
/** How long control messages can wait when nothing wakes the loop. */
const POLL_INTERVAL_MS = 100;
const SOURCE_PORTS_MAX = 64;
const ADDRESS_BYTES = 16;
const KEY_ID_BYTES = 3;
const PACKED_KEY_BYTES = KEY_ID_BYTES + SEAL_SECRET_BYTES + SEAL_SALT_BYTES;

/** Order of the counters in the array that the addon counts in. */
export const STATS_FIELDS = [
  'portFramesRead',
  'portBytesRead',
  'portFramesWritten',
  'portBytesWritten',
  'portWriteDrops',
  'datagramsReceived',
  'datagramBytesReceived',
  'datagramsSent',
  'datagramBytesSent',
  'datagramSendDrops',
  'datagramReceiveDrops',
  'datagramsSealed',
  'datagramsOpened',
  'sealDrops',
  'openTruncatedDrops',
  'openUnknownKeyDrops',
  'openBadTagDrops',
  'openReplayedDrops',
] as const satisfies readonly (keyof PacketIoStats)[];

/** Reads counters out of the array of a native driver, on whichever thread shares it. */
export function readStats(values: Float64Array): PacketIoStats {
  const stats: Partial<Record<keyof PacketIoStats, number>> = {};
  for (const [index, name] of STATS_FIELDS.entries()) stats[name] = values[index] ?? 0;
  return stats as PacketIoStats;
}

export interface NativeDependencies {
  readonly binding: NativeBinding;
  /**
   * Handles what other threads have asked for. Called when `wakeFd` was written to, and about ten
   * times a second otherwise; it may call every method of the driver.
   *
   * @returns False to end the loop.
   */
  readonly poll: () => boolean;
  /** Where to count, one number per `STATS_FIELDS`; on shared memory, others can read it meanwhile. */
  readonly stats?: Float64Array;
}

/**
 * The packet driver for Linux: TypeScript decides, the addon moves the bytes.
 *
 * It takes its thread for itself: `start` returns only when the loop has ended, so that no event
 * loop stands between two packets. Everything else reaches it through `poll`.
 *
 * When the underlay has no room the loop waits for it, a few milliseconds at most, and reads no
 * TAP meanwhile: senders are pushed back before packets are lost. The thread asks for a higher
 * priority than the applications', for the same reason: a packet that is lost in a full TAP queue
 * has cost its sender all the work.
 */
export class NativePacketIo implements PacketIo {
  readonly kind: PacketIoKind = 'native';
  /** An eventfd: eight bytes written to it wake the loop, which then polls. Valid until `stop`. */
  readonly wakeFd: number;

  readonly canSeal: boolean;

  readonly #native: NativeBinding;
  readonly #handle: NativeHandle;
  readonly #poll: () => boolean;
  readonly #stats: Float64Array;
  readonly #egress = new PacketBatch(EGRESS_ROW_BYTES);
  readonly #ingress = new PacketBatch(INGRESS_ROW_BYTES);
  #running = false;
  #stopping = false;
  #closed = false;
  #whenClosed: (() => void)[] = [];

  /**
   * Opens the sockets. Packets wait in them until `start`.
   *
   * @throws SwarmError SWARM_PORT_TAKEN.
   */
  constructor(config: PacketIoConfig, dependencies: NativeDependencies) {
    assert(config.sourcePorts >= 1, 'at least one source port');
    this.#native = dependencies.binding;
    this.#poll = dependencies.poll;
    this.#stats = dependencies.stats ?? new Float64Array(STATS_FIELDS.length);
    assert(this.#stats.length >= STATS_FIELDS.length, 'every counter has its place');
    this.#handle = this.#open(config);
    this.wakeFd = this.#native.wakeFd(this.#handle);
    this.canSeal = this.#native.canSeal();
  }

  #open(config: PacketIoConfig): NativeHandle {
    try {
      return this.#native.open({
        ...config,
        sourcePorts: Math.min(config.sourcePorts, SOURCE_PORTS_MAX),
        egress: this.#egress,
        egressRowBytes: EGRESS_ROW_BYTES,
        ingress: this.#ingress,
        ingressRowBytes: INGRESS_ROW_BYTES,
        stats: this.#stats,
      });
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EADDRINUSE')) throw error;
      const by = portHolder('udp', config.udpPort);
      throw new SwarmError(
        { code: 'SWARM_PORT_TAKEN', port: config.udpPort, protocol: 'udp', by },
        `UDP port ${config.udpPort} is taken by ${by}: free it, or choose another data path port`,
        { cause: error },
      );
    }
  }

  addPort(index: number, fd: number): void {
    this.#native.addPort(this.#handle, index, fd);
  }

  removePort(index: number): void {
    this.#native.removePort(this.#handle, index);
  }

  setVtep(index: number, address: string, udpPort: number): void {
    const parsed = ipaddr.parse(address);
    const ipv6 = parsed.kind() === 'ipv4' ? (parsed as ipaddr.IPv4).toIPv4MappedAddress() : parsed;
    const bytes = Uint8Array.from(ipv6.toByteArray());
    assert(bytes.length === ADDRESS_BYTES, 'an address has sixteen bytes');
    this.#native.setVtep(this.#handle, index, bytes, udpPort);
  }

  removeVtep(index: number): void {
    this.#native.removeVtep(this.#handle, index);
  }

  setSeals(index: number, keys: SealKeys | undefined): void {
    const all = keys === undefined ? [] : [keys.seals, ...keys.opens];
    const packed = Buffer.alloc(all.length * PACKED_KEY_BYTES);
    for (const [i, { id, secret, salt }] of all.entries()) {
      const at = i * PACKED_KEY_BYTES;
      packed.writeUIntBE(id, at, KEY_ID_BYTES);
      packed.set(secret, at + KEY_ID_BYTES);
      packed.set(salt, at + KEY_ID_BYTES + SEAL_SECRET_BYTES);
    }
    this.#native.setSeals(this.#handle, index, packed);
  }

  allowSeals(first: bigint, count: number): void {
    this.#native.allowSeals(this.#handle, first, BigInt(count));
  }

  /** Runs until `poll` says no, or `stop` is called inside it; the driver is closed afterwards. */
  start(handler: PacketHandler): void {
    assert(!this.#running && !this.#closed, 'a driver is started once');
    this.#running = true;
    try {
      this.#native.raisePriority(this.#handle);
      this.#run(handler);
    } finally {
      this.#running = false;
      this.#close();
    }
  }

  #run(handler: PacketHandler): void {
    const native = this.#native;
    const handle = this.#handle;
    for (;;) {
      const found = native.wait(handle, POLL_INTERVAL_MS);
      // The underlay first: it carries the acknowledgements that let local senders go on.
      if ((found & UNDERLAY_READY) !== 0) this.#turnIngress(handler);
      if ((found & PORTS_READY) !== 0) this.#turnEgress(handler);
      if ((found & WOKEN) !== 0 && (!this.#poll() || this.#stopping)) return;
    }
  }

  #turnIngress(handler: PacketHandler): void {
    const batch = this.#ingress;
    // Once for each address family; what is left makes the next turn.
    for (let family = 0; family < 2; family += 1) {
      batch.clear();
      batch.rowCount = this.#native.readUnderlay(this.#handle);
      if (batch.rowCount === 0) return;
      handler.ingress(batch);
      if (batch.outCount > 0) this.#native.performIngress(this.#handle, batch.outCount);
    }
  }

  #turnEgress(handler: PacketHandler): void {
    const batch = this.#egress;
    batch.clear();
    batch.rowCount = this.#native.readPorts(this.#handle);
    if (batch.rowCount === 0) return;
    handler.egress(batch);
    if (batch.outCount > 0) this.#native.performEgress(this.#handle, batch.outCount);
  }

  stop(): Promise<void> {
    this.#stopping = true;
    if (!this.#running) this.#close();
    if (this.#closed) return Promise.resolve();
    return new Promise((resolve) => this.#whenClosed.push(resolve));
  }

  #close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#native.close(this.#handle);
    for (const resolve of this.#whenClosed) resolve();
    this.#whenClosed = [];
  }

  stats(): PacketIoStats {
    return readStats(this.#stats);
  }
}
