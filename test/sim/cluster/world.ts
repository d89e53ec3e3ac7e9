import { Prng } from '../../../src/base/prng.js';
import type { TaskObject } from '../../../src/base/service-model.js';
import type { NodeId, NodeObject, TaskId } from '../../../src/base/swarm-model.js';
import { commandOf } from '../../../src/control/io/orchestrate-store.js';
import type { Orchestrator, Refusal } from '../../../src/control/orchestrate/core/orchestrator.js';
import type { CommandGroup, ViewChange } from '../../../src/control/orchestrate/core/view.js';
import type { CommandBody } from '../../../src/control/store/core/command.js';
import { Scheduler } from '../raft/scheduler.js';
import { Checker } from './checker.js';
import { type NodeTempo, SimNode } from './node.js';
import { ClusterStore } from './store.js';

export type OrchestratorClass = typeof Orchestrator;

export interface Weather {
  readonly tempo: Omit<NodeTempo, 'clockSkewMs'>;
  /** Of a message between a manager and an agent. */
  readonly delayMs: readonly [number, number];
  readonly lossChance: number;
  readonly repeatChance: number;
  /** Until a change is committed. */
  readonly commitMs: readonly [number, number];
  /** Until the managers notice that a node is gone, or is there again. */
  readonly noticeMs: readonly [number, number];
  /** Between one leader and the next. */
  readonly interregnumMs: readonly [number, number];
  /** How much clocks are off, at most. */
  readonly skewMs: number;
}

export interface WorldOptions {
  readonly orchestrator: OrchestratorClass;
  readonly weather: Weather;
  readonly trace?: ((line: string) => void) | undefined;
}

/** Commands of one transaction. */
const TRANSACTION_COMMANDS = 16;
const REPORT_MS = 100;
const REPEAT_MS = 1_000;
/** A run begins at some time that is not zero. */
const EPOCH_MS = 1_000_000;

interface Leader {
  readonly core: Orchestrator;
  readonly offsetMs: number;
  wakeAtMs: number;
}

/** Managers that agree, as one store and at most one leader; nodes; and the messages between them. */
export class ClusterWorld {
  readonly time = new Scheduler();
  readonly store = new ClusterStore();
  readonly nodes = new Map<NodeId, SimNode>();
  readonly prng: Prng;
  readonly checker: Checker;
  commits = 0;
  /** Of what the user asked. */
  refusals = 0;
  leaders = 0;
  #leader: Leader | undefined;
  #reign = 0;
  #ids = 0;
  /** What the last leader had proposed and nobody knows of yet. */
  #inFlight: { groups: CommandGroup[]; atMs: number } | undefined;
  #latestMs = 0;
  readonly #options: WorldOptions;

  constructor(seed: number, options: WorldOptions) {
    this.prng = new Prng(seed);
    this.#options = options;
    this.checker = new Checker(this);
  }

  get hasLeader(): boolean {
    return this.#leader !== undefined;
  }

  trace(line: string): void {
    this.#options.trace?.(`${this.time.nowMs.toFixed(0).padStart(7)} ${line}`);
  }

  within([low, high]: readonly [number, number]): number {
    return low + this.prng.nextFloat() * (high - low);
  }

  addNode(node: NodeObject): SimNode {
    const { tempo, skewMs } = this.#options.weather;
    const clockSkewMs = this.within([-skewMs, skewMs]);
    const made = new SimNode(
      node.id,
      this.time,
      this.prng,
      { ...tempo, clockSkewMs },
      {
        onRunning: (at, task, isRunning) => this.checker.onRunning(at, task, isRunning),
        onReport: (at) => this.#report(at),
      },
    );
    this.nodes.set(node.id, made);
    this.commit(() => [{ kind: 'node_create', node }]);
    this.#resend(made);
    return made;
  }

  /** From somebody who asks until he is answered, and asks for what fits the store as it is then. */
  commit(make: () => readonly CommandBody[]): void {
    this.time.after(this.within(this.#options.weather.commitMs), () => {
      if (this.#leader === undefined) {
        this.time.after(200, () => this.commit(make));
        return;
      }
      const commands = make();
      const refusal = this.#apply(commands, this.time.nowMs + EPOCH_MS + this.#leader.offsetMs);
      if (refusal === undefined) return;
      this.refusals++;
      this.trace(`refused: ${refusal}`);
    });
  }

  /** The present leader, if there is one, is no more; another looks at the store and goes on. */
  changeLeader(forMs = this.within(this.#options.weather.interregnumMs)): void {
    this.trace('the leader is gone');
    this.#leader = undefined;
    const reign = ++this.#reign;
    const lost = this.#inFlight;
    this.#inFlight = undefined;
    // Of what the old one has proposed some is in the log of the next one, up to some point.
    for (const group of lost?.groups ?? []) {
      if (this.prng.chance(0.3)) break;
      this.#apply(group.map(commandOf), lost?.atMs ?? 0);
    }
    this.time.after(forMs, () => {
      if (reign === this.#reign) this.#elect();
    });
  }

  #elect(): void {
    const { orchestrator, weather } = this.#options;
    const skewMs = this.within([-weather.skewMs, weather.skewMs]);
    // A leader's clock never goes behind what was written by the one before.
    const nowMs = this.time.nowMs + EPOCH_MS + skewMs;
    const offsetMs = skewMs + Math.max(0, this.#latestMs - nowMs);
    const core = new orchestrator(
      { newTaskId: () => this.#newTaskId(), prng: new Prng(this.prng.nextUint32()) },
      this.store,
      this.time.nowMs + EPOCH_MS + offsetMs,
    );
    this.leaders++;
    this.trace('a leader begins');
    this.#leader = { core, offsetMs, wakeAtMs: Number.POSITIVE_INFINITY };
    this.#pump(this.#leader);
  }

  #newTaskId(): TaskId {
    return `t${this.#ids++}x`.padEnd(25, '0') as TaskId;
  }

  /** Runs the leader's core when it wants to be. */
  #pump(leader: Leader): void {
    if (leader !== this.#leader) return;
    const deadline = leader.core.nextDeadlineMs();
    if (deadline === undefined) return;
    const atMs = deadline - leader.offsetMs - EPOCH_MS;
    if (atMs >= leader.wakeAtMs) return;
    leader.wakeAtMs = atMs;
    this.time.at(atMs, () => {
      if (leader !== this.#leader || leader.wakeAtMs !== atMs) return;
      leader.wakeAtMs = Number.POSITIVE_INFINITY;
      const nowMs = this.time.nowMs + EPOCH_MS + leader.offsetMs;
      leader.core.step({ kind: 'timeout' }, nowMs);
      const { groups } = leader.core.takeReady();
      if (groups.length > 0) this.#propose(leader, groups, nowMs);
      else this.#pump(leader);
    });
  }

  #propose(leader: Leader, groups: readonly CommandGroup[], atMs: number): void {
    const batches = packed(groups);
    this.#inFlight = { groups: [...groups], atMs };
    const refused: Refusal[] = [];
    const next = () => {
      if (leader !== this.#leader) return;
      const batch = batches.shift();
      if (batch === undefined) {
        this.#inFlight = undefined;
        leader.core.step(
          { kind: 'settled', refused },
          this.time.nowMs + EPOCH_MS + leader.offsetMs,
        );
        this.#pump(leader);
        return;
      }
      this.#inFlight?.groups.splice(0, batch.length);
      if (this.#apply(batch.flat().map(commandOf), atMs) !== undefined)
        for (const group of batch) {
          const reason = this.#apply(group.map(commandOf), atMs);
          if (reason !== undefined) refused.push({ group, reason });
        }
      this.time.after(this.within(this.#options.weather.commitMs), next);
    };
    this.time.after(this.within(this.#options.weather.commitMs), next);
  }

  #apply(commands: readonly CommandBody[], atMs: number): string | undefined {
    const changes = this.store.apply(commands, atMs);
    if (typeof changes === 'string') return changes;
    if (changes.length === 0) return undefined;
    this.commits++;
    this.#latestMs = Math.max(this.#latestMs, atMs);
    if (this.#options.trace) for (const change of changes) this.trace(shown(change));
    this.checker.onChanges(changes, commands);
    const touched = new Set<NodeId>();
    for (const change of changes) {
      if (change.table !== 'task') continue;
      for (const row of [change.before, change.after])
        if (row?.nodeId !== undefined) touched.add(row.nodeId);
    }
    for (const id of touched) this.#assign(id);
    const leader = this.#leader;
    if (leader !== undefined) {
      leader.core.step({ kind: 'changes', changes }, this.time.nowMs + EPOCH_MS + leader.offsetMs);
      this.#pump(leader);
    }
    return undefined;
  }

  /** Every node is told anew of all its tasks now and then, in case it has missed something. */
  #resend(node: SimNode): void {
    this.time.after(this.within([REPEAT_MS, 2 * REPEAT_MS]), () => {
      if (this.nodes.get(node.id) !== node) return;
      this.#assign(node.id);
      if (node.unreported.size > 0) this.#report(node, 0);
      this.#resend(node);
    });
  }

  #assign(id: NodeId): void {
    const node = this.nodes.get(id);
    if (node === undefined || !node.isReachable) return;
    const isMember = this.store.node(id) !== undefined;
    const tasks = isMember ? [...this.store.tasksOnNode(id)] : [];
    const { version } = this.store;
    this.#message(node, () => node.onAssignments(version, tasks));
  }

  readonly #reporting = new Set<SimNode>();

  #report(node: SimNode, inMs = this.prng.nextFloat() * REPORT_MS): void {
    if (this.#reporting.has(node)) return;
    this.#reporting.add(node);
    this.time.after(inMs, () => {
      this.#reporting.delete(node);
      const reports = [...node.unreported];
      if (reports.length === 0 || !node.isReachable) return;
      this.#message(node, () => {
        this.time.after(this.within(this.#options.weather.commitMs), () => {
          if (this.#leader === undefined || this.store.node(node.id) === undefined) return;
          const told = reports.map(([taskId, status]) => ({ taskId, status }));
          this.#apply(
            [{ kind: 'task_status', nodeId: node.id, reports: told }],
            this.time.nowMs + EPOCH_MS,
          );
          this.#message(node, () => {
            for (const [id, status] of reports)
              if (node.unreported.get(id) === status) node.unreported.delete(id);
          });
        });
      });
    });
  }

  #message(node: SimNode, deliver: () => void): void {
    const { delayMs, lossChance, repeatChance } = this.#options.weather;
    const copies = this.prng.chance(lossChance) ? 0 : this.prng.chance(repeatChance) ? 2 : 1;
    for (let i = 0; i < copies; i++)
      this.time.after(this.within(delayMs), () => {
        if (node.isReachable) deliver();
      });
  }

  /** The managers find out whether a node is there. */
  notice(id: NodeId): void {
    this.time.after(this.within(this.#options.weather.noticeMs), () => {
      if (!this.hasLeader) {
        this.notice(id);
        return;
      }
      const node = this.nodes.get(id);
      const row = this.store.node(id);
      if (node === undefined || row === undefined) return;
      const state = node.isReachable ? 'ready' : 'down';
      if (row.state !== state)
        this.commit(() =>
          this.store.node(id) === undefined
            ? []
            : [{ kind: 'node_observe', nodeId: id, observation: { state } }],
        );
      if (node.isReachable) this.#assign(id);
    });
  }

  tasksOf(serviceName: string): readonly TaskObject[] {
    const id = [...this.store.services()].find(({ spec }) => spec.name === serviceName)?.id;
    return id === undefined ? [] : [...this.store.tasksOfService(id)];
  }
}

function packed(groups: readonly CommandGroup[]): CommandGroup[][] {
  const batches: CommandGroup[][] = [];
  let count = Number.POSITIVE_INFINITY;
  for (const group of groups) {
    if (count + group.length > TRANSACTION_COMMANDS) {
      batches.push([]);
      count = 0;
    }
    batches.at(-1)?.push(group);
    count += group.length;
  }
  return batches;
}

function shown(change: ViewChange): string {
  if (change.table === 'cluster') return 'cluster';
  const row = change.after ?? change.before;
  if (row === undefined) return change.table;
  const verb = change.before === undefined ? '+' : change.after === undefined ? '-' : ' ';
  if (change.table === 'task') {
    const task = row as TaskObject;
    const { slot, specVersion, desiredState, status, nodeId = '?' } = task;
    return `${verb} ${task.serviceName}.${slot} v${specVersion} ${task.id.replace(/x0+$/, '')} at ${nodeId}: ${status.state}, wanted ${desiredState}${status.error ? ` (${status.error})` : ''}`;
  }
  if (change.table === 'service') {
    const { spec, specVersion, updateStatus, pendingDelete } = change.after ?? change.before ?? {};
    return `${verb} service ${spec?.name} v${specVersion} ${JSON.stringify(spec?.mode)} ${updateStatus?.state ?? ''} ${updateStatus?.message ?? ''}${pendingDelete ? ' pending delete' : ''}`;
  }
  const node = row as NodeObject;
  return `${verb} node ${node.id} ${node.state} ${node.spec.availability}`;
}
