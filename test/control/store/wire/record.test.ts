import fc from 'fast-check';
import t from 'tap';
import { crc32, decodeRecords, encodeRecord } from '../../../../src/control/store/wire/record.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);

t.test('a line is CRC, length and JSON', async (t) => {
  t.equal(crc32(new TextEncoder().encode('123456789')), 0xcbf43926, 'the check value of CRC-32');
  t.equal(
    new TextDecoder().decode(encodeRecord({ a: 'é\n' })),
    '90fabb8a 13 {"a":"é\\n"}\n'
      .replace(
        /^\S+/,
        crc32(new TextEncoder().encode('{"a":"é\\n"}')).toString(16).padStart(8, '0'),
      )
      .replace(' 13 ', ' 12 '),
  );
});

t.test('what was written is read, and a cut anywhere leaves all whole lines', async (t) => {
  fc.assert(
    fc.property(fc.array(fc.jsonValue(), { maxLength: 6 }), fc.nat(), (values, pick) => {
      const lines = values.map((value) => encodeRecord(value));
      const all = Buffer.concat(lines);
      const cut = all.length === 0 ? 0 : pick % (all.length + 1);
      const file = decodeRecords(all.subarray(0, cut));
      let whole = 0;
      for (let end = 0; whole < lines.length; whole++) {
        end += lines[whole]?.length ?? 0;
        if (end > cut) break;
      }
      return (
        file.values.length === whole && file.end === (file.validBytes === cut ? 'clean' : 'torn')
      );
    }),
    { numRuns: 200 * FUZZ_FACTOR },
  );
  t.pass('held');
});

t.test(
  'one flipped bit is never read, and before the last line it is called corruption',
  async (t) => {
    const lines = [1, 2, 3].map((n) => encodeRecord({ n, text: 'x'.repeat(20) }));
    const all = Buffer.concat(lines);
    const lastAt = all.length - (lines[2]?.length ?? 0);
    for (let bit = 0; bit < all.length * 8; bit++) {
      const bytes = Buffer.from(all);
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
      const { end, values } = decodeRecords(bytes);
      const where = bit >> 3;
      // A flip in the line feed between two lines hides the second line's beginning, too.
      const want = where >= lastAt - 1 ? 'torn' : 'corrupt';
      if (end !== want || values.some((value, i) => (value as { n: number }).n !== i + 1))
        t.fail(`bit ${bit}: ${end}`);
    }
    t.pass('held');
  },
);

t.test('any bytes are read without a throw', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => decodeRecords(bytes).validBytes >= 0),
    { numRuns: 300 * FUZZ_FACTOR },
  );
  t.pass('held');
});
