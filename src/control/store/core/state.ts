import { assert } from '../../../base/assert.js';
import type {
  AttachmentId,
  ClusterObject,
  NetworkId,
  NetworkObject,
  NodeId,
  NodeObject,
} from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import type { GossipKeyText } from '../../wire/gossip-key.js';

/** What managers alone may see. */
export interface ClusterSecrets {
  readonly caKeyPem: string;
  /** First seals, all open; the last is the one that will seal next. */
  readonly gossipKeys: readonly GossipKeyText[];
  readonly gossipKeysRotatedAtMs: number;
  /** The swarm's own /48 (RFC 4193), for IPv6 subnets. */
  readonly ulaPrefix: string;
}

/** Where the search for free addresses goes on: subnet to the address given out last. */
export interface AddressCursor {
  readonly id: NetworkId;
  readonly last: Readonly<Record<string, string>>;
}

export interface Rows {
  readonly cluster: ClusterObject;
  readonly secrets: ClusterSecrets;
  readonly node: NodeObject;
  readonly network: NetworkObject;
  readonly cursor: AddressCursor;
  readonly attachment: KeyedAttachment;
}

export type TableName = keyof Rows;

export const TABLE_NAMES: readonly TableName[] = [
  'cluster',
  'secrets',
  'node',
  'network',
  'cursor',
  'attachment',
];

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
  readonly rows: { readonly [Name in TableName]: readonly (readonly [string, Rows[Name]])[] };
}

type Tables = { readonly [Name in TableName]: Map<string, Rows[Name]> };

/** What may be done with a state from outside the store. */
export interface ReadonlyState {
  /** Raised by one at every change: the version of the youngest object. */
  readonly version: number;
  row<Name extends TableName>(table: Name, key: string): Rows[Name] | undefined;
  rows<Name extends TableName>(table: Name): IterableIterator<Rows[Name]>;
  size(table: TableName): number;
  /** Address text to the attachment that has it. */
  addressesOn(network: NetworkId): ReadonlyMap<string, AttachmentId>;
  attachmentsOf(node: NodeId): ReadonlySet<AttachmentId>;
  attachmentByKey(node: NodeId, key: string): AttachmentId | undefined;
  nodeByPeerId(peerId: string): NodeId | undefined;
  snapshot(): StateSnapshot;
}

const NO_ADDRESSES: ReadonlyMap<string, AttachmentId> = new Map();
const NO_ATTACHMENTS: ReadonlySet<AttachmentId> = new Set();

/**
 * Tables and the indexes derived from them. `commit` is the only way to change them, and `revert`
 * undoes a commit: rows are replaced and never altered, so a change holds all that is needed.
 */
export class State implements ReadonlyState {
  readonly #tables: Tables = {
    cluster: new Map(),
    secrets: new Map(),
    node: new Map(),
    network: new Map(),
    cursor: new Map(),
    attachment: new Map(),
  };
  readonly #addresses = new Map<NetworkId, Map<string, AttachmentId>>();
  readonly #attachmentsByNode = new Map<NodeId, Set<AttachmentId>>();
  readonly #attachmentsByKey = new Map<string, AttachmentId>();
  readonly #nodesByPeerId = new Map<string, NodeId>();
  #version = 0;

  static restore(snapshot: StateSnapshot): State {
    const state = new State();
    for (const table of TABLE_NAMES) {
      for (const [key, after] of snapshot.rows[table])
        state.#put({ table, key, before: undefined, after } as Change, true);
    }
    state.#version = snapshot.version;
    return state;
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

  addressesOn(network: NetworkId): ReadonlyMap<string, AttachmentId> {
    return this.#addresses.get(network) ?? NO_ADDRESSES;
  }

  attachmentsOf(node: NodeId): ReadonlySet<AttachmentId> {
    return this.#attachmentsByNode.get(node) ?? NO_ATTACHMENTS;
  }

  attachmentByKey(node: NodeId, key: string): AttachmentId | undefined {
    return this.#attachmentsByKey.get(`${node}/${key}`);
  }

  nodeByPeerId(peerId: string): NodeId | undefined {
    return this.#nodesByPeerId.get(peerId);
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

  snapshot(): StateSnapshot {
    const rows = Object.fromEntries(TABLE_NAMES.map((name) => [name, [...this.#tables[name]]]));
    return { version: this.#version, rows: rows as unknown as StateSnapshot['rows'] };
  }

  #put(change: Change, forwards: boolean): void {
    const table = this.#tables[change.table] as Map<string, unknown>;
    const from = forwards ? change.before : change.after;
    const to = forwards ? change.after : change.before;
    assert(table.get(change.key) === from, `a change of ${change.table} was made of another state`);
    if (from !== undefined) this.#index(change.table, from, false);
    if (to === undefined) table.delete(change.key);
    else table.set(change.key, to);
    if (to !== undefined) this.#index(change.table, to, true);
  }

  #index(table: TableName, row: unknown, present: boolean): void {
    if (table === 'node') {
      const node = row as NodeObject;
      if (present) this.#nodesByPeerId.set(node.peerId, node.id);
      else this.#nodesByPeerId.delete(node.peerId);
    }
    if (table === 'attachment') this.#indexAttachment(row as KeyedAttachment, present);
  }

  #indexAttachment(row: KeyedAttachment, present: boolean): void {
    const addresses = this.#addresses.get(row.networkId) ?? new Map<string, AttachmentId>();
    const ofNode = this.#attachmentsByNode.get(row.nodeId) ?? new Set<AttachmentId>();
    const key = `${row.nodeId}/${row.key}`;
    for (const cidr of row.addresses) {
      const address = cidr.slice(0, cidr.indexOf('/'));
      if (present) addresses.set(address, row.id);
      else addresses.delete(address);
    }
    if (present) ofNode.add(row.id);
    else ofNode.delete(row.id);
    if (present) this.#attachmentsByKey.set(key, row.id);
    else this.#attachmentsByKey.delete(key);
    setOrDrop(this.#addresses, row.networkId, addresses);
    setOrDrop(this.#attachmentsByNode, row.nodeId, ofNode);
  }
}

function setOrDrop<Key, Value extends { readonly size: number }>(
  map: Map<Key, Value>,
  key: Key,
  value: Value,
): void {
  if (value.size === 0) map.delete(key);
  else map.set(key, value);
}
