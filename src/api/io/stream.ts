import type { ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Reply } from './call.js';

/**
 * Bytes as they come, at the pace of the reader. An end without the last chunk, which HTTP marks,
 * tells the reader that it did not get everything.
 */
export function streamed(chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>): Reply {
  return { kind: 'stream', open: (response, closing) => void send(response, closing, chunks) };
}

async function send(
  response: ServerResponse,
  closing: AbortSignal,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
): Promise<void> {
  response.writeHead(200, { 'Content-Type': 'application/octet-stream' });
  try {
    await pipeline(Readable.from(chunks, { objectMode: false }), response, { signal: closing });
  } catch {
    // The reader is gone, the source failed, or the server ends: each cuts the answer short.
    response.destroy();
  }
}
