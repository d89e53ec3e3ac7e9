import { truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ControlError } from '../../core/control-error.js';
import type { Logger } from '../../core/logger.js';
import { PRIVATE_FILE_MODE, readFileIfAny, writeFileAtomic } from '../../io/files.js';
import type { Command } from '../core/command.js';
import { apply } from '../core/decide.js';
import { State, type StateSnapshot } from '../core/state.js';
import { decodeRecords, encodeRecord } from '../wire/record.js';

export const JOURNAL_NAME = 'journal';
export const SNAPSHOT_NAME = 'snapshot';
/** Raised when an older program could no longer read what is written. */
const SCHEMA = 1;

interface SnapshotFile {
  readonly schema: number;
  readonly sequence: number;
  readonly state: StateSnapshot;
}

interface JournalLine {
  readonly sequence: number;
  readonly commands: readonly Command[];
}

export interface Recovered {
  readonly state: State;
  readonly sequence: number;
  readonly fileBytes: number;
}

export function snapshotRecord(state: StateSnapshot, sequence: number): Uint8Array {
  return encodeRecord({ schema: SCHEMA, sequence, state } satisfies SnapshotFile);
}

/** First line of every journal. */
export function journalHead(): Uint8Array {
  return encodeRecord({ schema: SCHEMA });
}

/**
 * Snapshot plus journal. A torn last line is cut off (its bytes are kept beside, for a person);
 * any other damage is refused, since going on would silently lose what was acknowledged.
 *
 * @throws ControlError `CONTROL_STORE_CORRUPT`, `CONTROL_STORE_SCHEMA`.
 */
export async function recover(dir: string, log: Logger): Promise<Recovered> {
  const snapshot = await readSnapshot(join(dir, SNAPSHOT_NAME));
  const path = join(dir, JOURNAL_NAME);
  const bytes = await readFileIfAny(path);
  const state = snapshot === undefined ? new State() : State.restore(snapshot.state);
  let sequence = snapshot?.sequence ?? 0;
  const file = decodeRecords(bytes ?? new Uint8Array());
  if (file.end === 'corrupt') throw corrupt(path, file.validBytes);
  // The head is written atomically: a journal without one is either new or not ours.
  if (file.values.length === 0) {
    if (bytes !== undefined && bytes.length > 0) throw corrupt(path, 0);
    await writeFileAtomic(path, journalHead());
    return { state, sequence, fileBytes: journalHead().length };
  }
  checkSchema(path, file.values[0]);
  for (const line of file.values.slice(1) as readonly JournalLine[]) {
    if (line.sequence <= sequence) continue;
    if (line.sequence !== sequence + 1) throw corrupt(path, file.validBytes);
    for (const command of line.commands) replay(path, state, command);
    sequence = line.sequence;
  }
  if (file.end === 'torn') await cut(path, bytes ?? Buffer.alloc(0), file.validBytes, log);
  return { state, sequence, fileBytes: file.validBytes };
}

async function readSnapshot(path: string): Promise<SnapshotFile | undefined> {
  const bytes = await readFileIfAny(path);
  if (bytes === undefined) return undefined;
  const { values, end, validBytes } = decodeRecords(bytes);
  if (end !== 'clean' || values.length !== 1) throw corrupt(path, validBytes);
  checkSchema(path, values[0]);
  return values[0] as SnapshotFile;
}

function checkSchema(path: string, head: unknown): void {
  const schema = (head as { schema?: unknown } | null)?.schema;
  if (typeof schema !== 'number') throw corrupt(path, 0);
  if (schema > SCHEMA)
    throw new ControlError(
      { code: 'CONTROL_STORE_SCHEMA', file: path, schema },
      `${path} was written by a newer version (schema ${schema}, known ${SCHEMA}): run that one`,
    );
}

/** Only accepted commands are journalled, so a refusal means that the lines are not what was written. */
function replay(path: string, state: State, command: Command): void {
  try {
    apply(state, command);
  } catch (error) {
    throw corrupt(path, 0, error);
  }
}

async function cut(path: string, bytes: Buffer, validBytes: number, log: Logger): Promise<void> {
  const tornBytes = bytes.length - validBytes;
  log.warn({ file: path, validBytes, tornBytes }, 'store cut off an unfinished last line');
  await writeFile(`${path}.torn`, bytes.subarray(validBytes), { mode: PRIVATE_FILE_MODE });
  await truncate(path, validBytes);
}

function corrupt(file: string, offsetBytes: number, cause?: unknown): ControlError {
  return new ControlError(
    { code: 'CONTROL_STORE_CORRUPT', file, offsetBytes },
    `${file} is damaged at byte ${offsetBytes}: restore it from a copy, or leave the swarm with force and build a new one`,
    { cause },
  );
}
