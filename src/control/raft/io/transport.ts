import type { Duplex } from 'node:stream';
import type { Prng } from '../../../base/prng.js';
import type { Member, Membership, RaftId, RaftMessage } from '../core/types.js';
import { decodeMessages } from '../wire/message.js';
import { Connection, type ConnectionEnd, FRAME_MS_MAX } from './connection.js';
import { FRAME_BYTES_MAX } from './message-frames.js';
import { Peer } from './peer.js';
import { decodeHello, encodeHello } from './stream-frames.js';

/** Accepted connections that have not said whose they are. */
const STRANGERS_MAX = 64;
/** Members, and those that think they are. */
const PEERS_MAX = 128;
/** How long an accepted connection may take to say whose it is, in ticks. */
const STRANGER_TICKS_MAX = 50;
/** How long a removed member keeps its connection, in ticks. */
const LEAVING_TICKS_MAX = 50;

export type TransportDrop =
  | ConnectionEnd
  | 'slow_peer'
  | 'unconnected'
  /** A first frame that is none of this protocol, or of another version. */
  | 'malformed_hello'
  /** Of somebody else than the certificate says, or meant for another member. */
  | 'wrong_hello'
  | 'late_hello'
  | 'too_many_connections'
  /** Messages that are not from whom the connection is, or not to this member, or not for the wire. */
  | 'misdirected_message';

export interface TransportConfig {
  readonly self: RaftId;
  readonly prng: Prng;
  /** See `ConnectionConfig`. */
  readonly silenceMs: number;
  readonly frameMs?: number;
  readonly dial: (member: Member, signal: AbortSignal) => Promise<Duplex>;
  readonly onMessage: (message: RaftMessage) => void;
  readonly onGone: (peer: RaftId) => void;
  readonly onLoss: (peer: RaftId) => void;
}

/**
 * Messages to and from the other members, one connection per pair and direction. Nothing here waits and
 * nothing grows: what cannot leave is dropped, counted, and the core told that a peer may have missed something.
 */
export class Transport {
  readonly #config: TransportConfig;
  readonly #peers = new Map<RaftId, Peer>();
  /** What is dialled, and with which words. */
  #members = new Map<RaftId, Member>();
  /** Members no more, and for how many ticks: so that they can still learn of it. */
  readonly #leaving = new Map<RaftId, number>();
  /** Accepted, and how many ticks ago. */
  readonly #strangers = new Map<Connection, number>();
  readonly #dirty = new Set<Peer>();
  readonly #dropped = new Map<TransportDrop, number>();
  #stopped = false;

  constructor(config: TransportConfig) {
    this.#config = config;
  }

  /** Ordinary ends of connections among them. */
  get dropped(): Readonly<Partial<Record<TransportDrop, number>>> {
    return Object.fromEntries(this.#dropped);
  }

  get peers(): readonly { readonly id: RaftId; readonly connected: boolean }[] {
    return [...this.#peers.values()].map(({ id, connected }) => ({ id, connected }));
  }

  connectedTo(id: RaftId): boolean {
    return this.#peers.get(id)?.connected ?? false;
  }

  /** Whom to keep connections with. Those that are members no more are cut off a little later. */
  setMembers(members: Membership): void {
    if (this.#stopped) return;
    const before = this.#members;
    this.#members = new Map(members.map((member) => [member.id, member]));
    for (const id of before.keys()) if (!this.#members.has(id)) this.#leaving.set(id, 0);
    for (const { id, context } of members) {
      this.#leaving.delete(id);
      if (id === this.#config.self) continue;
      const peer = this.#peerOf(id);
      if (peer === undefined) continue;
      peer.want();
      const known = before.get(id);
      if (known !== undefined && known.context !== context) peer.redial(true);
    }
  }

  /** Queues; see `flush`. */
  send(message: RaftMessage): void {
    const peer = this.#peers.get(message.to);
    if (peer === undefined) {
      this.#count('unconnected');
      return;
    }
    peer.send(message);
    this.#dirty.add(peer);
  }

  /** Sends what was queued, one buffer for each peer. */
  flush(): void {
    if (this.#dirty.size === 0) return;
    for (const peer of this.#dirty) peer.flush();
    this.#dirty.clear();
  }

  /** An incoming connection. @param from Whose the certificate says it is. */
  accept(stream: Duplex, from?: RaftId): void {
    if (this.#stopped || this.#strangers.size >= STRANGERS_MAX) {
      this.#count('too_many_connections');
      stream.on('error', () => {});
      stream.destroy();
      return;
    }
    let peer: Peer | undefined;
    const connection = new Connection(stream, {
      frameBytesMax: FRAME_BYTES_MAX,
      silenceMs: this.#config.silenceMs,
      frameMs: this.#config.frameMs ?? FRAME_MS_MAX,
      onFrame: (body) => {
        if (peer === undefined) peer = this.#onHello(body, connection, from);
        else this.#onFrame(peer, body, connection);
      },
      onEnd: (end) => {
        this.#count(end);
        this.#strangers.delete(connection);
        peer?.abandon(connection);
      },
    });
    this.#strangers.set(connection, 0);
  }

  /** Addresses may have changed: whoever is not connected is dialled at once. */
  updateDials(): void {
    for (const peer of this.#peers.values()) peer.redial(false);
  }

  /** To be called once a heartbeat. */
  tick(): void {
    for (const peer of this.#peers.values()) {
      peer.tick();
      if (peer.idle && !this.#members.has(peer.id)) this.#peers.delete(peer.id);
    }
    for (const [id, ticks] of this.#leaving) {
      this.#leaving.set(id, ticks + 1);
      if (ticks >= LEAVING_TICKS_MAX) this.#forget(id);
    }
    for (const [connection, ticks] of this.#strangers) {
      this.#strangers.set(connection, ticks + 1);
      connection.tick();
      if (ticks >= STRANGER_TICKS_MAX) this.#refuse(connection, 'late_hello');
    }
  }

  /** No message is sent or received after this. @param gently What was sent still goes out. */
  stop(gently: boolean): void {
    this.#stopped = true;
    for (const connection of this.#strangers.keys()) connection.end('unwanted');
    for (const peer of this.#peers.values()) peer.stop(gently);
    this.#peers.clear();
    this.#dirty.clear();
  }

  #onHello(body: Uint8Array, connection: Connection, from?: RaftId): Peer | undefined {
    this.#strangers.delete(connection);
    const hello = decodeHello(body);
    if (hello === undefined) return this.#refuse(connection, 'malformed_hello');
    const { self } = this.#config;
    const expected =
      hello.to === self && hello.from !== self && hello.from === (from ?? hello.from);
    if (!expected) return this.#refuse(connection, 'wrong_hello');
    const peer = this.#peerOf(hello.from);
    if (peer === undefined) return this.#refuse(connection, 'too_many_connections');
    peer.adopt(connection);
    return peer;
  }

  #onFrame(peer: Peer, body: Uint8Array, connection: Connection): void {
    if (this.#stopped) return;
    const messages = decodeMessages(body);
    if (messages === undefined) {
      connection.end('malformed_frame');
      return;
    }
    for (const message of messages) {
      // A snapshot is announced by the own receiver, when it is on the own disk.
      const proper =
        message.from === peer.id && message.to === this.#config.self && message.kind !== 'snapshot';
      if (proper) this.#config.onMessage(message);
      else this.#count('misdirected_message');
    }
  }

  #peerOf(id: RaftId): Peer | undefined {
    const known = this.#peers.get(id);
    if (known !== undefined) return known;
    if (this.#peers.size >= PEERS_MAX) return undefined;
    const peer: Peer = new Peer({
      id,
      prng: this.#config.prng,
      silenceMs: this.#config.silenceMs,
      hello: encodeHello({ from: this.#config.self, to: id }),
      dial: (signal) => this.#dial(id, signal),
      onFrame: (body, connection) => this.#onFrame(peer, body, connection),
      onGone: () => this.#config.onGone(id),
      onLoss: () => this.#config.onLoss(id),
      onEnd: (end) => this.#count(end),
      onDropped: (reason, count) => this.#count(reason, count),
    });
    this.#peers.set(id, peer);
    return peer;
  }

  #dial(id: RaftId, signal: AbortSignal): Promise<Duplex> {
    const member = this.#members.get(id);
    if (member === undefined) return Promise.reject(new Error('not a member any more'));
    return this.#config.dial(member, signal);
  }

  #forget(id: RaftId): void {
    this.#leaving.delete(id);
    const peer = this.#peers.get(id);
    if (peer === undefined) return;
    this.#peers.delete(id);
    this.#dirty.delete(peer);
    peer.stop(true);
  }

  #refuse(connection: Connection, why: TransportDrop): undefined {
    this.#count(why);
    connection.end('unwanted');
  }

  #count(reason: TransportDrop, count = 1): void {
    this.#dropped.set(reason, (this.#dropped.get(reason) ?? 0) + count);
  }
}
