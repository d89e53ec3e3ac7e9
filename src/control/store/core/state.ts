import { assert } from '../../../base/assert.js';
import type { PortConfig } from '../../../base/service-model.js';
import type {
  AttachmentId,
  ConfigId,
  NetworkId,
  NodeId,
  SecretId,
  ServiceId,
  TaskId,
} from '../../../base/swarm-model.js';
import { type AddressHolder, Indexes, type Publishers } from './indexes.js';
import { type Rows, TABLE_NAMES, type TableName } from './rows.js';

/** Key of the tables that have one row. */
export const ONLY_ROW = 'only';

/** One row before and after; absent: there was none, or there is none any more. */
export type Change = {
  readonly [Name in TableName]: {
    readonly table: Name;
    readonly key: string;
    readonly before: Rows[Name] | undefined;
    readonly after: Rows[Name] | undefined;
  };
}[TableName];

/** The whole state as data: rows of each table by key. */
export interface StateSnapshot {
  readonly version: number;
  /** A table that is absent is empty. */
  readonly rows: { readonly [Name in TableName]?: readonly (readonly [string, Rows[Name]])[] };
}

type Tables = { readonly [Name in TableName]: Map<string, Rows[Name]> };

/** What may be done with a state from outside the store. */
export interface ReadonlyState {
  /** Raised by one at every change: the version of the youngest object. */
  readonly version: number;
  row<Name extends TableName>(table: Name, key: string): Rows[Name] | undefined;
  rows<Name extends TableName>(table: Name): IterableIterator<Rows[Name]>;
  size(table: TableName): number;
  /** Address text to the attachment or service that has it. */
  addressesOn(network: NetworkId): ReadonlyMap<string, AddressHolder>;
  attachmentsOf(node: NodeId): ReadonlySet<AttachmentId>;
  attachmentByKey(node: NodeId, key: string): AttachmentId | undefined;
  nodeByPeerId(peerId: string): NodeId | undefined;
  secretByName(name: string): SecretId | undefined;
  configByName(name: string): ConfigId | undefined;
  /** Not one that is being removed. */
  serviceByName(name: string): ServiceId | undefined;
  /** Services that publish a port, and are not being removed. */
  publishersOf(protocol: PortConfig['protocol'], port: number): Publishers;
  tasksOfService(service: ServiceId): ReadonlySet<TaskId>;
  tasksOnNode(node: NodeId): ReadonlySet<TaskId>;
  snapshot(): StateSnapshot;
}

/**
 * Tables and the indexes derived from them. `commit` is the only way to change them, and `revert`
 * undoes a commit: rows are replaced and never altered, so a change holds all that is needed.
 */
export class State implements ReadonlyState {
  readonly #tables = Object.fromEntries(
    TABLE_NAMES.map((name) => [name, new Map()]),
  ) as unknown as Tables;
  readonly #indexes = new Indexes();
  #version = 0;

  static restore(snapshot: StateSnapshot): State {
    const state = new State();
    state.replace(snapshot);
    return state;
  }

  /** Becomes what the snapshot holds; those who hold this state see it then. */
  replace(snapshot: StateSnapshot): void {
    this.#indexes.clear();
    for (const table of TABLE_NAMES) {
      this.#tables[table].clear();
      for (const [key, after] of snapshot.rows[table] ?? [])
        this.#put({ table, key, before: undefined, after } as Change, true);
    }
    this.#version = snapshot.version;
  }

  get version(): number {
    return this.#version;
  }

  row<Name extends TableName>(table: Name, key: string): Rows[Name] | undefined {
    return (this.#tables[table] as Map<string, Rows[Name]>).get(key);
  }

  rows<Name extends TableName>(table: Name): IterableIterator<Rows[Name]> {
    return (this.#tables[table] as Map<string, Rows[Name]>).values();
  }

  size(table: TableName): number {
    return this.#tables[table].size;
  }

  addressesOn(network: NetworkId): ReadonlyMap<string, AddressHolder> {
    return this.#indexes.addressesOn(network);
  }

  attachmentsOf(node: NodeId): ReadonlySet<AttachmentId> {
    return this.#indexes.attachmentsOf(node);
  }

  attachmentByKey(node: NodeId, key: string): AttachmentId | undefined {
    return this.#indexes.attachmentByKey(node, key);
  }

  nodeByPeerId(peerId: string): NodeId | undefined {
    return this.#indexes.nodeByPeerId(peerId);
  }

  secretByName(name: string): SecretId | undefined {
    return this.#indexes.secrets.get(name);
  }

  configByName(name: string): ConfigId | undefined {
    return this.#indexes.configs.get(name);
  }

  serviceByName(name: string): ServiceId | undefined {
    return this.#indexes.services.get(name);
  }

  publishersOf(protocol: PortConfig['protocol'], port: number): Publishers {
    return this.#indexes.publishersOf(protocol, port);
  }

  tasksOfService(service: ServiceId): ReadonlySet<TaskId> {
    return this.#indexes.tasksOfService(service);
  }

  tasksOnNode(node: NodeId): ReadonlySet<TaskId> {
    return this.#indexes.tasksOnNode(node);
  }

  /** Applies the changes of one command: one version, if there are any. */
  commit(changes: readonly Change[]): void {
    for (const change of changes) this.#put(change, true);
    if (changes.length > 0) this.#version++;
  }

  /** Undoes the latest commit. */
  revert(changes: readonly Change[]): void {
    for (const change of changes.toReversed()) this.#put(change, false);
    if (changes.length > 0) this.#version--;
  }

  /** Cheap: copies no row, since rows are never altered. */
  snapshot(): StateSnapshot {
    const rows = Object.fromEntries(TABLE_NAMES.map((name) => [name, [...this.#tables[name]]]));
    return { version: this.#version, rows: rows as unknown as StateSnapshot['rows'] };
  }

  #put(change: Change, forwards: boolean): void {
    const table = this.#tables[change.table] as Map<string, unknown>;
    const from: Rows[TableName] | undefined = forwards ? change.before : change.after;
    const to: Rows[TableName] | undefined = forwards ? change.after : change.before;
    assert(table.get(change.key) === from, `a change of ${change.table} was made of another state`);
    if (from !== undefined) this.#indexes.put(change.table, from, false);
    if (to === undefined) table.delete(change.key);
    else table.set(change.key, to);
    if (to !== undefined) this.#indexes.put(change.table, to, true);
  }
}
