import { createHash } from 'node:crypto';
import { Prng } from '../../src/base/prng.js';
import {
  RecordCore,
  type RecordInput,
  type RecordReady,
} from '../../src/gossip/core/record-core.js';
import { decodeGossip, encodeGossip } from '../../src/gossip/wire/record-delta.js';
import { decodeExchange, encodeExchange } from '../../src/gossip/wire/record-exchange.js';

export const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest();

export interface WorldConfig {
  readonly seed: number;
  readonly nodeCount: number;
  /** Of gossip messages, to each receiver. */
  readonly lossRate: number;
  readonly duplicateRate: number;
  readonly latencyMsMax: number;
  /** How long until all members know that one is out of reach, or back. */
  readonly detectMs: number;
}

interface Stream {
  readonly member: string;
  readonly exchange: number;
  readonly other: { readonly member: string; readonly exchange: number };
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class SimNode {
  readonly id: string;
  core: RecordCore;
  readonly topics = new Set<string>();
  readonly connections = new Set<string>();
  readonly streams = new Map<number, Stream>();
  boot = 0;
  inbound = 0;
  up = true;
  group = 0;

  constructor(id: string, core: RecordCore) {
    this.id = id;
    this.core = core;
  }
}

/**
 * Nodes with the real core and the real wire formats on a virtual clock. Gossip is lost, doubled
 * and reordered; connections and their streams keep order and break with partitions and crashes.
 */
export class RecordsWorld {
  readonly nodes = new Map<string, SimNode>();
  readonly config: WorldConfig;
  readonly prng: Prng;
  nowMs = 1_000;
  gossipCount = 0;
  exchangeCount = 0;
  #order = 0;
  readonly #events: Event[] = [];
  readonly #lastArrivalMs = new Map<string, number>();

  constructor(config: WorldConfig) {
    this.config = config;
    this.prng = new Prng(config.seed);
    for (let i = 0; i < config.nodeCount; i++) {
      const id = `node-${i}`;
      this.nodes.set(id, new SimNode(id, this.#newCore(id, 0)));
    }
    for (const node of this.nodes.values()) {
      this.input(node, { kind: 'admitted', ids: new Set(this.nodes.keys()) });
    }
    this.tellMembers();
  }

  node(index: number): SimNode {
    const node = this.nodes.get(`node-${index}`);
    if (node === undefined) throw new Error('no such node');
    return node;
  }

  up(): SimNode[] {
    return [...this.nodes.values()].filter(({ up }) => up);
  }

  input(node: SimNode, input: RecordInput): void {
    if (!node.up) return;
    node.core.step(input, this.nowMs);
    this.#perform(node, node.core.takeReady());
  }

  /** Runs until `untilMs`, or until `done`. @returns Whether `done` came true. */
  run(forMs: number, done: () => boolean = () => false): boolean {
    const untilMs = this.nowMs + forMs;
    for (;;) {
      if (done()) return true;
      let nextMs = untilMs;
      for (const { core } of this.up()) nextMs = Math.min(nextMs, core.nextDeadlineMs() ?? untilMs);
      const event = this.#events[0];
      if (event !== undefined && event.atMs <= nextMs) {
        this.#events.shift();
        this.nowMs = Math.max(this.nowMs, event.atMs);
        event.run();
        continue;
      }
      if (nextMs >= untilMs) {
        this.nowMs = untilMs;
        return done();
      }
      this.nowMs = Math.max(this.nowMs, nextMs);
      for (const node of this.up()) {
        if ((node.core.nextDeadlineMs() ?? untilMs) <= this.nowMs)
          this.input(node, { kind: 'timeout' });
      }
    }
  }

  /** Splits the nodes into groups which cannot reach each other; connections between them stall. */
  partition(groupOf: (node: SimNode) => number): void {
    for (const node of this.nodes.values()) node.group = groupOf(node);
    this.#after(this.config.detectMs, () => this.tellMembers());
  }

  heal(): void {
    this.partition(() => 0);
  }

  crash(node: SimNode): void {
    node.up = false;
    for (const other of [...node.connections]) this.#disconnect(node.id, other);
    this.#after(this.config.detectMs, () => this.tellMembers());
  }

  /** With a later epoch, nothing remembered. */
  restart(node: SimNode, epoch?: number): void {
    node.boot += 1;
    node.topics.clear();
    node.streams.clear();
    node.core = this.#newCore(node.id, node.boot, epoch);
    node.up = true;
    this.input(node, { kind: 'admitted', ids: new Set(this.nodes.keys()) });
    this.tellMembers();
  }

  /** Every node learns who is within reach of it. */
  tellMembers(): void {
    for (const node of this.up()) {
      const members = [...this.nodes.values()].map((other) => ({
        id: other.id,
        address: other.id,
        port: 7946,
        state: other.up && other.group === node.group ? ('alive' as const) : ('dead' as const),
      }));
      this.input(node, { kind: 'members', members });
    }
  }

  /** Whether all that take part in the topic hold the same records. */
  agree(topic: string): boolean {
    const digests = this.up()
      .filter(({ core }) => core.table.has(topic))
      .map(({ core }) => core.table.recordsDigest(topic));
    return new Set(digests).size <= 1;
  }

  #newCore(id: string, boot: number, epoch?: number): RecordCore {
    const seed = this.config.seed * 1_000 + Number(id.slice(5)) * 10 + boot;
    return new RecordCore({ self: id, epoch: epoch ?? 1_000_000 + this.nowMs, seed, hash: sha256 });
  }

  #perform(node: SimNode, ready: RecordReady): void {
    for (const topic of ready.enter) node.topics.add(topic);
    for (const topic of ready.leave) node.topics.delete(topic);
    for (const member of ready.hangUps) this.#disconnect(node.id, member);
    for (const { id } of ready.dials) this.#dial(node, id);
    for (const delta of ready.gossip) this.#gossip(node, delta.topic, encodeGossip(delta));
    for (const { exchange, member } of ready.opens) this.#open(node, exchange, member);
    for (const { exchange, message } of ready.messages) {
      const stream = node.streams.get(exchange);
      if (stream === undefined) continue;
      this.#overStream(node, stream, (other) => {
        const decoded = decodeExchange(encodeExchange(message));
        if (typeof decoded === 'string') throw new Error(decoded);
        this.input(other, {
          kind: 'exchange_message',
          exchange: stream.other.exchange,
          message: decoded,
        });
      });
    }
    for (const { exchange, outcome } of ready.ends) {
      const stream = node.streams.get(exchange);
      if (stream === undefined) continue;
      node.streams.delete(exchange);
      if (outcome === 'complete') continue;
      this.#overStream(node, stream, (other) => this.#closeStream(other, stream.other.exchange));
    }
  }

  #gossip(from: SimNode, topic: string, bytes: Buffer): void {
    this.gossipCount += 1;
    let heard = false;
    for (const node of this.nodes.values()) {
      if (node === from || !node.up || !node.topics.has(topic) || node.group !== from.group)
        continue;
      heard = true;
      const copies = this.prng.chance(this.config.duplicateRate) ? 2 : 1;
      for (let i = 0; i < copies; i++) {
        if (this.prng.chance(this.config.lossRate)) continue;
        const { boot } = node;
        this.#after(this.#latencyMs(), () => {
          const delta = decodeGossip(bytes);
          if (typeof delta === 'string') throw new Error(delta);
          if (node.boot === boot) this.input(node, { kind: 'gossip', delta });
        });
      }
    }
    if (!heard) this.input(from, { kind: 'unheard', topic });
  }

  #dial(node: SimNode, id: string): void {
    const { boot } = node;
    this.#after(this.#latencyMs() * 2, () => {
      const other = this.nodes.get(id);
      if (other === undefined || node.boot !== boot || !node.up) return;
      if (node.connections.has(id)) return;
      if (!other.up || other.group !== node.group) {
        this.input(node, { kind: 'disconnected', member: id });
        return;
      }
      node.connections.add(id);
      other.connections.add(node.id);
      this.input(node, { kind: 'connected', member: id, ours: true });
      this.input(other, { kind: 'connected', member: node.id, ours: false });
    });
  }

  #disconnect(a: string, b: string): void {
    for (const [id, otherId] of [
      [a, b],
      [b, a],
    ] as const) {
      const node = this.nodes.get(id);
      if (node === undefined || !node.connections.delete(otherId)) continue;
      for (const stream of [...node.streams.values()]) {
        if (stream.other.member === otherId) this.#closeStream(node, stream.exchange);
      }
      this.#after(0, () => {
        if (!node.connections.has(otherId))
          this.input(node, { kind: 'disconnected', member: otherId });
      });
    }
  }

  #open(node: SimNode, exchange: number, member: string): void {
    const other = this.nodes.get(member);
    if (other === undefined || !node.connections.has(member)) {
      this.#after(0, () => this.input(node, { kind: 'exchange_closed', exchange }));
      return;
    }
    this.exchangeCount += 1;
    other.inbound -= 1;
    const theirs = other.inbound;
    const mine = { member: node.id, exchange };
    const stream = { ...mine, other: { member, exchange: theirs } };
    node.streams.set(exchange, stream);
    this.#overStream(node, stream, () => {
      other.streams.set(theirs, { member, exchange: theirs, other: mine });
      this.input(other, { kind: 'exchange_opened', exchange: theirs, member: node.id });
    });
  }

  #closeStream(node: SimNode, exchange: number): void {
    if (node.streams.delete(exchange))
      this.#after(0, () => this.input(node, { kind: 'exchange_closed', exchange }));
  }

  /** In order, and never if the connection breaks or stalls before. */
  #overStream(from: SimNode, stream: Stream, deliver: (to: SimNode) => void): void {
    const to = this.nodes.get(stream.other.member);
    if (to === undefined) return;
    const pair = `${from.id}>${to.id}`;
    const earliestMs = this.#lastArrivalMs.get(pair) ?? 0;
    const arrivalMs = Math.max(this.nowMs + this.#latencyMs(), earliestMs);
    this.#lastArrivalMs.set(pair, arrivalMs);
    const boots = [from.boot, to.boot];
    this.#after(arrivalMs - this.nowMs, () => {
      if (from.boot !== boots[0] || to.boot !== boots[1] || !to.up) return;
      if (from.group === to.group && to.connections.has(from.id)) deliver(to);
    });
  }

  #latencyMs(): number {
    return 0.2 + this.prng.nextFloat() * this.config.latencyMsMax;
  }

  #after(delayMs: number, run: () => void): void {
    const event = { atMs: this.nowMs + delayMs, order: this.#order++, run };
    let low = 0;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#events[middle]?.atMs ?? 0) <= event.atMs) low = middle + 1;
      else high = middle;
    }
    this.#events.splice(low, 0, event);
  }
}
