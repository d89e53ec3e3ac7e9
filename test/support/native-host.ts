import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { PacketBatch } from '../../src/dataplane/core/batch.js';
import type { PacketHandler } from '../../src/dataplane/core/packet-io.js';
import { NativePacketIo } from '../../src/dataplane/io/native.js';
import { loadNative, nativeUnavailableReason } from '../../src/dataplane/io/native-binding.js';
import { inNetns } from '../../src/dataplane/io/netns.js';

/** What a worker running this module serves: one TAP against one VTEP. */
export interface NativeHostOptions {
  /** Namespace of the underlay. */
  readonly netns: string;
  readonly tapFd: number;
  readonly peer: string;
  readonly vni: number;
  readonly udpPort: number;
  readonly busyPollMicros: number;
  readonly sourcePorts: number;
  readonly stats: Float64Array;
}

const VXLAN_BYTES = 8;

/** Every frame of port 0 goes to VTEP 0, and back. */
class StaticWire implements PacketHandler {
  readonly #vni: number;

  constructor(vni: number) {
    this.#vni = vni;
  }

  egress(batch: PacketBatch): void {
    for (let row = 0; row < batch.rowCount; row += 1) {
      const offset = batch.rowOffset[row]!;
      const length = batch.rowLength[row]!;
      // Addresses and ports of IPv4; whatever lies there of other frames is as good.
      const hash =
        length < 38 ? 0 : batch.view.getUint32(offset + 34) ^ batch.view.getUint32(offset + 30);
      batch.emitToVtep(row, offset, length, 0, this.#vni, Math.imul(hash, 0x9e37_79b1) >>> 0);
    }
  }

  ingress(batch: PacketBatch): void {
    for (let row = 0; row < batch.rowCount; row += 1) {
      const length = batch.rowLength[row]! - VXLAN_BYTES;
      if (length < 14) continue;
      const offset = batch.rowOffset[row]!;
      if (batch.view.getUint32(offset + 4) >>> 8 !== this.#vni) continue;
      batch.emitToPort(row, offset + VXLAN_BYTES, length, 0);
    }
  }
}

function serve(options: NativeHostOptions): void {
  const binding = loadNative();
  if (binding === undefined) throw new Error(nativeUnavailableReason());
  const io = inNetns(
    options.netns,
    () =>
      new NativePacketIo(
        {
          udpPort: options.udpPort,
          receiveBufferBytes: 32 * 1024 * 1024,
          busyPollMicros: options.busyPollMicros,
          sourcePorts: options.sourcePorts,
        },
        {
          binding,
          poll: () => receiveMessageOnPort(parentPort!)?.message !== 'stop',
          stats: options.stats,
        },
      ),
  );
  io.addPort(0, options.tapFd);
  io.setVtep(0, options.peer, options.udpPort);
  parentPort!.postMessage({ wakeFd: io.wakeFd });
  io.start(new StaticWire(options.vni));
  parentPort!.postMessage('stopped');
}

if (parentPort !== null) serve(workerData as NativeHostOptions);
