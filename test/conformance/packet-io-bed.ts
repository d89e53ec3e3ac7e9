import type { Test } from 'tap';
import type { PacketIoStats } from '../../src/dataplane/core/packet-io.js';
import type { SealKeys } from '../../src/dataplane/core/seal.js';
import type { PatchReport, PatchRoutes } from './patch-panel.js';

/** The task's side of a port. */
export interface TestPort {
  send(frame: Buffer): void;
  /** Frames that the driver has written, oldest first. */
  received(): readonly Buffer[];
  /** The device goes away without the driver being told. */
  kill(): Promise<void>;
  /** Whether the device still is there. */
  exists(): boolean;
}

export interface TestDatagram {
  readonly fromPort: number;
  readonly payload: Buffer;
}

/** The far side of the underlay: a plain UDP socket. */
export interface TestPeer {
  readonly address: string;
  readonly port: number;
  send(payload: Buffer): void;
  received(): readonly TestDatagram[];
}

/** An open driver with a `PatchPanel` as its handler. */
export interface TestDriver {
  addPort(index: number): Promise<TestPort>;
  removePort(index: number): Promise<void>;
  setVtep(index: number, peer: { readonly address: string; readonly port: number }): Promise<void>;
  removeVtep(index: number): Promise<void>;
  setSeals(index: number, keys: SealKeys | undefined): Promise<void>;
  allowSeals(first: bigint, count: number): Promise<void>;
  wire(routes: PatchRoutes): Promise<void>;
  report(): Promise<PatchReport>;
  stats(): Promise<PacketIoStats>;
  stop(): Promise<void>;
}

/** What an implementation brings to the suite. */
export interface PacketIoBed {
  open(t: Test, options?: { readonly sourcePorts?: number }): Promise<TestDriver>;
  openPeer(t: Test, family: 'ipv4' | 'ipv6'): Promise<TestPeer>;
  /** Lets things move. */
  settle(): Promise<void>;
}

/** A type for local experiments: no stack answers it. */
const ETHERTYPE = '88b5';

/** A frame whose content is told by `label`; its first byte of payload is the flow. */
export function testFrame(label: string, length = 60, flow = 0): Buffer {
  const frame = Buffer.alloc(length);
  Buffer.from(`02420a00000202420a000001${ETHERTYPE}`, 'hex').copy(frame);
  frame[14] = flow;
  frame.write(label, 15, 'latin1');
  return frame;
}

export function vxlan(vni: number, frame: Buffer): Buffer {
  const header = Buffer.from('0800000000000000', 'hex');
  header.writeUInt32BE(vni * 0x100, 4);
  return Buffer.concat([header, frame]);
}

export const isTest = (frame: Buffer) => frame.toString('hex', 12, 14) === ETHERTYPE;
