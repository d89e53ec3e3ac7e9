/** Ports of a service whose answers are remembered; for another one that is forgotten which was answered the longest ago. */
const ANSWERED_PORTS_MAX = 16;

/**
 * When the clients asked that were answered last, of each port of a service: by the backend that answered last, and by
 * another one. What never answers at one port, as a sink of logs, is not to be compared with answers at another.
 */
export class LastAnswers {
  readonly #ports = new Int32Array(ANSWERED_PORTS_MAX).fill(-1);
  readonly #slots = new Int32Array(ANSWERED_PORTS_MAX).fill(-1);
  readonly #ms = new Float64Array(ANSWERED_PORTS_MAX).fill(Number.NEGATIVE_INFINITY);
  readonly #otherMs = new Float64Array(ANSWERED_PORTS_MAX).fill(Number.NEGATIVE_INFINITY);

  /** The backend of a slot has answered a client who asked then. */
  note(port: number, slot: number, askedMs: number): void {
    let at = this.#ports.indexOf(port);
    if (at === -1) at = this.#begin(port);
    if (slot !== this.#slots[at]) {
      this.#otherMs[at] = this.#ms[at] as number;
      this.#slots[at] = slot;
    }
    this.#ms[at] = askedMs;
  }

  /** When the last client asked whom another backend has answered there. */
  ofOthersMs(port: number, slot: number): number {
    const at = this.#ports.indexOf(port);
    if (at === -1) return Number.NEGATIVE_INFINITY;
    return (slot === this.#slots[at] ? this.#otherMs[at] : this.#ms[at]) as number;
  }

  #begin(port: number): number {
    let oldest = 0;
    for (let at = 1; at < ANSWERED_PORTS_MAX; at++)
      if ((this.#ms[at] as number) < (this.#ms[oldest] as number)) oldest = at;
    this.#ports[oldest] = port;
    this.#slots[oldest] = -1;
    this.#ms[oldest] = Number.NEGATIVE_INFINITY;
    this.#otherMs[oldest] = Number.NEGATIVE_INFINITY;
    return oldest;
  }
}
