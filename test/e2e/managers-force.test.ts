import t from 'tap';
import { skipUnless } from './support/lab.js';
import { managersUp, nodesSeen, SOON_MS, untilDocker } from './support/managers.js';
import { until } from './support/process.js';

/** Most managers are lost for good. */

const skip = skipUnless('docker');

t.test('the last survivor goes on alone by force, and others come back', { skip }, async (t) => {
  const lab = await managersUp(t);
  await lab.dockerMust('node2', 'config', 'create', 'kept', '/etc/hostname');
  await untilDocker(lab, 'node1', 'config', 'inspect', 'kept');
  for (const node of ['node2', 'node3']) await lab.lab.signalAgent(node, 'SIGKILL');
  const { address } = lab.lab.node('node1');
  const force = ['swarm', 'init', '--force-new-cluster', '--advertise-addr', address];
  t.equal((await lab.docker('node1', ...force)).code, 0);
  const seen = await until('it leads', SOON_MS, async () => {
    const now = await nodesSeen(lab, 'node1');
    return now.get('node1')?.manager === 'Leader' ? now : undefined;
  });
  t.equal(seen.get('node2')?.manager, '', 'the others are workers');
  t.match(await lab.dockerMust('node1', 'config', 'ls'), / kept /);
  await lab.dockerMust('node1', 'network', 'create', '-d', 'overlay', 'after');

  // One comes back by itself, as a worker; the other has lost everything, and joins with a token.
  await lab.lab.startAgent('node2');
  await until('node2 is ready', 3 * SOON_MS, async () => {
    return (await nodesSeen(lab, 'node1')).get('node2')?.status === 'Ready';
  });
  await lab.lab.startAgent('node3');
  await lab.docker('node3', 'swarm', 'leave', '--force');
  const token = await lab.dockerMust('node1', 'swarm', 'join-token', '-q', 'manager');
  await lab.dockerMust('node3', 'swarm', 'join', '--token', token, `${address}:2377`);
  await untilDocker(lab, 'node1', 'node', 'promote', 'node2');
  await until('all three manage', 3 * SOON_MS, async () => {
    const managers = [...(await nodesSeen(lab, 'node3')).values()].map(({ manager }) => manager);
    return managers.filter((word) => word === 'Leader' || word === 'Reachable').length >= 3;
  });
  t.match(await lab.dockerMust('node3', 'config', 'ls'), / kept /);
  await untilDocker(lab, 'node2', 'node', 'ls');
  t.match(await lab.dockerMust('node2', 'network', 'ls'), / after /);
});
