/**
 * The contract of every protocol core: a deterministic function of its inputs.
 *
 * A core opens no socket, reads no clock, starts no timer and rolls no dice; time comes in as
 * `nowMs` (monotonic milliseconds, never decreasing) and randomness as a seeded `Prng`.
 */
export interface Core<Input, Ready> {
  /** Applies one input. Never calls back; never throws on peer data. */
  step(input: Input, nowMs: number): void;
  /** Hands over, and forgets, what must now be done. `Ready` documents the order. */
  takeReady(): Ready;
  /** When to step `{ kind: 'timeout' }`; extra or late calls are harmless. `undefined`: never. */
  nextDeadlineMs(): number | undefined;
}
