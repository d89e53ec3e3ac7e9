import { Prng } from '../../src/base/prng.js';
import { lanConfig, type SwimConfig } from '../../src/gossip/core/config.js';
import { type Change, Membership, type SwimInput } from '../../src/gossip/core/membership.js';
import type { ConnectResult } from '../../src/gossip/core/probe.js';
import type { MemberId, MemberState } from '../../src/gossip/wire/claim.js';
import type { Endpoint } from '../../src/gossip/wire/endpoint.js';
import { decodePacket, encodePacket, type Packet } from '../../src/gossip/wire/packet.js';

export interface WorldConfig {
  readonly seed: number;
  readonly swim: SwimConfig;
  /** One way, uniform between the two. */
  readonly latencyMs: readonly [number, number];
  /** Probability that a datagram is lost; connections repeat theirs. */
  readonly loss: number;
}

export const QUIET: Omit<WorldConfig, 'seed'> = {
  swim: lanConfig(),
  latencyMs: [0.2, 2],
  loss: 0,
};

/** What one node saw happen to a member. */
export interface Seen {
  readonly atMs: number;
  readonly by: string;
  readonly member: string;
  readonly to: MemberState;
}

interface Node {
  readonly id: MemberId;
  endpoint: Endpoint;
  core: Membership;
  /** `gone`: the process ended and its host answers for it. `dark`: the host is off. */
  state: 'up' | 'gone' | 'dark';
  /** Counts lives, so that events of a former one are void. */
  life: number;
  stalledUntilMs: number;
  backlog: SwimInput[];
  /** Each machine's monotonic clock starts when it likes. */
  readonly clockMs: number;
  plannedMs: number | undefined;
}

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly act: () => void;
}

const SEAL_BYTES = 30;

/** Many membership cores on one virtual network, on one virtual clock; everything from one seed. */
export class SwimWorld {
  readonly prng: Prng;
  readonly #config: WorldConfig;
  readonly nodes = new Map<string, Node>();
  readonly #byEndpoint = new Map<string, Node>();
  readonly #events: Event[] = [];
  #order = 0;
  nowMs = 0;
  loss: number;
  /** Group of each node; nodes of different groups do not hear each other. */
  readonly #group = new Map<string, number>();
  readonly seen: Seen[] = [];
  readonly violations: string[] = [];
  packets = 0;
  bytes = 0;

  constructor(config: WorldConfig) {
    this.#config = config;
    this.prng = new Prng(config.seed);
    this.loss = config.loss;
  }

  /** Starts a node, or a new life of one. */
  start(id: string, seeds: readonly string[], address?: string): void {
    const before = this.nodes.get(id);
    const index = this.nodes.size + 1;
    const endpoint = {
      address: address ?? before?.endpoint.address ?? `10.0.${index >> 8}.${index & 255}`,
      port: 7946,
    };
    const node: Node = {
      id: id as MemberId,
      endpoint,
      core: this.#newCore(id, endpoint),
      state: 'up',
      life: (before?.life ?? 0) + 1,
      stalledUntilMs: 0,
      backlog: [],
      clockMs: this.prng.nextFloat() * 1e9,
      plannedMs: undefined,
    };
    this.nodes.set(id, node);
    this.#byEndpoint.set(keyOf(endpoint), node);
    const at = seeds.map((seed) => this.node(seed).endpoint);
    this.#step(node, at.length > 0 ? { kind: 'join', seeds: at } : { kind: 'timeout' });
  }

  node(id: string): Node {
    const node = this.nodes.get(id);
    if (node === undefined) throw new Error(`no node ${id}`);
    return node;
  }

  /** The process ends; its host refuses connections. */
  kill(id: string): void {
    this.node(id).state = 'gone';
  }

  /** The host ends: silence. */
  darken(id: string): void {
    this.node(id).state = 'dark';
  }

  leave(id: string): void {
    this.#step(this.node(id), { kind: 'leave' });
  }

  stall(id: string, forMs: number): void {
    const node = this.node(id);
    node.stalledUntilMs = this.nowMs + forMs;
    this.#at(node.stalledUntilMs, () => this.#awake(node));
  }

  input(id: string, input: SwimInput): void {
    this.#step(this.node(id), input);
  }

  partition(groups: readonly (readonly string[])[]): void {
    this.#group.clear();
    for (const [i, group] of groups.entries()) for (const id of group) this.#group.set(id, i + 1);
  }

  heal(): void {
    this.#group.clear();
  }

  isReachable(from: string, to: string): boolean {
    return this.#hears(this.node(from), this.node(to));
  }

  at(atMs: number, act: () => void): void {
    this.#at(atMs, act);
  }

  /** Runs to `untilMs`, or until `done` holds; looked at after every event. */
  run(untilMs: number, done?: () => boolean): boolean {
    for (;;) {
      if (done?.() === true) return true;
      const next = this.#events[0];
      if (next === undefined || next.atMs > untilMs) {
        this.nowMs = untilMs;
        return false;
      }
      this.#pop();
      this.nowMs = next.atMs;
      next.act();
    }
  }

  /** What `by` holds about `member`. */
  view(by: string, member: string): { state: MemberState; incarnation: number } | undefined {
    const claim = this.node(by)
      .core.claims()
      .find((held) => held.member === member);
    return claim === undefined ? undefined : { state: claim.state, incarnation: claim.incarnation };
  }

  get up(): Node[] {
    return [...this.nodes.values()].filter((node) => node.state === 'up');
  }

  /** Whether every node that is up holds every one that is up alive, at its own endpoint. */
  isConverged(): boolean {
    const up = this.up;
    return up.every((node) => {
      const alive = new Map<string, Endpoint>();
      for (const { member, state, endpoint } of node.core.claims()) {
        if (state === 'alive') alive.set(member, endpoint);
      }
      return up.every(({ id, endpoint }) => keyOf(endpoint) === keyOf(alive.get(id)));
    });
  }

  #newCore(id: string, endpoint: Endpoint): Membership {
    const { swim } = this.#config;
    const prng = new Prng(this.prng.nextUint32());
    const identity = { id: id as MemberId, endpoint };
    return new Membership(swim, identity, swim.packetBytesMax - SEAL_BYTES, prng);
  }

  #step(node: Node, input: SwimInput): void {
    if (node.state !== 'up') return;
    if (node.stalledUntilMs > this.nowMs) {
      node.backlog.push(input);
      return;
    }
    node.core.step(input, node.clockMs + this.nowMs);
    const ready = node.core.takeReady();
    for (const change of ready.changes) this.#onChange(node, change);
    for (const { to, packet } of ready.sends) this.#transmit(node, to, packet);
    for (const { id, endpoint, timeoutMs } of ready.connects) {
      this.#connect(node, id, endpoint, timeoutMs);
    }
    if (ready.hasLeft) node.state = 'gone';
    this.#plan(node);
  }

  #onChange(node: Node, { claim, forgotten }: Change): void {
    if (forgotten) return;
    this.seen.push({ atMs: this.nowMs, by: node.id, member: claim.member, to: claim.state });
  }

  #plan(node: Node): void {
    const deadlineMs = node.core.nextDeadlineMs();
    if (deadlineMs === undefined) return;
    const atMs = Math.max(this.nowMs, deadlineMs - node.clockMs);
    if (node.plannedMs !== undefined && node.plannedMs <= atMs && node.plannedMs >= this.nowMs) {
      return;
    }
    node.plannedMs = atMs;
    const { life } = node;
    this.#at(atMs, () => {
      if (node.life !== life || this.nodes.get(node.id) !== node) return;
      if (node.plannedMs === atMs) node.plannedMs = undefined;
      if (node.stalledUntilMs > this.nowMs) return;
      this.#step(node, { kind: 'timeout' });
    });
  }

  /** As an event loop does it: timers first, then what the socket holds. */
  #awake(node: Node): void {
    if (node.stalledUntilMs > this.nowMs) return;
    const backlog = node.backlog;
    node.backlog = [];
    this.#step(node, { kind: 'timeout' });
    for (const input of backlog) this.#step(node, input);
  }

  #transmit(from: Node, to: Endpoint, packet: Packet): void {
    const bytes = encodePacket(packet);
    this.packets += 1;
    this.bytes += bytes.length + SEAL_BYTES;
    if (bytes.length + SEAL_BYTES > this.#config.swim.packetBytesMax) {
      this.violations.push(`${from.id} sent ${bytes.length} bytes`);
    }
    if (this.prng.chance(this.loss)) return;
    const source = from.endpoint;
    this.#at(this.nowMs + this.#latencyMs(), () => {
      const target = this.#byEndpoint.get(keyOf(to));
      if (target === undefined || !this.#hears(from, target)) return;
      const decoded = decodePacket(bytes);
      if (typeof decoded === 'string') throw new Error(`${from.id} sent what is ${decoded}`);
      this.#step(target, { kind: 'packet', source, packet: decoded.packet });
    });
  }

  #connect(from: Node, id: number, to: Endpoint, timeoutMs: number): void {
    const target = this.#byEndpoint.get(keyOf(to));
    const isReached = target !== undefined && target.state !== 'dark' && this.#hears(from, target);
    let result: ConnectResult = 'timeout';
    if (isReached && target.state === 'gone') result = 'refused';
    else if (isReached) result = target.stalledUntilMs > this.nowMs ? 'connected' : 'answered';
    const isSlow = result === 'timeout' || result === 'connected';
    const delayMs = isSlow ? timeoutMs : 2 * this.#latencyMs();
    const { life } = from;
    this.#at(this.nowMs + delayMs, () => {
      if (this.nodes.get(from.id)?.life === life) {
        this.#step(from, { kind: 'connect', id, result });
      }
    });
  }

  #hears(a: Node, b: Node): boolean {
    return (this.#group.get(a.id) ?? 0) === (this.#group.get(b.id) ?? 0);
  }

  #latencyMs(): number {
    const [min, max] = this.#config.latencyMs;
    return min + this.prng.nextFloat() * (max - min);
  }

  #at(atMs: number, act: () => void): void {
    const events = this.#events;
    const event = { atMs, order: this.#order++, act };
    let i = events.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (isBefore(events[parent] as Event, event)) break;
      events[i] = events[parent] as Event;
      i = parent;
    }
    events[i] = event;
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

function keyOf(endpoint: Endpoint | undefined): string {
  return endpoint === undefined ? '' : `${endpoint.address} ${endpoint.port}`;
}

/** Names of `count` members: n1, n2, ... */
export function names(count: number): string[] {
  return Array.from({ length: count }, (_, i) => `n${i + 1}`);
}

/** A world whose members have all joined through the first and agree. */
export function settledWorld(count: number, config: WorldConfig): SwimWorld {
  const world = new SwimWorld(config);
  const [first, ...rest] = names(count) as [string, ...string[]];
  world.start(first, []);
  for (const id of rest) world.start(id, [first]);
  if (
    !world.run(
      60_000,
      everyMs(world, 50, () => world.isConverged()),
    )
  ) {
    throw new Error(`seed ${config.seed}: did not settle`);
  }
  world.run(world.nowMs + 2_000);
  return world;
}

/** A costly condition, looked at only every so often of virtual time. */
export function everyMs(world: SwimWorld, intervalMs: number, test: () => boolean): () => boolean {
  let nextMs = 0;
  return () => {
    if (world.nowMs < nextMs) return false;
    nextMs = world.nowMs + intervalMs;
    return test();
  };
}
