import type {
  Health,
  PortConfig,
  TaskObject,
  TaskState,
  TaskStatus,
} from '../../base/service-model.js';
import type { TaskId } from '../../base/swarm-model.js';
import type { KnownTask, Runtime } from './runtime.js';

export type RuntimeKind = Runtime['kind'];

/** A task that a manager gave to this node, and what the shell found out about running it. */
export interface AssignedTask {
  readonly task: TaskObject;
  readonly runtime: RuntimeKind;
  /** Why it can never run here, in one sentence. */
  readonly refusal?: string;
  /** What it waits for before it can be prepared, such as a secret that only a manager can give. */
  readonly lacks?: string;
}

/** When a status was made is for the shell to add, which has the clock of the world. */
export type TaskStatusDraft = Omit<TaskStatus, 'atMs'>;

/** What an agent before this one knew of a task. */
export interface RememberedTask {
  readonly state: TaskState;
  readonly message: string;
  readonly error?: string;
  readonly container?: NonNullable<TaskStatus['container']>;
  readonly ports?: NonNullable<TaskStatus['ports']>;
}

export type TaskInput =
  | {
      readonly kind: 'assignments';
      /** All of this node's. */
      readonly tasks: readonly AssignedTask[];
      /**
       * A manager has said so since the agent started. What is not in a list that comes from the disk
       * is left alone: a lost file must not end tasks.
       */
      readonly isConfirmed: boolean;
    }
  /** All that one runtime has: first of all, and again whenever its events may have been missed. */
  | { readonly kind: 'found'; readonly runtime: RuntimeKind; readonly tasks: readonly KnownTask[] }
  /** Whether a manager that can change something is heard. */
  | { readonly kind: 'managers'; readonly isHeard: boolean }
  /** A manager has these states for good. */
  | { readonly kind: 'acknowledged'; readonly ids: readonly TaskId[] }
  | {
      readonly kind: 'done';
      readonly id: TaskId;
      readonly action: number;
      readonly outcome: Outcome;
    }
  | {
      readonly kind: 'exited';
      readonly id: TaskId;
      readonly exitCode: number;
      readonly error?: string;
    }
  | { readonly kind: 'health'; readonly id: TaskId; readonly health: Health }
  | { readonly kind: 'timeout' };

/** How an action went. */
export type Outcome =
  | { readonly kind: 'prepared'; readonly containerId: string; readonly netns?: string }
  | {
      readonly kind: 'started';
      readonly containerId: string;
      readonly pid: number;
      readonly health: Health;
    }
  | { readonly kind: 'chosen'; readonly ports: NonNullable<TaskStatus['ports']> }
  /** Of `wire`, `announce`, `drain`, `stop`, `remove`. */
  | { readonly kind: 'done' }
  | {
      readonly kind: 'failed';
      readonly error: string;
      readonly exitCode?: number;
      /** The runtime has no such task. */
      readonly isGone?: boolean;
    };

/** A task to which ports of the node itself lead. */
export interface PublishedTask {
  readonly task: TaskObject;
  /** Absent: the host's own network. */
  readonly netns: string | undefined;
  readonly ports: NonNullable<TaskStatus['ports']>;
}

export type EndpointState = 'starting' | 'ready' | 'draining';

interface Action {
  readonly id: TaskId;
  readonly runtime: RuntimeKind;
  /** Which `done` answers it. */
  readonly action: number;
}

/**
 * What is to be done for one task. Those with an `action` are answered by `done`; there is one at a time
 * for each task, `cancel` apart.
 */
export type TaskAction =
  | (Action & { readonly kind: 'prepare'; readonly task: TaskObject })
  /** Give up that `prepare`, which may still be answered. */
  | (Action & { readonly kind: 'cancel' })
  /** Raise the task's interfaces in its namespace, and tell the others. Doing it twice is harmless. */
  | (Action & {
      readonly kind: 'wire';
      readonly task: TaskObject;
      readonly netns: string;
      readonly endpoint: EndpointState;
    })
  | (Action & { readonly kind: 'start' })
  /** Find free ports of the node for these, other than those that are taken (`tcp/80`). */
  | (Action & {
      readonly kind: 'choose';
      readonly ports: readonly PortConfig[];
      readonly taken: ReadonlySet<string>;
    })
  /** Let the others know that it takes work, and wait for a short while until they do. */
  | (Action & { readonly kind: 'announce' })
  /** Let the others know that it gets no new work, and wait for a short while until they do. */
  | (Action & { readonly kind: 'drain' })
  | (Action & {
      readonly kind: 'stop';
      readonly signal: string | undefined;
      readonly graceMs: number;
    })
  | (Action & { readonly kind: 'remove' })
  /** Take its interfaces away. At once in what the others are told; links may follow. */
  | { readonly kind: 'unwire'; readonly id: TaskId };

/** What is to be done, in this order: `actions`, then `reports`, then `forgotten`. */
export interface TaskReady {
  readonly actions: readonly TaskAction[];
  readonly reports: readonly { readonly id: TaskId; readonly status: TaskStatusDraft }[];
  /** Nothing is left of these, and nobody asks for them any more. */
  readonly forgotten: readonly TaskId[];
}
