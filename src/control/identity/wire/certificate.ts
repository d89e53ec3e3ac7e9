import {
  ascii,
  bits,
  boolean,
  type Der,
  der,
  elementsOf,
  explicit,
  integer,
  octets,
  oid,
  sequence,
  set,
  utf8,
} from './der.js';

/** What goes into a certificate (RFC 5280); signed with ECDSA over SHA-256. */
export interface CertificateFields {
  /** At most 20 bytes. */
  readonly serial: Uint8Array;
  /** A name in DER, as `encodeName` and `issuerFacts` give it. */
  readonly issuer: Der;
  readonly subject: Der;
  /** `YYYYMMDDHHMMSSZ`. */
  readonly notBefore: string;
  readonly notAfter: string;
  /** SubjectPublicKeyInfo in DER. */
  readonly publicKey: Der;
  /** Identifiers of the two keys (RFC 5280 §4.2.1.1, §4.2.1.2). */
  readonly subjectKeyId: Uint8Array;
  readonly authorityKeyId: Uint8Array;
  /** Absent: the certificate of an authority. */
  readonly leaf?: { readonly dnsNames: readonly string[] };
}

const NAME_ATTRIBUTES = { CN: '2.5.4.3', OU: '2.5.4.11', O: '2.5.4.10' } as const;
const ECDSA_WITH_SHA256 = sequence(oid('1.2.840.10045.4.3.2'));
const SERVER_AUTH = oid('1.3.6.1.5.5.7.3.1');
const CLIENT_AUTH = oid('1.3.6.1.5.5.7.3.2');
const DIGITAL_SIGNATURE = Uint8Array.of(0x80);
const CERT_SIGN_AND_CRL_SIGN = Uint8Array.of(0x06);

export function encodeName(
  attributes: readonly (readonly [keyof typeof NAME_ATTRIBUTES, string])[],
): Der {
  return sequence(
    ...attributes.map(([name, value]) => set(sequence(oid(NAME_ATTRIBUTES[name]), utf8(value)))),
  );
}

/** The part of the certificate that is signed. */
export function encodeToBeSigned(fields: CertificateFields): Der {
  return sequence(
    explicit(0, integer(Uint8Array.of(2))),
    integer(fields.serial),
    ECDSA_WITH_SHA256,
    fields.issuer,
    sequence(encodeTime(fields.notBefore), encodeTime(fields.notAfter)),
    fields.subject,
    fields.publicKey,
    explicit(3, sequence(...encodeExtensions(fields))),
  );
}

/** @param signature An ECDSA signature in DER. */
export function encodeCertificate(toBeSigned: Der, signature: Uint8Array): Der {
  return sequence(toBeSigned, ECDSA_WITH_SHA256, bits(signature));
}

/** RFC 5280 §4.1.2.5: two-digit years up to 2049, four digits after. */
function encodeTime(text: string): Der {
  return text < '2050' ? ascii(0x17, text.slice(2)) : ascii(0x18, text);
}

function encodeExtensions({ leaf, subjectKeyId, authorityKeyId }: CertificateFields): Der[] {
  const usage = leaf === undefined ? bits(CERT_SIGN_AND_CRL_SIGN, 1) : bits(DIGITAL_SIGNATURE, 7);
  const constraints = leaf === undefined ? sequence(boolean(true)) : sequence();
  const extensions = [
    extension('2.5.29.19', true, constraints),
    extension('2.5.29.15', true, usage),
    extension('2.5.29.14', false, octets(subjectKeyId)),
    extension('2.5.29.35', false, sequence(der(0x80, authorityKeyId))),
  ];
  if (leaf === undefined) return extensions;
  const names = leaf.dnsNames.map((name) => ascii(0x82, name));
  return [
    ...extensions,
    extension('2.5.29.37', false, sequence(SERVER_AUTH, CLIENT_AUTH)),
    extension('2.5.29.17', false, sequence(...names)),
  ];
}

function extension(id: string, critical: boolean, value: Der): Der {
  return critical
    ? sequence(oid(id), boolean(true), octets(value))
    : sequence(oid(id), octets(value));
}

export interface CertificateFacts {
  readonly subject: Der;
  readonly publicKey: Der;
}

/** Subject and public key of a certificate in DER; `undefined` if it is none. */
export function certificateFacts(certificate: Uint8Array): CertificateFacts | undefined {
  const toBeSigned = elementsOf(certificate)?.[0];
  const fields = toBeSigned && elementsOf(toBeSigned);
  const subject = fields?.[5];
  const publicKey = fields?.[6];
  return subject === undefined || publicKey === undefined ? undefined : { subject, publicKey };
}
