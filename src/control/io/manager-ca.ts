import type { NodeId, NodeObject } from '../../base/swarm-model.js';
import type { CaServerBackend } from '../identity/index.js';
import { type IssuedCertificate, issueCertificate, publicTrust } from '../identity/index.js';
import type { ControlAddress, NodeRegistration } from '../wire/model.js';
import { newId } from './ids.js';
import { caOf, clusterOf, type ManagerScope } from './manager-scope.js';

/** What the CA's protocol needs, from the replicated state; any manager can answer. */
export function caBackend(
  scope: ManagerScope,
  managers: () => readonly ControlAddress[],
): CaServerBackend {
  const { replica, log, clusterId } = scope;
  return {
    clusterId,
    log,
    nowMs: scope.now,
    ca: () => caOf(scope),
    joinTokens: () => clusterOf(scope).joinTokens,
    managers,
    isRemoved: (node) => replica.state.row('removed', node) !== undefined,
    member: async (nodeId) => {
      await replica.raft.read();
      const node = replica.state.row('node', nodeId);
      return node && { role: certifiedRoleOf(node), peerId: node.peerId };
    },
    issue: (nodeId, role, publicKey) => issue(scope, nodeId, role, publicKey),
    admit: async (role, peerId, registration, remoteAddress) => {
      const trust = await publicTrust(caOf(scope));
      const { id } = await scope.propose({
        kind: 'node_create',
        node: {
          id: newId<NodeId>(),
          spec: { name: '', labels: {}, role, availability: registration.availability },
          description: { ...registration.description, ...trustOf(trust) },
          state: 'unknown',
          stateMessage: '',
          peerId,
          ...addressesOf(registration, remoteAddress),
        },
      });
      log.info({ node: id, role, remoteAddress }, 'node joined');
      const node = replica.state.row('node', id);
      return { nodeId: id as NodeId, role: node === undefined ? role : certifiedRoleOf(node) };
    },
  };
}

/** A member of the raft group keeps a manager's certificate until it is out of the group. */
export function certifiedRoleOf(node: NodeObject): 'manager' | 'worker' {
  return node.spec.role === 'manager' || node.manager !== undefined ? 'manager' : 'worker';
}

export function issue(
  scope: ManagerScope,
  nodeId: NodeId,
  role: 'manager' | 'worker',
  publicKey: Uint8Array,
): Promise<IssuedCertificate> {
  return issueCertificate(caOf(scope), {
    nodeId,
    role,
    publicKey,
    clusterId: scope.clusterId,
    atMs: scope.now(),
    lifeMs: clusterOf(scope).spec.nodeCertExpiryMs,
  });
}

export function trustOf(trust: {
  readonly rootCaPem: string;
  readonly certIssuerSubject: string;
  readonly certIssuerPublicKey: string;
}): Pick<NodeObject['description'], 'trustRootPem' | 'certIssuerSubject' | 'certIssuerPublicKey'> {
  const { rootCaPem, certIssuerSubject, certIssuerPublicKey } = trust;
  return { trustRootPem: rootCaPem, certIssuerSubject, certIssuerPublicKey };
}

/** What the node left open is as the manager sees it. */
export function addressesOf(
  registration: NodeRegistration,
  remoteAddress: string,
): Pick<NodeObject, 'address' | 'dataPathAddress' | 'gossipAddress' | 'gossipPort'> {
  const address = registration.address || remoteAddress;
  return {
    address,
    dataPathAddress: registration.dataPathAddress || address,
    gossipAddress: registration.gossipAddress || address,
    gossipPort: registration.gossipPort,
  };
}
