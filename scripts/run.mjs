// `npm start`, `npm run lab`, `npm run bench`: set up, then hand over to the shoal command.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { root, setup } from './setup.mjs';

setup();
const child = spawn(process.execPath, [join(root, 'dist/main.js'), ...process.argv.slice(2)], {
  stdio: 'inherit',
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('exit', (code, signal) => {
  process.exit(signal ? 1 : (code ?? 1));
});
