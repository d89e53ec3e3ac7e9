import { Violation } from './violation.js';

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly act: () => void;
}

/** Some hundred times what a run takes; a core that keeps itself busy for nothing gets there. */
const EVENTS_MAX = 1_000_000;

/** Virtual time: what is due at one instant happens in the order in which it was planned. */
export class Scheduler {
  nowMs = 0;
  readonly #events: Event[] = [];
  #order = 0;
  #count = 0;

  at(atMs: number, act: () => void): void {
    const events = this.#events;
    const event = { atMs: Math.max(atMs, this.nowMs), order: this.#order++, act };
    let i = events.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (isBefore(events[parent] as Event, event)) break;
      events[i] = events[parent] as Event;
      i = parent;
    }
    events[i] = event;
  }

  after(delayMs: number, act: () => void): void {
    this.at(this.nowMs + delayMs, act);
  }

  /** Runs to `untilMs`, or until `done` holds; it is looked at every `everyMs` of virtual time. */
  run(untilMs: number, done?: () => boolean, everyMs = 20): boolean {
    let lookMs = this.nowMs;
    for (;;) {
      const next = this.#events[0];
      if (done !== undefined && (next === undefined || next.atMs >= lookMs)) {
        if (done()) return true;
        lookMs = this.nowMs + everyMs;
      }
      if (next === undefined || next.atMs > untilMs) {
        this.nowMs = untilMs;
        return false;
      }
      this.#pop();
      this.nowMs = next.atMs;
      if (++this.#count > EVENTS_MAX) throw new Violation('it never comes to rest');
      next.act();
    }
  }

  #pop(): void {
    const events = this.#events;
    const last = events.pop() as Event;
    if (events.length === 0) return;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= events.length) break;
      const right = child + 1;
      if (right < events.length && isBefore(events[right] as Event, events[child] as Event)) {
        child = right;
      }
      if (isBefore(last, events[child] as Event)) break;
      events[i] = events[child] as Event;
      i = child;
    }
    events[i] = last;
  }
}

function isBefore(a: Event, b: Event): boolean {
  return a.atMs === b.atMs ? a.order < b.order : a.atMs < b.atMs;
}
