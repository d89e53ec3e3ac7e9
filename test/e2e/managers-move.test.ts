import t from 'tap';
import { skipUnless, type TestLab } from './support/lab.js';
import { ALL_REACHABLE, MANAGERS, managersUp, SOON_MS, untilManagers } from './support/managers.js';
import { must, until } from './support/process.js';

/** Managers whose hosts have other addresses when they come back. */

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

t.test('one manager moves, and the others find it', { skip }, async (t) => {
  const lab = await managersUp(t);
  await lab.dockerMust('node1', 'config', 'create', 'kept', '/etc/hostname');
  for (const [node, address] of [
    ['node2', '10.213.7.2'],
    ['node1', '10.213.7.1'],
  ] as const) {
    const beganMs = performance.now();
    await lab.lab.stopAgent(node, 'SIGKILL');
    await move(lab, node, address);
    await lab.lab.startAgent(node);
    await untilManagers(lab, node, ALL_REACHABLE);
    await untilManagers(lab, 'node3', ALL_REACHABLE);
    t.comment(`${node} is back after ${Math.round(performance.now() - beganMs)} ms`);
  }
  for (const node of MANAGERS)
    await untilAddresses(lab, node, ['10.213.7.1', '10.213.7.2', '10.213.0.13']);
  t.match(await lab.dockerMust('node2', 'config', 'ls'), / kept /);
  await lab.createNetwork('after');
});
