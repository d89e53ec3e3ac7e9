import { unreachable } from '../../../base/assert.js';
import type { Core } from '../../../base/core.js';
import type { Prng } from '../../../base/prng.js';
import {
  compareTaskStates,
  isTerminal,
  type ServiceObject,
  type TaskObject,
} from '../../../base/service-model.js';
import type { NodeId, NodeObject, ServiceId, TaskId } from '../../../base/swarm-model.js';
import { Draft, type DraftScope, Trial } from './draft.js';
import { misplaced } from './enforcer.js';
import { isFinished } from './facts.js';
import { isActive, NodeLoads } from './node-load.js';
import { reap } from './reaper.js';
import { startReady } from './restart.js';
import { Placer } from './scheduler.js';
import {
  reconcileGlobal,
  reconcileGlobalJob,
  reconcileReplicated,
  reconcileReplicatedJob,
} from './services.js';
import type { CommandGroup, View, ViewChange } from './view.js';

/** Changes within this time are looked at together. */
const SETTLE_MS = 20;
/** Tasks that one look makes, and again as many that it places; the next look follows at once. */
const TASKS_PER_PASS_MAX = 1_000;
/** After the store has refused something, its service is tried again so much later. */
const REFUSED_MS = 5_000;

export interface OrchestratorConfig {
  readonly newTaskId: () => TaskId;
  /** For the strategy that chooses at random. */
  readonly prng: Prng;
}

/** A group that the store did not take. */
export interface Refusal {
  readonly group: CommandGroup;
  /** One sentence, shown with the tasks that wait for it. */
  readonly reason: string;
}

export type OrchestratorInput =
  /** The view has changed; `changes` say how. */
  | { readonly kind: 'changes'; readonly changes: readonly ViewChange[] }
  /** Everything of the latest `Ready` is committed, and seen in the view, or was refused. */
  | { readonly kind: 'settled'; readonly refused: readonly Refusal[] }
  | { readonly kind: 'timeout' };

/** To be committed, in this order; nothing more comes until it is `settled`. */
export interface OrchestratorReady {
  readonly groups: readonly CommandGroup[];
}

export interface OrchestratorStats {
  readonly passes: number;
  readonly commands: number;
  readonly refused: number;
  /** Tasks that wait for a node. */
  readonly waiting: number;
}

/**
 * Makes and ends tasks so that services become as they are wanted, and finds places for them. Runs on
 * the leader; it looks at the rows and knows nothing else, so that another leader may go on at any
 * time. What it keeps in memory only spares it from looking at everything.
 */
export class Orchestrator implements Core<OrchestratorInput, OrchestratorReady> {
  readonly #config: OrchestratorConfig;
  readonly #view: View;
  readonly #loads = new NodeLoads();
  readonly #dirty = new Set<ServiceId>();
  readonly #dirtyNodes = new Set<NodeId>();
  /** Tasks without a place. */
  readonly #waiting = new Set<TaskId>();
  readonly #wakes = new Map<ServiceId, number>();
  readonly #seen = new Map<TaskId, number>();
  /** Services whose tasks the store did not take, with its reason. */
  readonly #refused = new Map<ServiceId, { readonly untilMs: number; readonly reason: string }>();
  readonly #stats = { passes: 0, commands: 0, refused: 0 };
  #canPlace = true;
  #settleAtMs: number | undefined;
  #isBusy = false;
  #groups: CommandGroup[] = [];

  /** @param view Of the committed state; it is read again at every step. */
  constructor(config: OrchestratorConfig, view: View, nowMs: number) {
    this.#config = config;
    this.#view = view;
    for (const node of view.nodes()) this.#loads.setNode(node.id, node);
    for (const task of view.tasks()) {
      this.#loads.change(undefined, task, nowMs);
      this.#noteTask(task, nowMs);
      this.#dirty.add(task.serviceId);
    }
    for (const { id } of view.services()) this.#dirty.add(id);
    for (const { id } of view.nodes()) this.#dirtyNodes.add(id);
    this.#settleAtMs = nowMs;
  }

  stats(): OrchestratorStats {
    return { ...this.#stats, waiting: this.#waiting.size };
  }

  step(input: OrchestratorInput, nowMs: number): void {
    switch (input.kind) {
      case 'changes':
        for (const change of input.changes) this.#onChange(change, nowMs);
        return;
      case 'settled':
        this.#isBusy = false;
        for (const refusal of input.refused) this.#onRefusal(refusal, nowMs);
        return;
      case 'timeout':
        this.#look(nowMs);
        return;
      default:
        unreachable(input);
    }
  }

  takeReady(): OrchestratorReady {
    const groups = this.#groups;
    this.#groups = [];
    return { groups };
  }

  nextDeadlineMs(): number | undefined {
    if (this.#isBusy) return undefined;
    let next = this.#settleAtMs;
    for (const atMs of this.#wakes.values()) if (next === undefined || atMs < next) next = atMs;
    return next;
  }

  #onChange(change: ViewChange, nowMs: number): void {
    switch (change.table) {
      case 'cluster':
        for (const { id } of this.#view.services()) this.#soil(id, nowMs);
        return;
      case 'node':
        this.#onNode(change.before, change.after, nowMs);
        return;
      case 'service': {
        const id = (change.after ?? change.before)?.id;
        if (id !== undefined) this.#soil(id, nowMs);
        if (change.before?.spec !== change.after?.spec) this.#canPlace = true;
        return;
      }
      case 'task':
        this.#onTask(change.before, change.after, nowMs);
        return;
      default:
        unreachable(change);
    }
  }

  #onNode(before: NodeObject | undefined, after: NodeObject | undefined, nowMs: number): void {
    const id = (after ?? before)?.id;
    if (id === undefined) return;
    this.#loads.setNode(id, after);
    if (before !== undefined && after !== undefined && isSameNode(before, after)) return;
    this.#dirtyNodes.add(id);
    this.#canPlace = true;
    for (const task of this.#view.tasksOnNode(id)) this.#soil(task.serviceId, nowMs);
    for (const { id: service, spec } of this.#view.services())
      if (spec.mode.kind === 'global' || spec.mode.kind === 'global-job')
        this.#soil(service, nowMs);
    this.#soon(nowMs);
  }

  #onTask(before: TaskObject | undefined, after: TaskObject | undefined, nowMs: number): void {
    this.#loads.change(before, after, nowMs);
    const task = after ?? before;
    if (task === undefined) return;
    if (after !== undefined) this.#noteTask(after, nowMs);
    else {
      this.#waiting.delete(task.id);
      this.#seen.delete(task.id);
    }
    const hasFreed = before !== undefined && !isFinished(before);
    if (hasFreed && (after === undefined || isTerminal(after.status.state))) this.#canPlace = true;
    if (this.#matters(before, after)) this.#soil(task.serviceId, nowMs);
    if (this.#waiting.has(task.id) && this.#canPlace) this.#soon(nowMs);
  }

  #noteTask(task: TaskObject, nowMs: number): void {
    if (task.desiredState !== 'ready') this.#seen.delete(task.id);
    else if (!this.#seen.has(task.id)) this.#seen.set(task.id, nowMs);
    if (!isWaiting(task)) this.#waiting.delete(task.id);
    else if (!this.#waiting.has(task.id)) {
      this.#waiting.add(task.id);
      this.#canPlace = true;
    }
  }

  /** Most of what is reported of a task on its way up concerns nobody here. */
  #matters(before: TaskObject | undefined, after: TaskObject | undefined): boolean {
    if (before === undefined || after === undefined) return true;
    if (before.desiredState !== after.desiredState || before.nodeId !== after.nodeId) return true;
    if (before.status.state === after.status.state) return false;
    if (isTerminal(after.status.state)) return true;
    if (after.status.state !== 'running') return false;
    // An update goes on then, and one that is paused finishes what it has begun.
    const state = this.#view.service(after.serviceId)?.updateStatus?.state ?? 'completed';
    return state !== 'completed' && state !== 'rollback_completed';
  }

  #soil(id: ServiceId, nowMs: number): void {
    this.#dirty.add(id);
    this.#soon(nowMs);
  }

  #soon(nowMs: number): void {
    this.#settleAtMs ??= nowMs + SETTLE_MS;
  }

  #onRefusal({ group, reason }: Refusal, nowMs: number): void {
    this.#stats.refused++;
    for (const command of group) {
      const task = 'id' in command ? this.#view.task(command.id as TaskId) : undefined;
      if (task?.nodeId !== undefined) this.#dirtyNodes.add(task.nodeId);
    }
    for (const id of serviceIdsOf(group, this.#view)) {
      const untilMs = nowMs + REFUSED_MS;
      this.#refused.set(id, { untilMs, reason });
      this.#soil(id, nowMs);
    }
  }

  #look(nowMs: number): void {
    if (this.#isBusy) return;
    for (const [id, atMs] of this.#wakes)
      if (atMs <= nowMs) {
        this.#wakes.delete(id);
        this.#dirty.add(id);
      }
    const isDue = this.#settleAtMs !== undefined && this.#settleAtMs <= nowMs;
    if (!isDue && this.#dirty.size === 0) return;
    this.#settleAtMs = undefined;
    this.#stats.passes++;
    const pass = new Pass(this.#view, this.#loads, {
      view: this.#view,
      nowMs,
      newTaskId: this.#config.newTaskId,
      firstSeenMs: (task) => this.#seen.get(task.id) ?? nowMs,
      misplaced: this.#misplaced(),
      budget: { left: TASKS_PER_PASS_MAX },
    });
    const dirty = [...this.#dirty];
    this.#dirty.clear();
    for (const id of dirty) {
      this.#wakes.delete(id);
      if ((this.#refused.get(id)?.untilMs ?? 0) <= nowMs) this.#refused.delete(id);
      const draft = pass.draft(id);
      if (draft !== undefined) reconcile(draft);
    }
    this.#place(pass);
    this.#groups.push(...pass.groups());
    for (const { service, wakeAtMs } of pass.drafts())
      if (wakeAtMs !== undefined) this.#wakes.set(service.id, wakeAtMs);
    for (const [id, { untilMs }] of this.#refused)
      this.#wakes.set(id, Math.min(untilMs, this.#wakes.get(id) ?? untilMs));
    this.#loads.prune((id) => this.#view.node(id) !== undefined);
    for (const group of this.#groups) this.#stats.commands += group.length;
    this.#isBusy = this.#groups.length > 0;
  }

  #misplaced(): ReadonlySet<TaskId> {
    const found = new Set<TaskId>();
    for (const id of this.#dirtyNodes) {
      const node = this.#view.node(id);
      if (node === undefined) continue;
      for (const task of misplaced(this.#view, node)) found.add(task);
    }
    this.#dirtyNodes.clear();
    for (const id of found) {
      const task = this.#view.task(id);
      if (task !== undefined) this.#dirty.add(task.serviceId);
    }
    return found;
  }

  /** Finds places for all that wait, unless nothing has changed since that was tried. */
  #place(pass: Pass): void {
    if (this.#canPlace)
      for (const id of this.#waiting) {
        const task = this.#view.task(id);
        if (task !== undefined) pass.draft(task.serviceId);
      }
    this.#canPlace = false;
    pass.renewBudget();
    // Those that have no choice come before those that have one.
    const drafts = [...pass.drafts()];
    drafts.sort((a, b) => Number(hasChoice(a.service)) - Number(hasChoice(b.service)));
    for (const draft of drafts) {
      const refusal = this.#refused.get(draft.service.id);
      placeTasks(draft, pass.scheduler(this.#config.prng), refusal?.reason);
    }
    pass.undo();
  }
}

/** One look at what has changed. */
class Pass {
  readonly #view: View;
  readonly #loads: NodeLoads;
  readonly #scope: DraftScope;
  readonly #trial: Trial;
  readonly #drafts = new Map<ServiceId, Draft>();

  constructor(view: View, loads: NodeLoads, scope: DraftScope) {
    this.#view = view;
    this.#loads = loads;
    this.#scope = scope;
    this.#trial = new Trial(loads);
  }

  draft(id: ServiceId): Draft | undefined {
    const known = this.#drafts.get(id);
    if (known !== undefined) return known;
    const service = this.#view.service(id);
    if (service === undefined) return undefined;
    const draft = new Draft(service, this.#scope, this.#trial);
    this.#drafts.set(id, draft);
    return draft;
  }

  drafts(): Iterable<Draft> {
    return this.#drafts.values();
  }

  groups(): CommandGroup[] {
    return [...this.#drafts.values()].flatMap(({ groups }) => groups);
  }

  scheduler(prng: Prng): ConstructorParameters<typeof Placer>[1] {
    return { loads: this.#loads, view: this.#view, prng, nowMs: this.#scope.nowMs };
  }

  renewBudget(): void {
    this.#scope.budget.left = TASKS_PER_PASS_MAX;
  }

  undo(): void {
    this.#trial.undo();
  }
}

function reconcile(draft: Draft): void {
  const { service, nowMs } = draft;
  for (const task of [...draft.tasks.values()]) {
    // It runs until its node has ended it, so its state is what it was; but why it ends is said.
    if (draft.isMisplaced(task))
      draft.setStatus(task, {
        ...task.status,
        message: 'task rejected by constraint enforcer',
        error: 'assigned node no longer meets constraints',
      });
    const isOrphan = task.nodeId !== undefined && draft.nodeOf(task) === undefined;
    if (isOrphan && !isTerminal(task.status.state))
      draft.setStatus(task, {
        ...task.status,
        state: 'orphaned',
        atMs: nowMs,
        message: 'Task belonged to a node that has been deleted',
      });
  }
  if (service.pendingDelete === true) removeService(draft);
  else {
    reap(draft, reconcileMode(draft, service));
    startReady(draft);
  }
}

function reconcileMode(draft: Draft, { spec: { mode } }: ServiceObject): ReadonlySet<TaskId> {
  switch (mode.kind) {
    case 'replicated':
      return reconcileReplicated(draft, mode.replicas);
    case 'global':
      return reconcileGlobal(draft);
    case 'replicated-job':
      reconcileReplicatedJob(draft, mode);
      return new Set();
    case 'global-job':
      reconcileGlobalJob(draft);
      return new Set();
    default:
      return unreachable(mode);
  }
}

/** Its tasks end and are forgotten, and then it is. */
function removeService(draft: Draft): void {
  for (const task of [...draft.tasks.values()]) draft.desire(task, 'remove');
  reap(draft, new Set());
  if (draft.tasks.size === 0) draft.push({ kind: 'service_purge', id: draft.service.id });
}

/** @param refusal Why the store would not take a place for them; absent: it was not asked, or did. */
function placeTasks(
  draft: Draft,
  scope: ConstructorParameters<typeof Placer>[1],
  refusal: string | undefined,
): void {
  const placers = new Map<number, Placer>();
  for (const task of [...draft.tasks.values()]) {
    if (!isWaiting(task)) continue;
    let placer = placers.get(task.specVersion);
    if (placer === undefined) {
      placer = new Placer(task, scope);
      placers.set(task.specVersion, placer);
    }
    const { nodeId } = task;
    const place =
      refusal !== undefined
        ? undefined
        : nodeId === undefined
          ? placer.next()
          : placer.onNode(nodeId);
    const error = place ? undefined : (refusal ?? explanationOf(placer, nodeId));
    if (error !== undefined && error === task.status.error) continue;
    if (!draft.mayGoOn()) break;
    // The store had no address for it on that node: nobody tells when there is one.
    if (place !== undefined && task.status.error !== undefined)
      draft.wakeAt(draft.nowMs + REFUSED_MS);
    if (place !== undefined) draft.place(task, place);
    else if (error !== undefined)
      draft.setStatus(task, { ...task.status, state: 'pending', atMs: draft.nowMs, error });
  }
}

function explanationOf(placer: Placer, nodeId: NodeId | undefined): string {
  const why = placer.explain(nodeId);
  // Of one node that was named beforehand there is nothing else to say.
  if (nodeId !== undefined) return why;
  return why === '' ? 'no suitable node' : `no suitable node (${why})`;
}

function isWaiting(task: TaskObject): boolean {
  return isActive(task) && compareTaskStates(task.status.state, 'assigned') < 0;
}

function hasChoice({ spec: { mode } }: ServiceObject): boolean {
  return mode.kind !== 'global' && mode.kind !== 'global-job';
}

/** What is asked of nodes here is the same of both. */
function isSameNode(a: NodeObject, b: NodeObject): boolean {
  return (
    a.state === b.state &&
    a.spec === b.spec &&
    a.address === b.address &&
    a.observedRole === b.observedRole &&
    (a.description === b.description ||
      JSON.stringify(a.description) === JSON.stringify(b.description))
  );
}

function serviceIdsOf(group: CommandGroup, view: View): ReadonlySet<ServiceId> {
  const ids = new Set<ServiceId>();
  for (const command of group) {
    if (command.kind === 'task_create') ids.add(command.task.serviceId);
    else if (command.kind.startsWith('service')) ids.add(command.id as ServiceId);
    else {
      const task = view.task(command.id as TaskId);
      if (task !== undefined) ids.add(task.serviceId);
    }
  }
  return ids;
}
