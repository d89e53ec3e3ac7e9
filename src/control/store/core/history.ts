import { type TaskObject, taskName } from '../../../base/service-model.js';
import type { NodeObject } from '../../../base/swarm-model.js';
import type { CommandBody, SingleCommand } from './command.js';
import type { TableName } from './rows.js';
import type { Change } from './state.js';

/** Entries that are kept. */
const HISTORY_MAX = 10_000;

export type HistoryObjectKind =
  | 'cluster'
  | 'node'
  | 'network'
  | 'attachment'
  | 'secret'
  | 'config'
  | 'service'
  | 'task';

/** That one object was changed by one command; never what secrets or keys are. */
export interface HistoryEntry {
  /** The store's version after the command. */
  readonly version: number;
  readonly atMs: number;
  readonly kind: CommandBody['kind'];
  readonly action: 'create' | 'update' | 'remove';
  readonly objectKind: HistoryObjectKind;
  readonly id: string;
  readonly name: string;
  /** A node's state, where that is what changed: `ready → down (heartbeat failure)`; why a task failed. */
  readonly note?: string;
  /** Who gave the command, where that is known. */
  readonly by?: string;
}

const OBJECT_KINDS: Readonly<Record<TableName, HistoryObjectKind | undefined>> = {
  cluster: 'cluster',
  secrets: 'cluster',
  node: 'node',
  network: 'network',
  cursor: undefined,
  attachment: 'attachment',
  secret: 'secret',
  config: 'config',
  service: 'service',
  task: 'task',
  removed: undefined,
};

/** What changed when: the latest entries, the same on every manager. */
export class History {
  #entries: HistoryEntry[] = [];

  add(version: number, command: SingleCommand, changes: readonly Change[]): void {
    for (const change of changes) {
      const entry = entryOf(version, command, change);
      // The cluster and its secrets are two rows and one object.
      const last = this.#entries.at(-1);
      if (entry === undefined || (entry.objectKind === 'cluster' && isSame(entry, last))) continue;
      this.#entries.push(entry);
    }
    // Seldom, since it moves them all.
    if (this.#entries.length >= 2 * HISTORY_MAX) this.#entries = this.#entries.slice(-HISTORY_MAX);
  }

  /** The oldest first. */
  entries(): readonly HistoryEntry[] {
    return this.#entries.slice(-HISTORY_MAX);
  }

  replace(entries: readonly HistoryEntry[]): void {
    this.#entries = entries.slice(-HISTORY_MAX);
  }
}

function isSame(entry: HistoryEntry, last: HistoryEntry | undefined): boolean {
  return last?.objectKind === entry.objectKind && last.version === entry.version;
}

function entryOf(
  version: number,
  command: SingleCommand,
  change: Change,
): HistoryEntry | undefined {
  const objectKind = OBJECT_KINDS[change.table];
  if (objectKind === undefined || !isTold(change)) return undefined;
  const note = noteOf(change);
  return {
    version,
    atMs: command.atMs,
    kind: command.kind,
    action:
      change.before === undefined ? 'create' : change.after === undefined ? 'remove' : 'update',
    objectKind,
    ...identityOf(change),
    ...(note !== undefined && { note }),
    ...(command.by !== undefined && { by: command.by }),
  };
}

/**
 * Which manager serves a node changes often, and concerns nobody afterwards; so do the steps of the
 * tasks, of which it is told only that one failed.
 */
function isTold(change: Change): boolean {
  if (change.table === 'task') return hasFailed(change.after) && !hasFailed(change.before);
  if (change.table !== 'node' || change.before === undefined || change.after === undefined)
    return true;
  return withoutTraffic(change.before) !== withoutTraffic(change.after);
}

function hasFailed(task: TaskObject | undefined): boolean {
  const state = task?.status.state;
  return state === 'failed' || state === 'rejected' || state === 'orphaned';
}

function withoutTraffic(node: NodeObject): string {
  const { version: _, updatedAtMs: __, session: ___, ...rest } = node;
  return JSON.stringify(Object.entries(rest).sort(([a], [b]) => (a < b ? -1 : 1)));
}

function identityOf(change: Change): { readonly id: string; readonly name: string } {
  if (change.table === 'secrets') return { id: change.key, name: '' };
  if (change.table === 'task') {
    const task = change.after ?? change.before;
    return { id: change.key, name: task === undefined ? '' : taskName(task) };
  }
  const row = change.after ?? change.before;
  if (row === undefined) return { id: change.key, name: '' };
  if ('spec' in row) {
    const hostname = 'description' in row ? row.description.hostname : '';
    return { id: 'id' in row ? row.id : change.key, name: row.spec.name || hostname };
  }
  return { id: change.key, name: 'name' in row ? row.name : '' };
}

function noteOf(change: Change): string | undefined {
  if (change.table === 'node') return nodeNoteOf(change.before, change.after);
  if (change.table !== 'task' || change.after === undefined) return undefined;
  const { state, message, error = message } = change.after.status;
  return `${state} (${error})`;
}

function nodeNoteOf(
  before: NodeObject | undefined,
  after: NodeObject | undefined,
): string | undefined {
  if (before === undefined || after === undefined || before.state === after.state) return undefined;
  const why = after.stateMessage === '' ? '' : ` (${after.stateMessage})`;
  return `${before.state} → ${after.state}${why}`;
}
