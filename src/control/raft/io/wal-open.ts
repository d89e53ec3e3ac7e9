import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Logger } from '../../core/logger.js';
import type { SnapshotMeta } from '../core/types.js';
import { corrupt, newerSchema, wrongKey } from '../core/wal-error.js';
import { type RecoveredSegment, standsAlone } from '../core/wal-recovery.js';
import { isZero, type SegmentScan, scanSegment } from '../core/wal-scan.js';
import { decodeSegmentHeader, SEGMENT_HEADER_BYTES } from '../wire/wal-frame.js';
import { type Spare, segmentName, sequenceOf } from './segment-pool.js';
import type { FileLayer } from './wal-files.js';
import type { KeySource } from './wal-seal.js';
import { openFrame, segmentKey } from './wal-segment.js';

/** Of what was cut off, so much is kept for somebody to look at. */
const BROKEN_BYTES_MAX = 1024 * 1024;
const BROKEN_SUFFIX = '.broken';

/** A segment that is on disk. */
export interface FoundSegment {
  readonly sequence: number;
  readonly path: string;
  readonly sizeBytes: number;
}

export interface ScannedLog {
  /** Those before `run`, which the snapshot covers. */
  readonly older: readonly (FoundSegment & { readonly keyId: string })[];
  /** In order, without spares, and as far back as matters. */
  readonly run: readonly (RecoveredSegment & { readonly keyId: string })[];
  /** The number of one that was prepared and never used: nothing but zeros. */
  readonly spare: FoundSegment | undefined;
  /** One of which not even the first frame is whole: nothing in it was ever acknowledged. */
  readonly stillborn: FoundSegment | undefined;
}

interface Tools {
  readonly folder: string;
  readonly files: FileLayer;
  readonly keys: KeySource;
}

/**
 * Reads the segments from the newest on, back to where the snapshot has it all.
 * @throws RaftStorageError RAFT_STORAGE_CORRUPT, RAFT_STORAGE_KEY, RAFT_STORAGE_SCHEMA
 */
export async function scanLog(tools: Tools, snapshot: SnapshotMeta): Promise<ScannedLog> {
  // Names that are there are on the disk only after this, if the process ended after a rename.
  await tools.files.syncFolder(tools.folder);
  const found: FoundSegment[] = [];
  for (const { name, sizeBytes } of await tools.files.list(tools.folder)) {
    const path = join(tools.folder, name);
    const sequence = sequenceOf(name);
    if (sequence !== undefined) found.push({ sequence, path, sizeBytes });
    else if (name.endsWith('.tmp')) await tools.files.remove(path);
  }
  let spare: FoundSegment | undefined;
  let stillborn: FoundSegment | undefined;
  const run: (RecoveredSegment & { keyId: string })[] = [];
  for (let i = found.length - 1; i >= 0; i--) {
    const segment = found[i] as FoundSegment;
    const read = await readSegment(tools, segment);
    if (read === undefined) {
      if (spare !== undefined || stillborn !== undefined || run.length > 0)
        throw corrupt(segment.path, 0, 'the log is damaged: there is an empty segment');
      spare = segment;
      found.length = i;
      continue;
    }
    const { head, end } = read;
    if (head === undefined) {
      if (end.kind !== 'torn' || spare !== undefined || stillborn !== undefined || run.length > 0)
        throw corrupt(segment.path, SEGMENT_HEADER_BYTES, 'the log is damaged');
      stillborn = segment;
      found.length = i;
      continue;
    }
    run.unshift({ ...read, head, file: segment.path, sequence: segment.sequence });
    if (standsAlone(head, snapshot)) break;
  }
  const last = run[run.length - 1];
  const next = spare ?? stillborn;
  const expected = (last?.sequence ?? 0) + 1;
  if (next !== undefined && next.sequence !== expected)
    throw corrupt(join(tools.folder, segmentName(expected)), 0, 'a segment of the log is missing');
  const older: (FoundSegment & { keyId: string })[] = [];
  for (const segment of found.slice(0, found.length - run.length))
    older.push({ ...segment, keyId: await readKeyId(tools, segment) });
  return { older, run, spare, stillborn };
}

/** Of a segment that is not read: what is wrong with it, if it is, does not matter now. */
async function readKeyId({ files }: Tools, { path }: FoundSegment): Promise<string> {
  const file = await files.open(path, 'read');
  const bytes = await file.read(0, SEGMENT_HEADER_BYTES).finally(() => file.close());
  const read = decodeSegmentHeader(bytes, crc32);
  return read.kind === 'header' ? read.header.keyId : '';
}

/** `undefined`: nothing but zeros. */
async function readSegment(
  { files, keys }: Tools,
  { path, sizeBytes, sequence }: FoundSegment,
): Promise<(SegmentScan & { readonly keyId: string }) | undefined> {
  const file = await files.open(path, 'read');
  const bytes = await file.read(0, sizeBytes).finally(() => file.close());
  if (isZero(bytes, 0, Math.min(SEGMENT_HEADER_BYTES, bytes.length))) {
    if (isZero(bytes, 0, bytes.length)) return undefined;
    // The sector with the header is not there, but others of the first frame are.
    return { ...NOTHING_WHOLE, keyId: '' };
  }
  const read = decodeSegmentHeader(bytes, crc32);
  if (read.kind === 'newer') throw newerSchema(path, read.version);
  if (read.kind === 'damaged' || read.header.sequence !== sequence)
    throw corrupt(path, 0, 'the header of the log segment is damaged');
  const { keyId, salt } = read.header;
  const key = keys.keyById(keyId);
  if (key === undefined)
    throw wrongKey(path, `the key ${keyId} of ${path} is not among the keys of this manager`);
  const frameKey = segmentKey(key, salt, sequence);
  const open = (frame: Parameters<typeof openFrame>[1]) => openFrame(bytes, frame, frameKey);
  const scan = scanSegment(bytes, sequence, { crc32, open });
  if (scan.end.kind === 'sealed')
    throw wrongKey(path, `the key ${keyId} of this manager does not open ${path}`);
  return { ...scan, keyId };
}

const NOTHING_WHOLE: SegmentScan = {
  head: undefined,
  records: [],
  link: 0,
  endCrc: 0,
  usedBytes: SEGMENT_HEADER_BYTES,
  end: { kind: 'torn', offsetBytes: SEGMENT_HEADER_BYTES },
};

/**
 * Makes sure that what was read of the last segment is on the disk, and that nothing follows it.
 *
 * What was read may have come from the page cache, where also a failed flush leaves its pages, marked as clean:
 * so the bytes are written again before they are flushed.
 */
export async function settleLast(tools: Tools, log: Logger, last: RecoveredSegment): Promise<void> {
  const { files } = tools;
  const file = await files.open(last.file, 'update');
  try {
    if (last.end.kind === 'torn') {
      const rest = await file.read(last.end.offsetBytes, BROKEN_BYTES_MAX);
      await keepBroken(tools, last.file, rest);
      const { offsetBytes } = last.end;
      log.warn({ file: last.file, offsetBytes }, 'the torn end of the log was cut off');
    }
    const whole = await file.read(0, last.usedBytes);
    await file.write(whole, 0);
    await file.truncate(last.usedBytes);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** There is at most one of these: the latest. */
export async function keepBroken(
  { folder, files }: Tools,
  path: string,
  bytes: Buffer,
): Promise<void> {
  for (const { name } of await files.list(folder))
    if (name.endsWith(BROKEN_SUFFIX)) await files.remove(join(folder, name));
  try {
    const file = await files.open(`${path}${BROKEN_SUFFIX}`, 'create');
    try {
      await file.write(bytes, 0);
    } finally {
      await file.close();
    }
  } catch {
    // It is for curiosity only; on a full disk there is none.
  }
}

/** Opens the spare that was there; one that is torn, or of another size, goes. */
export async function takeSpare(
  tools: Tools,
  { spare, stillborn }: ScannedLog,
  segmentBytes: number,
): Promise<Spare | undefined> {
  const { files, folder } = tools;
  if (stillborn !== undefined) {
    const file = await files.open(stillborn.path, 'read');
    const rest = await file.read(0, BROKEN_BYTES_MAX).finally(() => file.close());
    await keepBroken(tools, stillborn.path, rest);
    await files.remove(stillborn.path);
    await files.syncFolder(folder);
  }
  if (spare === undefined) return undefined;
  if (spare.sizeBytes === segmentBytes)
    return { ...spare, file: await files.open(spare.path, 'durable') };
  await files.remove(spare.path);
  await files.syncFolder(folder);
  return undefined;
}
