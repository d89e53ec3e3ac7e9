import { X509Certificate } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import { makePrivateFolder, readFileIfAny, writeFileAtomic } from '../../io/files.js';
import { peerIdOf } from '../core/peer-id.js';
import { readNodeCertificate } from './authority.js';
import { privateKeyOf, rawPublicKeyOf } from './keys.js';

/** Who a node is: its key, which stays, and the certificate that the swarm gave for it. */
export interface NodeIdentity {
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly role: NodeRole;
  /** 32 bytes; the Ed25519 key for TLS and libp2p alike. */
  readonly seed: Uint8Array;
  readonly peerId: string;
  readonly keyPem: string;
  readonly certPem: string;
  readonly caPem: string;
  readonly notBeforeMs: number;
  readonly expiresAtMs: number;
}

/** `undefined`: the three do not belong together. */
export function makeIdentity(
  seed: Uint8Array,
  certPem: string,
  caPem: string,
): NodeIdentity | undefined {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(certPem);
  } catch {
    return undefined;
  }
  const certified = readNodeCertificate(certificate, caPem);
  const publicKey = rawPublicKeyOf(seed);
  if (certified === undefined || !publicKey.equals(certified.publicKey)) return undefined;
  const { nodeId, clusterId, role, notBeforeMs, expiresAtMs } = certified;
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
  };
}

function pathOf(dataDir: string): string {
  return join(dataDir, 'identity', 'identity.json');
}

/** One file, so that key and certificate can never be of two times. */
export async function saveIdentity(dataDir: string, identity: NodeIdentity): Promise<void> {
  await makePrivateFolder(join(dataDir, 'identity'));
  const { seed, certPem, caPem } = identity;
  const content = { seed: Buffer.from(seed).toString('base64'), certPem, caPem };
  await writeFileAtomic(pathOf(dataDir), `${JSON.stringify(content, undefined, 2)}\n`);
}

/** `undefined`: the node is in no swarm, or what is there is not an identity. */
export async function loadIdentity(dataDir: string): Promise<NodeIdentity | undefined> {
  const bytes = await readFileIfAny(pathOf(dataDir));
  if (bytes === undefined) return undefined;
  try {
    const content = JSON.parse(bytes.toString()) as Record<string, unknown>;
    const seed = Buffer.from(String(content['seed']), 'base64');
    if (seed.length !== 32) return undefined;
    return makeIdentity(seed, String(content['certPem']), String(content['caPem']));
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
