import type { Duplex } from 'node:stream';

/**
 * What is written in this turn of the event loop leaves together: one record and one system call
 * for a hundred small messages.
 */
export function corkForThisTurn(stream: Duplex): void {
  if (stream.writableCorked > 0 || stream.destroyed) return;
  stream.cork();
  setImmediate(() => stream.uncork());
}
