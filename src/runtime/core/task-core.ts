import { unreachable } from '../../base/assert.js';
import type { Core } from '../../base/core.js';
import {
  compareTaskStates,
  type Health,
  isTerminal,
  type TaskObject,
  type TaskState,
} from '../../base/service-model.js';
import type { TaskId } from '../../base/swarm-model.js';
import { RESTARTS_REMEMBERED_MAX, restartAtMs } from './restart.js';
import type { KnownTask } from './runtime.js';
import {
  createEntry,
  hasNetworks,
  hostPorts,
  isBefore,
  isConnected,
  isEnded,
  isOverdue,
  isToRun,
  isUnwanted,
  portKey,
  statusOf,
  type TaskEntry,
  unnumberedPorts,
} from './task-entry.js';
import type {
  AssignedTask,
  Outcome,
  PublishedTask,
  RememberedTask,
  RuntimeKind,
  TaskAction,
  TaskInput,
  TaskReady,
} from './task-input.js';

/** Tasks that one node takes at most; those beyond are rejected. */
export const TASKS_MAX = 2000;
/** Ended tasks whose files and logs are kept; beyond, those of the longest ended go. */
export const ENDED_KEPT_MAX = 500;

type PendingKind = NonNullable<TaskEntry['pending']>['kind'];
/** An action without what every action has. */
type Wanted = TaskAction extends infer A
  ? A extends { readonly action: number; readonly kind: Exclude<PendingKind, 'exit'> }
    ? Omit<A, 'id' | 'runtime' | 'action'>
    : never
  : never;

export interface TaskCoreConfig {
  /** Preparations at a time. */
  readonly preparesMax: number;
  /** One that takes longer than this, as a large image does, is not counted any more. */
  readonly prepareSlotMs: number;
  /** How long no manager must be heard before tasks are restarted in place. */
  readonly silenceMs: number;
}

/** How long a preparation that was given up may take to end before its rest is cleaned away. */
const CANCEL_MS_MAX = 10_000;
const WIRE_MS_MAX = 30_000;
/** How long a start that nobody wants any more is waited for. */
const START_MS_MAX = 10_000;
const CHOOSE_MS_MAX = 10_000;
/** Longer than the shell's own bound: what hangs there must not hang its task. */
const ANNOUNCE_MS_MAX = 15_000;
/** Likewise, with the longest time that a service's connections may be given. */
const DRAIN_MS_MAX = 70_000;
/** What a stop may take on top of its time of grace. */
const STOP_EXTRA_MS_MAX = 10_000;
const REMOVE_MS_MAX = 60_000;
/** How long the exit code of a task that was stopped is waited for. */
const EXIT_MS_MAX = 1000;

const RETRY_MS = 1000;
const RETRY_MS_MAX = 30_000;

/** Docker's, where the service says nothing. */
const GRACE_MS = 10_000;

/**
 * All tasks of one node: what is to be done for each next, and what is told of it.
 *
 * For every task there is one action under way at most, so that it never runs twice and nothing of one
 * waits for another; they share only the slots for preparations. What comes next is decided anew from
 * what is so (`#advance`), whatever has happened in between.
 */
export class TaskCore implements Core<TaskInput, TaskReady> {
  readonly #config: TaskCoreConfig;
  readonly #remembered: ReadonlyMap<TaskId, RememberedTask>;
  readonly #entries = new Map<TaskId, TaskEntry>();
  readonly #found = new Set<RuntimeKind>();
  /** Those that wait for a slot, in order. */
  readonly #queue = new Set<TaskId>();
  /** Preparations under way, and until when each is counted. */
  readonly #slots = new Map<TaskId, number>();
  /** Whose files and logs are kept, longest ended first. */
  readonly #kept = new Set<TaskId>();
  #isConfirmed = false;
  /** Since when no manager is heard; `undefined`: one is. */
  #silentSinceMs: number | undefined = Number.NEGATIVE_INFINITY;
  #lastAction = 0;
  #actions: TaskAction[] = [];
  #reports: TaskReady['reports'][number][] = [];
  #forgotten: TaskId[] = [];

  /** @param remembered What the agent before this one knew, by id. */
  constructor(config: TaskCoreConfig, remembered: ReadonlyMap<TaskId, RememberedTask>) {
    this.#config = config;
    this.#remembered = remembered;
  }

  step(input: TaskInput, nowMs: number): void {
    // The silence before the first word counts from the first step on.
    if (this.#silentSinceMs === Number.NEGATIVE_INFINITY) this.#silentSinceMs = nowMs;
    switch (input.kind) {
      case 'assignments':
        this.#onAssignments(input.tasks, input.isConfirmed, nowMs);
        break;
      case 'found':
        this.#onFound(input.runtime, input.tasks, nowMs);
        break;
      case 'managers':
        this.#silentSinceMs = input.isHeard ? undefined : (this.#silentSinceMs ?? nowMs);
        break;
      case 'acknowledged':
        for (const id of input.ids) this.#onAcknowledged(id);
        break;
      case 'done':
        this.#onDone(input.id, input.action, input.outcome, nowMs);
        break;
      case 'exited':
        this.#onExited(input.id, input.exitCode, input.error, nowMs);
        break;
      case 'health':
        this.#onHealth(input.id, input.health, nowMs);
        break;
      case 'timeout':
        for (const entry of this.#entries.values()) this.#onTime(entry, nowMs);
        break;
      default:
        unreachable(input);
    }
    this.#fillSlots(nowMs);
    this.#limitKept(nowMs);
  }

  takeReady(): TaskReady {
    const ready = { actions: this.#actions, reports: this.#reports, forgotten: this.#forgotten };
    this.#actions = [];
    this.#reports = [];
    this.#forgotten = [];
    return ready;
  }

  nextDeadlineMs(): number | undefined {
    let next = Number.POSITIVE_INFINITY;
    for (const entry of this.#entries.values()) {
      next = Math.min(next, entry.pending?.deadlineMs ?? Number.POSITIVE_INFINITY);
      next = Math.min(next, entry.retryAtMs ?? Number.POSITIVE_INFINITY);
      next = Math.min(next, this.#restartDueMs(entry) ?? Number.POSITIVE_INFINITY);
    }
    if (this.#queue.size > 0)
      for (const untilMs of this.#slots.values()) next = Math.min(next, untilMs);
    return next === Number.POSITIVE_INFINITY ? undefined : next;
  }

  /** Tasks that are assigned, or of which something is left. */
  get size(): number {
    return this.#entries.size;
  }

  /** Tasks that run and have ports of the node itself. */
  published(): PublishedTask[] {
    const published: PublishedTask[] = [];
    for (const entry of this.#entries.values()) {
      const { assigned, presence, state, netns } = entry;
      if (assigned === undefined || presence !== 'live' || state !== 'running') continue;
      const ports = hostPorts(entry);
      if (ports.length > 0) published.push({ task: assigned.task, netns, ports });
    }
    return published;
  }

  /** How many tasks there are of each state. */
  countByState(): ReadonlyMap<TaskState, number> {
    const counts = new Map<TaskState, number>();
    for (const { state } of this.#entries.values()) counts.set(state, (counts.get(state) ?? 0) + 1);
    return counts;
  }

  #onAssignments(tasks: readonly AssignedTask[], isConfirmed: boolean, nowMs: number): void {
    this.#isConfirmed ||= isConfirmed;
    const named = new Set<TaskId>();
    for (const assigned of tasks) {
      const { id, desiredState } = assigned.task;
      named.add(id);
      const entry = this.#entries.get(id) ?? this.#create(id, assigned.runtime);
      if (compareTaskStates(desiredState, entry.desired) > 0) entry.desired = desiredState;
      const isNew = entry.assigned === undefined;
      if (isNew) entry.assigned = this.#admitted(assigned);
      // What was refused once stays so, since it was told.
      else if (entry.assigned?.refusal === undefined) entry.assigned = assigned;
      this.#compare(entry, assigned.task, isNew, nowMs);
    }
    for (const entry of this.#entries.values()) {
      if (!named.has(entry.id) && isConfirmed) {
        entry.assigned = undefined;
        entry.isDoomed = true;
      }
      this.#advance(entry, nowMs);
    }
  }

  #admitted(assigned: AssignedTask): AssignedTask {
    if (this.#entries.size <= TASKS_MAX) return assigned;
    return { ...assigned, refusal: `this node holds ${TASKS_MAX} tasks, which is the most` };
  }

  #create(id: TaskId, runtime: RuntimeKind): TaskEntry {
    const entry = createEntry(id, runtime);
    this.#entries.set(id, entry);
    const remembered = this.#remembered.get(id);
    if (remembered !== undefined) recall(entry, remembered);
    return entry;
  }

  /** What a manager knows of a task, and what is known here, become one. */
  #compare(entry: TaskEntry, task: TaskObject, isNew: boolean, nowMs: number): void {
    const { status } = task;
    if (isTerminal(status.state)) {
      // What has ended for the managers has ended, whatever goes on here.
      if (!isEnded(entry)) {
        recall(entry, status);
        this.#unwire(entry);
      }
      entry.isAcknowledged = true;
    } else if (entry.state === 'new') {
      if (compareTaskStates(status.state, 'accepted') < 0) this.#say(entry, 'accepted', 'accepted');
      else recall(entry, status);
    } else if (isNew) {
      // Found running where it is not remembered: it has the ports that were told of it.
      if (entry.knownPorts.length === 0) entry.knownPorts = status.ports ?? [];
      this.#report(entry);
    }
    if (entry.presence === 'unknown' && this.#found.has(entry.runtime))
      this.#isNotThere(entry, nowMs);
  }

  #onFound(runtime: RuntimeKind, tasks: readonly KnownTask[], nowMs: number): void {
    this.#found.add(runtime);
    const known = new Set<TaskId>();
    for (const task of tasks) {
      known.add(task.id);
      let entry = this.#entries.get(task.id);
      if (entry === undefined) {
        entry = this.#create(task.id, runtime);
        entry.isDoomed = this.#isConfirmed;
      }
      if (entry.runtime === runtime) this.#adopt(entry, task, nowMs);
    }
    for (const entry of this.#entries.values()) {
      if (entry.runtime !== runtime) continue;
      if (!known.has(entry.id)) this.#isNotThere(entry, nowMs);
      this.#advance(entry, nowMs);
    }
  }

  /** A task as the runtime has it; for one that is known already, only what was missed of it. */
  #adopt(entry: TaskEntry, task: KnownTask, nowMs: number): void {
    if (entry.presence !== 'unknown') {
      if (task.state === 'exited' && entry.presence === 'live')
        this.#ended(entry, task.exitCode, task.error, nowMs);
      else if (task.state === 'running' && entry.presence === 'live') entry.health = task.health;
      return;
    }
    const isSame = entry.containerId === task.containerId && entry.pid === task.pid;
    entry.containerId = task.containerId;
    entry.netns = task.netns;
    entry.health = task.health;
    switch (task.state) {
      case 'prepared':
        entry.presence = 'made';
        break;
      case 'running':
        entry.presence = 'live';
        entry.pid = task.pid;
        entry.isUnhealthy = task.health === 'unhealthy';
        entry.exitCode = undefined;
        if (isBefore(entry, 'starting')) {
          entry.state = 'starting';
          entry.message = 'starting';
        } else if (!isSame && !isEnded(entry)) this.#report(entry);
        break;
      case 'exited':
        this.#ended(entry, task.exitCode, task.error, nowMs);
        break;
      default:
        unreachable(task.state);
    }
  }

  /** The runtime does not have this task. */
  #isNotThere(entry: TaskEntry, nowMs: number): void {
    switch (entry.presence) {
      case 'unknown':
        entry.presence = 'none';
        if (isEnded(entry) || isBefore(entry, 'starting')) return;
        // It ran, as far as anybody knows: the host was started anew, say.
        this.#finish(entry, isUnwanted(entry) ? 'shutdown' : 'failed', nowMs, {
          error: 'the task is gone: its node was restarted or cleaned up',
        });
        return;
      case 'live':
        if (entry.pending?.kind === 'start') return;
        this.#ended(entry, undefined, 'its runtime does not know it any more', nowMs);
        entry.presence = 'none';
        return;
      default:
        if (entry.pending === undefined) entry.presence = 'none';
    }
  }

  #onAcknowledged(id: TaskId): void {
    const entry = this.#entries.get(id);
    if (entry !== undefined && isEnded(entry)) entry.isAcknowledged = true;
  }

  #onHealth(id: TaskId, health: Health, nowMs: number): void {
    const entry = this.#entries.get(id);
    if (entry === undefined || !(entry.presence === 'live' || entry.pending?.kind === 'start'))
      return;
    entry.health = health;
    if (health === 'unhealthy') entry.isUnhealthy = true;
    this.#advance(entry, nowMs);
  }

  #onExited(id: TaskId, exitCode: number, error: string | undefined, nowMs: number): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (entry.pending?.kind === 'start') {
      entry.earlyExit = { exitCode, error };
      return;
    }
    if (entry.presence !== 'live' && entry.presence !== 'made') return;
    this.#ended(entry, exitCode, error, nowMs);
    this.#advance(entry, nowMs);
  }

  #onDone(id: TaskId, action: number, outcome: Outcome, nowMs: number): void {
    const entry = this.#entries.get(id);
    if (entry === undefined) return;
    if (entry.pending?.action !== action) {
      this.#onLate(entry, action, outcome, nowMs);
      return;
    }
    const { kind, isCancelled } = entry.pending;
    entry.pending = undefined;
    this.#slots.delete(id);
    if (isCancelled) entry.presence = 'debris';
    else if (outcome.kind === 'failed') this.#onFailed(entry, kind, outcome, nowMs);
    else this.#onSuccess(entry, kind, outcome, nowMs);
    this.#advance(entry, nowMs);
  }

  /** An answer that nobody waits for any more: what it has left behind must go. */
  #onLate(entry: TaskEntry, action: number, outcome: Outcome, nowMs: number): void {
    if (entry.abandonedAction !== action) return;
    entry.abandonedAction = undefined;
    if (outcome.kind === 'prepared' && entry.presence === 'none') entry.presence = 'debris';
    if (outcome.kind === 'started') {
      entry.presence = 'live';
      entry.pid = outcome.pid;
      // A stop that went on meanwhile may have come too early.
      if (entry.pending?.kind !== 'remove') entry.pending = undefined;
    }
    this.#advance(entry, nowMs);
  }

  #onSuccess(entry: TaskEntry, kind: PendingKind, outcome: Outcome, nowMs: number): void {
    switch (outcome.kind) {
      case 'prepared':
        entry.presence = 'made';
        entry.containerId = outcome.containerId;
        entry.netns = outcome.netns;
        return;
      case 'started':
        this.#onStarted(entry, outcome, nowMs);
        return;
      case 'chosen':
        entry.retries = 0;
        entry.error = undefined;
        entry.knownPorts = [...entry.knownPorts, ...outcome.ports];
        if (entry.state === 'running') this.#report(entry);
        return;
      default:
        break;
    }
    entry.retries = 0;
    if (kind === 'wire') {
      entry.isWired = true;
      if (entry.presence === 'live' && entry.error !== undefined) {
        entry.error = undefined;
        this.#report(entry);
      }
    } else if (kind === 'announce') entry.isAnnounced = true;
    else if (kind === 'drain') entry.isDrained = true;
    else if (kind === 'remove') this.#removed(entry);
    else if (kind === 'stop' && entry.presence === 'live')
      this.#expect(entry, 'exit', nowMs + EXIT_MS_MAX);
  }

  #onStarted(
    entry: TaskEntry,
    outcome: Extract<Outcome, { readonly kind: 'started' }>,
    nowMs: number,
  ): void {
    entry.presence = 'live';
    entry.containerId = outcome.containerId;
    entry.pid = outcome.pid;
    // What an event said in the meantime is newer.
    if (entry.health === 'none') entry.health = outcome.health;
    const { earlyExit } = entry;
    entry.earlyExit = undefined;
    if (earlyExit !== undefined) this.#ended(entry, earlyExit.exitCode, earlyExit.error, nowMs);
    else this.#report(entry);
  }

  #onFailed(
    entry: TaskEntry,
    kind: PendingKind,
    { error, exitCode, isGone = false }: Omit<Extract<Outcome, { kind: 'failed' }>, 'kind'>,
    nowMs: number,
  ): void {
    switch (kind) {
      case 'prepare':
        entry.presence = 'debris';
        this.#fail(entry, error, nowMs);
        return;
      case 'wire':
        if (entry.presence !== 'live') this.#fail(entry, error, nowMs);
        else this.#retryLater(entry, `not connected to its networks: ${error}`, nowMs);
        return;
      case 'start':
        entry.earlyExit = undefined;
        entry.presence = isGone ? 'none' : 'ended';
        if (!isGone) this.#kept.add(entry.id);
        if (isGone && entry.restartsMs.length > 0) this.#say(entry, 'preparing', 'preparing');
        else this.#fail(entry, `starting container failed: ${error}`, nowMs, exitCode);
        return;
      case 'choose':
        this.#retryLater(entry, error, nowMs);
        return;
      case 'announce':
        entry.isAnnounced = true;
        return;
      case 'drain':
        entry.isDrained = true;
        return;
      case 'stop':
        if (isGone) this.#ended(entry, undefined, undefined, nowMs);
        else this.#retryLater(entry, `cannot be stopped: ${error}`, nowMs);
        return;
      case 'remove':
        if (isGone) this.#removed(entry);
        else this.#retryLater(entry, undefined, nowMs);
        return;
      case 'exit':
        return;
      default:
        unreachable(kind);
    }
  }

  #retryLater(entry: TaskEntry, error: string | undefined, nowMs: number): void {
    entry.retryAtMs = nowMs + Math.min(RETRY_MS * 2 ** entry.retries, RETRY_MS_MAX);
    entry.retries = Math.min(entry.retries + 1, 10);
    if (error === undefined || entry.error === error || isEnded(entry)) return;
    entry.error = error;
    this.#report(entry);
  }

  /** What is overdue has failed, and what was to be tried again may be. */
  #onTime(entry: TaskEntry, nowMs: number): void {
    if (entry.retryAtMs !== undefined && entry.retryAtMs <= nowMs) entry.retryAtMs = undefined;
    const { pending } = entry;
    if (isOverdue(pending, nowMs)) {
      entry.pending = undefined;
      this.#onOverdue(entry, pending.kind, pending.action, nowMs);
    }
    this.#advance(entry, nowMs);
  }

  #onOverdue(entry: TaskEntry, kind: PendingKind, action: number, nowMs: number): void {
    switch (kind) {
      case 'prepare':
        entry.presence = 'debris';
        entry.abandonedAction = action;
        return;
      case 'wire': {
        const error = `its networks were not there within ${WIRE_MS_MAX / 1000} s`;
        this.#onFailed(entry, kind, { error }, nowMs);
        return;
      }
      case 'start':
        // Nobody wants it, and whether it runs is not known: it is stopped as if it did.
        entry.presence = 'live';
        entry.abandonedAction = action;
        return;
      case 'choose':
        this.#retryLater(entry, undefined, nowMs);
        return;
      case 'announce':
        entry.isAnnounced = true;
        return;
      case 'drain':
        entry.isDrained = true;
        return;
      case 'stop':
        entry.isStubborn = true;
        return;
      case 'remove':
        this.#retryLater(entry, undefined, nowMs);
        return;
      case 'exit':
        this.#ended(entry, undefined, undefined, nowMs);
        return;
      default:
        unreachable(kind);
    }
  }

  /** It runs no more, or never did. */
  #ended(
    entry: TaskEntry,
    exitCode: number | undefined,
    error: string | undefined,
    nowMs: number,
  ): void {
    const hasRun = entry.presence === 'live' || !isBefore(entry, 'starting');
    entry.presence = 'ended';
    entry.pid = 0;
    entry.pending = undefined;
    entry.retryAtMs = undefined;
    entry.exitCode = exitCode;
    if (isEnded(entry)) this.#unwire(entry);
    else if (isUnwanted(entry)) this.#finish(entry, 'shutdown', nowMs, {});
    else if (exitCode === 0 && hasRun && !entry.isUnhealthy)
      this.#finish(entry, 'complete', nowMs, {});
    else this.#fail(entry, exitWords(exitCode, entry.isUnhealthy, error), nowMs, exitCode);
    this.#kept.add(entry.id);
  }

  /** As Docker does: what never started was rejected. */
  #fail(entry: TaskEntry, error: string, nowMs: number, exitCode?: number): void {
    if (exitCode !== undefined) entry.exitCode = exitCode;
    const state = isUnwanted(entry)
      ? 'shutdown'
      : isBefore(entry, 'starting')
        ? 'rejected'
        : 'failed';
    this.#finish(entry, state, nowMs, { error });
  }

  #finish(
    entry: TaskEntry,
    state: TaskState,
    nowMs: number,
    { error }: { readonly error?: string },
  ): void {
    if (isEnded(entry)) return;
    this.#unwire(entry);
    this.#queue.delete(entry.id);
    entry.state = state;
    entry.error = error;
    entry.pid = 0;
    entry.knownPorts = [];
    if (state === 'complete') entry.message = 'finished';
    if (state === 'shutdown') entry.message = 'shutdown';
    entry.isAcknowledged = false;
    const { assigned } = entry;
    const isOver = assigned === undefined || assigned.refusal !== undefined || isUnwanted(entry);
    entry.restartAtMs = isOver
      ? undefined
      : restartAtMs(assigned.task, state !== 'complete', entry.restartsMs, nowMs);
    this.#report(entry);
  }

  #removed(entry: TaskEntry): void {
    entry.presence = 'none';
    entry.retries = 0;
    this.#kept.delete(entry.id);
  }

  /** Decides what comes next for one task, and has it done. */
  #advance(entry: TaskEntry, nowMs: number): void {
    if (entry.assigned === undefined && !entry.isDoomed) return;
    if (entry.pending !== undefined) this.#reconsider(entry, entry.pending, nowMs);
    else if (entry.presence === 'live') this.#advanceLive(entry, nowMs);
    else if (entry.presence !== 'unknown') this.#advanceAtRest(entry, nowMs);
  }

  #advanceAtRest(entry: TaskEntry, nowMs: number): void {
    const refusal = entry.assigned?.refusal;
    if (isUnwanted(entry)) this.#finish(entry, 'shutdown', nowMs, {});
    else if (refusal !== undefined) this.#finish(entry, 'rejected', nowMs, { error: refusal });
    if (isEnded(entry)) this.#advanceEnded(entry, nowMs);
    else this.#advanceToStart(entry, nowMs);
  }

  /** Something is under way; it may not be wanted any more. */
  #reconsider(entry: TaskEntry, pending: NonNullable<TaskEntry['pending']>, nowMs: number): void {
    const isToGo = isUnwanted(entry) || isEnded(entry);
    const isIdle = pending.kind === 'announce' || pending.kind === 'choose';
    if (isIdle && (isToGo || entry.isUnhealthy)) {
      // Its answer would change nothing any more.
      entry.pending = undefined;
      this.#advance(entry, nowMs);
      return;
    }
    if (!isToGo) return;
    if (pending.kind === 'prepare' && !pending.isCancelled) {
      pending.isCancelled = true;
      pending.deadlineMs = nowMs + CANCEL_MS_MAX;
      this.#slots.delete(entry.id);
      const { id, runtime } = entry;
      this.#actions.push({ kind: 'cancel', id, runtime, action: pending.action });
      this.#finish(entry, 'shutdown', nowMs, {});
    } else if (pending.kind === 'start') pending.deadlineMs ??= nowMs + START_MS_MAX;
  }

  #advanceLive(entry: TaskEntry, nowMs: number): void {
    if (isUnwanted(entry) || entry.isUnhealthy || isEnded(entry)) {
      this.#bringDown(entry, nowMs);
      return;
    }
    if (!isConnected(entry)) {
      if (entry.retryAtMs === undefined) this.#wire(entry, nowMs);
      return;
    }
    const ports = unnumberedPorts(entry);
    if (ports.length > 0) {
      if (entry.retryAtMs === undefined)
        this.#act(
          entry,
          { kind: 'choose', ports, taken: this.#takenPorts() },
          nowMs + CHOOSE_MS_MAX,
        );
      return;
    }
    if (!isBefore(entry, 'running') || entry.health === 'starting') return;
    // It counts as running when it is of use everywhere: whatever waits for that may go on then.
    if (entry.isWired && !entry.isAnnounced)
      this.#act(entry, { kind: 'announce' }, nowMs + ANNOUNCE_MS_MAX);
    else this.#say(entry, 'running', 'started');
  }

  #takenPorts(): ReadonlySet<string> {
    return new Set([...this.#entries.values()].flatMap((entry) => hostPorts(entry).map(portKey)));
  }

  #bringDown(entry: TaskEntry, nowMs: number): void {
    if (entry.isWired && !entry.isDrained) {
      this.#act(entry, { kind: 'drain' }, nowMs + DRAIN_MS_MAX);
      return;
    }
    if (entry.retryAtMs !== undefined) return;
    const { stopSignal, stopGracePeriodMs = GRACE_MS } = entry.assigned?.task.spec.container ?? {};
    const graceMs = entry.isStubborn ? 0 : stopGracePeriodMs;
    const deadlineMs = nowMs + graceMs + STOP_EXTRA_MS_MAX;
    this.#act(entry, { kind: 'stop', signal: stopSignal, graceMs }, deadlineMs);
  }

  #advanceEnded(entry: TaskEntry, nowMs: number): void {
    const isForgotten = entry.isDoomed && entry.assigned === undefined;
    if (entry.presence === 'none') {
      if (isForgotten && entry.abandonedAction === undefined) this.#forget(entry);
      else this.#maybeRestart(entry, nowMs);
      return;
    }
    const isUseless =
      isForgotten ||
      entry.isSurplus ||
      entry.presence === 'debris' ||
      entry.presence === 'made' ||
      compareTaskStates(entry.desired, 'remove') >= 0;
    if (!isUseless) this.#maybeRestart(entry, nowMs);
    else if (entry.retryAtMs === undefined)
      this.#act(entry, { kind: 'remove' }, nowMs + REMOVE_MS_MAX);
  }

  #advanceToStart(entry: TaskEntry, nowMs: number): void {
    const { presence, assigned } = entry;
    if (presence === 'none' || presence === 'debris') {
      const lacks = assigned?.lacks;
      if (lacks === undefined) this.#queue.add(entry.id);
      else {
        this.#queue.delete(entry.id);
        if (entry.message !== lacks) this.#say(entry, entry.state, lacks);
      }
      return;
    }
    if (!isConnected(entry)) {
      this.#wire(entry, nowMs);
      return;
    }
    if (isBefore(entry, 'ready')) this.#say(entry, 'ready', 'prepared');
    if (!isToRun(entry)) return;
    if (isBefore(entry, 'starting')) this.#say(entry, 'starting', 'starting');
    entry.health = 'none';
    this.#act(entry, { kind: 'start' }, undefined);
  }

  /** Starts preparations, in the order in which tasks came, as long as there are slots. */
  #fillSlots(nowMs: number): void {
    for (const [id, untilMs] of this.#slots) if (untilMs <= nowMs) this.#slots.delete(id);
    for (const id of this.#queue) {
      if (this.#slots.size >= this.#config.preparesMax) return;
      this.#queue.delete(id);
      const entry = this.#entries.get(id);
      if (entry?.assigned === undefined || entry.pending !== undefined || isEnded(entry)) continue;
      this.#slots.set(id, nowMs + this.#config.prepareSlotMs);
      this.#say(entry, 'preparing', 'preparing');
      this.#act(entry, { kind: 'prepare', task: entry.assigned.task }, undefined);
    }
  }

  #limitKept(nowMs: number): void {
    for (const id of this.#kept) {
      if (this.#kept.size <= ENDED_KEPT_MAX) return;
      this.#kept.delete(id);
      const entry = this.#entries.get(id);
      if (entry === undefined) continue;
      entry.isSurplus = true;
      this.#advance(entry, nowMs);
    }
  }

  #restartDueMs(entry: TaskEntry): number | undefined {
    const { restartAtMs: atMs, presence, pending, retryAtMs } = entry;
    if (this.#silentSinceMs === undefined || atMs === undefined) return undefined;
    if (presence === 'unknown' || pending !== undefined || retryAtMs !== undefined)
      return undefined;
    if (entry.isAcknowledged || !isToRun(entry) || !isEnded(entry)) return undefined;
    return Math.max(atMs, this.#silentSinceMs + this.#config.silenceMs);
  }

  /** In its place, since there is nobody to give a new task; what was ended becomes what it was. */
  #maybeRestart(entry: TaskEntry, nowMs: number): void {
    const dueMs = this.#restartDueMs(entry);
    if (dueMs === undefined || dueMs > nowMs) return;
    entry.restartsMs.push(nowMs);
    if (entry.restartsMs.length > RESTARTS_REMEMBERED_MAX) entry.restartsMs.shift();
    entry.restartAtMs = undefined;
    entry.exitCode = undefined;
    entry.error = undefined;
    entry.isUnhealthy = false;
    entry.isAnnounced = false;
    entry.isDrained = false;
    entry.isStubborn = false;
    this.#kept.delete(entry.id);
    this.#say(entry, 'preparing', 'preparing');
    this.#advance(entry, nowMs);
  }

  #forget(entry: TaskEntry): void {
    this.#entries.delete(entry.id);
    this.#queue.delete(entry.id);
    this.#kept.delete(entry.id);
    this.#forgotten.push(entry.id);
  }

  #wire(entry: TaskEntry, nowMs: number): void {
    const { assigned, netns } = entry;
    if (assigned === undefined || netns === undefined) return;
    const endpoint = entry.state === 'running' ? 'ready' : 'starting';
    const { task } = assigned;
    this.#act(entry, { kind: 'wire', task, netns, endpoint }, nowMs + WIRE_MS_MAX);
  }

  #unwire(entry: TaskEntry): void {
    // Also of what was only under way: it may be there by now.
    if (entry.isWired || hasNetworks(entry)) this.#actions.push({ kind: 'unwire', id: entry.id });
    entry.isWired = false;
  }

  #act(entry: TaskEntry, what: Wanted, deadlineMs: number | undefined): void {
    const { id, runtime } = entry;
    const action = this.#expect(entry, what.kind, deadlineMs);
    this.#actions.push({ ...what, id, runtime, action });
  }

  #expect(entry: TaskEntry, kind: PendingKind, deadlineMs: number | undefined): number {
    this.#lastAction += 1;
    entry.pending = { kind, action: this.#lastAction, deadlineMs, isCancelled: false };
    return this.#lastAction;
  }

  #say(entry: TaskEntry, state: TaskState, message: string): void {
    entry.state = state;
    entry.message = message;
    this.#report(entry);
  }

  #report(entry: TaskEntry): void {
    if (entry.assigned === undefined) return;
    this.#reports.push({ id: entry.id, status: statusOf(entry) });
  }
}

/** Takes up what is known of a task from elsewhere. */
function recall(
  entry: TaskEntry,
  { state, message, error, container, ports = [] }: RememberedTask,
): void {
  entry.state = state;
  entry.message = message;
  entry.error = error;
  entry.knownPorts = isTerminal(state) ? [] : ports;
  if (container === undefined) return;
  entry.containerId = container.id;
  entry.pid = container.pid;
  entry.exitCode = container.exitCode;
}

/** Docker's words. */
function exitWords(
  exitCode: number | undefined,
  isUnhealthy: boolean,
  error: string | undefined,
): string {
  const cause = isUnhealthy ? 'unhealthy container' : error;
  if (exitCode === undefined) return cause ?? 'task: it has ended, and its exit code is not known';
  if (exitCode === 0) return cause ?? 'task: it ended before it was started';
  return `task: non-zero exit (${exitCode})${cause === undefined ? '' : `: ${cause}`}`;
}
