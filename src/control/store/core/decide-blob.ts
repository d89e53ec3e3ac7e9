import { unreachable } from '../../../base/assert.js';
import type { ServiceObject } from '../../../base/service-model.js';
import type { SwarmError } from '../../../base/swarm-error.js';
import type { SecretSpec } from '../../../base/swarm-model.js';
import {
  type CommandOf,
  change,
  checkVersion,
  type Decision,
  newMeta,
  touched,
} from './decision.js';
import { invalid, refuse } from './refuse.js';
import type { Rows } from './rows.js';
import type { ReadonlyState } from './state.js';

/** Secrets and configs differ in what may be seen of them, and in size; the rules are the same. */
type Kind = 'secret' | 'config';
type BlobCommand = CommandOf<
  | 'secret_create'
  | 'secret_update'
  | 'secret_remove'
  | 'config_create'
  | 'config_update'
  | 'config_remove'
>;
type Create = CommandOf<'secret_create' | 'config_create'>;
type Update = CommandOf<'secret_update' | 'config_update'>;

/** Exclusive, as swarmkit's are: one byte less is the most. */
const DATA_BYTES_MAX: Readonly<Record<Kind, number>> = {
  secret: 500 * 1024,
  config: 1000 * 1024,
};
/** Of each kind. */
const BLOBS_MAX = 4_096;
/** Base64 characters of all secrets, or of all configs: every manager holds them in memory. */
const DATA_CHARS_MAX = 128 * 1_048_576;
const NAME = /^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$/;
const NAME_CHARS_MAX = 64;
const SPEC_CHARS_MAX = 65_536;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

export function decideBlob(state: ReadonlyState, command: BlobCommand): Decision {
  switch (command.kind) {
    case 'secret_create':
      return create(state, 'secret', command);
    case 'config_create':
      return create(state, 'config', command);
    case 'secret_update':
      return update(state, 'secret', command);
    case 'config_update':
      return update(state, 'config', command);
    case 'secret_remove':
      return remove(state, 'secret', command.id);
    case 'config_remove':
      return remove(state, 'config', command.id);
    default:
      return unreachable(command);
  }
}

function create(state: ReadonlyState, kind: Kind, command: Create): Decision {
  const { id, spec, data } = command;
  checkSpec(spec);
  checkData(kind, data);
  const holder = kind === 'secret' ? state.secretByName(spec.name) : state.configByName(spec.name);
  if (holder !== undefined)
    throw refuse(
      { code: 'SWARM_NAME_TAKEN', kind, name: spec.name },
      `${kind} ${spec.name} already exists`,
    );
  checkRoom(state, kind, data.length);
  const row = { id, ...newMeta(state, command.atMs), spec, data } as Rows[Kind];
  return { id, changes: [change(state, kind, id, row)] };
}

function checkSpec(spec: SecretSpec): void {
  if (spec.name === '') throw invalid('name must be provided');
  if (spec.name.length > NAME_CHARS_MAX || !NAME.test(spec.name))
    throw invalid(
      'invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]',
    );
  if (JSON.stringify(spec).length > SPEC_CHARS_MAX)
    throw invalid('the labels are too large: use fewer or shorter ones');
}

function checkData(kind: Kind, data: string): void {
  const bytesMax = DATA_BYTES_MAX[kind];
  const bytes = BASE64.test(data) ? base64Bytes(data) : Number.NaN;
  if (!(bytes > 0 && bytes < bytesMax))
    throw invalid(`${kind} data must be larger than 0 and less than ${bytesMax} bytes`);
}

function base64Bytes(data: string): number {
  const padding = data.endsWith('==') ? 2 : data.endsWith('=') ? 1 : 0;
  return (data.length / 4) * 3 - padding;
}

function checkRoom(state: ReadonlyState, kind: Kind, chars: number): void {
  let charsTotal = chars;
  for (const row of state.rows(kind)) charsTotal += row.data.length;
  if (state.size(kind) >= BLOBS_MAX || charsTotal > DATA_CHARS_MAX)
    throw refuse(
      { code: 'SWARM_EXHAUSTED', what: kind },
      `the swarm has no room for more ${kind}s: remove some`,
    );
}

function update(state: ReadonlyState, kind: Kind, command: Update): Decision {
  const row = blobOf(state, kind, command.id);
  const { name = row.spec.name, data = row.data } = command;
  if (name !== row.spec.name || data !== row.data)
    throw invalid('only updates to Labels are allowed');
  checkVersion(row, command.version);
  const spec = { ...row.spec, labels: command.labels };
  checkSpec(spec);
  const after = { ...touched(state, row, command.atMs), spec };
  return { id: row.id, changes: [change(state, kind, row.id, after)] };
}

function remove(state: ReadonlyState, kind: Kind, id: string): Decision {
  const row = blobOf(state, kind, id);
  const users = [...state.rows('service')]
    .filter((service) => service.pendingDelete !== true && uses(service, kind, row.id))
    .map(({ spec }) => spec.name)
    .sort();
  if (users.length > 0) throw inUse(kind, row.spec.name, users);
  return { id: row.id, changes: [change(state, kind, row.id, undefined)] };
}

function uses({ spec }: ServiceObject, kind: Kind, id: string): boolean {
  const { secrets = [], configs = [] } = spec.task.container;
  return kind === 'secret'
    ? secrets.some(({ secretId }) => secretId === id)
    : configs.some(({ configId }) => configId === id);
}

function inUse(kind: Kind, name: string, users: readonly string[]): SwarmError {
  const by = `the following ${users.length === 1 ? 'service' : 'services'}: ${users.join(', ')}`;
  return refuse(
    { code: 'SWARM_IN_USE', kind, id: name, by },
    `${kind} '${name}' is in use by ${by}`,
  );
}

/** @throws SwarmError `SWARM_NOT_FOUND`. */
function blobOf(state: ReadonlyState, kind: Kind, id: string): Rows[Kind] {
  const row = state.row(kind, id);
  if (row === undefined)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind, ref: id }, `${kind} ${id} not found`);
  return row;
}
