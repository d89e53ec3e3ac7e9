import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Lab } from '../../src/cli/lab/lab.js';
import { netnsNames } from '../../src/cli/lab/tools.js';
import { cannotMakeNamespaces, makeNetns } from '../dataplane/sys/netns-fixture.js';
import { type Finished, root, scratch, shoal, startShoal, until } from './shoal.js';

const isBuilt = existsSync(join(root, 'dist/main.js'));
const skip = cannotMakeNamespaces || (isBuilt ? false : 'needs a build');

t.test('real agents: attach a namespace, run a process beside it, by name', { skip }, async (t) => {
  const prefix = `shl-${randomBytes(3).toString('hex')}`;
  const dir = join(scratch(t), 'lab');
  const lab = new Lab({ dir, prefix });
  t.teardown(() => lab.down());
  const inNode = (node: string, ...command: string[]): Promise<Finished> =>
    shoal([
      'lab',
      'exec',
      node,
      '--dir',
      dir,
      '--',
      process.execPath,
      join(root, 'dist/main.js'),
      ...command,
    ]);
  const post = (path: string, body: unknown) =>
    shoal([
      'lab',
      'exec',
      'node1',
      '--dir',
      dir,
      '--',
      ...[
        'curl',
        '-s',
        '--unix-socket',
        lab.node('node1').socket,
        '-H',
        'Content-Type: application/json',
      ],
      ...['-d', JSON.stringify(body), `http://shoal${path}`],
    ]);

  const { nodes } = await lab.up({ nodes: 2 });
  t.match(nodes, [{ state: 'ready' }, { state: 'ready' }]);
  const pid = nodes[0]?.pid;
  const argv = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  t.match(
    argv.slice(1),
    [/^--max-semi-space-size=/],
    'it began anew with less memory, as who it was',
  );
  await post('/networks/create', { Name: 'mesh', Driver: 'overlay', Attachable: true });

  const blue = makeNetns(t);
  await until('the network is known on node1', async () => {
    const attached = await inNode(
      'node1',
      'network',
      'attach',
      'mesh',
      '--netns',
      blue.name,
      '--name',
      'blue',
    );
    return attached.code === 0;
  });
  t.match((await inNode('node1', 'network', 'attachments')).stdout, / mesh +blue +shl-\w+ +eth0 /);

  // The name is known here a moment before the other node knows whom to answer.
  const script =
    'for i in $(seq 50); do getent ahostsv4 blue && break; sleep 0.1; done; ping -c25 -i0.2 -W2 blue; exit 4';
  const ran = await inNode(
    'node2',
    'run',
    '--network',
    'mesh',
    '--name',
    'red',
    '--',
    'sh',
    '-c',
    script,
  );
  t.equal(ran.code, 4);
  t.match(ran.stdout, /, [1-9]\d* received/);
  t.match(
    (await inNode('node2', 'network', 'attachments')).stdout,
    /^ID[^\n]*\n$/,
    'nothing is left of it',
  );

  t.equal((await inNode('node1', 'network', 'detach', 'mesh', '--netns', blue.name)).code, 0);
  t.notMatch(blue.ip('-br', 'link'), /eth0/);
});

t.test('a lab that is interrupted while it comes up leaves nothing', { skip }, async (t) => {
  const dir = join(scratch(t), 'lab');
  const { child, finished } = startShoal(['lab', 'up', '--dir', dir, '--no-swarm']);
  let said = '';
  child.stderr?.on('data', (text) => {
    said += text;
  });
  await until('agents are starting', () => said.includes('starting the agent of node1'));
  const prefix = /namespaces (shoal-\w+)-/.exec(said)?.[1] ?? 'none';
  t.teardown(() => new Lab({ dir, prefix }).down());
  child.kill('SIGINT');
  const { code, stderr } = await finished;
  t.equal(code, 130);
  t.match(stderr, /taking down what was made/);
  t.strictSame(netnsNames(`${prefix}-`), []);
  t.notOk(existsSync(dir));
});

t.test('lab up twice and down twice', { skip }, async (t) => {
  const dir = join(scratch(t), 'lab');
  t.teardown(() => new Lab({ dir }).down());
  const args = ['--dir', dir, '--no-swarm', '--nodes', '2', '--driver', 'portable', '--json'];
  const first = JSON.parse((await shoal(['lab', 'up', ...args])).stdout);
  t.match(first.nodes, [{ state: 'inactive' }, { state: 'inactive' }]);
  const second = JSON.parse((await shoal(['lab', 'up', ...args])).stdout);
  t.strictSame(second, first, 'the same agents');
  t.equal((await shoal(['lab', 'down', '--dir', dir])).code, 0);
  t.equal((await shoal(['lab', 'down', '--dir', dir])).code, 0);
  t.strictSame(netnsNames(`${first.prefix}-`), []);
});
