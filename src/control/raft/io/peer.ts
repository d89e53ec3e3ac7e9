import type { Duplex } from 'node:stream';
import { nowMs } from '../../../base/io/driver.js';
import type { Prng } from '../../../base/prng.js';
import type { RaftId, RaftMessage } from '../core/types.js';
import { messageBytes } from '../wire/message.js';
import { Connection, type ConnectionEnd } from './connection.js';
import { Link } from './link.js';
import { encodeFrames, FRAME_BYTES_MAX } from './message-frames.js';

/** What a slow peer may leave unread; further messages to it are dropped, which raft allows for. */
const BACKLOG_BYTES_MAX = 4 << 20;
/** What waits for a connection that is being made; it is dropped when the attempt fails. */
const HELD_MESSAGES_MAX = 256;
const HELD_BYTES_MAX = 1 << 20;

export interface PeerConfig {
  readonly id: RaftId;
  readonly prng: Prng;
  /** See `ConnectionConfig`. */
  readonly silenceMs: number;
  /** The first frame of a connection that this side has dialled. */
  readonly hello: Uint8Array;
  readonly dial: (signal: AbortSignal) => Promise<Duplex>;
  readonly onFrame: (body: Uint8Array, connection: Connection) => void;
  /** The connection is gone and the peer's host refuses another: its process has ended. */
  readonly onGone: () => void;
  /** Messages may have been lost. */
  readonly onLoss: () => void;
  readonly onEnd: (end: ConnectionEnd) => void;
  /** So many messages were not sent. */
  readonly onDropped: (reason: 'slow_peer' | 'unconnected', count: number) => void;
}

/**
 * The way to one peer. Each side dials the other, so that either finds out first; whatever comes in on
 * either connection is good. Messages go out on the dialled one, or on the other while there is none.
 */
export class Peer {
  readonly id: RaftId;
  readonly #config: PeerConfig;
  readonly #link: Link;
  #dialled: Connection | undefined;
  #accepted: Connection | undefined;
  /** False: not a member here (any more); it may still have dialled this side. */
  #wanted = false;
  /** A connection was lost, and no attempt has ended since. */
  #lost = false;
  #queue: RaftMessage[] = [];
  #queueBytes = 0;

  constructor(config: PeerConfig) {
    this.#config = config;
    this.id = config.id;
    this.#link = new Link({
      prng: config.prng,
      dial: config.dial,
      onStream: (stream) => this.#onDialled(stream),
      onFailed: (refused) => this.#onFailed(refused),
    });
  }

  get connected(): boolean {
    return this.#dialled !== undefined || this.#accepted !== undefined;
  }

  /** Nothing is left of it. */
  get idle(): boolean {
    return !this.#wanted && !this.connected;
  }

  /** The peer is a member, and is to be reached. */
  want(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#link.dial();
  }

  /** The peer's address may have changed. @param known It has. */
  redial(known: boolean): void {
    if (!this.#wanted) return;
    if (known) this.#dialled?.end('unwanted');
    if (this.#dialled === undefined) this.#link.dialAnew();
  }

  /** An incoming connection whose first frame says that it is the peer's. */
  adopt(connection: Connection): void {
    this.#accepted?.end('replaced');
    this.#accepted = connection;
    // It lives, so there is no sense in waiting any longer before dialling it.
    if (this.#wanted && this.#dialled === undefined) this.#link.dial();
    this.#sendHeld();
  }

  /** The adopted connection has ended. */
  abandon(connection: Connection): void {
    if (this.#accepted !== connection) return;
    this.#accepted = undefined;
    if (this.#dialled !== undefined) return;
    this.#config.onLoss();
    this.#lost = true;
    if (this.#wanted) this.#link.dial();
  }

  /** Leaves with the next `flush`. */
  send(message: RaftMessage): void {
    this.#queue.push(message);
    this.#queueBytes += messageBytes(message);
  }

  /** One buffer for all messages of a turn. */
  flush(): void {
    if (this.#queue.length === 0) return;
    const connection = this.#dialled ?? this.#accepted;
    if (connection === undefined) {
      const held =
        this.#link.dialling &&
        this.#queue.length <= HELD_MESSAGES_MAX &&
        this.#queueBytes <= HELD_BYTES_MAX;
      if (!held) this.#drop('unconnected');
      return;
    }
    if (connection.backlogBytes > BACKLOG_BYTES_MAX) {
      this.#drop('slow_peer');
      return;
    }
    const messages = this.#queue;
    this.#queue = [];
    this.#queueBytes = 0;
    for (const frame of encodeFrames(messages)) connection.write(frame);
  }

  tick(): void {
    this.#dialled?.tick();
    this.#accepted?.tick();
  }

  /** @param gently What was sent still goes out. */
  stop(gently: boolean): void {
    this.#wanted = false;
    this.#link.stop();
    const connections = [this.#dialled, this.#accepted];
    this.#dialled = undefined;
    this.#accepted = undefined;
    for (const connection of connections)
      if (gently) connection?.finish();
      else connection?.end('unwanted');
  }

  #onDialled(stream: Duplex): void {
    const connection = new Connection(stream, {
      frameBytesMax: FRAME_BYTES_MAX,
      silenceMs: this.#config.silenceMs,
      onFrame: (body) => this.#config.onFrame(body, connection),
      onEnd: (end) => this.#onDialledEnd(connection, end),
    });
    this.#lost = false;
    this.#dialled = connection;
    connection.write(this.#config.hello);
    this.#sendHeld();
  }

  #onDialledEnd(connection: Connection, end: ConnectionEnd): void {
    this.#config.onEnd(end);
    if (this.#dialled !== connection) return;
    this.#dialled = undefined;
    this.#config.onLoss();
    this.#lost = end === 'closed';
    if (this.#wanted) this.#link.lost(nowMs() - connection.openedMs);
  }

  #onFailed(refused: boolean): void {
    const gone = refused && this.#lost && !this.connected;
    this.#lost = false;
    if (this.#accepted === undefined) this.#drop('unconnected');
    if (gone) this.#config.onGone();
  }

  #sendHeld(): void {
    this.flush();
  }

  #drop(reason: 'slow_peer' | 'unconnected'): void {
    if (this.#queue.length === 0) return;
    this.#config.onDropped(reason, this.#queue.length);
    this.#queue = [];
    this.#queueBytes = 0;
    this.#config.onLoss();
  }
}
