import { createHash, randomBytes } from 'node:crypto';
import { z } from 'zod';
import { assert } from '../../base/assert.js';
import { SwarmError } from '../../base/swarm-error.js';
import type { NodeId } from '../../base/swarm-model.js';
import type { Logger } from '../core/logger.js';
import { formatControlAddress } from '../dispatch/index.js';
import {
  issueCertificate,
  makeIdentity,
  type NodeIdentity,
  parseCaState,
  publicTrust,
  rawPublicKeyOf,
} from '../identity/index.js';
import { type Membership, seedMembership, type Vault } from '../raft/index.js';
import { inspectSnapshot, ONLY_ROW } from '../store/index.js';
import { formatMemberContext } from '../wire/member-context.js';
import type { ControlAddress, NodeRegistration } from '../wire/model.js';
import { newId } from './ids.js';
import type { Manager } from './manager.js';
import { addressesOf, trustOf } from './manager-ca.js';
import {
  type MemberFile,
  newRaftId,
  openStorage,
  readMember,
  writeMember,
} from './manager-disk.js';
import { caOf, type ManagerScope } from './manager-scope.js';

/** Longest first line of a snapshot file. */
const HEAD_BYTES_MAX = 4_096;

const headSchema = z.object({
  format: z.literal('shoal-snapshot'),
  schema: z.literal(1),
  clusterId: z.string(),
  /** The store's. */
  version: z.int().min(0),
  /** See `AssignmentsSource.era`. */
  era: z.int().min(0),
  index: z.int().min(0),
  term: z.int().min(0),
  createdAtMs: z.number(),
  sizeBytes: z.int().min(0),
  sha256: z.string().length(64),
});

/** The first line of a snapshot file; the encoded state follows. */
export type SnapshotHead = z.infer<typeof headSchema>;

/** The whole state as one file, with all secrets of the swarm in the clear. */
export function saveSnapshotFile(manager: Manager): Uint8Array {
  const { replica, member } = manager.group;
  const { appliedIndex, term } = replica.status;
  const data = Buffer.concat([...manager.capture()]);
  const head: SnapshotHead = {
    format: 'shoal-snapshot',
    schema: 1,
    clusterId: manager.cluster().id,
    version: replica.state.version,
    era: member.era,
    index: appliedIndex,
    term,
    createdAtMs: Date.now(),
    sizeBytes: data.length,
    sha256: createHash('sha256').update(data).digest('hex'),
  };
  return Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), data]);
}

export interface SnapshotFile {
  readonly head: SnapshotHead;
  readonly data: Uint8Array;
}

/** @throws SwarmError `SWARM_INVALID`: it is no whole snapshot file. */
export function parseSnapshotFile(bytes: Uint8Array): SnapshotFile {
  const end = bytes.subarray(0, HEAD_BYTES_MAX).indexOf(0x0a);
  const head = headSchema.safeParse(parsed(bytes.subarray(0, Math.max(0, end)))).data;
  if (head === undefined)
    throw invalid('the file is no snapshot of a swarm: save one with shoal snapshot save');
  const data = bytes.subarray(end + 1);
  if (data.length !== head.sizeBytes)
    throw invalid(`the snapshot is not whole: ${data.length} of ${head.sizeBytes} bytes are there`);
  if (createHash('sha256').update(data).digest('hex') !== head.sha256)
    throw invalid('the snapshot is damaged: its checksum is not that of its contents');
  return { head, data };
}

/** What a snapshot file holds, for people: no secrets. */
export function describeSnapshot({ head, data }: SnapshotFile): object {
  const { state, rows } = inspectSnapshot(data);
  return {
    ...head,
    createdAt: new Date(head.createdAtMs).toISOString(),
    cluster: state.row('cluster', ONLY_ROW)?.spec.name,
    objects: rows,
    nodes: [...state.rows('node')].map(({ id, spec, description, manager }) => ({
      id,
      hostname: description.hostname,
      role: spec.role,
      ...(manager && { manager: manager.address }),
    })),
    networks: [...state.rows('network')].map(({ id, spec, vni }) => ({ id, name: spec.name, vni })),
    secrets: [...state.rows('secret')].map(({ spec }) => spec.name),
    configs: [...state.rows('config')].map(({ spec }) => spec.name),
  };
}

export interface RecoveryPlace {
  readonly dataDir: string;
  readonly log: Logger;
  readonly vault: Vault;
  readonly nodeId: NodeId;
  readonly advertise: ControlAddress;
}

const membersOf = (raftId: number, { nodeId, advertise }: RecoveryPlace): Membership => [
  {
    id: raftId as Membership[number]['id'],
    voter: true,
    context: formatMemberContext({ nodeId, address: formatControlAddress(advertise) }),
  },
];

/**
 * Makes this node the only manager of what it holds, on the disk; no manager may run on it. What most
 * of the lost managers had and this one did not is gone. Opened anew, it leads at once.
 */
export async function forceNewGroup(place: RecoveryPlace): Promise<MemberFile> {
  const before = await readMember(place.dataDir);
  if (before === undefined)
    throw invalid('this node holds no state of a manager: there is nothing to recover');
  const member: MemberFile = { schema: 1, raftId: newRaftId(), era: before.era + 1 };
  const storage = await openStorage(place.dataDir, place.vault, place.log);
  try {
    await seedMembership(storage, membersOf(member.raftId, place));
  } finally {
    await storage.close();
  }
  await writeMember(place.dataDir, member);
  return member;
}

/** Makes this node the only manager of what a snapshot file holds. The folder of the state must be gone. */
export async function restoreGroup(
  place: RecoveryPlace,
  { head, data }: SnapshotFile,
  era: number,
): Promise<MemberFile> {
  const member: MemberFile = { schema: 1, raftId: newRaftId(), era: Math.max(era, head.era) + 1 };
  await writeMember(place.dataDir, member);
  const storage = await openStorage(place.dataDir, place.vault, place.log);
  const meta = { index: 1, term: 1, members: membersOf(member.raftId, place) };
  try {
    const writer = await storage.receiveSnapshot(meta, data.length);
    if (writer.offsetBytes < data.length) await writer.write(data.subarray(writer.offsetBytes));
    await writer.finish();
    await new Promise<void>((resolve, reject) => {
      const hardState = { term: 1, vote: 0, commitIndex: 1 } as const;
      storage.write({ entries: [], reset: meta, hardState }, (failure) => {
        if (failure === undefined) resolve();
        else reject(failure.kind === 'failed' ? failure.error : invalid('the disk is full'));
      });
    });
  } finally {
    await storage.close();
  }
  return member;
}

/**
 * On the new only manager: those who were managers are workers until they are promoted again, since
 * none of them is in the group.
 */
export async function settleRecovered(
  scope: ManagerScope,
  own: { readonly raftId: number; readonly address: string },
  registration: NodeRegistration,
): Promise<void> {
  const { replica, self, propose, identity } = scope;
  if (replica.state.row('node', self) === undefined)
    await propose({
      kind: 'node_create',
      node: {
        id: self,
        spec: { name: '', labels: {}, role: 'manager', availability: registration.availability },
        description: { ...registration.description, ...trustOf(await publicTrust(caOf(scope))) },
        state: 'unknown',
        stateMessage: '',
        peerId: identity().peerId,
        manager: own,
        ...addressesOf(registration, registration.address),
      },
    });
  else await propose({ kind: 'node_role', nodeId: self, role: 'manager', manager: own });
  for (const { id, version, spec } of [...replica.state.rows('node')])
    if (id !== self && spec.role === 'manager')
      await propose({
        kind: 'node_update',
        nodeId: id,
        version,
        spec: { ...spec, role: 'worker' },
      });
}

/**
 * An identity for a node that is in no swarm yet, by the CA that the snapshot has.
 * @throws SwarmError `SWARM_INVALID`: the snapshot has no CA.
 */
export async function identityOf({ data }: SnapshotFile, nowMs: number): Promise<NodeIdentity> {
  const { state } = inspectSnapshot(data);
  const cluster = state.row('cluster', ONLY_ROW);
  const ca = parseCaState(state.row('secrets', ONLY_ROW)?.ca);
  if (cluster === undefined || ca === undefined) throw invalid('the snapshot holds no swarm');
  const seed = randomBytes(32);
  const issued = await issueCertificate(ca, {
    nodeId: newId<NodeId>(),
    clusterId: cluster.id,
    role: 'manager',
    publicKey: rawPublicKeyOf(seed),
    atMs: nowMs,
    lifeMs: cluster.spec.nodeCertExpiryMs,
  });
  const identity = makeIdentity(seed, issued.certPem, issued.caPem);
  assert(identity !== undefined, 'what was just issued is valid');
  return identity;
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}

function invalid(message: string): SwarmError {
  return new SwarmError({ code: 'SWARM_INVALID' }, message);
}
