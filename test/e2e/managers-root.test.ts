import t from 'tap';
import { skipUnless } from './support/lab.js';
import {
  ALL_REACHABLE,
  MANAGERS,
  managersUp,
  SOON_MS,
  untilDocker,
  untilManagers,
} from './support/managers.js';
import { until } from './support/process.js';

/** A root that is changed while all goes on. */

const skip = skipUnless('docker');

t.test('the root is changed while all goes on', { skip }, async (t) => {
  const lab = await managersUp(t);
  await lab.lab.up({ nodes: 4 });
  const nodes = lab.lab.nodes.map(({ name }) => name);
  const before = await lab.dockerMust('node1', 'swarm', 'ca');
  const tokenBefore = await lab.dockerMust('node1', 'swarm', 'join-token', '-q', 'worker');
  const rotated = await lab.docker('node2', 'swarm', 'ca', '--rotate', '--quiet');
  t.equal(rotated.code, 0, rotated.stderr);
  const root = await until('every manager has the new root', SOON_MS, async () => {
    const roots = await Promise.all(MANAGERS.map((node) => lab.dockerMust(node, 'swarm', 'ca')));
    return new Set(roots).size === 1 && roots[0] !== before ? roots[0] : undefined;
  });
  t.match(root, /^-----BEGIN CERTIFICATE-----/);
  for (const node of nodes)
    await until(`${node} trusts it`, SOON_MS, async () => {
      const [{ Description }] = JSON.parse(await lab.dockerMust('node3', 'node', 'inspect', node));
      return Description.TLSInfo.TrustRoot.trim() === root.trim();
    });
  const status = await lab.dockerMust('node1', 'node', 'ls', '--format', '{{.TLSStatus}}');
  t.strictSame([...new Set(status.split('\n'))], ['Ready']);
  t.not(await lab.dockerMust('node1', 'swarm', 'join-token', '-q', 'worker'), tokenBefore);

  await untilManagers(lab, 'node3', ['', ...ALL_REACHABLE]);
  await lab.createNetwork('after');
  for (const node of nodes) {
    await lab.lab.signalAgent(node, 'SIGKILL');
    await lab.lab.startAgent(node);
    await untilManagers(lab, node === 'node1' ? 'node2' : 'node1', ['', ...ALL_REACHABLE]);
    if (node !== 'node4') await untilManagers(lab, node, ['', ...ALL_REACHABLE]);
  }
  t.match(await untilDocker(lab, 'node3', 'network', 'ls'), / after /);
  await lab.lab.up({ nodes: 5 });
  t.pass('a newcomer joins with the new token');
});
