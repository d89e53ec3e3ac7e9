import { assert } from '../../base/assert.js';
import { ByteReader, ByteWriter, UINT48_MAX, utf8Bytes } from './record-bytes.js';

/** The largest value of a record. */
export const VALUE_BYTES_MAX = 4096;
export const KEY_BYTES_MAX = 255;
export const TOPIC_BYTES_MAX = 64;
export const OWNER_BYTES_MAX = 64;
/** Events of one delta: an owner's live records and tombstones of one topic at their limits. */
export const EVENTS_MAX = 4096;

/** The topic that every member shares: which topics each owner takes part in, and since when. */
export const DIRECTORY = '';

/** One write of an owner: `value` undefined deletes. */
export interface RecordEvent {
  readonly key: string;
  /** From 1, raised by one at each write of this owner on this topic in this epoch. */
  readonly seq: number;
  readonly value: Uint8Array | undefined;
}

/**
 * What turns an owner's records as of write `from` into those as of write `to`: for each key
 * written in between, the last such write. `from` 0 is the whole state, which also voids all that
 * the owner wrote in lower epochs. Both gossip and anti-entropy carry deltas, and nothing else.
 */
export interface Delta {
  readonly topic: string;
  readonly owner: string;
  readonly epoch: number;
  readonly from: number;
  readonly to: number;
  /** By ascending sequence, each in (from, to]. */
  readonly events: readonly RecordEvent[];
}

export type DeltaDrop = 'delta_version' | 'delta_malformed';

/** The header of a delta, without its events. */
export type DeltaHead = Omit<Delta, 'events'>;

const VERSION = 1;
const TOMBSTONE = 0xffff;

/**
 * A gossip message is one byte of version and one delta:
 *
 *   version u8 | delta
 *   delta: topic text8 | owner text8 | epoch u48 | from u48 | to u48 | count u32 | count x event
 *   event: key text8 | seq u48 | size u16 (0xffff: a tombstone) | value
 */
export function encodeGossip(delta: Delta): Buffer {
  const writer = new ByteWriter();
  writer.uint8(VERSION);
  writeDelta(writer, delta, delta.events);
  return writer.finish();
}

/** Never throws. The values are views into `bytes`. */
export function decodeGossip(bytes: Uint8Array): Delta | DeltaDrop {
  const reader = new ByteReader(bytes);
  if (reader.uint8() !== VERSION) return 'delta_version';
  const delta = readDelta(reader);
  return delta !== undefined && reader.done ? delta : 'delta_malformed';
}

/** Bytes of one event on the wire. */
export function eventBytes(event: RecordEvent): number {
  return 1 + utf8Bytes(event.key) + 6 + 2 + (event.value?.length ?? 0);
}

/** Writes `head` with `events`, which may be a part of the delta's. */
export function writeDelta(
  writer: ByteWriter,
  head: DeltaHead,
  events: readonly RecordEvent[],
): void {
  assert(events.length <= EVENTS_MAX, 'a delta holds no more events than an owner may have');
  writer.text8(head.topic);
  writer.text8(head.owner);
  writer.uint48(head.epoch);
  writer.uint48(head.from);
  writer.uint48(head.to);
  writer.uint32(events.length);
  for (const { key, seq, value } of events) {
    writer.text8(key);
    writer.uint48(seq);
    writer.uint16(value === undefined ? TOMBSTONE : value.length);
    if (value !== undefined) writer.bytes(value);
  }
}

/** `undefined` if the bytes break a rule of the layout or of {@link Delta}. */
export function readDelta(reader: ByteReader): Delta | undefined {
  const topic = reader.text8();
  const owner = reader.text8();
  const epoch = reader.uint48();
  const from = reader.uint48();
  const to = reader.uint48();
  const count = reader.uint32();
  if (!reader.ok || count > EVENTS_MAX || count > to - from) return undefined;
  if (!namesFit(topic, owner) || from > to || epoch === 0) return undefined;

  const events: RecordEvent[] = [];
  let before = from;
  for (let i = 0; i < count; i++) {
    const key = reader.text8();
    const seq = reader.uint48();
    const size = reader.uint16();
    if (size !== TOMBSTONE && size > VALUE_BYTES_MAX) return undefined;
    const value = size === TOMBSTONE ? undefined : reader.bytes(size);
    if (!reader.ok || key === '' || seq <= before || seq > to) return undefined;
    before = seq;
    events.push({ key, seq, value });
  }
  return { topic, owner, epoch, from, to, events };
}

/** Whether a topic and an owner are within their limits. The directory's name is empty. */
export function namesFit(topic: string, owner: string): boolean {
  if (utf8Bytes(topic) > TOPIC_BYTES_MAX) return false;
  return owner !== '' && utf8Bytes(owner) <= OWNER_BYTES_MAX;
}

/** An owner's word in the directory about one topic. */
export interface Subscription {
  /** The owner's epoch on that topic: what it wrote there in lower epochs is void. */
  readonly epoch: number;
  /** False: it left, and what it wrote in `epoch` is void too. */
  readonly active: boolean;
}

const SUBSCRIPTION_BYTES = 7;

/** epoch u48 | active u8 */
export function encodeSubscription(subscription: Subscription): Buffer {
  const writer = new ByteWriter(SUBSCRIPTION_BYTES);
  writer.uint48(subscription.epoch);
  writer.uint8(subscription.active ? 1 : 0);
  return writer.finish();
}

/** `undefined` if malformed; longer values are of a later version and keep their first bytes. */
export function decodeSubscription(bytes: Uint8Array): Subscription | undefined {
  const reader = new ByteReader(bytes);
  const epoch = reader.uint48();
  const active = reader.uint8() === 1;
  return reader.ok && epoch > 0 && epoch <= UINT48_MAX ? { epoch, active } : undefined;
}
