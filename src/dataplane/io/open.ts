import { unreachable } from '../../base/assert.js';
import { SwarmError } from '../../base/swarm-error.js';
import type { PacketIo, PacketIoConfig, PacketIoKind } from '../core/packet-io.js';
import { MemoryNetwork, MemoryPacketIo } from './memory.js';
import { NativePacketIo } from './native.js';
import { loadNative, nativeUnavailableReason } from './native-binding.js';
import { PortablePacketIo } from './portable.js';

export interface PacketIoDependencies {
  /**
   * For drivers that keep their thread to themselves (those with a `wakeFd`): handles what other
   * threads have asked for. @returns False to end the loop.
   */
  readonly poll: () => boolean;
  /** Where to count, one number per `STATS_FIELDS`; on shared memory, others can read it meanwhile. */
  readonly stats?: Float64Array;
  /** For the memory driver; by default a network of its own, with nobody else on it. */
  readonly memory?: { readonly network: MemoryNetwork; readonly addresses: readonly string[] };
}

export interface OpenedPacketIo {
  readonly io: PacketIo;
  /** Why this driver and no other: one clause, for the log. */
  readonly reason: string;
  /**
   * An eventfd that wakes the driver's loop, which then calls `poll`. `undefined`: `start` returns
   * at once, and the thread's own event loop goes on.
   */
  readonly wakeFd: number | undefined;
}

/**
 * Opens a packet driver, which binds its port at once; `auto` is native where that can be had, and
 * portable elsewhere.
 *
 * @throws SwarmError SWARM_PORT_TAKEN; SWARM_UNSUPPORTED when `native` was asked for and is not there.
 */
export function openPacketIo(
  kind: PacketIoKind | 'auto',
  config: PacketIoConfig,
  dependencies: PacketIoDependencies,
): OpenedPacketIo {
  switch (kind) {
    case 'auto':
      return (
        openNative(config, dependencies, 'the native packet driver is there') ??
        openPortable(config, dependencies, nativeUnavailableReason())
      );
    case 'native': {
      const opened = openNative(config, dependencies, 'asked for');
      if (opened !== undefined) return opened;
      throw new SwarmError({ code: 'SWARM_UNSUPPORTED' }, nativeUnavailableReason());
    }
    case 'portable':
      return openPortable(config, dependencies, 'asked for');
    case 'memory':
      return openMemory(config, dependencies);
    default:
      return unreachable(kind);
  }
}

function openNative(
  config: PacketIoConfig,
  { poll, stats }: PacketIoDependencies,
  reason: string,
): OpenedPacketIo | undefined {
  const binding = loadNative();
  if (binding === undefined) return undefined;
  const counting = stats === undefined ? {} : { stats };
  const io = new NativePacketIo(config, { binding, poll, ...counting });
  return { io, reason, wakeFd: io.wakeFd };
}

function openPortable(
  config: PacketIoConfig,
  { stats }: PacketIoDependencies,
  reason: string,
): OpenedPacketIo {
  return { io: new PortablePacketIo(config, stats), reason, wakeFd: undefined };
}

function openMemory(config: PacketIoConfig, { memory }: PacketIoDependencies): OpenedPacketIo {
  const { network, addresses } = memory ?? { network: new MemoryNetwork(), addresses: [] };
  const io = new MemoryPacketIo(network, addresses, config);
  return { io, reason: 'asked for', wakeFd: undefined };
}
