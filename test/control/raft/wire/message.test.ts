import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import {
  decodeMessages,
  encodeMessages,
  MESSAGES_MAX,
  messageBytes,
} from '../../../../src/control/raft/wire/message.js';
import type { RaftMessage } from '../../../../src/control/raft/wire/records.js';
import { messageArb, raftId, runs } from './arbitrary.js';

const envelope = { from: raftId(1), to: raftId(2), term: 3 };
const HEAD = '000000000001' + '000000000002' + '03';

const cases: readonly (readonly [RaftMessage, string])[] = [
  [
    { ...envelope, kind: 'pre_vote', lastIndex: 4, lastTerm: 3, transfer: false },
    `00${HEAD}040300`,
  ],
  [{ ...envelope, kind: 'pre_vote_reply', granted: true }, `01${HEAD}01`],
  [{ ...envelope, kind: 'vote', lastIndex: 4, lastTerm: 3, transfer: true }, `02${HEAD}040301`],
  [{ ...envelope, kind: 'vote_reply', granted: false }, `03${HEAD}00`],
  [
    {
      ...envelope,
      kind: 'append',
      prevIndex: 128,
      prevTerm: 2,
      commitIndex: 5,
      entries: [{ index: 129, term: 3, kind: 'command', data: Buffer.from('x') }],
    },
    `04${HEAD}8001020501810101030178`,
  ],
  [
    {
      ...envelope,
      kind: 'append_reply',
      index: 9,
      accepted: false,
      hintIndex: 7,
      hintTerm: 2,
    },
    `05${HEAD}09000702`,
  ],
  [{ ...envelope, kind: 'heartbeat', commitIndex: 9, readRound: 300 }, `06${HEAD}09ac02`],
  [{ ...envelope, kind: 'heartbeat_reply', readRound: 300 }, `07${HEAD}ac02`],
  [
    {
      ...envelope,
      kind: 'snapshot',
      meta: { index: 6, term: 2, members: [{ id: raftId(9), voter: true, context: 'c' }] },
    },
    `08${HEAD}060201000000000009010163`,
  ],
  [{ ...envelope, kind: 'timeout_now' }, `09${HEAD}`],
  [{ ...envelope, kind: 'read_index', request: 5 }, `0a${HEAD}05`],
  [{ ...envelope, kind: 'read_index_reply', request: 5, index: 9 }, `0b${HEAD}0509`],
];

t.test('the bytes of each kind are these, now and in later versions', async (t) => {
  for (const [message, hex] of cases) {
    t.equal(Buffer.from(encodeMessages([message])).toString('hex'), `0101${hex}`, message.kind);
    t.strictSame(decodeMessages(Buffer.from(`0101${hex}`, 'hex')), [message], message.kind);
  }
});

t.test('several messages share one text, in order', async (t) => {
  const messages = cases.map(([message]) => message);
  t.strictSame(decodeMessages(encodeMessages(messages)), messages);
  t.strictSame(decodeMessages(encodeMessages([])), []);
});

t.test('what is encoded comes back, and is no longer than foretold', async () => {
  fc.assert(
    fc.property(fc.array(messageArb, { maxLength: 8 }), (messages) => {
      const bytes = encodeMessages(messages);
      const foretold = messages.reduce((sum, message) => sum + messageBytes(message), 8);
      const hasSnapshot = messages.some(({ kind }) => kind === 'snapshot');
      return (
        isDeepStrictEqual(decodeMessages(bytes), messages) &&
        (hasSnapshot || bytes.length <= foretold)
      );
    }),
    runs(500),
  );
});

t.test('nonsense is refused', async (t) => {
  const zero = '000000000000';
  const nonsense: readonly (readonly [string, string])[] = [
    ['nothing', ''],
    ['another version', `0201${cases[9]?.[1]}`],
    ['fewer messages than announced', `0102${cases[9]?.[1]}`],
    ['more messages than announced', `0100${cases[9]?.[1]}`],
    ['an unknown kind', `01010c${HEAD}`],
    ['from nobody', `010109${zero}00000000000203`],
    ['to nobody', `010109000000000001${zero}03`],
    ['term 0', `010109000000000001` + '00000000000200'],
    ['a flag that is neither', `010101${HEAD}02`],
    ['too many messages', `01ff7f${cases[9]?.[1]}`],
    [
      'the very largest term, after which there is none',
      `010109${HEAD.slice(0, 24)}ffffffffffffff0f`,
    ],
  ];
  for (const [name, hex] of nonsense)
    t.equal(decodeMessages(Buffer.from(hex, 'hex')), undefined, name);
  const [message] = cases[9] as (typeof cases)[number];
  t.throws(() => encodeMessages(Array(MESSAGES_MAX + 1).fill(message)));
  t.equal(decodeMessages(encodeMessages(Array(MESSAGES_MAX).fill(message)))?.length, MESSAGES_MAX);
});

t.test('every truncation is refused', async (t) => {
  const bytes = encodeMessages(cases.map(([message]) => message));
  for (let length = 0; length < bytes.length; length++)
    if (decodeMessages(bytes.subarray(0, length)) !== undefined) t.fail(`${length} bytes`);
  t.pass('all of them');
});

t.test('no bytes make the decoder throw, and what it takes can be encoded again', async () => {
  const mutated = fc
    .tuple(fc.array(messageArb, { maxLength: 4 }), fc.array(fc.tuple(fc.nat(), fc.nat(255))))
    .map(([messages, changes]) => {
      const bytes = Buffer.from(encodeMessages(messages));
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return bytes as Uint8Array;
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 300 }), mutated), (bytes) => {
      const messages = decodeMessages(bytes);
      if (messages === undefined) return true;
      return isDeepStrictEqual(decodeMessages(encodeMessages(messages)), messages);
    }),
    runs(2_000),
  );
});
