import { assert } from '../../base/assert.js';
import type { AttachmentId } from '../../base/swarm-model.js';
import type { DispatchBackend } from '../dispatch/index.js';
import { trustBundle } from '../identity/index.js';
import { isNews } from '../store/index.js';
import type { KeyedAttachment } from '../wire/attachment.js';
import { newId } from './ids.js';
import { addressesOf, trustOf } from './manager-ca.js';
import { caOf, clusterOf, type ManagerScope, secretsOf } from './manager-scope.js';

export interface DispatchFacts {
  /** Raised when the swarm was made anew of one manager's copy. */
  readonly era: () => number;
  readonly leader: () => string | undefined;
  readonly stale: () => boolean;
}

/** What the dispatcher needs, from the replicated state. */
export function dispatchBackend(scope: ManagerScope, facts: DispatchFacts): DispatchBackend {
  const { replica, log } = scope;
  const { state } = replica;
  const row = (id: string): KeyedAttachment => {
    const attachment = state.row('attachment', id);
    assert(attachment !== undefined, 'an attachment that was made is there');
    return attachment;
  };
  return {
    log,
    self: scope.self,
    source: () => ({
      era: facts.era(),
      version: state.version,
      leader: facts.leader() as typeof scope.self | undefined,
      // Agents trust all roots of a rotation, while the cluster's own is what tokens name.
      cluster: { ...clusterOf(scope), rootCaPem: trustBundle(caOf(scope)) },
      gossipKeys: secretsOf(scope).gossipKeys,
      networks: state.rows('network'),
      nodes: state.rows('node'),
      services: state.rows('service'),
    }),
    own: (nodeId) => ({
      attachments: [...state.attachmentsOf(nodeId)].map(row),
      tasks: [...state.tasksOnNode(nodeId)].flatMap((id) => state.row('task', id) ?? []),
      service: (id) => state.row('service', id),
      secret: (id) => state.row('secret', id),
      config: (id) => state.row('config', id),
    }),
    node: (id) => state.row('node', id),
    isRemoved: (id) => state.row('removed', id) !== undefined,
    current: () => replica.raft.read(),
    stale: facts.stale,
    register: async (nodeId, registration, remoteAddress, session, peer) => {
      const { rootCaPem, certIssuerSubject, certIssuerPublicKey } = clusterOf(scope);
      const trust = trustOf({
        rootCaPem,
        certIssuerSubject: peer?.issuer.subject ?? certIssuerSubject,
        certIssuerPublicKey: peer?.issuer.publicKey ?? certIssuerPublicKey,
      });
      await scope.propose({
        kind: 'node_observe',
        nodeId,
        observation: {
          description: { ...registration.description, ...trust },
          ...addressesOf(registration, remoteAddress),
          ...(session && { session, state: 'ready', stateMessage: '' }),
        },
      });
    },
    attach: async (nodeId, request) => {
      const id = newId<AttachmentId>();
      return row((await scope.propose({ kind: 'attachment_create', id, nodeId, request })).id);
    },
    detach: async (nodeId, id) => {
      await scope.propose({ kind: 'attachment_remove', id, nodeId });
    },
    report: async (nodeId, all) => {
      // After a change of the manager a node tells everything again, most of which is known.
      const reports = all.filter(({ taskId, status }) => {
        const task = state.row('task', taskId);
        return task !== undefined && isNews(task, status, nodeId);
      });
      if (reports.length > 0) await scope.propose({ kind: 'task_status', nodeId, reports });
    },
    leave: async (nodeId) => {
      await scope.propose({ kind: 'node_leave', nodeId });
      log.info({ node: nodeId }, 'node left');
    },
    setState: async (nodeId, nodeState, stateMessage, ifSession) => {
      log.info({ node: nodeId, state: nodeState, stateMessage }, 'node changed');
      try {
        await scope.propose({
          kind: 'node_observe',
          nodeId,
          observation: { state: nodeState, stateMessage },
          ifSession,
        });
      } catch (error) {
        log.warn({ node: nodeId, err: error }, 'state of a node was not kept');
      }
    },
  };
}
