import { createPrivateKey, KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto';
import type { Name, X509Certificate as ParsedCertificate } from '@peculiar/x509';
import { assert } from '../../../base/assert.js';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import { MANAGER_NAME, WORKER_NAME } from '../../wire/protocol.js';
import { formatJoinToken, joinSecret } from '../wire/token.js';
import { digestOf, spkiOf } from './keys.js';

const CA_LIFE_MS = 20 * 365 * 86_400_000;
/** Certificates begin in the past, for nodes whose clocks are late. */
const BACKDATE_MS = 3_600_000;
const CA_KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNING = { name: 'ECDSA', hash: 'SHA-256' } as const;

/** Only where certificates are made: it takes 19 MB, which workers need not spend. */
async function loadX509() {
  // The library reads metadata while it is loaded, so this comes first.
  await import('reflect-metadata');
  return import('@peculiar/x509');
}

type X509 = Awaited<ReturnType<typeof loadX509>>;

/** The swarm's certificate authority: what of it a manager keeps. */
export interface Authority {
  readonly caPem: string;
  readonly caKeyPem: string;
}

/** A new root: ECDSA P-256, 20 years. */
export async function createAuthority(atMs: number): Promise<Authority> {
  const x509 = await loadX509();
  const keys = await webcrypto.subtle.generateKey(CA_KEY, true, ['sign', 'verify']);
  const keyId = await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto);
  const ca = await x509.X509CertificateGenerator.createSelfSigned(
    {
      name: nameOf(x509, [['CN', 'swarm-ca']]),
      keys,
      ...validity(atMs, CA_LIFE_MS),
      signingAlgorithm: SIGNING,
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
          true,
        ),
        keyId,
        new x509.AuthorityKeyIdentifierExtension(keyId.keyId),
      ],
    },
    webcrypto,
  );
  const caKeyPem = KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' });
  return { caPem: pemOf(ca), caKeyPem: caKeyPem.toString() };
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
export async function issueNodeCertificate(
  authority: Authority,
  request: NodeCertificateRequest,
): Promise<string> {
  const x509 = await loadX509();
  const { nodeId, clusterId, role, atMs, lifeMs } = request;
  const roleName = role === 'manager' ? MANAGER_NAME : WORKER_NAME;
  const ca = new x509.X509Certificate(authority.caPem);
  // The id as the CA's own certificate has it: there is more than one way to make one of a key.
  const caKeyId = ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  assert(caKeyId !== undefined, 'the CA certificate has an id of its key');
  const publicKey = new x509.PublicKey(spkiOf(request.publicKey));
  const certificate = await x509.X509CertificateGenerator.create(
    {
      issuer: ca.subjectName,
      subject: nameOf(x509, [
        ['O', clusterId],
        ['OU', roleName],
        ['CN', nodeId],
      ]),
      ...validity(atMs, lifeMs),
      publicKey,
      signingKey: await importCaKey(authority.caKeyPem),
      signingAlgorithm: SIGNING,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        await x509.SubjectKeyIdentifierExtension.create(publicKey, false, webcrypto),
        new x509.AuthorityKeyIdentifierExtension(caKeyId),
        new x509.ExtendedKeyUsageExtension([
          x509.ExtendedKeyUsage.serverAuth,
          x509.ExtendedKeyUsage.clientAuth,
        ]),
        new x509.SubjectAlternativeNameExtension([
          { type: 'dns', value: roleName },
          { type: 'dns', value: nodeId },
        ]),
      ],
    },
    webcrypto,
  );
  return pemOf(certificate);
}

/** UTF8String whatever the text is: one of the two kinds that RFC 5280 §4.1.2.4 allows. */
function nameOf(x509: X509, attributes: readonly (readonly [string, string])[]): Name {
  return new x509.Name(attributes.map(([type, value]) => ({ [type]: [{ utf8String: value }] })));
}

/** Whole seconds: RFC 5280 §4.1.2.5 allows no fractions. */
function validity(atMs: number, lifeMs: number): { notBefore: Date; notAfter: Date } {
  const wholeSeconds = (ms: number) => new Date(Math.floor(ms / 1_000) * 1_000);
  return { notBefore: wholeSeconds(atMs - BACKDATE_MS), notAfter: wholeSeconds(atMs + lifeMs) };
}

function importCaKey(caKeyPem: string): Promise<webcrypto.CryptoKey> {
  const pkcs8 = createPrivateKey(caKeyPem).export({ format: 'der', type: 'pkcs8' });
  return webcrypto.subtle.importKey('pkcs8', pkcs8, CA_KEY, false, ['sign']);
}

function pemOf(certificate: ParsedCertificate): string {
  return `${certificate.toString('pem')}\n`;
}

/** What `docker node inspect` shows of a CA: DER of its subject and public key, base64. */
export interface IssuerFacts {
  readonly subject: string;
  readonly publicKey: string;
}

export async function issuerFacts(caPem: string): Promise<IssuerFacts> {
  const x509 = await loadX509();
  const ca = new x509.X509Certificate(caPem);
  return {
    subject: Buffer.from(ca.subjectName.toArrayBuffer()).toString('base64'),
    publicKey: Buffer.from(ca.publicKey.rawData).toString('base64'),
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
