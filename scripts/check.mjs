// `npm run check`: all that is checked without running: format, lint, types, dead code.
import { spawnSync } from 'node:child_process';
import { root, setup } from './setup.mjs';

setup({ native: false, typescript: false });
for (const [verb, ...args] of [['biome', 'check', '.'], ['tsc', '--noEmit'], ['knip']]) {
  process.stdout.write(`== ${verb} ${args.join(' ')}\n`);
  const { status } = spawnSync(`node_modules/.bin/${verb}`, args, { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(1);
}
