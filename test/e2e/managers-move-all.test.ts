import t from 'tap';
import { skipUnless, type TestLab } from './support/lab.js';
import { ALL_REACHABLE, MANAGERS, managersUp, SOON_MS, untilManagers } from './support/managers.js';
import { must, until } from './support/process.js';

/** Managers that all have other addresses when they come back. */

const skip = skipUnless('docker');

/** Gives the stopped host of a node another address on the same wire. */
async function move(lab: TestLab, node: string, address: string): Promise<void> {
  const { netns } = lab.lab.node(node);
  await must(['ip', '-n', netns, 'addr', 'flush', 'dev', 'eth0']);
  await must(['ip', '-n', netns, 'addr', 'add', `${address}/16`, 'dev', 'eth0']);
}

/** Waits until a node shows where the managers are. */
function untilAddresses(lab: TestLab, node: string, want: readonly string[]): Promise<unknown> {
  return until(`${node} shows managers at ${want}`, 3 * SOON_MS, async () => {
    const argv = ['node', 'inspect', '--format', '{{.ManagerStatus.Addr}} {{.Status.Addr}}'];
    const { code, stdout } = await lab.docker(node, ...argv, ...MANAGERS);
    const lines = stdout.trim().split('\n');
    return code === 0 && want.every((address) => lines.includes(`${address}:2377 ${address}`));
  });
}

t.test('all managers move at once, and find each other', { skip }, async (t) => {
  const lab = await managersUp(t);
  // Somebody has to be where they know him: here a worker, by whose gossip they meet.
  await lab.lab.up({ nodes: 4 });
  await lab.dockerMust('node1', 'config', 'create', 'kept', '/etc/hostname');
  const beganMs = performance.now();
  for (const node of MANAGERS) await lab.lab.stopAgent(node, 'SIGKILL');
  const moved = MANAGERS.map((_, i) => `10.213.8.${i + 1}`);
  for (const [i, node] of MANAGERS.entries()) await move(lab, node, moved[i] ?? '');
  for (const node of MANAGERS) await lab.lab.startAgent(node);
  await untilManagers(lab, 'node1', ['', ...ALL_REACHABLE]);
  t.comment(`healed after ${Math.round(performance.now() - beganMs)} ms`);
  for (const node of MANAGERS) await untilAddresses(lab, node, moved);
  t.match(await lab.dockerMust('node3', 'config', 'ls'), / kept /);
  await lab.createNetwork('after');
});
