import type { NetworkSpec, NodeObject } from '../../../base/swarm-model.js';
import { AddressPlan } from './address-plan.js';
import { createNetwork } from './decide-network.js';
import { type CommandOf, change, type Decision, secretsOf } from './decision.js';
import { type Change, ONLY_ROW, type ReadonlyState } from './state.js';
import { attachmentRow, INGRESS_KEY, ingressOf } from './task-places.js';

/** Nodes of one command: each costs a search for a free address. */
const NODES_PER_COMMAND_MAX = 256;

export function decideIngress(
  state: ReadonlyState,
  command: CommandOf<'ingress_create' | 'ingress_attach'>,
): Decision {
  return command.kind === 'ingress_create' ? create(state, command) : attach(state, command);
}

/** Once in the life of a swarm: whoever removes the network does so because he wants none, or another. */
function create(state: ReadonlyState, command: CommandOf<'ingress_create'>): Decision {
  const { id, atMs } = command;
  const changes: Change[] = [];
  if (ingressOf(state) === undefined && state.row('network', id) === undefined) {
    const spec = ingressSpec(freeName(state));
    changes.push(...createNetwork(state, { kind: 'network_create', id, spec, atMs }).changes);
  }
  const secrets = secretsOf(state);
  if (secrets.ingressMade !== true)
    changes.push(change(state, 'secrets', ONLY_ROW, { ...secrets, ingressMade: true }));
  return { id, changes };
}

function ingressSpec(name: string): NetworkSpec {
  return {
    name,
    labels: {},
    driver: 'overlay',
    driverOptions: {},
    attachable: false,
    internal: false,
    ingress: true,
    ipv6: false,
    ipamDriver: 'default',
    ipamOptions: {},
    ipam: [],
  };
}

/** In a swarm from before there was ingress a network may have the name. */
function freeName(state: ReadonlyState): string {
  const names = new Set([...state.rows('network')].map(({ spec }) => spec.name));
  let name = 'ingress';
  for (let n = 2; names.has(name); n++) name = `ingress${n}`;
  return name;
}

/** Every node is on the ingress network, so that it can give connections to tasks of other nodes. */
function attach(state: ReadonlyState, { atMs }: CommandOf<'ingress_attach'>): Decision {
  const ingress = ingressOf(state);
  if (ingress === undefined) return { id: '', changes: [] };
  const plan = new AddressPlan(state);
  const changes: Change[] = [];
  for (const node of lackingIngress(state).slice(0, NODES_PER_COMMAND_MAX)) {
    try {
      const row = attachmentRow(state, plan, ingress, {
        key: INGRESS_KEY,
        nodeId: node.id,
        name: `ingress-${node.description.hostname}`,
        aliases: [],
        atMs,
      });
      changes.push(change(state, 'attachment', row.id, row));
    } catch {
      // The network is full: the others wait until something is free.
      break;
    }
  }
  return { id: ingress.id, changes: [...changes, ...plan.changes()] };
}

/** Nodes that are to be on the ingress network and are not, if there is one; sorted. */
export function lackingIngress(state: ReadonlyState): readonly NodeObject[] {
  if (ingressOf(state) === undefined) return [];
  return [...state.rows('node')]
    .filter(
      ({ id, state: nodeState }) =>
        nodeState !== 'down' && state.attachmentByKey(id, INGRESS_KEY) === undefined,
    )
    .sort((a, b) => (a.id < b.id ? -1 : 1));
}
