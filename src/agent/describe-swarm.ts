import type { LocalSwarm } from '../api/index.js';
import type { ActiveSwarm } from './active-swarm.js';
import { formatHostPort } from './addresses.js';

/** What there is to say of a node that is in no swarm, but for its state. */
export const NO_SWARM = {
  nodeId: '',
  nodeAddress: '',
  error: '',
  controlAvailable: false,
  remoteManagers: [],
} as const;

/** The swarm as `docker info` shows it on one of its nodes. */
export function describeActive(swarm: ActiveSwarm, nodeAddress: string): LocalSwarm {
  const { identity, manager, assignments } = swarm;
  const ids = assignments.nodes.filter((node) => node.role === 'manager').map((node) => node.id);
  const addresses = assignments.cluster.managers;
  const described = {
    state: 'active' as const,
    nodeId: identity.nodeId,
    nodeAddress,
    error: '',
    controlAvailable: manager !== undefined,
    remoteManagers: addresses.map((address, i) => ({
      nodeId: ids[i] ?? '',
      address: formatHostPort(address),
    })),
  };
  if (manager === undefined) return described;
  const nodes = manager.nodes();
  return {
    ...described,
    nodes: nodes.length,
    managers: nodes.filter((node) => node.manager !== undefined).length,
    cluster: manager.cluster(),
  };
}
