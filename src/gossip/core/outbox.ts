import type { Claim, Incarnation, MemberId } from '../wire/claim.js';
import type { Endpoint } from '../wire/endpoint.js';
import { type Message, messageBytes, type Packet, packetHeaderBytes } from '../wire/packet.js';
import type { BroadcastQueue } from './broadcast-queue.js';

/** What the core knows about itself. Only the core changes it. */
export interface Self {
  readonly id: MemberId;
  readonly endpoint: Endpoint;
  incarnation: Incarnation;
}

export interface Send {
  readonly to: Endpoint;
  readonly packet: Packet;
}

/** Try a TCP connection, and tell the result as an input of the same `id`. */
export interface Connect {
  readonly id: number;
  readonly endpoint: Endpoint;
  readonly timeoutMs: number;
}

/** Collects what is to be sent, and fills what is left of each packet with waiting claims. */
export class Outbox {
  readonly #self: Self;
  readonly #queue: BroadcastQueue;
  readonly #payloadBytesMax: number;
  #sends: Send[] = [];
  #connects: Connect[] = [];
  /** How often a claim is piggybacked; follows the number of members. */
  retransmitLimit = 1;

  /** @param payloadBytesMax Of a packet before it is sealed. */
  constructor(self: Self, queue: BroadcastQueue, payloadBytesMax: number) {
    this.#self = self;
    this.#queue = queue;
    this.#payloadBytesMax = payloadBytesMax;
  }

  /** `messages` fit one packet. */
  send(to: Endpoint, messages: readonly Message[]): void {
    let bytes = packetHeaderBytes(this.#self.id);
    for (const message of messages) bytes += messageBytes(message);
    const claims = this.#queue.take(
      this.#payloadBytesMax - bytes,
      (claim) => messageBytes({ kind: 'claim', claim }),
      this.retransmitLimit,
    );
    if (messages.length === 0 && claims.length === 0) return;
    this.#push(to, [...messages, ...claims.map(claimMessage)]);
  }

  /**
   * Claims for one member only, that do not count as broadcast.
   *
   * @returns Packets used; with `packetsMax` reached, the rest is left out.
   */
  sendClaims(to: Endpoint, claims: Iterable<Claim>, packetsMax: number): number {
    const headerBytes = packetHeaderBytes(this.#self.id);
    let packets = 0;
    let messages: Message[] = [];
    let bytes = headerBytes;
    for (const claim of claims) {
      const message = claimMessage(claim);
      const needed = messageBytes(message);
      if (bytes + needed > this.#payloadBytesMax) {
        this.#push(to, messages);
        packets += 1;
        if (packets >= packetsMax) return packets;
        messages = [];
        bytes = headerBytes;
      }
      messages.push(message);
      bytes += needed;
    }
    if (messages.length === 0) return packets;
    this.#push(to, messages);
    return packets + 1;
  }

  connect(connect: Connect): void {
    this.#connects.push(connect);
  }

  take(): { readonly sends: readonly Send[]; readonly connects: readonly Connect[] } {
    const taken = { sends: this.#sends, connects: this.#connects };
    this.#sends = [];
    this.#connects = [];
    return taken;
  }

  #push(to: Endpoint, messages: readonly Message[]): void {
    const { id, incarnation } = this.#self;
    this.#sends.push({ to, packet: { from: id, incarnation, messages } });
  }
}

export function claimMessage(claim: Claim): Message {
  return { kind: 'claim', claim };
}
