import type { LogIndex } from './types.js';

interface Flight {
  readonly lastIndex: LogIndex;
  readonly bytes: number;
}

/** Appends that were sent and not answered, in order: a window by number and by bytes. */
export class Inflights {
  readonly #messagesMax: number;
  readonly #bytesMax: number;
  #flights: Flight[] = [];
  /** How many of `#flights` are answered; they go in one sweep, so that each costs little. */
  #answered = 0;
  #bytes = 0;

  constructor(messagesMax: number, bytesMax: number) {
    this.#messagesMax = messagesMax;
    this.#bytesMax = bytesMax;
  }

  get count(): number {
    return this.#flights.length - this.#answered;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get full(): boolean {
    return this.count >= this.#messagesMax || this.#bytes >= this.#bytesMax;
  }

  add(lastIndex: LogIndex, bytes: number): void {
    this.#flights.push({ lastIndex, bytes });
    this.#bytes += bytes;
  }

  /** All that ended at `index` or before has arrived. */
  freeTo(index: LogIndex): void {
    for (; this.count > 0; this.#answered++) {
      const { lastIndex, bytes } = this.#flights[this.#answered] as Flight;
      if (lastIndex > index) break;
      this.#bytes -= bytes;
    }
    if (this.#answered * 2 < this.#flights.length) return;
    this.#flights = this.#flights.slice(this.#answered);
    this.#answered = 0;
  }

  clear(): void {
    this.#flights = [];
    this.#answered = 0;
    this.#bytes = 0;
  }
}
