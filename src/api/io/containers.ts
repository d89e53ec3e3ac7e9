import type { ContainerNetworks } from '../core/container-networks.js';
import type { HostContainers } from '../core/host-containers.js';
import type { Upstream } from './upstream.js';

/** What the API needs of the agent for containers. */
export interface ContainerBackend {
  /** This host's engine, to which everything goes that is not the swarm's. */
  engine(): Upstream | undefined;
  /** The engine's containers on the swarm's overlays. */
  readonly networks?: ContainerNetworks;
  /** Tasks of this host that are in no engine. */
  readonly host?: HostContainers;
  /**
   * The node that runs the task whose container is called so, by name or by the beginning of its id
   * or of the task's; `undefined`: this one, none, or more than one. Of managers.
   */
  elsewhere(ref: string): { readonly nodeId: string; readonly containerId: string } | undefined;
  /** Docker's API of another node's containers. */
  node(nodeId: string): Upstream;
}
