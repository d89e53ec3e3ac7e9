import ipaddr from 'ipaddr.js';
import { LabelReader } from './label-reader.js';

/** Items of one `shoal.allow-from` or `shoal.bind`. */
const RANGES_MAX = 256;
/** Flows and flows per second that a label may name: more is as good as any number. */
const COUNT_DIGITS = 6;
const BIND_FORM = 'addresses, CIDRs and names of interfaces, as in 10.0.0.0/8,::1,eth1';
const RANGES_FORM = 'addresses and CIDRs, as in 10.0.0.0/8,2001:db8::/32';

/** One CIDR, as the words of a 16-byte address; IPv4 as `::ffff:a.b.c.d`. */
export interface AddressRange {
  readonly words: readonly number[];
  readonly masks: readonly number[];
  readonly isV4: boolean;
}

/** Addresses of nodes, by range or by the interface that has them. */
export interface BindTo {
  readonly ranges: readonly AddressRange[];
  readonly interfaces: ReadonlySet<string>;
}

const NOWHERE: BindTo = { ranges: [], interfaces: new Set() };

/** Who may have how many flows of a service's published ports, at each node. */
export interface Access {
  /** Clients that are let in; absent: all. */
  readonly allowFrom?: readonly AddressRange[];
  /** Open flows of each port; 0: any number. */
  readonly mostOpen: number;
  /** New flows per second of each client address; 0: any number. */
  readonly perSecond: number;
}

export const OPEN_ACCESS: Access = { mostOpen: 0, perSecond: 0 };

/**
 * Reads `shoal.allow-from`, `shoal.bind`, `shoal.connections-max` and `shoal.rate`.
 *
 * @returns Where ports listen (absent: wherever the node has them listen), and a sentence for each label that is
 *   not understood. Managers refuse such labels; where one has come nonetheless, nobody is let in by the first
 *   two, since they were meant to keep somebody out.
 */
export function readAccess(labels: Readonly<Record<string, string>>): {
  readonly access: Access;
  readonly bind: BindTo | undefined;
  readonly problems: readonly string[];
} {
  const reader = new LabelReader(labels, 'is not valid');
  const most = `up to ${'9'.repeat(COUNT_DIGITS)}`;
  const allowFrom = reader.read<readonly AddressRange[] | undefined>(
    'shoal.allow-from',
    undefined,
    parseRanges,
    `1 to ${RANGES_MAX} ${RANGES_FORM}`,
    [],
  );
  const bind = reader.read<BindTo | undefined>(
    'shoal.bind',
    undefined,
    parseBindTo,
    BIND_WANTED,
    NOWHERE,
  );
  const access = {
    ...(allowFrom && { allowFrom }),
    mostOpen: reader.read(
      'shoal.connections-max',
      0,
      parseCount,
      `a number of flows from 1 ${most}`,
    ),
    perSecond: reader.read(
      'shoal.rate',
      0,
      parseRate,
      `new flows per second as N/s, with N from 1 ${most}`,
    ),
  };
  return { access, bind, problems: reader.problems };
}

/** Whether an address, in four words, lies in one of the ranges. */
export function rangesInclude(ranges: readonly AddressRange[], address: Int32Array): boolean {
  const isV4 = address[0] === 0 && address[1] === 0 && address[2] === 0xffff;
  return ranges.some(
    ({ words, masks, isV4: isOfV4 }) =>
      isOfV4 === isV4 &&
      words.every((word, i) => (((address[i] as number) ^ word) & (masks[i] as number)) === 0),
  );
}

export const BIND_WANTED = `1 to ${RANGES_MAX} ${BIND_FORM}`;

/** Reads what `BIND_WANTED` says; `undefined` for all else. */
export function parseBindTo(text: string): BindTo | undefined {
  const ranges: AddressRange[] = [];
  const interfaces = new Set<string>();
  const items = text.split(',').map((item) => item.trim());
  if (items.length > RANGES_MAX) return undefined;
  for (const item of items) {
    const range = parseRange(ALL_OF_FAMILY.get(item) ?? item);
    if (range !== undefined) ranges.push(range);
    // What looks like an address and is none is a slip, and no name.
    else if (/^[\w.-]{1,15}$/.test(item) && !/^[\d.]+$/.test(item)) interfaces.add(item);
    else return undefined;
  }
  return { ranges, interfaces };
}

/** What stands for all addresses where one binds to them. */
const ALL_OF_FAMILY: ReadonlyMap<string, string> = new Map([
  ['0.0.0.0', '0.0.0.0/0'],
  ['::', '::/0'],
]);

function parseRanges(text: string): readonly AddressRange[] | undefined {
  const parts = text.split(',').map((part) => part.trim());
  if (parts.length > RANGES_MAX) return undefined;
  const ranges = parts.map(parseRange);
  return ranges.every((range) => range !== undefined) ? ranges : undefined;
}

function parseRange(text: string): AddressRange | undefined {
  const [literal = '', length, ...rest] = text.split('/');
  if (rest.length > 0 || (length !== undefined && !/^\d{1,3}$/.test(length))) return undefined;
  const isV4 = ipaddr.IPv4.isValidFourPartDecimal(literal);
  if (!isV4 && (literal.includes('%') || !literal.includes(':') || !ipaddr.IPv6.isValid(literal)))
    return undefined;
  const address = isV4
    ? ipaddr.IPv4.parse(literal).toIPv4MappedAddress()
    : ipaddr.IPv6.parse(literal);
  const bits = Number(length ?? (isV4 ? 32 : 128)) + (isV4 ? 96 : 0);
  if (bits > 128) return undefined;
  const view = new DataView(Uint8Array.from(address.toByteArray()).buffer);
  const at = [0, 1, 2, 3];
  return {
    words: at.map((i) => view.getInt32(i * 4)),
    masks: at.map((i) => maskOf(bits - i * 32)),
    isV4: isV4 || (address.isIPv4MappedAddress() && bits >= 96),
  };
}

/** The first `bits` of a word. */
function maskOf(bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? -1 : -1 << (32 - bits);
}

function parseCount(text: string): number | undefined {
  const count = /^\d+$/.test(text) && text.length <= COUNT_DIGITS ? Number(text) : 0;
  return count > 0 ? count : undefined;
}

function parseRate(text: string): number | undefined {
  return text.endsWith('/s') ? parseCount(text.slice(0, -2)) : undefined;
}
