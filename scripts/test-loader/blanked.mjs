// The tree's TypeScript with its types blanked out, kept by what the text is.
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const cache = join(root, 'node_modules', '.cache', 'blanked');

const pathOf = (text) => join(cache, `${createHash('sha256').update(text).digest('hex')}.js`);

/** Each text is done once, and by whoever comes first. */
export async function blanked(text) {
  const path = pathOf(text);
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

/** All that tests may load, in one process: otherwise each that finds some file not done starts a compiler. */
export async function blankAll() {
  for (const folder of ['src', 'test'])
    for (const name of readdirSync(join(root, folder), { recursive: true }))
      if (/(?<!\.d)\.ts$/.test(name)) await blanked(readFileSync(join(root, folder, name), 'utf8'));
}
