import { unreachable } from '../../base/assert.js';
import { ByteReader, ByteWriter } from './record-bytes.js';
import {
  type DeltaHead,
  namesFit,
  type RecordEvent,
  readDelta,
  writeDelta,
} from './record-delta.js';

/** The largest frame of an exchange. */
export const EXCHANGE_MESSAGE_BYTES_MAX = 1 << 20;
export const DIGEST_BYTES = 32;
/** Owners in all vectors of one message: with the longest names these take 650 KiB. */
export const VECTOR_OWNERS_MAX = 8192;
export const EXCHANGE_TOPICS_MAX = 1024;
export const PAGE_PARTS_MAX = 16_384;

/** How far one owner's writes are known: all up to `seq` of `epoch`. */
export interface OwnerVersion {
  readonly owner: string;
  readonly epoch: number;
  readonly seq: number;
}

export interface TopicDigest {
  readonly topic: string;
  /** 32 bytes over the topic's version vector. */
  readonly digest: Uint8Array;
}

export interface TopicVector {
  readonly topic: string;
  readonly owners: readonly OwnerVersion[];
}

/** A piece of a delta; the pieces of one delta follow each other and `final` marks its last. */
export interface DeltaPart {
  readonly head: DeltaHead;
  readonly events: readonly RecordEvent[];
  readonly final: boolean;
}

/**
 * One conversation: the initiator sends `digests`, the responder answers with the `vectors` of the
 * topics that differ (none: both are done), the initiator sends its own vectors of the same, and
 * then each side streams what the other lacks in `page`s, one at a time, the next after `more`.
 */
export type ExchangeMessage =
  | { readonly kind: 'digests'; readonly topics: readonly TopicDigest[] }
  /** `partial`: more topics differ than fit, so another exchange should follow. */
  | { readonly kind: 'vectors'; readonly topics: readonly TopicVector[]; readonly partial: boolean }
  | { readonly kind: 'page'; readonly parts: readonly DeltaPart[]; readonly last: boolean }
  | { readonly kind: 'more' };

export type ExchangeDrop = 'exchange_oversized' | 'exchange_malformed' | 'exchange_type';

/** Append-only. */
const TYPE = { digests: 1, vectors: 2, page: 3, more: 4 } as const;

/**
 *   digests: type u8 | count u16 | count x (topic text8 | digest 32 bytes)
 *   vectors: type u8 | partial u8 | count u16 | count x (topic text8 | owners u32 |
 *            owners x (owner text8 | epoch u48 | seq u48))
 *   page:    type u8 | last u8 | count u32 | count x (final u8 | delta)
 *   more:    type u8
 */
export function encodeExchange(message: ExchangeMessage): Buffer {
  const writer = new ByteWriter(1024);
  writer.uint8(TYPE[message.kind]);
  switch (message.kind) {
    case 'digests':
      writer.uint16(message.topics.length);
      for (const { topic, digest } of message.topics) {
        writer.text8(topic);
        writer.bytes(digest);
      }
      break;
    case 'vectors':
      writeVectors(writer, message.topics, message.partial);
      break;
    case 'page':
      writer.uint8(message.last ? 1 : 0);
      writer.uint32(message.parts.length);
      for (const { head, events, final } of message.parts) {
        writer.uint8(final ? 1 : 0);
        writeDelta(writer, head, events);
      }
      break;
    case 'more':
      break;
    default:
      unreachable(message);
  }
  return writer.finish();
}

/** Never throws. Values are views into `bytes`. */
export function decodeExchange(bytes: Uint8Array): ExchangeMessage | ExchangeDrop {
  if (bytes.length > EXCHANGE_MESSAGE_BYTES_MAX) return 'exchange_oversized';
  const reader = new ByteReader(bytes);
  let message: ExchangeMessage | undefined;
  switch (reader.uint8()) {
    case TYPE.digests:
      message = readDigests(reader);
      break;
    case TYPE.vectors:
      message = readVectors(reader);
      break;
    case TYPE.page:
      message = readPage(reader);
      break;
    case TYPE.more:
      message = { kind: 'more' };
      break;
    default:
      return 'exchange_type';
  }
  return message !== undefined && reader.done ? message : 'exchange_malformed';
}

function writeVectors(writer: ByteWriter, topics: readonly TopicVector[], partial: boolean): void {
  writer.uint8(partial ? 1 : 0);
  writer.uint16(topics.length);
  for (const { topic, owners } of topics) {
    writer.text8(topic);
    writer.uint32(owners.length);
    for (const { owner, epoch, seq } of owners) {
      writer.text8(owner);
      writer.uint48(epoch);
      writer.uint48(seq);
    }
  }
}

function readDigests(reader: ByteReader): ExchangeMessage | undefined {
  const count = reader.uint16();
  if (count > EXCHANGE_TOPICS_MAX) return undefined;
  const topics: TopicDigest[] = [];
  for (let i = 0; i < count && reader.ok; i++) {
    const topic = reader.text8();
    topics.push({ topic, digest: reader.bytes(DIGEST_BYTES) });
  }
  return reader.ok ? { kind: 'digests', topics } : undefined;
}

function readVectors(reader: ByteReader): ExchangeMessage | undefined {
  const partial = reader.uint8() === 1;
  const count = reader.uint16();
  if (count > EXCHANGE_TOPICS_MAX) return undefined;
  const topics: TopicVector[] = [];
  let ownersLeft = VECTOR_OWNERS_MAX;
  for (let i = 0; i < count && reader.ok; i++) {
    const topic = reader.text8();
    const ownerCount = reader.uint32();
    if (ownerCount > ownersLeft) return undefined;
    ownersLeft -= ownerCount;
    const owners: OwnerVersion[] = [];
    for (let j = 0; j < ownerCount && reader.ok; j++) {
      const owner = reader.text8();
      const epoch = reader.uint48();
      const seq = reader.uint48();
      if (!reader.ok || !namesFit(topic, owner)) return undefined;
      owners.push({ owner, epoch, seq });
    }
    topics.push({ topic, owners });
  }
  return reader.ok ? { kind: 'vectors', topics, partial } : undefined;
}

function readPage(reader: ByteReader): ExchangeMessage | undefined {
  const last = reader.uint8() === 1;
  const count = reader.uint32();
  if (count > PAGE_PARTS_MAX) return undefined;
  const parts: DeltaPart[] = [];
  for (let i = 0; i < count; i++) {
    const final = reader.uint8() === 1;
    const delta = readDelta(reader);
    if (delta === undefined) return undefined;
    const { events, ...head } = delta;
    parts.push({ head, events, final });
  }
  return { kind: 'page', parts, last };
}
