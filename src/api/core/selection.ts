import { SwarmError } from '../../base/swarm-error.js';
import type {
  AttachmentObject,
  NetworkObject,
  NodeView,
  SecretSpec,
} from '../../base/swarm-model.js';
import { badRequest } from '../wire/errors.js';
import type { LocalSwarm } from '../wire/records.js';
import { type Filters, matchesAny, matchesLabels, requireValues, truthOf } from './filters.js';

/** Refuses manager's work here, in the words that fit this node's state. */
export function requireManager(local: LocalSwarm): void {
  if (local.controlAvailable) return;
  if (local.state === 'locked')
    throw new SwarmError({ code: 'SWARM_LOCKED' }, 'unlock this manager first');
  if (local.state === 'inactive' || local.state === 'error') {
    throw new SwarmError({ code: 'SWARM_INACTIVE' }, 'this node is in no swarm');
  }
  throw new SwarmError({ code: 'SWARM_NOT_MANAGER' }, 'this node is not a manager');
}

export const NODE_FILTERS = ['id', 'label', 'membership', 'name', 'node.label', 'role'];

export function selectNodes(nodes: readonly NodeView[], filters: Filters): NodeView[] {
  for (const [key, allowed] of [
    ['role', ['manager', 'worker']],
    ['membership', ['accepted', 'pending']],
  ] as const) {
    for (const value of filters.get(key) ?? []) {
      if (!(allowed as readonly string[]).includes(value)) {
        throw badRequest(`invalid ${key} filter: '${value}'`);
      }
    }
  }
  return nodes.filter(
    ({ id, spec, description }) =>
      matchesAny(filters, 'id', (value) => id.startsWith(value)) &&
      matchesAny(
        filters,
        'name',
        (value) =>
          description.hostname.startsWith(value) ||
          (spec.name !== '' && spec.name.startsWith(value)),
      ) &&
      matchesAny(filters, 'role', (value) => spec.role === value) &&
      matchesAny(filters, 'membership', (value) => value === 'accepted') &&
      matchesLabels(filters, 'label', description.engineLabels) &&
      matchesLabels(filters, 'node.label', spec.labels),
  );
}

export const NETWORK_FILTERS = ['dangling', 'driver', 'id', 'label', 'name', 'scope', 'type'];
export const PRUNE_FILTERS = ['label', 'label!', 'until'];

/** `used`: ids of the networks with an attachment. Names and ids match in part, as Docker's do. */
export function selectNetworks(
  networks: readonly NetworkObject[],
  used: ReadonlySet<string>,
  filters: Filters,
): NetworkObject[] {
  requireValues(filters, 'type', ['custom', 'builtin']);
  const dangling = truthOf(filters, 'dangling');
  return networks.filter(
    ({ id, spec }) =>
      matchesAny(filters, 'id', (value) => id.includes(value)) &&
      matchesAny(filters, 'name', (value) => spec.name.includes(value)) &&
      matchesAny(filters, 'driver', (value) => spec.driver === value) &&
      matchesAny(filters, 'scope', (value) => value === 'swarm') &&
      matchesAny(filters, 'type', (value) => value === 'custom') &&
      matchesLabels(filters, 'label', spec.labels) &&
      (dangling === undefined || dangling === !used.has(id)),
  );
}

export const SECRET_FILTERS = ['id', 'label', 'name', 'names'];
export const CONFIG_FILTERS = ['id', 'label', 'name'];

/** `name` matches the beginning and `names` the whole, as Docker's do. */
export function selectBlobs<
  Blob extends { readonly id: string; readonly spec: Pick<SecretSpec, 'name' | 'labels'> },
>(blobs: readonly Blob[], filters: Filters): Blob[] {
  return blobs.filter(
    ({ id, spec }) =>
      matchesAny(filters, 'id', (value) => id.startsWith(value)) &&
      matchesAny(filters, 'name', (value) => spec.name.startsWith(value)) &&
      matchesAny(filters, 'names', (value) => spec.name === value) &&
      matchesLabels(filters, 'label', spec.labels),
  );
}

/** A worker sees a network of the swarm only while something here is on it. */
export function visibleNetworks(
  networks: readonly NetworkObject[],
  controlAvailable: boolean,
  locallyUsed: ReadonlySet<string>,
): readonly NetworkObject[] {
  return controlAvailable ? networks : networks.filter(({ id }) => locallyUsed.has(id));
}

/** Ids of the networks that a prune may try: of users, unused, and passing the filters. */
export function prunable(
  networks: readonly NetworkObject[],
  used: readonly AttachmentObject[],
  filters: Filters,
  untilMs: number,
): NetworkObject[] {
  const busy = new Set<string>(used.map(({ networkId }) => networkId));
  return networks.filter(
    ({ id, spec, createdAtMs }) =>
      !spec.ingress &&
      !busy.has(id) &&
      createdAtMs <= untilMs &&
      matchesLabels(filters, 'label', spec.labels) &&
      !(filters.has('label!') && matchesLabels(filters, 'label!', spec.labels)),
  );
}

export function countManagers(nodes: readonly NodeView[]): { reachable: number; total: number } {
  const managers = nodes.flatMap(({ manager }) => (manager === undefined ? [] : [manager]));
  const reachable = managers.filter(({ reachability }) => reachability === 'reachable').length;
  return { reachable, total: managers.length };
}
