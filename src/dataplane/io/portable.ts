import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { closeSync } from 'node:fs';
import { isIPv6 } from 'node:net';
import { performance } from 'node:perf_hooks';
import koffi from 'koffi';
import { GSO_NONE, PacketBatch, TO_PORT, TO_VTEP_SEALED, UNSEALED } from '../core/batch.js';
import type { PacketHandler, PacketIo, PacketIoConfig, PacketIoStats } from '../core/packet-io.js';
import type { SealKeys } from '../core/seal.js';
import { parseAddress } from '../wire/address.js';
import { addBytes, finishChecksum } from '../wire/checksum.js';
import { SEALED_MARKER } from '../wire/sealed.js';
import { encodeVxlanHeader, VXLAN_HEADER_BYTES } from '../wire/vxlan.js';
import {
  FAILED,
  openVxlanSocket,
  readFrame,
  socketDrops,
  WOULD_BLOCK,
  writeFrame,
} from './portable-sys.js';
import { Sealer } from './sealer.js';
import { StatsCounter } from './stats-counter.js';
import { VNET_HEADER_BYTES } from './tap.js';

/** Frames or datagrams per batch. */
const ROWS_PER_BATCH = 64;
/** Bytes in front of every row: room for the sender's address and for the headers put before it. */
const HEADROOM_BYTES = 64;
/** The largest frame: 64 KiB and an Ethernet header with a tag. */
const FRAME_BYTES_MAX = 65_536 + 18;
const ROW_BYTES_MAX = HEADROOM_BYTES + VNET_HEADER_BYTES + FRAME_BYTES_MAX;
/** Rows of usual size for a whole batch, and always one of the largest. */
const ARENA_BYTES = ROWS_PER_BATCH * 2048 + ROW_BYTES_MAX;
/** Batches whose sends the system may hold on to before reading pauses. */
const BATCHES_MAX = 4;
const BATCHES_PER_DROP_COUNT = 64;
/** Sender addresses whose bytes are remembered. */
const SENDERS_MAX = 4096;

// virtio-net header, virtio 1.2 §5.1.6, little-endian or, on a TAP, native: flags, gso_type,
// hdr_len, gso_size, csum_start, csum_offset.
const VNET_NEEDS_CHECKSUM = 1;
const VNET_GSO_TYPE_OFFSET = 1;
const VNET_GSO_SIZE_OFFSET = 4;
const VNET_CHECKSUM_START_OFFSET = 6;
const VNET_CHECKSUM_OFFSET_OFFSET = 8;
const IS_LITTLE_ENDIAN = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

type Family = 'ipv4' | 'ipv6';

interface TapPort {
  readonly index: number;
  readonly fd: number;
  readonly onReadable: (...args: unknown[]) => void;
  poll: ReturnType<typeof koffi.node.poll> | undefined;
}

interface UnderlayFamily {
  /** Receives, and sends when there is one source port only. */
  readonly main: Socket;
  readonly mainFd: number;
  /** Where flows leave from, by hash. */
  readonly senders: readonly Socket[];
}

/** A batch whose rows may still be on their way out. */
class PendingBatch {
  readonly batch = new PacketBatch(ARENA_BYTES);
  /** Bytes of the arena that rows take. */
  used = 0;
  sendsUnderway = 0;
  /** VNI that the VXLAN header in front of a row says, while it is there; by row. */
  readonly headerVni = new Int32Array(ROWS_PER_BATCH);
}

/**
 * The driver that needs no compiler: UDP through `node:dgram`, TAPs through FFI calls, both on this
 * thread's event loop.
 *
 * TAPs are expected without offloads, so that frames come whole and not larger than the MTU; a partial
 * checksum is completed here, and a super-frame is dropped and counted.
 */
export class PortablePacketIo implements PacketIo {
  readonly kind = 'portable';
  readonly canSeal = true;
  readonly #busyPollMs: number;
  readonly #underlay: Readonly<Partial<Record<Family, UnderlayFamily>>>;
  readonly #ports = new Map<number, TapPort>();
  readonly #vteps = new Map<number, { readonly address: string; readonly udpPort: number }>();
  readonly #free: PendingBatch[] = Array.from({ length: BATCHES_MAX }, () => new PendingBatch());
  readonly #senders = new Map<string, Uint8Array>();
  readonly #stats: StatsCounter;
  readonly #sealer = new Sealer();
  #arriving: PendingBatch | undefined;
  #flush: NodeJS.Immediate | undefined;
  #spin: NodeJS.Immediate | undefined;
  #activeUntilMs = 0;
  #batchesArrived = 0;
  #handler: PacketHandler | undefined;
  /** Datagrams that came when all batches were on their way out. */
  #unreadDrops = 0;
  #isStopped = false;

  /**
   * Binds the VXLAN port at once, in the calling thread's network namespace.
   *
   * @param stats Where to count, one number per `STATS_FIELDS`.
   * @throws SwarmError SWARM_PORT_TAKEN; SysError where sockets cannot be had.
   */
  constructor(config: PacketIoConfig, stats?: Float64Array) {
    this.#stats = new StatsCounter(stats);
    this.#busyPollMs = config.busyPollMicros / 1000;
    const ipv4 = this.#openFamily('ipv4', config);
    const ipv6 = this.#openFamily('ipv6', config);
    this.#underlay = {
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(ipv6 === undefined ? {} : { ipv6 }),
    };
  }

  addPort(index: number, fd: number): void {
    this.removePort(index);
    const port: TapPort = {
      index,
      fd,
      poll: undefined,
      // The declaration leaves out the first argument, libuv's status, which is negative when the
      // descriptor failed; the handle has stopped then.
      onReadable: (status) => {
        if (typeof status === 'number' && status < 0) this.#forget(port);
        else this.#readPort(port);
      },
    };
    this.#ports.set(index, port);
    if (this.#handler !== undefined) this.#watch(port);
  }

  removePort(index: number): void {
    const port = this.#ports.get(index);
    if (port !== undefined) this.#forget(port);
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
    for (const port of this.#ports.values()) this.#watch(port);
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return;
    this.#countReceiveDrops();
    this.#isStopped = true;
    this.#handler = undefined;
    clearImmediate(this.#flush);
    clearImmediate(this.#spin);
    for (const index of [...this.#ports.keys()]) this.removePort(index);
    const sockets = Object.values(this.#underlay).flatMap(({ main, senders }) => [
      ...new Set([main, ...senders]),
    ]);
    await Promise.all(
      sockets.map((socket) => new Promise<void>((resolve) => socket.close(() => resolve()))),
    );
  }

  stats(): PacketIoStats {
    this.#countReceiveDrops();
    return this.#stats.snapshot();
  }

  #countReceiveDrops(): void {
    if (this.#isStopped) return;
    let drops = this.#unreadDrops;
    for (const { mainFd } of Object.values(this.#underlay)) drops += socketDrops(mainFd);
    this.#stats.set('datagramReceiveDrops', drops);
  }

  #openFamily(family: Family, config: PacketIoConfig): UnderlayFamily | undefined {
    const fd = openVxlanSocket(family, config.udpPort, config.receiveBufferBytes);
    if (fd === undefined) return undefined;
    const main = adopt(family, fd);
    main.on('message', (payload, sender) => this.#onDatagram(payload, sender));
    const senders: Socket[] = [];
    for (let i = 0; config.sourcePorts > 1 && i < config.sourcePorts; i++) {
      // They only send: what comes back is nobody's, and a small buffer of it is enough.
      const senderFd = openVxlanSocket(family, 0, 4096);
      if (senderFd !== undefined) senders.push(adopt(family, senderFd));
    }
    return { main, mainFd: fd, senders: senders.length > 0 ? senders : [main] };
  }

  /** Closes a port: asked for, or because its device is gone. */
  #forget(port: TapPort): void {
    if (this.#ports.get(port.index) !== port) return;
    this.#ports.delete(port.index);
    port.poll?.close();
    closeSync(port.fd);
  }

  #watch(port: TapPort): void {
    port.poll = koffi.node.poll(port.fd, { readable: true }, port.onReadable);
  }

  /** One batch of what the port has; the poll calls again if there is more. */
  #readPort(port: TapPort): void {
    const handler = this.#handler;
    const pending = this.#free.pop();
    if (handler === undefined || pending === undefined) {
      // Everything is on its way out still: `#release` goes on.
      port.poll?.stop();
      return;
    }
    const { batch } = pending;
    resetBatch(pending);
    let isAlive = true;
    while (batch.rowCount < ROWS_PER_BATCH && pending.used + ROW_BYTES_MAX <= ARENA_BYTES) {
      const start = pending.used + HEADROOM_BYTES;
      const count = readFrame(
        port.fd,
        batch.arena.subarray(start, start + VNET_HEADER_BYTES + FRAME_BYTES_MAX),
      );
      if (count === WOULD_BLOCK) break;
      if (count === FAILED) {
        isAlive = false;
        break;
      }
      if (count >= VNET_HEADER_BYTES) this.#appendFrame(pending, port.index, start, count);
    }
    if (!isAlive) this.#forget(port);
    if (batch.rowCount > 0) {
      this.#noteActivity();
      handler.egress(batch);
    }
    this.#perform(pending);
  }

  #appendFrame(pending: PendingBatch, port: number, start: number, count: number): void {
    const { batch } = pending;
    const { view } = batch;
    const row = batch.rowCount;
    const offset = start + VNET_HEADER_BYTES;
    const length = count - VNET_HEADER_BYTES;
    if ((view.getUint8(start) & VNET_NEEDS_CHECKSUM) !== 0)
      completeChecksum(view, start, offset, length);
    batch.rowOffset[row] = offset;
    batch.rowLength[row] = length;
    batch.rowPort[row] = port;
    batch.rowGsoType[row] = view.getUint8(start + VNET_GSO_TYPE_OFFSET);
    batch.rowGsoSize[row] = view.getUint16(start + VNET_GSO_SIZE_OFFSET, IS_LITTLE_ENDIAN);
    batch.rowFlags[row] = 0;
    batch.rowCount = row + 1;
    pending.used = offset + length;
    this.#stats.add('portFramesRead', 1);
    this.#stats.add('portBytesRead', length);
  }

  #onDatagram(datagram: Buffer, sender: RemoteInfo): void {
    if (this.#handler === undefined) return;
    this.#stats.add('datagramsReceived', 1);
    this.#stats.add('datagramBytesReceived', datagram.length);
    const from = this.#senderBytes(sender.address);
    if (from === undefined || datagram.length > FRAME_BYTES_MAX) return;
    const opened =
      datagram[0] === SEALED_MARKER
        ? this.#sealer.openCounted(datagram, this.#stats)
        : { sealer: UNSEALED, plain: datagram };
    if (opened !== undefined) this.#appendDatagram(from, opened.plain, opened.sealer);
  }

  #appendDatagram(from: Uint8Array, payload: Buffer, sealer: number): void {
    this.#arriving ??= this.#takeForArrival();
    if (this.#arriving === undefined) {
      this.#unreadDrops += 1;
      return;
    }
    const { batch } = this.#arriving;
    const row = batch.rowCount;
    const addressAt = this.#arriving.used;
    const offset = addressAt + HEADROOM_BYTES;
    batch.arena.set(from, addressAt);
    batch.arena.set(payload, offset);
    batch.rowOffset[row] = offset;
    batch.rowLength[row] = payload.length;
    batch.rowSender[row] = addressAt;
    batch.rowSealer[row] = sealer;
    batch.rowGsoType[row] = GSO_NONE;
    batch.rowFlags[row] = 0;
    batch.rowCount = row + 1;
    this.#arriving.used = offset + payload.length;
    const isFull =
      batch.rowCount >= ROWS_PER_BATCH || this.#arriving.used + ROW_BYTES_MAX > ARENA_BYTES;
    if (isFull) this.#handOverArrived();
    else this.#flush ??= setImmediate(() => this.#handOverArrived());
  }

  #takeForArrival(): PendingBatch | undefined {
    const pending = this.#free.pop();
    if (pending !== undefined) resetBatch(pending);
    return pending;
  }

  /** What came in this turn of the event loop goes to the handler as one batch. */
  #handOverArrived(): void {
    clearImmediate(this.#flush);
    this.#flush = undefined;
    const pending = this.#arriving;
    this.#arriving = undefined;
    if (pending === undefined || this.#handler === undefined) return;
    this.#noteActivity();
    this.#handler.ingress(pending.batch);
    this.#perform(pending);
    // Asked of the system now and then only, for those who read the counters without `stats()`.
    this.#batchesArrived += 1;
    if (this.#batchesArrived % BATCHES_PER_DROP_COUNT === 0) this.#countReceiveDrops();
  }

  /** Sixteen bytes of an address as the event tells it; parsed once per sender. */
  #senderBytes(address: string): Uint8Array | undefined {
    const held = this.#senders.get(address);
    if (held !== undefined) return held;
    const bytes = parseAddress(address.replace(/%.*$/, ''));
    if (this.#senders.size >= SENDERS_MAX) this.#senders.clear();
    if (bytes !== undefined) this.#senders.set(address, bytes);
    return bytes;
  }

  /**
   * Ports before VTEPs: a write to a port is over when it returns, while a send may still need the
   * header in front of the frame, which is also where a port's header goes.
   */
  #perform(pending: PendingBatch): void {
    const { batch } = pending;
    for (let out = 0; out < batch.outCount; out++)
      if (batch.outKind[out] === TO_PORT) this.#writePort(batch, out);
    // Held until the loop is over, so that a callback does not free the batch half sent.
    pending.sendsUnderway = 1;
    for (let out = 0; out < batch.outCount; out++)
      if (batch.outKind[out] !== TO_PORT) this.#send(pending, out);
    this.#release(pending);
  }

  #writePort(batch: PacketBatch, out: number): void {
    const port = this.#ports.get(batch.outTarget[out] as number);
    const start = (batch.outOffset[out] as number) - VNET_HEADER_BYTES;
    const length = batch.outLength[out] as number;
    if (port === undefined || isSuperFrame(batch, out)) {
      this.#stats.add('portWriteDrops', 1);
      return;
    }
    // All zero: no offload, and a checksum that the kernel verifies.
    batch.arena.fill(0, start, start + VNET_HEADER_BYTES);
    const frame = batch.arena.subarray(start, start + VNET_HEADER_BYTES + length);
    if (writeFrame(port.fd, frame) < 0) {
      this.#stats.add('portWriteDrops', 1);
      return;
    }
    this.#stats.add('portFramesWritten', 1);
    this.#stats.add('portBytesWritten', length);
  }

  #send(pending: PendingBatch, out: number): void {
    const { batch } = pending;
    const vtep = this.#vteps.get(batch.outTarget[out] as number);
    const family = vtep === undefined ? undefined : this.#underlay[familyOf(vtep.address)];
    if (vtep === undefined || family === undefined || isSuperFrame(batch, out)) {
      this.#stats.add('datagramSendDrops', 1);
      return;
    }
    const socket = family.senders[(batch.outHash[out] as number) % family.senders.length] as Socket;
    const datagram =
      batch.outKind[out] === TO_VTEP_SEALED ? this.#sealed(batch, out) : encapsulated(pending, out);
    if (datagram === undefined) return;
    const { length } = datagram;
    pending.sendsUnderway += 1;
    socket.send(datagram, 0, length, vtep.udpPort, vtep.address, (error) => {
      if (error === null) {
        this.#stats.add('datagramsSent', 1);
        this.#stats.add('datagramBytesSent', length);
      } else {
        this.#stats.add('datagramSendDrops', 1);
      }
      this.#release(pending);
    });
  }

  #sealed(batch: PacketBatch, out: number): Buffer | undefined {
    const offset = batch.outOffset[out] as number;
    const frame = batch.arena.subarray(offset, offset + (batch.outLength[out] as number));
    const vtep = batch.outTarget[out] as number;
    return this.#sealer.sealCounted(vtep, batch.outVni[out] as number, frame, this.#stats);
  }

  /** One send less; after the last, the batch can be filled again. */
  #release(pending: PendingBatch): void {
    pending.sendsUnderway -= 1;
    if (pending.sendsUnderway > 0) return;
    this.#free.push(pending);
    if (this.#free.length > 1 || this.#handler === undefined) return;
    // There was none: ports that had to pause go on.
    for (const { poll, onReadable } of this.#ports.values())
      poll?.start({ readable: true }, onReadable);
  }

  /** Keeps the event loop turning for a while after the last packet, instead of sleeping. */
  #noteActivity(): void {
    if (this.#busyPollMs === 0) return;
    this.#activeUntilMs = performance.now() + this.#busyPollMs;
    this.#spin ??= setImmediate(() => this.#turn());
  }

  #turn(): void {
    this.#spin = undefined;
    if (this.#handler === undefined || performance.now() > this.#activeUntilMs) return;
    this.#spin = setImmediate(() => this.#turn());
  }
}

/** Sends to literals only, so nothing has to be resolved, and nothing is put off to another turn. */
const noLookup = (
  hostname: string,
  _family: unknown,
  callback: (error: null, address: string) => void,
): void => callback(null, hostname);

/** A dgram socket that owns a descriptor. */
function adopt(family: Family, fd: number): Socket {
  const type = family === 'ipv4' ? 'udp4' : 'udp6';
  const socket = createSocket({ type, lookup: noLookup as never });
  // Errors of sends go to their callbacks; one of the socket itself ends nothing else.
  socket.on('error', () => {});
  socket.bind({ fd, exclusive: true });
  return socket;
}

function familyOf(address: string): Family {
  return isIPv6(address) ? 'ipv6' : 'ipv4';
}

function resetBatch(pending: PendingBatch): void {
  pending.batch.clear();
  pending.used = 0;
  pending.headerVni.fill(-1);
}

function isSuperFrame(batch: PacketBatch, out: number): boolean {
  const row = batch.outRow[out] as number;
  return row !== -1 && batch.rowGsoType[row] !== GSO_NONE;
}

/**
 * The datagram of an output: the VXLAN header goes in front of the frame, where it is. Only if the
 * same row was sent into another segment before, whose send may not be over, it is copied.
 */
function encapsulated(pending: PendingBatch, out: number): Buffer {
  const { batch, headerVni } = pending;
  const row = batch.outRow[out] as number;
  const vni = batch.outVni[out] as number;
  const offset = batch.outOffset[out] as number;
  const start = offset - VXLAN_HEADER_BYTES;
  const end = offset + (batch.outLength[out] as number);
  const isTaken = row !== -1 && headerVni[row] !== -1 && headerVni[row] !== vni;
  if (isTaken) {
    const copy = Buffer.from(batch.arena.subarray(start, end));
    encodeVxlanHeader(new DataView(copy.buffer, copy.byteOffset, copy.length), 0, vni);
    return copy;
  }
  encodeVxlanHeader(batch.view, start, vni);
  if (row !== -1) headerVni[row] = vni;
  return batch.arena.subarray(start, end);
}

/** Finishes what the kernel left to a network card: the sum from `csum_start` to the end. */
function completeChecksum(view: DataView, header: number, frame: number, length: number): void {
  const start = view.getUint16(header + VNET_CHECKSUM_START_OFFSET, IS_LITTLE_ENDIAN);
  const field = start + view.getUint16(header + VNET_CHECKSUM_OFFSET_OFFSET, IS_LITTLE_ENDIAN);
  if (field + 2 > length) return;
  // The field already holds the sum of the pseudo-header, so it is part of what is added up.
  const sum = finishChecksum(addBytes(view, frame + start, length - start, 0));
  // Zero would say "no checksum" in UDP; for TCP both mean the same.
  view.setUint16(frame + field, sum === 0 ? 0xffff : sum);
}
