// Hooks of Node's module loader: `./x.js` may be `./x.ts`, and of a .ts file the types are blanked out.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const cache = join(root, 'node_modules', '.cache', 'blanked');

const isOurs = (url) => url.startsWith('file:') && url.endsWith('.ts');

export function resolve(specifier, context, next) {
  if (/^(\.|\/|file:).*\.js$/.test(specifier)) {
    const url = new URL(specifier, context.parentURL);
    const source = new URL(url.href.replace(/\.js$/, '.ts'));
    if (!existsSync(url) && existsSync(source))
      return { url: source.href, format: 'module', shortCircuit: true };
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  if (!isOurs(url)) return next(url, context);
  const text = readFileSync(fileURLToPath(url), 'utf8');
  return { format: 'module', source: await blanked(text), shortCircuit: true };
}

/** Each text is done once, and by whoever comes first. */
async function blanked(text) {
  const path = join(cache, `${createHash('sha256').update(text).digest('hex')}.js`);
  if (existsSync(path)) return readFileSync(path, 'utf8');
  const { default: blank } = await import('ts-blank-space');
  const source = blank(text, (node) => {
    throw new Error(`not erasable: ${node.getText()}`);
  });
  mkdirSync(cache, { recursive: true });
  const own = `${path}.${process.pid}`;
  writeFileSync(own, source);
  renameSync(own, path);
  return source;
}
