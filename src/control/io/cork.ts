import type { Duplex } from 'node:stream';

/**
 * What is written in this callback of the event loop, and in the promises that it settles, leaves together:
 * one record and one system call for a hundred small messages.
 */
export function corkForThisTurn(stream: Duplex): void {
  if (stream.writableCorked > 0 || stream.destroyed) return;
  stream.cork();
  // Ticks come after all promises that are settled by now; an immediate would let other sockets go first.
  process.nextTick(() => stream.uncork());
}
