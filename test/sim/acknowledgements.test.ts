import t from 'tap';
import { Prng } from '../../src/base/prng.js';
import { Acknowledgements } from '../../src/gossip/core/acknowledgements.js';
import type { RecordInput } from '../../src/gossip/core/record-core.js';
import { RecordsWorld, type SimNode } from './records-world.js';

const FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const TOPIC = 'net';
const NODES = 7;
/** An owner waits no longer than this. */
const FOR_MS = 5000;
/** A node holds a question no longer than this. */
const HOLD_MS = 2000;
/** How far a packet thread is behind its records at most. */
const LAG_MS = 30;

/** Remembers whom each node holds for alive. */
class MemberWorld extends RecordsWorld {
  live: Map<string, readonly string[]> | undefined = new Map();

  override input(node: SimNode, input: RecordInput): void {
    if (input.kind === 'members') {
      const alive = input.members.filter(({ state }) => state === 'alive');
      this.live?.set(
        node.id,
        alive.map(({ id }) => id),
      );
    }
    super.input(node, input);
  }
}

interface Question {
  readonly asker: string;
  readonly fact: string;
  readonly untilMs: number;
  answer(isSo: boolean): void;
}

/** A node whose packet thread lags behind its records, and that asks and answers. */
class Peer {
  readonly node: SimNode;
  core = new Acknowledgements();
  /** What its packet thread decides by: how far, by owner and epoch. */
  applied = new Map<string, number>();
  applyAtMs = Number.POSITIVE_INFINITY;
  questions: Question[] = [];
  readonly waits = new Map<number, { readonly fact: string; readonly startedMs: number }>();
  waitCount = 0;

  constructor(node: SimNode) {
    this.node = node;
  }
}

/** Owners that publish and wait for all live nodes; messages are lost, nodes die, networks part. */
class World {
  readonly records: MemberWorld;
  readonly peers: readonly Peer[];
  readonly violations: string[] = [];
  readonly tookMs: number[] = [];
  expired = 0;
  readonly prng: Prng;
  readonly #lossRate: number;
  /** A mutant: it answers by its records, and not by what its packet thread has applied. */
  readonly #isHasty: boolean;
  #events: { readonly atMs: number; readonly run: () => void }[] = [];

  constructor(seed: number, lossRate: number, isHasty = false) {
    this.prng = new Prng(seed);
    this.#lossRate = lossRate;
    this.#isHasty = isHasty;
    this.records = new MemberWorld({
      seed,
      nodeCount: NODES,
      lossRate,
      duplicateRate: 0.1,
      latencyMsMax: 10,
      detectMs: 1500,
    });
    this.records.tellMembers();
    this.peers = [...this.records.nodes.values()].map((node) => new Peer(node));
    for (const { node } of this.peers) this.#subscribe(node);
    this.run(8000);
  }

  run(forMs: number): void {
    const untilMs = this.records.nowMs + forMs;
    while (this.records.nowMs < untilMs) {
      this.records.run(1);
      const now = this.records.nowMs;
      const due = this.#events.filter(({ atMs }) => atMs <= now);
      this.#events = this.#events.filter(({ atMs }) => atMs > now);
      for (const { run } of due) run();
      for (const peer of this.peers) if (peer.node.up) this.#turn(peer);
    }
  }

  publish(peer: Peer): void {
    const { node } = peer;
    const value = Buffer.from(String(this.prng.nextBelow(1e9)));
    this.records.input(node, { kind: 'publish', topic: TOPIC, key: 'k', value });
    const { epoch, seq } = node.core.table.versionOf(TOPIC, node.id) ?? { epoch: 0, seq: 0 };
    const fact = `${epoch} ${seq}`;
    peer.waitCount += 1;
    const id = peer.waitCount;
    peer.waits.set(id, { fact, startedMs: this.records.nowMs });
    peer.core.step({ kind: 'wait', id, facts: [fact], forMs: FOR_MS }, this.records.nowMs);
  }

  crash(peer: Peer): void {
    this.records.crash(peer.node);
    peer.waits.clear();
    peer.questions = [];
    peer.core = new Acknowledgements();
    peer.applied.clear();
    peer.applyAtMs = Number.POSITIVE_INFINITY;
  }

  restart(peer: Peer): void {
    this.records.restart(peer.node);
    this.#subscribe(peer.node);
  }

  #subscribe(node: SimNode): void {
    this.records.input(node, { kind: 'subscribe', topic: TOPIC });
  }

  #turn(peer: Peer): void {
    this.#apply(peer);
    peer.questions = peer.questions.filter((question) => {
      const isSo = this.#says(peer, question);
      if (!isSo && question.untilMs > this.records.nowMs) return true;
      question.answer(isSo);
      return false;
    });
    const ids = this.#liveFor(peer).map(({ node }) => node.id);
    peer.core.step({ kind: 'members', ids }, this.records.nowMs);
    this.#perform(peer);
  }

  #liveFor({ node }: Peer): readonly Peer[] {
    const live = this.records.live?.get(node.id) ?? [];
    return this.peers.filter((peer) => live.includes(peer.node.id));
  }

  #apply(peer: Peer): void {
    const vector = peer.node.core.table.vector(TOPIC);
    const isNew = vector.some(({ owner, epoch, seq }) => !has(peer, owner, `${epoch} ${seq}`));
    if (!isNew) return;
    const { nowMs } = this.records;
    if (peer.applyAtMs === Number.POSITIVE_INFINITY)
      peer.applyAtMs = nowMs + this.prng.nextBelow(LAG_MS);
    if (peer.applyAtMs > nowMs) return;
    peer.applyAtMs = Number.POSITIVE_INFINITY;
    for (const { owner, epoch, seq } of vector) peer.applied.set(`${owner} ${epoch}`, seq);
  }

  #says(peer: Peer, { asker, fact }: Question): boolean {
    if (!this.#isHasty) return has(peer, asker, fact);
    const [epoch = 0, seq = 0] = fact.split(' ').map(Number);
    const version = peer.node.core.table.versionOf(TOPIC, asker);
    return version?.epoch === epoch && version.seq >= seq;
  }

  #perform(peer: Peer): void {
    const { asks, settled } = peer.core.takeReady();
    for (const { ask, member, facts } of asks) this.#ask(peer, ask, member, facts);
    for (const { id, missing } of settled) this.#check(peer, id, missing);
  }

  #ask(peer: Peer, ask: number, member: string, facts: readonly string[]): void {
    const { boot } = peer.node;
    const tell = (input: Parameters<Acknowledgements['step']>[0]) => {
      if (peer.node.up && peer.node.boot === boot) peer.core.step(input, this.records.nowMs);
    };
    if (this.prng.chance(this.#lossRate)) {
      this.#later(20, () => tell({ kind: 'failed', ask }));
      return;
    }
    const other = this.peers.find(({ node }) => node.id === member);
    if (other === undefined) return;
    this.#send(peer, other, () => {
      const untilMs = this.records.nowMs + HOLD_MS;
      // The others are asked for again: an answer need not be the whole one.
      const [fact = ''] = facts;
      const answer = (isSo: boolean) =>
        this.#send(other, peer, () => tell({ kind: 'answer', ask, facts: isSo ? [fact] : [] }));
      other.questions.push({ asker: peer.node.id, fact, untilMs, answer });
      this.records.input(other.node, { kind: 'behind', member: peer.node.id });
    });
  }

  #check(peer: Peer, id: number, missing: readonly string[]): void {
    const wait = peer.waits.get(id);
    peer.waits.delete(id);
    if (wait === undefined) {
      this.violations.push('a wait was settled twice');
      return;
    }
    const tookMs = this.records.nowMs - wait.startedMs;
    if (tookMs > FOR_MS + 2) this.violations.push(`a wait took ${tookMs} ms`);
    if (missing.length > 0) {
      this.expired += 1;
      return;
    }
    this.tookMs.push(tookMs);
    for (const other of this.#liveFor(peer)) {
      // A new life has forgotten what the one before it said; it takes up the newest.
      const isBusy = other.node.up && other.node.boot === 0 && other.node.group === peer.node.group;
      if (isBusy && !has(other, peer.node.id, wait.fact))
        this.violations.push(`${other.node.id} is behind what ${peer.node.id} was told of it`);
    }
  }

  /** Comes in its time, or breaks with its connection. */
  #send(from: Peer, to: Peer, deliver: () => void): void {
    const [fromBoot, toBoot] = [from.node.boot, to.node.boot];
    this.#later(1 + this.prng.nextBelow(10), () => {
      if (!from.node.up || !to.node.up || from.node.group !== to.node.group) return;
      if (fromBoot === from.node.boot && toBoot === to.node.boot) deliver();
    });
  }

  #later(delayMs: number, run: () => void): void {
    this.#events.push({ atMs: this.records.nowMs + delayMs, run });
  }
}

function has({ applied }: Peer, owner: string, fact: string): boolean {
  const [epoch = '', seq = 0] = fact.split(' ');
  return (applied.get(`${owner} ${epoch}`) ?? -1) >= Number(seq);
}

function anyOf(world: World): Peer {
  return world.peers[world.prng.nextBelow(NODES)] as Peer;
}

function act(world: World): void {
  const peer = anyOf(world);
  const dice = world.prng.nextFloat();
  if (!peer.node.up) {
    if (dice < 0.3) world.restart(peer);
  } else if (dice < 0.03) world.crash(peer);
  else if (dice < 0.05)
    world.records.partition(({ id }) => (Number(id.slice(5)) < 1 + (NODES >> 1) ? 0 : 1));
  else if (dice < 0.1) world.records.heal();
  else world.publish(peer);
}

t.test('who was told that all live nodes have applied it was told the truth', async (t) => {
  let told = 0;
  let expired = 0;
  for (let seed = 1; seed <= 3 * FACTOR; seed++) {
    const world = new World(seed, 0.15);
    for (let i = 0; i < 120; i++) {
      act(world);
      world.run(world.prng.nextBelow(150));
    }
    world.run(FOR_MS + 10);
    if (world.violations.length > 0) t.fail(`seed ${seed}: ${world.violations[0]}`);
    const left = world.peers.filter(({ waits }) => waits.size > 0).length;
    if (left > 0) t.fail(`seed ${seed}: ${left} nodes wait for ever`);
    told += world.tookMs.length;
    expired += world.expired;
  }
  t.comment(`${told} acknowledged, ${expired} expired`);
  t.ok(told > 150 * FACTOR, `${told} were acknowledged`);
});

t.test('a node that answers before its packet thread has followed is found out', async (t) => {
  const world = new World(1, 0, true);
  for (let i = 0; i < 60; i++) {
    world.publish(anyOf(world));
    world.run(world.prng.nextBelow(100));
  }
  t.ok(world.violations.length > 0);
});

t.test(
  'it takes a round trip while all is well, and a dead node as long as it is not found',
  async (t) => {
    const world = new World(2, 0);
    for (let i = 0; i < 60; i++) {
      world.publish(anyOf(world));
      world.run(world.prng.nextBelow(100));
    }
    t.strictSame([world.violations, world.expired], [[], 0]);
    t.ok(Math.max(...world.tookMs) < 120, `${Math.max(...world.tookMs)} ms at most`);

    world.tookMs.length = 0;
    world.crash(world.peers[3] as Peer);
    world.publish(world.peers[0] as Peer);
    world.run(FOR_MS);
    t.equal(world.expired, 0);
    const [tookMs = 0] = world.tookMs;
    t.ok(tookMs >= 1400 && tookMs < 1700, `${tookMs} ms`);
  },
);
