import { KeyObject, randomBytes, webcrypto, X509Certificate } from 'node:crypto';
import type { Name } from '@peculiar/x509';
import { assert } from '../../../base/assert.js';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import { API_NAME, CLIENT_NAME, MANAGER_NAME, WORKER_NAME } from '../../wire/protocol.js';
import { issuerChain, issuingRoot, trustBundle } from '../core/ca-state.js';
import type { CaState } from '../wire/ca-state.js';
import { formatJoinToken, joinSecret } from '../wire/token.js';
import { digestOf, type IssuerFacts } from './certificates.js';
import { spkiOf } from './keys.js';
import { loadX509, pemOf, signerOf, wholeSeconds, type X509 } from './x509.js';

const CA_LIFE_MS = 20 * 365 * 86_400_000;
/** Certificates begin in the past, for nodes whose clocks are late. */
const BACKDATE_MS = 3_600_000;
const CA_KEY = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const SIGNING = { name: 'ECDSA', hash: 'SHA-256' } as const;

/** A certificate authority: a root and its key. */
export interface Authority {
  readonly caPem: string;
  /** PKCS #8. */
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
      notBefore: wholeSeconds(atMs - BACKDATE_MS),
      notAfter: wholeSeconds(atMs + CA_LIFE_MS),
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

/** What the store of a new swarm keeps of its CA. */
export function initialCaState({ caPem, caKeyPem }: Authority): CaState {
  return { rootPem: caPem, rootKeyPem: caKeyPem, forceRotate: 0 };
}

/**
 * The certificate by which those who trust `by` come to trust the root `caPem`: the same subject and
 * key, signed by the other. It lasts as long as both roots do.
 */
export async function crossSign(by: Authority, caPem: string): Promise<string> {
  const x509 = await loadX509();
  const issuer = new x509.X509Certificate(by.caPem);
  const root = new x509.X509Certificate(caPem);
  const crossSigned = await x509.X509CertificateGenerator.create(
    {
      issuer: issuer.subjectName,
      subject: root.subjectName,
      publicKey: root.publicKey,
      notBefore: new Date(Math.max(issuer.notBefore.getTime(), root.notBefore.getTime())),
      notAfter: new Date(Math.min(issuer.notAfter.getTime(), root.notAfter.getTime())),
      ...(await signerOf(by.caKeyPem)),
      extensions: [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(
          x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
          true,
        ),
        new x509.SubjectKeyIdentifierExtension(keyIdOf(x509, root)),
        new x509.AuthorityKeyIdentifierExtension(keyIdOf(x509, issuer)),
      ],
    },
    webcrypto,
  );
  return pemOf(crossSigned);
}

/** The id as the CA's own certificate has it: there is more than one way to make one of a key. */
function keyIdOf(x509: X509, ca: InstanceType<X509['X509Certificate']>): string {
  const keyId = ca.getExtension(x509.SubjectKeyIdentifierExtension)?.keyId;
  assert(keyId !== undefined, 'the CA certificate has an id of its key');
  return keyId;
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

export interface IssuedCertificate {
  /** The node's certificate, then the intermediates that lead to roots trusted before. */
  readonly certPem: string;
  /** All roots that the node is to trust. */
  readonly caPem: string;
}

/** A node's certificate by the root that signs now, with all that belongs to it. */
export async function issueCertificate(
  state: CaState,
  request: NodeCertificateRequest,
): Promise<IssuedCertificate> {
  const { rootPem, rootKeyPem } = issuingRoot(state);
  const leaf = await issueNodeCertificate({ caPem: rootPem, caKeyPem: rootKeyPem }, request);
  return {
    certPem: leaf + issuerChain(state, request.role, request.atMs),
    caPem: trustBundle(state),
  };
}

/**
 * A node's certificate: its id as common name, its role as unit, the swarm as organization. It ends
 * with the CA's at the latest.
 */
export async function issueNodeCertificate(
  authority: Authority,
  request: NodeCertificateRequest,
): Promise<string> {
  const x509 = await loadX509();
  const { nodeId, clusterId, role, atMs, lifeMs } = request;
  const roleName = role === 'manager' ? MANAGER_NAME : WORKER_NAME;
  const ca = new x509.X509Certificate(authority.caPem);
  const publicKey = new x509.PublicKey(spkiOf(request.publicKey));
  const certificate = await x509.X509CertificateGenerator.create(
    {
      issuer: ca.subjectName,
      subject: nameOf(x509, [
        ['O', clusterId],
        ['OU', roleName],
        ['CN', nodeId],
      ]),
      notBefore: wholeSeconds(atMs - BACKDATE_MS),
      notAfter: wholeSeconds(Math.min(atMs + lifeMs, ca.notAfter.getTime())),
      publicKey,
      ...(await signerOf(authority.caKeyPem)),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        await x509.SubjectKeyIdentifierExtension.create(publicKey, false, webcrypto),
        new x509.AuthorityKeyIdentifierExtension(keyIdOf(x509, ca)),
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

export interface ApiCertificateRequest {
  /** What the API's port shows, or what a client of it shows. */
  readonly use: 'server' | 'client';
  readonly clusterId: ClusterId;
  /** Of the client, or the node's. */
  readonly name: string;
  /** Of a server: names and addresses at which clients look for it. */
  readonly names: readonly string[];
  readonly addresses: readonly string[];
  readonly atMs: number;
  readonly lifeMs: number;
}

export interface ApiCertificate extends IssuedCertificate {
  /** PKCS #8, made for it. */
  readonly keyPem: string;
}

/**
 * A certificate for the Docker API by TCP, with a key of a kind that every client knows. It makes nobody
 * a node: its unit is none of the two roles.
 */
export async function issueApiCertificate(
  state: CaState,
  { use, clusterId, name, names, addresses, atMs, lifeMs }: ApiCertificateRequest,
): Promise<ApiCertificate> {
  const x509 = await loadX509();
  const { rootPem, rootKeyPem } = issuingRoot(state);
  const ca = new x509.X509Certificate(rootPem);
  const keys = await webcrypto.subtle.generateKey(CA_KEY, true, ['sign', 'verify']);
  const { serverAuth, clientAuth } = x509.ExtendedKeyUsage;
  const certificate = await x509.X509CertificateGenerator.create(
    {
      issuer: ca.subjectName,
      subject: nameOf(x509, [
        ['O', clusterId],
        ['OU', use === 'server' ? API_NAME : CLIENT_NAME],
        ['CN', name],
      ]),
      notBefore: wholeSeconds(atMs - BACKDATE_MS),
      notAfter: wholeSeconds(Math.min(atMs + lifeMs, ca.notAfter.getTime())),
      publicKey: keys.publicKey,
      ...(await signerOf(rootKeyPem)),
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
        await x509.SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
        new x509.AuthorityKeyIdentifierExtension(keyIdOf(x509, ca)),
        new x509.ExtendedKeyUsageExtension([use === 'server' ? serverAuth : clientAuth]),
        ...(use === 'client'
          ? []
          : [
              new x509.SubjectAlternativeNameExtension([
                ...names.map((value) => ({ type: 'dns' as const, value })),
                ...addresses.map((value) => ({ type: 'ip' as const, value })),
              ]),
            ]),
      ],
    },
    webcrypto,
  );
  const keyPem = KeyObject.from(keys.privateKey).export({ format: 'pem', type: 'pkcs8' });
  return {
    certPem: pemOf(certificate) + issuerChain(state, 'worker', atMs),
    keyPem: keyPem.toString(),
    caPem: trustBundle(state),
  };
}

/** UTF8String whatever the text is: one of the two kinds that RFC 5280 §4.1.2.4 allows. */
function nameOf(x509: X509, attributes: readonly (readonly [string, string])[]): Name {
  return new x509.Name(attributes.map(([type, value]) => ({ [type]: [{ utf8String: value }] })));
}

/** Of a root as issuer; of a bundle's first. */
export async function issuerFacts(caPem: string): Promise<IssuerFacts> {
  const x509 = await loadX509();
  const { raw } = new X509Certificate(caPem);
  const ca = new x509.X509Certificate(raw);
  return {
    subject: Buffer.from(ca.subjectName.toArrayBuffer()).toString('base64'),
    publicKey: Buffer.from(ca.publicKey.rawData).toString('base64'),
  };
}

/** What everyone may know of the CA: Docker's `TLSInfo`, in which the issuer is ahead of the root. */
export interface PublicTrust {
  readonly rootCaPem: string;
  readonly certIssuerSubject: string;
  readonly certIssuerPublicKey: string;
  readonly rootRotationInProgress: boolean;
}

export async function publicTrust(state: CaState): Promise<PublicTrust> {
  const { subject, publicKey } = await issuerFacts(issuingRoot(state).rootPem);
  return {
    rootCaPem: state.rootPem,
    certIssuerSubject: subject,
    certIssuerPublicKey: publicKey,
    rootRotationInProgress: state.rotation !== undefined,
  };
}

/** A fresh join token of the swarm with this root; of a bundle, the first. */
export function newJoinToken(caPem: string): string {
  const caDigest = digestOf(caPem);
  assert(caDigest !== undefined, 'the CA certificate is well-formed');
  return formatJoinToken({ caDigest, secret: joinSecret(randomBytes(16)) });
}
