import t from 'tap';
import { Prng } from '../../../src/base/prng.js';
import type { NodeId } from '../../../src/base/swarm-model.js';
import {
  Liveness,
  type LivenessInput,
  type MembershipState,
} from '../../../src/control/dispatch/core/liveness.js';
import type { CommandBody } from '../../../src/control/store/core/command.js';
import { decide } from '../../../src/control/store/core/decide.js';
import { State } from '../../../src/control/store/core/state.js';
import { clusterCreate, node, nodeId } from '../support.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);
const HEARTBEAT_MS = 5_000;
/** What an agent spends on a manager that does not answer. */
const CONNECT_MS = 2_000;

interface Agent {
  readonly id: NodeId;
  alive: boolean;
  diedAtMs: number | undefined;
  number: number;
  /** Whom it has a session with. */
  manager: Manager | undefined;
  tried: Set<Manager>;
}

interface Manager {
  readonly id: NodeId;
  up: boolean;
  /** Cut off from the other managers, though not from agents. */
  cut: boolean;
  core: Liveness;
  state: State;
  appliedCount: number;
  sessions: Map<NodeId, number>;
}

/**
 * Managers with a replicated state, of which only the log is modelled; agents that look for another
 * manager when theirs is gone; and what goes wrong. Everything happens at a virtual time.
 */
class World {
  readonly prng: Prng;
  readonly managers: Manager[];
  readonly agents: Agent[];
  readonly trace: string[] = [];
  nowMs = 0;
  /** Committed commands, the same for all managers. */
  readonly #log: CommandBody[] = [];
  readonly #committed = new State();
  #leader: Manager | undefined;
  readonly #queue: { readonly atMs: number; readonly order: number; readonly run: () => void }[] =
    [];
  #order = 0;
  /** Of each node: how often it was called down, while it was alive and when it was dead. */
  readonly falseDowns = new Map<NodeId, string[]>();
  readonly trueDowns = new Map<NodeId, number[]>();

  constructor(seed: number, managerCount: number, agentCount: number) {
    this.prng = new Prng(seed);
    this.managers = Array.from({ length: managerCount }, (_, n) => this.#newManager(`m${n}`));
    this.agents = Array.from({ length: agentCount }, (_, n) => ({
      id: nodeId(`a${n}`),
      alive: true,
      diedAtMs: undefined,
      number: 0,
      manager: undefined,
      tried: new Set<Manager>(),
    }));
    this.#commit(clusterCreate());
    for (const { id } of this.agents)
      this.#commit({ kind: 'node_create', node: { ...node(id), state: 'unknown' } });
    this.#elect(this.managers[0]);
    for (const agent of this.agents)
      this.after(this.prng.nextBelow(1_000), () => this.#seek(agent));
  }

  after(delayMs: number, run: () => void): void {
    this.#queue.push({ atMs: this.nowMs + delayMs, order: this.#order++, run });
  }

  runUntil(endMs: number): void {
    for (;;) {
      this.#queue.sort((a, b) => a.atMs - b.atMs || a.order - b.order);
      const next = this.#queue[0];
      if (next === undefined || next.atMs > endMs) break;
      this.#queue.shift();
      this.nowMs = next.atMs;
      next.run();
    }
    this.nowMs = endMs;
  }

  get leader(): Manager | undefined {
    return this.#leader;
  }

  /** As the majority has it. */
  row(id: NodeId) {
    return this.#committed.row('node', id);
  }

  get commits(): number {
    return this.#log.length;
  }

  kill(manager: Manager): void {
    this.trace.push(`${this.nowMs} ${manager.id} dies`);
    manager.up = false;
    manager.sessions.clear();
    // Agents see the connection go at once, or when they miss the answers to their heartbeats.
    for (const agent of this.agents)
      if (agent.manager === manager) {
        agent.manager = undefined;
        agent.tried = new Set([manager]);
        this.after(this.prng.nextBelow(this.prng.chance(0.5) ? 200 : 8_000), () =>
          this.#seek(agent),
        );
      }
    this.#quorumChanged();
  }

  restart(manager: Manager): void {
    this.trace.push(`${this.nowMs} ${manager.id} starts`);
    Object.assign(manager, this.#newManager(''), { id: manager.id });
    manager.core = new Liveness(manager.id, HEARTBEAT_MS);
    this.#applyLater(manager);
    this.#quorumChanged();
  }

  /** Its agents hear that it is stale, and are tired of it in less than two heartbeats. */
  cut(manager: Manager): void {
    this.trace.push(`${this.nowMs} ${manager.id} is cut off`);
    manager.cut = true;
    for (const agent of this.agents)
      if (agent.manager === manager)
        this.after(3_000 + this.prng.nextBelow(6_000), () => {
          if (agent.manager === manager && manager.cut) this.leave(agent);
        });
    this.#quorumChanged();
  }

  heal(manager: Manager): void {
    this.trace.push(`${this.nowMs} ${manager.id} is back`);
    manager.cut = false;
    this.#applyLater(manager);
    this.#quorumChanged();
  }

  killAgent(agent: Agent): void {
    this.trace.push(`${this.nowMs} ${agent.id} dies, of ${agent.manager?.id}`);
    agent.alive = false;
    agent.diedAtMs = this.nowMs;
    const { manager, number } = agent;
    agent.manager = undefined;
    // A process that ends closes its connection; a host that loses its power does not.
    if (manager && this.prng.chance(0.5)) this.#close(manager, agent.id, number);
    if (this.prng.chance(0.5))
      this.after(500 + this.prng.nextBelow(1_500), () => this.#tell('suspect'));
    if (this.prng.chance(0.7))
      this.after(2_000 + this.prng.nextBelow(4_000), () => this.#tell('dead'));
  }

  /** What gossip thinks of those that are not there, and wrongly now and then of one that is. */
  #tell(state: MembershipState): void {
    const wrongly = this.agents[this.prng.nextBelow(this.agents.length * 2)];
    const states = new Map<string, MembershipState>(wrongly && [[wrongly.id, 'suspect']]);
    for (const { id, alive } of this.agents) if (!alive) states.set(id, state);
    for (const one of this.managers) this.#step(one, { kind: 'membership', states });
    if (wrongly?.alive !== true) return;
    states.delete(wrongly.id);
    // It refutes that, in time.
    this.after(1 + this.prng.nextBelow(1_500), () => {
      for (const one of this.managers) this.#step(one, { kind: 'membership', states });
    });
  }

  /** Goes to another manager for no reason. */
  leave(agent: Agent): void {
    const { manager, number } = agent;
    if (manager === undefined) return;
    agent.manager = undefined;
    // What was left because it is cut off is not tried again in the same round.
    if (manager.cut) agent.tried.add(manager);
    else agent.tried = new Set([manager]);
    this.after(this.prng.nextBelow(100), () => this.#close(manager, agent.id, number));
    this.after(this.prng.nextBelow(200), () => this.#seek(agent));
  }

  #newManager(name: string): Manager {
    const id = nodeId(name);
    const core = new Liveness(id, HEARTBEAT_MS);
    const state = new State();
    return { id, up: true, cut: false, core, state, appliedCount: 0, sessions: new Map() };
  }

  #seek(agent: Agent): void {
    if (!agent.alive || agent.manager !== undefined) return;
    let left = this.managers.filter((manager) => !agent.tried.has(manager));
    if (left.length === 0) {
      agent.tried.clear();
      left = this.managers;
    }
    const manager = left[this.prng.nextBelow(left.length)] as Manager;
    agent.tried.add(manager);
    if (!manager.up) {
      this.after(this.prng.chance(0.5) ? 5 : CONNECT_MS, () => this.#seek(agent));
      return;
    }
    const number = ++agent.number;
    agent.manager = manager;
    manager.sessions.set(agent.id, number);
    this.#step(manager, { kind: 'session_open', nodeId: agent.id, number });
    this.#register(manager, agent.id, number);
    this.#beat(agent, manager, number);
    if (manager.cut)
      this.after(4_000, () => agent.manager === manager && manager.cut && this.leave(agent));
  }

  #register(manager: Manager, id: NodeId, number: number): void {
    if (!manager.up || manager.sessions.get(id) !== number) return;
    const session = { manager: manager.id, number };
    const observation = { state: 'ready', stateMessage: '', session } as const;
    this.#propose(manager, { kind: 'node_observe', nodeId: id, observation }, () =>
      this.after(1_000, () => this.#register(manager, id, number)),
    );
  }

  #beat(agent: Agent, manager: Manager, number: number): void {
    if (!agent.alive || agent.manager !== manager || agent.number !== number) return;
    this.#step(manager, { kind: 'heard', nodeId: agent.id, number });
    this.after(HEARTBEAT_MS * (0.75 + this.prng.nextFloat() / 4), () =>
      this.#beat(agent, manager, number),
    );
  }

  #close(manager: Manager, id: NodeId, number: number): void {
    if (manager.sessions.get(id) !== number) return;
    manager.sessions.delete(id);
    this.#step(manager, { kind: 'session_close', nodeId: id, number });
  }

  #step(manager: Manager, input: LivenessInput): void {
    if (!manager.up) return;
    manager.core.step(input, this.nowMs);
    const { reports, hangUps, probes } = manager.core.takeReady();
    for (const { nodeId: id, state, message: stateMessage, ifSession } of reports)
      this.#propose(manager, {
        kind: 'node_observe',
        nodeId: id,
        observation: { state, stateMessage },
        ifSession,
      });
    for (const { nodeId: id, number } of hangUps) {
      manager.sessions.delete(id);
      const agent = this.agents.find((one) => one.id === id);
      if (agent?.manager === manager && agent.number === number) this.leave(agent);
    }
    for (const id of probes) {
      const agent = this.agents.find((one) => one.id === id);
      if (agent?.manager === manager)
        this.after(20, () =>
          this.#step(manager, { kind: 'heard', nodeId: id, number: agent.number }),
        );
    }
    const deadlineMs = manager.core.nextDeadlineMs();
    const { core } = manager;
    if (deadlineMs !== undefined && input.kind !== 'heard')
      this.after(Math.max(1, deadlineMs - this.nowMs), () => {
        if (manager.core === core) this.#step(manager, { kind: 'timeout' });
      });
  }

  /** Commands are lost without a leader, sometimes with one, and sometimes done though it looks so. */
  #propose(manager: Manager, command: CommandBody, failed: () => void = () => {}): void {
    const reaches = () =>
      this.#leader !== undefined && (manager === this.#leader || (manager.up && !manager.cut));
    this.after(1 + this.prng.nextBelow(50), () => {
      const lost = !reaches() || this.prng.chance(0.05);
      if (!lost) this.#commit(command);
      if (lost || this.prng.chance(0.05)) failed();
    });
  }

  #commit(command: CommandBody): void {
    const { changes } = decide(this.#committed, { ...command, atMs: this.nowMs });
    this.#committed.commit(changes);
    this.#log.push(command);
    for (const change of changes) {
      if (change.table !== 'node' || change.after?.state !== 'down') continue;
      if (change.before?.state === 'down') continue;
      const { id, stateMessage } = change.after;
      const agent = this.agents.find((one) => one.id === id);
      this.trace.push(`${this.nowMs} ${id} is called down: ${stateMessage}`);
      if (agent?.alive) listAt(this.falseDowns, id).push(`${this.nowMs} ${stateMessage}`);
      else listAt(this.trueDowns, id).push(this.nowMs);
    }
    for (const manager of this.managers) this.#applyLater(manager);
  }

  #applyLater(manager: Manager): void {
    this.after(this.prng.nextBelow(manager === this.#leader ? 5 : 300), () => {
      if (!manager.up || manager.cut) return;
      for (; manager.appliedCount < this.#log.length; manager.appliedCount++) {
        const command = this.#log[manager.appliedCount] as CommandBody;
        manager.state.commit(decide(manager.state, { ...command, atMs: 0 }).changes);
      }
      this.#step(manager, { kind: 'nodes', nodes: manager.state.rows('node') });
    });
  }

  #quorumChanged(): void {
    const usable = this.managers.filter(({ up, cut }) => up && !cut);
    const hasQuorum = usable.length > this.managers.length / 2;
    if (this.#leader && (!usable.includes(this.#leader) || !hasQuorum)) this.#elect(undefined);
    this.after(500 + this.prng.nextBelow(1_500), () => this.#settle());
  }

  /** A while after something changed: there is a leader again, and it knows whom it hears of. */
  #settle(): void {
    const usable = this.managers.filter(({ up, cut }) => up && !cut);
    if (usable.length <= this.managers.length / 2) return;
    if (this.#leader === undefined)
      this.#elect(usable[this.prng.nextBelow(usable.length)] as Manager);
    else this.#tellManagers();
  }

  changeLeader(): void {
    const usable = this.managers.filter(({ up, cut }) => up && !cut);
    if (this.#leader !== undefined) this.#elect(usable[this.prng.nextBelow(usable.length)]);
  }

  #elect(leader: Manager | undefined): void {
    this.trace.push(`${this.nowMs} ${leader?.id ?? 'nobody'} leads`);
    this.#leader = leader;
    this.#tellManagers();
  }

  #tellManagers(): void {
    const reachable = new Set(
      this.managers.filter(({ up, cut }) => up && !cut).map(({ id }) => id),
    );
    for (const manager of this.managers) {
      // One that is cut off believes for a while that it still leads: harmless, it commits nothing.
      this.#step(manager, { kind: 'managers', leading: manager === this.#leader, reachable });
    }
  }
}

function listAt<Key, Value>(map: Map<Key, Value[]>, key: Key): Value[] {
  const list = map.get(key) ?? [];
  map.set(key, list);
  return list;
}

/** Minority of the managers: as many as may be gone at once. */
const minority = (world: World) => Math.floor((world.managers.length - 1) / 2);
const gone = (world: World) => world.managers.filter(({ up, cut }) => !up || cut);
const pick = <T>(world: World, from: readonly T[]): T | undefined =>
  from[world.prng.nextBelow(Math.max(1, from.length))];

const NEMESIS: readonly ((world: World) => void)[] = [
  (world) => {
    const victim = pick(
      world,
      world.managers.filter(({ up, cut }) => up && !cut),
    );
    if (victim && gone(world).length < minority(world)) world.kill(victim);
  },
  (world) => {
    if (world.leader && gone(world).length < minority(world)) world.kill(world.leader);
  },
  (world) => {
    const victim = pick(
      world,
      world.managers.filter(({ up, cut }) => up && !cut),
    );
    if (victim && gone(world).length < minority(world)) world.cut(victim);
  },
  (world) => {
    for (const manager of gone(world))
      if (manager.up) world.heal(manager);
      else world.restart(manager);
  },
  (world) => world.changeLeader(),
  (world) => {
    const agent = pick(
      world,
      world.agents.filter(({ alive }) => alive),
    );
    if (agent) world.leave(agent);
  },
  (world) => {
    for (const agent of world.agents) if (world.prng.chance(0.3)) world.leave(agent);
  },
];

function check(world: World): string[] {
  const wrong: string[] = [];
  for (const [id, whens] of world.falseDowns)
    wrong.push(`${id} lives, and is called down: ${whens}`);
  for (const agent of world.agents) {
    const { id, alive, manager, number, diedAtMs = 0 } = agent;
    const row = world.row(id);
    const downs = world.trueDowns.get(id) ?? [];
    if (alive && row?.state !== 'ready') wrong.push(`${id} lives and is ${row?.state}`);
    if (alive && (row?.session?.number !== number || row.session.manager !== manager?.id))
      wrong.push(
        `${id} is with ${manager?.id} #${number}, and not ${JSON.stringify(row?.session)}`,
      );
    if (alive && manager?.sessions.get(id) !== number) wrong.push(`${id} has a session alone`);
    if (!alive && row?.state !== 'down') wrong.push(`${id} is dead and ${row?.state}`);
    if (!alive && downs.length !== 1) wrong.push(`${id} is called down ${downs.length} times`);
    // Its manager's three heartbeats, or an election and the leader's three, and some repetitions.
    const tookMs = (downs[0] ?? 0) - diedAtMs;
    if (!alive && tookMs > 6 * HEARTBEAT_MS + 12_000) wrong.push(`${id}: down after ${tookMs} ms`);
  }
  return wrong;
}

t.test('whatever managers do, who lives is never called down, and who dies once', async (t) => {
  let downs = 0;
  let moves = 0;
  for (let seed = 0; seed < 120 * FUZZ_FACTOR; seed++) {
    const world = new World(seed, seed % 2 ? 3 : 5, 12);
    world.runUntil(10_000);
    for (let act = 0; act < 12; act++) {
      // Each has its time: what happens within one grace period has to be survived together.
      const nemesis = NEMESIS[world.prng.nextBelow(NEMESIS.length)];
      nemesis?.(world);
      if (world.prng.chance(0.3)) {
        const agent = pick(
          world,
          world.agents.filter(({ alive }) => alive),
        );
        if (agent) world.killAgent(agent);
      }
      world.runUntil(world.nowMs + 14_000 + world.prng.nextBelow(20_000));
    }
    for (const manager of gone(world))
      if (manager.up) world.heal(manager);
      else world.restart(manager);
    world.runUntil(world.nowMs + 90_000);
    const wrong = check(world);
    downs += world.trueDowns.size;
    moves += world.agents.reduce((sum, { number }) => sum + number, 0);
    if (wrong.length > 0)
      t.fail(`seed ${seed}: ${wrong.join('; ')}`, { trace: world.trace.slice(-60) });
    if (world.commits > 2_000) t.fail(`seed ${seed}: ${world.commits} commits`);
    if (wrong.length > 0) break;
  }
  t.ok(downs > 150, `${downs} died`);
  t.ok(moves > 3_000, `${moves} sessions`);
});

t.test('a manager and its node die together: the leader says so', async (t) => {
  for (let seed = 0; seed < 20; seed++) {
    const world = new World(seed, 3, 6);
    world.runUntil(10_000);
    const agent = world.agents.find(({ manager }) => manager !== world.leader);
    if (agent?.manager === undefined) continue;
    const { manager } = agent;
    world.killAgent(agent);
    world.kill(manager);
    world.runUntil(60_000);
    t.strictSame(check(world), []);
    t.equal(world.trueDowns.get(agent.id)?.length, 1);
  }
});

t.test('without a quorum nobody is called anything, and afterwards all is as it is', async (t) => {
  for (let seed = 0; seed < 20; seed++) {
    const world = new World(seed, 3, 6);
    world.runUntil(10_000);
    const [first, second] = world.managers as [Manager, Manager];
    world.kill(first);
    world.kill(second);
    world.runUntil(12_000);
    const { commits } = world;
    const dead = world.agents[0] as Agent;
    world.killAgent(dead);
    world.runUntil(200_000);
    t.equal(world.commits, commits);
    world.restart(first);
    world.runUntil(300_000);
    t.strictSame(
      check({ ...world, agents: world.agents.slice(1), row: world.row.bind(world) } as World),
      [],
    );
    t.equal(world.row(dead.id)?.state, 'down');
    t.equal(world.trueDowns.get(dead.id)?.length, 1);
  }
});
