import { assert } from '../../../base/assert.js';
import { ByteReader, ByteWriter } from './bytes.js';
import { readMembers, writeMembers } from './members.js';
import type { EntryKind, HardState, LogEntry, RaftId, SnapshotMeta } from './records.js';

/**
 * Log entries, hard state and snapshot metadata as bytes, on the wire and on disk alike. `n` is a varint:
 *
 *   entries    n count, then unless it is 0: n index of the first, and for each
 *              u8 kind, n term less the one before (at first: the term), n length, data
 *   hard state n term, u48 vote, n commit index
 *   snapshot   n index, n term, members
 *
 * No checksums and no versions here: frames and segments have theirs.
 */

/** What a proposal may be at most, with room for what wraps it. */
export const ENTRY_BYTES_MAX = 1_600 * 1_024;
/** No flush has more: the core bounds what is uncommitted. */
export const ENTRIES_MAX = 1_048_576;

/** Append only: these numbers are on disks. */
const KIND_CODE: Readonly<Record<EntryKind, number>> = { noop: 0, command: 1, members: 2 };
const KIND_OF: readonly EntryKind[] = ['noop', 'command', 'members'];

/** Kind, and at worst a full varint each for term and length. */
const ENTRY_HEADER_BYTES = 17;

/** @param entries Contiguous, with terms that never decrease, as they are in a log. */
export function encodeEntries(entries: readonly LogEntry[]): Uint8Array {
  const writer = new ByteWriter(entriesBytes(entries));
  writeEntries(writer, entries);
  return writer.finish();
}

/** The data of the entries are views of `bytes`. `undefined`: nonsense. */
export function decodeEntries(bytes: Uint8Array): LogEntry[] | undefined {
  return complete(bytes, readEntries);
}

export function encodeHardState(state: HardState): Uint8Array {
  const writer = new ByteWriter(24);
  writer.varint(state.term);
  writer.u48(state.vote);
  writer.varint(state.commitIndex);
  return writer.finish();
}

export function decodeHardState(bytes: Uint8Array): HardState | undefined {
  return complete(bytes, (reader) => ({
    term: reader.varint(),
    vote: reader.u48() as RaftId | 0,
    commitIndex: reader.varint(),
  }));
}

export function encodeSnapshotMeta(meta: SnapshotMeta): Uint8Array {
  const writer = new ByteWriter(256);
  writeSnapshotMeta(writer, meta);
  return writer.finish();
}

export function decodeSnapshotMeta(bytes: Uint8Array): SnapshotMeta | undefined {
  return complete(bytes, readSnapshotMeta);
}

/** At least what `writeEntries` will write. */
export function entriesBytes(entries: readonly LogEntry[]): number {
  let sum = 2 * ENTRY_HEADER_BYTES;
  for (const { data } of entries) sum += ENTRY_HEADER_BYTES + data.length;
  return sum;
}

export function writeEntries(writer: ByteWriter, entries: readonly LogEntry[]): void {
  assert(entries.length <= ENTRIES_MAX, 'a list of entries is bounded');
  writer.varint(entries.length);
  const first = entries[0];
  if (first === undefined) return;
  writer.varint(first.index);
  let index = first.index;
  let term = 0;
  for (const entry of entries) {
    assert(entry.index === index && entry.term >= term, 'entries are as in a log');
    assert(entry.data.length <= ENTRY_BYTES_MAX, 'an entry is bounded');
    writer.u8(KIND_CODE[entry.kind]);
    writer.varint(entry.term - term);
    writer.block(entry.data);
    term = entry.term;
    index++;
  }
}

export function readEntries(reader: ByteReader): LogEntry[] {
  const count = reader.varint(ENTRIES_MAX);
  const entries: LogEntry[] = [];
  if (count === 0) return entries;
  const first = reader.varint(Number.MAX_SAFE_INTEGER - ENTRIES_MAX);
  if (first === 0) reader.refuse();
  let term = 0;
  for (let i = 0; i < count && !reader.failed; i++) {
    const kind = KIND_OF[reader.u8()];
    term += reader.varint(Number.MAX_SAFE_INTEGER - term);
    const data = reader.block(ENTRY_BYTES_MAX);
    if (kind === undefined || term === 0) reader.refuse();
    else entries.push({ index: first + i, term, kind, data });
  }
  return entries;
}

export function writeSnapshotMeta(writer: ByteWriter, meta: SnapshotMeta): void {
  writer.varint(meta.index);
  writer.varint(meta.term);
  writeMembers(writer, meta.members);
}

export function readSnapshotMeta(reader: ByteReader): SnapshotMeta {
  return { index: reader.varint(), term: reader.varint(), members: readMembers(reader) };
}

function complete<T>(bytes: Uint8Array, read: (reader: ByteReader) => T): T | undefined {
  const reader = new ByteReader(bytes);
  const value = read(reader);
  return reader.done ? value : undefined;
}
