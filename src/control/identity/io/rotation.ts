import { createPrivateKey, type KeyObject, type X509Certificate } from 'node:crypto';
import { assert } from '../../../base/assert.js';
import { SwarmError } from '../../../base/swarm-error.js';
import type { ExternalCa } from '../../../base/swarm-model.js';
import { cancelRotation, progressOf, type RotationProgress } from '../core/ca-state.js';
import type { CaState } from '../wire/ca-state.js';
import { pemBlocks } from '../wire/pem.js';
import { type Authority, createAuthority, crossSign } from './authority.js';
import { certificatesOf, publicKeyOf } from './certificates.js';
import { canSign, loadX509 } from './x509.js';

/** A root of the user's: `docker swarm ca --rotate --ca-cert --ca-key`. */
export interface GivenRoot {
  readonly certPem: string;
  /** `undefined`: the key is with an external CA. */
  readonly keyPem?: string | undefined;
}

export interface RotationWish {
  readonly atMs: number;
  /** The new `CAConfig.ForceRotate`. */
  readonly forceRotate: number;
  /** Absent: the swarm makes a root of its own. */
  readonly given?: GivenRoot | undefined;
}

/**
 * Brings in another root beside the present one. During a rotation the new wish replaces the old
 * one; giving the present root ends the rotation where it began.
 *
 * @throws SwarmError `SWARM_INVALID`, `SWARM_UNSUPPORTED`: the root that was given cannot be used.
 */
export async function startRotation(state: CaState, wish: RotationWish): Promise<CaState> {
  const { atMs, forceRotate, given } = wish;
  const present = { ...state, forceRotate };
  const next = given === undefined ? await createAuthority(atMs) : await givenRoot(given, atMs);
  if (sameCertificate(next.caPem, state.rootPem)) return cancelRotation(present);
  const { rotation } = state;
  if (rotation !== undefined && sameCertificate(next.caPem, rotation.rootPem)) return present;
  const by: Authority = { caPem: state.rootPem, caKeyPem: state.rootKeyPem };
  return {
    ...present,
    rotation: {
      rootPem: next.caPem,
      rootKeyPem: next.caKeyPem,
      crossSignedPem: await crossSign(by, next.caPem),
      startedAtMs: atMs,
    },
  };
}

/**
 * How far a rotation is. With nobody waiting, `finishRotation` is due.
 * @param nodes All members, those that are down among them, with what signed their certificates.
 */
export function rotationProgress(
  state: CaState,
  nodes: Iterable<{ readonly nodeId: string; readonly issuerPublicKey: string }>,
): RotationProgress {
  const [root] = certificatesOf(state.rotation?.rootPem ?? '') ?? [];
  assert(root !== undefined, 'a rotation goes on');
  return progressOf(publicKeyOf(root), nodes);
}

/**
 * Nodes prove their keys by a signature of their own form and not by a PKCS #10 request, which is
 * all that a cfssl server takes.
 * @throws SwarmError `SWARM_UNSUPPORTED` unless the list is empty.
 */
export function refuseExternalCas(externalCas: readonly ExternalCa[]): void {
  if (externalCas.length > 0) throw withoutKey();
}

function withoutKey(): SwarmError {
  return new SwarmError(
    { code: 'SWARM_UNSUPPORTED' },
    'certificates by an external CA are not supported: give the key of the CA, too, or let the swarm make its own',
  );
}

function sameCertificate(a: string, b: string): boolean {
  const [first, second] = [certificatesOf(a)?.[0], certificatesOf(b)?.[0]];
  return first !== undefined && second !== undefined && first.raw.equals(second.raw);
}

/** What every root must be so that all TLS peers accept what it signs, now and in rotations. */
async function givenRoot(given: GivenRoot, atMs: number): Promise<Authority> {
  const certificates = certificatesOf(given.certPem) ?? [];
  const [root] = certificates;
  if (root === undefined) throw unusable('is not a PEM certificate');
  if (certificates.length > 1) throw unusable('cannot contain multiple certificates');
  if (given.keyPem === undefined || given.keyPem.trim() === '') throw withoutKey();
  const reason =
    (await constraintOf(root)) ?? periodOf(root, atMs) ?? keyProblemOf(root, given.keyPem);
  if (reason !== undefined) throw unusable(reason);
  const caKeyPem = createPrivateKey(given.keyPem).export({ format: 'pem', type: 'pkcs8' });
  return { caPem: pemBlocks(given.certPem).join(''), caKeyPem: caKeyPem.toString() };
}

function unusable(reason: string): SwarmError {
  return new SwarmError({ code: 'SWARM_INVALID' }, `the desired CA certificate ${reason}`);
}

async function constraintOf(root: X509Certificate): Promise<string | undefined> {
  if (!root.ca) return 'is not of a CA';
  if (!root.checkIssued(root) || !root.verify(root.publicKey)) return 'is not a root';
  const x509 = await loadX509();
  const parsed = new x509.X509Certificate(root.raw);
  if (parsed.getExtension(x509.SubjectKeyIdentifierExtension) === null)
    return 'has no subject key identifier';
  // The next rotation hangs its root below this one.
  if (parsed.getExtension(x509.BasicConstraintsExtension)?.pathLength === 0)
    return 'may not sign another CA (its path length is 0)';
  return undefined;
}

function periodOf(root: X509Certificate, atMs: number): string | undefined {
  if (atMs >= Date.parse(root.validTo)) return 'has expired';
  return atMs < Date.parse(root.validFrom) ? 'is not valid yet' : undefined;
}

function keyProblemOf(root: X509Certificate, keyPem: string): string | undefined {
  let key: KeyObject;
  try {
    key = createPrivateKey(keyPem);
  } catch {
    return 'came with a key that cannot be read (it must be PEM, without a passphrase)';
  }
  if (!canSign(key)) return 'has a key that is neither ECDSA (P-256, P-384, P-521) nor RSA';
  return root.checkPrivateKey(key) ? undefined : 'does not belong to the key';
}
