import type { SwarmError } from '../../../base/swarm-error.js';
import type { NetworkObject, Subnet } from '../../../base/swarm-model.js';
import type { KeyedAttachment } from '../../wire/attachment.js';
import {
  canonicalAddress,
  cidrOf,
  macOf,
  nextFreeAddress,
  reservedAddresses,
  subnetOf,
} from './addresses.js';
import { nodeOf } from './decide-node.js';
import {
  type CommandOf,
  change,
  clusterOf,
  type Decision,
  newMeta,
  secretsOf,
} from './decision.js';
import { checkNetworkSpec, INGRESS_VNI, lowestFreeVni } from './network-spec.js';
import { invalid, refuse } from './refuse.js';
import type { ReadonlyState } from './state.js';
import { allocateSubnets } from './subnets.js';

export const NETWORKS_MAX = 4_096;
export const ATTACHMENTS_PER_NODE_MAX = 4_096;

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

function createNetwork(state: ReadonlyState, command: CommandOf<'network_create'>): Decision {
  const { spec } = command;
  const { mtuBytes, vni: wantedVni } = checkNetworkSpec(spec);
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
  const [user] = [...state.addressesOn(network.id).values()].sort();
  if (user !== undefined)
    throw refuse(
      { code: 'SWARM_IN_USE', kind: 'network', id: network.id, by: `task ${user}` },
      `network ${network.id} is in use by task ${user}`,
    );
  const changes = [change(state, 'network', network.id, undefined)];
  if (state.row('cursor', network.id) !== undefined)
    changes.push(change(state, 'cursor', network.id, undefined));
  return { id: network.id, changes };
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
  const chosen = chooseAddresses(state, network, request.addresses);
  const attachment: KeyedAttachment = {
    id: command.id,
    ...newMeta(state, command.atMs),
    key: request.key,
    networkId: network.id,
    nodeId,
    name: request.name,
    aliases: request.aliases,
    addresses: chosen.map(({ subnet, address }) => `${address}/${cidrOf(subnet.subnet).prefix}`),
    mac: freeMac(state, network, chosen[0]?.address ?? ''),
  };
  const last = { ...state.row('cursor', network.id)?.last };
  for (const { subnet, address, wanted } of chosen) if (!wanted) last[subnet.subnet] = address;
  return {
    id: attachment.id,
    changes: [
      change(state, 'attachment', attachment.id, attachment),
      change(state, 'cursor', network.id, { id: network.id, last }),
    ],
  };
}

interface ChosenAddress {
  readonly subnet: Subnet;
  readonly address: string;
  readonly wanted: boolean;
}

/** One address of each family that the network has, IPv4 first. */
function chooseAddresses(
  state: ReadonlyState,
  network: NetworkObject,
  wanted: readonly string[],
): readonly ChosenAddress[] {
  const chosen = wanted.map((text) => checkedAddress(state, network, text));
  const families = new Set(network.subnets.map(({ subnet }) => cidrOf(subnet).family));
  for (const family of families) {
    const ofFamily = chosen.filter(({ subnet }) => cidrOf(subnet.subnet).family === family);
    if (ofFamily.length > 1)
      throw invalid(`several IPv${family} addresses were asked for: name one`);
    if (ofFamily.length === 0) chosen.push(freeAddress(state, network, family));
  }
  return chosen.sort((a, b) => Number(a.address.includes(':')) - Number(b.address.includes(':')));
}

function checkedAddress(state: ReadonlyState, network: NetworkObject, text: string): ChosenAddress {
  const address = canonicalAddress(text);
  if (address === undefined) throw invalid(`invalid address ${text}`);
  const subnet = subnetOf(network.subnets, address);
  if (subnet === undefined)
    throw invalid(`address ${address} is not in a subnet of network ${network.spec.name}`);
  const reservedFor = reservedAddresses(subnet).get(address);
  if (reservedFor !== undefined)
    throw invalid(`address ${address} is ${reservedFor} of network ${network.spec.name}`);
  const holder = state.addressesOn(network.id).get(address);
  if (holder !== undefined) {
    const row = state.row('attachment', holder);
    throw invalid(`address ${address} is already in use by task ${holder} (${row?.name ?? ''})`);
  }
  return { subnet, address, wanted: true };
}

function freeAddress(state: ReadonlyState, network: NetworkObject, family: 4 | 6): ChosenAddress {
  const used = state.addressesOn(network.id);
  const last = state.row('cursor', network.id)?.last ?? {};
  for (const subnet of network.subnets) {
    if (cidrOf(subnet.subnet).family !== family) continue;
    const address = nextFreeAddress(subnet, used, last[subnet.subnet]);
    if (address !== undefined) return { subnet, address, wanted: false };
  }
  throw exhausted(
    `IPv${family} address`,
    `no available IPv${family} address is left on network ${network.spec.name}`,
  );
}

/** MACs made from IPv4 differ by themselves inside subnets of up to /0; hashes may not. */
function freeMac(state: ReadonlyState, network: NetworkObject, address: string): string {
  const mac = macOf(address);
  if (!address.includes(':')) return mac;
  const used = new Set<string>();
  for (const id of state.addressesOn(network.id).values())
    used.add(state.row('attachment', id)?.mac ?? '');
  let salt = 0;
  let free = mac;
  while (used.has(free)) free = macOf(address, ++salt);
  return free;
}

function removeAttachment(state: ReadonlyState, command: CommandOf<'attachment_remove'>): Decision {
  const row = state.row('attachment', command.id);
  if (row === undefined) return { id: command.id, changes: [] };
  if (command.nodeId !== undefined && row.nodeId !== command.nodeId)
    throw refuse(
      { code: 'SWARM_NOT_FOUND', kind: 'attachment', ref: command.id },
      `attachment ${command.id} is not of this node`,
    );
  return { id: row.id, changes: [change(state, 'attachment', row.id, undefined)] };
}

function exhausted(what: string, message: string): SwarmError {
  return refuse({ code: 'SWARM_EXHAUSTED', what }, message);
}
