import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import {
  decodeEntries,
  decodeHardState,
  decodeSnapshotMeta,
  encodeEntries,
  encodeHardState,
  encodeSnapshotMeta,
} from '../../../../src/control/raft/wire/entry.js';
import {
  CONTEXT_BYTES_MAX,
  decodeMembers,
  encodeMembers,
  MEMBERS_MAX,
} from '../../../../src/control/raft/wire/members.js';
import type { Member } from '../../../../src/control/raft/wire/records.js';
import {
  entriesArb,
  hardStateArb,
  membersArb,
  raftId,
  runs,
  snapshotMetaArb,
} from './arbitrary.js';

t.test('the bytes of a small log are these, now and in later versions', async (t) => {
  const entries = [
    { index: 300, term: 7, kind: 'noop', data: Buffer.from('') },
    { index: 301, term: 7, kind: 'command', data: Buffer.from('ab') },
    { index: 302, term: 200, kind: 'members', data: Buffer.from('c') },
  ] as const;
  const bytes = encodeEntries(entries);
  t.equal(
    Buffer.from(bytes).toString('hex'),
    ['03ac02', '000700', '0100026162', '02c1010163'].join(''),
  );
  t.strictSame(decodeEntries(bytes), entries);
  t.equal(Buffer.from(encodeEntries([])).toString('hex'), '00');
});

t.test('the bytes of a hard state and of a snapshot are these', async (t) => {
  const state = encodeHardState({ term: 5, vote: raftId(0x0102_0304_0506), commitIndex: 128 });
  t.equal(Buffer.from(state).toString('hex'), ['05', '010203040506', '8001'].join(''));
  const members = [
    { id: raftId(9), voter: true, context: 'é' },
    { id: raftId(10), voter: false, context: '' },
  ];
  const meta = encodeSnapshotMeta({ index: 3, term: 2, members });
  t.equal(
    Buffer.from(meta).toString('hex'),
    ['0302', '02', '0000000000090102c3a9', '00000000000a0000'].join(''),
  );
});

t.test('what is encoded comes back', async () => {
  const same = <T>(
    arb: fc.Arbitrary<T>,
    there: (value: T) => Uint8Array,
    back: (bytes: Uint8Array) => unknown,
  ) =>
    fc.assert(
      fc.property(arb, (value) => isDeepStrictEqual(back(there(value)), value)),
      runs(200),
    );
  same(entriesArb, encodeEntries, decodeEntries);
  same(hardStateArb, encodeHardState, decodeHardState);
  same(membersArb, encodeMembers, decodeMembers);
  same(snapshotMetaArb, encodeSnapshotMeta, decodeSnapshotMeta);
});

t.test('a shorter or longer text is refused, never half of it taken', async (t) => {
  const bytes = encodeEntries([{ index: 1, term: 1, kind: 'command', data: Buffer.from('abc') }]);
  for (let length = 0; length < bytes.length; length++)
    t.equal(decodeEntries(bytes.subarray(0, length)), undefined, `${length} bytes`);
  t.equal(decodeEntries(Buffer.concat([bytes, Buffer.from([0])])), undefined);
});

t.test('nonsense is refused', async (t) => {
  const cases: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['a count without entries', '05'],
    ['a count beyond all bounds', 'ffffffffffff0f'],
    ['a varint that does not end', 'ffffffffffffffffffff'],
    ['index 0', '01' + '00' + '010100'],
    ['term 0', '01' + '01' + '010000'],
    ['an unknown kind', '01' + '01' + '030100'],
    ['an index beyond 2^53', '01' + 'ffffffffffffff0f' + '010100'],
    ['terms that add up beyond 2^53', '02' + '01' + '01ffffffffffffff0f00' + '010100'],
    ['a length beyond all bounds', '01' + '01' + '0101' + 'ffffff7f'],
  ];
  for (const [name, hex] of cases) t.equal(decodeEntries(Buffer.from(hex, 'hex')), undefined, name);
  const twice = '02' + '0000000000090100' + '0000000000090100';
  t.equal(decodeMembers(Buffer.from(twice, 'hex')), undefined, 'an id twice');
  t.equal(decodeMembers(Buffer.from('010000000000000100', 'hex')), undefined, 'id 0');
  t.equal(decodeMembers(Buffer.from('010000000000090200', 'hex')), undefined, 'an unknown role');
});

t.test('memberships at their bounds pass, and beyond them do not', async (t) => {
  const member = (id: number, context = ''): Member => ({ id: raftId(id), voter: true, context });
  const full = Array.from({ length: MEMBERS_MAX }, (_, i) => member(i + 1));
  t.equal(decodeMembers(encodeMembers(full))?.length, MEMBERS_MAX);
  t.throws(() => encodeMembers([...full, member(1_000)]));
  t.ok(decodeMembers(encodeMembers([member(1, 'x'.repeat(CONTEXT_BYTES_MAX))])));
  t.throws(() => encodeMembers([member(1, 'x'.repeat(CONTEXT_BYTES_MAX + 1))]));
});

t.test('no bytes make a decoder throw', async (t) => {
  const decoders = [decodeEntries, decodeHardState, decodeMembers, decodeSnapshotMeta];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      for (const decode of decoders) decode(bytes);
    }),
    runs(2_000),
  );
  t.pass('none did');
});

t.test('a flipped bit is either refused or another text, never a crash', async () => {
  fc.assert(
    fc.property(entriesArb, fc.nat(), (entries, at) => {
      const bytes = Buffer.from(encodeEntries(entries));
      const bit = at % (bytes.length * 8);
      bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
      const decoded = decodeEntries(bytes);
      return decoded === undefined || decoded.every(({ index, term }) => index > 0 && term > 0);
    }),
    runs(500),
  );
});
