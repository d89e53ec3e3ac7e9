/** Backends of which a driver remembers that they listen by IPv4 only; beyond, that of the oldest is forgotten. */
export const IPV4_ONLY_MAX = 4096;

/** For how long one is not asked for IPv6, and how long the flow that asks then may take, ms. */
const ASK_AGAIN_MS = 10_000;
const ASK_MS = 1000;

/**
 * Which backends take nobody by IPv6, as far as flows have shown, so that not each client pays for it. Known for a
 * while; then one flow finds out anew, and the others go on as before until it has. `native` does the same.
 */
export class Ipv4Only {
  /** Until when it is known, by what names the backend and its port. */
  readonly #untilMs = new Map<string, number>();
  readonly #most: number;

  constructor(most = IPV4_ONLY_MAX) {
    this.#most = most;
  }

  /** Whether this flow is to try IPv6. */
  letsTry(backend: string, nowMs: number): boolean {
    const untilMs = this.#untilMs.get(backend);
    if (untilMs === undefined) return true;
    if (nowMs < untilMs) return false;
    this.#untilMs.set(backend, nowMs + ASK_MS);
    return true;
  }

  /** By IPv6 nobody listens there, or nobody answers. */
  refused(backend: string, nowMs: number): void {
    this.#untilMs.delete(backend);
    const [oldest] = this.#untilMs.keys();
    if (this.#untilMs.size >= this.#most && oldest !== undefined) this.#untilMs.delete(oldest);
    this.#untilMs.set(backend, nowMs + ASK_AGAIN_MS);
  }

  /** By IPv6 somebody listens. */
  taken(backend: string): void {
    this.#untilMs.delete(backend);
  }
}
