import { compareTaskStates } from '../../../base/service-model.js';
import type { NetworkObject } from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import { AddressPlan, exhausted } from './address-plan.js';
import { cidrOf } from './addresses.js';
import { nodeOf } from './decide-node.js';
import {
  type CommandOf,
  change,
  clusterOf,
  type Decision,
  newMeta,
  secretsOf,
} from './decision.js';
import { ATTACHMENTS_PER_NODE_MAX } from './limits.js';
import { checkNetworkSpec, INGRESS_VNI, lowestFreeVni } from './network-spec.js';
import { invalid, precondition, refuse } from './refuse.js';
import { networksOf } from './service-spec.js';
import { type Change, ONLY_ROW, type ReadonlyState } from './state.js';
import { allocateSubnets } from './subnets.js';
import { isReservedKey, taskOfKey } from './task-places.js';

export const NETWORKS_MAX = 4_096;

export function decideNetwork(
  state: ReadonlyState,
  command: CommandOf<'network_create' | 'network_remove'>,
): Decision {
  return command.kind === 'network_create'
    ? createNetwork(state, command)
    : removeNetwork(state, command);
}

export function decideAttachment(
  state: ReadonlyState,
  command: CommandOf<'attachment_create' | 'attachment_remove'>,
): Decision {
  return command.kind === 'attachment_create'
    ? createAttachment(state, command)
    : removeAttachment(state, command);
}

export function createNetwork(
  state: ReadonlyState,
  command: CommandOf<'network_create'>,
): Decision {
  const { spec } = command;
  const { mtuBytes, vni: wantedVni, isSealed } = checkNetworkSpec(spec);
  const others = [...state.rows('network')];
  if (others.length >= NETWORKS_MAX)
    throw exhausted('network', `the swarm has ${NETWORKS_MAX} networks, and no room for more`);
  if (others.some((other) => other.spec.name === spec.name))
    throw refuse(
      { code: 'SWARM_NAME_TAKEN', kind: 'network', name: spec.name },
      `network with name ${spec.name} already exists`,
    );
  const ingress = spec.ingress ? others.find((other) => other.spec.ingress) : undefined;
  if (ingress !== undefined) throw invalid(`ingress network (${ingress.id}) is already present`);
  const cluster = clusterOf(state);
  const network: NetworkObject = {
    id: command.id,
    ...newMeta(state, command.atMs),
    spec,
    vni: chooseVni(others, spec.ingress, wantedVni),
    subnets: allocateSubnets(spec, {
      defaultAddressPool: cluster.defaultAddressPool,
      subnetSize: cluster.subnetSize,
      ulaPrefix: secretsOf(state).ulaPrefix,
      taken: others.flatMap((other) => other.subnets.map((subnet) => cidrOf(subnet.subnet))),
    }),
    ...(mtuBytes === undefined ? {} : { mtuBytes }),
    ...(isSealed && { isSealed }),
  };
  return { id: network.id, changes: [change(state, 'network', network.id, network)] };
}

function chooseVni(
  others: readonly NetworkObject[],
  ingress: boolean,
  wanted: number | undefined,
): number {
  const holder = others.find((other) => other.vni === wanted);
  if (holder !== undefined)
    throw invalid(`VNI ${wanted} is already used by network ${holder.spec.name}`);
  const taken = new Set(others.map((other) => other.vni));
  return wanted ?? lowestFreeVni(ingress ? INGRESS_VNI : INGRESS_VNI + 1, taken);
}

function removeNetwork(state: ReadonlyState, command: CommandOf<'network_remove'>): Decision {
  const network = networkOf(state, command.ref);
  checkUnused(state, network);
  const left = [...new Set(state.addressesOn(network.id).values())].sort();
  const changes: Change[] = left.flatMap((id) =>
    state.row('attachment', id) === undefined ? [] : [change(state, 'attachment', id, undefined)],
  );
  changes.push(change(state, 'network', network.id, undefined));
  if (state.row('cursor', network.id) !== undefined)
    changes.push(change(state, 'cursor', network.id, undefined));
  const secrets = secretsOf(state);
  if (network.spec.ingress && secrets.ingressMade !== true)
    changes.push(change(state, 'secrets', ONLY_ROW, { ...secrets, ingressMade: true }));
  return { id: network.id, changes };
}

/**
 * What is being removed uses nothing any more, though it may still have its place for a moment.
 * @throws SwarmError `SWARM_IN_USE`, `SWARM_PRECONDITION`, in swarmkit's words.
 */
function checkUnused(state: ReadonlyState, { id, spec }: NetworkObject): void {
  const inUse = (by: string) =>
    refuse({ code: 'SWARM_IN_USE', kind: 'network', id, by }, `network ${id} is in use by ${by}`);
  const services = [...state.rows('service')]
    .filter((service) => service.pendingDelete !== true)
    .sort((a, b) => (a.id < b.id ? -1 : 1));
  if (spec.ingress) {
    const dependent = services.find(({ endpoint }) =>
      endpoint.ports.some(({ publishMode }) => publishMode === 'ingress'),
    );
    if (dependent !== undefined)
      throw precondition(
        `ingress network cannot be removed because service ${dependent.id} depends on it`,
      );
    return;
  }
  const user = services.find((service) =>
    networksOf(service.spec).some(({ target }) => target === id),
  );
  if (user !== undefined) throw inUse(`service ${user.id}`);
  const [task] = [...state.addressesOn(id).values()]
    .flatMap((holder) => userOf(state, holder) ?? [])
    .sort();
  if (task !== undefined) throw inUse(`task ${task}`);
}

/** The task that an address is used by: what Docker calls one, which may be an attachment. */
function userOf(state: ReadonlyState, holder: string): string | undefined {
  const attachment = state.row('attachment', holder);
  if (attachment === undefined) return undefined;
  const taskId = taskOfKey(attachment.key);
  if (taskId === undefined) return holder;
  const task = state.row('task', taskId);
  const ends = task === undefined || compareTaskStates(task.desiredState, 'running') > 0;
  const service = task && state.row('service', task.serviceId);
  return ends || service?.pendingDelete === true ? undefined : taskId;
}

/**
 * In Docker's order: id, exact name, unique prefix of an id.
 * @throws SwarmError `SWARM_NOT_FOUND`, `SWARM_AMBIGUOUS`.
 */
export function networkOf(state: ReadonlyState, ref: string): NetworkObject {
  const exact = state.row('network', ref);
  if (exact !== undefined) return exact;
  const all = [...state.rows('network')];
  const named = all.find((network) => network.spec.name === ref);
  if (named !== undefined) return named;
  const matches = ref === '' ? [] : all.filter((network) => network.id.startsWith(ref));
  if (matches.length > 1)
    throw refuse(
      { code: 'SWARM_AMBIGUOUS', kind: 'network', ref, count: matches.length },
      `network ${ref} is ambiguous: ${matches.length} ids begin so`,
    );
  if (matches[0] === undefined)
    throw refuse({ code: 'SWARM_NOT_FOUND', kind: 'network', ref }, `network ${ref} not found`);
  return matches[0];
}

function createAttachment(state: ReadonlyState, command: CommandOf<'attachment_create'>): Decision {
  const { request, nodeId } = command;
  nodeOf(state, nodeId);
  const network = networkOf(state, request.network);
  if (isReservedKey(request.key)) throw invalid(`key ${request.key} is the swarm's own`);
  const known = state.attachmentByKey(nodeId, request.key);
  if (known !== undefined) {
    if (state.row('attachment', known)?.networkId !== network.id)
      throw invalid(`key ${request.key} already names an attachment to another network`);
    return { id: known, changes: [] };
  }
  if (!network.spec.attachable)
    throw refuse(
      { code: 'SWARM_NOT_ATTACHABLE', network: network.spec.name },
      `network ${network.spec.name} not manually attachable`,
    );
  if (state.attachmentsOf(nodeId).size >= ATTACHMENTS_PER_NODE_MAX)
    throw exhausted('attachment', `node ${nodeId} has ${ATTACHMENTS_PER_NODE_MAX} attachments`);
  const plan = new AddressPlan(state);
  const addresses = plan.endpoint(network, request.addresses);
  const [first = ''] = addresses;
  const attachment: KeyedAttachment = {
    id: command.id,
    ...newMeta(state, command.atMs),
    key: request.key,
    networkId: network.id,
    nodeId,
    name: request.name,
    aliases: request.aliases,
    addresses,
    mac: plan.mac(network, first.slice(0, first.indexOf('/'))),
  };
  return {
    id: attachment.id,
    changes: [change(state, 'attachment', attachment.id, attachment), ...plan.changes()],
  };
}

function removeAttachment(state: ReadonlyState, command: CommandOf<'attachment_remove'>): Decision {
  const row = state.row('attachment', command.id);
  if (row === undefined) return { id: command.id, changes: [] };
  if (command.nodeId !== undefined && row.nodeId !== command.nodeId)
    throw refuse(
      { code: 'SWARM_NOT_FOUND', kind: 'attachment', ref: command.id },
      `attachment ${command.id} is not of this node`,
    );
  if (isReservedKey(row.key))
    throw precondition(`attachment ${row.id} (${row.name}) is the swarm's own: it goes by itself`);
  return { id: row.id, changes: [change(state, 'attachment', row.id, undefined)] };
}
