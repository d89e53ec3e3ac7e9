import { readFile, stat } from 'node:fs/promises';
import type {
  Backend,
  ClassicVerbs,
  HostFacts,
  LocalAttachment,
  LocalSwarm,
  SwarmEvent,
  TaskLogQuery,
  TaskLogRecord,
} from '../api/index.js';
import { SwarmError } from '../base/swarm-error.js';
import type { AttachmentObject, NetworkObject } from '../base/swarm-model.js';
import { describeSnapshot, parseSnapshotFile, saveSnapshotFile } from '../control/index.js';
import type { ActiveSwarm } from './active-swarm.js';
import type { StaticFacts } from './facts.js';
import { portItems } from './ingress.js';
import { explainRecovery } from './recovery-report.js';
import { createServiceBackend } from './service-backend.js';
import { eventOf } from './swarm-events.js';
import type { SwarmNode } from './swarm-node.js';
import { taskLogs } from './task-logs.js';

export interface BackendOptions {
  readonly facts: StaticFacts;
  /** What would be used, said before there is a data path. */
  readonly plannedDriver: { readonly name: string; readonly reason: string };
  readonly ingressDriver: { readonly name: string; readonly reason: string };
  /** Each is one that `docker info` prints. */
  readonly warnings: readonly string[];
  readonly node: SwarmNode;
  readonly classic: ClassicVerbs;
  status(): unknown;
  metrics(): Promise<string>;
}

const DRIVER_NAMES = {
  native: 'native (TAP and UDP with segmentation and receive offload)',
  portable: 'portable (node:dgram)',
  memory: 'memory',
} as const;

export function driverName(kind: keyof typeof DRIVER_NAMES): string {
  return DRIVER_NAMES[kind];
}

/** What the Docker API asks for, answered from the node's place in its swarm. */
export function createBackend(options: BackendOptions): Backend {
  const { node } = options;
  const listeners = new Set<(event: SwarmEvent) => void>();
  const tell = (event: Omit<SwarmEvent, 'atMs'>) => {
    for (const listener of listeners) listener({ ...event, atMs: Date.now() });
  };
  const active = () => {
    const swarm = node.active;
    if (swarm === undefined)
      throw new SwarmError(
        { code: 'SWARM_INACTIVE' },
        'this node is in no swarm: init or join one first',
      );
    return swarm;
  };
  const tellAttachment = (action: 'connect' | 'disconnect', attachment: LocalAttachment) =>
    tell({
      kind: 'network',
      action,
      id: attachment.networkId,
      attributes: {
        name: attachment.networkName,
        container: attachment.container ?? attachment.id,
        type: 'overlay',
      },
    });

  node.onManager((manager) =>
    manager.onChange((changes) => {
      for (const change of changes) {
        const event = eventOf(change, Date.now());
        if (event !== undefined) for (const listener of listeners) listener(event);
      }
    }),
  );

  return {
    ...createServiceBackend(node, (query, signal) => logsOf(active(), query, signal)),
    facts: (): HostFacts => ({
      ...options.facts,
      dataPathDriver: driverOf(options),
      ingressDriver: options.ingressDriver,
      warnings: options.warnings,
    }),
    swarm: (): LocalSwarm => node.describe(),
    init: (request) => node.init(request),
    join: (request) => node.join(request),
    leave: (force) => node.leave(force),
    async updateCluster(version, spec, rotate) {
      const { workerToken, managerToken, managerUnlockKey, rootCa, givenRoot } = rotate;
      await node.manager.updateCluster(version, spec, {
        workerToken,
        managerToken,
        unlockKey: managerUnlockKey,
        root: rootCa,
        ...(givenRoot && { givenRoot }),
      });
    },
    freshen: async () => {
      // Else what a node lists while it returns would look as if there were nothing.
      await node.returned(RETURN_MS_MAX);
      const staleMs = await node.active?.manager?.fresh();
      return staleMs === undefined ? {} : { staleMs };
    },
    unlockKey: async () => node.manager.unlockKey() ?? '',
    unlock: (key) => node.unlock(key),

    nodes: () => node.active?.manager?.nodes() ?? [],
    async updateNode(id, version, spec) {
      await node.manager.updateNode(id, version, spec);
    },
    async removeNode(id, force) {
      await node.manager.removeNode(id, force);
    },

    networks: (): readonly NetworkObject[] =>
      node.active?.manager?.networks() ?? node.active?.assignments.networks ?? [],
    attachments: (): readonly AttachmentObject[] =>
      node.active?.manager?.attachments() ?? node.active?.assignments.attachments ?? [],
    createNetwork: async (spec) => node.manager.createNetwork(spec),
    removeNetwork: async (id) => node.manager.removeNetwork(id),

    async attach(request) {
      const attachment = await active().attach(request);
      tellAttachment('connect', attachment);
      return attachment;
    },
    async detach(request) {
      const gone = await active().detach(request);
      for (const attachment of gone) tellAttachment('disconnect', attachment);
      return gone;
    },
    localAttachments: () => node.active?.localAttachments() ?? [],

    secrets: () => node.active?.manager?.secrets() ?? [],
    createSecret: async (spec, data) => node.manager.createSecret(spec, data),
    updateSecret: async (id, version, update) => node.manager.updateSecret(id, version, update),
    removeSecret: async (id) => node.manager.removeSecret(id),
    configs: () => node.active?.manager?.configs() ?? [],
    createConfig: async (spec, data) => node.manager.createConfig(spec, data),
    updateConfig: async (id, version, update) => node.manager.updateConfig(id, version, update),
    removeConfig: async (id) => node.manager.removeConfig(id),

    history: ({ limit, object }) =>
      node.manager
        .history()
        .filter(
          (one) => object === undefined || [one.objectKind, one.id, one.name].includes(object),
        )
        .slice(-limit),
    saveSnapshot: async () => {
      await node.manager.fresh();
      return [saveSnapshotFile(node.manager)];
    },
    inspectSnapshot: async (path) => describeSnapshot(parseSnapshotFile(await readSnapshot(path))),
    restoreSnapshot: async (path) => ({
      nodeId: await node.restoreSnapshot(await readSnapshot(path)),
    }),
    explainRecovery: () => explainRecovery(node.manager),
    recover: async () => ({ nodeId: await node.forceNewCluster() }),

    clientCertificate: async ({ name, lifeMs }) =>
      node.manager.apiCertificate({ use: 'client', name, names: [], addresses: [], lifeMs }),

    classic: options.classic,
    flows: ({ service, limit }) => active().ingress.flows(service, limit),
    publishedPorts: () => portItems(active().ingress.stats().ports),
    status: () => options.status(),
    metrics: () => options.metrics(),
    onEvent(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** Lines of tasks, from all nodes that run them. */
function logsOf(
  swarm: ActiveSwarm,
  query: TaskLogQuery,
  signal: AbortSignal,
): AsyncIterable<TaskLogRecord> {
  const tasks = ({ serviceId, taskId }: Pick<TaskLogQuery, 'serviceId' | 'taskId'>) => {
    const { manager } = swarm;
    if (serviceId !== undefined) return manager?.tasksOfService(serviceId) ?? [];
    const task = taskId === undefined ? undefined : manager?.task(taskId);
    return task === undefined ? [] : [task];
  };
  const sources = {
    tasks,
    onTasks: (listener: () => void) => swarm.manager?.watch(listener) ?? (() => undefined),
    logs: swarm.nodeApi.logs.bind(swarm.nodeApi),
  };
  return taskLogs(sources, query, signal);
}

function driverOf({ node, plannedDriver }: BackendOptions): HostFacts['dataPathDriver'] {
  const dataplane = node.active?.dataplane;
  if (dataplane === undefined) return plannedDriver;
  return { name: driverName(dataplane.driver), reason: dataplane.reason };
}

/** How long a reader waits for a node that returns to its swarm. */
const RETURN_MS_MAX = 5_000;
/** A snapshot is held in memory as a whole. */
const SNAPSHOT_BYTES_MAX = 1 << 30;

async function readSnapshot(path: string): Promise<Uint8Array> {
  try {
    const { size } = await stat(path);
    if (size <= SNAPSHOT_BYTES_MAX) return await readFile(path);
  } catch (error) {
    throw new SwarmError(
      { code: 'SWARM_INVALID' },
      `${path} cannot be read: ${(error as Error).message}`,
    );
  }
  throw new SwarmError({ code: 'SWARM_INVALID' }, `${path} is too large for a snapshot`);
}
