import type { ContainerSpec, TaskObject, TaskSpec } from '../../src/base/service-model.js';
import type { NetworkId, NodeId, ServiceId, TaskId } from '../../src/base/swarm-model.js';

/** What a test says of a task; all else is ordinary. */
export interface TaskWish extends Partial<Omit<TaskObject, 'id' | 'spec'>> {
  readonly id?: string;
  readonly container?: Partial<ContainerSpec>;
  readonly spec?: Partial<TaskSpec>;
}

export function taskId(name: string): TaskId {
  return name.padEnd(25, '0') as TaskId;
}

/** A task of the service `web` for this node, as it comes from a manager; without networks. */
export function taskObject(wish: TaskWish = {}): TaskObject {
  const { id = 'task', container = {}, spec = {}, ...rest } = wish;
  return {
    id: taskId(id),
    version: 1,
    createdAtMs: 1_795_000_000_000,
    updatedAtMs: 1_795_000_000_000,
    serviceId: taskId('service') as string as ServiceId,
    serviceName: 'web',
    serviceLabels: {},
    slot: 1,
    nodeId: taskId('node') as string as NodeId,
    spec: { container: { image: 'host', command: ['sleep', '1000'], ...container }, ...spec },
    specVersion: 1,
    desiredState: 'running',
    status: { state: 'assigned', atMs: 0, message: 'scheduler assigned task to node' },
    networks: [],
    ports: [],
    ...rest,
  };
}

/** A place on the network `mesh`. */
export const MESH: TaskObject['networks'] = [
  {
    networkId: taskId('mesh') as string as NetworkId,
    attachmentId: taskId('attachment'),
    addresses: ['10.0.1.5/24'],
    mac: '02:42:0a:00:01:05',
    aliases: [],
  },
];
