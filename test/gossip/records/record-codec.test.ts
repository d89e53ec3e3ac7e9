import fc from 'fast-check';
import t from 'tap';
import {
  type Delta,
  decodeGossip,
  decodeSubscription,
  encodeGossip,
  encodeSubscription,
} from '../../../src/gossip/wire/record-delta.js';
import {
  decodeExchange,
  EXCHANGE_MESSAGE_BYTES_MAX,
  type ExchangeMessage,
  encodeExchange,
} from '../../../src/gossip/wire/record-exchange.js';
import { encodeFrame, FrameReader } from '../../../src/gossip/wire/record-frames.js';

const RUNS = { numRuns: 200 * Number(process.env['FUZZ_FACTOR'] ?? 1) };

const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 6 });
const uint48 = fc.nat({ max: 2 ** 40 });
const value = fc.option(fc.uint8Array({ maxLength: 40 }), { nil: undefined });

const delta: fc.Arbitrary<Delta> = fc
  .tuple(
    fc.oneof(fc.constant(''), name),
    name,
    uint48,
    fc.nat({ max: 1e9 }),
    fc.array(fc.tuple(name, fc.integer({ min: 1, max: 9 }), value), { maxLength: 6 }),
    fc.nat({ max: 3 }),
  )
  .map(([topic, owner, epoch, from, writes, more]) => {
    let seq = from;
    const events = writes.map(([key, step, value]) => {
      seq += step;
      return { key, seq, value };
    });
    return { topic, owner, epoch: epoch + 1, from, to: seq + more, events };
  });

const exchange: fc.Arbitrary<ExchangeMessage> = fc.oneof(
  fc.record({
    kind: fc.constant('digests' as const),
    topics: fc.array(
      fc.record({ topic: name, digest: fc.uint8Array({ minLength: 32, maxLength: 32 }) }),
      { maxLength: 4 },
    ),
  }),
  fc.record({
    kind: fc.constant('vectors' as const),
    partial: fc.boolean(),
    topics: fc.array(
      fc.record({
        topic: name,
        owners: fc.array(fc.record({ owner: name, epoch: uint48, seq: uint48 }), { maxLength: 4 }),
      }),
      { maxLength: 4 },
    ),
  }),
  fc.record({
    kind: fc.constant('page' as const),
    last: fc.boolean(),
    parts: fc.array(
      fc
        .tuple(delta, fc.boolean())
        .map(([{ events, ...head }, final]) => ({ head, events, final })),
      { maxLength: 4 },
    ),
  }),
  fc.constant({ kind: 'more' as const }),
);

/** Plain arrays: a view of a Buffer is not deeply equal to a Uint8Array. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, (_key, v) => (v instanceof Uint8Array ? [...v] : v), 0)
      // A Buffer has a toJSON that runs before the replacer sees it.
      .replaceAll(/\{"type":"Buffer","data":(\[[^\]]*\])\}/g, '$1'),
  );

t.test('what is encoded is decoded to the same', async (t) => {
  fc.assert(
    fc.property(delta, (d) => {
      t.same(plain(decodeGossip(encodeGossip(d))), plain(d));
    }),
    RUNS,
  );
  fc.assert(
    fc.property(exchange, (message) => {
      t.same(plain(decodeExchange(encodeExchange(message))), plain(message));
    }),
    RUNS,
  );
  const subscription = { epoch: 1_800_000_000_000, active: true };
  t.same(decodeSubscription(encodeSubscription(subscription)), subscription);
});

t.test('any bytes are decoded or refused, never thrown at us', async (t) => {
  const bytes = fc.uint8Array({ maxLength: 200 });
  fc.assert(
    fc.property(bytes, (any) => {
      decodeGossip(any);
      decodeGossip(Buffer.concat([Buffer.from([1]), any]));
      decodeSubscription(any);
      for (const type of [1, 2, 3, 4]) decodeExchange(Buffer.concat([Buffer.from([type]), any]));
    }),
    RUNS,
  );
  const cutAndFlip = fc.tuple(exchange, delta, fc.nat(), fc.nat(), fc.nat({ max: 255 }));
  fc.assert(
    fc.property(cutAndFlip, ([message, d, cut, at, xor]) => {
      for (const encoded of [encodeExchange(message), encodeGossip(d)]) {
        const damaged = Buffer.from(encoded.subarray(0, (cut % encoded.length) + 1));
        const index = at % damaged.length;
        damaged.writeUInt8(damaged.readUInt8(index) ^ xor, index);
        decodeExchange(damaged);
        decodeGossip(damaged);
      }
    }),
    RUNS,
  );
  t.pass('no exception');
});

t.test('a delta is refused by rule', async (t) => {
  const good: Delta = {
    topic: 'net',
    owner: 'a',
    epoch: 1,
    from: 2,
    to: 5,
    events: [{ key: 'k', seq: 4, value: Buffer.from('v') }],
  };
  const event = (key: string, seq: number) => ({ key, seq, value: undefined });
  const cases: readonly (readonly [string, Partial<Delta>, boolean])[] = [
    ['as it is', {}, true],
    ['the directory has no name', { topic: '' }, true],
    ['nothing but an epoch', { from: 0, to: 0, events: [] }, true],
    ['no owner', { owner: '' }, false],
    ['an owner too long', { owner: 'x'.repeat(65) }, false],
    ['a topic too long', { topic: 'x'.repeat(65) }, false],
    ['epoch zero', { epoch: 0 }, false],
    ['backwards', { from: 6 }, false],
    ['an event before the start', { events: [event('k', 2)] }, false],
    ['an event after the end', { events: [event('k', 6)] }, false],
    ['falling sequences', { events: [event('k', 4), event('l', 3)] }, false],
    ['the same sequence twice', { events: [event('k', 4), event('l', 4)] }, false],
    ['an empty key', { events: [event('', 4)] }, false],
    ['a value too large', { events: [{ key: 'k', seq: 4, value: Buffer.alloc(4097) }] }, false],
    ['the largest value', { events: [{ key: 'k', seq: 4, value: Buffer.alloc(4096) }] }, true],
  ];
  for (const [what, change, taken] of cases) {
    const decoded = decodeGossip(encodeGossip({ ...good, ...change }));
    t.equal(decoded !== 'delta_malformed', taken, what);
  }
  const bytes = encodeGossip(good);
  t.equal(
    decodeGossip(Buffer.concat([bytes, Buffer.from([0])])),
    'delta_malformed',
    'trailing byte',
  );
  bytes.writeUInt8(2, 0);
  t.equal(decodeGossip(bytes), 'delta_version');
  t.equal(decodeExchange(Buffer.from([9])), 'exchange_type');
  t.equal(decodeExchange(Buffer.alloc(EXCHANGE_MESSAGE_BYTES_MAX + 1)), 'exchange_oversized');
  t.equal(decodeExchange(Buffer.from([4, 0])), 'exchange_malformed');
});

t.test('frames come out whole however the stream is cut', async (t) => {
  const messages = fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 6 });
  const cuts = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(messages, cuts, (messages, cuts) => {
      const stream = Buffer.concat(messages.map((message) => encodeFrame(message)));
      const reader = new FrameReader();
      const out: Uint8Array[] = [];
      for (let at = 0, i = 0; at < stream.length; i++) {
        const size = cuts[i % cuts.length] ?? 1;
        out.push(...(reader.push(stream.subarray(at, at + size)) ?? []));
        at += size;
      }
      t.same(plain(out), plain(messages));
    }),
    RUNS,
  );
  const oversized = Buffer.alloc(4);
  oversized.writeUInt32BE(EXCHANGE_MESSAGE_BYTES_MAX + 1, 0);
  t.equal(new FrameReader().push(oversized), undefined);
});
