import type { StreamMuxerFactory } from '@libp2p/interface';

/** What is guarded of a yamux stream and of its muxer (@libp2p/yamux 8.0.3). */
interface GuardedStream {
  sendWindowUpdate(): void;
  abort(error: Error): void;
}

interface GuardedMuxer {
  _newStream?(...args: unknown[]): GuardedStream;
}

/**
 * Keeps a connection that closes at the wrong moment from ending the process.
 *
 * yamux announces a new stream from a bare microtask, and once it knows the round-trip time it also
 * grants that stream more window there. If the connection was closed in the same turn, by us or by
 * a reset, the send throws where nobody can catch it. (js-libp2p #3512 is the same kind, and was
 * mended for `drain` only.) Here such a send aborts the stream, as the closing did or will do.
 */
export function guardedYamux<Factory extends StreamMuxerFactory>(
  yamux: () => Factory,
): () => Factory {
  return () => {
    const factory = yamux();
    const createStreamMuxer = factory.createStreamMuxer.bind(factory);
    factory.createStreamMuxer = (connection) => {
      const muxer = createStreamMuxer(connection);
      guardMuxer(muxer as unknown as GuardedMuxer);
      return muxer;
    };
    return factory;
  };
}

function guardMuxer(muxer: GuardedMuxer): void {
  const newStream = muxer._newStream?.bind(muxer);
  if (newStream === undefined) return;
  muxer._newStream = (...args) => {
    const stream = newStream(...args);
    const sendWindowUpdate = stream.sendWindowUpdate.bind(stream);
    stream.sendWindowUpdate = () => {
      try {
        sendWindowUpdate();
      } catch (error) {
        stream.abort(error instanceof Error ? error : new Error(String(error)));
      }
    };
    return stream;
  };
}
