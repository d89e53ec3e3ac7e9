import { reduceToClient, wordsOf } from './client-words.js';

/**
 * Counts open flows by client: an IPv4 address, or a /64 of IPv6, of which a client may use any address. One
 * client has half of the room at most, so that it alone cannot keep the others out.
 */
export class ClientShares {
  readonly #most: number;
  /** No more of them than there are flows. */
  readonly #counts = new Map<string, number>();

  constructor(flowsMax: number) {
    this.#most = Math.ceil(flowsMax / 2);
  }

  /** @returns Whether this client may have one more, which is then counted. */
  take(address: string): boolean {
    const client = clientOf(address);
    const count = this.#counts.get(client) ?? 0;
    if (count >= this.#most) return false;
    this.#counts.set(client, count + 1);
    return true;
  }

  /** Whether both count as one client. */
  areOne(a: string, b: string): boolean {
    return a === b || clientOf(a) === clientOf(b);
  }

  leave(address: string): void {
    const client = clientOf(address);
    const count = (this.#counts.get(client) ?? 1) - 1;
    if (count === 0) this.#counts.delete(client);
    else this.#counts.set(client, count);
  }
}

function clientOf(address: string): string {
  const words = wordsOf(address);
  reduceToClient(words);
  return words.join();
}
