import type { Duplex } from 'node:stream';
import type { NodeId } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import {
  type CallOutcome,
  FORWARD_BYTES_MAX,
  type ForwardRequest,
  type ForwardResponse,
  type LeaderHint,
  type ProposeOutcome,
  parseForwardRequest,
  reasonOf,
} from '../wire/forward-messages.js';
import { encodeFrame } from '../wire/frame.js';
import { refusalOf } from '../wire/refusal.js';
import { Channel } from './channel.js';
import { corkForThisTurn } from './cork.js';

/** Questions of one manager that may be unanswered; a further one is told to come later. */
const REQUESTS_MAX = 4_096;
/** Connections with other managers; more than a swarm has managers. */
const CONNECTIONS_MAX = 64;

/** Takes up proposals; never rejects. */
export type Propose = (dedupe: string, command: unknown, from: NodeId) => Promise<ProposeOutcome>;

/**
 * Does what another manager asks. A `SwarmError` goes to the asker, `NotLeader` sends it on to the
 * leader; everything else is this manager's own trouble, and the asker may try again.
 * `params` are a peer's bytes: the method judges them.
 */
export type ForwardMethod = (
  params: unknown,
  from: NodeId,
  signal: AbortSignal,
) => Promise<unknown>;

export interface ForwardBackend {
  readonly log: Logger;
  readonly propose: Propose;
  readonly methods: Readonly<Record<string, ForwardMethod>>;
}

/** Thrown by a method that only the leader may do. */
export class NotLeader extends Error {
  readonly leader: LeaderHint | undefined;

  constructor(leader: LeaderHint | undefined) {
    super('this manager does not lead');
    this.leader = leader;
  }
}

export interface ForwardServerStats {
  readonly connections: number;
  readonly proposals: number;
  readonly calls: number;
  /** Questions that were told to come later because there were too many. */
  readonly overflows: number;
  /** Connections that were given up because of what they sent. */
  readonly refusedConnections: number;
}

interface Connection {
  readonly from: NodeId;
  readonly stream: Duplex;
  readonly channel: Channel;
  /** Questions that wait for an answer. */
  readonly open: Map<number, Open>;
}

interface Open {
  /** Only of calls: a proposal cannot be taken back, and this is a fifth of what a commit would allocate. */
  controller?: AbortController;
}

/** The answering end of `shoal-forward/1`: what other managers ask, done here. */
export class ForwardServer {
  readonly #backend: ForwardBackend;
  readonly #connections = new Map<NodeId, Connection>();
  #proposals = 0;
  #calls = 0;
  #overflows = 0;
  #refusedConnections = 0;

  constructor(backend: ForwardBackend) {
    this.#backend = backend;
  }

  stats(): ForwardServerStats {
    return {
      connections: this.#connections.size,
      proposals: this.#proposals,
      calls: this.#calls,
      overflows: this.#overflows,
      refusedConnections: this.#refusedConnections,
    };
  }

  /** Takes over a connection whose certificate says that it is of the manager `from`. */
  accept(stream: Duplex, from: NodeId): void {
    // A manager keeps one connection: an earlier one of it is broken, and it knows that already.
    this.#connections.get(from)?.channel.destroy();
    if (this.#connections.size >= CONNECTIONS_MAX && !this.#connections.has(from)) {
      this.#refusedConnections++;
      stream.on('error', () => {});
      stream.destroy();
      return;
    }
    const channel = new Channel(stream, {
      receiveBytesMax: FORWARD_BYTES_MAX,
      onMessage: (value) => this.#onMessage(connection, value),
      onClose: () => this.#onClose(connection),
    });
    const connection: Connection = { from, stream, channel, open: new Map() };
    this.#connections.set(from, connection);
  }

  /** The node is a manager no more. */
  drop(from: NodeId): void {
    this.#connections.get(from)?.channel.destroy();
  }

  close(): void {
    for (const { channel } of this.#connections.values()) channel.destroy();
  }

  #onClose(connection: Connection): void {
    if (this.#connections.get(connection.from) === connection)
      this.#connections.delete(connection.from);
    for (const { controller } of connection.open.values()) controller?.abort();
    connection.open.clear();
  }

  #onMessage(connection: Connection, value: unknown): void {
    const message = parseForwardRequest(value);
    if (message === undefined || isAsked(connection, message)) {
      this.#refusedConnections++;
      this.#backend.log.warn({ from: connection.from }, 'a manager sent nonsense');
      connection.channel.destroy();
    } else if (message.kind === 'ping') this.#send(connection, { kind: 'pong' });
    else if (message.kind === 'cancel') {
      connection.open.get(message.request)?.controller?.abort();
      connection.open.delete(message.request);
    } else void this.#perform(connection, message);
  }

  async #perform(
    connection: Connection,
    message: Extract<ForwardRequest, { kind: 'propose' | 'call' }>,
  ): Promise<void> {
    const { request } = message;
    if (connection.open.size >= REQUESTS_MAX) {
      this.#overflows++;
      this.#send(connection, { kind: 'busy', request, reason: 'too many requests at once' });
      return;
    }
    const open: Open = {};
    connection.open.set(request, open);
    const outcome = await this.#outcome(connection.from, message, open);
    // Cancelled, or the connection is gone: nobody waits for it.
    if (connection.open.get(request) !== open) return;
    connection.open.delete(request);
    this.#send(connection, { ...outcome, request });
  }

  #outcome(
    from: NodeId,
    message: Extract<ForwardRequest, { kind: 'propose' | 'call' }>,
    open: Open,
  ): Promise<ProposeOutcome | CallOutcome> {
    if (message.kind === 'propose') return this.#propose(message.dedupe, message.command, from);
    open.controller = new AbortController();
    return this.#call(message.method, message.params, from, open.controller.signal);
  }

  async #propose(dedupe: string, command: unknown, from: NodeId): Promise<ProposeOutcome> {
    this.#proposals++;
    try {
      return await this.#backend.propose(dedupe, command, from);
    } catch (error) {
      this.#backend.log.error({ from, err: error }, 'a forwarded proposal failed');
      return { kind: 'unknown' };
    }
  }

  async #call(
    name: string,
    params: unknown,
    from: NodeId,
    signal: AbortSignal,
  ): Promise<CallOutcome> {
    this.#calls++;
    return callMethod(this.#backend, name, params, from, signal);
  }

  #send({ channel, stream }: Connection, message: ForwardResponse): void {
    corkForThisTurn(stream);
    const frame = encodeFrame(message);
    if (frame.length <= FORWARD_BYTES_MAX) channel.sendFrame(frame);
    else if ('request' in message)
      channel.send({ kind: 'busy', request: message.request, reason: 'the answer is too large' });
  }
}

/** Does a method of the registry, for a peer or for this manager itself. Never rejects. */
export async function callMethod(
  { methods, log }: Pick<ForwardBackend, 'methods' | 'log'>,
  name: string,
  params: unknown,
  from: NodeId,
  signal: AbortSignal,
): Promise<CallOutcome> {
  const method = Object.hasOwn(methods, name) ? methods[name] : undefined;
  if (method === undefined)
    return {
      kind: 'refused',
      refusal: {
        detail: { code: 'SWARM_UNSUPPORTED' },
        message: `this manager does not know how to do ${name}: update it`,
      },
    };
  try {
    return { kind: 'result', result: (await method(params, from, signal)) ?? null };
  } catch (error) {
    if (error instanceof NotLeader)
      return { kind: 'not_leader', ...(error.leader && { leader: error.leader }) };
    const refusal = refusalOf(error);
    if (refusal !== undefined) return { kind: 'refused', refusal };
    if (!signal.aborted) log.warn({ method: name, from, err: error }, 'a forwarded call failed');
    return { kind: 'busy', reason: reasonOf(error) };
  }
}

function isAsked({ open }: Connection, message: ForwardRequest): boolean {
  return (message.kind === 'propose' || message.kind === 'call') && open.has(message.request);
}
