import { decode } from 'dns-packet';
import ipaddr from 'ipaddr.js';
import { assert } from '../../../base/assert.js';

/**
 * DNS messages, RFC 1035 §4, as far as a stub's resolver needs them. Reading, where the danger is,
 * is left to `dns-packet` and wrapped so that it never throws; writing is done here, because our
 * answers repeat the question's name, and with compression (§4.1.4) twice as many fit a datagram.
 *
 *    0        1        2        3        4        6        8        10       12
 *   +--------+--------+--------+--------+--------+--------+--------+--------+-- - -
 *   |       id        |QOpcoATR|A00CRcod| QDCOUNT| ANCOUNT| NSCOUNT| ARCOUNT| question, records
 *   +--------+--------+--------+--------+--------+--------+--------+--------+-- - -
 */
export const HEADER_BYTES = 12;
/** Without EDNS no more than this is sent in a datagram, RFC 1035 §2.3.4. */
export const UDP_PAYLOAD_BYTES_MIN = 512;
/** What we take and send at most in a datagram, whatever the client offers: the loopback carries it. */
export const UDP_PAYLOAD_BYTES_MAX = 4096;
/** Longest name as text, RFC 1035 §2.3.4 less the first length byte and the root's; longest label. */
export const NAME_BYTES_MAX = 253;
export const LABEL_BYTES_MAX = 63;

const FLAG_RESPONSE = 0x8000;
const FLAG_TRUNCATED = 0x0200;
const FLAG_RECURSION_DESIRED = 0x0100;
const FLAG_RECURSION_AVAILABLE = 0x0080;
const FLAG_CHECKING_DISABLED = 0x0010;
const OPCODE_MASK = 0x7800;

const TYPE_A = 1;
const TYPE_PTR = 12;
const TYPE_AAAA = 28;
const TYPE_SRV = 33;
const TYPE_OPT = 41;
const CLASS_IN = 1;
/** A pointer to the question's name, which always starts right behind the header. */
const POINTER_TO_QUESTION = 0xc000 | HEADER_BYTES;
const OPT_BYTES = 11;
const RECORD_FIXED_BYTES = 12;
/** The root's name, type, class, time to live, and no data. */
const RECORD_BYTES_MIN = 11;

/** RFC 1035 §4.1.1; BADVERS is RFC 6891's, of which the upper bits travel in the OPT record. */
export type Rcode = 'NOERROR' | 'FORMERR' | 'SERVFAIL' | 'NXDOMAIN' | 'NOTIMP' | 'BADVERS';

const RCODES: Readonly<Record<Rcode, number>> = {
  NOERROR: 0,
  FORMERR: 1,
  SERVFAIL: 2,
  NXDOMAIN: 3,
  NOTIMP: 4,
  BADVERS: 16,
};

/** A query with one question. */
export interface DnsQuery {
  /** Header and question as they came: replies repeat them bit by bit (0x20 randomisation). */
  readonly head: Buffer;
  /** As asked, without a dot at the end; the root is `.`. */
  readonly name: string;
  /** `A`, `AAAA`, `PTR`, …; `UNKNOWN_n` for types without a name. */
  readonly type: string;
  readonly isInternet: boolean;
  /** The client's EDNS offer, RFC 6891; `undefined`: it knows none. */
  readonly edns: { readonly payloadBytes: number; readonly version: number } | undefined;
}

/** Why a message got no reply at all. Each value is also the name of its counter. */
export type DnsDrop = 'dns_truncated' | 'dns_not_a_query';

/** A message that is answered, but only with an error. `head` may lack the question. */
export interface DnsRefusal {
  readonly rcode: 'FORMERR' | 'NOTIMP';
  readonly head: Buffer;
}

export type DnsRequest =
  | { readonly kind: 'query'; readonly query: DnsQuery }
  | { readonly kind: 'refusal'; readonly refusal: DnsRefusal }
  | { readonly kind: 'drop'; readonly reason: DnsDrop };

/**
 * Where the first question ends, or `undefined` if there is none that is whole. A name here is never
 * compressed: nothing stands before it that it could point to.
 */
export function questionEnd(message: Buffer): number | undefined {
  let offset = HEADER_BYTES;
  while (offset < message.length) {
    const length = message[offset] ?? 0;
    if (length === 0) return offset + 5 <= message.length ? offset + 5 : undefined;
    if (length > LABEL_BYTES_MAX) return undefined;
    offset += 1 + length;
  }
  return undefined;
}

/** Reads a message from a client. Never throws. */
export function decodeRequest(message: Buffer): DnsRequest {
  if (message.length < HEADER_BYTES) return { kind: 'drop', reason: 'dns_truncated' };
  const flags = message.readUInt16BE(2);
  if ((flags & FLAG_RESPONSE) !== 0) return { kind: 'drop', reason: 'dns_not_a_query' };
  if ((flags & OPCODE_MASK) !== 0) return refuse('NOTIMP', message);
  const end = questionEnd(message);
  if (end === undefined || message.readUInt16BE(4) !== 1 || claimsTooMuch(message, end)) {
    return refuse('FORMERR', message);
  }
  const decoded = tryDecode(message);
  const question = decoded?.questions?.[0];
  if (question === undefined) return refuse('FORMERR', message);
  const opt = decoded?.additionals?.find((record) => record.type === 'OPT');
  const query = {
    head: message.subarray(0, end),
    name: question.name,
    type: question.type,
    isInternet: message.readUInt16BE(end - 2) === CLASS_IN,
    edns:
      opt?.type === 'OPT'
        ? { payloadBytes: opt.udpPayloadSize, version: opt.ednsVersion }
        : undefined,
  };
  return { kind: 'query', query };
}

/**
 * Whether more records are announced than can follow. `dns-packet` makes room for as many as are announced before it reads
 * one: two megabytes for a datagram of twelve bytes.
 */
function claimsTooMuch(message: Buffer, end: number): boolean {
  const records = message.readUInt16BE(6) + message.readUInt16BE(8) + message.readUInt16BE(10);
  return records * RECORD_BYTES_MIN > message.length - end;
}

function refuse(rcode: DnsRefusal['rcode'], message: Buffer): DnsRequest {
  return { kind: 'refusal', refusal: { rcode, head: message.subarray(0, HEADER_BYTES) } };
}

function tryDecode(message: Buffer): ReturnType<typeof decode> | undefined {
  try {
    return decode(message);
  } catch {
    return undefined;
  }
}

/** One record of an answer; its name is the question's. */
export type DnsRecord =
  | { readonly type: 'A' | 'AAAA'; readonly address: string }
  | { readonly type: 'PTR'; readonly target: string }
  | { readonly type: 'SRV'; readonly target: string; readonly port: number };

/**
 * Writes the reply to a query.
 *
 * @param ttlSeconds Of every record.
 * @param bytesMax What the client's transport carries. If not all records fit, as many as do are sent with
 *   TC set: clients that can ask again by TCP do, and those that cannot (musl) still have addresses.
 */
export function encodeReply(
  query: DnsQuery,
  rcode: Rcode,
  records: readonly DnsRecord[],
  ttlSeconds: number,
  bytesMax: number,
): Buffer {
  const roomBytes = bytesMax - query.head.length - (query.edns === undefined ? 0 : OPT_BYTES);
  const encoded: Buffer[] = [];
  let usedBytes = 0;
  for (const record of records) {
    const bytes = encodeRecord(record, ttlSeconds);
    if (usedBytes + bytes.length > roomBytes) break;
    encoded.push(bytes);
    usedBytes += bytes.length;
  }
  const head = encodeHead(query.head, rcode, encoded.length < records.length);
  head.writeUInt16BE(encoded.length, 6);
  if (query.edns !== undefined) {
    head.writeUInt16BE(1, 10);
    encoded.push(encodeOpt(rcode));
  }
  return Buffer.concat([head, ...encoded]);
}

/** Writes the reply to a message that could not be understood. */
export function encodeRefusal(refusal: DnsRefusal): Buffer {
  const head = encodeHead(refusal.head.subarray(0, HEADER_BYTES), refusal.rcode, false);
  head.writeUInt16BE(0, 4);
  return head;
}

function encodeHead(requestHead: Buffer, rcode: Rcode, truncated: boolean): Buffer {
  const head = Buffer.from(requestHead);
  const kept =
    head.readUInt16BE(2) & (OPCODE_MASK | FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED);
  const flags = FLAG_RESPONSE | FLAG_RECURSION_AVAILABLE | (truncated ? FLAG_TRUNCATED : 0) | kept;
  head.writeUInt16BE(flags | (RCODES[rcode] & 0xf), 2);
  head.fill(0, 6, HEADER_BYTES);
  return head;
}

function encodeRecord(record: DnsRecord, ttlSeconds: number): Buffer {
  const data = encodeData(record);
  const type = TYPES[record.type];
  assert(type !== TYPE_A || data.length === 4, 'an A record holds an IPv4 address');
  assert(type !== TYPE_AAAA || data.length === 16, 'an AAAA record holds an IPv6 address');
  const target = Buffer.alloc(RECORD_FIXED_BYTES + data.length);
  target.writeUInt16BE(POINTER_TO_QUESTION, 0);
  target.writeUInt16BE(type, 2);
  target.writeUInt16BE(CLASS_IN, 4);
  target.writeUInt32BE(ttlSeconds, 6);
  target.writeUInt16BE(data.length, 10);
  target.set(data, RECORD_FIXED_BYTES);
  return target;
}

const TYPES: Readonly<Record<DnsRecord['type'], number>> = {
  A: TYPE_A,
  AAAA: TYPE_AAAA,
  PTR: TYPE_PTR,
  SRV: TYPE_SRV,
};

function encodeData(record: DnsRecord): Buffer {
  switch (record.type) {
    case 'PTR':
      return encodeName(record.target);
    case 'SRV': {
      // RFC 2782: all have the same priority, and weight 0 where none is to be preferred.
      const fixed = Buffer.alloc(6);
      fixed.writeUInt16BE(record.port, 4);
      return Buffer.concat([fixed, encodeName(record.target)]);
    }
    default:
      return Buffer.from(ipaddr.parse(record.address).toByteArray());
  }
}

/** Whether a name can stand in a message. */
export function isEncodableName(name: string): boolean {
  if (name === '' || Buffer.byteLength(name) > NAME_BYTES_MAX) return false;
  return name.split('.').every((label) => {
    const bytes = Buffer.byteLength(label);
    return bytes > 0 && bytes <= LABEL_BYTES_MAX;
  });
}

function encodeName(name: string): Buffer {
  assert(isEncodableName(name), 'names were checked when the table was made');
  const labels = name.split('.').map((label) => Buffer.from(label));
  return Buffer.concat([
    ...labels.flatMap((label) => [Buffer.of(label.length), label]),
    Buffer.of(0),
  ]);
}

/** RFC 6891 §6.1.2: root name, type, our payload size, upper rcode bits, version 0, no flags or options. */
function encodeOpt(rcode: Rcode): Buffer {
  const opt = Buffer.alloc(OPT_BYTES);
  opt.writeUInt16BE(TYPE_OPT, 1);
  opt.writeUInt16BE(UDP_PAYLOAD_BYTES_MAX, 3);
  opt.writeUInt8(RCODES[rcode] >> 4, 5);
  return opt;
}

/** The 16-bit id of a message that holds a header. */
export function messageId(message: Buffer): number {
  return message.readUInt16BE(0);
}

/** A copy of `message` under another id. */
export function withMessageId(message: Buffer, id: number): Buffer {
  const copy = Buffer.from(message);
  copy.writeUInt16BE(id, 0);
  return copy;
}

/**
 * Whether `response` answers `request`: same id, same question. What else arrives from an
 * upstream's address is somebody's attempt to answer in its place.
 */
export function isResponseTo(response: Buffer, request: Buffer): boolean {
  const end = questionEnd(request);
  if (end === undefined || response.length < end) return false;
  return (
    messageId(response) === messageId(request) &&
    (response.readUInt16BE(2) & FLAG_RESPONSE) !== 0 &&
    response.readUInt16BE(4) === 1 &&
    response.subarray(HEADER_BYTES, end).equals(request.subarray(HEADER_BYTES, end))
  );
}

/** Whether an upstream says that another one should be asked (SERVFAIL, NOTIMP, REFUSED). */
export function isLameResponse(response: Buffer): boolean {
  const rcode = response.readUInt16BE(2) & 0xf;
  return rcode === 2 || rcode === 4 || rcode === 5;
}
