import type { PacketIoConfig, PacketIoKind } from '../dataplane/io/index.js';
import type { TablesUpdate, VipOutliers } from '../dataplane/overlay/index.js';
import type { SealsSet } from './seals.js';

/** What the packet thread is started with (`workerData`). */
export interface DataplaneWorkerData {
  readonly driver: PacketIoKind | 'auto';
  readonly io: PacketIoConfig;
  /** Float64Array of `OVERLAY_COUNTERS_LENGTH`, read live by the main thread. */
  readonly counters: SharedArrayBuffer;
  /** Float64Array of `STATS_FIELDS.length`, likewise. */
  readonly ioCounters: SharedArrayBuffer;
}

/** Main thread to packet thread; applied between two batches. */
export type DataplaneCommand =
  | {
      readonly kind: 'tables';
      readonly update: TablesUpdate;
      readonly seals: readonly SealsSet[];
    }
  | { readonly kind: 'seals'; readonly seals: readonly SealsSet[] }
  /** Counters to seal under, before any keys. */
  | { readonly kind: 'allow-seals'; readonly first: bigint; readonly count: number }
  /** The packet thread owns the descriptor from now on. */
  | { readonly kind: 'add-port'; readonly index: number; readonly fd: number }
  | { readonly kind: 'remove-port'; readonly index: number }
  /** To be answered by `passed`: all commands before it are applied. */
  | { readonly kind: 'barrier'; readonly number: number }
  | { readonly kind: 'stop' };

/** Packet thread to main thread. */
export type DataplaneReport =
  | {
      readonly kind: 'ready';
      readonly driver: PacketIoKind;
      readonly reason: string;
      readonly wakeFd: number | undefined;
      readonly canSeal: boolean;
    }
  | { readonly kind: 'passed'; readonly number: number }
  /** All services with any, when something of them has changed. */
  | { readonly kind: 'outliers'; readonly outliers: readonly VipOutliers[] }
  | { readonly kind: 'port-taken'; readonly port: number }
  | { readonly kind: 'failed'; readonly message: string }
  | { readonly kind: 'stopped' };
