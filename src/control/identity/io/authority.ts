import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  X509Certificate,
} from 'node:crypto';
import { assert } from '../../../base/assert.js';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import { MANAGER_NAME, WORKER_NAME } from '../../wire/protocol.js';
import {
  type CertificateFields,
  certificateFacts,
  encodeCertificate,
  encodeName,
  encodeToBeSigned,
} from '../wire/certificate.js';
import { formatJoinToken, joinSecret } from '../wire/token.js';
import { digestOf, spkiOf } from './keys.js';

const CA_LIFE_MS = 20 * 365 * 86_400_000;
/** Certificates begin in the past, for nodes whose clocks are late. */
const BACKDATE_MS = 3_600_000;
const SERIAL_BYTES = 16;

/** The swarm's certificate authority: what of it a manager keeps. */
export interface Authority {
  readonly caPem: string;
  readonly caKeyPem: string;
}

/** A new root: ECDSA P-256, 20 years. */
export function createAuthority(atMs: number): Authority {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const spki = publicKey.export({ format: 'der', type: 'spki' });
  const name = encodeName([['CN', 'swarm-ca']]);
  const caKeyPem = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString();
  const caPem = issue(caKeyPem, {
    issuer: name,
    subject: name,
    notBefore: timeText(atMs - BACKDATE_MS),
    notAfter: timeText(atMs + CA_LIFE_MS),
    publicKey: spki,
    subjectKeyId: keyId(spki),
    authorityKeyId: keyId(spki),
  });
  return { caPem, caKeyPem };
}

export interface NodeCertificateRequest {
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly role: NodeRole;
  /** Ed25519, 32 bytes. */
  readonly publicKey: Uint8Array;
  readonly atMs: number;
  readonly lifeMs: number;
}

/** A node's certificate: its id as common name, its role as unit, the swarm as organization. */
export function issueNodeCertificate(
  authority: Authority,
  request: NodeCertificateRequest,
): string {
  const roleName = request.role === 'manager' ? MANAGER_NAME : WORKER_NAME;
  const issuer = certificateFacts(new X509Certificate(authority.caPem).raw);
  assert(issuer !== undefined, 'the CA certificate is well-formed');
  const spki = spkiOf(request.publicKey);
  return issue(authority.caKeyPem, {
    issuer: issuer.subject,
    subject: encodeName([
      ['O', request.clusterId],
      ['OU', roleName],
      ['CN', request.nodeId],
    ]),
    notBefore: timeText(request.atMs - BACKDATE_MS),
    notAfter: timeText(request.atMs + request.lifeMs),
    publicKey: spki,
    subjectKeyId: keyId(spki),
    authorityKeyId: keyId(issuer.publicKey),
    leaf: { dnsNames: [roleName, request.nodeId] },
  });
}

function issue(caKeyPem: string, fields: Omit<CertificateFields, 'serial'>): string {
  const toBeSigned = encodeToBeSigned({ ...fields, serial: newSerial() });
  const certificate = encodeCertificate(
    toBeSigned,
    sign('sha256', toBeSigned, createPrivateKey(caKeyPem)),
  );
  const lines =
    Buffer.from(certificate)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`;
}

/** Positive and never zero (RFC 5280 §4.1.2.2). */
function newSerial(): Uint8Array {
  const serial = randomBytes(SERIAL_BYTES);
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40;
  return serial;
}

function keyId(spki: Uint8Array): Uint8Array {
  return createHash('sha256').update(spki).digest().subarray(0, 20);
}

function timeText(atMs: number): string {
  return new Date(atMs).toISOString().replace(/[-:T]|\.\d+/g, '');
}

/** What `docker node inspect` shows of a CA: DER of its subject and public key, base64. */
export function issuerFacts(caPem: string): { subject: string; publicKey: string } {
  const facts = certificateFacts(new X509Certificate(caPem).raw);
  assert(facts !== undefined, 'the CA certificate is well-formed');
  return {
    subject: Buffer.from(facts.subject).toString('base64'),
    publicKey: Buffer.from(facts.publicKey).toString('base64'),
  };
}

/** A fresh join token of the swarm with this CA. */
export function newJoinToken(caPem: string): string {
  const caDigest = digestOf(caPem);
  assert(caDigest !== undefined, 'the CA certificate is well-formed');
  return formatJoinToken({ caDigest, secret: joinSecret(randomBytes(16)) });
}

/** What a certificate says of its node, once `caPem` is seen to have signed it; expiry is apart. */
export interface CertifiedNode {
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly role: NodeRole;
  /** Ed25519, 32 bytes. */
  readonly publicKey: Buffer;
  readonly notBeforeMs: number;
  readonly expiresAtMs: number;
}

/** `undefined`: not a certificate of a node of this CA. Whether it has expired is for the caller. */
export function readNodeCertificate(
  certificate: X509Certificate,
  caPem: string,
): CertifiedNode | undefined {
  try {
    const ca = new X509Certificate(caPem);
    if (!certificate.checkIssued(ca) || !certificate.verify(ca.publicKey)) return undefined;
    const subject = new Map(
      certificate.subject.split('\n').map((line) => {
        const at = line.indexOf('=');
        return [line.slice(0, at), line.slice(at + 1)] as const;
      }),
    );
    const unit = subject.get('OU');
    if (unit !== MANAGER_NAME && unit !== WORKER_NAME) return undefined;
    const spki = certificate.publicKey;
    if (spki.asymmetricKeyType !== 'ed25519') return undefined;
    return {
      nodeId: (subject.get('CN') ?? '') as NodeId,
      clusterId: (subject.get('O') ?? '') as ClusterId,
      role: unit === MANAGER_NAME ? 'manager' : 'worker',
      publicKey: spki.export({ format: 'der', type: 'spki' }).subarray(-32),
      notBeforeMs: Date.parse(certificate.validFrom),
      expiresAtMs: Date.parse(certificate.validTo),
    };
  } catch {
    return undefined;
  }
}
