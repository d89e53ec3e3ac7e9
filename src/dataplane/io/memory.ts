import { assert } from '../../base/assert.js';
import { Prng } from '../../base/prng.js';
import { GSO_NONE, PacketBatch, TO_PORT, TO_VTEP_SEALED, UNSEALED } from '../core/batch.js';
import type { PacketHandler, PacketIo, PacketIoConfig, PacketIoStats } from '../core/packet-io.js';
import type { SealKeys } from '../core/seal.js';
import { ADDRESS_BYTES, parseAddress } from '../wire/address.js';
import { SEALED_MARKER } from '../wire/sealed.js';
import { encodeVxlanHeader, VXLAN_HEADER_BYTES } from '../wire/vxlan.js';
import { Sealer } from './sealer.js';
import { StatsCounter } from './stats-counter.js';

/** How the memory underlay hurts; chances in [0, 1], all 0 by default. */
export interface MemoryFaults {
  readonly loss?: number;
  readonly duplication?: number;
  /** Chance that a datagram lets the next one pass. */
  readonly reordering?: number;
}

/** One UDP datagram on the memory underlay. */
export interface MemoryDatagram {
  readonly from: string;
  readonly fromPort: number;
  readonly to: string;
  readonly toPort: number;
  readonly payload: Buffer;
}

/** Frames or datagrams that wait in one place; what comes on top is dropped. */
const QUEUE_MAX = 4096;
const ROWS_PER_BATCH = 64;
const ARENA_BYTES = 1 << 22;
const HEADROOM_BYTES = 64;
/** First pretended descriptor: far above those of the system, so that a mix-up shows. */
const FD_FIRST = 1_000_000;
const EPHEMERAL_PORT_FIRST = 49_152;

/** The task's side of a local port: sends and receives whole Ethernet frames. */
export class MemoryPort {
  /** What stands for a descriptor in `PacketIo.addPort`. */
  readonly fd: number;
  /** Frames that the task has been sent, oldest first. */
  readonly received: Buffer[] = [];
  readonly outgoing: Buffer[] = [];
  isOpen = true;

  constructor(fd: number) {
    this.fd = fd;
  }

  /** The task sends a frame; it moves when the network runs. */
  send(frame: Uint8Array): void {
    if (this.isOpen && this.outgoing.length < QUEUE_MAX) this.outgoing.push(Buffer.from(frame));
  }

  /** The device goes away under the driver. */
  kill(): void {
    this.isOpen = false;
    this.outgoing.length = 0;
  }
}

/** A socket on the memory underlay that speaks raw VXLAN: the far side of a test. */
export class MemorySocket {
  readonly address: string;
  readonly port: number;
  readonly received: MemoryDatagram[] = [];
  readonly #network: MemoryNetwork;

  constructor(network: MemoryNetwork, address: string, port: number) {
    this.#network = network;
    this.address = address;
    this.port = port;
  }

  send(payload: Uint8Array, to: string, toPort: number): void {
    const { address: from, port: fromPort } = this;
    this.#network.post({ from, fromPort, to, toPort, payload: Buffer.from(payload) });
  }
}

/** An underlay, its drivers and its sockets in memory. Nothing moves but in `run`: no time, no threads. */
export class MemoryNetwork {
  readonly #prng: Prng;
  readonly #faults: Required<MemoryFaults>;
  readonly #ports = new Map<number, MemoryPort>();
  readonly #sockets = new Map<string, MemorySocket>();
  readonly #drivers = new Set<MemoryPacketIo>();
  #underway: MemoryDatagram[] = [];
  #nextFd = FD_FIRST;

  /** @param seed Repeats the faults. */
  constructor(seed = 1, faults: MemoryFaults = {}) {
    this.#prng = new Prng(seed);
    this.#faults = { loss: 0, duplication: 0, reordering: 0, ...faults };
  }

  openPort(): MemoryPort {
    const port = new MemoryPort(this.#nextFd++);
    this.#ports.set(port.fd, port);
    return port;
  }

  openSocket(address: string, port: number): MemorySocket {
    const socket = new MemorySocket(this, address, port);
    this.#sockets.set(`${address} ${port}`, socket);
    return socket;
  }

  /** The port behind a pretended descriptor. */
  portOf(fd: number): MemoryPort {
    const port = this.#ports.get(fd);
    assert(port !== undefined, 'the descriptor came from openPort');
    return port;
  }

  join(driver: MemoryPacketIo): void {
    this.#drivers.add(driver);
  }

  leave(driver: MemoryPacketIo): void {
    this.#drivers.delete(driver);
  }

  /** Puts a datagram on its way, with the faults. */
  post(datagram: MemoryDatagram): void {
    const { loss, duplication, reordering } = this.#faults;
    if (this.#underway.length >= QUEUE_MAX * 16 || this.#prng.chance(loss)) return;
    const overtakes = this.#underway.length > 0 && this.#prng.chance(reordering);
    const at = this.#underway.length - (overtakes ? 1 : 0);
    this.#underway.splice(at, 0, datagram);
    if (this.#prng.chance(duplication)) this.#underway.push(datagram);
  }

  /**
   * Moves everything until nothing moves any more.
   *
   * @param roundsMax Guards against a loop between two drivers.
   */
  run(roundsMax = 10_000): void {
    for (let round = 0; round < roundsMax; round++) {
      let moved = false;
      for (const driver of this.#drivers) moved = driver.readPorts() || moved;
      const underway = this.#underway;
      this.#underway = [];
      for (const datagram of underway) this.#arrive(datagram);
      for (const driver of this.#drivers) driver.readUnderlay();
      if (!moved && underway.length === 0) return;
    }
    assert(false, 'the memory network comes to rest');
  }

  #arrive(datagram: MemoryDatagram): void {
    const { to, toPort } = datagram;
    this.#sockets.get(`${to} ${toPort}`)?.received.push(datagram);
    for (const driver of this.#drivers) driver.accept(datagram);
  }
}

/** The driver for tests: ports and underlay are queues of a `MemoryNetwork`. */
export class MemoryPacketIo implements PacketIo {
  readonly kind = 'memory';
  readonly canSeal = true;
  readonly #network: MemoryNetwork;
  readonly #addresses: readonly string[];
  readonly #config: PacketIoConfig;
  readonly #ports = new Map<number, MemoryPort>();
  readonly #vteps = new Map<number, { readonly address: string; readonly udpPort: number }>();
  readonly #batch = new PacketBatch(ARENA_BYTES);
  readonly #arrived: MemoryDatagram[] = [];
  readonly #stats = new StatsCounter();
  readonly #sealer = new Sealer();
  #handler: PacketHandler | undefined;

  /** @param addresses The node's underlay addresses; the first of a family is the source. */
  constructor(network: MemoryNetwork, addresses: readonly string[], config: PacketIoConfig) {
    this.#network = network;
    this.#addresses = addresses;
    this.#config = config;
    network.join(this);
  }

  addPort(index: number, fd: number): void {
    this.removePort(index);
    this.#ports.set(index, this.#network.portOf(fd));
  }

  removePort(index: number): void {
    this.#ports.get(index)?.kill();
    this.#ports.delete(index);
  }

  setVtep(index: number, address: string, udpPort: number): void {
    this.#vteps.set(index, { address, udpPort });
  }

  removeVtep(index: number): void {
    this.#vteps.delete(index);
    this.#sealer.setKeys(index, undefined);
  }

  setSeals(index: number, keys: SealKeys | undefined): void {
    this.#sealer.setKeys(index, keys);
  }

  allowSeals(first: bigint, count: number): void {
    this.#sealer.allow(first, count);
  }

  start(handler: PacketHandler): void {
    this.#handler = handler;
  }

  stop(): Promise<void> {
    this.#handler = undefined;
    for (const index of [...this.#ports.keys()]) this.removePort(index);
    this.#network.leave(this);
    return Promise.resolve();
  }

  stats(): PacketIoStats {
    return this.#stats.snapshot();
  }

  /** Called by the network: takes a datagram that is meant for this driver. */
  accept(datagram: MemoryDatagram): void {
    if (datagram.toPort !== this.#config.udpPort || !this.#addresses.includes(datagram.to)) return;
    if (this.#handler === undefined) return;
    if (this.#arrived.length >= QUEUE_MAX) this.#stats.add('datagramReceiveDrops', 1);
    else this.#arrived.push(datagram);
  }

  /** Called by the network: one batch from the ports. @returns Whether there was one. */
  readPorts(): boolean {
    const handler = this.#handler;
    if (handler === undefined) return false;
    const batch = this.#batch;
    batch.clear();
    let end = 0;
    for (const [index, port] of this.#ports) {
      for (const frame of port.outgoing.splice(0, ROWS_PER_BATCH - batch.rowCount)) {
        const row = this.#appendRow(end, frame);
        end = (batch.rowOffset[row] as number) + frame.length;
        batch.rowPort[row] = index;
        this.#stats.add('portFramesRead', 1);
        this.#stats.add('portBytesRead', frame.length);
      }
    }
    if (batch.rowCount === 0) return false;
    handler.egress(batch);
    this.#perform();
    return true;
  }

  /** Called by the network: hands over what `accept` took. */
  readUnderlay(): void {
    const handler = this.#handler;
    while (handler !== undefined && this.#arrived.length > 0) {
      const batch = this.#batch;
      batch.clear();
      let end = 0;
      for (const { from, payload } of this.#arrived.splice(0, ROWS_PER_BATCH)) {
        this.#stats.add('datagramsReceived', 1);
        this.#stats.add('datagramBytesReceived', payload.length);
        const opened =
          payload[0] === SEALED_MARKER
            ? this.#sealer.openCounted(payload, this.#stats)
            : { sealer: UNSEALED, plain: payload };
        if (opened === undefined) continue;
        const sender = end;
        batch.arena.set(parseAddress(from) ?? new Uint8Array(ADDRESS_BYTES), sender);
        const row = this.#appendRow(sender + ADDRESS_BYTES, opened.plain);
        end = (batch.rowOffset[row] as number) + opened.plain.length;
        batch.rowSender[row] = sender;
        batch.rowSealer[row] = opened.sealer;
      }
      handler.ingress(batch);
      this.#perform();
    }
  }

  #appendRow(at: number, data: Buffer): number {
    const batch = this.#batch;
    const row = batch.rowCount;
    const offset = at + HEADROOM_BYTES;
    batch.arena.set(data, offset);
    batch.rowOffset[row] = offset;
    batch.rowLength[row] = data.length;
    batch.rowGsoType[row] = GSO_NONE;
    batch.rowGsoSize[row] = 0;
    batch.rowFlags[row] = 0;
    batch.rowCount = row + 1;
    return row;
  }

  #perform(): void {
    const batch = this.#batch;
    for (let out = 0; out < batch.outCount; out++) {
      const offset = batch.outOffset[out] as number;
      const frame = batch.arena.subarray(offset, offset + (batch.outLength[out] as number));
      const target = batch.outTarget[out] as number;
      const vni = batch.outVni[out] as number;
      const hash = batch.outHash[out] as number;
      const kind = batch.outKind[out];
      if (kind === TO_PORT) this.#writePort(target, frame);
      else if (kind === TO_VTEP_SEALED) this.#sendSealed(target, vni, hash, frame);
      else this.#sendDatagram(target, hash, encapsulated(vni, frame));
    }
  }

  #sendSealed(index: number, vni: number, hash: number, frame: Buffer): void {
    const sealed = this.#sealer.sealCounted(index, vni, frame, this.#stats);
    if (sealed !== undefined) this.#sendDatagram(index, hash, sealed);
  }

  #writePort(index: number, frame: Buffer): void {
    const port = this.#ports.get(index);
    if (port?.isOpen !== true || port.received.length >= QUEUE_MAX) {
      this.#stats.add('portWriteDrops', 1);
      return;
    }
    port.received.push(Buffer.from(frame));
    this.#stats.add('portFramesWritten', 1);
    this.#stats.add('portBytesWritten', frame.length);
  }

  #sendDatagram(index: number, hash: number, payload: Buffer): void {
    const vtep = this.#vteps.get(index);
    const isIpv6 = vtep?.address.includes(':') ?? false;
    const from = this.#addresses.find((address) => address.includes(':') === isIpv6);
    if (vtep === undefined || from === undefined) {
      this.#stats.add('datagramSendDrops', 1);
      return;
    }
    const { sourcePorts, udpPort } = this.#config;
    const fromPort = sourcePorts > 1 ? EPHEMERAL_PORT_FIRST + (hash % sourcePorts) : udpPort;
    this.#network.post({ from, fromPort, to: vtep.address, toPort: vtep.udpPort, payload });
    this.#stats.add('datagramsSent', 1);
    this.#stats.add('datagramBytesSent', payload.length);
  }
}

function encapsulated(vni: number, frame: Buffer): Buffer {
  const payload = Buffer.alloc(VXLAN_HEADER_BYTES + frame.length);
  encodeVxlanHeader(new DataView(payload.buffer, payload.byteOffset, payload.length), 0, vni);
  payload.set(frame, VXLAN_HEADER_BYTES);
  return payload;
}
