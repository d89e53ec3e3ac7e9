import { unreachable } from '../../base/assert.js';
import { ByteReader, ByteWriter } from './bytes.js';
import {
  type Claim,
  claimBytes,
  decodeClaim,
  decodeMemberId,
  encodeClaim,
  type Incarnation,
  isMemberId,
  type MemberId,
} from './claim.js';
import { decodeEndpoint, type Endpoint, encodeEndpoint, endpointBytes } from './endpoint.js';

/** What one gossip datagram says, after unsealing. */
export interface Packet {
  readonly from: MemberId;
  /** The sender's own, so that whoever holds another claim about it tells it at once. */
  readonly incarnation: Incarnation;
  readonly messages: readonly Message[];
}

export type Message =
  /** Answer with `ack`. `target` undefined: whoever is at that address. */
  | { readonly kind: 'ping'; readonly seq: number; readonly target: MemberId | undefined }
  | { readonly kind: 'ack'; readonly seq: number }
  /** "Your indirect probe `seq` got no answer, but I live": Lifeguard's negative acknowledgement. */
  | { readonly kind: 'nack'; readonly seq: number }
  /** Probe `target` for me; answer with `ack` or `nack`. */
  | {
      readonly kind: 'pingRequest';
      readonly seq: number;
      readonly target: MemberId;
      readonly endpoint: Endpoint;
    }
  | { readonly kind: 'claim'; readonly claim: Claim }
  /** What the sender holds, as one hash per bucket of members. */
  | {
      readonly kind: 'digest';
      /** The sender wants what differs, and this digest in return. */
      readonly wantsReply: boolean;
      /** The sender could not send what differs now: ask again later. */
      readonly busy: boolean;
      readonly buckets: readonly number[];
    };

export const PACKET_VERSION = 1;
/** Hashes in a digest. A power of two. */
export const DIGEST_BUCKETS = 64;

/** Numbers of message types on the wire: append only, never renumber, never reuse. */
const TYPE = { ping: 1, ack: 2, nack: 3, pingRequest: 4, claim: 5, digest: 6 } as const;

const FLAG_WANTS_REPLY = 0x01;
const FLAG_BUSY = 0x02;
const MESSAGE_HEADER_BYTES = 3;

/** Why a datagram was not understood. Each value is also the name of its counter. */
export type PacketDrop = 'packet_truncated' | 'packet_version' | 'packet_malformed';

/** The decoded packet, with the count of messages of a newer version that were skipped. */
export interface DecodedPacket {
  readonly packet: Packet;
  readonly messagesUnknown: number;
}

/**
 * Layout, big-endian:
 *
 *  +--------+--------+---------------+--------+--------+--------+--------+
 *  |version | length |  from ...     |            incarnation            |
 *  +--------+--------+---------------+--------+--------+--------+--------+
 *  then messages to the end:
 *  +--------+--------+--------+---------------------
 *  |  type  |      length     |  body ...
 *  +--------+--------+--------+---------------------
 *
 * A message of an unknown type is skipped by its length, and so are bytes of a body beyond the
 * fields known here: a newer member may say more and is still understood.
 */
export function encodePacket(packet: Packet): Buffer {
  const target = Buffer.allocUnsafe(packetBytes(packet));
  const writer = new ByteWriter(target);
  writer.u8(PACKET_VERSION);
  writer.text8(packet.from);
  writer.u32(packet.incarnation);
  for (const message of packet.messages) {
    writer.u8(TYPE[message.kind]);
    writer.u16(messageBytes(message) - MESSAGE_HEADER_BYTES);
    encodeBody(writer, message);
  }
  return target;
}

/** Never throws: these bytes come from the network. */
export function decodePacket(bytes: Buffer): DecodedPacket | PacketDrop {
  const reader = new ByteReader(bytes);
  const version = reader.u8();
  if (reader.failed) return 'packet_truncated';
  if (version !== PACKET_VERSION) return 'packet_version';
  const from = decodeMemberId(reader);
  const incarnation = reader.u32() as Incarnation;
  if (reader.failed) return 'packet_truncated';
  if (from === undefined) return 'packet_malformed';

  const messages: Message[] = [];
  let messagesUnknown = 0;
  while (reader.remaining > 0) {
    const type = reader.u8();
    const body = reader.part(reader.u16());
    if (reader.failed) return 'packet_truncated';
    const message = decodeBody(type, body);
    if (message === 'malformed') return 'packet_malformed';
    if (message === 'unknown') messagesUnknown += 1;
    else messages.push(message);
  }
  return { packet: { from, incarnation, messages }, messagesUnknown };
}

/** Exactly the length of what `encodePacket` gives. */
export function packetBytes(packet: Packet): number {
  let bytes = packetHeaderBytes(packet.from);
  for (const message of packet.messages) bytes += messageBytes(message);
  return bytes;
}

export function packetHeaderBytes(from: MemberId): number {
  return 6 + from.length;
}

/** With the message's own header. */
export function messageBytes(message: Message): number {
  return MESSAGE_HEADER_BYTES + bodyBytes(message);
}

function bodyBytes(message: Message): number {
  switch (message.kind) {
    case 'ping':
      return 5 + (message.target?.length ?? 0);
    case 'ack':
    case 'nack':
      return 4;
    case 'pingRequest':
      return 5 + message.target.length + endpointBytes(message.endpoint);
    case 'claim':
      return claimBytes(message.claim);
    case 'digest':
      return 1 + 4 * DIGEST_BUCKETS;
    default:
      return unreachable(message);
  }
}

function encodeBody(writer: ByteWriter, message: Message): void {
  switch (message.kind) {
    case 'ping':
      writer.u32(message.seq);
      writer.text8(message.target ?? '');
      return;
    case 'ack':
    case 'nack':
      writer.u32(message.seq);
      return;
    case 'pingRequest':
      writer.u32(message.seq);
      writer.text8(message.target);
      encodeEndpoint(writer, message.endpoint);
      return;
    case 'claim':
      encodeClaim(writer, message.claim);
      return;
    case 'digest':
      writer.u8((message.wantsReply ? FLAG_WANTS_REPLY : 0) | (message.busy ? FLAG_BUSY : 0));
      for (const bucket of message.buckets) writer.u32(bucket);
      return;
    default:
      unreachable(message);
  }
}

function decodeBody(type: number, body: ByteReader): Message | 'unknown' | 'malformed' {
  switch (type) {
    case TYPE.ping:
      return decodePing(body);
    case TYPE.ack:
    case TYPE.nack: {
      const seq = body.u32();
      if (body.failed) return 'malformed';
      return { kind: type === TYPE.ack ? 'ack' : 'nack', seq };
    }
    case TYPE.pingRequest: {
      const seq = body.u32();
      const target = decodeMemberId(body);
      const endpoint = decodeEndpoint(body);
      if (body.failed || target === undefined || endpoint === undefined) return 'malformed';
      return { kind: 'pingRequest', seq, target, endpoint };
    }
    case TYPE.claim: {
      const claim = decodeClaim(body);
      return claim === undefined ? 'malformed' : { kind: 'claim', claim };
    }
    case TYPE.digest:
      return decodeDigest(body);
    default:
      return 'unknown';
  }
}

function decodePing(body: ByteReader): Message | 'malformed' {
  const seq = body.u32();
  const length = body.u8();
  if (body.failed) return 'malformed';
  if (length === 0) return { kind: 'ping', seq, target: undefined };
  const target = body.bytes(length).toString('latin1');
  return !body.failed && isMemberId(target) ? { kind: 'ping', seq, target } : 'malformed';
}

function decodeDigest(body: ByteReader): Message | 'malformed' {
  const flags = body.u8();
  const buckets: number[] = [];
  for (let i = 0; i < DIGEST_BUCKETS; i++) buckets.push(body.u32());
  if (body.failed) return 'malformed';
  return {
    kind: 'digest',
    wantsReply: (flags & FLAG_WANTS_REPLY) !== 0,
    busy: (flags & FLAG_BUSY) !== 0,
    buckets,
  };
}
