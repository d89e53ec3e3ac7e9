import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, posix, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const root = dirname(dirname(fileURLToPath(import.meta.url)));

/**
 * The subsystems. `dataplane` itself holds only what its parts share (packet formats and the
 * batch they work on), so a part may import its parent, and no part another.
 */
const SUBSYSTEMS = [
  'base',
  'dataplane/overlay',
  'dataplane/ingress',
  'dataplane/names',
  'dataplane/io',
  'dataplane',
  'gossip',
  'control/raft',
  'control/store',
  'control/identity',
  'control/dispatch',
  'control/orchestrate',
  'control',
  'runtime/host',
  'runtime/engine',
  'runtime',
  'api/classic',
  'api',
  'observe',
  'cli',
] as const;

/** Layers of one subsystem, innermost first. A module imports its own layer and those before it. */
const LAYERS = ['wire', 'core', 'io', 'index'] as const;
type Layer = (typeof LAYERS)[number];
type Place = { readonly subsystem: string; readonly layer: Layer | 'root' };

/** `src/dataplane/io` is a floor that grew into a part of its own: all of it is `io` but its door. */
const WHOLLY_IO = new Set<string>(['dataplane/io']);

export function placeOf(path: string): Place {
  const inside = path.replace(/^src\//, '');
  const subsystem = SUBSYSTEMS.find((name) => inside.startsWith(`${name}/`));
  if (subsystem === undefined) return { subsystem: '', layer: 'root' };
  const rest = inside.slice(subsystem.length + 1);
  if (rest === 'index.ts') return { subsystem, layer: 'index' };
  if (WHOLLY_IO.has(subsystem)) return { subsystem, layer: 'io' };
  const layer = LAYERS.find((name) => rest.startsWith(`${name}/`));
  if (layer !== undefined) return { subsystem, layer };
  return subsystem === 'base' ? { subsystem, layer: 'core' } : { subsystem: '', layer: 'root' };
}

const isParent = (parent: string, child: string) => child.startsWith(`${parent}/`);

export function mayImport(from: Place, to: Place): boolean {
  if (from.layer === 'root') {
    return to.layer === 'root' || to.layer === 'index' || to.subsystem === 'base';
  }
  if (to.layer === 'root') return false;
  // A parent composes its parts through their doors.
  if (isParent(from.subsystem, to.subsystem) && to.layer === 'index') {
    return from.layer === 'io' || from.layer === 'index';
  }
  const shared = to.subsystem === 'base' || isParent(to.subsystem, from.subsystem);
  if (to.subsystem !== from.subsystem && !shared) return false;
  if (shared && to.layer === 'io') return from.layer === 'io' || from.layer === 'index';
  return LAYERS.indexOf(to.layer) <= LAYERS.indexOf(from.layer) || (shared && to.layer === 'core');
}

function sourcesUnder(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true })
    .map((name) => posix.join(folder, String(name).replaceAll('\\', '/')))
    .filter((path) => path.endsWith('.ts'));
}

/** Specifiers of static and dynamic imports and re-exports. */
function importsOf(text: string): string[] {
  const pattern =
    /(?:^|\n)\s*(?:import|export)\b[^'";]*?from\s*'([^']+)'|import\('([^']+)'\)|(?:^|\n)import\s*'([^']+)'/g;
  return [...text.matchAll(pattern)].map((m) => m[1] ?? m[2] ?? m[3] ?? '');
}

/** Packages that compute and do no I/O, which inner floors may use. */
const PURE_PACKAGES = new Set(['ipaddr.js', 'zod', 'dns-packet']);

const FORBIDDEN_IN_CORES: readonly (readonly [RegExp, string])[] = [
  [/\bMath\.random\b/, 'randomness comes in as a Prng'],
  [/\bglobalThis\b/, 'no way round the ban on globals'],
  [/\bawait\b|\basync\b/, 'a core is synchronous'],
];

const files = sourcesUnder('src').map((path) => ({
  path,
  place: placeOf(path),
  text: readFileSync(join(root, path), 'utf8'),
}));

const code = (text: string) => text.replace(/\/\*[\s\S]*?\*\//g, '').replace(/\/\/.*$/gm, '');

t.test('every import follows the table of floors', async (t) => {
  for (const { path, place, text } of files) {
    for (const specifier of importsOf(text)) {
      if (!specifier.startsWith('.')) continue;
      const target = relative('.', join(dirname(path), specifier))
        .replaceAll('\\', '/')
        .replace(/\.js$/, '.ts');
      if (!target.startsWith('src/')) {
        t.fail(`${path} imports ${specifier}, outside src`);
        continue;
      }
      if (!mayImport(place, placeOf(target))) t.fail(`${path} must not import ${target}`);
    }
  }
  t.ok(files.length > 5, 'files were read');
});

t.test('inner floors reach no clock, no dice, no world', async (t) => {
  for (const { path, place, text } of files) {
    if (place.layer !== 'wire' && place.layer !== 'core') continue;
    for (const specifier of importsOf(text)) {
      if (specifier.startsWith('.') || PURE_PACKAGES.has(specifier)) continue;
      t.fail(`${path} imports ${specifier}`);
    }
    for (const [pattern, why] of FORBIDDEN_IN_CORES) {
      if (pattern.test(code(text))) t.fail(`${path}: ${pattern.source}: ${why}`);
    }
  }
  t.pass('checked');
});

t.test('no unfinished marks are left in the tree', async (t) => {
  for (const path of [...sourcesUnder('src'), ...sourcesUnder('bench')]) {
    const text = readFileSync(join(root, path), 'utf8');
    if (/\b(TODO|FIXME|XXX)\b/.test(text)) t.fail(`${path} holds an unfinished mark`);
  }
  t.pass('checked');
});

t.test('decisions are numbered one by one, and say their own number', async (t) => {
  const decisions = readdirSync(join(root, 'docs/adr')).sort();
  for (const [index, name] of decisions.entries()) {
    t.match(name, /^\d{4}-[a-z0-9-]+\.md$/, name);
    t.equal(Number(name.slice(0, 4)), index + 1, `${name} has its own number`);
    const title = readFileSync(join(root, 'docs/adr', name), 'utf8');
    t.ok(title.startsWith(`# ${index + 1}. `), `the title of ${name}`);
  }
});

t.test('the table itself judges known pairs', async (t) => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['src/gossip/core/a.ts', 'src/gossip/wire/b.ts', true],
    ['src/gossip/core/a.ts', 'src/gossip/io/b.ts', false],
    ['src/gossip/core/a.ts', 'src/base/prng.ts', true],
    ['src/gossip/core/a.ts', 'src/base/io/driver.ts', false],
    ['src/gossip/io/a.ts', 'src/base/io/driver.ts', true],
    ['src/gossip/index.ts', 'src/gossip/io/b.ts', true],
    ['src/gossip/io/a.ts', 'src/control/index.ts', false],
    ['src/agent/a.ts', 'src/control/index.ts', true],
    ['src/agent/a.ts', 'src/control/io/b.ts', false],
    ['src/dataplane/overlay/core/a.ts', 'src/dataplane/core/batch.ts', true],
    ['src/dataplane/overlay/core/a.ts', 'src/dataplane/io/b.ts', false],
    ['src/dataplane/io/native.ts', 'src/dataplane/core/batch.ts', true],
    ['src/dataplane/io/native.ts', 'src/dataplane/overlay/index.ts', false],
    ['src/control/dispatch/io/a.ts', 'src/control/identity/core/b.ts', false],
    ['src/control/dispatch/io/a.ts', 'src/control/wire/b.ts', true],
    ['src/control/io/a.ts', 'src/control/store/index.ts', true],
    ['src/control/io/a.ts', 'src/control/store/core/b.ts', false],
    ['src/main.ts', 'src/agent/a.ts', true],
  ];
  for (const [from, to, want] of cases)
    t.equal(mayImport(placeOf(from), placeOf(to)), want, `${from} to ${to}`);
});
