import fc from 'fast-check';
import t from 'tap';
import { interpolate } from '../../../src/cli/compose/interpolate.js';
import { CliError } from '../../../src/cli/error.js';

const SET: Readonly<Record<string, string>> = { A: 'a', EMPTY: '', N: 'A' };

function filled(text: string): string {
  return interpolate(
    text,
    (name) => SET[name],
    'services.web.image',
    () => {},
  );
}

t.test('variables are filled in as the compose specification has it', async (t) => {
  const rows = [
    ['plain', 'plain'],
    ['$A', 'a'],
    ['${A}', 'a'],
    ['x$A-y', 'xa-y'],
    ['$$A', '$A'],
    ['$${A}', '${A}'],
    ['${NOPE}', ''],
    ['${NOPE-d}', 'd'],
    ['${EMPTY-d}', ''],
    ['${EMPTY:-d}', 'd'],
    ['${A:-d}', 'a'],
    ['${NOPE:-${A}x}', 'ax'],
    ['${NOPE:-${ALSO:-deep}}', 'deep'],
    ['${A:+other}', 'other'],
    ['${EMPTY:+other}', ''],
    ['${EMPTY+other}', 'other'],
    ['${NOPE+other}', ''],
    ['${A:?must}', 'a'],
    ['{"k": "v"}', '{"k": "v"}'],
  ] as const;
  for (const [text, want] of rows) t.equal(filled(text), want, text);
});

t.test('what is malformed or missing says where, and what to do', async (t) => {
  const rows = [
    ['${A', /services\.web\.image: .*not closed/],
    ['${}', /no variable's name/],
    ['$ x', /write '\$\$' for a dollar/],
    ['${NOPE:?set it}', /required variable NOPE is missing a value: set it/],
    ['${EMPTY:?}', /required variable EMPTY is missing a value/],
  ] as const;
  for (const [text, want] of rows) t.throws(() => filled(text), { message: want }, text);
});

t.test('a variable that is not set is told of, once it is used', async (t) => {
  const told: string[] = [];
  interpolate(
    '$NOPE ${ALSO:-x} ${A:-$UNREAD}',
    (name) => SET[name],
    '',
    (message) => told.push(message),
  );
  t.strictSame(told, ['the variable NOPE is not set: it is taken as empty']);
});

t.test('any text is filled in or refused, and doubled dollars give it back', async () => {
  fc.assert(
    fc.property(fc.string(), (text) => {
      if (filled(text.replaceAll('$', '$$$$')) !== text) return false;
      try {
        filled(text);
        return true;
      } catch (error) {
        return error instanceof CliError;
      }
    }),
  );
});
