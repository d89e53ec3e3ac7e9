import type { TaskObject, TaskSpec } from '../../../src/base/service-model.js';
import type { NodeId, NodeObject, ServiceId, TaskId } from '../../../src/base/swarm-model.js';

const META = { version: 1, createdAtMs: 0, updatedAtMs: 0 };

export interface NodeWish {
  readonly labels?: Readonly<Record<string, string>>;
  readonly engineLabels?: Readonly<Record<string, string>>;
  readonly availability?: 'active' | 'pause' | 'drain';
  readonly state?: NodeObject['state'];
  readonly role?: 'worker' | 'manager';
  readonly address?: string;
  readonly nanoCpus?: number;
  readonly memoryBytes?: number;
  readonly architecture?: string;
  readonly plugins?: NodeObject['description']['plugins'];
  readonly genericResources?: NodeObject['description']['genericResources'];
}

/** A node that is ready, called as its id. */
export function nodeOf(id: string, wish: NodeWish = {}): NodeObject {
  const { genericResources } = wish;
  return {
    ...META,
    id: id as NodeId,
    spec: {
      name: '',
      labels: wish.labels ?? {},
      role: wish.role ?? 'worker',
      availability: wish.availability ?? 'active',
    },
    description: {
      hostname: id,
      os: 'linux',
      architecture: wish.architecture ?? 'x86_64',
      nanoCpus: wish.nanoCpus ?? 4e9,
      memoryBytes: wish.memoryBytes ?? 8e9,
      ...(genericResources && { genericResources }),
      engineVersion: '1',
      engineLabels: wish.engineLabels ?? {},
      plugins: wish.plugins ?? [{ type: 'Network', name: 'overlay' }],
      trustRootPem: '',
      certIssuerSubject: '',
      certIssuerPublicKey: '',
    },
    state: wish.state ?? 'ready',
    stateMessage: '',
    address: wish.address ?? '10.1.0.1',
    dataPathAddress: '',
    gossipAddress: '',
    gossipPort: 7946,
    peerId: id,
  };
}

export interface TaskWish extends Partial<TaskObject> {
  readonly taskSpec?: Partial<TaskSpec>;
}

/** A task of the service `web` that waits for a place. */
export function taskOf(id: string, { taskSpec, ...wish }: TaskWish = {}): TaskObject {
  return {
    ...META,
    id: id as TaskId,
    serviceId: 'web' as ServiceId,
    serviceName: 'web',
    serviceLabels: {},
    slot: 1,
    spec: { container: { image: 'web' }, ...taskSpec },
    specVersion: 1,
    desiredState: 'running',
    status: { state: 'pending', atMs: 0, message: 'pending task scheduling' },
    networks: [],
    ports: [],
    ...wish,
  };
}
