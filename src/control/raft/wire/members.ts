import { assert } from '../../../base/assert.js';
import { ByteReader, ByteWriter } from './bytes.js';
import type { Member, Membership, RaftId } from './records.js';

/**
 * A membership as bytes, the data of an entry of kind `members` (`n` is a varint):
 *
 *   n count, and for each: u48 id, u8 role (0: learner, 1: voter), n length, context in UTF-8
 */

/** Voters and learners together: seven managers are plenty, and some come while others go. */
export const MEMBERS_MAX = 64;
export const CONTEXT_BYTES_MAX = 1_024;

/** Whether it is within the bounds, as `encodeMembers` asserts. */
export function membersFit(members: Membership): boolean {
  return (
    members.length <= MEMBERS_MAX &&
    members.every(({ context }) => Buffer.byteLength(context) <= CONTEXT_BYTES_MAX)
  );
}

export function encodeMembers(members: Membership): Uint8Array {
  const writer = new ByteWriter(members.length * 64);
  writeMembers(writer, members);
  return writer.finish();
}

/** `undefined`: nonsense, such as an id that is there twice. */
export function decodeMembers(bytes: Uint8Array): Membership | undefined {
  const reader = new ByteReader(bytes);
  const members = readMembers(reader);
  return reader.done ? members : undefined;
}

export function writeMembers(writer: ByteWriter, members: Membership): void {
  assert(membersFit(members), 'a membership is bounded');
  writer.varint(members.length);
  for (const { id, voter, context } of members) {
    writer.u48(id);
    writer.u8(voter ? 1 : 0);
    writer.block(Buffer.from(context));
  }
}

export function readMembers(reader: ByteReader): Membership {
  const count = reader.varint(MEMBERS_MAX);
  const members: Member[] = [];
  for (let i = 0; i < count && !reader.failed; i++) {
    const id = reader.u48() as RaftId;
    const role = reader.u8();
    const context = reader.block(CONTEXT_BYTES_MAX);
    if (id === 0 || role > 1 || members.some((other) => other.id === id)) reader.refuse();
    else members.push({ id, voter: role === 1, context: Buffer.from(context).toString() });
  }
  return members;
}
