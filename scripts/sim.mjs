// `npm run sim [-- SEEDS]`: the simulated worlds and scenarios of gossip, over many seeds.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root, setup } from './setup.mjs';

const [seeds = '100'] = process.argv.slice(2);
if (!/^[1-9]\d*$/.test(seeds)) {
  process.stderr.write(`sim: the number of seeds is a whole number from 1, not '${seeds}'\n`);
  process.exit(2);
}
setup();
const files = [
  'test/sim/swim.test.ts',
  'test/sim/records-convergence.test.ts',
  'test/gossip/core/scenarios.test.ts',
];
const tap = join(root, 'node_modules/tap/dist/esm/run.mjs');
const child = spawn(process.execPath, [tap, '--reporter=terse', '--timeout=0', ...files], {
  cwd: root,
  stdio: 'inherit',
  env: { ...process.env, SIM_SEEDS: seeds, FUZZ_FACTOR: String(Math.ceil(Number(seeds) / 12)) },
});
child.on('exit', (code) => process.exit(code ?? 1));
