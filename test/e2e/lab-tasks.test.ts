import { readdirSync, readFileSync } from 'node:fs';
import t from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import { until } from './support/process.js';

/** Seconds that nothing else on this machine sleeps for. */
const SECONDS = 8_000_000 + process.pid;

/** Processes that were started with these words. */
function running(...words: readonly string[]): readonly string[] {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8') === `${words.join('\0')}\0`;
    } catch {
      // It has ended.
      return false;
    }
  });
}

t.test('tasks end with their lab', { skip: skipUnless('docker') }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 1 });
  const sleep = ['sleep', String(SECONDS)];
  const create = ['service', 'create', '--detach', '--replicas', '3', '--name', 'still'];
  await lab.dockerMust('node1', ...create, 'host', ...sleep);
  await until('three run', 30_000, async () => running(...sleep).length === 3);
  await lab.lab.down();
  await until('none is left', 2_000, async () => running(...sleep).length === 0);
  t.pass('none is left');
});
