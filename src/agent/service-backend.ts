import type { ServiceBackend } from '../api/index.js';
import type { Manager } from '../control/index.js';

/** What the Docker API needs of the node. */
export interface ServiceNode {
  /** Throws where this node is none. */
  readonly manager: Manager;
  readonly active: { readonly manager?: Manager | undefined } | undefined;
}

/** What the Docker API asks for services and tasks, answered by the manager that this node is. */
export function createServiceBackend(
  node: ServiceNode,
  logs: ServiceBackend['logs'],
): ServiceBackend {
  const here = () => node.active?.manager;
  return {
    services: () => here()?.services() ?? [],
    service: (id) => here()?.service(id),
    tasks: () => here()?.tasks() ?? [],
    task: (id) => here()?.task(id),
    tasksOfService: (id) => here()?.tasksOfService(id) ?? [],
    isUpToDate: (service, task) => here()?.isUpToDate(service, task) ?? false,
    createService: async (spec, auth) => node.manager.createService(spec, auth),
    updateService: async (id, version, update) => node.manager.updateService(id, version, update),
    removeService: async (id) => node.manager.removeService(id),
    logs,
  };
}
