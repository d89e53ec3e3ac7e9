import fc from 'fast-check';
import t from 'tap';
import { matchesAny, matchesLabels, parseFilters, truthOf } from '../../../src/api/core/filters.js';
import { runs } from '../runs.js';

const KNOWN = ['label', 'name', 'dangling'];

t.test('both forms of filters are read', async (t) => {
  for (const text of ['{"name":{"web":true,"db":true}}', '{"name":["web","db"]}']) {
    t.same([...parseFilters(text, KNOWN)], [['name', ['web', 'db']]]);
  }
  for (const text of [null, '', '{}', 'null', '{"name":{}}']) {
    t.equal(parseFilters(text, KNOWN).size, 0);
  }
});

t.test('what is not a filter is refused', async (t) => {
  const cases = [
    ['{"nope":{"x":true}}', "invalid filter 'nope'"],
    ['{"name":"x"}', "invalid filter 'name'"],
    ['{"name":[1]}', "invalid filter 'name'"],
    ['{', 'invalid filter'],
    ['[]', 'invalid filter'],
    ['7', 'invalid filter'],
    [JSON.stringify({ name: Array.from({ length: 1001 }, String) }), "invalid filter 'name'"],
  ] as const;
  for (const [text, message] of cases) {
    t.throws(() => parseFilters(text, KNOWN), { message });
  }
});

t.test('values are alternatives, labels add up', async (t) => {
  const filters = parseFilters('{"name":["a","b"],"label":["x","y=1"]}', KNOWN);
  t.ok(matchesAny(filters, 'name', (value) => value === 'b'));
  t.notOk(matchesAny(filters, 'name', (value) => value === 'c'));
  t.ok(matchesAny(filters, 'absent', () => false));
  t.ok(matchesLabels(filters, 'label', { x: '', y: '1' }));
  t.notOk(matchesLabels(filters, 'label', { x: '', y: '2' }));
  t.notOk(matchesLabels(filters, 'label', { y: '1' }));
  t.notOk(matchesLabels(parseFilters('{"label":["toString"]}', KNOWN), 'label', {}));
});

t.test('a truth is true, false or refused', async (t) => {
  const of = (text: string) => truthOf(parseFilters(text, KNOWN), 'dangling');
  t.equal(of('{}'), undefined);
  t.equal(of('{"dangling":["1"]}'), true);
  t.equal(of('{"dangling":["false"]}'), false);
  t.throws(() => of('{"dangling":["maybe"]}'), { message: "invalid filter 'dangling=[maybe]'" });
  t.throws(() => of('{"dangling":["true","false"]}'));
});

t.test('any text is filters or a refusal', async () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
      try {
        parseFilters(text, KNOWN);
      } catch (error) {
        if ((error as { code?: string }).code !== 'API_BAD_REQUEST') throw error;
      }
    }),
    { numRuns: runs(300) },
  );
});
