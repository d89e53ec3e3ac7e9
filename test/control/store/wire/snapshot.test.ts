import fc from 'fast-check';
import t from 'tap';
import {
  decodeSnapshot,
  encodeSnapshot,
  SNAPSHOT_SCHEMA,
  type SnapshotLine,
} from '../../../../src/control/store/wire/snapshot.js';
import { fuzzRuns } from '../../../support/fuzz.js';

const bytesOf = (version: number, lines: readonly SnapshotLine[]) =>
  Buffer.concat([...encodeSnapshot(version, lines)]);
const line: fc.Arbitrary<SnapshotLine> = fc.tuple(
  fc.constantFrom('node', 'secret', '=history', '=outcome'),
  fc.string({ unit: 'binary' }),
  fc.jsonValue(),
);

t.test('the format is as its drawing says', async (t) => {
  t.equal(
    bytesOf(7, [['node', 'a', { x: '\n' }]]).toString(),
    [
      '{"format":"shoal-store","schema":3,"version":7}',
      '["node","a",{"x":"\\n"}]',
      '["=end","",1]',
      '',
    ].join('\n'),
  );
});

t.test('what was written is read, and no part of it is taken for the whole', async (t) => {
  fc.assert(
    fc.property(fc.nat(), fc.array(line, { maxLength: 8 }), fc.nat(), (version, lines, pick) => {
      const bytes = bytesOf(version, lines);
      const decoded = decodeSnapshot(bytes);
      const wanted = JSON.stringify({ schema: SNAPSHOT_SCHEMA, version, lines });
      if (JSON.stringify(decoded) !== wanted) return false;
      return 'fault' in decodeSnapshot(bytes.subarray(0, pick % bytes.length));
    }),
    { numRuns: fuzzRuns(200) },
  );
  t.pass('held');
});

t.test('any bytes are decoded or have a fault with a place, and none throws', async (t) => {
  const damaged = fc
    .tuple(fc.array(line), fc.nat(), fc.uint8Array({ maxLength: 4 }))
    .map(([lines, at, patch]) => {
      const bytes = bytesOf(1, lines);
      bytes.set(patch.subarray(0, bytes.length - (at % bytes.length)), at % bytes.length);
      return new Uint8Array(bytes);
    });
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), damaged), (bytes) => {
      const decoded = decodeSnapshot(bytes);
      if (!('fault' in decoded)) return Array.isArray(decoded.lines);
      return decoded.fault === 'schema' || decoded.offsetBytes <= bytes.length;
    }),
    { numRuns: fuzzRuns(300) },
  );
  t.pass('held');
});

t.test('chunks are made when they are asked for, each of about the same size', async (t) => {
  let made = 0;
  const lines = function* (): Generator<SnapshotLine> {
    for (; made < 1_000; made++) yield ['node', String(made), 'x'.repeat(1_000)];
  };
  const chunks = encodeSnapshot(1, lines());
  t.equal(made, 0);
  const first = chunks.next().value;
  t.ok(made < 100, `${made} lines for the first chunk`);
  t.ok(first !== undefined && first.length >= 65_536 && first.length < 70_000);
  let count = 1;
  for (const chunk of chunks) {
    t.ok(chunk.length < 70_000);
    count++;
  }
  t.equal(made, 1_000);
  t.equal(count, 16);
});
