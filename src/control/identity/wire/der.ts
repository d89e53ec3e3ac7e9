const SEQUENCE = 0x30;
const INTEGER = 0x02;
/** `[0] EXPLICIT Version` of a certificate. */
const VERSION = 0xa0;
/** Of a length's bytes: more than four would be longer than any certificate. */
const LENGTH_BYTES_MAX = 4;

interface Element {
  readonly tag: number;
  /** Of the content. */
  readonly start: number;
  readonly end: number;
}

function elementAt(der: Uint8Array, offset: number, limit: number): Element | undefined {
  const tag = der[offset];
  const first = der[offset + 1];
  if (tag === undefined || first === undefined) return undefined;
  let start = offset + 2;
  let length = first;
  if (first >= 0x80) {
    const count = first - 0x80;
    if (count === 0 || count > LENGTH_BYTES_MAX) return undefined;
    length = 0;
    for (let i = 0; i < count; i++) length = length * 256 + (der[start + i] ?? 0);
    start += count;
  }
  const end = start + length;
  return end > limit ? undefined : { tag, start, end };
}

/**
 * DER of the issuer's name in a certificate (RFC 5280 §4.1: it follows version, serial number and
 * algorithm), which Node shows only as text. `undefined`: not a certificate.
 */
export function issuerNameOf(der: Uint8Array): Uint8Array | undefined {
  const certificate = elementAt(der, 0, der.length);
  const body = certificate && elementAt(der, certificate.start, certificate.end);
  if (certificate?.tag !== SEQUENCE || body?.tag !== SEQUENCE) return undefined;
  let at = body.start;
  for (const tag of [VERSION, INTEGER, SEQUENCE]) {
    const element = elementAt(der, at, body.end);
    if (element?.tag === tag) at = element.end;
    // A certificate of version 1 does not say so.
    else if (tag !== VERSION) return undefined;
  }
  const issuer = elementAt(der, at, body.end);
  return issuer?.tag === SEQUENCE ? der.slice(at, issuer.end) : undefined;
}
