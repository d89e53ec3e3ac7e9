import type { PacketBatch } from '../../src/dataplane/core/batch.js';
import type { PacketHandler } from '../../src/dataplane/core/packet-io.js';

/** What the panel does with a row. */
export type PatchAction =
  | {
      readonly to: 'vtep';
      readonly index: number;
      readonly vni: number;
      readonly isSealed?: boolean;
    }
  | { readonly to: 'port'; readonly index: number }
  /** A frame of the handler's own making, in the scratch. */
  | { readonly to: 'made-for-port'; readonly index: number; readonly hex: string }
  | {
      readonly to: 'made-for-vtep';
      readonly index: number;
      readonly vni: number;
      readonly hex: string;
    };

export interface PatchRoutes {
  /** By the port that a frame comes from. */
  readonly ports: Readonly<Record<number, readonly PatchAction[]>>;
  /** By the VNI that a datagram carries. */
  readonly vnis: Readonly<Record<number, readonly PatchAction[]>>;
}

export interface PatchReport {
  /** Rows that the handler has been given. */
  readonly rows: number;
  /** Sixteen bytes of the last datagram's sender. */
  readonly lastSender: string;
  /** VTEP that sealed the last datagram, or -1. */
  readonly lastSealer: number;
  /** Rows that did not lie in the arena, or of which the driver said something impossible. */
  readonly faults: number;
}

const VXLAN_BYTES = 8;

/** A packet handler that is wired by hand, to see what a driver does without an overlay. */
export class PatchPanel implements PacketHandler {
  #routes: PatchRoutes = { ports: {}, vnis: {} };
  #rows = 0;
  #lastSender = '';
  #lastSealer = -1;
  #faults = 0;

  wire(routes: PatchRoutes): void {
    this.#routes = routes;
  }

  report(): PatchReport {
    return {
      rows: this.#rows,
      lastSender: this.#lastSender,
      lastSealer: this.#lastSealer,
      faults: this.#faults,
    };
  }

  egress(batch: PacketBatch): void {
    for (let row = 0; row < batch.rowCount; row++) {
      this.#note(batch, row);
      const actions = this.#routes.ports[batch.rowPort[row] ?? -1] ?? [];
      const offset = batch.rowOffset[row] ?? 0;
      const length = batch.rowLength[row] ?? 0;
      // The first byte of payload is the flow; spread over all bits, as a hash is.
      const flow = length > 14 ? batch.view.getUint8(offset + 14) : 0;
      const hash = Math.imul(flow, 0x9e37_79b1) >>> 0;
      for (const action of actions) act(batch, row, offset, length, hash, action);
    }
  }

  ingress(batch: PacketBatch): void {
    for (let row = 0; row < batch.rowCount; row++) {
      this.#note(batch, row);
      const offset = batch.rowOffset[row] ?? 0;
      const length = batch.rowLength[row] ?? 0;
      const sender = batch.rowSender[row] ?? 0;
      this.#lastSender = batch.arena.toString('hex', sender, sender + 16);
      this.#lastSealer = (batch.rowSealer[row] ?? -2) - 1;
      if (length < VXLAN_BYTES + 14) continue;
      const vni = batch.view.getUint32(offset + 4) >>> 8;
      for (const action of this.#routes.vnis[vni] ?? [])
        act(batch, row, offset + VXLAN_BYTES, length - VXLAN_BYTES, 0, action);
    }
  }

  #note(batch: PacketBatch, row: number): void {
    this.#rows += 1;
    const offset = batch.rowOffset[row] ?? -1;
    const length = batch.rowLength[row] ?? -1;
    if (offset < 0 || length < 0 || offset + length > batch.arena.length) this.#faults += 1;
  }
}

function act(
  batch: PacketBatch,
  row: number,
  offset: number,
  length: number,
  hash: number,
  action: PatchAction,
): void {
  switch (action.to) {
    case 'vtep':
      batch.emitToVtep(
        row,
        offset,
        length,
        action.index,
        action.vni,
        hash,
        action.isSealed === true,
      );
      return;
    case 'port':
      batch.emitToPort(row, offset, length, action.index);
      return;
    default: {
      const frame = Buffer.from(action.hex, 'hex');
      const at = batch.reserve(frame.length);
      if (at === -1) return;
      batch.arena.set(frame, at);
      if (action.to === 'made-for-port') batch.emitToPort(-1, at, frame.length, action.index);
      else batch.emitToVtep(-1, at, frame.length, action.index, action.vni, 0);
    }
  }
}
