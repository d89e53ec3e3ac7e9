import ipaddr from 'ipaddr.js';
import { z } from 'zod';
import { assert } from '../../../base/assert.js';
import { parseAddress } from '../../wire/address.js';
import { formatMac, MAC_GROUP_BIT_HIGH, macHigh, parseMac } from '../../wire/ethernet.js';
import { VNI_MAX } from '../../wire/vxlan.js';

/** Bytes of a whole record; one endpoint with some aliases needs a quarter. */
export const ENDPOINT_RECORD_BYTES_MAX = 2048;
export const ENDPOINT_ADDRESSES_MAX = 8;
export const ENDPOINT_ALIASES_MAX = 32;
const NAME_CHARACTERS_MAX = 255;

/** A unicast MAC in lower case: the form in which equal addresses are equal texts. */
const mac = z.string().refine((text) => {
  const value = parseMac(text);
  if (value === undefined || value === 0) return false;
  return formatMac(value) === text && (macHigh(value) & MAC_GROUP_BIT_HIGH) === 0;
});

const cidr = z.string().max(64).refine(isCanonicalCidr);
const name = z.string().min(1).max(NAME_CHARACTERS_MAX);

const schema = z.object({
  version: z.literal(1),
  networkId: z.string().min(1).max(64),
  vni: z.int().min(0).max(VNI_MAX),
  mac,
  addresses: z.array(cidr).max(ENDPOINT_ADDRESSES_MAX).readonly(),
  name,
  aliases: z.array(name).max(ENDPOINT_ALIASES_MAX).readonly(),
  vtepAddress: z.string().max(64).refine(isCanonicalAddress),
  vtepPort: z.int().min(1).max(0xffff),
  createdAtMs: z.int().min(0),
  service: z
    .object({
      id: z.string().min(1).max(64),
      name,
      taskId: z.string().min(1).max(64),
      slot: z.int().min(0),
    })
    .readonly()
    .exactOptional(),
  state: z.enum(['starting', 'ready', 'draining']).exactOptional(),
  isFailing: z.literal(true).exactOptional(),
  answersDatagrams: z.boolean().exactOptional(),
  answersDatagrams6: z.boolean().exactOptional(),
});

/**
 * What a node tells the others about one of its endpoints; gossip carries it, keyed by owner.
 *
 * JSON, because it is rare and small, and because a newer version may add fields: unknown ones are
 * ignored. Addresses and MAC are in canonical text, so that equal ones are equal strings.
 */
export interface EndpointRecord {
  readonly version: 1;
  readonly networkId: string;
  readonly vni: number;
  /** `02:42:0a:00:01:05`. */
  readonly mac: string;
  /** `10.0.1.5/24`, `fd00::5/64`. */
  readonly addresses: readonly string[];
  readonly name: string;
  readonly aliases: readonly string[];
  /** Underlay address and UDP port of the owner's VTEP. */
  readonly vtepAddress: string;
  readonly vtepPort: number;
  /** When the attachment came to be, Unix milliseconds: the older one wins a conflict. */
  readonly createdAtMs: number;
  /** The task that has it; absent: what was attached by hand, or an agent that knows no services. */
  readonly service?: EndpointService;
  /**
   * Absent: `ready`, as of whatever has no health to speak of. `ready` means running and healthy;
   * what is `draining` keeps its flows and gets no new ones.
   */
  readonly state?: 'starting' | 'ready' | 'draining';
  /** Its owner's checks of it fail: it is to be passed over while there are others. */
  readonly isFailing?: true;
  /**
   * Datagrams may come from the addresses of clients outside: what it answers to them finds back.
   * Absent: they may not, as with an agent that does not know of it.
   */
  readonly answersDatagrams?: boolean;
  /** The same of clients of IPv6, which those of IPv4 are too then. */
  readonly answersDatagrams6?: boolean;
}

/** Whose task an endpoint is. */
export interface EndpointService {
  readonly id: string;
  readonly name: string;
  readonly taskId: string;
  /** Which replica, from 1; 0 where there is one for each node. */
  readonly slot: number;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true });

/** Asserts that the record is valid, since it is our own, and fits. */
export function encodeEndpointRecord(record: EndpointRecord): Uint8Array {
  assert(schema.safeParse(record).success, 'endpoint record is valid');
  const bytes = encoder.encode(JSON.stringify(record));
  assert(bytes.length <= ENDPOINT_RECORD_BYTES_MAX, 'endpoint record fits its limit');
  return bytes;
}

/** @returns `undefined` for anything that is not a valid record of version 1; never throws. */
export function decodeEndpointRecord(bytes: Uint8Array): EndpointRecord | undefined {
  if (bytes.length > ENDPOINT_RECORD_BYTES_MAX) return undefined;
  try {
    const parsed = schema.safeParse(JSON.parse(decoder.decode(bytes)));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

function isCanonicalAddress(text: string): boolean {
  return parseAddress(text) !== undefined && ipaddr.process(text).toString() === text;
}

function isCanonicalCidr(text: string): boolean {
  const match = /^(?<address>[0-9a-f.:]+)\/(?<bits>0|[1-9][0-9]{0,2})$/.exec(text);
  const { address = '', bits = '' } = match?.groups ?? {};
  return isCanonicalAddress(address) && Number(bits) <= (address.includes(':') ? 128 : 32);
}
