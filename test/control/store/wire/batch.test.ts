import fc from 'fast-check';
import t from 'tap';
import {
  BATCH_FORMAT,
  decodeItems,
  encodeItems,
} from '../../../../src/control/store/wire/batch.js';
import { fuzzRuns } from '../../../support/fuzz.js';

const item = fc.record({
  dedupe: fc.string(),
  command: fc.dictionary(fc.string(), fc.jsonValue()),
});

t.test('an entry is its format and the JSON of its commands', async (t) => {
  const entry = encodeItems([
    { dedupe: 'a', command: { kind: 'x', name: 'é' } },
    { dedupe: '', command: {} },
  ]);
  t.equal(entry[0], 1);
  t.equal(Buffer.from(entry.subarray(1)).toString(), '[["a",{"kind":"x","name":"é"}],["",{}]]');
});

t.test('what was encoded is decoded, also from the middle of a larger buffer', async (t) => {
  fc.assert(
    fc.property(fc.array(item), (items) => {
      const entry = encodeItems(items);
      const within = Buffer.concat([Buffer.alloc(3, 7), entry, Buffer.alloc(2, 7)]);
      const wanted = JSON.stringify(items);
      return (
        JSON.stringify(decodeItems(entry)) === wanted &&
        JSON.stringify(decodeItems(within.subarray(3, 3 + entry.length))) === wanted
      );
    }),
    { numRuns: fuzzRuns(100) },
  );
  t.pass('held');
});

t.test('any bytes are decoded or have a fault, and none throws', async (t) => {
  const json = fc.jsonValue().map((value) => Buffer.from(JSON.stringify(value)));
  const body = fc.oneof(
    fc.uint8Array(),
    json.map((bytes) => Uint8Array.of(BATCH_FORMAT, ...bytes)),
    fc.tuple(fc.array(item), fc.nat(), fc.nat(255)).map(([items, at, byte]) => {
      const entry = encodeItems(items);
      entry[at % entry.length] = byte;
      return entry;
    }),
  );
  fc.assert(
    fc.property(body, (bytes) => {
      const decoded = decodeItems(bytes);
      if (decoded === 'malformed' || decoded === 'format') return true;
      return decoded.every(
        ({ dedupe, command }) => typeof dedupe === 'string' && typeof command === 'object',
      );
    }),
    { numRuns: fuzzRuns(300) },
  );
  t.equal(decodeItems(Uint8Array.of(BATCH_FORMAT + 1)), 'format');
  t.equal(decodeItems(Uint8Array.of(BATCH_FORMAT, 0xff)), 'malformed', 'no UTF-8');
  t.equal(decodeItems(Uint8Array.of()), 'malformed');
});
