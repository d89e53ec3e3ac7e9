import type { Backend, HostFacts, LocalAttachment, LocalSwarm, SwarmEvent } from '../api/index.js';
import { SwarmError } from '../base/swarm-error.js';
import type { AttachmentObject, NetworkObject, NodeObject, NodeView } from '../base/swarm-model.js';
import type { StaticFacts } from './facts.js';
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

function notYet(what: string): never {
  throw new SwarmError({ code: 'SWARM_UNSUPPORTED' }, `${what} is not supported yet`);
}

/** With one manager there is nothing to see of it that is not known. */
function viewOf({ manager, ...node }: NodeObject): NodeView {
  if (manager === undefined) return node;
  return {
    ...node,
    manager: { leader: true, reachability: 'reachable', address: manager.address },
  };
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
    facts: (): HostFacts => ({ ...options.facts, dataPathDriver: driverOf(options), warnings: [] }),
    swarm: (): LocalSwarm => node.describe(),
    init: (request) => node.init(request),
    join: (request) => node.join(request),
    leave: (force) => node.leave(force),
    async updateCluster(version, spec, rotate) {
      if (rotate.rootCa || rotate.managerUnlockKey || spec.autolock)
        notYet(rotate.rootCa ? 'rotating the root CA' : 'autolock');
      await node.manager.updateCluster(version, spec, rotate);
    },

    nodes: () => (node.active?.manager?.nodes() ?? []).map(viewOf),
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

    freshen: async () => ({}),
    unlockKey: async () => '',
    unlock: async () => notYet('autolock'),
    secrets: () => [],
    createSecret: async () => notYet('keeping secrets'),
    updateSecret: async () => notYet('keeping secrets'),
    removeSecret: async () => notYet('keeping secrets'),
    configs: () => [],
    createConfig: async () => notYet('keeping configs'),
    updateConfig: async () => notYet('keeping configs'),
    removeConfig: async () => notYet('keeping configs'),
    history: () => [],
    saveSnapshot: async () => notYet('saving a snapshot'),
    inspectSnapshot: async () => notYet('inspecting a snapshot'),
    restoreSnapshot: async () => notYet('restoring a snapshot'),
    explainRecovery: async () => notYet('recovering a swarm'),
    recover: async () => notYet('recovering a swarm'),

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
