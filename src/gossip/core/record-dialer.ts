import { assert } from '../../base/assert.js';
import type { Prng } from '../../base/prng.js';

/** Ring neighbours of the whole swarm, and of each topic's members: as many again dial us. */
const SWARM_DEGREE = 8;
const TOPIC_DEGREE = 4;
/** Connections that we want; the shell's limit leaves as many for those that want us. */
const WANTED_MAX = 40;

const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 1_000;
/** The member with the greater id gives the other time to dial first: one connection, not two. */
const YIELD_MS = 500;
/** How long a connection that no ring asks for any more is kept. */
const LINGER_MS = 30_000;

/** FNV-1a, 32 bits: places members on the ring, the same on every node. */
export function ringPlace(id: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < id.length; i++) hash = Math.imul(hash ^ id.charCodeAt(i), 0x01000193);
  // The last characters of FNV-1a barely reach the high bits, which decide the order: mix once more.
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return (hash ^ (hash >>> 13)) >>> 0;
}

/**
 * Whom to dial of `others`: the next two on the ring of hashes, then as in Chord those half, a
 * quarter, an eighth... of the way round, then the following neighbours.
 *
 * As each node dials its successor, the graph is connected whatever the set; the chords keep its
 * diameter logarithmic.
 */
export function ringNeighbours(
  self: string,
  others: readonly string[],
  degree: number,
): readonly string[] {
  const ring = [...others, self]
    .map((id) => ({ id, place: ringPlace(id) }))
    .sort((a, b) => a.place - b.place || (a.id < b.id ? -1 : 1));
  const size = ring.length;
  const own = ring.findIndex(({ id }) => id === self);
  const steps = new Set([1, 2]);
  for (let chord = size >> 1; chord > 2; chord >>= 1) steps.add(chord);
  for (let step = 3; step < size && steps.size < degree; step++) steps.add(step);
  return [...steps]
    .filter((step) => step < size)
    .slice(0, degree)
    .map((step) => ring[(own + step) % size]?.id ?? self);
}

export interface DialTarget {
  readonly id: string;
  readonly address: string;
  readonly port: number;
}

/** What to do about connections. */
export interface DialReady {
  readonly dials: readonly DialTarget[];
  readonly hangUps: readonly string[];
}

interface Link {
  target: DialTarget | undefined;
  wanted: boolean;
  state: 'idle' | 'dialing' | 'connected';
  attemptCount: number;
  /** When an idle wanted one is dialled, or a connected unwanted one hung up. */
  deadlineMs: number;
  /** We opened it, so that we may close it when it serves no ring. */
  ours: boolean;
}

/**
 * Keeps a few connections open: enough that each topic's members are one connected graph, and
 * reopened within a second when the other end can be reached again.
 */
export class RecordDialer {
  readonly #self: string;
  readonly #prng: Prng;
  readonly #links = new Map<string, Link>();
  /** Members whose connections are used for something else: these are kept. */
  readonly #held = new Set<string>();
  #dials: DialTarget[] = [];
  #hangUps: string[] = [];

  constructor(self: string, prng: Prng) {
    this.#self = self;
    this.#prng = prng;
  }

  connected(): readonly string[] {
    return [...this.#links].filter(([, { state }]) => state === 'connected').map(([id]) => id);
  }

  isConnected(id: string): boolean {
    return this.#links.get(id)?.state === 'connected';
  }

  /**
   * Chooses anew whom to stay connected to.
   *
   * @param targets Members that may be dialled, without ourselves.
   * @param topics Of each topic of ours, the other members in it.
   */
  plan(
    targets: ReadonlyMap<string, DialTarget>,
    topics: readonly (readonly string[])[],
    nowMs: number,
  ): void {
    const wanted = this.#wanted(targets, topics);
    for (const id of wanted) if (!this.#links.has(id)) this.#links.set(id, idleLink());
    for (const [id, link] of this.#links) {
      const moved = differ(link.target, targets.get(id));
      link.target = targets.get(id);
      if (link.wanted === wanted.has(id) && !(moved && link.state === 'idle')) continue;
      link.wanted = wanted.has(id);
      link.attemptCount = 0;
      if (link.state === 'connected') link.deadlineMs = nowMs + LINGER_MS;
      else link.deadlineMs = nowMs + (this.#self < id ? 0 : YIELD_MS);
      if (!link.wanted && link.state === 'idle') this.#links.delete(id);
    }
  }

  onConnected(id: string, ours: boolean, nowMs: number): void {
    const link = this.#links.get(id) ?? idleLink();
    this.#links.set(id, link);
    link.state = 'connected';
    link.ours = ours;
    link.attemptCount = 0;
    link.deadlineMs = nowMs + LINGER_MS;
  }

  hold(id: string, isHeld: boolean, nowMs: number): void {
    if (isHeld) {
      this.#held.add(id);
      return;
    }
    this.#held.delete(id);
    const link = this.#links.get(id);
    if (link?.state === 'connected') link.deadlineMs = nowMs + LINGER_MS;
  }

  /** The last connection to `id` is gone, or could not be opened. */
  onDisconnected(id: string, nowMs: number): void {
    const link = this.#links.get(id);
    if (link === undefined) return;
    link.state = 'idle';
    if (!link.wanted) {
      this.#links.delete(id);
      return;
    }
    const stepMs = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(link.attemptCount, 8));
    link.attemptCount += 1;
    // Jitter, so that two that failed to dial each other do not meet again at each try.
    link.deadlineMs = nowMs + stepMs * (0.5 + this.#prng.nextFloat() / 2);
  }

  /** Dials soon, whatever was waited for: there is reason to think that it works now. */
  hurry(id: string, nowMs: number): void {
    const link = this.#links.get(id);
    if (link === undefined || link.state === 'connected') return;
    link.attemptCount = 0;
    link.deadlineMs = nowMs;
    // A dial from before may be waiting for a retransmission seconds away.
    if (link.state === 'dialing') this.#hangUps.push(id);
  }

  /** Closes the connection to `id`, or ends its dial, for instance because nothing comes through. */
  hangUp(id: string): void {
    const state = this.#links.get(id)?.state;
    if (state === 'connected' || state === 'dialing') this.#hangUps.push(id);
  }

  timeout(nowMs: number): void {
    for (const [id, link] of this.#links) {
      if (this.#deadlineOf(id, link) > nowMs) continue;
      if (link.state === 'connected') {
        link.deadlineMs = nowMs + LINGER_MS;
        this.#hangUps.push(id);
        continue;
      }
      assert(link.target !== undefined, 'only members that may be dialled are wanted');
      link.state = 'dialing';
      this.#dials.push(link.target);
    }
  }

  nextDeadlineMs(): number | undefined {
    let nextMs = Number.POSITIVE_INFINITY;
    for (const [id, link] of this.#links) nextMs = Math.min(nextMs, this.#deadlineOf(id, link));
    return nextMs === Number.POSITIVE_INFINITY ? undefined : nextMs;
  }

  takeReady(): DialReady {
    const ready = { dials: this.#dials, hangUps: this.#hangUps };
    this.#dials = [];
    this.#hangUps = [];
    return ready;
  }

  #deadlineOf(id: string, { state, wanted, ours, deadlineMs }: Link): number {
    if (state === 'dialing') return Number.POSITIVE_INFINITY;
    if (state === 'idle') return wanted ? deadlineMs : Number.POSITIVE_INFINITY;
    const isUseless = ours && !wanted && !this.#held.has(id);
    return isUseless ? deadlineMs : Number.POSITIVE_INFINITY;
  }

  #wanted(
    targets: ReadonlyMap<string, DialTarget>,
    topics: readonly (readonly string[])[],
  ): ReadonlySet<string> {
    const rings = [
      ...topics.map((ids) => ({ ids: ids.filter((id) => targets.has(id)), degree: TOPIC_DEGREE })),
      { ids: [...targets.keys()], degree: SWARM_DEGREE },
    ].map(({ ids, degree }) => ringNeighbours(this.#self, ids, degree));
    const wanted = new Set<string>();
    // Successors first, for these alone make each ring connected.
    for (let rank = 0; rank < SWARM_DEGREE; rank++) {
      for (const ring of rings) {
        const id = ring[rank];
        if (id !== undefined && wanted.size < WANTED_MAX) wanted.add(id);
      }
    }
    return wanted;
  }
}

function idleLink(): Link {
  return {
    target: undefined,
    wanted: false,
    state: 'idle',
    attemptCount: 0,
    deadlineMs: Number.POSITIVE_INFINITY,
    ours: false,
  };
}

function differ(a: DialTarget | undefined, b: DialTarget | undefined): boolean {
  return a?.address !== b?.address || a?.port !== b?.port;
}
