import { createHash, X509Certificate } from 'node:crypto';
import type { ClusterId, NodeId, NodeRole } from '../../../base/swarm-model.js';
import { MANAGER_NAME, WORKER_NAME } from '../../wire/protocol.js';
import { issuerNameOf } from '../wire/der.js';
import { pemBlocks } from '../wire/pem.js';

/** Intermediates of one chain that are looked at. */
const INTERMEDIATES_MAX = 8;
/** Bundles whose certificates are kept parsed: the present one, and those that change it. */
const PARSED_BUNDLES_MAX = 4;

/** What `docker node inspect` shows of a CA: DER of its subject and public key, base64. */
export interface IssuerFacts {
  readonly subject: string;
  readonly publicKey: string;
}

/** What a certificate says of its node, once it is seen to be of the CA; expiry is apart. */
export interface CertifiedNode {
  readonly nodeId: NodeId;
  readonly clusterId: ClusterId;
  readonly role: NodeRole;
  /** Ed25519, 32 bytes. */
  readonly publicKey: Buffer;
  readonly notBeforeMs: number;
  readonly expiresAtMs: number;
  /** Of the root that signed it, by whichever way that root is trusted. */
  readonly issuer: IssuerFacts;
}

/** The certificates of a text; `undefined` if one of them is none, or if there are none. */
export function certificatesOf(pem: string): readonly X509Certificate[] | undefined {
  try {
    const certificates = pemBlocks(pem).map((block) => new X509Certificate(block));
    return certificates.length === 0 ? undefined : certificates;
  } catch {
    return undefined;
  }
}

const parsedBundles = new Map<string, readonly X509Certificate[]>();

/** As `certificatesOf`; every connection is judged by the same few bundles. */
function rootsOf(caPem: string): readonly X509Certificate[] {
  const known = parsedBundles.get(caPem);
  if (known !== undefined) return known;
  const roots = certificatesOf(caPem) ?? [];
  const [oldest] = parsedBundles.keys();
  if (parsedBundles.size >= PARSED_BUNDLES_MAX && oldest !== undefined)
    parsedBundles.delete(oldest);
  parsedBundles.set(caPem, roots);
  return roots;
}

/** SHA-256 of a certificate's DER, in hex; of a bundle's first. `undefined`: no certificate. */
export function digestOf(pem: string): string | undefined {
  return digestsOf(pem)[0];
}

/** The same of each of a bundle's certificates. */
export function digestsOf(pem: string): readonly string[] {
  return (certificatesOf(pem) ?? []).map(({ raw }) =>
    createHash('sha256').update(raw).digest('hex'),
  );
}

function issuerAmong(
  certificate: X509Certificate,
  issuers: readonly X509Certificate[],
): X509Certificate | undefined {
  return issuers.find(
    (issuer) =>
      issuer.ca && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey),
  );
}

/**
 * What signed `leaf`, if that is a root or hangs on one by intermediates. It is looked for from the
 * roots downwards: no key is used that is not trusted, whatever a stranger puts into a chain.
 */
function trustedIssuerOf(
  leaf: X509Certificate,
  intermediates: readonly X509Certificate[],
  roots: readonly X509Certificate[],
): X509Certificate | undefined {
  const trusted = [...roots];
  let rest = intermediates.slice(0, INTERMEDIATES_MAX);
  for (let found = true; found && rest.length > 0; ) {
    const [linked, others]: [X509Certificate[], X509Certificate[]] = [[], []];
    for (const one of rest) (issuerAmong(one, trusted) ? linked : others).push(one);
    trusted.push(...linked);
    rest = others;
    found = linked.length > 0;
  }
  return issuerAmong(leaf, trusted);
}

/**
 * `undefined`: not a certificate of a node of this CA. Whether it has expired is for the caller.
 *
 * @param caPem One root, or several.
 * @param intermediates What came along with the certificate, in any order.
 */
export function readNodeCertificate(
  certificate: X509Certificate,
  caPem: string,
  intermediates: readonly X509Certificate[] = [],
): CertifiedNode | undefined {
  try {
    const issuer = trustedIssuerOf(certificate, intermediates, rootsOf(caPem));
    const issuerName = issuerNameOf(certificate.raw);
    if (issuer === undefined || issuerName === undefined) return undefined;
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
      issuer: {
        subject: Buffer.from(issuerName).toString('base64'),
        publicKey: publicKeyOf(issuer),
      },
    };
  } catch {
    return undefined;
  }
}

/** SubjectPublicKeyInfo, base64. */
export function publicKeyOf(certificate: X509Certificate): string {
  return certificate.publicKey.export({ format: 'der', type: 'spki' }).toString('base64');
}

/** One certificate of a chain, as `node:tls` tells it; nothing in it if there was none. */
interface ShownCertificate {
  readonly raw?: Uint8Array;
  readonly issuerCertificate?: ShownCertificate;
}

/** A TLS socket, or anything that shows a certificate whose key its holder has proven to have. */
export interface ShowsCertificate {
  getPeerCertificate(detailed: true): ShownCertificate | null;
}

/** Who is at the other end of a TLS connection, by roots that are trusted; expiry is apart. */
export function readPeerCertificate(
  socket: ShowsCertificate,
  caPem: string,
): CertifiedNode | undefined {
  const shown = shownBy(socket);
  return shown && readNodeCertificate(shown.leaf, caPem, shown.intermediates);
}

/**
 * The certificate that the other end of a TLS connection showed, and what it sent along.
 *
 * Not by `getPeerX509Certificate`, which takes the chain off the connection: a second call finds no
 * intermediates, and on a client takes the first of them for the peer.
 */
export function shownBy(
  socket: ShowsCertificate,
): { readonly leaf: X509Certificate; readonly intermediates: X509Certificate[] } | undefined {
  const shown: X509Certificate[] = [];
  try {
    let at = socket.getPeerCertificate(true) ?? undefined;
    while (at?.raw !== undefined && shown.length <= INTERMEDIATES_MAX) {
      shown.push(new X509Certificate(at.raw));
      // A root is shown as its own issuer.
      at = at.issuerCertificate === at ? undefined : at.issuerCertificate;
    }
  } catch {
    return undefined;
  }
  const [leaf, ...intermediates] = shown;
  return leaf && { leaf, intermediates };
}
