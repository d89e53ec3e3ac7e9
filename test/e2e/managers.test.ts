import t from 'tap';
import { skipUnless, TestLab } from './support/lab.js';
import {
  ALL_REACHABLE,
  leaderSeen,
  managersUp,
  nodesSeen,
  SOON_MS,
  untilManagers,
} from './support/managers.js';
import { until } from './support/process.js';

/** Several managers, as the docker CLI shows and changes them. */

const skip = skipUnless('docker', 'curl');

t.test('workers are promoted, managers demoted, by word of any manager', { skip }, async (t) => {
  const lab = await TestLab.up(t, { nodes: 3 });
  const promoted = await lab.docker('node1', 'node', 'promote', 'node2', 'node3');
  t.equal(promoted.code, 0, promoted.stderr);
  t.match(promoted.stdout, /^Node node2 promoted to a manager in the swarm\.$/m);
  for (const node of ['node1', 'node2', 'node3']) await untilManagers(lab, node, ALL_REACHABLE);
  t.equal((await nodesSeen(lab, 'node3')).get('node1')?.manager, 'Leader');
  const again = await lab.docker('node2', 'node', 'promote', 'node3');
  t.match(again.stdout, /is already a manager\.$/m);

  await lab.lab.signalAgent('node3', 'SIGKILL');
  await until(
    'a dead manager is unreachable',
    SOON_MS,
    async () => (await nodesSeen(lab, 'node1')).get('node3')?.manager === 'Unreachable',
  );
  const refused = await lab.docker('node1', 'node', 'demote', 'node2');
  t.not(refused.code, 0, 'one of two that are left');
  t.match(refused.stderr, /this would result in a loss of quorum/);
  await lab.lab.startAgent('node3');
  for (const node of ['node1', 'node3']) await untilManagers(lab, node, ALL_REACHABLE);

  await lab.dockerMust('node3', 'node', 'demote', 'node1');
  await untilManagers(lab, 'node2', ['', 'Leader', 'Reachable']);
  await until('a worker says so', SOON_MS, async () =>
    /not a swarm manager/.test((await lab.docker('node1', 'node', 'ls')).stderr),
  );
  await lab.dockerMust('node2', 'node', 'demote', 'node3');
  await untilManagers(lab, 'node2', ['', '', 'Leader']);
  const last = await lab.docker('node2', 'node', 'demote', 'node2');
  t.not(last.code, 0, 'the last one stays');
  await lab.dockerMust('node2', 'node', 'promote', 'node1');
  await untilManagers(lab, 'node1', ['', 'Leader', 'Reachable']);
});

t.test('what one manager makes, all have at once', { skip }, async (t) => {
  const lab = await managersUp(t);
  const [one, two, three] = ['node1', 'node2', 'node3'] as const;
  await t.test('networks', async (t) => {
    await lab.dockerMust(one, 'network', 'create', '-d', 'overlay', '--attachable', 'mesh');
    t.match(await lab.dockerMust(two, 'network', 'inspect', 'mesh'), /"Name": "mesh"/);
    const twice = await lab.docker(three, 'network', 'create', '-d', 'overlay', 'mesh');
    t.match(twice.stderr, /network with name mesh already exists/);
    await lab.dockerMust(three, 'network', 'rm', 'mesh');
    t.match((await lab.docker(one, 'network', 'inspect', 'mesh')).stderr, /not found/);
  });
  for (const kind of ['secret', 'config'] as const)
    await t.test(`${kind}s`, async (t) => {
      const made = await lab.dockerWith('hush', two, kind, 'create', '--label', 'a=b', 'one', '-');
      t.equal(made.code, 0, made.stderr);
      const inspected = JSON.parse(await lab.dockerMust(three, kind, 'inspect', 'one'))[0];
      t.match(inspected, { ID: made.stdout.trim(), Spec: { Name: 'one', Labels: { a: 'b' } } });
      const data = kind === 'secret' ? undefined : Buffer.from('hush').toString('base64');
      t.equal(inspected.Spec.Data, data, 'a secret is never shown');
      t.match(await lab.dockerMust(one, kind, 'ls'), /^\S+ +one /m);
      const twice = await lab.dockerWith('x', one, kind, 'create', 'one', '-');
      t.match(twice.stderr, `${kind} one already exists`);
      const empty = await lab.dockerWith('', one, kind, 'create', 'none', '-');
      t.not(empty.code, 0, 'nothing to keep');
      t.equal(await lab.dockerMust(three, kind, 'rm', 'one'), 'one');
      t.match((await lab.docker(two, kind, 'inspect', 'one')).stderr, /no such|not found/i);
      t.match((await lab.docker(two, kind, 'rm', 'one')).stderr, /not found/);
    });
  await t.test('nodes', async (t) => {
    await lab.dockerMust(two, 'node', 'update', '--label-add', 'zone=a', 'node3');
    const [node] = JSON.parse(await lab.dockerMust(one, 'node', 'inspect', 'node3'));
    t.strictSame(node.Spec.Labels, { zone: 'a' });
  });
  await t.test('a leader that leaves by force is followed by another', async (t) => {
    const leader = await leaderSeen(lab, one);
    const other = leader === one ? two : one;
    const warned = await lab.docker(leader, 'swarm', 'leave');
    t.match(warned.stderr, /Use `--force` to suppress this message/);
    await lab.dockerMust(leader, 'swarm', 'leave', '--force');
    await until('two managers are left', 2 * SOON_MS, async () => {
      const seen = await nodesSeen(lab, other);
      const managers = [...seen.values()].map(({ manager }) => manager).sort();
      return JSON.stringify(managers) === JSON.stringify(['', 'Leader', 'Reachable']);
    });
    t.match((await lab.docker(leader, 'node', 'ls')).stderr, /not a swarm manager/);
    await lab.dockerMust(other, 'network', 'create', '-d', 'overlay', 'after');
    await until('it is down', 2 * SOON_MS, async () => {
      return (await nodesSeen(lab, other)).get(leader)?.status === 'Down';
    });
    await lab.dockerMust(other, 'node', 'rm', leader);
    const token = await lab.dockerMust(other, 'swarm', 'join-token', '-q', 'manager');
    const { address } = lab.lab.node(other);
    await lab.dockerMust(leader, 'swarm', 'join', '--token', token, `${address}:2377`);
    await untilManagers(lab, leader, ALL_REACHABLE);
    t.match(await lab.dockerMust(leader, 'network', 'ls'), / after /);
  });
});
