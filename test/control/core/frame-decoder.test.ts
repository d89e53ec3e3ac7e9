import fc from 'fast-check';
import t from 'tap';
import { FrameDecoder } from '../../../src/control/core/frame-decoder.js';
import { decodeJson, encodeFrame } from '../../../src/control/wire/frame.js';

const FUZZ_FACTOR = Number(process.env['FUZZ_FACTOR'] ?? 1);

t.test('a frame is its length and its JSON', async (t) => {
  t.equal(Buffer.from(encodeFrame({ a: 'é' })).toString('hex'), '0000000a7b2261223a22c3a9227d');
  t.equal(decodeJson(Buffer.from('{')), undefined);
  t.equal(decodeJson(Uint8Array.of(0x22, 0xff, 0x22)), undefined, 'not UTF-8');
  t.equal(decodeJson(Buffer.from('['.repeat(100_000))), undefined, 'too deep');
});

t.test('frames come out whole however the stream is cut', async (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.jsonValue(), { maxLength: 8 }),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 40 }),
      (messages, cuts) => {
        const bytes = Buffer.concat(messages.map((message) => encodeFrame(message)));
        const decoder = new FrameDecoder(1 << 20);
        const got: unknown[] = [];
        for (let at = 0, i = 0; at < bytes.length; i++) {
          const size = cuts[i % cuts.length] ?? 1;
          for (const body of decoder.push(bytes.subarray(at, at + size)))
            got.push(decodeJson(body));
          at += size;
        }
        return JSON.stringify(got) === JSON.stringify(messages) && !decoder.broken;
      },
    ),
    { numRuns: 150 * FUZZ_FACTOR },
  );
  t.pass('held');
});

t.test('a frame that would be too large breaks the stream for good', async (t) => {
  const decoder = new FrameDecoder(10);
  t.equal(decoder.push(Uint8Array.of(0, 0, 0, 2, 0x31, 0x32, 0, 0, 0, 11)).length, 1);
  t.ok(decoder.broken);
  t.same(decoder.push(encodeFrame(1)), []);
});

t.test('any bytes are harmless', async (t) => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 20 }), (chunks) => {
      const decoder = new FrameDecoder(64);
      for (const chunk of chunks) for (const body of decoder.push(chunk)) decodeJson(body);
      return true;
    }),
    { numRuns: 200 * FUZZ_FACTOR },
  );
  t.pass('held');
});
