import { assert } from '../../base/assert.js';

/** Most rows that one batch can hold: 64 receive trains of 64 segments. */
export const ROWS_MAX = 4096;
/** Most outputs of one batch; what does not fit is dropped and counted (`batch_full`). */
export const OUTPUTS_MAX = 8192;
/** Bytes at the end of the arena for frames that the packet core makes itself (ARP, ND, ICMP). */
export const SCRATCH_BYTES = 256 * 1024;

/** Where an output goes. */
export const TO_VTEP = 1;
export const TO_PORT = 2;
/** To a VTEP, and sealed: whoever cannot seal drops it. */
export const TO_VTEP_SEALED = 3;

/** `rowSealer` of a datagram that came as it is: 0, so that a row about which nothing was said counts as such. */
export const UNSEALED = 0;

/** `rowGsoType`: the virtio-net header's GSO types, virtio 1.2 §5.1.6. */
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP_L4 = 5;

/** `rowFlags`: the inner transport checksum is a partial one that the sender must complete. */
export const ROW_NEEDS_CHECKSUM = 1;

/**
 * One batch of packets on its way through a packet core, in one direction.
 *
 * A driver fills rows (frames from local ports, or datagrams from the underlay), the packet core
 * appends outputs that refer to them, and the driver performs the outputs. Everything is a
 * preallocated typed array over one arena, so a packet costs no allocation, and native code can
 * read and write the same memory.
 *
 * Egress rows are Ethernet frames from a local port; `rowLength` can reach 65,535 + 14 when
 * `rowGsoType` is set (a super-frame, to be cut into segments of `rowGsoSize` payload bytes).
 * Ingress rows are UDP payloads, starting at the VXLAN header; sealed ones have been opened.
 */
export class PacketBatch {
  readonly arena: Buffer;
  readonly view: DataView;

  rowCount = 0;
  /** First byte of the row in the arena. */
  readonly rowOffset = new Int32Array(ROWS_MAX);
  readonly rowLength = new Int32Array(ROWS_MAX);
  /** Egress: index of the local port. */
  readonly rowPort = new Int32Array(ROWS_MAX);
  readonly rowGsoType = new Uint8Array(ROWS_MAX);
  readonly rowGsoSize = new Uint16Array(ROWS_MAX);
  readonly rowFlags = new Uint8Array(ROWS_MAX);
  /** Ingress: arena offset of the sender's address, 16 bytes, IPv4 as `::ffff:a.b.c.d`. */
  readonly rowSender = new Int32Array(ROWS_MAX);
  /** Ingress: one more than the index of the VTEP that sealed it, or `UNSEALED`. */
  readonly rowSealer = new Int32Array(ROWS_MAX);

  outCount = 0;
  readonly outKind = new Uint8Array(OUTPUTS_MAX);
  /** Row that the output came from; -1 for a frame made in the scratch. */
  readonly outRow = new Int32Array(OUTPUTS_MAX);
  /** First byte of the inner Ethernet frame in the arena. */
  readonly outOffset = new Int32Array(OUTPUTS_MAX);
  readonly outLength = new Int32Array(OUTPUTS_MAX);
  /** Index of the VTEP or of the port. */
  readonly outTarget = new Int32Array(OUTPUTS_MAX);
  readonly outVni = new Int32Array(OUTPUTS_MAX);
  /** Hash of the inner flow: chooses the outer source port (RFC 7348 §5). */
  readonly outHash = new Uint32Array(OUTPUTS_MAX);

  /** Outputs refused because `OUTPUTS_MAX` or the scratch was full, since the start. */
  overflowCount = 0;

  readonly #scratchStart: number;
  #scratchUsed = 0;

  /** @param arenaBytes Size of the row part; the scratch is added to it. */
  constructor(arenaBytes: number) {
    const buffer = new ArrayBuffer(arenaBytes + SCRATCH_BYTES);
    this.arena = Buffer.from(buffer);
    this.view = new DataView(buffer);
    this.#scratchStart = arenaBytes;
  }

  /** Forgets rows, outputs and scratch; drivers call it before they fill the batch. */
  clear(): void {
    this.rowCount = 0;
    this.outCount = 0;
    this.#scratchUsed = 0;
  }

  /** Sends `length` bytes at `offset` to VTEP `vtep` in segment `vni`; `row` is their origin or -1. */
  emitToVtep(
    row: number,
    offset: number,
    length: number,
    vtep: number,
    vni: number,
    hash: number,
    isSealed = false,
  ): void {
    const kind = isSealed ? TO_VTEP_SEALED : TO_VTEP;
    this.#emit(kind, row, offset, length, vtep, vni, hash);
  }

  /** Delivers `length` bytes at `offset` to local port `port`; `row` is their origin or -1. */
  emitToPort(row: number, offset: number, length: number, port: number): void {
    this.#emit(TO_PORT, row, offset, length, port, 0, 0);
  }

  /**
   * Room for a frame of the packet core's own making.
   *
   * @returns Arena offset, preceded by at least 64 bytes of headroom, or -1 when the scratch is full.
   */
  reserve(length: number): number {
    const start = this.#scratchStart + this.#scratchUsed + 64;
    const end = (start + length + 7) & ~7;
    if (end > this.arena.length) {
      this.overflowCount += 1;
      return -1;
    }
    this.#scratchUsed = end - this.#scratchStart;
    return start;
  }

  #emit(
    kind: number,
    row: number,
    offset: number,
    length: number,
    target: number,
    vni: number,
    hash: number,
  ): void {
    assert(offset >= 0 && offset + length <= this.arena.length, 'output lies in the arena');
    const out = this.outCount;
    if (out >= OUTPUTS_MAX) {
      this.overflowCount += 1;
      return;
    }
    this.outKind[out] = kind;
    this.outRow[out] = row;
    this.outOffset[out] = offset;
    this.outLength[out] = length;
    this.outTarget[out] = target;
    this.outVni[out] = vni;
    this.outHash[out] = hash;
    this.outCount = out + 1;
  }
}
