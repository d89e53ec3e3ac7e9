import {
  compareTaskStates,
  type Health,
  isTerminal,
  type PortConfig,
  type TaskState,
} from '../../base/service-model.js';
import type { TaskId } from '../../base/swarm-model.js';
import type { AssignedTask, RuntimeKind, TaskStatusDraft } from './task-input.js';

/**
 * What the runtime has of a task. `unknown`: it was not asked yet. `debris`: a preparation that was
 * not finished may have left something. `made`: prepared, not started.
 */
type Presence = 'unknown' | 'none' | 'debris' | 'made' | 'live' | 'ended';

/** What is under way; `exit`: it was stopped, and its exit code is still to come. */
interface Pending {
  readonly kind:
    | 'prepare'
    | 'wire'
    | 'start'
    | 'choose'
    | 'announce'
    | 'drain'
    | 'stop'
    | 'remove'
    | 'exit';
  readonly action: number;
  /** When it counts as failed; absent: it may take as long as it takes. */
  deadlineMs: number | undefined;
  isCancelled: boolean;
}

export type HostPorts = NonNullable<TaskStatusDraft['ports']>;

/** All that the worker knows of one task. */
export interface TaskEntry {
  readonly id: TaskId;
  readonly runtime: RuntimeKind;
  assigned: AssignedTask | undefined;
  desired: TaskState;
  /** A manager gives it to this node no more: it ends and goes, whatever is said later. */
  isDoomed: boolean;

  presence: Presence;
  containerId: string;
  pid: number;
  netns: string | undefined;
  health: Health;
  isWired: boolean;
  /** All nodes send it work, or have had their time to begin. */
  isAnnounced: boolean;
  isDrained: boolean;
  isUnhealthy: boolean;
  /** It did not end in its time of grace. */
  isStubborn: boolean;
  /** Those that were chosen for ports without a number are among them. */
  knownPorts: HostPorts;
  /** There are too many that have ended: it goes although it is still assigned. */
  isSurplus: boolean;

  state: TaskState;
  message: string;
  error: string | undefined;
  exitCode: number | undefined;
  /** An end that was told while the start was still under way. */
  earlyExit: { readonly exitCode: number; readonly error: string | undefined } | undefined;

  pending: Pending | undefined;
  /** A `prepare` or `start` that was given up and has not answered yet. */
  abandonedAction: number | undefined;
  /** When a failed `wire`, `stop` or `remove` is tried again. */
  retryAtMs: number | undefined;
  retries: number;

  /** A manager has its end: it is the manager's to replace. */
  isAcknowledged: boolean;
  /** When it may be started again in place, if no manager is heard. */
  restartAtMs: number | undefined;
  readonly restartsMs: number[];
}

export function createEntry(id: TaskId, runtime: RuntimeKind): TaskEntry {
  return {
    id,
    runtime,
    assigned: undefined,
    desired: 'new',
    isDoomed: false,
    presence: 'unknown',
    containerId: '',
    pid: 0,
    netns: undefined,
    health: 'none',
    isWired: false,
    isAnnounced: false,
    isDrained: false,
    isUnhealthy: false,
    isStubborn: false,
    knownPorts: [],
    isSurplus: false,
    state: 'new',
    message: '',
    error: undefined,
    exitCode: undefined,
    earlyExit: undefined,
    pending: undefined,
    abandonedAction: undefined,
    retryAtMs: undefined,
    retries: 0,
    isAcknowledged: false,
    restartAtMs: undefined,
    restartsMs: [],
  };
}

/** It shall not run any more. */
export function isUnwanted(entry: TaskEntry): boolean {
  return entry.isDoomed || compareTaskStates(entry.desired, 'shutdown') >= 0;
}

/** It shall run, and not only be ready to. */
export function isToRun(entry: TaskEntry): boolean {
  return !isUnwanted(entry) && compareTaskStates(entry.desired, 'running') >= 0;
}

export function isEnded(entry: TaskEntry): boolean {
  return isTerminal(entry.state);
}

export function isBefore(entry: TaskEntry, state: TaskState): boolean {
  return compareTaskStates(entry.state, state) < 0;
}

/** It has a namespace, and networks for it. */
export function hasNetworks(entry: TaskEntry): boolean {
  return entry.netns !== undefined && (entry.assigned?.task.networks.length ?? 0) > 0;
}

/** Its first instruction would find its interfaces. */
export function isConnected(entry: TaskEntry): boolean {
  return entry.isWired || !hasNetworks(entry);
}

/** What is told of it now. */
export function statusOf(entry: TaskEntry): TaskStatusDraft {
  const { state, message, error, containerId, pid, exitCode, health, restartsMs } = entry;
  const times = restartsMs.length === 1 ? 'once' : `${restartsMs.length} times`;
  const isAgain = restartsMs.length > 0 && state === 'running';
  const again = isAgain ? ` again, ${times}, while no manager was heard` : '';
  const ports = hostPorts(entry);
  return {
    state,
    message: `${message}${again}`,
    ...(error !== undefined && { error }),
    ...(containerId !== '' && {
      container: { id: containerId, pid, ...(exitCode !== undefined && { exitCode }) },
    }),
    ...(state === 'running' && ports.length > 0 && { ports }),
    ...(health !== 'none' && { health }),
  };
}

/** The ports of the node itself that lead to it; without those for which a number is still to be chosen. */
export function hostPorts(entry: TaskEntry): HostPorts {
  const left = chosenPorts(entry);
  return wishes(entry).flatMap((port) => {
    const { publishedPort = 0, protocol, targetPort } = port;
    if (publishedPort > 0) return [{ ...port, publishedPort }];
    const at = left.findIndex((c) => c.protocol === protocol && c.targetPort === targetPort);
    if (at >= 0)
      return left.splice(at, 1).map((c) => ({ ...port, publishedPort: c.publishedPort }));
    // With the host's own network it is the node's port already.
    return isOfHost(entry) ? [{ ...port, publishedPort: targetPort }] : [];
  });
}

/** Ports that lead to it once they have a number. */
export function unnumberedPorts(entry: TaskEntry): readonly PortConfig[] {
  if (isOfHost(entry)) return [];
  const left = chosenPorts(entry);
  return wishes(entry).filter(({ publishedPort = 0, protocol, targetPort }) => {
    if (publishedPort > 0 || protocol === 'sctp') return false;
    const at = left.findIndex((c) => c.protocol === protocol && c.targetPort === targetPort);
    if (at >= 0) left.splice(at, 1);
    return at < 0;
  });
}

/** `tcp/80`: one of each is open on a node. */
export function portKey(port: Pick<PortConfig, 'protocol' | 'publishedPort'>): string {
  return `${port.protocol}/${port.publishedPort ?? 0}`;
}

function wishes({ assigned }: TaskEntry): readonly PortConfig[] {
  return (assigned?.task.ports ?? []).filter(({ publishMode }) => publishMode === 'host');
}

function chosenPorts(entry: TaskEntry): HostPorts[number][] {
  const named = new Set(wishes(entry).map(portKey));
  return entry.knownPorts.filter((port) => !named.has(portKey(port)));
}

function isOfHost({ presence, netns }: TaskEntry): boolean {
  return (presence === 'made' || presence === 'live') && netns === undefined;
}

/** Deadlines of what is under way: what hangs must not hang its task for ever. */
export function isOverdue(pending: Pending | undefined, nowMs: number): pending is Pending {
  return pending?.deadlineMs !== undefined && pending.deadlineMs <= nowMs;
}
