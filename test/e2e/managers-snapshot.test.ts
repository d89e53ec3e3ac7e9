import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { scratch, skipUnless, TestLab } from './support/lab.js';
import { managersUp, nodesSeen, SOON_MS, untilDocker } from './support/managers.js';
import { until } from './support/process.js';

/** The state of a swarm as a file: saved while all goes on, looked into, made a swarm again. */

const skip = skipUnless('docker');

t.test('a swarm that was saved lives again elsewhere', { skip }, async (t) => {
  const lab = await managersUp(t);
  const file = join(scratch(t), 'swarm.snapshot');
  const create = ['network', 'create', '-d', 'overlay', '--attachable', '--subnet', '10.77.0.0/24'];
  await lab.dockerMust('node2', ...create, 'mesh');
  const secret = await lab.dockerWith('hush', 'node3', 'secret', 'create', 'word', '-');
  await lab.dockerMust('node1', 'config', 'create', 'kept', '/etc/hostname');
  const saved = await lab.shoal('node2', 'snapshot', 'save', file);
  t.equal(saved.code, 0, saved.stderr);
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.equal((await lab.shoal('node2', 'snapshot', 'save', file)).code, 2, 'not overwritten');

  const inspected = await lab.shoal('node3', 'snapshot', 'inspect', file, '--json');
  t.match(JSON.parse(inspected.stdout), {
    networks: [{ name: 'ingress' }, { name: 'mesh' }],
    secrets: ['word'],
    configs: ['kept'],
    objects: { node: 3 },
  });
  t.notMatch(inspected.stdout, Buffer.from('hush').toString('base64'));
  const damaged = `${file}.damaged`;
  const bytes = readFileSync(file);
  bytes[bytes.length - 9] = (bytes[bytes.length - 9] ?? 0) ^ 1;
  writeFileSync(damaged, bytes);
  const refused = await lab.shoal('node3', 'snapshot', 'inspect', damaged);
  t.match(refused, { code: 1, stderr: /the snapshot is damaged/ });
  writeFileSync(damaged, bytes.subarray(0, -100));
  t.match((await lab.shoal('node3', 'snapshot', 'inspect', damaged)).stderr, /is not whole/);

  await lab.dockerMust('node1', 'network', 'create', '-d', 'overlay', 'later');
  const told = await lab.shoal('node1', 'snapshot', 'restore', file);
  t.match(told, { code: 2, stderr: /nothing was changed: --force restores it/ });

  const fresh = await TestLab.up(t, { nodes: 2, swarm: false });
  const restored = await fresh.shoal('node1', 'snapshot', 'restore', file, '--force');
  t.equal(restored.code, 0, restored.stderr);
  await until('it leads', SOON_MS, async () =>
    [...(await nodesSeen(fresh, 'node1')).values()].some(({ manager }) => manager === 'Leader'),
  );
  const [network] = JSON.parse(await untilDocker(fresh, 'node1', 'network', 'inspect', 'mesh'));
  t.equal(network.IPAM.Config[0].Subnet, '10.77.0.0/24');
  t.match(await fresh.dockerMust('node1', 'secret', 'ls', '-q'), secret.stdout.trim());
  t.match(await fresh.dockerMust('node1', 'config', 'ls'), / kept /);
  t.notMatch(
    await fresh.dockerMust('node1', 'network', 'ls'),
    / later /,
    'what came after is not there',
  );
  const token = await fresh.dockerMust('node1', 'swarm', 'join-token', '-q', 'manager');
  const { address } = fresh.lab.node('node1');
  await fresh.dockerMust('node2', 'swarm', 'join', '--token', token, `${address}:2377`);
  t.match(await untilDocker(fresh, 'node2', 'config', 'ls'), / kept /);

  // Back in time where it was made.
  for (const node of ['node2', 'node3']) await lab.lab.signalAgent(node, 'SIGKILL');
  const back = await lab.shoal('node1', 'snapshot', 'restore', file, '--force');
  t.equal(back.code, 0, back.stderr);
  await until('it leads', SOON_MS, async () => {
    return (await nodesSeen(lab, 'node1')).get('node1')?.manager === 'Leader';
  });
  t.notMatch(await lab.dockerMust('node1', 'network', 'ls'), / later /);
  t.match(await lab.dockerMust('node1', 'network', 'ls'), / mesh /);
  await lab.lab.startAgent('node2');
  await until('a node comes back by itself', 3 * SOON_MS, async () => {
    return (await nodesSeen(lab, 'node1')).get('node2')?.status === 'Ready';
  });
});
