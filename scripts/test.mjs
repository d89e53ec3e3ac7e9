// `npm test [-- FILES…]`: set up, run tap, and end with the counted line `N passed, N failed`.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { root, setup } from './setup.mjs';
import { blankAll } from './test-loader/blanked.mjs';

setup();
await blankAll();
const args = process.argv.slice(2);
const loader = pathToFileURL(join(root, 'scripts/test-loader/register.mjs')).href;
const child = spawn(
  process.execPath,
  [join(root, 'node_modules/tap/dist/esm/run.mjs'), '--reporter=tap', ...args],
  {
    cwd: root,
    env: { ...process.env, NODE_OPTIONS: `${process.env.NODE_OPTIONS ?? ''} --import=${loader}` },
    stdio: ['ignore', 'pipe', 'inherit'],
  },
);
let passed = 0;
let failed = 0;
const skipped = [];
let file = '';
let isTelling = false;
for await (const line of createInterface({ input: child.stdout })) {
  const assertion = /^(?<indent> *)(?<not>not )?ok \d+(?: - (?<name>.*))?$/.exec(line);
  const subtest = /^# Subtest: (.*)$/.exec(line);
  if (subtest) file = subtest[1];
  if (assertion?.groups) {
    const { indent, not, name = '' } = assertion.groups;
    if (indent.length === 0) process.stdout.write(`${not ? 'FAIL' : 'ok  '} ${name}\n`);
    // The second level is a test file's own tests; what is deeper is inside them.
    else if (indent.length === 4) {
      if (/# (SKIP|TODO)/i.test(name)) skipped.push(`${file}: ${name}`);
      else if (not) failed += 1;
      else passed += 1;
    }
    if (not) process.stdout.write(`${line}\n`);
    isTelling = Boolean(not);
  } else if (isTelling) {
    // What tap says about what is not ok, up to the end of its block.
    process.stdout.write(`${line}\n`);
    if (/^ *\.\.\.$/.test(line)) isTelling = false;
  }
}
const code = await new Promise((resolve) => {
  if (child.exitCode !== null) resolve(child.exitCode);
  else child.on('exit', resolve);
});
if (code !== 0 && failed === 0) failed = 1;
for (const line of skipped) process.stdout.write(`skipped: ${line}\n`);
process.stdout.write(
  `${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}\n`,
);
process.exit(code === 0 && failed === 0 && passed > 0 ? 0 : 1);
