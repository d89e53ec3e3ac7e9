import { watch } from 'node:fs';
import { type FileHandle, open, readdir } from 'node:fs/promises';
import type { LogQuery, LogRecord } from '../../core/runtime.js';
import { parseLogRecord } from '../wire/log-record.js';

const CHUNK_BYTES = 65_536;
/** Longest line of a log file; what is longer is no record. */
const LINE_BYTES_MAX = 16_384 + 64;
const NEWLINE = 10;
/** Where the kernel cannot tell of changes, they are looked for this often. */
const POLL_MS = 500;

/** What is read: a task, as far as its log is concerned. */
export interface LogSource {
  readonly folder: { readonly path: string };
  /** There when nothing more is written. */
  readonly exit: object | undefined;
  readonly isClosed: boolean;
  onChange(listener: () => void): () => void;
}

/** A place in a task's log: the number of a file, and the bytes before it. */
interface Position {
  readonly file: number;
  readonly offset: number;
}

/**
 * The records of a task, oldest first. Files that are rotated away while they are read are read to their end; what was
 * rotated away before is skipped.
 */
export async function* readLogs(
  task: LogSource,
  query: LogQuery,
  signal: AbortSignal,
): AsyncGenerator<LogRecord> {
  if (!query.stdout && !query.stderr) return;
  const changes = query.follow ? new Changes(task, signal) : undefined;
  try {
    const start = await startOf(task.folder.path, query);
    for await (const record of recordsFrom(task, start, changes, signal)) {
      if (record === undefined || !isWanted(record, query)) continue;
      if (query.untilMs !== undefined && record.atNs > nanoseconds(query.untilMs)) {
        // Records come in the order of their writing, but clocks may be set back: so on to the end.
        if (!query.follow) continue;
        return;
      }
      yield record;
    }
  } finally {
    changes?.close();
  }
}

function isWanted(record: LogRecord, query: LogQuery): boolean {
  if (!query[record.stream]) return false;
  return query.sinceMs === undefined || record.atNs >= nanoseconds(query.sinceMs);
}

/** Of milliseconds with a fraction; their product would not be exact. */
function nanoseconds(ms: number): bigint {
  const whole = Math.floor(ms);
  return BigInt(whole) * 1_000_000n + BigInt(Math.round((ms - whole) * 1e6));
}

async function fileNumbers(folder: string): Promise<number[]> {
  const names = await readdir(folder).catch(() => []);
  return names
    .flatMap((name) => /^log\.(\d+)$/.exec(name)?.[1] ?? [])
    .map(Number)
    .sort((a, b) => a - b);
}

async function openLog(folder: string, file: number): Promise<FileHandle | undefined> {
  return await open(`${folder}/log.${file}`).catch(() => undefined);
}

async function startOf(folder: string, query: LogQuery): Promise<Position> {
  const files = await fileNumbers(folder);
  const first = { file: files[0] ?? 1, offset: 0 };
  if (query.tail === undefined) return first;
  let missing = query.tail;
  if (missing <= 0) return await endOf(folder, files);
  for (const file of files.reverse()) {
    const handle = await openLog(folder, file);
    if (handle === undefined) break;
    try {
      const found = await tailOf(handle, missing, query);
      if (found.offset !== undefined) return { file, offset: found.offset };
      missing -= found.count;
    } finally {
      await handle.close();
    }
  }
  return first;
}

async function endOf(folder: string, files: readonly number[]): Promise<Position> {
  const file = files.at(-1) ?? 1;
  const handle = await openLog(folder, file);
  const offset = (await handle?.stat())?.size ?? 0;
  await handle?.close();
  return { file, offset };
}

/** Reads backwards until `missing` records are found; memory stays at a chunk and a line. */
async function tailOf(
  handle: FileHandle,
  missing: number,
  query: LogQuery,
): Promise<{ readonly offset?: number; readonly count: number }> {
  let end = (await handle.stat()).size;
  let rest: Buffer = Buffer.alloc(0);
  let count = 0;
  while (end > 0) {
    const start = Math.max(0, end - CHUNK_BYTES);
    const chunk = Buffer.alloc(end - start);
    const { bytesRead } = await handle.read(chunk, 0, chunk.length, start);
    const text = Buffer.concat([chunk.subarray(0, bytesRead), rest]);
    let lineEnd = text.length;
    // The byte before a line is the end of the one before.
    for (let at = lineEnd - 2; lineEnd > 0; ) {
      at = text.lastIndexOf(NEWLINE, Math.max(at, 0));
      if (lineEnd === 1 || (at < 0 && start > 0)) break;
      const line = text.subarray(at + 1, text[lineEnd - 1] === NEWLINE ? lineEnd - 1 : lineEnd);
      const record = parseLogRecord(line);
      if (record !== undefined && isWanted(record, query) && ++count === missing) {
        return { offset: start + at + 1, count };
      }
      lineEnd = at + 1;
      at -= 1;
      if (at < 0 && lineEnd > 0 && start > 0) break;
    }
    // Part of a line that begins further up; one longer than any record is given up.
    rest = lineEnd > LINE_BYTES_MAX ? Buffer.alloc(0) : Buffer.from(text.subarray(0, lineEnd));
    end = start;
  }
  return { count };
}

/** Records from a place on; `undefined` where there is nothing new for now, which gives a chance to stop. */
async function* recordsFrom(
  task: LogSource,
  start: Position,
  changes: Changes | undefined,
  signal: AbortSignal,
): AsyncGenerator<LogRecord | undefined> {
  const folder = task.folder.path;
  let { file, offset } = start;
  let handle = await openLog(folder, file);
  const chunk = Buffer.alloc(CHUNK_BYTES);
  let rest: Buffer = Buffer.alloc(0);
  try {
    while (!signal.aborted) {
      // Asked before reading: what ends in between has written all by then.
      const isOver = task.exit !== undefined || task.isClosed;
      const change = changes?.next();
      const next = (await fileNumbers(folder)).find((number) => number > file);
      const { bytesRead } = (await handle?.read(chunk, 0, CHUNK_BYTES, offset)) ?? { bytesRead: 0 };
      if (bytesRead > 0) {
        offset += bytesRead;
        const text = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
        let at = 0;
        for (let end = text.indexOf(NEWLINE); end >= 0; end = text.indexOf(NEWLINE, at)) {
          const record = parseLogRecord(text.subarray(at, end));
          at = end + 1;
          if (record !== undefined) yield record;
          if (signal.aborted) return;
        }
        rest = text.length - at > LINE_BYTES_MAX ? Buffer.alloc(0) : Buffer.from(text.subarray(at));
      } else if (next !== undefined) {
        await handle?.close();
        [file, offset, rest] = [next, 0, Buffer.alloc(0)];
        handle = await openLog(folder, file);
      } else if (change === undefined || isOver) {
        return;
      } else {
        handle ??= await openLog(folder, file);
        await change;
      }
    }
  } finally {
    await handle?.close();
  }
}

/** Tells when a task's log may have grown, or nobody wants to know any more. */
class Changes {
  readonly #close: () => void;
  #promise: Promise<void> | undefined;
  #resolve: (() => void) | undefined;

  constructor(task: LogSource, signal: AbortSignal) {
    const wake = () => this.#wake();
    signal.addEventListener('abort', wake);
    const stopListening = task.onChange(wake);
    const stopWatching = watchFolder(task.folder.path, wake);
    this.#close = () => {
      signal.removeEventListener('abort', wake);
      stopListening();
      stopWatching();
      wake();
    };
  }

  /** Resolves at the next change after this call. */
  next(): Promise<void> {
    this.#promise ??= new Promise((resolve) => {
      this.#resolve = resolve;
    });
    return this.#promise;
  }

  #wake(): void {
    this.#promise = undefined;
    this.#resolve?.();
  }

  close(): void {
    this.#close();
  }
}

function watchFolder(folder: string, wake: () => void): () => void {
  try {
    const watcher = watch(folder, wake);
    watcher.on('error', wake);
    return () => watcher.close();
  } catch {
    const timer = setInterval(wake, POLL_MS);
    return () => clearInterval(timer);
  }
}
