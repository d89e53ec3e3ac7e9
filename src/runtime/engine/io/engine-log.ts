import type { LogQuery, LogRecord } from '../../core/runtime.js';
import { LogPlace, logQuery, restQuery } from '../wire/log-place.js';
import { LineReader, RawStreamReader } from '../wire/raw-stream.js';
import { splitStamp } from '../wire/stamp.js';
import { type EngineClient, EngineError } from './engine-client.js';

/**
 * The log of a container. A reader that follows gets what is left in a second reading: engines cut off
 * whoever lags behind when the container ends (seen of dockerd 20.10), though the log itself is whole.
 *
 * @throws EngineError if it cannot be read at all, and `Error` if it breaks off.
 */
export async function* readLog(
  client: EngineClient,
  container: { readonly id: string; readonly isTerminal: boolean },
  query: LogQuery,
  signal: AbortSignal,
): AsyncGenerator<LogRecord> {
  const records = container.isTerminal ? terminalRecords : rawRecords;
  const read = async function* (text: Record<string, string>) {
    const path = `/containers/${container.id}/logs`;
    const answer = await client.stream({ path, query: text, signal });
    try {
      yield* records(answer);
    } finally {
      answer.destroy();
    }
  };
  const place = new LogPlace();
  const askedAtMs = Date.now();
  for await (const record of read(logQuery(query))) {
    place.passed(record);
    yield record;
  }
  if (!query.follow) return;
  const isUnseen = place.unseen();
  try {
    for await (const record of read(restQuery(query, place, askedAtMs)))
      if (isUnseen(record)) yield record;
  } catch (error) {
    // Removed as soon as it had ended: there is no more to read.
    if (!(error instanceof EngineError && error.status === 404)) throw error;
  }
}

async function* rawRecords(answer: AsyncIterable<Buffer>): AsyncGenerator<LogRecord> {
  const reader = new RawStreamReader();
  for await (const chunk of answer) {
    const pieces = reader.push(chunk);
    if (pieces === undefined) throw new Error('the engine sends nonsense');
    for (const { stream, data } of pieces) {
      if (stream === 'engine') throw new Error(data.toString().trim());
      yield { stream, ...splitStamp(data) };
    }
  }
}

async function* terminalRecords(answer: AsyncIterable<Buffer>): AsyncGenerator<LogRecord> {
  const reader = new LineReader();
  for await (const chunk of answer) {
    for (const line of reader.push(chunk)) yield { stream: 'stdout', ...splitStamp(line) };
  }
  for (const line of reader.end()) yield { stream: 'stdout', ...splitStamp(line) };
}
