import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runInNewContext } from 'node:vm';
import t from 'tap';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const DOCUMENT = 'docs/limits.md';

/** A bound in the code; `value` where the initialiser is nothing but numbers. */
interface Bound {
  readonly name: string;
  readonly file: string;
  readonly value: number | undefined;
}

interface Row {
  readonly name: string;
  readonly file: string;
  readonly cells: readonly string[];
  /** The number that the cell begins with. */
  readonly value: number | undefined;
}

/** `FOO_MAX`, and those few that have their unit at the end (`FOO_MAX_MS`). */
const CONSTANT = /^\s*(?:export )?const ([A-Z0-9_]+_MAX(?:_[A-Z]+)?)\b[^=]*=\s*([^;]+);/gm;
/** `fooMax: 5,` of an object of limits. */
const FIELD = /\b([a-z][A-Za-z0-9]*Max): ([0-9][0-9_]*)\b/g;
const NUMBERS_ONLY = /^(?:0x[0-9a-f_]+|[0-9][0-9_.]*(?:e[0-9]+)?|\*\*|<<|[-+*\s])+$/;

const numberOf = (text: string): number | undefined =>
  NUMBERS_ONLY.test(text) ? Number(runInNewContext(text)) : undefined;

export function boundsIn(file: string, text: string): Bound[] {
  const found = [...text.matchAll(CONSTANT), ...text.matchAll(FIELD)];
  const bounds = new Map<string, Bound>();
  // The first of a name: a later one is a variant, such as that of another profile.
  for (const [, name = '', initialiser = ''] of found)
    if (!bounds.has(name)) bounds.set(name, { name, file, value: numberOf(initialiser.trim()) });
  return [...bounds.values()];
}

export function rowsIn(text: string): Row[] {
  return [...text.matchAll(/^\| `(\w+)` \| `(\S+)` \| (.*) \|$/gm)].map(
    ([, name = '', file = '', rest = '']) => {
      const cells = rest.split(' | ');
      const number = /^[0-9][0-9,.]*[0-9]|^[0-9]/.exec(cells[0] ?? '')?.[0];
      const value = number === undefined ? undefined : Number(number.replaceAll(',', ''));
      return { name, file, cells, value };
    },
  );
}

const bounds = readdirSync(join(root, 'src'), { recursive: true })
  .map((name) => posix.join('src', String(name).replaceAll('\\', '/')))
  .filter((path) => path.endsWith('.ts'))
  .flatMap((path) => boundsIn(path, readFileSync(join(root, path), 'utf8')));
const rows = rowsIn(readFileSync(join(root, DOCUMENT), 'utf8'));
const keyOf = ({ name, file }: { readonly name: string; readonly file: string }) =>
  `${name} of ${file}`;

t.test('every bound in the code is in the document, with its value', async (t) => {
  const rowOf = new Map(rows.map((row) => [keyOf(row), row]));
  for (const bound of bounds) {
    const row = rowOf.get(keyOf(bound));
    if (row === undefined) t.fail(`${DOCUMENT} lacks ${keyOf(bound)}`);
    else if (bound.value !== undefined) t.equal(row.value, bound.value, keyOf(bound));
  }
  t.ok(bounds.length > 100, 'the code was read');
});

t.test('every bound in the document is in the code, once, and fully described', async (t) => {
  const known = new Set(bounds.map(keyOf));
  const seen = new Set<string>();
  for (const row of rows) {
    const key = keyOf(row);
    if (!known.has(key)) t.fail(`${DOCUMENT} names ${key}, which is not there`);
    if (seen.has(key)) t.fail(`${DOCUMENT} names ${key} twice`);
    seen.add(key);
    if (row.cells.length !== 3 || row.cells.includes('')) t.fail(`${key} lacks a cell`);
  }
  t.ok(rows.length > 100, 'the document was read');
});

t.test('the readers judge known texts', async (t) => {
  t.strictSame(
    boundsIn(
      'a.ts',
      [
        'export const A_MAX = 4 * 1_024;',
        'const B_BYTES_MAX = 1 << 20;',
        'const C_MAX = 2 ** 24 - 1;',
        'const D_MAX = 0xff_ff;',
        'const E_MAX = A_MAX * 2;',
        'const F_MAX_MS = 3.5e2;',
        'const X_MAXIMUM = 1;',
        '  gMax: 5,',
        '  gMax: 6,',
      ].join('\n'),
    ).map(({ name, value }) => [name, value]),
    [
      ['A_MAX', 4096],
      ['B_BYTES_MAX', 1_048_576],
      ['C_MAX', 16_777_215],
      ['D_MAX', 65_535],
      ['E_MAX', undefined],
      ['F_MAX_MS', 350],
      ['gMax', 5],
    ],
  );
  t.strictSame(rowsIn('| `A_MAX` | `a.ts` | 1,024 per node | refused | `E` |\n| Name | x |'), [
    { name: 'A_MAX', file: 'a.ts', cells: ['1,024 per node', 'refused', '`E`'], value: 1024 },
  ]);
});
