import type { Brand } from '../../base/brand.js';
import type { ByteReader, ByteWriter } from './bytes.js';
import { decodeEndpoint, type Endpoint, encodeEndpoint, endpointBytes } from './endpoint.js';

/** 1 to `MEMBER_ID_BYTES_MAX` printable ASCII characters, no space; in a swarm, the node's id. */
export type MemberId = Brand<string, 'MemberId'>;
/** A member's own logical clock: only the member itself raises it. */
export type Incarnation = Brand<number, 'Incarnation'>;
export type MemberState = 'alive' | 'suspect' | 'dead' | 'left';

/** One statement about a member. */
export interface Claim {
  readonly member: MemberId;
  readonly state: MemberState;
  readonly incarnation: Incarnation;
  /** Where the member listens; every claim carries it, so that any claim introduces a member. */
  readonly endpoint: Endpoint;
  /** Who says so, for `suspect` and `dead`; distinct reporters confirm a suspicion. */
  readonly reporter?: MemberId;
  /** The reporter saw the member's host refuse a connection: the host lives, the process is gone. */
  readonly gone?: boolean;
  /** How long the member had been `dead` or `left` when this was sent; so that all forget it alike. */
  readonly ageSeconds?: number;
}

export const MEMBER_ID_BYTES_MAX = 64;
export const INCARNATION_MAX = 0xffff_ffff;

/** Wire numbers of states: append only, never renumber. */
const STATE_NUMBER: Readonly<Record<MemberState, number>> = {
  alive: 0,
  suspect: 1,
  dead: 2,
  left: 3,
};
const STATES: readonly MemberState[] = ['alive', 'suspect', 'dead', 'left'];

const STATE_MASK = 0x03;
const FLAG_GONE = 0x04;
const FLAG_REPORTER = 0x08;
const FLAG_AGE = 0x10;

/**
 * Layout, big-endian; parts in brackets are there if their flag is set:
 *
 *  +--------+--------+--------+--------+--------+
 *  |...ARGSS|            incarnation            |   SS state, G gone, R reporter, A age
 *  +--------+--------+--------+--------+--------+
 *  | length |  member ...   | endpoint ...
 *  +--------+---------------+--------------------
 *  [ length |  reporter ... ] [ age in seconds: 4 ]
 *
 * Bits not drawn are sent as zero and ignored on receipt.
 */
export function encodeClaim(writer: ByteWriter, claim: Claim): void {
  let head = STATE_NUMBER[claim.state];
  if (claim.gone === true) head |= FLAG_GONE;
  if (claim.reporter !== undefined) head |= FLAG_REPORTER;
  if (claim.ageSeconds !== undefined) head |= FLAG_AGE;
  writer.u8(head);
  writer.u32(claim.incarnation);
  writer.text8(claim.member);
  encodeEndpoint(writer, claim.endpoint);
  if (claim.reporter !== undefined) writer.text8(claim.reporter);
  if (claim.ageSeconds !== undefined) writer.u32(claim.ageSeconds);
}

/** `undefined` if the bytes are no claim. */
export function decodeClaim(reader: ByteReader): Claim | undefined {
  const head = reader.u8();
  const incarnation = reader.u32() as Incarnation;
  const member = decodeMemberId(reader);
  const endpoint = decodeEndpoint(reader);
  const reporter = (head & FLAG_REPORTER) === 0 ? undefined : decodeMemberId(reader);
  const ageSeconds = (head & FLAG_AGE) === 0 ? undefined : reader.u32();
  if (reader.failed || member === undefined || endpoint === undefined) return undefined;
  if ((head & FLAG_REPORTER) !== 0 && reporter === undefined) return undefined;
  return {
    member,
    state: STATES[head & STATE_MASK] as MemberState,
    incarnation,
    endpoint,
    ...(reporter === undefined ? {} : { reporter }),
    ...((head & FLAG_GONE) === 0 ? {} : { gone: true }),
    ...(ageSeconds === undefined ? {} : { ageSeconds }),
  };
}

/** Exactly what `encodeClaim` writes. */
export function claimBytes(claim: Claim): number {
  return (
    6 +
    claim.member.length +
    endpointBytes(claim.endpoint) +
    (claim.reporter === undefined ? 0 : 1 + claim.reporter.length) +
    (claim.ageSeconds === undefined ? 0 : 4)
  );
}

export function isMemberId(text: string): text is MemberId {
  return text.length >= 1 && text.length <= MEMBER_ID_BYTES_MAX && /^[\x21-\x7e]+$/.test(text);
}

/** `undefined` if the bytes are no member id. */
export function decodeMemberId(reader: ByteReader): MemberId | undefined {
  const text = reader.text8();
  return isMemberId(text) ? text : undefined;
}
