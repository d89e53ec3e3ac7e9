import { performance } from 'node:perf_hooks';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { PacketHandler, PacketIo } from '../../src/dataplane/core/packet-io.js';
import type { SealKeys } from '../../src/dataplane/core/seal.js';
import { inNetns } from '../../src/dataplane/io/netns.js';
import { type OpenedPacketIo, openPacketIo } from '../../src/dataplane/io/open.js';
import { newOverlayCounters, readOverlayStats } from '../../src/dataplane/overlay/core/counters.js';
import { programVteps, type TablesUpdate } from '../../src/dataplane/overlay/core/diff.js';
import { DEFAULT_SEGMENT_LIMITS, Vtep } from '../../src/dataplane/overlay/core/vtep.js';
import { PatchPanel, type PatchRoutes } from '../conformance/patch-panel.js';

/** What a worker running this module serves: one driver in a namespace, moved by messages. */
export interface DriverHostOptions {
  readonly kind: 'native' | 'portable';
  /** Namespace of the underlay. */
  readonly netns: string;
  readonly udpPort: number;
  readonly sourcePorts: number;
  readonly busyPollMicros: number;
  readonly handler: 'panel' | 'vtep';
}

export type DriverCommand =
  | { readonly call: 'addPort'; readonly index: number; readonly fd: number }
  | { readonly call: 'removePort'; readonly index: number }
  | {
      readonly call: 'setVtep';
      readonly index: number;
      readonly address: string;
      readonly port: number;
    }
  | { readonly call: 'removeVtep'; readonly index: number }
  | {
      readonly call: 'setSeals';
      readonly index: number;
      readonly keys: SealKeys | undefined;
    }
  | { readonly call: 'allowSeals'; readonly first: bigint; readonly count: number }
  | { readonly call: 'wire'; readonly routes: PatchRoutes }
  | { readonly call: 'apply'; readonly update: TablesUpdate }
  | { readonly call: 'report' }
  | { readonly call: 'stats' }
  | { readonly call: 'overlayStats' }
  | { readonly call: 'stop' };

export interface DriverRequest {
  readonly id: number;
  readonly command: DriverCommand;
}

class Host {
  readonly #panel = new PatchPanel();
  readonly #counters = newOverlayCounters(false);
  readonly #vtep = new Vtep(
    { limits: DEFAULT_SEGMENT_LIMITS, hashSeed: 1, counters: this.#counters },
    { now: () => performance.now() },
  );
  readonly #io: PacketIo;
  readonly opened: OpenedPacketIo;
  #isStopping = false;

  constructor({ kind, netns, handler: _, ...config }: DriverHostOptions) {
    this.opened = inNetns(netns, () =>
      openPacketIo(
        kind,
        { ...config, receiveBufferBytes: 8 * 1024 * 1024 },
        { poll: () => this.#poll() },
      ),
    );
    this.#io = this.opened.io;
  }

  /** Blocks with a driver that keeps its thread. */
  serve(handler: 'panel' | 'vtep'): void {
    parentPort?.postMessage({ id: 0, wakeFd: this.opened.wakeFd });
    const chosen: PacketHandler = handler === 'panel' ? this.#panel : this.#vtep;
    if (this.opened.wakeFd === undefined)
      parentPort?.on('message', (request: DriverRequest) => this.#answer(request));
    this.#io.start(chosen);
  }

  #poll(): boolean {
    for (;;) {
      const held = parentPort === null ? undefined : receiveMessageOnPort(parentPort);
      if (held === undefined) return !this.#isStopping;
      this.#answer(held.message as DriverRequest);
    }
  }

  #answer({ id, command }: DriverRequest): void {
    const result = this.#obey(command);
    if (command.call !== 'stop') {
      parentPort?.postMessage({ id, result });
      return;
    }
    this.#isStopping = true;
    void this.#io.stop().then(() => {
      parentPort?.postMessage({ id });
      parentPort?.close();
    });
  }

  #obey(command: DriverCommand): unknown {
    switch (command.call) {
      case 'addPort':
        return this.#io.addPort(command.index, command.fd);
      case 'removePort':
        return this.#io.removePort(command.index);
      case 'setVtep':
        return this.#io.setVtep(command.index, command.address, command.port);
      case 'removeVtep':
        return this.#io.removeVtep(command.index);
      case 'setSeals':
        return this.#io.setSeals(command.index, command.keys);
      case 'allowSeals':
        return this.#io.allowSeals(command.first, command.count);
      case 'wire':
        return this.#panel.wire(command.routes);
      case 'apply':
        programVteps(command.update, this.#io);
        return this.#vtep.apply(command.update);
      case 'report':
        return this.#panel.report();
      case 'stats':
        return this.#io.stats();
      case 'overlayStats':
        return readOverlayStats(this.#counters);
      case 'stop':
        return undefined;
    }
  }
}

if (parentPort !== null) {
  const options = workerData as DriverHostOptions;
  new Host(options).serve(options.handler);
}
