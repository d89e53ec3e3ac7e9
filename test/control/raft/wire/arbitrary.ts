import fc from 'fast-check';
import type {
  EntryKind,
  HardState,
  LogEntry,
  Membership,
  MessageBody,
  RaftId,
  RaftMessage,
  SnapshotMeta,
} from '../../../../src/control/raft/wire/records.js';

/** More by FUZZ_FACTOR, for long runs. */
export const runs = (numRuns: number) => ({
  numRuns: numRuns * Number(process.env['FUZZ_FACTOR'] ?? 1),
});

export const raftId = (id: number) => id as RaftId;

/** Objects as literals make them, so that deep comparison has nothing to say about prototypes. */
export const PLAIN = { noNullPrototype: true } as const;

const LARGEST = Number.MAX_SAFE_INTEGER;

/** Small ones mostly, and those around the edges of a varint and of 32 bits. */
export const count = (min: number, max = LARGEST) =>
  fc.oneof(
    fc.integer({ min, max: Math.min(max, 300) }),
    fc.integer({ min, max }),
    fc.constantFrom(127, 128, 16_383, 16_384, 2 ** 31, 2 ** 32).filter((n) => n >= min && n <= max),
  );

export const raftIdArb = fc.integer({ min: 1, max: 2 ** 48 - 1 }).map(raftId);
export const kindArb = fc.constantFrom<EntryKind>('noop', 'command', 'members');
export const dataArb = fc.uint8Array({ maxLength: 300 }).map((data) => Buffer.from(data));

export const entriesArb: fc.Arbitrary<LogEntry[]> = fc
  .record({
    first: count(1, LARGEST - 2 ** 21),
    term: count(1, 2 ** 52),
    rest: fc.array(fc.record({ step: fc.nat(300), kind: kindArb, data: dataArb }, PLAIN), {
      maxLength: 20,
    }),
  })
  .map(({ first, term, rest }) => {
    let at = term;
    return rest.map(({ step, kind, data }, i) => {
      at += step;
      return { index: first + i, term: at, kind, data };
    });
  });

export const membersArb: fc.Arbitrary<Membership> = fc.uniqueArray(
  fc.record({ id: raftIdArb, voter: fc.boolean(), context: fc.string({ maxLength: 40 }) }, PLAIN),
  { maxLength: 9, selector: ({ id }) => id },
);

export const hardStateArb: fc.Arbitrary<HardState> = fc.record(
  {
    term: count(0),
    vote: fc.oneof(fc.constant(0 as const), raftIdArb),
    commitIndex: count(0),
  },
  PLAIN,
);

export const snapshotMetaArb: fc.Arbitrary<SnapshotMeta> = fc.record(
  {
    index: count(0),
    term: count(0),
    members: membersArb,
  },
  PLAIN,
);

const place = { index: count(0), term: count(0) };

/** Every kind of message, with numbers up to the largest. */
export const messageArb: fc.Arbitrary<RaftMessage> = fc
  .tuple(
    fc.record({ from: raftIdArb, to: raftIdArb, term: count(1, LARGEST - 1) }, PLAIN),
    fc.oneof<fc.Arbitrary<MessageBody>[]>(
      fc.record(
        {
          kind: fc.constantFrom('pre_vote', 'vote'),
          lastIndex: place.index,
          lastTerm: place.term,
          transfer: fc.boolean(),
        },
        PLAIN,
      ),
      fc.record(
        { kind: fc.constantFrom('pre_vote_reply', 'vote_reply'), granted: fc.boolean() },
        PLAIN,
      ),
      fc.record(
        {
          kind: fc.constant('append'),
          prevIndex: place.index,
          prevTerm: place.term,
          entries: entriesArb,
          commitIndex: place.index,
        },
        PLAIN,
      ),
      fc.record(
        {
          kind: fc.constant('append_reply'),
          index: place.index,
          accepted: fc.boolean(),
          hintIndex: place.index,
          hintTerm: place.term,
        },
        PLAIN,
      ),
      fc.record(
        { kind: fc.constant('heartbeat'), commitIndex: place.index, readRound: count(0) },
        PLAIN,
      ),
      fc.record({ kind: fc.constant('heartbeat_reply'), readRound: count(0) }, PLAIN),
      fc.record({ kind: fc.constant('snapshot'), meta: snapshotMetaArb }, PLAIN),
      fc.record({ kind: fc.constant('timeout_now') }, PLAIN),
      fc.record({ kind: fc.constant('read_index'), request: count(0) }, PLAIN),
      fc.record(
        { kind: fc.constant('read_index_reply'), request: count(0), index: place.index },
        PLAIN,
      ),
    ),
  )
  .map(([envelope, body]) => ({ ...envelope, ...body }) as RaftMessage);
