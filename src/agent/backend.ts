import { readFile, stat } from 'node:fs/promises';
import type { Backend, HostFacts, LocalAttachment, LocalSwarm, SwarmEvent } from '../api/index.js';
import { SwarmError } from '../base/swarm-error.js';
import type { AttachmentObject, NetworkObject } from '../base/swarm-model.js';
import { describeSnapshot, parseSnapshotFile, saveSnapshotFile } from '../control/index.js';
import type { StaticFacts } from './facts.js';
import { explainRecovery } from './recovery-report.js';
import { createServiceBackend } from './service-backend.js';
import type { SwarmNode } from './swarm-node.js';

export interface BackendOptions {
  readonly facts: StaticFacts;
  /** What would be used, said before there is a data path. */
  readonly plannedDriver: { readonly name: string; readonly reason: string };
  readonly node: SwarmNode;
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
      attributes: { name: attachment.networkName, container: attachment.id, type: 'overlay' },
    });

  return {
    ...createServiceBackend(node, () => {
      throw new SwarmError({ code: 'SWARM_UNSUPPORTED' }, 'no logs are kept here yet');
    }),
    facts: (): HostFacts => ({ ...options.facts, dataPathDriver: driverOf(options), warnings: [] }),
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
      tell({ kind: 'node', action: 'update', id, attributes: { name: spec.name } });
    },
    async removeNode(id, force) {
      await node.manager.removeNode(id, force);
      tell({ kind: 'node', action: 'remove', id, attributes: { name: id } });
    },

    networks: (): readonly NetworkObject[] =>
      node.active?.manager?.networks() ?? node.active?.assignments.networks ?? [],
    attachments: (): readonly AttachmentObject[] =>
      node.active?.manager?.attachments() ?? node.active?.assignments.attachments ?? [],
    async createNetwork(spec) {
      const network = await node.manager.createNetwork(spec);
      tell({
        kind: 'network',
        action: 'create',
        id: network.id,
        attributes: { name: spec.name, type: 'overlay' },
      });
      return network;
    },
    async removeNetwork(id) {
      const name = node.manager.networks().find((n) => n.id === id)?.spec.name ?? id;
      await node.manager.removeNetwork(id);
      tell({ kind: 'network', action: 'remove', id, attributes: { name, type: 'overlay' } });
    },

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
    async createSecret(spec, data) {
      const id = await node.manager.createSecret(spec, data);
      tell({ kind: 'secret', action: 'create', id, attributes: { name: spec.name } });
      return id;
    },
    async updateSecret(id, version, update) {
      await node.manager.updateSecret(id, version, update);
      tell({ kind: 'secret', action: 'update', id, attributes: { name: update.name } });
    },
    async removeSecret(id) {
      const name = node.manager.secrets().find((one) => one.id === id)?.spec.name ?? id;
      await node.manager.removeSecret(id);
      tell({ kind: 'secret', action: 'remove', id, attributes: { name } });
    },
    configs: () => node.active?.manager?.configs() ?? [],
    async createConfig(spec, data) {
      const id = await node.manager.createConfig(spec, data);
      tell({ kind: 'config', action: 'create', id, attributes: { name: spec.name } });
      return id;
    },
    async updateConfig(id, version, update) {
      await node.manager.updateConfig(id, version, update);
      tell({ kind: 'config', action: 'update', id, attributes: { name: update.name } });
    },
    async removeConfig(id) {
      const name = node.manager.configs().find((one) => one.id === id)?.spec.name ?? id;
      await node.manager.removeConfig(id);
      tell({ kind: 'config', action: 'remove', id, attributes: { name } });
    },

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

    status: () => options.status(),
    metrics: () => options.metrics(),
    onEvent(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
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
