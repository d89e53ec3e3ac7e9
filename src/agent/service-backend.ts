import type { ServiceBackend } from '../api/index.js';
import { SwarmError } from '../base/swarm-error.js';

const refuse = (): never => {
  throw new SwarmError(
    { code: 'SWARM_UNSUPPORTED' },
    'this version of shoal keeps no services yet',
  );
};

/** What the Docker API asks for services and tasks. */
export function createServiceBackend(): ServiceBackend {
  return {
    services: () => [],
    service: () => undefined,
    tasks: () => [],
    task: () => undefined,
    tasksOfService: () => [],
    isUpToDate: () => false,
    createService: async () => refuse(),
    updateService: async () => refuse(),
    removeService: async () => refuse(),
    logs: refuse,
  };
}
