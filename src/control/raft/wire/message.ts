import { assert, unreachable } from '../../../base/assert.js';
import { ByteReader, ByteWriter } from './bytes.js';
import {
  entriesBytes,
  readEntries,
  readSnapshotMeta,
  writeEntries,
  writeSnapshotMeta,
} from './entry.js';
import type { MessageBody, RaftId, RaftMessage } from './records.js';

/**
 * Messages between members, several at a time (`n` is a varint):
 *
 *   u8 version, n count, and for each: u8 kind, u48 from, u48 to, n term, then by kind
 *
 *   pre_vote, vote               n last index, n last term, u8 transfer
 *   pre_vote_reply, vote_reply   u8 granted
 *   append                       n previous index, n previous term, n commit index, entries
 *   append_reply                 n index, u8 accepted, n hint index, n hint term
 *   heartbeat                    n commit index, n read round
 *   heartbeat_reply              n read round
 *   snapshot                     metadata
 *   timeout_now                  nothing
 *   read_index                   n request
 *   read_index_reply             n request, n index
 *
 * Who frames them bounds their length and guards their integrity.
 */

export const MESSAGES_MAX = 4_096;

const VERSION = 1;

/** By their code on the wire: append only. */
const KINDS = [
  'pre_vote',
  'pre_vote_reply',
  'vote',
  'vote_reply',
  'append',
  'append_reply',
  'heartbeat',
  'heartbeat_reply',
  'snapshot',
  'timeout_now',
  'read_index',
  'read_index_reply',
] as const satisfies readonly RaftMessage['kind'][];

const CODE_OF = new Map<RaftMessage['kind'], number>(KINDS.map((kind, code) => [kind, code]));

/** Enough for the envelope and the numbers of any kind. */
const MESSAGE_BYTES = 64;

/** How many bytes a message is at most, so that batches can be cut to size; memberships not counted. */
export function messageBytes(message: RaftMessage): number {
  return MESSAGE_BYTES + (message.kind === 'append' ? entriesBytes(message.entries) : 0);
}

/** @param messages At most `MESSAGES_MAX`. */
export function encodeMessages(messages: readonly RaftMessage[]): Uint8Array {
  assert(messages.length <= MESSAGES_MAX, 'a batch of messages is bounded');
  const writer = new ByteWriter(messages.reduce((sum, m) => sum + messageBytes(m), 8));
  writer.u8(VERSION);
  writer.varint(messages.length);
  for (const message of messages) writeMessage(writer, message);
  return writer.finish();
}

/** Data of entries are views of `bytes`. `undefined`: nonsense, all of it. */
export function decodeMessages(bytes: Uint8Array): RaftMessage[] | undefined {
  const reader = new ByteReader(bytes);
  if (reader.u8() !== VERSION) return undefined;
  const count = reader.varint(MESSAGES_MAX);
  const messages: RaftMessage[] = [];
  for (let i = 0; i < count && !reader.failed; i++) messages.push(readMessage(reader));
  return reader.done ? messages : undefined;
}

export function writeMessage(writer: ByteWriter, message: RaftMessage): void {
  writer.u8(CODE_OF.get(message.kind) as number);
  writer.u48(message.from);
  writer.u48(message.to);
  writer.varint(message.term);
  writeBody(writer, message);
}

function writeBody(writer: ByteWriter, message: RaftMessage): void {
  switch (message.kind) {
    case 'pre_vote':
    case 'vote':
      writer.varint(message.lastIndex);
      writer.varint(message.lastTerm);
      writer.flag(message.transfer);
      break;
    case 'pre_vote_reply':
    case 'vote_reply':
      writer.flag(message.granted);
      break;
    case 'append':
      writer.varint(message.prevIndex);
      writer.varint(message.prevTerm);
      writer.varint(message.commitIndex);
      writeEntries(writer, message.entries);
      break;
    case 'append_reply':
      writer.varint(message.index);
      writer.flag(message.accepted);
      writer.varint(message.hintIndex);
      writer.varint(message.hintTerm);
      break;
    case 'heartbeat':
      writer.varint(message.commitIndex);
      writer.varint(message.readRound);
      break;
    case 'heartbeat_reply':
      writer.varint(message.readRound);
      break;
    case 'snapshot':
      writeSnapshotMeta(writer, message.meta);
      break;
    case 'timeout_now':
      break;
    case 'read_index':
      writer.varint(message.request);
      break;
    case 'read_index_reply':
      writer.varint(message.request);
      writer.varint(message.index);
      break;
    default:
      unreachable(message);
  }
}

/** What comes back after `reader.failed` is no message. */
export function readMessage(reader: ByteReader): RaftMessage {
  const kind = KINDS[reader.u8()];
  const from = reader.u48() as RaftId;
  const to = reader.u48() as RaftId;
  // One less than the largest, since a pre-vote is for the term after.
  const term = reader.varint(Number.MAX_SAFE_INTEGER - 1);
  if (kind === undefined || from === 0 || to === 0 || term === 0) reader.refuse();
  return { from, to, term, ...readBody(reader, kind ?? 'timeout_now') };
}

function readBody(reader: ByteReader, kind: RaftMessage['kind']): MessageBody {
  switch (kind) {
    case 'pre_vote':
    case 'vote':
      return {
        kind,
        lastIndex: reader.varint(),
        lastTerm: reader.varint(),
        transfer: reader.flag(),
      };
    case 'pre_vote_reply':
    case 'vote_reply':
      return { kind, granted: reader.flag() };
    case 'append':
      return {
        kind,
        prevIndex: reader.varint(),
        prevTerm: reader.varint(),
        commitIndex: reader.varint(),
        entries: readEntries(reader),
      };
    case 'append_reply':
      return {
        kind,
        index: reader.varint(),
        accepted: reader.flag(),
        hintIndex: reader.varint(),
        hintTerm: reader.varint(),
      };
    case 'heartbeat':
      return { kind, commitIndex: reader.varint(), readRound: reader.varint() };
    case 'heartbeat_reply':
      return { kind, readRound: reader.varint() };
    case 'snapshot':
      return { kind, meta: readSnapshotMeta(reader) };
    case 'timeout_now':
      return { kind };
    case 'read_index':
      return { kind, request: reader.varint() };
    case 'read_index_reply':
      return { kind, request: reader.varint(), index: reader.varint() };
    default:
      return unreachable(kind);
  }
}
