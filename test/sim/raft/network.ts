import type { Prng } from '../../../src/base/prng.js';
import type { RaftId, RaftMessage } from '../../../src/control/raft/core/types.js';
import type { Scheduler } from './scheduler.js';

export interface NetworkConfig {
  /** One way, uniform between the two. */
  readonly latencyMs: readonly [number, number];
  /** Chance of a message that takes up to `stragglerMs` more. */
  readonly straggler: number;
  readonly stragglerMs: number;
  readonly loss: number;
  readonly duplicate: number;
  /** As streams are: in order, and when something is lost then all that is under way on that link. */
  readonly isOrdered: boolean;
}

interface Link {
  /** Cut from that side to this one. */
  isCut: boolean;
  /** Nothing arrives before. */
  clogUntilMs: number;
  lastArrivalMs: number;
  /** Counts connections. */
  epoch: number;
}

export interface Receiver {
  deliver(message: RaftMessage): void;
  /** The sender's connection ended. */
  broke(from: RaftId, to: RaftId): void;
}

/** Messages between members: each direction of each pair is a link with troubles of its own. */
export class Network {
  config: NetworkConfig;
  sent = 0;
  delivered = 0;
  readonly #scheduler: Scheduler;
  readonly #prng: Prng;
  readonly #receiver: Receiver;
  readonly #links = new Map<string, Link>();

  constructor(scheduler: Scheduler, prng: Prng, config: NetworkConfig, receiver: Receiver) {
    this.#scheduler = scheduler;
    this.#prng = prng;
    this.config = config;
    this.#receiver = receiver;
  }

  /** @param message As the codec gives it back on the other side. */
  send(message: RaftMessage): void {
    this.sent += 1;
    const link = this.#link(message.from, message.to);
    const { loss, duplicate, isOrdered } = this.config;
    if (link.isCut) return;
    if (this.#prng.chance(loss)) {
      if (isOrdered) this.break(message.from, message.to);
      return;
    }
    this.#carry(link, message);
    if (!isOrdered && this.#prng.chance(duplicate)) this.#carry(link, message);
  }

  /** The connection ends, with all that is under way on it. */
  break(from: RaftId, to: RaftId): void {
    this.#link(from, to).epoch += 1;
    this.#scheduler.after(this.latencyMs(), () => this.#receiver.broke(from, to));
  }

  cut(from: RaftId, to: RaftId): void {
    this.#link(from, to).isCut = true;
  }

  mend(from: RaftId, to: RaftId): void {
    this.#link(from, to).isCut = false;
  }

  isCut(from: RaftId, to: RaftId): boolean {
    return this.#link(from, to).isCut;
  }

  clog(from: RaftId, to: RaftId, forMs: number): void {
    this.#link(from, to).clogUntilMs = this.#scheduler.nowMs + forMs;
  }

  heal(): void {
    for (const link of this.#links.values()) {
      link.isCut = false;
      link.clogUntilMs = 0;
    }
  }

  latencyMs(): number {
    const { latencyMs, straggler, stragglerMs } = this.config;
    const [min, max] = latencyMs;
    const usualMs = min + this.#prng.nextFloat() * (max - min);
    return this.#prng.chance(straggler) ? usualMs + this.#prng.nextFloat() * stragglerMs : usualMs;
  }

  #carry(link: Link, message: RaftMessage): void {
    let atMs = Math.max(this.#scheduler.nowMs, link.clogUntilMs) + this.latencyMs();
    if (this.config.isOrdered) {
      atMs = Math.max(atMs, link.lastArrivalMs);
      link.lastArrivalMs = atMs;
    }
    const { epoch } = link;
    this.#scheduler.at(atMs, () => {
      if (link.isCut || (this.config.isOrdered && link.epoch !== epoch)) return;
      this.delivered += 1;
      this.#receiver.deliver(message);
    });
  }

  #link(from: RaftId, to: RaftId): Link {
    const key = `${from} ${to}`;
    let link = this.#links.get(key);
    if (link === undefined) {
      link = { isCut: false, clogUntilMs: 0, lastArrivalMs: 0, epoch: 0 };
      this.#links.set(key, link);
    }
    return link;
  }
}
