import { assert } from '../../../base/assert.js';
import { hashText } from './hash.js';

/** Backends of one set; more are left out (`refusedCount`), the same ones on every node. */
export const BACKENDS_MAX = 1024;

/** `ready` gets new flows; `draining` keeps those that it has; `starting` is known, no more. */
export type BackendState = 'starting' | 'ready' | 'draining';

/** One reachable task, as the set is told of it. */
export interface BackendEntry {
  /** Names the backend from one table to the next, and on all nodes: the task's id. */
  readonly key: string;
  readonly state: BackendState;
  /** Above 0. */
  readonly weight: number;
  /** On this node. */
  readonly isLocal: boolean;
  /** Its node's checks of it fail. */
  readonly isFailing?: boolean | undefined;
}

/**
 * A backend as long as it is the same one: its slot and how often that slot was given away. Numbers
 * that are stale (the backend is gone) are recognised, and ignored where they come in.
 */
export type Ticket = number;
export const NO_BACKEND: Ticket = -1;

/** Most sets are small, and there are many. */
const CAPACITY_MIN = 8;
const SLOT_BITS = 10;
const SLOT_MASK = BACKENDS_MAX - 1;
const GENERATION_MASK = (1 << (31 - SLOT_BITS)) - 1;

/** What is known of the backends of one service: typed arrays by slot, changed between choices only. */
export class BackendSet {
  /** Slots that may get new flows, in this node's own order. */
  ready = new Int32Array(0);
  weight = new Float64Array(CAPACITY_MIN);
  isLocal = new Uint8Array(CAPACITY_MIN);
  /** Hash of the key, the same on every node. */
  keyHash = new Int32Array(CAPACITY_MIN);
  /** When it became ready; of those that were there at first, long ago. */
  readyAtMs = new Float64Array(CAPACITY_MIN);
  /** Flows that it has. */
  active = new Int32Array(CAPACITY_MIN);

  readonly #slots = new Map<string, number>();
  readonly #keys: (string | undefined)[] = [];
  readonly #states: BackendState[] = [];
  #generation = new Int32Array(CAPACITY_MIN);
  readonly #orderSeed: number;
  readonly #sharedSeed: number;
  #isFilled = false;
  #refusedCount = 0;

  /**
   * @param orderSeed This node's: nodes that went round in step would meet at one backend.
   * @param sharedSeed The service's, the same on every node.
   */
  constructor(orderSeed: number, sharedSeed: number) {
    this.#orderSeed = orderSeed;
    this.#sharedSeed = sharedSeed;
  }

  get size(): number {
    return this.#slots.size;
  }

  /**
   * Makes room for as many entries beside those that are there.
   *
   * @returns Slots that there are now: what others keep by slot must be as long.
   */
  reserve(count: number): number {
    let capacity = this.weight.length;
    while (capacity < Math.min(this.size + count, BACKENDS_MAX)) capacity *= 2;
    this.weight = grown(this.weight, capacity);
    this.isLocal = grown(this.isLocal, capacity);
    this.keyHash = grown(this.keyHash, capacity);
    this.readyAtMs = grown(this.readyAtMs, capacity);
    this.active = grown(this.active, capacity);
    this.#generation = grown(this.#generation, capacity);
    return capacity;
  }

  /** Entries of the last table that did not fit. */
  get refusedCount(): number {
    return this.#refusedCount;
  }

  ticketOf(slot: number): Ticket {
    return ((this.#generation[slot] as number) << SLOT_BITS) | slot;
  }

  /** The slot of a ticket, or -1 where its backend is gone. */
  slotOf(ticket: Ticket): number {
    if (ticket < 0) return -1;
    const slot = ticket & SLOT_MASK;
    return this.#generation[slot] === ticket >>> SLOT_BITS && this.#keys[slot] !== undefined
      ? slot
      : -1;
  }

  keyOf(ticket: Ticket): string | undefined {
    return this.#keys[this.slotOf(ticket)];
  }

  ticketOfKey(key: string): Ticket {
    const slot = this.#slots.get(key);
    return slot === undefined ? NO_BACKEND : this.ticketOf(slot);
  }

  stateOf(ticket: Ticket): BackendState | undefined {
    const slot = this.slotOf(ticket);
    return slot === -1 ? undefined : this.#states[slot];
  }

  /**
   * Makes these the backends, for whom `reserve` made room. Those that stay keep slot, flows and
   * history.
   *
   * @param onFree Called with the slot of each one that is gone or new, to forget what was known.
   */
  replace(entries: readonly BackendEntry[], nowMs: number, onFree: (slot: number) => void): void {
    const wanted = new Map(entries.map((entry) => [entry.key, entry]));
    for (const [key, slot] of this.#slots) {
      if (wanted.has(key)) continue;
      this.#free(key, slot);
      onFree(slot);
    }
    this.#refusedCount = 0;
    let next = 0;
    for (const entry of [...wanted.values()].sort((a, b) => compare(a.key, b.key))) {
      let slot = this.#slots.get(entry.key);
      const isNew = slot === undefined;
      if (slot === undefined) {
        while (this.#keys[next] !== undefined) next += 1;
        if (next >= BACKENDS_MAX) {
          this.#refusedCount += 1;
          continue;
        }
        assert(next < this.weight.length, 'room was made');
        slot = next;
        this.#take(entry.key, slot);
        onFree(slot);
      }
      this.#update(slot, entry, isNew, nowMs);
    }
    this.#isFilled = true;
    this.#order();
  }

  #take(key: string, slot: number): void {
    this.#slots.set(key, slot);
    this.#keys[slot] = key;
    this.active[slot] = 0;
    this.keyHash[slot] = hashText(key, this.#sharedSeed);
  }

  #free(key: string, slot: number): void {
    this.#slots.delete(key);
    this.#keys[slot] = undefined;
    this.#generation[slot] = ((this.#generation[slot] as number) + 1) & GENERATION_MASK;
  }

  #update(slot: number, entry: BackendEntry, isNew: boolean, nowMs: number): void {
    assert(entry.weight > 0, 'a weight is above 0');
    const wasReady = !isNew && this.#states[slot] === 'ready';
    if (entry.state === 'ready' && !wasReady)
      this.readyAtMs[slot] = this.#isFilled ? nowMs : Number.NEGATIVE_INFINITY;
    this.#states[slot] = entry.state;
    this.weight[slot] = entry.weight;
    this.isLocal[slot] = entry.isLocal ? 1 : 0;
  }

  #order(): void {
    const ready = [...this.#slots.entries()]
      .filter(([, slot]) => this.#states[slot] === 'ready')
      .map(([key, slot]) => ({ key, slot, rank: hashText(key, this.#orderSeed) }))
      .sort((a, b) => a.rank - b.rank || compare(a.key, b.key));
    this.ready = Int32Array.from(ready, ({ slot }) => slot);
  }

  /** Whether `key` comes after `other` in this node's order; `other` need not be there any more. */
  isAfter(key: string, other: string): boolean {
    const order = hashText(key, this.#orderSeed) - hashText(other, this.#orderSeed);
    return order === 0 ? key > other : order > 0;
  }
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** `array`, or a longer copy of it. */
export function grown<Numbers extends Float64Array | Int32Array | Uint8Array>(
  array: Numbers,
  capacity: number,
): Numbers {
  if (array.length >= capacity) return array;
  const longer = new (array.constructor as new (length: number) => Numbers)(capacity);
  longer.set(array);
  return longer;
}
