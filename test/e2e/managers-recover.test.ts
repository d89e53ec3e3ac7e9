import t from 'tap';
import { skipUnless } from './support/lab.js';
import { managersUp, nodesSeen, SOON_MS, untilDocker } from './support/managers.js';
import { until } from './support/process.js';

/** What the last manager tells and does. */

const skip = skipUnless('docker');

t.test('recover makes a swarm of the one that is left', { skip }, async (t) => {
  const lab = await managersUp(t);
  await lab.dockerMust('node1', 'config', 'create', 'kept', '/etc/hostname');
  await untilDocker(lab, 'node3', 'config', 'inspect', 'kept');
  const early = await lab.shoal('node3', 'recover', '--force');
  t.match(early, { code: 1, stderr: /nothing was changed: the managers have a leader/ });
  for (const node of ['node1', 'node2']) await lab.lab.signalAgent(node, 'SIGKILL');
  const report = await until('no leader is left', SOON_MS, async () => {
    const { stdout } = await lab.shoal('node3', 'recover', '--json');
    const told = JSON.parse(stdout);
    return told.hasLeader === false ? told : undefined;
  });
  t.match(report, { quorum: { voters: 3, needed: 2, reachable: 1 }, best: report.self.nodeId });
  const done = await lab.shoal('node3', 'recover', '--force');
  t.equal(done.code, 0, done.stderr);
  await until('it leads', SOON_MS, async () => {
    return (await nodesSeen(lab, 'node3')).get('node3')?.manager === 'Leader';
  });
  t.match(await lab.dockerMust('node3', 'config', 'ls'), / kept /);
  const history = await lab.shoal('node3', 'history', '--object', 'kept');
  t.match(history.stdout, /create +config .* kept /);
});
