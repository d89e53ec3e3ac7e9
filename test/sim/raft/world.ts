import { assert } from '../../../src/base/assert.js';
import { Prng } from '../../../src/base/prng.js';
import type {
  MemberChange,
  Membership,
  RaftId,
  RaftMessage,
} from '../../../src/control/raft/core/types.js';
import { decodeMessages, encodeMessages } from '../../../src/control/raft/wire/message.js';
import { Clients } from './clients.js';
import type { RunConfig } from './config.js';
import { describe } from './describe.js';
import { Disk } from './disk.js';
import { Ledger } from './ledger.js';
import { hashOf, nameOf } from './machine.js';
import { Nemesis, type Victims } from './nemesis.js';
import { Network } from './network.js';
import { type RaftClass, SimNode, type Surroundings } from './node.js';
import { Scheduler } from './scheduler.js';
import { type Sight, Sights } from './sights.js';
import { Transfers } from './transfers.js';
import { Violation } from './violation.js';

export interface WorldOptions {
  readonly raft: RaftClass;
  /** Look at what happens inside, too; off: only at what the outside can see. */
  readonly guards: boolean;
  readonly trace: ((line: string) => void) | undefined;
}

/** A group of managers with the real core, on a virtual clock, with everything around it simulated. */
export class RaftWorld implements Surroundings, Victims {
  readonly scheduler = new Scheduler();
  readonly sights = new Sights();
  readonly ledger: Ledger;
  readonly network: Network;
  readonly clients: Clients;
  readonly nemesis: Nemesis;
  readonly raft: RaftClass;
  readonly electionTimeoutMs: number;
  /** Of everything that was traced or applied: equal runs have equal ones. */
  digest = 0;
  readonly #config: RunConfig;
  readonly #trace: ((line: string) => void) | undefined;
  readonly #prng: Prng;
  readonly #nodes = new Map<RaftId, SimNode>();
  readonly #transfers: Transfers;
  #nextId = 1;
  #isHealed = false;

  constructor(config: RunConfig, { raft, guards, trace }: WorldOptions) {
    this.#config = config;
    this.raft = raft;
    this.#trace = trace;
    this.#prng = new Prng(config.seed);
    this.electionTimeoutMs = config.raft.electionTimeoutMs;
    const members: Membership = Array.from({ length: config.nodeCount }, () => ({
      id: this.#newId(),
      voter: true,
      context: '',
    }));
    this.ledger = new Ledger(guards, this.sights, members);
    this.ledger.onMembers = (before, after) => this.#onMembers(before, after);
    this.network = new Network(this.scheduler, this.#fork(), config.network, {
      deliver: (message) => this.#deliver(message),
      broke: (from, to) => this.node(from)?.input({ kind: 'peer_unreachable', peer: to }),
    });
    this.#transfers = new Transfers(this, this.#fork());
    for (const { id } of members) this.#create(id, members).start();
    this.clients = new Clients(this, this.#fork(), config.clients);
    this.nemesis = new Nemesis(this, this.#fork(), config.nemesis);
  }

  /** @throws Violation when something happened that must never be. */
  run(): void {
    this.scheduler.run(this.#config.durationMs);
    this.#heal();
    this.#expectProgress();
    this.#expectAgreement();
  }

  trace(text: () => string): void {
    if (this.#trace === undefined) return;
    this.#trace(`${this.scheduler.nowMs.toFixed(3).padStart(10)}  ${text()}`);
  }

  see(sight: Sight): void {
    this.sights.see(sight);
  }

  node(id: RaftId): SimNode | undefined {
    return this.#nodes.get(id);
  }

  nodes(): readonly SimNode[] {
    return [...this.#nodes.values()];
  }

  nodesUp(): readonly SimNode[] {
    return this.nodes().filter(({ core }) => core !== undefined);
  }

  /** The one of the latest term, if there is one that is up. */
  leader(): SimNode | undefined {
    let latest: SimNode | undefined;
    let term = 0;
    for (const node of this.#nodes.values()) {
      const status = node.status();
      if (status?.role !== 'leader' || status.term <= term) continue;
      latest = node;
      term = status.term;
    }
    return latest;
  }

  clientDelayMs(): number {
    return this.network.latencyMs();
  }

  send(message: RaftMessage): void {
    this.digest = hashOf(this.digest, `${message.kind}${message.from}${message.to}`);
    this.trace(() => describe(message));
    if (message.kind === 'timeout_now') this.see('handed_over');
    const [arrives] = decodeMessages(encodeMessages([message])) ?? [];
    if (arrives === undefined) throw new Violation(`what does not decode: ${describe(message)}`);
    this.network.send(arrives);
  }

  sendSnapshot(from: SimNode, to: RaftId): void {
    this.#transfers.begin(from, to);
  }

  ended(node: SimNode): void {
    this.crash(node, this.electionTimeoutMs * (0.1 + this.#prng.nextFloat() * 2));
  }

  crash(node: SimNode, forMs: number): void {
    if (node.core === undefined) return;
    const survives = this.#prng.chance(0.2);
    this.trace(() => `${node.name} crashes${survives ? ', all it wrote is there' : ''}`);
    node.crash(survives);
    this.#tellPeers(node);
    this.scheduler.after(this.#isHealed ? 0 : forMs, () => this.#revive(node));
  }

  /** Some change that may make sense now; the leader may think otherwise. */
  changeMembers(prng: Prng): void {
    const leader = this.leader();
    if (leader === undefined) return;
    const change = this.#change(prng);
    if (change === undefined) return;
    this.trace(() => `${leader.name} is asked to ${change.kind} ${nameOf(change.id)}`);
    leader.changeMembers(change, (refused) => {
      if (refused !== undefined) this.trace(() => `${change.kind} is refused: ${refused}`);
    });
  }

  #change(prng: Prng): MemberChange | undefined {
    const { members } = this.ledger;
    const voters = members.filter(({ voter }) => voter);
    const learners = members.filter(({ voter }) => !voter);
    const any = (of: Membership) => of[prng.nextBelow(Math.max(of.length, 1))]?.id;
    const learner = any(learners);
    if (learner !== undefined && prng.chance(0.5)) return { kind: 'promote', id: learner };
    if (prng.chance(0.1)) {
      const id = any(members);
      return id === undefined ? undefined : { kind: 'describe', id, context: this.#context() };
    }
    // Around the size it began with, so that there is always something to add and to remove.
    if (voters.length + learners.length > this.#config.nodeCount - prng.nextBelow(2)) {
      const id = any(prng.chance(0.7) ? voters : members);
      return id === undefined ? undefined : { kind: 'remove', id };
    }
    return { kind: 'add_learner', id: this.#joiner().id, context: this.#context() };
  }

  #context(): string {
    return `at ${Math.round(this.scheduler.nowMs)}`;
  }

  /** A node that waits to be a member: one that was never made one, or a new one. */
  #joiner(): SimNode {
    const idle = this.nodes().find(
      (node) => node.isJoiner && !this.ledger.everMembers.has(node.id) && node.core !== undefined,
    );
    if (idle !== undefined) return idle;
    const node = this.#create(this.#newId(), []);
    node.isJoiner = true;
    node.start();
    return node;
  }

  #create(id: RaftId, members: Membership): SimNode {
    const { raft, shell, disk } = this.#config;
    const first = { index: 0, term: 0, members };
    const storage = new Disk(this.scheduler, this.#fork(), disk, this.sights, first);
    const node = new SimNode(this, this.#fork(), { ...raft, id, seed: 0 }, shell, storage);
    this.#nodes.set(id, node);
    this.ledger.add(id, storage);
    return node;
  }

  #onMembers(before: Membership, after: Membership): void {
    for (const { id, voter } of after) {
      const held = before.find((member) => member.id === id);
      if (held === undefined) this.see('learner_added');
      else if (voter && !held.voter) this.see('learner_promoted');
    }
    for (const { id } of before) {
      const node = this.node(id);
      if (node === undefined || after.some((member) => member.id === id)) continue;
      this.see('member_removed');
      if (this.ledger.leaderOf(node.status()?.term ?? 0) === id) this.see('leader_removed');
      // Some are left running, and may not trouble those that remain.
      if (this.#prng.chance(0.4)) continue;
      this.scheduler.after(this.electionTimeoutMs * this.#prng.nextFloat() * 3, () => {
        this.trace(() => `${node.name} is taken away`);
        node.isRetired = true;
        node.crash(true);
      });
    }
  }

  #newId(): RaftId {
    return this.#nextId++ as RaftId;
  }

  #fork(): Prng {
    return new Prng(this.#prng.nextUint32());
  }

  #deliver(message: RaftMessage): void {
    const node = this.node(message.to);
    if (node === undefined || node.core === undefined) {
      // Its host answers that nobody listens.
      if (this.#prng.chance(0.2))
        this.node(message.from)?.input({ kind: 'peer_unreachable', peer: message.to });
      return;
    }
    node.input({ kind: 'message', message });
  }

  /** The connections of a process end with it, and often its host says so. */
  #tellPeers(node: SimNode): void {
    const kind = this.#prng.chance(0.6) ? 'peer_gone' : 'peer_unreachable';
    for (const other of this.nodes()) {
      if (other === node || this.network.isCut(node.id, other.id)) continue;
      if (!this.#prng.chance(0.7)) continue;
      this.scheduler.after(this.network.latencyMs(), () => other.input({ kind, peer: node.id }));
    }
  }

  #revive(node: SimNode): void {
    node.start();
  }

  #heal(): void {
    this.trace(() => 'all is healed');
    this.#isHealed = true;
    this.nemesis.isStopped = true;
    this.clients.isCalm = true;
    this.network.heal();
    this.network.config = {
      latencyMs: [0.1, 1],
      straggler: 0,
      stragglerMs: 0,
      loss: 0,
      duplicate: 0,
      isOrdered: true,
    };
    for (const node of this.#nodes.values()) {
      node.fuse = undefined;
      node.disk.isFull = false;
      node.disk.isFailing = false;
      node.disk.slowness = 1;
      node.pausedUntilMs = 0;
      node.skew(1);
      node.resume();
      if (node.core === undefined) this.#revive(node);
    }
  }

  /** In time that does not depend on luck: a leader, and every client gets a write done. */
  #expectProgress(): void {
    const startMs = this.scheduler.nowMs;
    const limitMs = this.electionTimeoutMs * 80;
    const before = [...this.clients.acknowledged];
    const isServed = () =>
      this.leader() !== undefined &&
      this.clients.acknowledged.every((count, client) => count > (before[client] as number));
    if (this.scheduler.run(startMs + limitMs, isServed)) return;
    const leader = this.leader();
    if (leader === undefined) throw new Violation(`no leader ${limitMs} ms after all was healed`);
    throw new Violation(`${leader.name} leads, but clients get no writes done`);
  }

  /** No client wants more: all members have and hold the same. */
  #expectAgreement(): void {
    this.clients.isStopped = true;
    const startMs = this.scheduler.nowMs;
    const isAgreed = () => this.#behind().length === 0;
    if (this.scheduler.run(startMs + this.electionTimeoutMs * 40, isAgreed)) return;
    throw new Violation(`never in agreement: ${this.#behind().join(', ')}`);
  }

  /** Who has not applied what the leader has committed, and why that may be. */
  #behind(): string[] {
    const leader = this.leader();
    const status = leader?.status();
    if (leader === undefined || status === undefined) return ['there is no leader'];
    const behind: string[] = [];
    if (leader.machine.index !== status.commitIndex) behind.push(`${leader.name} itself`);
    for (const { id } of status.members) {
      const node = this.node(id);
      assert(node !== undefined, 'members are nodes');
      const { index, chain } = node.machine;
      if (index !== leader.machine.index) behind.push(`${node.name} at ${index}`);
      else if (chain !== leader.machine.chain) behind.push(`${node.name} has another state`);
    }
    return behind;
  }
}
