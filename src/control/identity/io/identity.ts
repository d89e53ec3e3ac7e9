import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import { makePrivateFolder, readFileIfAny, writeFileAtomic } from '../../io/files.js';
import { peerIdOf } from '../core/peer-id.js';
import {
  type CertifiedNode,
  certificatesOf,
  type IssuerFacts,
  publicKeyOf,
  readNodeCertificate,
} from './certificates.js';
import { privateKeyOf, rawPublicKeyOf } from './keys.js';

const SEED_BYTES = 32;

/** Who a node is: its key, which stays, and the certificate that the swarm gave for it. */
export interface NodeIdentity {
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly role: NodeRole;
  /** 32 bytes; the Ed25519 key for TLS and libp2p alike. */
  readonly seed: Uint8Array;
  readonly peerId: string;
  readonly keyPem: string;
  /** The node's certificate, and the intermediates that it shows with it. */
  readonly certPem: string;
  /** All roots that the node trusts; more than one while the swarm changes its root. */
  readonly caPem: string;
  readonly notBeforeMs: number;
  readonly expiresAtMs: number;
  /** What signed the certificate. */
  readonly issuer: IssuerFacts;
}

function certifiedBy(certPem: string, caPem: string): CertifiedNode | undefined {
  const [leaf, ...intermediates] = certificatesOf(certPem) ?? [];
  return leaf && readNodeCertificate(leaf, caPem, intermediates);
}

/** `undefined`: the three do not belong together. */
export function makeIdentity(
  seed: Uint8Array,
  certPem: string,
  caPem: string,
): NodeIdentity | undefined {
  const certified = certifiedBy(certPem, caPem);
  const publicKey = rawPublicKeyOf(seed);
  if (certified === undefined || !publicKey.equals(certified.publicKey)) return undefined;
  const { nodeId, clusterId, role, notBeforeMs, expiresAtMs, issuer } = certified;
  return {
    nodeId,
    clusterId,
    role,
    seed,
    peerId: peerIdOf(publicKey),
    keyPem: privateKeyOf(seed).export({ format: 'pem', type: 'pkcs8' }).toString(),
    certPem,
    caPem,
    notBeforeMs,
    expiresAtMs,
    issuer,
  };
}

/**
 * The identity with the roots that a manager told in an authenticated session. `undefined`: the
 * node's own certificate is worth nothing under them, so that it must ask for another first.
 */
export function adoptTrust(identity: NodeIdentity, caPem: string): NodeIdentity | undefined {
  return makeIdentity(identity.seed, identity.certPem, caPem);
}

function pathOf(dataDir: string): string {
  return join(dataDir, 'identity', 'identity.json');
}

/** For keys at rest: what turns bytes into bytes that tell nothing. */
export type Seal = (bytes: Uint8Array) => Uint8Array;
/** The way back; `undefined`: not with this key. */
export type Open = (bytes: Uint8Array) => Uint8Array | undefined;

export interface SaveOptions {
  /** Absent: the key lies in the file as it is. */
  readonly wrap?: Seal | undefined;
}

/** One file, so that key and certificate can never be of two times. */
export async function saveIdentity(
  dataDir: string,
  identity: NodeIdentity,
  { wrap }: SaveOptions = {},
): Promise<void> {
  await makePrivateFolder(join(dataDir, 'identity'));
  const { seed, certPem, caPem } = identity;
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const key = wrap === undefined ? { seed: base64(seed) } : { wrappedSeed: base64(wrap(seed)) };
  const content = { ...key, certPem, caPem };
  await writeFileAtomic(pathOf(dataDir), `${JSON.stringify(content, undefined, 2)}\n`);
}

/** An identity whose key is wrapped, and was not opened: what can be known without it. */
export interface LockedIdentity {
  readonly locked: true;
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly role: NodeRole;
  readonly expiresAtMs: number;
}

export interface LoadOptions {
  readonly unwrap: Open | undefined;
}

/**
 * `undefined`: the node is in no swarm, or what is there is not an identity.
 * @throws Error if the key is wrapped and `options` are absent: the caller must reckon with that.
 */
export async function loadIdentity(dataDir: string): Promise<NodeIdentity | undefined>;
export async function loadIdentity(
  dataDir: string,
  options: LoadOptions,
): Promise<NodeIdentity | LockedIdentity | undefined>;
export async function loadIdentity(
  dataDir: string,
  options?: LoadOptions,
): Promise<NodeIdentity | LockedIdentity | undefined> {
  const bytes = await readFileIfAny(pathOf(dataDir));
  const stored = bytes && storedIdentity(bytes);
  if (stored === undefined) return undefined;
  const { wrappedSeed, certPem, caPem } = stored;
  const seed = wrappedSeed === undefined ? stored.seed : options?.unwrap?.(wrappedSeed);
  if (seed !== undefined)
    return seed.length === SEED_BYTES ? makeIdentity(seed, certPem, caPem) : undefined;
  const certified = certifiedBy(certPem, caPem);
  if (certified === undefined) return undefined;
  if (options === undefined) throw new Error('the key of this node is locked');
  const { nodeId, clusterId, role, expiresAtMs } = certified;
  return { locked: true, nodeId, clusterId, role, expiresAtMs };
}

interface StoredIdentity {
  readonly seed?: Uint8Array;
  readonly wrappedSeed?: Uint8Array;
  readonly certPem: string;
  readonly caPem: string;
}

function storedIdentity(bytes: Uint8Array): StoredIdentity | undefined {
  try {
    const content = JSON.parse(Buffer.from(bytes).toString()) as Record<string, unknown>;
    const { seed, wrappedSeed, certPem, caPem } = content;
    if (typeof certPem !== 'string' || typeof caPem !== 'string') return undefined;
    const trust = { certPem, caPem };
    if (typeof wrappedSeed === 'string')
      return { ...trust, wrappedSeed: Buffer.from(wrappedSeed, 'base64') };
    return typeof seed === 'string' ? { ...trust, seed: Buffer.from(seed, 'base64') } : undefined;
  } catch {
    return undefined;
  }
}

/** After a leave: the node is nobody again. */
export async function removeIdentity(dataDir: string): Promise<void> {
  await rm(join(dataDir, 'identity'), { recursive: true, force: true });
}

/**
 * When to ask for a new certificate: somewhere from half to four fifths of its life, so that nodes
 * that joined together do not all ask together.
 *
 * @param fraction In [0, 1), the node's own.
 */
export function renewalAtMs(identity: NodeIdentity, fraction: number): number {
  const lifeMs = identity.expiresAtMs - identity.notBeforeMs;
  return identity.notBeforeMs + lifeMs * (0.5 + 0.3 * fraction);
}

/** What a node was told in an authenticated session, and its clock. */
export interface RenewalFacts {
  readonly nowMs: number;
  /** As of `renewalAtMs`. */
  readonly fraction: number;
  /** The node's own, as the store has it. */
  readonly role?: NodeRole | undefined;
  /** The swarm's trust bundle, whose last root is the one that signs. */
  readonly caPem?: string | undefined;
}

/** Why to ask for a new certificate now; `undefined`: no need. */
export function renewalReason(
  identity: NodeIdentity,
  { nowMs, fraction, role, caPem }: RenewalFacts,
): 'role' | 'root' | 'age' | undefined {
  if (role !== undefined && role !== identity.role) return 'role';
  const signing = certificatesOf(caPem ?? '')?.at(-1);
  if (signing !== undefined && publicKeyOf(signing) !== identity.issuer.publicKey) return 'root';
  return nowMs >= renewalAtMs(identity, fraction) ? 'age' : undefined;
}
