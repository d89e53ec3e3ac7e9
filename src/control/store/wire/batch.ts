/**
 * One entry of the replicated log: a format byte, then JSON, `[[dedupe, command], …]`.
 *
 * The format byte is raised when an older program could no longer read what follows.
 */
export const BATCH_FORMAT = 1;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** A command on its way. */
export interface BatchItem<Command> {
  /**
   * Made up by the proposer, and repeated when it asks again because the answer was lost: the command
   * is then not done a second time. Empty: it may be.
   */
  readonly dedupe: string;
  readonly command: Command;
}

export function encodeItems(items: readonly BatchItem<object>[]): Uint8Array {
  const json = JSON.stringify(items.map(({ dedupe, command }) => [dedupe, command]));
  const body = encoder.encode(json);
  const entry = new Uint8Array(1 + body.length);
  entry[0] = BATCH_FORMAT;
  entry.set(body, 1);
  return entry;
}

/** `format`: a newer program wrote it. `malformed`: none did. */
export type BatchFault = 'format' | 'malformed';

/** Commands are checked to be objects, and no further. */
export function decodeItems(entry: Uint8Array): readonly BatchItem<object>[] | BatchFault {
  const format = entry[0];
  if (format === undefined) return 'malformed';
  if (format !== BATCH_FORMAT) return 'format';
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(entry.subarray(1)));
  } catch {
    return 'malformed';
  }
  if (!Array.isArray(value)) return 'malformed';
  const items: BatchItem<object>[] = [];
  for (const item of value as unknown[]) {
    if (!Array.isArray(item) || item.length !== 2) return 'malformed';
    const [dedupe, command] = item as [unknown, unknown];
    if (typeof dedupe !== 'string' || typeof command !== 'object' || command === null)
      return 'malformed';
    items.push({ dedupe, command });
  }
  return items;
}
