import { type ContainerSpec, type TaskObject, taskName } from '../base/service-model.js';
import { expandContainer, type NodeFacts } from '../base/templates.js';
import type { RuntimeTask } from '../runtime/index.js';
import { resourceVariables } from './generic-resources.js';
import { type Blobs, expandBlobs } from './task-templates.js';

/** Networks that every node has of its own; their names are in the place of an id. */
const OF_THE_NODE = new Set(['host', 'bridge', 'none']);

/**
 * A task as a runtime is to run it.
 *
 * @throws Error with what can never work as asked.
 */
export function runtimeTaskOf(
  task: TaskObject & { readonly registryAuth?: string },
  node: NodeFacts,
  blobs: Blobs,
): RuntimeTask {
  const container = expandContainer(task, node);
  const { secrets, configs } = expandBlobs(task, container, node, blobs);
  const { resources, logDriver } = task.spec;
  const name = taskName(task);
  return {
    id: task.id,
    name,
    container: withVariables(container, resourceVariables(task.assignedResources ?? [])),
    ...(resources !== undefined && { resources }),
    ...(logDriver !== undefined && { logDriver }),
    labels: {
      ...container.labels,
      'com.docker.swarm.node.id': node.id,
      'com.docker.swarm.service.id': task.serviceId,
      'com.docker.swarm.service.name': task.serviceName,
      'com.docker.swarm.task': '',
      'com.docker.swarm.task.id': task.id,
      'com.docker.swarm.task.name': name,
    },
    secrets,
    configs,
    network: networkOf(task),
    hosts: task.networks.flatMap(({ addresses }) =>
      addresses.map((cidr) => ({ address: cidr.replace(/\/.*$/, ''), name: '' })),
    ),
    ...(task.registryAuth !== undefined && { registryAuth: task.registryAuth }),
  };
}

/** After the user's own, as with Docker. */
function withVariables(container: ContainerSpec, variables: readonly string[]): ContainerSpec {
  return variables.length === 0
    ? container
    : { ...container, env: [...(container.env ?? []), ...variables] };
}

function networkOf(task: TaskObject): RuntimeTask['network'] {
  if (task.networks.length > 0) return 'resolver';
  const [first] = (task.spec.networks ?? []).map(({ target }) => target as string);
  if (first !== undefined && !OF_THE_NODE.has(first)) return 'resolver';
  return first === 'host' ? 'host' : 'isolated';
}

/** What a task waits for that only a manager can give; `undefined`: nothing. */
export function lackOf(task: TaskObject, blobs: Blobs): string | undefined {
  const { secrets = [], configs = [] } = task.spec.container;
  const secret = secrets.find(({ secretId }) => !blobs.secrets.has(secretId));
  if (secret !== undefined) return `waiting for secret ${secret.secretName} from a manager`;
  const config = configs.find(({ configId }) => !blobs.configs.has(configId));
  return config && `waiting for config ${config.configName} from a manager`;
}
