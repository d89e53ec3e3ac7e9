import type { Prng } from '../../../src/base/prng.js';
import type { RaftId } from '../../../src/control/raft/core/types.js';
import type { Network } from './network.js';
import type { SimNode } from './node.js';
import type { Scheduler } from './scheduler.js';

/** What a nemesis may lay hands on. */
export interface Victims {
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly electionTimeoutMs: number;
  nodes(): readonly SimNode[];
  nodesUp(): readonly SimNode[];
  leader(): SimNode | undefined;
  crash(node: SimNode, forMs: number): void;
  changeMembers(prng: Prng): void;
  trace(text: () => string): void;
}

type Fault = (world: Victims, prng: Prng) => void;

const FAULTS = {
  /** One process ends: killed, or its host loses power. */
  crash: (world, prng) => {
    const node = someone(world, prng);
    if (node !== undefined) world.crash(node, briefly(world, prng));
  },
  /** One process ends in the middle of what a turn wants done. */
  crash_midway: (world, prng) => {
    const node = someone(world, prng);
    if (node !== undefined) node.fuse = prng.nextBelow(12);
  },
  /** The lights go out for all, or for many. */
  blackout: (world, prng) => {
    const share = prng.chance(0.5) ? 1 : 0.6;
    for (const node of world.nodesUp())
      if (prng.chance(share)) world.crash(node, briefly(world, prng));
  },
  pause: (world, prng) => {
    const node = someone(world, prng);
    if (node === undefined || node.isPaused) return;
    const forMs = briefly(world, prng);
    world.trace(() => `${node.name} is paused for ${Math.round(forMs)} ms`);
    node.pause(forMs);
  },
  /** Two groups that do not hear each other. */
  split: (world, prng) => {
    const side = sides(world, prng);
    cutFor(world, prng, (a, b) => side(a) !== side(b), 'a split');
  },
  /** Two groups that do not hear each other, and one node that both hear. */
  bridge: (world, prng) => {
    const side = sides(world, prng);
    const ids = idsOf(world);
    const bridge = ids[prng.nextBelow(ids.length)];
    const isApart = (a: RaftId, b: RaftId) => a !== bridge && b !== bridge && side(a) !== side(b);
    cutFor(world, prng, isApart, 'a bridge');
  },
  /** Everybody hears its two neighbours only. */
  ring: (world, prng) => {
    const order = prng.shuffle([...idsOf(world)]);
    const place = new Map(order.map((id, i) => [id, i]));
    cutFor(
      world,
      prng,
      (a, b) => {
        const distance = Math.abs((place.get(a) ?? 0) - (place.get(b) ?? 0));
        return distance !== 1 && distance !== order.length - 1;
      },
      'a ring',
    );
  },
  isolate_leader: (world, prng) => {
    const leader = world.leader()?.id;
    if (leader !== undefined)
      cutFor(world, prng, (a, b) => a === leader || b === leader, 'the leader alone');
  },
  /** One is not heard, or hears nobody. */
  one_way: (world, prng) => {
    const id = someone(world, prng)?.id;
    const isDeaf = prng.chance(0.5);
    cutFor(world, prng, (a, b) => (isDeaf ? b : a) === id, isDeaf ? 'a deaf one' : 'a mute one');
  },
  one_link: (world, prng) => {
    const [from, to] = prng.shuffle([...idsOf(world)]);
    cutFor(world, prng, (a, b) => a === from && b === to, 'one direction of one link');
  },
  /** Everything on some links waits, and then comes at once. */
  clog: (world, prng) => {
    const forMs = briefly(world, prng);
    for (const a of idsOf(world))
      for (const b of idsOf(world))
        if (a !== b && prng.chance(0.3)) world.network.clog(a, b, forMs);
  },
  connections_break: (world, prng) => {
    for (const a of idsOf(world))
      for (const b of idsOf(world)) if (a !== b && prng.chance(0.4)) world.network.break(a, b);
  },
  slow_disk: (world, prng) => {
    const node = someone(world, prng);
    if (node === undefined) return;
    node.disk.slowness = 5 + prng.nextBelow(200);
    world.scheduler.after(briefly(world, prng), () => {
      node.disk.slowness = 1;
    });
  },
  full_disk: (world, prng) => {
    const node = someone(world, prng);
    if (node === undefined) return;
    node.disk.isFull = true;
    world.scheduler.after(briefly(world, prng), () => {
      node.disk.isFull = false;
    });
  },
  failing_disk: (world, prng) => {
    const node = someone(world, prng);
    if (node !== undefined) node.disk.isFailing = true;
  },
  clock: (world, prng) => {
    const node = someone(world, prng);
    if (node !== undefined) node.skew(0.7 + prng.nextFloat() * 0.7);
  },
  snapshot: (world, prng) => someone(world, prng)?.takeSnapshot(),
  members: (world, prng) => world.changeMembers(prng),
  transfer: (world, prng) => {
    const leader = world.leader();
    const to = someone(world, prng);
    if (leader === undefined || to === undefined) return;
    const isNamed = prng.chance(0.7);
    world.trace(() => `${leader.name} is asked to hand over to ${isNamed ? to.name : 'anybody'}`);
    leader.input(isNamed ? { kind: 'transfer', to: to.id } : { kind: 'transfer' });
  },
  /** Hints that are not true: they may cost time, and never more. */
  false_hint: (world, prng) => {
    const node = someone(world, prng);
    const peer = world.leader() ?? someone(world, prng);
    if (node === undefined || peer === undefined || node === peer) return;
    const kind = prng.chance(0.7) ? 'peer_gone' : 'peer_unreachable';
    node.input({ kind, peer: peer.id });
  },
  campaign: (world, prng) => someone(world, prng)?.input({ kind: 'campaign' }),
  late_timer: (world, prng) => someone(world, prng)?.input({ kind: 'timeout' }),
} satisfies Record<string, Fault>;

export type FaultKind = keyof typeof FAULTS;
export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[];

export interface NemesisConfig {
  readonly kinds: readonly FaultKind[];
  /** One that is done far more often than the others. */
  readonly favourite: FaultKind | undefined;
  readonly everyMs: number;
}

/** Does one of its faults at random times, until it is told to stop. */
export class Nemesis {
  isStopped = false;
  readonly counts = new Map<FaultKind, number>();
  readonly #world: Victims;
  readonly #prng: Prng;
  readonly #kinds: readonly FaultKind[];
  readonly #favourite: FaultKind | undefined;
  readonly #everyMs: number;

  constructor(world: Victims, prng: Prng, config: NemesisConfig) {
    this.#world = world;
    this.#prng = prng;
    this.#kinds = config.kinds;
    this.#favourite = config.favourite;
    this.#everyMs = config.everyMs;
    if (config.kinds.length > 0) this.#next();
  }

  #next(): void {
    this.#world.scheduler.after(this.#prng.nextFloat() * 2 * this.#everyMs, () => {
      if (this.isStopped) return;
      const any = this.#kinds[this.#prng.nextBelow(this.#kinds.length)] as FaultKind;
      const kind = this.#prng.chance(0.4) ? (this.#favourite ?? any) : any;
      this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
      FAULTS[kind](this.#world, this.#prng);
      this.#next();
    });
  }
}

/** The leader is the most rewarding victim. */
function someone(world: Victims, prng: Prng): SimNode | undefined {
  const leader = world.leader();
  if (leader !== undefined && prng.chance(0.4)) return leader;
  const up = world.nodesUp();
  return up[prng.nextBelow(Math.max(up.length, 1))];
}

/** Mostly around an election timeout, which is where things are decided. */
function briefly({ electionTimeoutMs }: Victims, prng: Prng): number {
  const scale = [0.05, 0.5, 1.5, 4][prng.nextBelow(4)] as number;
  return electionTimeoutMs * scale * (0.2 + prng.nextFloat());
}

const idsOf = (world: Victims): RaftId[] => world.nodes().map(({ id }) => id);

function sides(world: Victims, prng: Prng): (id: RaftId) => boolean {
  const there = new Set(idsOf(world).filter(() => prng.chance(0.5)));
  return (id) => there.has(id);
}

function cutFor(
  world: Victims,
  prng: Prng,
  isCut: (from: RaftId, to: RaftId) => boolean,
  what: string,
): void {
  const { network, scheduler } = world;
  const ids = idsOf(world);
  const forMs = briefly(world, prng);
  const cuts: (readonly [RaftId, RaftId])[] = [];
  for (const a of ids)
    for (const b of ids) if (a !== b && isCut(a, b) && !network.isCut(a, b)) cuts.push([a, b]);
  world.trace(
    () => `${what} for ${Math.round(forMs)} ms: ${cuts.map(([a, b]) => `${a}/${b}`).join(' ')}`,
  );
  for (const [a, b] of cuts) {
    network.cut(a, b);
    if (prng.chance(0.3)) network.break(a, b);
  }
  scheduler.after(forMs, () => {
    for (const [a, b] of cuts) network.mend(a, b);
  });
}
