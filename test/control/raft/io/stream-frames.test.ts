import fc from 'fast-check';
import t from 'tap';
import {
  CHUNK_BYTES_MAX,
  decodeHello,
  decodeSnapshotFrame,
  encodeHello,
  encodeSnapshotFrame,
  SNAPSHOT_FRAME_BYTES_MAX,
  type SnapshotFrame,
} from '../../../../src/control/raft/io/stream-frames.js';
import { fuzzRuns } from '../../../support/fuzz.js';
import { idOf } from './cluster.js';

const HEADER_BYTES = 4;
const id = fc.integer({ min: 1, max: 2 ** 48 - 1 }).map(idOf);
const number = fc.maxSafeNat();
const member = fc.record({ id, voter: fc.boolean(), context: fc.string({ maxLength: 40 }) });

const frame: fc.Arbitrary<SnapshotFrame> = fc.oneof(
  fc.record({
    kind: fc.constant('offer' as const),
    term: number,
    meta: fc.record({
      index: number,
      term: number,
      members: fc.uniqueArray(member, { maxLength: 5, selector: (one) => one.id }),
    }),
    sizeBytes: number,
    digest: fc.uint8Array({ minLength: 32, maxLength: 32 }),
  }),
  fc.record({ kind: fc.constantFrom('want' as const, 'have' as const), offsetBytes: number }),
  fc.record({
    kind: fc.constant('chunk' as const),
    offsetBytes: number,
    data: fc.uint8Array({ minLength: 1, maxLength: 300 }),
  }),
  fc.constant({ kind: 'done' as const }),
  fc.record({
    kind: fc.constant('refuse' as const),
    why: fc.constantFrom(
      'stale' as const,
      'busy' as const,
      'damaged' as const,
      'disk' as const,
      'too_large' as const,
    ),
  }),
);

const body = (encoded: Uint8Array) => encoded.subarray(HEADER_BYTES);

/** To compare by: views of other buffers are as good as arrays of their own, in whatever order. */
const plain = (value: unknown): string =>
  JSON.stringify(value, function (this: Record<string, unknown>, key, part: unknown) {
    // Buffers have a form of their own, which comes first.
    const original = this[key];
    if (original instanceof Uint8Array) return [...original];
    if (typeof part !== 'object' || part === null || Array.isArray(part)) return part;
    return Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)));
  });

t.test('frames come back as they were', async (t) => {
  fc.assert(
    fc.property(frame, (one) => {
      const encoded = encodeSnapshotFrame(one);
      const length = Buffer.from(encoded).readUInt32BE();
      return (
        length === encoded.length - HEADER_BYTES &&
        plain(decodeSnapshotFrame(body(encoded))) === plain(one)
      );
    }),
    { numRuns: fuzzRuns(200) },
  );
  fc.assert(
    fc.property(id, id, (from, to) => {
      return plain(decodeHello(body(encodeHello({ from, to })))) === plain({ from, to });
    }),
    { numRuns: fuzzRuns(20) },
  );
  t.pass('they do');
});

t.test('a frame that is cut short, or goes on, is nonsense', async (t) => {
  fc.assert(
    fc.property(frame, fc.nat(), (one, seed) => {
      const encoded = body(encodeSnapshotFrame(one));
      const cut = encoded.subarray(0, seed % encoded.length);
      const longer = Buffer.concat([encoded, Buffer.alloc(1)]);
      return decodeSnapshotFrame(cut) === undefined && decodeSnapshotFrame(longer) === undefined;
    }),
    { numRuns: fuzzRuns(100) },
  );
  t.pass('it is');
});

t.test('no bit of a chunk can flip unnoticed', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 50 }), fc.nat(), (data, at) => {
      const encoded = Buffer.from(
        body(encodeSnapshotFrame({ kind: 'chunk', offsetBytes: 0, data })),
      );
      const bit = at % (8 * data.length);
      const position = encoded.length - data.length + (bit >> 3);
      encoded[position] = (encoded[position] as number) ^ (1 << (bit & 7));
      return decodeSnapshotFrame(encoded) === undefined;
    }),
    { numRuns: fuzzRuns(100) },
  );
  t.pass('none does');
});

t.test('whatever a peer sends, nothing is thrown', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      decodeSnapshotFrame(bytes);
      decodeHello(bytes);
    }),
    { numRuns: fuzzRuns(500) },
  );
  t.pass('nothing was');
});

t.test('the largest chunk fits into a frame', async (t) => {
  const data = new Uint8Array(CHUNK_BYTES_MAX);
  const encoded = encodeSnapshotFrame({
    kind: 'chunk',
    offsetBytes: Number.MAX_SAFE_INTEGER,
    data,
  });
  t.ok(encoded.length - HEADER_BYTES <= SNAPSHOT_FRAME_BYTES_MAX);
  t.ok(decodeSnapshotFrame(body(encoded)));
  const larger = encodeSnapshotFrame({
    kind: 'chunk',
    offsetBytes: 0,
    data: new Uint8Array(CHUNK_BYTES_MAX + 1),
  });
  t.equal(decodeSnapshotFrame(body(larger)), undefined);
});
