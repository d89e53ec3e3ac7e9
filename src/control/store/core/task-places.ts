import {
  PREDEFINED_NETWORKS,
  type TaskNetwork,
  type TaskObject,
  taskName,
} from '../../../base/service-model.js';
import type { AttachmentId, NetworkObject, NodeId } from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import { AddressPlan, exhausted } from './address-plan.js';
import { change, newMeta } from './decision.js';
import { derivedId } from './derived-id.js';
import { ATTACHMENTS_PER_NODE_MAX } from './limits.js';
import { refuse } from './refuse.js';
import { networksOf } from './service-spec.js';
import type { Change, ReadonlyState } from './state.js';

const TASK_KEY = 'task:';
export const INGRESS_KEY = 'ingress';

/** Keys that the swarm makes up itself, for what only it may take away. */
export function isReservedKey(key: string): boolean {
  return key === INGRESS_KEY || key.startsWith(TASK_KEY);
}

/** The task that an attachment is of; absent: it is of none. */
export function taskOfKey(key: string): string | undefined {
  return key.startsWith(TASK_KEY) ? key.split(':')[1] : undefined;
}

export function ingressOf(state: ReadonlyState): NetworkObject | undefined {
  for (const network of state.rows('network')) if (network.spec.ingress) return network;
  return undefined;
}

export interface Places {
  readonly networks: readonly TaskNetwork[];
  readonly changes: readonly Change[];
}

/**
 * A place on each of its networks for a task that comes to a node, and on the ingress network if the
 * service publishes ports there.
 *
 * @throws SwarmError `SWARM_EXHAUSTED`, `SWARM_NOT_FOUND`: the task cannot be placed now.
 */
export function placesOf(
  state: ReadonlyState,
  task: TaskObject,
  nodeId: NodeId,
  atMs: number,
): Places {
  const targets = networksOf(specOf(state, task)).filter(
    ({ target }) => !PREDEFINED_NETWORKS.has(target),
  );
  const wanted = targets.map(({ target, aliases = [] }) => ({
    network: networkFor(state, target),
    aliases,
  }));
  if (task.ports.some(({ publishMode }) => publishMode === 'ingress')) {
    const ingress = ingressOf(state);
    if (ingress === undefined)
      throw refuse(
        { code: 'SWARM_NOT_FOUND', kind: 'network', ref: 'ingress' },
        'there is no ingress network',
      );
    wanted.unshift({ network: ingress, aliases: [] });
  }
  if (state.attachmentsOf(nodeId).size + wanted.length > ATTACHMENTS_PER_NODE_MAX)
    throw exhausted('attachment', `node ${nodeId} has ${ATTACHMENTS_PER_NODE_MAX} attachments`);
  const plan = new AddressPlan(state);
  const name = taskName({ ...task, nodeId });
  const rows = wanted.map(({ network, aliases }) =>
    attachmentRow(state, plan, network, {
      key: `${TASK_KEY}${task.id}:${network.id}`,
      nodeId,
      name,
      aliases,
      atMs,
    }),
  );
  return {
    networks: rows.map(({ id, networkId, addresses, mac, aliases }) => ({
      networkId,
      attachmentId: id,
      addresses,
      mac,
      aliases,
    })),
    changes: [...rows.map((row) => change(state, 'attachment', row.id, row)), ...plan.changes()],
  };
}

/** The old form of a service's networks is not in the spec of its tasks. */
function specOf(state: ReadonlyState, { spec, serviceId }: TaskObject) {
  const networks = state.row('service', serviceId)?.spec.networks;
  return { task: spec, ...(networks && { networks }) };
}

function networkFor(state: ReadonlyState, id: NetworkObject['id']): NetworkObject {
  const network = state.row('network', id);
  if (network === undefined)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'network', ref: id }, `network ${id} not found`);
  return network;
}

/** @param plan Of the whole decision. */
export function attachmentRow(
  state: ReadonlyState,
  plan: AddressPlan,
  network: NetworkObject,
  wish: Pick<KeyedAttachment, 'key' | 'nodeId' | 'name' | 'aliases'> & { readonly atMs: number },
): KeyedAttachment {
  const { atMs, ...rest } = wish;
  const addresses = plan.endpoint(network);
  const [first = ''] = addresses;
  return {
    id: derivedId(`${wish.nodeId}/${wish.key}/${network.id}`) as AttachmentId,
    ...newMeta(state, atMs),
    ...rest,
    networkId: network.id,
    addresses,
    mac: plan.mac(network, first.slice(0, first.indexOf('/'))),
  };
}

/** Others may have what a task that has ended no longer needs. */
export function releases(state: ReadonlyState, { networks }: TaskObject): readonly Change[] {
  return networks.flatMap(({ attachmentId }) =>
    state.row('attachment', attachmentId) === undefined
      ? []
      : [change(state, 'attachment', attachmentId, undefined)],
  );
}
