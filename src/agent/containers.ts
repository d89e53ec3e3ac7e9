import {
  type ContainerBackend,
  type ContainerNetworks,
  HOP_HEADER,
  type Upstream,
} from '../api/index.js';
import { isTerminal, type TaskObject, taskName } from '../base/service-model.js';
import { SwarmError } from '../base/swarm-error.js';
import type { Runtime } from '../runtime/index.js';
import type { Engine } from './engine.js';
import { hostContainers } from './host-containers.js';
import { DOCKER_PREFIX } from './node-api.js';
import type { SwarmNode } from './swarm-node.js';

/** Of an id, to stand for it. */
const PREFIX_CHARS_MIN = 6;

/** Where the containers are that the API is asked about. */
export function createContainerBackend(
  node: SwarmNode,
  engine: Engine | undefined,
  host: Runtime | undefined,
  networks: ContainerNetworks | undefined,
): ContainerBackend {
  return {
    engine: () => engine,
    ...(networks && { networks }),
    ...(host && { host: hostContainers(host, (id) => node.active?.manager?.task(id)) }),
    elsewhere(ref) {
      const manager = node.active?.manager;
      if (manager === undefined) return undefined;
      const task = findTask(manager.tasks(), ref);
      if (task?.nodeId === undefined || task.nodeId === node.active?.identity.nodeId) {
        return undefined;
      }
      return { nodeId: task.nodeId, containerId: task.status.container?.id ?? taskName(task) };
    },
    node: (nodeId) => nodeUpstream(node, nodeId, DOCKER_PREFIX),
  };
}

/** Docker's API of another node, through a tunnel. */
export function nodeUpstream(node: SwarmNode, nodeId: string, prefix: string): Upstream {
  return {
    name: `node ${nodeId}`,
    nodeId,
    prefix,
    // What its engine does not speak it brings down itself.
    apiVersion: '1.45',
    headers: { [HOP_HEADER]: '1' },
    async connect(signal) {
      const { active } = node;
      if (active === undefined)
        throw new SwarmError({ code: 'SWARM_INACTIVE' }, 'this node is in no swarm any more');
      return active.gossip.openTunnel(nodeId, signal);
    },
  };
}

/** By the name of its container, or the beginning of its id or of the container's. */
export function findTask(tasks: readonly TaskObject[], ref: string): TaskObject | undefined {
  const name = ref.replace(/^\//, '');
  const byName = tasks.find((task) => taskName(task) === name);
  if (byName !== undefined || name.length < PREFIX_CHARS_MIN) return byName;
  const matches = tasks.filter(
    ({ id, status }) => id.startsWith(name) || status.container?.id.startsWith(name) === true,
  );
  const running = matches.filter(({ status }) => !isTerminal(status.state));
  const candidates = running.length > 0 ? running : matches;
  return candidates.length === 1 ? candidates[0] : undefined;
}
