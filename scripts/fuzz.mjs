// `npm run fuzz [-- FACTOR [FILES…]]`: the properties and fuzz tests with FACTOR times their usual runs.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, setup } from './setup.mjs';

const [factorText = '100', ...named] = process.argv.slice(2);
const factor = Number(factorText);
if (!Number.isInteger(factor) || factor < 1) {
  process.stderr.write(`fuzz: the factor is a whole number from 1, not '${factorText}'\n`);
  process.exit(2);
}
setup();
const files = readdirSync(join(root, 'test'), { recursive: true })
  .map((name) => join('test', String(name)))
  .filter((path) => path.endsWith('.test.ts'))
  .filter((path) =>
    /FUZZ_FACTOR|fast-check|\/fuzz\.js'/.test(readFileSync(join(root, path), 'utf8')),
  );
const args = ['--reporter=terse', '--timeout=0', ...(named.length > 0 ? named : files)];
const tap = join(root, 'node_modules/tap/dist/esm/run.mjs');
const child = spawn(process.execPath, [tap, ...args], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, FUZZ_FACTOR: String(factor) },
});
child.on('exit', (code) => process.exit(code ?? 1));
