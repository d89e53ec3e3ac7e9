import { unreachable } from '../../../base/assert.js';
import type { Prng } from '../../../base/prng.js';
import {
  type DnsDrop,
  type DnsQuery,
  type DnsRecord,
  decodeRequest,
  encodeRefusal,
  encodeReply,
  type Rcode,
  UDP_PAYLOAD_BYTES_MAX,
  UDP_PAYLOAD_BYTES_MIN,
} from '../wire/dns.js';
import { type NameHit, NameIndex } from './name-table.js';

/**
 * How long a client may believe an answer. Short, because an address that left must be forgotten
 * within seconds, and asking again costs a trip over loopback only.
 */
export const NAME_TTL_SECONDS = 2;

/** Largest message over TCP, RFC 1035 §4.2.2. */
const TCP_MESSAGE_BYTES_MAX = 65_535;

export type Transport = 'udp' | 'tcp';

/** What is to be done with one message of a client. */
export type Outcome =
  | { readonly kind: 'reply'; readonly message: Buffer; readonly rcode: Rcode }
  /** The name is not ours: ask the upstreams, and if that fails reply with `failure`. */
  | { readonly kind: 'forward'; readonly failure: Buffer }
  | { readonly kind: 'drop'; readonly reason: DnsDrop };

/**
 * Decides on the queries of one namespace: a pure function of the table, the message and the seed.
 *
 * Names and their addresses are answered here, so they work with no manager and no upstream alive.
 * Everything else goes to the upstreams that the host itself uses.
 */
export class Resolver {
  readonly #prng: Prng;
  #index = new NameIndex([]);
  #hasUpstreams: boolean;

  constructor(prng: Prng, hasUpstreams: boolean) {
    this.#prng = prng;
    this.#hasUpstreams = hasUpstreams;
  }

  /** Replaces all that is known. */
  setNames(index: NameIndex): void {
    this.#index = index;
  }

  setHasUpstreams(hasUpstreams: boolean): void {
    this.#hasUpstreams = hasUpstreams;
  }

  get nameCount(): number {
    return this.#index.nameCount;
  }

  /** Names and addresses of the tables that could not be used. */
  get refusedCount(): number {
    return this.#index.refusedCount;
  }

  /** Never throws, whatever the bytes are. */
  resolve(message: Buffer, transport: Transport): Outcome {
    const request = decodeRequest(message);
    switch (request.kind) {
      case 'drop':
        return request;
      case 'refusal': {
        const { refusal } = request;
        return { kind: 'reply', message: encodeRefusal(refusal), rcode: refusal.rcode };
      }
      case 'query':
        return this.#resolveQuery(request.query, transport);
      default:
        return unreachable(request);
    }
  }

  #resolveQuery(query: DnsQuery, transport: Transport): Outcome {
    if (query.edns !== undefined && query.edns.version !== 0) {
      return reply(query, transport, 'BADVERS', []);
    }
    if (!query.isInternet) return reply(query, transport, 'NOTIMP', []);
    const records = this.#recordsOf(query);
    // NOERROR without records: the name exists, and has nothing of this type (RFC 2308 §2.2).
    if (records !== undefined) return reply(query, transport, 'NOERROR', records);
    // No name of the world ends in a number, and who waits for a task in this place shall not wait for upstreams.
    if (this.#index.isPlace(query.name)) return reply(query, transport, 'NXDOMAIN', []);
    if (this.#hasUpstreams) {
      const failure = reply(query, transport, 'SERVFAIL', []).message;
      return { kind: 'forward', failure };
    }
    // Nobody else could know a name without a dot; of all others we cannot tell.
    const rcode = query.name.includes('.') ? 'SERVFAIL' : 'NXDOMAIN';
    return reply(query, transport, rcode, []);
  }

  /** @returns `undefined` if the name is not ours. */
  #recordsOf(query: DnsQuery): readonly DnsRecord[] | undefined {
    if (query.type === 'PTR') {
      const target = this.#index.lookupPointer(query.name);
      if (target !== undefined) return [{ type: 'PTR', target }];
    }
    const places = query.type === 'SRV' ? this.#index.lookupPlaces(query.name) : undefined;
    if (places !== undefined)
      return this.#prng.shuffle(places.map((place) => ({ type: 'SRV' as const, ...place })));
    const hit = this.#index.lookup(query.name);
    if (hit === undefined) return undefined;
    return this.#prng.shuffle(recordsOfType(hit, query.type));
  }
}

function recordsOfType(hit: NameHit, type: string): DnsRecord[] {
  const wants = (family: 'A' | 'AAAA') => type === family || type === 'ANY';
  return [
    ...(wants('A') ? hit.v4.map((address) => ({ type: 'A' as const, address })) : []),
    ...(wants('AAAA') ? hit.v6.map((address) => ({ type: 'AAAA' as const, address })) : []),
  ];
}

function bytesMaxOf(query: DnsQuery, transport: Transport): number {
  if (transport === 'tcp') return TCP_MESSAGE_BYTES_MAX;
  const offered = query.edns?.payloadBytes ?? UDP_PAYLOAD_BYTES_MIN;
  return Math.min(UDP_PAYLOAD_BYTES_MAX, Math.max(UDP_PAYLOAD_BYTES_MIN, offered));
}

function reply(
  query: DnsQuery,
  transport: Transport,
  rcode: Rcode,
  records: readonly DnsRecord[],
): { readonly kind: 'reply'; readonly message: Buffer; readonly rcode: Rcode } {
  const bytesMax = bytesMaxOf(query, transport);
  const message = encodeReply(query, rcode, records, NAME_TTL_SECONDS, bytesMax);
  return { kind: 'reply', message, rcode };
}
