import { Duplex } from 'node:stream';
import type { Connection, Stream } from '@libp2p/interface';
import { SwarmError } from '../../base/swarm-error.js';

/** Streams of bytes between two members, for whatever the agents have to say to each other. */
export const TUNNEL_PROTOCOL = '/shoal/tunnel/1';
/** Tunnels with one member at a time, in each direction. */
export const TUNNELS_PER_MEMBER_MAX = 64;
/** A tunnel on which nothing moves is a leak; a shell that somebody left open is none yet. */
const TUNNEL_IDLE_MS_MAX = 4 * 3_600_000;
/** How long a member may take to be dialled, and then to take a tunnel. */
const TUNNEL_OPEN_MS_MAX = 10_000;
/**
 * yamux would let a fast sender's window grow to four times what may wait unread, and then abort
 * the stream whose reader paused.
 */
const WINDOW_BYTES_MAX = 1 << 20;

/** The part of a yamux stream (@libp2p/yamux 8.0.3) that says how far its window may grow. */
interface Windowed {
  maxStreamWindowSize?: number;
}

/** What tunnels need of the plane whose connections they go through. */
export interface TunnelPlane {
  /** An open connection to the member, made if need be. */
  connect(member: string, signal: AbortSignal): Promise<Connection>;
  /** The member's connections must not be closed for want of use while `isHeld`. */
  hold(member: string, isHeld: boolean): void;
}

/** Told of each tunnel that a member opens; `from` has proven that it is that member. */
export type TunnelHandler = (tunnel: Duplex, from: string) => void;

type Direction = 'inbound' | 'outbound';

/** The tunnels of this node, in both directions. */
export class Tunnels {
  readonly #plane: TunnelPlane;
  /** By direction and member. */
  readonly #open = { inbound: new Map<string, number>(), outbound: new Map<string, number>() };
  readonly #closing = new AbortController();
  #handler: TunnelHandler | undefined;

  constructor(plane: TunnelPlane) {
    this.#plane = plane;
  }

  get count(): number {
    let count = 0;
    for (const perMember of Object.values(this.#open))
      for (const n of perMember.values()) count += n;
    return count;
  }

  /** @returns Ends it; until then tunnels of others are refused. */
  onTunnel(handler: TunnelHandler): () => void {
    this.#handler = handler;
    return () => {
      if (this.#handler === handler) this.#handler = undefined;
    };
  }

  /** @throws SwarmError SWARM_UNREACHABLE, SWARM_EXHAUSTED */
  async open(member: string, signal: AbortSignal): Promise<Duplex> {
    const release = this.#enter('outbound', member);
    if (release === undefined) {
      const what = `tunnels to node ${member}`;
      throw new SwarmError({ code: 'SWARM_EXHAUSTED', what }, `too many ${what}: end some first`);
    }
    try {
      const limit = AbortSignal.timeout(TUNNEL_OPEN_MS_MAX);
      const ending = AbortSignal.any([signal, limit, this.#closing.signal]);
      const connection = await this.#plane.connect(member, ending);
      const stream = await connection.newStream(TUNNEL_PROTOCOL, {
        signal: ending,
        maxOutboundStreams: TUNNELS_PER_MEMBER_MAX,
      });
      return this.#wrap(stream, release);
    } catch (error) {
      release();
      signal.throwIfAborted();
      if (error instanceof SwarmError) throw error;
      throw unreachableMember(member, error);
    }
  }

  /** A member, or who is none any more, opened a stream. */
  accept(stream: Stream, member: string | undefined): void {
    const release = member === undefined ? undefined : this.#enter('inbound', member);
    if (release === undefined || member === undefined || this.#handler === undefined) {
      release?.();
      stream.abort(new Error('tunnel refused'));
      return;
    }
    this.#handler(this.#wrap(stream, release), member);
  }

  /** Those that are open end with their connections. */
  close(): void {
    this.#closing.abort();
    this.#handler = undefined;
  }

  #wrap(stream: Stream, release: () => void): Duplex {
    const tunnel = new TunnelDuplex(stream);
    tunnel.once('close', release);
    // It may break before its user listens, or after: then its end is enough.
    tunnel.on('error', () => undefined);
    return tunnel;
  }

  /** Counts a tunnel. @returns Counts it off again; `undefined`: there are too many. */
  #enter(direction: Direction, member: string): (() => void) | undefined {
    const counts = this.#open[direction];
    const count = counts.get(member) ?? 0;
    if (count >= TUNNELS_PER_MEMBER_MAX || this.#closing.signal.aborted) return undefined;
    counts.set(member, count + 1);
    this.#plane.hold(member, true);
    let isOpen = true;
    return () => {
      if (!isOpen) return;
      isOpen = false;
      const left = (counts.get(member) ?? 1) - 1;
      if (left > 0) counts.set(member, left);
      else counts.delete(member);
      const isHeld = this.#open.inbound.has(member) || this.#open.outbound.has(member);
      if (!isHeld) this.#plane.hold(member, false);
    };
  }
}

/** A member that is away, or that does not want to talk. */
export function unreachableMember(member: string, cause?: unknown): SwarmError {
  return new SwarmError(
    { code: 'SWARM_UNREACHABLE', node: member },
    `node ${member} cannot be reached: look whether it is up, and whether 7946/tcp is open to it`,
    { cause },
  );
}

/**
 * A libp2p stream as Node's Duplex, with back-pressure both ways and half-close. What ends without
 * the other side's word is an error, so that a broken connection does not look like an end.
 */
class TunnelDuplex extends Duplex {
  readonly #stream: Stream;
  readonly #idle: NodeJS.Timeout;
  #hasEnded = false;
  #isPaused = false;
  #waiting: (() => void) | undefined;

  constructor(stream: Stream) {
    super({ allowHalfOpen: true });
    this.#stream = stream;
    (stream as Windowed).maxStreamWindowSize = WINDOW_BYTES_MAX;
    this.#idle = setTimeout(() => this.destroy(new Error('tunnel was idle')), TUNNEL_IDLE_MS_MAX);
    this.#idle.unref();
    stream.addEventListener('message', ({ data }) => this.#onData(data.subarray()));
    stream.addEventListener('remoteCloseWrite', () => {
      this.#hasEnded = true;
    });
    stream.addEventListener('end', () => this.#onEnd());
    stream.addEventListener('close', ({ error }) => {
      if (error !== undefined) this.destroy(error);
    });
    // The stream goes on with what it holds in a microtask of its own, queued before this one.
    stream.addEventListener('drain', () => queueMicrotask(() => this.#onDrain()));
    // It may have ended before anybody listened.
    this.#hasEnded = stream.remoteWriteStatus === 'closed' && stream.status === 'open';
    if (stream.readableEnded) this.#onEnd();
    else if (stream.status !== 'open') this.destroy(new Error('tunnel broke'));
  }

  override _read(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    if (this.#stream.readStatus === 'paused') this.#stream.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error) => void): void {
    this.#idle.refresh();
    try {
      this.#stream.send(chunk);
    } catch (error) {
      done(error as Error);
      return;
    }
    if (this.#stream.writableNeedsDrain) this.#waiting = done;
    else done();
  }

  override _final(done: (error?: Error) => void): void {
    this.#stream.close().then(() => done(), done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#idle);
    this.#waiting = undefined;
    this.#stream.abort(error ?? new Error('tunnel closed'));
    done(error);
  }

  #onData(bytes: Uint8Array): void {
    this.#idle.refresh();
    if (this.destroyed || this.push(bytes)) return;
    this.#isPaused = true;
    if (this.#stream.readStatus === 'readable') this.#stream.pause();
  }

  #onEnd(): void {
    if (this.destroyed) return;
    if (this.#hasEnded) this.push(null);
    else this.destroy(new Error('tunnel broke'));
  }

  #onDrain(): void {
    if (this.#stream.writableNeedsDrain) return;
    const done = this.#waiting;
    this.#waiting = undefined;
    done?.();
  }
}
