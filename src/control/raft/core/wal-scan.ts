import {
  type Crc32,
  FRAME_HEADER_BYTES,
  type Frame,
  findFrame,
  readFrame,
  SEGMENT_HEADER_BYTES,
} from '../wire/wal-frame.js';
import { decodeWalRecords, type WalHead, type WalRecord } from '../wire/wal-record.js';

/** What a disk writes as one, or not at all. Larger ones are multiples of it. */
const SECTOR_BYTES = 512;

export interface ScanTools {
  readonly crc32: Crc32;
  /** The plain content; `undefined`: the seal is not that of this segment's key. */
  open(frame: Frame): Uint8Array | undefined;
}

/** How the written part of a segment ends. */
export type SegmentEnd =
  /** Nothing but zeros follow. */
  | { readonly kind: 'clean' }
  /** The power went while the last frame was written: it is not whole, and was never acknowledged. */
  | { readonly kind: 'torn'; readonly offsetBytes: number }
  | { readonly kind: 'damaged'; readonly offsetBytes: number }
  /** The first frame is whole, and the key does not open it. */
  | { readonly kind: 'sealed'; readonly offsetBytes: number };

export interface SegmentScan {
  /** Absent if not even the first frame is whole. */
  readonly head: WalHead | undefined;
  /** All but the head, in order, with where their frames begin. */
  readonly records: readonly { readonly offsetBytes: number; readonly record: WalRecord }[];
  /** What the first frame links to. */
  readonly link: number;
  /** Of the last whole frame, which the next segment links to. */
  readonly endCrc: number;
  /** Up to where frames are whole. */
  readonly usedBytes: number;
  readonly end: SegmentEnd;
}

/** Reads the frames of a segment whose header is whole. */
export function scanSegment(bytes: Buffer, sequence: number, tools: ScanTools): SegmentScan {
  const records: { offsetBytes: number; record: WalRecord }[] = [];
  let head: WalHead | undefined;
  let link = 0;
  let endCrc = 0;
  let counter = -1;
  let offset = SEGMENT_HEADER_BYTES;
  const result = (end: SegmentEnd): SegmentScan => ({
    head,
    records,
    link,
    endCrc,
    usedBytes: offset,
    end,
  });
  for (;;) {
    const read = readFrame(bytes, offset, sequence, tools.crc32);
    if (read.kind !== 'frame') return result(endAt(bytes, offset, sequence, tools.crc32));
    const { frame } = read;
    const first = counter === -1;
    // The checksums are right, so this was written so: something between is missing.
    if (frame.counter <= counter || (!first && frame.link !== endCrc))
      return result({ kind: 'damaged', offsetBytes: offset });
    const plain = tools.open(frame);
    if (plain === undefined)
      return result({ kind: first ? 'sealed' : 'damaged', offsetBytes: offset });
    const content = decodeWalRecords(plain);
    if (content === undefined) return result({ kind: 'damaged', offsetBytes: offset });
    for (const [i, record] of content.entries()) {
      const heads = record.kind === 'head';
      if (heads !== (first && i === 0)) return result({ kind: 'damaged', offsetBytes: offset });
      if (heads) head = record.head;
      else records.push({ offsetBytes: offset, record });
    }
    if (head === undefined) return result({ kind: 'damaged', offsetBytes: offset });
    if (first) link = frame.link;
    endCrc = frame.crc;
    counter = frame.counter;
    offset = frame.nextOffset;
  }
}

/**
 * What it means that no whole frame begins at `offset`. Segments are zero-filled before they are used, and one
 * frame at a time is written. So a frame that was cut off by a power cut lacks some sectors, which are zero
 * still, and nothing whole follows it. Anything else was whole once, and may have been acknowledged.
 */
function endAt(bytes: Buffer, offset: number, sequence: number, crc32: Crc32): SegmentEnd {
  if (isZero(bytes, offset, bytes.length)) return { kind: 'clean' };
  if (findFrame(bytes, offset + 1, sequence, crc32) !== undefined)
    return { kind: 'damaged', offsetBytes: offset };
  const torn =
    lacksSector(bytes, offset, offset + FRAME_HEADER_BYTES) ||
    lacksBody(bytes, offset, sequence, crc32);
  return { kind: torn ? 'torn' : 'damaged', offsetBytes: offset };
}

function lacksBody(bytes: Buffer, offset: number, sequence: number, crc32: Crc32): boolean {
  const read = readFrame(bytes, offset, sequence, crc32);
  return read.kind === 'broken' && lacksSector(bytes, offset, read.nextOffset);
}

/** True if what one of the sectors has of this range is zero, or is not there. */
function lacksSector(bytes: Buffer, start: number, end: number): boolean {
  if (end > bytes.length) return true;
  let at = start;
  while (at < end) {
    const next = Math.min(end, (Math.floor(at / SECTOR_BYTES) + 1) * SECTOR_BYTES);
    if (isZero(bytes, at, next)) return true;
    at = next;
  }
  return false;
}

export function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (bytes[i] !== 0) return false;
  return true;
}
