import { DEFAULT_BALANCE } from '../../src/dataplane/core/balance/config.js';
import { PacketBatch, TO_PORT } from '../../src/dataplane/core/batch.js';
import {
  newOverlayCounters,
  type OverlayStats,
  readOverlayStats,
} from '../../src/dataplane/overlay/core/counters.js';
import { deriveTables, type OverlayInputs } from '../../src/dataplane/overlay/core/derive.js';
import {
  diffTables,
  NOTHING_PUBLISHED,
  type PublishedTables,
} from '../../src/dataplane/overlay/core/diff.js';
import { DEFAULT_SEGMENT_LIMITS, Vtep } from '../../src/dataplane/overlay/core/vtep.js';
import { parseAddress } from '../../src/dataplane/wire/address.js';
import { checksum, checksum6, ethernet, ip4, ipv4, ipv6 } from './frames.js';
import { endpointOf, inputsOf, macOfEndpoint, NETWORK_ID, portOf } from './overlay.js';

export const VIP = '10.0.1.200';
export const VIP6 = 'fd00:1::200';
export const VIP_MAC_TEXT = '02:53:48:4f:41:4c';

export const SYN = 0x02;
export const ACK = 0x10;
export const FIN = 0x01;
export const RST = 0x04;

type State = 'starting' | 'ready' | 'draining';

export const ofService = (n: number, state: State = 'ready', id = 's1') => ({
  service: { id, name: 'web', taskId: `task${n}`, slot: n },
  state,
});

/** Ports 1 and 2 are clients here; 5 is a task here; `b` has task 3, `c` task 4. */
export function vipInputs(change: Partial<OverlayInputs> = {}): OverlayInputs {
  return inputsOf({
    ports: [portOf(1), portOf(2), portOf(5, ofService(5))],
    endpoints: [endpointOf('b', 3, ofService(3)), endpointOf('c', 4, ofService(4))],
    services: [
      {
        id: 's1',
        vips: [
          { networkId: NETWORK_ID, address: VIP },
          { networkId: NETWORK_ID, address: VIP6 },
        ],
        balance: DEFAULT_BALANCE,
      },
    ],
    ...change,
  });
}

export interface Sent {
  /** `port-1`, or the underlay address of a VTEP. */
  readonly to: string;
  readonly frame: Buffer;
}

/** A VTEP with its tables, driven frame by frame. */
export class VipBench {
  nowMs = 0;
  readonly counters = newOverlayCounters(false);
  readonly vtep: Vtep;
  readonly #batch = new PacketBatch(1 << 18);
  #published: PublishedTables = NOTHING_PUBLISHED;

  constructor(inputs: OverlayInputs = vipInputs(), vipFlowsMax?: number) {
    this.vtep = new Vtep(
      { limits: DEFAULT_SEGMENT_LIMITS, hashSeed: 7, counters: this.counters, vipFlowsMax },
      { now: () => this.nowMs },
    );
    this.publish(inputs);
  }

  publish(inputs: OverlayInputs): void {
    const { update, published } = diffTables(this.#published, deriveTables(inputs).tables);
    this.#published = published;
    this.vtep.apply(structuredClone(update));
  }

  get stats(): OverlayStats {
    return readOverlayStats(this.counters);
  }

  /** @param isPartial The transport checksum is the pseudo-header's sum only. */
  egress(port: string, frame: Buffer, isPartial = false): readonly Sent[] {
    this.#row(frame, isPartial);
    this.#batch.rowPort[0] = this.#published.portIndexes.get(port) ?? 999;
    this.vtep.egress(this.#batch);
    return this.#outputs();
  }

  ingress(sender: string, frame: Buffer): readonly Sent[] {
    const header = Buffer.from('0800000000000000', 'hex');
    header.writeUInt32BE(4097 * 0x100, 4);
    this.#row(Buffer.concat([header, frame]), false);
    this.#batch.arena.set(parseAddress(sender) ?? [], 0);
    this.#batch.rowSender[0] = 0;
    this.vtep.ingress(this.#batch);
    return this.#outputs();
  }

  #row(data: Buffer, isPartial: boolean): void {
    this.#batch.clear();
    this.#batch.arena.set(data, 128);
    this.#batch.rowOffset[0] = 128;
    this.#batch.rowLength[0] = data.length;
    this.#batch.rowGsoType[0] = 0;
    this.#batch.rowFlags[0] = isPartial ? 1 : 0;
    this.#batch.rowCount = 1;
  }

  #outputs(): readonly Sent[] {
    const batch = this.#batch;
    const { portIndexes, vtepIndexes } = this.#published;
    return Array.from({ length: batch.outCount }, (_, out) => {
      const indexes = batch.outKind[out] === TO_PORT ? portIndexes : vtepIndexes;
      const name = [...indexes].find(([, index]) => index === batch.outTarget[out])?.[0] ?? '?';
      const at = batch.outOffset[out] ?? 0;
      const frame = Buffer.from(batch.arena.subarray(at, at + (batch.outLength[out] ?? 0)));
      return { to: name.split(' ')[0] ?? '?', frame };
    });
  }
}

export interface Segment {
  readonly from: string;
  readonly to: string;
  readonly fromPort: number;
  readonly toPort: number;
  readonly flags?: number;
  readonly sequence?: number;
  readonly acknowledgment?: number;
  readonly payload?: string;
}

const is6 = (address: string) => address.includes(':');

function sumOver(from: string, to: string, protocol: number, message: Buffer): number {
  if (is6(from)) return checksum6(from, to, protocol, message);
  const pseudo = Buffer.alloc(4);
  pseudo[1] = protocol;
  pseudo.writeUInt16BE(message.length, 2);
  return checksum(Buffer.concat([ip4(from), ip4(to), pseudo, message]));
}

function packet(from: string, to: string, protocol: number, message: Buffer): Buffer {
  return is6(from)
    ? ipv6({ source: from, destination: to, next: protocol }, message)
    : ipv4({ source: from, destination: to, protocol, dontFragment: true }, message);
}

const etherTypeOf = (address: string) => (is6(address) ? 0x86dd : 0x0800);

/** A TCP segment in its packet. */
export function tcpPacket(segment: Segment): Buffer {
  const { from, to, fromPort, toPort, flags = ACK, payload = '' } = segment;
  const header = Buffer.alloc(20);
  header.writeUInt16BE(fromPort, 0);
  header.writeUInt16BE(toPort, 2);
  header.writeUInt32BE(segment.sequence ?? 0, 4);
  header.writeUInt32BE(segment.acknowledgment ?? 0, 8);
  header[12] = 0x50;
  header[13] = flags;
  const message = Buffer.concat([header, Buffer.from(payload)]);
  message.writeUInt16BE(sumOver(from, to, 6, message), 16);
  return packet(from, to, 6, message);
}

export function udpPacket({ from, to, fromPort, toPort, payload = '' }: Segment): Buffer {
  const body = Buffer.from(payload);
  const header = Buffer.alloc(8);
  header.writeUInt16BE(fromPort, 0);
  header.writeUInt16BE(toPort, 2);
  header.writeUInt16BE(8 + body.length, 4);
  const message = Buffer.concat([header, body]);
  message.writeUInt16BE(sumOver(from, to, 17, message) || 0xffff, 6);
  return packet(from, to, 17, message);
}

export function frameOf(fromMac: string, toMac: string, content: Buffer, address: string): Buffer {
  return ethernet(toMac, fromMac, etherTypeOf(address), content);
}

/** A frame of client `n` to the VIP. */
export function toVip(n: number, content: Buffer, address = VIP): Buffer {
  return frameOf(macOfEndpoint(n), VIP_MAC_TEXT, content, address);
}

export interface Seen {
  readonly fromMac: string;
  readonly toMac: string;
  readonly from: string;
  readonly to: string;
  readonly protocol: number;
  readonly fromPort: number;
  readonly toPort: number;
  readonly flags: number;
  readonly sequence: number;
  readonly acknowledgment: number;
  /** Header and transport checksums are right. */
  readonly isSound: boolean;
}

const macText = (bytes: Buffer) => bytes.toString('hex').replace(/(..)(?=.)/g, '$1:');

function text6(bytes: Buffer): string {
  const words = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(i * 2).toString(16));
  return words.join(':').replace(/(^|:)(0:)+0(:|$)|(^|:)(0:)+/, '::');
}

/** What a receiver makes of a frame with TCP or UDP inside. */
export function readFrame(frame: Buffer): Seen {
  const is4 = frame.readUInt16BE(12) === 0x0800;
  const l4 = is4 ? 34 : 54;
  const protocol = frame[is4 ? 23 : 20] ?? 0;
  const from = is4 ? frame.subarray(26, 30).join('.') : text6(frame.subarray(22, 38));
  const to = is4 ? frame.subarray(30, 34).join('.') : text6(frame.subarray(38, 54));
  const message = frame.subarray(l4, is4 ? 14 + frame.readUInt16BE(16) : undefined);
  const hasSum = protocol === 6 || message.readUInt16BE(6) !== 0;
  const isSummed = !hasSum || sumOver(from, to, protocol, message) === 0;
  return {
    toMac: macText(frame.subarray(0, 6)),
    fromMac: macText(frame.subarray(6, 12)),
    from,
    to,
    protocol,
    fromPort: message.readUInt16BE(0),
    toPort: message.readUInt16BE(2),
    flags: protocol === 6 ? (message[13] ?? 0) : 0,
    sequence: protocol === 6 ? message.readUInt32BE(4) : 0,
    acknowledgment: protocol === 6 ? message.readUInt32BE(8) : 0,
    isSound: isSummed && (!is4 || checksum(frame.subarray(14, 34)) === 0),
  };
}
