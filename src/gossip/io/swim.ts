import { Worker } from 'node:worker_threads';
import { portHolder } from '../../base/io/port-holder.js';
import { SwarmError } from '../../base/swarm-error.js';
import type { MemberId } from '../wire/claim.js';
import type { Endpoint } from '../wire/endpoint.js';
import type { GossipKey } from './seal.js';
import { type ShellStats, type SwimEvents, SwimShell, type SwimShellConfig } from './swim-shell.js';
import type { FromSwimWorker, ToSwimWorker } from './swim-worker.js';

/** The main thread's hold on the shell, wherever that runs. */
export interface Swim {
  join(seeds: readonly Endpoint[]): void;
  check(member: MemberId): void;
  setKeys(keys: readonly GossipKey[]): void;
  /** From a worker: as of at most a second ago. */
  stats(): ShellStats;
  leave(): Promise<void>;
  close(): Promise<void>;
}

/** How long a worker may take to start; it loads a handful of small modules. */
const WORKER_START_MS_MAX = 30_000;

/**
 * Starts SWIM in a thread of its own, where a busy main thread cannot make it miss a probe.
 *
 * From TypeScript sources, as under test, it runs in this thread: the loader which compiles them
 * is not inherited by threads.
 *
 * @throws SwarmError SWARM_PORT_TAKEN, SWARM_BAD_ADDRESS
 */
export async function openSwim(config: SwimShellConfig, events: SwimEvents): Promise<Swim> {
  try {
    if (import.meta.url.endsWith('.ts')) return await SwimShell.open(config, events);
    return await WorkerSwim.open(config, events);
  } catch (error) {
    throw bindError(error, config);
  }
}

function bindError(error: unknown, config: SwimShellConfig): unknown {
  const { port, bindAddress } = config;
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  if (code === 'EADDRINUSE') {
    const by = portHolder('udp', port);
    const message = `UDP port ${port}, which gossip needs, is held by ${by}: stop it or choose another port`;
    return new SwarmError({ code: 'SWARM_PORT_TAKEN', port, protocol: 'udp', by }, message);
  }
  if (code === 'EADDRNOTAVAIL') {
    const message = `${bindAddress} is not an address of this host: choose another to listen at`;
    return new SwarmError({ code: 'SWARM_BAD_ADDRESS', kind: 'listen' }, message);
  }
  return error;
}

class WorkerSwim implements Swim {
  readonly #worker: Worker;
  readonly #events: SwimEvents;
  #stats: ShellStats;
  #hasLeft: (() => void) | undefined;
  #isClosed = false;

  static open(config: SwimShellConfig, events: SwimEvents): Promise<WorkerSwim> {
    const url = new URL('./swim-worker.js', import.meta.url);
    const worker = new Worker(url, { workerData: config });
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error('the thread for gossip did not start')),
        WORKER_START_MS_MAX,
      );
      worker.once('error', reject);
      worker.once('message', (message: FromSwimWorker) => {
        clearTimeout(timer);
        worker.off('error', reject);
        if (message.kind === 'opened') resolve(new WorkerSwim(worker, events, message.stats));
        else reject(errorOf(message));
      });
    });
  }

  private constructor(worker: Worker, events: SwimEvents, stats: ShellStats) {
    this.#worker = worker;
    this.#events = events;
    this.#stats = stats;
    worker.on('message', (message: FromSwimWorker) => this.#onMessage(message));
    // A bug in the core: as fatal there as it would be here.
    worker.on('error', (error) => {
      throw error;
    });
  }

  join(seeds: readonly Endpoint[]): void {
    this.#post({ kind: 'join', seeds });
  }

  check(member: MemberId): void {
    this.#post({ kind: 'check', member });
  }

  setKeys(keys: readonly GossipKey[]): void {
    this.#post({ kind: 'keys', keys });
  }

  stats(): ShellStats {
    return this.#stats;
  }

  leave(): Promise<void> {
    return new Promise((resolve) => {
      this.#hasLeft = resolve;
      this.#post({ kind: 'leave' });
    });
  }

  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    await this.#worker.terminate();
  }

  #post(message: ToSwimWorker): void {
    if (!this.#isClosed) this.#worker.postMessage(message);
  }

  #onMessage(message: FromSwimWorker): void {
    if (this.#isClosed) return;
    if (message.kind === 'changes') this.#events.onChanges(message.changes);
    else if (message.kind === 'roundTrips') this.#events.onRoundTrips(message.roundTrips);
    else if (message.kind === 'stats') this.#stats = message.stats;
    else if (message.kind === 'left') this.#hasLeft?.();
  }
}

/** Errors lose their properties on the way between threads. */
function errorOf(message: FromSwimWorker): Error {
  if (message.kind !== 'failed') return new Error(`gossip: unexpected ${message.kind}`);
  return Object.assign(new Error(message.text), { code: message.code });
}
