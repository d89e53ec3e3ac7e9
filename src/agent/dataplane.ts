import { writeSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { portHolder } from '../base/io/port-holder.js';
import { SwarmError } from '../base/swarm-error.js';
import {
  type PacketIoConfig,
  type PacketIoKind,
  type PacketIoStats,
  type RingKey,
  readStats,
  STATS_FIELDS,
} from '../dataplane/io/index.js';
import {
  diffTables,
  NOTHING_PUBLISHED,
  newOverlayCounters,
  type OverlayStats,
  type PublishedTables,
  readOverlayStats,
  type Tables,
  type VipOutliers,
} from '../dataplane/overlay/index.js';
import type {
  DataplaneCommand,
  DataplaneReport,
  DataplaneWorkerData,
} from './dataplane-messages.js';
import { SealCounter } from './seal-counter.js';
import { Seals } from './seals.js';

const START_TIMEOUT_MS = 10_000;
const STOP_TIMEOUT_MS = 3000;
/** How often it is looked whether counters of sealed datagrams run low. */
const COUNTER_INTERVAL_MS = 60_000;

const EVENTFD_ONE = (() => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(1n);
  return bytes;
})();

export interface DataplaneConfig {
  readonly driver: PacketIoKind | 'auto';
  readonly io: PacketIoConfig;
  /** Id of this node. */
  readonly self: string;
  /** The swarm's keys, of which those of sealed networks are derived; the first seals. */
  readonly ring: readonly RingKey[];
  readonly dataDir: string;
}

/**
 * The main thread's handle on the packet thread: publishes tables, hands over TAPs, reads counters.
 *
 * The packet thread has a loop of its own and is not held up when this one is busy.
 */
export class Dataplane {
  readonly driver: PacketIoKind;
  /** Why this driver: one clause. */
  readonly reason: string;
  /** Whether networks whose datagrams are sealed can be had here. */
  readonly canSeal: boolean;
  readonly #seals: Seals;
  readonly #sealCounter: SealCounter;
  readonly #counterTimer: NodeJS.Timeout;
  readonly #worker: Worker;
  readonly #wakeFd: number | undefined;
  readonly #counters: Float64Array;
  readonly #ioCounters: Float64Array;
  #published: PublishedTables = NOTHING_PUBLISHED;
  #outliers: readonly VipOutliers[] = [];
  /** Those who wait for the packet thread to have got so far, in order. */
  readonly #barriers: { readonly number: number; readonly passed: Promise<void>; pass(): void }[] =
    [];
  #barrierCount = 0;
  /** No tables since the last barrier. */
  #isBarrierLast = false;
  #closing = false;

  private constructor(
    worker: Worker,
    config: DataplaneConfig,
    ready: Extract<DataplaneReport, { kind: 'ready' }>,
    counters: Float64Array,
    ioCounters: Float64Array,
    onFailure: (error: Error) => void,
  ) {
    this.#worker = worker;
    this.driver = ready.driver;
    this.reason = ready.reason;
    this.canSeal = ready.canSeal;
    this.#wakeFd = ready.wakeFd;
    this.#counters = counters;
    this.#ioCounters = ioCounters;
    worker.on('error', onFailure);
    worker.on('message', (report: DataplaneReport) => {
      if (report.kind === 'passed') this.#passed(report.number);
      if (report.kind === 'outliers') this.#outliers = report.outliers;
    });
    worker.on('exit', () => {
      this.#passed(Number.POSITIVE_INFINITY);
      if (!this.#closing) onFailure(new Error('the packet thread ended'));
    });
    this.#seals = new Seals(config.self, config.ring);
    this.#sealCounter = new SealCounter(config.dataDir, Date.now());
    this.#allowSeals();
    this.#counterTimer = setInterval(() => {
      if (this.#sealCounter.extend(this.ioStats().datagramsSealed)) this.#allowSeals();
    }, COUNTER_INTERVAL_MS).unref();
  }

  #allowSeals(): void {
    const { first, allowed: count } = this.#sealCounter;
    this.#command({ kind: 'allow-seals', first, count });
  }

  /** Another ring of the swarm; what is on its way still opens while its key is in it. */
  setRing(ring: readonly RingKey[]): void {
    const seals = this.#seals.setRing(ring);
    if (seals.length > 0) this.#command({ kind: 'seals', seals });
  }

  /**
   * Starts the packet thread and binds the VXLAN port.
   *
   * @param onFailure The thread died: packets no longer flow.
   * @throws SwarmError SWARM_PORT_TAKEN
   */
  static async open(
    config: DataplaneConfig,
    onFailure: (error: Error) => void,
  ): Promise<Dataplane> {
    const counters = newOverlayCounters(true);
    const ioCounters = new Float64Array(new SharedArrayBuffer(STATS_FIELDS.length * 8));
    const workerData: DataplaneWorkerData = {
      driver: config.driver,
      io: config.io,
      counters: counters.buffer as SharedArrayBuffer,
      ioCounters: ioCounters.buffer as SharedArrayBuffer,
    };
    const worker = new Worker(new URL('./dataplane-worker.js', import.meta.url), {
      workerData,
      name: 'shoal-packets',
      // TAPs come from the main thread as numbers, which Node did not open itself.
      trackUnmanagedFds: false,
      // The packet thread allocates next to nothing: a small heap keeps its collections short.
      resourceLimits: { maxYoungGenerationSizeMb: 8, maxOldGenerationSizeMb: 128 },
    });
    try {
      const ready = await firstReport(worker);
      return new Dataplane(worker, config, ready, counters, ioCounters, onFailure);
    } catch (error) {
      await worker.terminate();
      throw error;
    }
  }

  /** Makes these the tables that packets are decided by. */
  publish(tables: Tables): void {
    const { update, published } = diffTables(this.#published, tables);
    this.#published = published;
    this.#isBarrierLast = false;
    this.#command({ kind: 'tables', update, seals: this.#seals.follow(published) });
  }

  /** Resolves when packets are decided by the tables that were published last. */
  settled(): Promise<void> {
    const last = this.#barriers.at(-1);
    if (this.#isBarrierLast || this.#closing) return last?.passed ?? Promise.resolve();
    this.#barrierCount += 1;
    this.#isBarrierLast = true;
    const number = this.#barrierCount;
    let pass = () => {};
    const passed = new Promise<void>((resolve) => {
      pass = resolve;
    });
    this.#barriers.push({ number, passed, pass });
    this.#command({ kind: 'barrier', number });
    return passed;
  }

  /** Hands a TAP over; the tables published last must hold the port `id`. */
  addPort(id: string, fd: number): void {
    const index = this.#published.portIndexes.get(id);
    if (index === undefined) throw new Error(`port ${id} is not in the tables`);
    this.#command({ kind: 'add-port', index, fd });
  }

  /** Closes the TAP of a port; before the tables without it are published. */
  removePort(id: string): void {
    const index = this.#published.portIndexes.get(id);
    if (index !== undefined) this.#command({ kind: 'remove-port', index });
  }

  get tables(): Tables {
    return this.#published.tables;
  }

  overlayStats(): OverlayStats {
    return readOverlayStats(this.#counters);
  }

  /** Services behind VIPs whose tasks this node passes over, or has passed over, for how their flows went. */
  vipOutliers(): readonly VipOutliers[] {
    return this.#outliers;
  }

  ioStats(): PacketIoStats {
    return readStats(this.#ioCounters);
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#counterTimer);
    const stopped = new Promise<void>((resolve) => {
      this.#worker.once('exit', () => resolve());
      setTimeout(resolve, STOP_TIMEOUT_MS).unref();
    });
    this.#command({ kind: 'stop' });
    await stopped;
    await this.#worker.terminate();
  }

  #passed(number: number): void {
    for (let first = this.#barriers[0]; first !== undefined; first = this.#barriers[0]) {
      if (first.number > number) return;
      this.#barriers.shift();
      first.pass();
    }
  }

  #command(command: DataplaneCommand): void {
    this.#worker.postMessage(command);
    // The native driver's thread sleeps in the addon, where messages do not reach it.
    if (this.#wakeFd !== undefined) writeSync(this.#wakeFd, EVENTFD_ONE);
  }
}

function firstReport(worker: Worker): Promise<Extract<DataplaneReport, { kind: 'ready' }>> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new Error('the packet thread did not start in time')),
      START_TIMEOUT_MS,
    );
    const fail = (error: Error) => {
      clearTimeout(timer);
      reject(error);
    };
    worker.once('error', fail);
    worker.once('exit', (code) =>
      fail(new Error(`the packet thread ended at start (exit ${code})`)),
    );
    worker.once('message', (report: DataplaneReport) => {
      // Not all of them: the worker's own start and stop its port as others listen.
      for (const event of ['error', 'exit', 'message']) worker.removeAllListeners(event);
      if (report.kind === 'ready') {
        clearTimeout(timer);
        resolve(report);
      } else if (report.kind === 'port-taken') {
        const by = portHolder('udp', report.port);
        fail(
          new SwarmError(
            { code: 'SWARM_PORT_TAKEN', port: report.port, protocol: 'udp', by },
            `the data path port ${report.port}/udp is taken by ${by}: stop it, or choose another with --data-path-port`,
          ),
        );
      } else {
        fail(
          new Error(
            report.kind === 'failed' ? report.message : 'the packet thread stopped at start',
          ),
        );
      }
    });
  });
}
