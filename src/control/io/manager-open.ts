import { randomBytes } from 'node:crypto';
import { assert } from '../../base/assert.js';
import { DEFAULT_CLUSTER_SPEC, DEFAULT_SUBNET_SIZE } from '../../base/swarm-defaults.js';
import { SwarmError } from '../../base/swarm-error.js';
import type { ClusterId, ClusterSpec, NetworkId, NodeId } from '../../base/swarm-model.js';
import { formatControlAddress } from '../dispatch/index.js';
import {
  createAuthority,
  initialCaState,
  issueCertificate,
  makeIdentity,
  type NodeIdentity,
  newJoinToken,
  peerIdOf,
  publicTrust,
  rawPublicKeyOf,
  renewalReason,
  saveIdentity,
} from '../identity/index.js';
import { generateUnlockKey, seedMembership, type Vault } from '../raft/index.js';
import { type CommandBody, checkClusterSpec, checkDefaultPools, ONLY_ROW } from '../store/index.js';
import { formatMemberContext } from '../wire/member-context.js';
import type { ControlAddress, NodeRegistration } from '../wire/model.js';
import { newId } from './ids.js';
import { Manager } from './manager.js';
import { addressesOf, certifiedRoleOf, trustOf } from './manager-ca.js';
import {
  newRaftId,
  openStorage,
  openVault,
  readMember,
  removeState,
  savedBy,
  writeMember,
} from './manager-disk.js';
import { ManagerGroup, type ManagerPlace } from './manager-group.js';
import { caOf } from './manager-scope.js';

/** Docker's default. */
const DEFAULT_ADDRESS_POOL: readonly string[] = ['10.0.0.0/8'];
const DEFAULT_DATA_PATH_PORT = 4789;
const GOSSIP_KEY_BYTES = 32;
/** How long the only manager may take to lead. */
const LEAD_MS_MAX = 10_000;
/** How long what is on the own disk may take to be applied, before a manager starts all the same. */
const APPLY_MS_MAX = 10_000;

export interface ManagerCreation extends ManagerPlace {
  readonly clusterSpec?: Partial<ClusterSpec>;
  readonly defaultAddressPool?: readonly string[];
  readonly subnetSize?: number;
  readonly dataPathPort?: number;
  readonly node: NodeRegistration;
}

export interface OpenedManager {
  readonly manager: Manager;
  readonly identity: NodeIdentity;
}

/**
 * Makes a new swarm, of which this node is the first member and manager.
 * @throws SwarmError `SWARM_INVALID`, `SWARM_UNSUPPORTED`, `SWARM_PORT_TAKEN`,
 *   `SWARM_BAD_ADDRESS`; nothing is left behind then.
 */
export async function createManager(o: ManagerCreation): Promise<OpenedManager> {
  const now = o.now ?? Date.now;
  const spec = { ...DEFAULT_CLUSTER_SPEC, ...o.clusterSpec };
  checkClusterSpec(spec);
  checkDefaultPools(
    o.defaultAddressPool ?? DEFAULT_ADDRESS_POOL,
    o.subnetSize ?? DEFAULT_SUBNET_SIZE,
  );
  const ca = initialCaState(await createAuthority(now()));
  const seed = randomBytes(32);
  const ids = { nodeId: newId<NodeId>(), clusterId: newId<ClusterId>() };
  const issued = await issueCertificate(ca, {
    ...ids,
    role: 'manager',
    publicKey: rawPublicKeyOf(seed),
    atMs: now(),
    lifeMs: spec.nodeCertExpiryMs,
  });
  const identity = makeIdentity(seed, issued.certPem, issued.caPem);
  assert(identity !== undefined, 'what was just issued is valid');
  const unlockKey = spec.autolock ? generateUnlockKey() : undefined;
  await removeState(o.dataDir);
  const vault = await openVault(o.dataDir, unlockKey);
  const member = { schema: 1, raftId: newRaftId(), era: 0 } as const;
  try {
    await writeMember(o.dataDir, member);
    await beginGroup(o, vault, member.raftId, ids.nodeId);
    const group = await ManagerGroup.open(o, { vault, member, identity });
    try {
      await leads(group);
      for (const command of firstCommands(o, spec, identity, ca, await publicTrust(ca), {
        raftId: member.raftId,
        unlockKey,
        advertised: group.advertised,
      }))
        await group.leader.propose({ ...command, atMs: now() });
      await group.replica.raft.snapshot();
      await saveIdentity(o.dataDir, identity, savedBy(vault));
      return { manager: new Manager(group, unlockKey), identity };
    } catch (error) {
      await group.close();
      throw error;
    }
  } catch (error) {
    await removeState(o.dataDir);
    throw error;
  }
}

async function beginGroup(
  o: ManagerPlace,
  vault: Vault,
  raftId: number,
  nodeId: NodeId,
): Promise<void> {
  const storage = await openStorage(o.dataDir, vault, o.log);
  const context = formatMemberContext({ nodeId, address: formatControlAddress(o.advertise) });
  try {
    const id = raftId as Parameters<typeof seedMembership>[1][number]['id'];
    await seedMembership(storage, [{ id, voter: true, context }]);
  } finally {
    await storage.close();
  }
}

async function leads(group: ManagerGroup): Promise<void> {
  const ready = () => group.leaderPlace()?.local === true;
  if (ready()) return;
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      end();
      reject(new Error('the only manager does not lead'));
    }, LEAD_MS_MAX);
    const end = group.replica.onStatus(() => {
      if (!ready()) return;
      clearTimeout(timer);
      end();
      resolve();
    });
  });
}

/**
 * Becomes one of a swarm's managers; the node has a manager's certificate already.
 * @throws SwarmError a refusal, or `SWARM_NO_MANAGER` when cancelled; RaftStorageError for the disk.
 */
export async function joinManagers(
  o: ManagerPlace & {
    readonly identity: NodeIdentity;
    readonly remotes: readonly ControlAddress[];
    readonly signal: AbortSignal;
  },
): Promise<Manager> {
  // Never the same member again: the others may remember what that one has said.
  await removeState(o.dataDir);
  const vault = await openVault(o.dataDir);
  const member = { schema: 1, raftId: newRaftId(), era: 0 } as const;
  await writeMember(o.dataDir, member);
  const group = await ManagerGroup.open(o, { vault, member, identity: o.identity });
  try {
    await group.join(o.remotes, o.signal);
    await group.replica.raft.snapshot();
    await saveIdentity(o.dataDir, o.identity, savedBy(vault));
    return new Manager(group, undefined);
  } catch (error) {
    await group.close();
    await removeState(o.dataDir);
    throw error;
  }
}

/** After a restart. @throws SwarmError `SWARM_PORT_TAKEN`, …; RaftStorageError for the disk. */
export async function openManager(
  o: ManagerPlace & {
    readonly identity: NodeIdentity;
    readonly vault: Vault;
    readonly unlockKey?: string | undefined;
  },
): Promise<OpenedManager> {
  const member = await readMember(o.dataDir);
  if (member === undefined)
    throw new SwarmError(
      { code: 'SWARM_INVALID' },
      `${o.dataDir} holds no state of a manager that this version can read: leave the swarm with --force, and join again`,
    );
  const group = await ManagerGroup.open(o, { vault: o.vault, member, identity: o.identity });
  try {
    // The log is applied in the background, and nobody shall be shown what came before it.
    const { commitIndex } = group.replica.status;
    await group.replica.waitApplied(commitIndex, AbortSignal.timeout(APPLY_MS_MAX));
    const cluster = group.replica.state.row('cluster', ONLY_ROW);
    if (cluster !== undefined && cluster.id !== o.identity.clusterId)
      throw new SwarmError(
        { code: 'SWARM_INVALID' },
        `${o.dataDir} holds the state of another swarm than the one that this node is in`,
      );
    if (cluster === undefined) await group.join(group.managers(), AbortSignal.timeout(LEAD_MS_MAX));
    const identity = await renewedByItself(o, group);
    return { manager: new Manager(group, o.unlockKey), identity };
  } catch (error) {
    await group.close();
    throw error;
  }
}

/** A manager that was off for long renews its certificate itself: it has the key of the CA. */
async function renewedByItself(o: ManagerPlace, group: ManagerGroup): Promise<NodeIdentity> {
  const { identity, replica, vault } = group;
  const nowMs = (o.now ?? Date.now)();
  const node = replica.state.row('node', identity.nodeId);
  const due = renewalReason(identity, { nowMs, fraction: 0.99 }) === 'age';
  if (!due || node === undefined || certifiedRoleOf(node) !== 'manager') return identity;
  const issued = await issueCertificate(caOf(group), {
    nodeId: identity.nodeId,
    clusterId: identity.clusterId,
    role: 'manager',
    publicKey: rawPublicKeyOf(identity.seed),
    atMs: nowMs,
    lifeMs: replica.state.row('cluster', ONLY_ROW)?.spec.nodeCertExpiryMs ?? 0,
  });
  const renewed = makeIdentity(identity.seed, issued.certPem, issued.caPem);
  assert(renewed !== undefined, 'what was just issued is valid');
  await saveIdentity(o.dataDir, renewed, savedBy(vault));
  group.useIdentity(renewed);
  o.log.info({ expiresAtMs: renewed.expiresAtMs }, 'own certificate renewed');
  return renewed;
}

/** What a new swarm begins with: itself, and this node. */
function firstCommands(
  o: ManagerCreation,
  spec: ClusterSpec,
  identity: NodeIdentity,
  ca: ReturnType<typeof initialCaState>,
  trust: Awaited<ReturnType<typeof publicTrust>>,
  own: {
    readonly raftId: number;
    readonly unlockKey: string | undefined;
    readonly advertised: ControlAddress;
  },
): readonly CommandBody[] {
  const { caPem, nodeId, clusterId } = identity;
  const key = (id: number) => ({ id, secret: randomBytes(GOSSIP_KEY_BYTES).toString('base64') });
  return [
    {
      kind: 'cluster_create',
      cluster: {
        id: clusterId,
        spec,
        defaultAddressPool: o.defaultAddressPool ?? DEFAULT_ADDRESS_POOL,
        subnetSize: o.subnetSize ?? DEFAULT_SUBNET_SIZE,
        dataPathPort: o.dataPathPort ?? DEFAULT_DATA_PATH_PORT,
        joinTokens: { worker: newJoinToken(caPem), manager: newJoinToken(caPem) },
        ...trust,
      },
      secrets: {
        ca,
        gossipKeys: [key(0), key(1)],
        gossipKeysRotatedAtMs: (o.now ?? Date.now)(),
        ulaPrefix: newUlaPrefix(),
        ...(own.unlockKey !== undefined && { unlockKey: own.unlockKey }),
      },
    },
    {
      kind: 'node_create',
      node: {
        id: nodeId,
        spec: { name: '', labels: {}, role: 'manager', availability: o.node.availability },
        description: { ...o.node.description, ...trustOf(trust) },
        state: 'ready',
        stateMessage: '',
        peerId: peerIdOf(rawPublicKeyOf(identity.seed)),
        manager: { raftId: own.raftId, address: formatControlAddress(own.advertised) },
        ...addressesOf(o.node, own.advertised.address),
      },
    },
    { kind: 'ingress_create', id: newId<NetworkId>() },
    { kind: 'ingress_attach' },
  ];
}

/** RFC 4193: fd and forty random bits. */
function newUlaPrefix(): string {
  const hex = randomBytes(5).toString('hex');
  return `fd${hex.slice(0, 2)}:${hex.slice(2, 6)}:${hex.slice(6, 10)}::/48`;
}
