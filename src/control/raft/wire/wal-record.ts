import { ByteReader, ByteWriter } from './bytes.js';
import {
  decodeHardState,
  encodeHardState,
  entriesBytes,
  readEntries,
  readSnapshotMeta,
  writeEntries,
  writeSnapshotMeta,
} from './entry.js';
import type { HardState, LogEntry, LogIndex, SnapshotMeta, Term } from './records.js';

/**
 * What is inside a frame of the log: records, one after another, to the frame's end.
 *
 *   1 head        u8 begins, n last index, n last term, n length, hard state, snapshot
 *   2 hard state  n length, hard state
 *   3 entries     entries
 *
 * The first record of a segment is its head, and only there is one. It says all that matters of the segments
 * before, so that they may be deleted.
 */
export interface WalHead {
  /** The log begins anew here, after `base`: nothing of earlier segments counts. */
  readonly begins: boolean;
  /** Of the log where this segment begins. */
  readonly lastIndex: LogIndex;
  readonly lastTerm: Term;
  readonly hardState: HardState;
  /** What the log began with when it last began anew. */
  readonly base: SnapshotMeta;
}

export type WalRecord =
  | { readonly kind: 'head'; readonly head: WalHead }
  | { readonly kind: 'hard_state'; readonly hardState: HardState }
  | { readonly kind: 'entries'; readonly entries: readonly LogEntry[] };

/** Append only: these numbers are on disks. */
const HEAD = 1;
const HARD_STATE = 2;
const ENTRIES = 3;

const HARD_STATE_BYTES_MAX = 64;

export function encodeWalRecords(records: readonly WalRecord[]): Buffer {
  let sizeBytes = 0;
  for (const record of records) {
    if (record.kind === 'entries') sizeBytes += 1 + entriesBytes(record.entries);
    else sizeBytes += record.kind === 'head' ? 512 : 32;
  }
  const writer = new ByteWriter(sizeBytes);
  for (const record of records) writeRecord(writer, record);
  return writer.finish();
}

/** The data of entries are views of `bytes`. `undefined`: nonsense. */
export function decodeWalRecords(bytes: Uint8Array): WalRecord[] | undefined {
  const reader = new ByteReader(bytes);
  const records: WalRecord[] = [];
  while (reader.remaining > 0) {
    const record = readRecord(reader);
    if (record === undefined) return undefined;
    records.push(record);
  }
  return reader.done ? records : undefined;
}

function writeRecord(writer: ByteWriter, record: WalRecord): void {
  switch (record.kind) {
    case 'head':
      writer.u8(HEAD);
      writer.u8(record.head.begins ? 1 : 0);
      writer.varint(record.head.lastIndex);
      writer.varint(record.head.lastTerm);
      writer.block(encodeHardState(record.head.hardState));
      writeSnapshotMeta(writer, record.head.base);
      break;
    case 'hard_state':
      writer.u8(HARD_STATE);
      writer.block(encodeHardState(record.hardState));
      break;
    case 'entries':
      writer.u8(ENTRIES);
      writeEntries(writer, record.entries);
      break;
  }
}

function readRecord(reader: ByteReader): WalRecord | undefined {
  switch (reader.u8()) {
    case HEAD: {
      const begins = reader.u8() === 1;
      const lastIndex = reader.varint();
      const lastTerm = reader.varint();
      const hardState = decodeHardState(reader.block(HARD_STATE_BYTES_MAX));
      const base = readSnapshotMeta(reader);
      if (hardState === undefined || reader.failed) return undefined;
      return { kind: 'head', head: { begins, lastIndex, lastTerm, hardState, base } };
    }
    case HARD_STATE: {
      const hardState = decodeHardState(reader.block(HARD_STATE_BYTES_MAX));
      return hardState === undefined ? undefined : { kind: 'hard_state', hardState };
    }
    case ENTRIES: {
      const entries = readEntries(reader);
      return reader.failed ? undefined : { kind: 'entries', entries };
    }
    default:
      return undefined;
  }
}
