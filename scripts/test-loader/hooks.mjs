// Hooks of Node's module loader: `./x.js` may be `./x.ts`, and of a .ts file the types are blanked out.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { blanked } from './blanked.mjs';

const isOurs = (url) => url.startsWith('file:') && url.endsWith('.ts');

/**
 * tap gives its tests hooks for mocks and for lists of loaded files, which nobody uses here: each module would pass through
 * them, and each worker would load tap.
 */
const HOOKS_OF_TAP = /\/@tapjs\/(mock|processinfo)\/dist\/esm\/import\.mjs$/;

export function resolve(specifier, context, next) {
  if (HOOKS_OF_TAP.test(specifier)) return { url: 'data:text/javascript,', shortCircuit: true };
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
