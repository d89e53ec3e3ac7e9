import fc from 'fast-check';
import t from 'tap';
import { ABSENT, WordTable } from '../../../../src/dataplane/overlay/core/word-table.js';
import { fuzzRuns } from '../../../support/fuzz.js';

t.test('the table behaves as a Map, through growth, deletion and collisions', async () => {
  // Few keys, so that they are set and deleted again and again in a table that is nearly full.
  const operation = fc.record({
    kind: fc.constantFrom('set', 'set', 'delete'),
    key: fc.nat(60),
    value: fc.nat(),
  });
  fc.assert(
    fc.property(fc.array(operation, { maxLength: 400 }), fc.integer(), (operations, seed) => {
      const table = new WordTable(48, seed);
      const model = new Map<number, number>();
      for (const { kind, key, value } of operations) {
        if (kind === 'delete') {
          table.delete(0, 0, 0, key, -key);
          model.delete(key);
        } else {
          const fits = model.has(key) || model.size < 48;
          if (table.set(0, 0, 0, key, -key, value) !== fits) return false;
          if (fits) model.set(key, value);
        }
      }
      if (table.size !== model.size) return false;
      for (let key = 0; key <= 60; key++)
        if (table.get(0, 0, 0, key, -key) !== (model.get(key) ?? ABSENT)) return false;
      return true;
    }),
    { numRuns: fuzzRuns(300) },
  );
});

t.test('words count by their low 32 bits, so sign and overflow do not matter', async (t) => {
  const table = new WordTable(10, 1);
  table.set(0xffff_ffff, 0x8000_0000, 0, 0, 0, 5);
  t.equal(table.get(-1, -0x8000_0000, 0, 0, 0), 5);
  t.equal(table.get(-1, 0x7fff_ffff, 0, 0, 0), ABSENT);
});

t.test('values are as large as a MAC', async (t) => {
  const table = new WordTable(10, 1);
  table.set(1, 2, 3, 4, 5, 2 ** 48 - 1);
  t.equal(table.get(1, 2, 3, 4, 5), 2 ** 48 - 1);
  t.throws(() => table.set(1, 2, 3, 4, 5, -1));
});

t.test('sixty thousand entries are all found', async (t) => {
  const table = new WordTable(65_536, 99);
  for (let i = 0; i < 60_000; i++) table.set(i % 7, 0x0242, i * 256, 0, 0, i);
  let found = 0;
  for (let i = 0; i < 60_000; i++) if (table.get(i % 7, 0x0242, i * 256, 0, 0) === i) found += 1;
  t.equal(found, 60_000);
});
