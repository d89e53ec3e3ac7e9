import { EVERYWHERE } from '../core/bind.js';
import type { ListenFailure } from '../core/proxy-driver.js';

/** Sockets of published ports by listener and address. */
export class Places<Held> {
  readonly #held = new Map<number, Map<string, Held>>();
  readonly #close: (held: Held) => void;

  constructor(close: (held: Held) => void) {
    this.#close = close;
  }

  /**
   * Opens a listener at these addresses and nowhere else: one that is open already moves.
   *
   * @param openAt Throws what the system says where that cannot be had.
   * @returns Addresses where it could not be had.
   */
  async open(
    listener: number,
    places: readonly string[],
    openAt: (place: string) => Promise<Held>,
  ): Promise<readonly ListenFailure[]> {
    const all = this.#held.get(listener) ?? new Map<string, Held>();
    this.#held.set(listener, all);
    // First those that are left, which may be in the way of others.
    for (const [place, held] of all) {
      if (places.includes(place)) continue;
      this.#close(held);
      all.delete(place);
    }
    const failures: ListenFailure[] = [];
    for (const place of places) {
      if (all.has(place)) continue;
      try {
        const held = await openAt(place);
        // It may have been closed meanwhile.
        if (this.#held.get(listener) !== all) {
          this.#close(held);
          return failures;
        }
        all.set(place, held);
      } catch (error) {
        failures.push({ place, errno: errnoOf(error) });
      }
    }
    return failures;
  }

  close(listener: number): void {
    for (const held of this.#held.get(listener)?.values() ?? []) this.#close(held);
    this.#held.delete(listener);
  }

  closeAll(): void {
    for (const listener of [...this.#held.keys()]) this.close(listener);
  }
}

/** Whether a host that refused a socket for all addresses may have no IPv6, but IPv4. */
export function isWithoutIpv6(place: string, error: unknown): boolean {
  const errno = errnoOf(error);
  return EVERYWHERE.includes(place) && (errno === 'EAFNOSUPPORT' || errno === 'EADDRNOTAVAIL');
}

export function errnoOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? 'unknown';
}
