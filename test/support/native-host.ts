import { readlinkSync } from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import type { PacketBatch } from '../../src/dataplane/core/batch.js';
import type { PacketHandler } from '../../src/dataplane/core/packet-io.js';
import { NativePacketIo } from '../../src/dataplane/io/native.js';
import { loadNative, nativeUnavailableReason } from '../../src/dataplane/io/native-binding.js';
import { inNetns } from '../../src/dataplane/io/netns.js';

/** What a worker running this module serves. */
export interface NativeHostOptions {
  /** Namespace of the underlay. */
  readonly netns: string;
  /** Ports, from index 0. One is wired to VTEP 0; two are wired to each other, with copies to VTEP 0. */
  readonly tapFds: readonly number[];
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

const ETHERTYPE_ARP = 0x0806;
const ARP_FRAME_BYTES = 42;
/** The host that only the handler itself speaks for: 10.8.0.99. */
export const SCRATCH_HOST = 0x0a08_0063;
export const SCRATCH_MAC = '02:00:00:00:00:63';
const [VTEP_NEVER_SET, PORT_NEVER_ADDED] = [7, 9];

/** Ports 0 and 1 hear each other, VTEP 0 hears both; ARP for one address is answered here. */
class Hub extends StaticWire {
  override egress(batch: PacketBatch): void {
    // The copies first: what the driver does to send them must not show in the local delivery.
    super.egress(batch);
    for (let row = 0; row < batch.rowCount; row += 1) {
      const offset = batch.rowOffset[row]!;
      batch.emitToPort(row, offset, batch.rowLength[row]!, 1 - batch.rowPort[row]!);
      if (batch.view.getUint16(offset + 12) === ETHERTYPE_ARP) this.#onArp(batch, row, offset);
    }
  }

  override ingress(): void {}

  #onArp(batch: PacketBatch, row: number, offset: number): void {
    batch.emitToVtep(row, offset, batch.rowLength[row]!, VTEP_NEVER_SET, 1, 0);
    batch.emitToPort(row, offset, batch.rowLength[row]!, PORT_NEVER_ADDED);
    if (batch.view.getUint32(offset + 38) !== SCRATCH_HOST) return;
    const reply = batch.reserve(ARP_FRAME_BYTES);
    if (reply < 0) return;
    const mac = Buffer.from(SCRATCH_MAC.replaceAll(':', ''), 'hex');
    const { arena } = batch;
    arena.copy(arena, reply, offset + 6, offset + 12);
    arena.set(mac, reply + 6);
    arena.copy(arena, reply + 12, offset + 12, offset + 20);
    arena.writeUInt16BE(2, reply + 20);
    arena.set(mac, reply + 22);
    arena.writeUInt32BE(SCRATCH_HOST, reply + 28);
    arena.copy(arena, reply + 32, offset + 22, offset + 32);
    batch.emitToPort(-1, reply, ARP_FRAME_BYTES, batch.rowPort[row]!);
  }
}

/** The kernel's id of the calling thread. */
function threadOfCaller(): number {
  return Number(readlinkSync('/proc/thread-self').split('/').at(-1));
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
  for (const [index, fd] of options.tapFds.entries()) io.addPort(index, fd);
  io.setVtep(0, options.peer, options.udpPort);
  parentPort!.postMessage({ wakeFd: io.wakeFd, tid: threadOfCaller() });
  io.start(options.tapFds.length === 1 ? new StaticWire(options.vni) : new Hub(options.vni));
  parentPort!.postMessage('stopped');
}

if (parentPort !== null) serve(workerData as NativeHostOptions);
