import { assert } from '../../../base/assert.js';
import type { ObjectMeta } from '../../../base/swarm-model.js';
import type { CommandBody } from './command.js';
import { refuse } from './refuse.js';
import type { Rows, TableName } from './rows.js';
import { type Change, ONLY_ROW, type ReadonlyState } from './state.js';

/** Changes in the order in which they are made, and the id of the object that it was all about. */
export interface Decision {
  readonly changes: readonly Change[];
  readonly id: string;
}

export type CommandOf<Kind extends CommandBody['kind']> = Extract<
  CommandBody,
  { readonly kind: Kind }
> & { readonly atMs: number };

export function change<Name extends TableName>(
  state: ReadonlyState,
  table: Name,
  key: string,
  after: Rows[Name] | undefined,
): Change {
  return { table, key, before: state.row(table, key), after } as unknown as Change;
}

export function newMeta(state: ReadonlyState, atMs: number): ObjectMeta {
  return { version: state.version + 1, createdAtMs: atMs, updatedAtMs: atMs };
}

export function touched<Row extends ObjectMeta>(state: ReadonlyState, row: Row, atMs: number): Row {
  return { ...row, version: state.version + 1, updatedAtMs: atMs };
}

/** @throws SwarmError `SWARM_OUT_OF_SEQUENCE` unless the asker has read the object as it is now. */
export function checkVersion(row: ObjectMeta, version: number): void {
  if (version !== row.version)
    throw refuse({ code: 'SWARM_OUT_OF_SEQUENCE' }, 'update out of sequence');
}

/** The cluster exists from the first command on. */
export function clusterOf(state: ReadonlyState): Rows['cluster'] {
  const cluster = state.row('cluster', ONLY_ROW);
  assert(cluster !== undefined, 'the first command creates the cluster');
  return cluster;
}

export function secretsOf(state: ReadonlyState): Rows['secrets'] {
  const secrets = state.row('secrets', ONLY_ROW);
  assert(secrets !== undefined, 'the first command creates the cluster');
  return secrets;
}
