import type { Ticket } from '../../core/balance/backend-set.js';
import type { ProxyProtocol } from '../wire/proxy-protocol.js';
import type { PortProtocol } from './published-ports.js';

/**
 * Accepts flows on listeners, connects them to backends, and moves their bytes. It decides nothing:
 * it asks `ProxyPolicy`. `portable` does it on `node:net` and `node:dgram`; `native` on threads
 * of its own, since numbers and addresses are all that crosses.
 */
export interface ProxyDriver {
  readonly kind: 'portable' | 'native';
  /** Flows that are open now. */
  readonly flowCount: number;
  /**
   * Listens at these addresses of the host and nowhere else: a listener that is open already moves. `::` is all of
   * them, IPv4 and IPv6. Open flows go on; of UDP, those whose address is left end.
   *
   * @returns Addresses where that cannot be had.
   */
  open(
    listener: number,
    protocol: PortProtocol,
    port: number,
    places: readonly string[],
  ): Promise<readonly ListenFailure[]>;
  /** No new flows; those that are there live on (TCP) or end (UDP, which has no end of its own). */
  close(listener: number): void;
  /** Datagrams whose backends are gone go elsewhere from the next one on. */
  moveGone?(): void;
  /** Datagrams that were dropped, by reason. */
  datagramDrops?(): Readonly<Record<string, number>>;
  /** Open flows of these listeners, at most so many. */
  flows(listeners: ReadonlySet<number>, most: number): readonly OpenFlow[];
  /** Resets the flows whose backends are gone. */
  resetGone(): void;
  /** Tells the policy what has happened and was not told yet. */
  tell(): void;
  /** The same, and gives back what was chosen ahead: the policy is about to change. */
  giveBack(): void;
  /** Ends everything. */
  stop(): Promise<void>;
}

/** A flow as an operator sees it. */
export interface OpenFlow {
  readonly listener: number;
  readonly clientAddress: string;
  readonly clientPort: number;
  /** By `performance.now()`. */
  readonly startedMs: number;
  /** Absent while it has no backend. */
  readonly ticket?: Ticket;
  /** So far; absent where the driver learns of them at the end. */
  readonly bytesUp?: number;
  readonly bytesDown?: number;
}

/** Where a port is not open, and why. */
export interface ListenFailure {
  readonly place: string;
  /** `EADDRINUSE`, `EACCES`, … */
  readonly errno: string;
}

/** Where a flow goes. */
export interface Upstream {
  readonly ticket: Ticket;
  readonly address: string;
  readonly port: number;
  /** Namespace file that the connection is made in; absent: this one. */
  readonly netns?: string;
  /** How long it may take to connect (TCP), after which it has failed. */
  readonly connectMs: number;
  /**
   * Connects from the client's own address and port, which the host need not have; not from
   * loopback and link-local ones. Where that cannot be, or is refused, it is tried once more from this
   * node's own, with what was sent by then if it was datagrams; and so are the others after one that
   * was silent (TCP).
   */
  readonly asClient?: boolean;
  /**
   * Where clients of IPv6 are taken so; absent: nowhere, if `address` is of IPv4. Where nobody listens there, which is
   * remembered for a while, they are taken at `address`, from this node's own.
   */
  readonly address6?: string;
  /** Tells the backend who the client is, before what the client sends; in each datagram of UDP. */
  readonly proxyProtocol?: ProxyProtocol;
  /** Own address to connect from; port 0: any. Only the native driver heeds it, and the next one. */
  readonly source?: { readonly address: string; readonly port: number };
  /** The kernel's mark of the connection's packets, for its routing. */
  readonly mark?: number;
}

/**
 * How a flow ended; each is also the value of its counter.
 *
 * - `closed`: both sides were done, or the flow idle for its time (UDP).
 * - `client_reset`, `backend_reset`: one side broke it off; the other was told.
 * - `backend_gone`: the task is no more, and had not ended the flow.
 * - `no_backend`: no task is ready. `unreachable`: none of those tried took it.
 * - `limit`: the node has as many flows as it may.
 * - `refused`: the service does not let this client in, or not so many flows.
 */
export const FLOW_ENDS = [
  'closed',
  'client_reset',
  'backend_reset',
  'backend_gone',
  'no_backend',
  'unreachable',
  'limit',
  'refused',
] as const;
export type FlowEnd = (typeof FLOW_ENDS)[number];

/** What drivers ask and tell. Every flow is `accepted` once and `ended` once. */
export interface ProxyPolicy {
  accepted(listener: number): void;
  /**
   * Where a flow of this client goes; the ticket is given back by `released`.
   *
   * @param tried Tickets of this flow that failed.
   * @returns `undefined` where no backend is left; `refused`: the flow is to end so.
   */
  choose(
    listener: number,
    clientAddress: string,
    clientPort: number,
    tried: readonly Ticket[],
  ): Upstream | 'refused' | undefined;
  /**
   * Whether the next choices depend neither on the client nor on what flows do meanwhile, so that they
   * may be made ahead.
   */
  foresees(listener: number): boolean;
  /** A choice made ahead that no flow has used; of several, the last one first. */
  withdrawn(listener: number, ticket: Ticket): void;
  /** Whether the backend of a flow is still one: ready or draining. */
  isLive(listener: number, ticket: Ticket): boolean;
  connected(listener: number, ticket: Ticket, latencyMs: number): void;
  /**
   * The backend sent its first byte, or ended the flow in good order.
   *
   * @param waitedMs Since the client's first byte; absent where the backend spoke first, and of UDP.
   */
  answered(listener: number, ticket: Ticket, waitedMs?: number): void;
  /**
   * It was sent something, and sent nothing for `SILENCE_MS`: told once of a flow, and what it may answer later
   * is not.
   */
  silent(listener: number, ticket: Ticket): void;
  /** It refused, timed out, or broke off before it sent a byte. */
  failed(listener: number, ticket: Ticket): void;
  /** The flow does not use the backend any more. */
  released(listener: number, ticket: Ticket): void;
  ended(listener: number, end: FlowEnd, bytesUp: number, bytesDown: number): void;
}
