import type { Socket } from 'node:net';
import { frameMessage, MessageSplitter } from './stream-messages.js';

/** TCP conversations at a time; a further one ends the one that has asked nothing for longest. */
const CONNECTIONS_MAX = 64;
/** For how long a conversation may go on without a whole query, ms. */
const QUERY_TIMEOUT_MS = 10_000;
/** Bytes of a query over TCP; a name and some options need a tenth of it. */
const QUERY_BYTES_MAX = 4096;
/** Queries of one conversation that may wait for upstreams; then it is not read from until one is answered. */
const WAITING_MAX = 16;
/** Queries of all conversations that are looked at before the rest of the agent has its turn: a millisecond. */
const QUERIES_PER_TURN = 32;

/** Calls `send` once, now or later; without a reply if there is none. */
export type Ask = (query: Buffer, send: (reply: Buffer | undefined) => void) => void;

/**
 * The TCP side of a name server: a client has as much attention as it reads of its answers, and one that is slow, says
 * half of something, or only asks, takes nothing from the others.
 */
export class Conversations {
  /** All only grow. */
  readonly counters = {
    /** Ended since more came than may be at a time. */
    connectionsEvicted: 0,
    /** Ended without a whole query in time. */
    connectionsExpired: 0,
    /** Announced, and their conversations ended. */
    queriesOversized: 0,
  };
  readonly #ask: Ask;
  readonly #queryTimeoutMs: number;
  /** Those that have asked nothing for longest come first. */
  readonly #open = new Set<Conversation>();
  /** Those that may have something to be answered, in turn. */
  readonly #ready = new Set<Conversation>();
  #turn: NodeJS.Immediate | undefined;

  constructor(ask: Ask, queryTimeoutMs: number = QUERY_TIMEOUT_MS) {
    this.#ask = ask;
    this.#queryTimeoutMs = queryTimeoutMs;
  }

  get size(): number {
    return this.#open.size;
  }

  add(socket: Socket): void {
    const [longest] = this.#open;
    if (longest !== undefined && this.#open.size >= CONNECTIONS_MAX) {
      this.counters.connectionsEvicted += 1;
      this.#end(longest);
    }
    const conversation: Conversation = new Conversation(socket, this.#queryTimeoutMs, {
      ask: (query, send) => {
        this.#open.delete(conversation);
        this.#open.add(conversation);
        this.#ask(query, send);
      },
      oversized: () => {
        this.counters.queriesOversized += 1;
        this.#end(conversation);
      },
      expired: () => {
        this.counters.connectionsExpired += 1;
        this.#end(conversation);
      },
      ready: () => {
        this.#ready.add(conversation);
        this.#turn ??= setImmediate(() => this.#answerSome());
      },
      closed: () => this.#open.delete(conversation),
    });
    this.#open.add(conversation);
  }

  close(): void {
    for (const conversation of this.#open) this.#end(conversation);
  }

  /** One query of each, as long as this turn lasts. */
  #answerSome(): void {
    this.#turn = undefined;
    for (let count = 0; count < QUERIES_PER_TURN; count++) {
      const [next] = this.#ready;
      if (next === undefined) return;
      this.#ready.delete(next);
      if (next.answerOne()) this.#ready.add(next);
    }
    if (this.#ready.size > 0) this.#turn ??= setImmediate(() => this.#answerSome());
  }

  #end(conversation: Conversation): void {
    // Its socket says so later, and others may come before that.
    this.#open.delete(conversation);
    this.#ready.delete(conversation);
    conversation.end();
  }
}

interface Owner {
  ask: Ask;
  oversized(): void;
  expired(): void;
  /** There may be something to answer. */
  ready(): void;
  closed(): void;
}

class Conversation {
  readonly #socket: Socket;
  readonly #owner: Owner;
  readonly #splitter = new MessageSplitter(QUERY_BYTES_MAX);
  readonly #patience: NodeJS.Timeout;
  #waiting = 0;

  constructor(socket: Socket, queryTimeoutMs: number, owner: Owner) {
    this.#socket = socket;
    this.#owner = owner;
    this.#patience = setTimeout(() => owner.expired(), queryTimeoutMs);
    socket.on('error', () => this.end());
    socket.on('close', () => {
      this.end();
      owner.closed();
    });
    socket.on('drain', () => owner.ready());
    socket.on('data', (chunk) => {
      // Not read from again before all of this is answered.
      socket.pause();
      this.#splitter.push(chunk);
      owner.ready();
    });
  }

  end(): void {
    clearTimeout(this.#patience);
    this.#socket.destroy();
  }

  /** @returns Whether there may be another query to answer at once. */
  answerOne(): boolean {
    // Goes on when it has read its answers, or has one from upstream.
    if (this.#socket.destroyed || this.#socket.writableNeedDrain || this.#waiting >= WAITING_MAX)
      return false;
    const query = this.#splitter.take();
    if (query === undefined) {
      if (this.#splitter.isOversized) this.#owner.oversized();
      else this.#socket.resume();
      return false;
    }
    this.#patience.refresh();
    this.#waiting += 1;
    this.#owner.ask(query, (reply) => {
      this.#waiting -= 1;
      if (reply !== undefined && this.#socket.writable) this.#socket.write(frameMessage(reply));
      this.#owner.ready();
    });
    return true;
  }
}
