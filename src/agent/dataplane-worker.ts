import { randomInt } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import {
  type MessagePort,
  parentPort,
  receiveMessageOnPort,
  workerData,
} from 'node:worker_threads';
import { assert } from '../base/assert.js';
import { AgentError } from '../base/error.js';
import { openPacketIo, type PacketIo, STATS_FIELDS } from '../dataplane/io/index.js';
import { DEFAULT_SEGMENT_LIMITS, programVteps, Vtep } from '../dataplane/overlay/index.js';
import type {
  DataplaneCommand,
  DataplaneReport,
  DataplaneWorkerData,
} from './dataplane-messages.js';

/** How often a driver that lives in the event loop copies its counters for the main thread, and hears that time passes. */
const TICK_INTERVAL_MS = 100;

/**
 * The packet thread: one packet core and one driver, and nothing else that could hold them up.
 *
 * Commands are taken between two batches. The native driver keeps the thread to itself and asks for
 * them; under the portable one they come through the event loop.
 */
function run(port: MessagePort, data: DataplaneWorkerData): void {
  const ioCounters = new Float64Array(data.ioCounters);
  const vtep = new Vtep(
    {
      limits: DEFAULT_SEGMENT_LIMITS,
      hashSeed: randomInt(2 ** 32),
      counters: new Float64Array(data.counters),
    },
    { now: () => performance.now() },
  );
  let io: PacketIo;

  const report = (message: DataplaneReport) => port.postMessage(message);
  /** @returns False when the thread shall end. */
  const obey = (command: DataplaneCommand): boolean => {
    switch (command.kind) {
      case 'tables':
        programVteps(command.update, io);
        for (const { index, keys } of command.seals) io.setSeals(index, keys);
        vtep.apply(command.update);
        return true;
      case 'seals':
        for (const { index, keys } of command.seals) io.setSeals(index, keys);
        return true;
      case 'allow-seals':
        io.allowSeals(command.first, command.count);
        return true;
      case 'add-port':
        io.addPort(command.index, command.fd);
        return true;
      case 'remove-port':
        io.removePort(command.index);
        return true;
      case 'barrier':
        report({ kind: 'passed', number: command.number });
        return true;
      case 'stop':
        return false;
    }
  };
  const tick = () => {
    vtep.tick();
    const outliers = vtep.changedOutliers();
    if (outliers !== undefined) report({ kind: 'outliers', outliers });
  };
  const poll = (): boolean => {
    tick();
    for (
      let held = receiveMessageOnPort(port);
      held !== undefined;
      held = receiveMessageOnPort(port)
    ) {
      if (!obey(held.message as DataplaneCommand)) return false;
    }
    return true;
  };

  const opened = openPacketIo(data.driver, data.io, { poll, stats: ioCounters });
  io = opened.io;
  const { reason, wakeFd } = opened;
  report({ kind: 'ready', driver: io.kind, reason, wakeFd, canSeal: io.canSeal });
  if (wakeFd !== undefined) {
    // Returns when the loop has ended.
    io.start(vtep);
    port.close();
    return;
  }

  io.start(vtep);
  const ticking = setInterval(() => {
    tick();
    const stats = io.stats();
    for (const [i, name] of STATS_FIELDS.entries()) ioCounters[i] = stats[name];
  }, TICK_INTERVAL_MS);
  port.on('message', (command: DataplaneCommand) => {
    if (obey(command)) return;
    clearInterval(ticking);
    void io.stop().then(() => port.close());
  });
}

assert(parentPort !== null, 'runs as a worker');
try {
  run(parentPort, workerData as DataplaneWorkerData);
} catch (error) {
  const taken = error instanceof AgentError && error.code === 'SWARM_PORT_TAKEN';
  const { io } = workerData as DataplaneWorkerData;
  const report: DataplaneReport = taken
    ? { kind: 'port-taken', port: io.udpPort }
    : { kind: 'failed', message: (error as Error).message };
  parentPort.postMessage(report);
}
