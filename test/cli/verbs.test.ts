import { execFile, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { fakeAgent, shoal } from './shoal.js';

const run = promisify(execFile);

const node = (ID: string, Hostname: string, more: object = {}) => ({
  ID,
  Version: { Index: 7 },
  Spec: { Labels: { old: '1' }, Role: 'worker', Availability: 'active' },
  Description: { Hostname, Engine: { EngineVersion: '0.1.0' } },
  Status: { State: 'ready' },
  ...more,
});
const nodes = [
  node('n2', 'beta'),
  node('n1', 'alpha', { ManagerStatus: { Leader: true, Reachability: 'reachable' } }),
];

/** An agent that answers like a manager, and remembers what it was told. */
function manager(t: Test) {
  return fakeAgent(t, ({ method, path }) => {
    const [route = ''] = path.split('?');
    if (route === '/info')
      return {
        status: 200,
        body: { Swarm: { NodeID: 'n1', NodeAddr: '192.0.2.1', ControlAvailable: false } },
      };
    if (route === '/swarm/init') return { status: 200, body: 'n1' };
    if (route === '/swarm')
      return {
        status: 200,
        body: {
          Version: { Index: 3 },
          Spec: { Name: 'default' },
          JoinTokens: { Worker: 'TW', Manager: 'TM' },
        },
      };
    if (route === '/nodes') return { status: 200, body: nodes };
    if (method === 'GET' && route.startsWith('/nodes/'))
      return {
        status: 200,
        body: nodes.find(({ ID, Description }) =>
          [ID, Description.Hostname].includes(route.slice(7)),
        ),
      };
    if (route === '/networks/create') return { status: 201, body: { Id: 'net1' } };
    if (route === '/networks')
      return {
        status: 200,
        body: [{ Id: 'abcdefghijklmnop', Name: 'mesh', Driver: 'overlay', Scope: 'swarm' }],
      };
    return { status: 200, body: [] };
  });
}

t.test('a swarm is made and joined in docker’s words', async (t) => {
  const agent = await manager(t);
  const env = { SHOAL_SOCKET: agent.socket };
  const made = await shoal(['swarm', 'init', '--advertise-addr', '192.0.2.1'], env);
  t.match(made, { code: 0, stderr: '' });
  t.match(made.stdout, /^Swarm initialized: current node \(n1\) is now a manager\.\n\n/);
  t.match(made.stdout, /\n {4}shoal swarm join --token TW 192\.0\.2\.1:2377\n/);
  t.match(agent.calls[0], {
    method: 'POST',
    path: '/swarm/init',
    body: { AdvertiseAddr: '192.0.2.1', ListenAddr: '0.0.0.0:2377', SubnetSize: 24 },
  });
  const joined = await shoal(['swarm', 'join', '--token', 'TW', '192.0.2.1'], env);
  t.equal(joined.stdout, 'This node joined a swarm as a worker.\n');
  t.match(
    agent.calls.find(({ path }) => path === '/swarm/join'),
    {
      body: { RemoteAddrs: ['192.0.2.1:2377'], JoinToken: 'TW' },
    },
  );
  t.equal((await shoal(['swarm', 'join-token', '-q', 'manager'], env)).stdout, 'TM\n');
  await shoal(['swarm', 'join-token', '--rotate', 'worker'], env);
  t.ok(agent.calls.some(({ path }) => path === '/swarm/update?version=3&rotateWorkerToken=true'));
  t.match(await shoal(['swarm', 'join-token', 'boss'], env), {
    code: 2,
    stderr: /say worker or manager/,
  });
  t.match(await shoal(['swarm', 'join', 'x'], env), { code: 2, stderr: /say which token/ });
});

t.test('nodes are listed and changed', async (t) => {
  const agent = await manager(t);
  const env = { SHOAL_SOCKET: agent.socket };
  const listed = await shoal(['node', 'ls'], env);
  t.strictSame(
    listed.stdout.split('\n').map((line) => line.split(/ {2,}/)),
    [
      ['ID', 'HOSTNAME', 'STATUS', 'AVAILABILITY', 'MANAGER STATUS', 'ENGINE VERSION'],
      ['n1 *', 'alpha', 'Ready', 'Active', 'Leader', '0.1.0'],
      ['n2', 'beta', 'Ready', 'Active', '0.1.0'],
      [''],
    ],
  );
  const flags = ['--availability', 'drain', '--label-add', 'zone=a', '--label-rm', 'old'];
  t.equal((await shoal(['node', 'update', ...flags, 'beta'], env)).stdout, 'beta\n');
  t.match(agent.calls.at(-1), {
    path: '/nodes/n2/update?version=7',
    body: { Role: 'worker', Availability: 'drain', Labels: { zone: 'a' } },
  });
  await shoal(['node', 'promote', 'beta'], env);
  t.match(agent.calls.at(-1), { body: { Role: 'manager' } });
  await shoal(['node', 'rm', '-f', 'beta'], env);
  t.match(agent.calls.at(-1), { method: 'DELETE', path: '/nodes/n2?force=1' });
  t.match(await shoal(['node', 'update', 'beta'], env), {
    code: 2,
    stderr: /say what is to change/,
  });
});

t.test('networks are made and listed', async (t) => {
  const agent = await manager(t);
  const env = { SHOAL_SOCKET: agent.socket };
  const flags = [
    '--attachable',
    '--subnet',
    '10.5.0.0/24',
    '--gateway',
    '10.5.0.1',
    '--label',
    'a=b',
  ];
  t.equal((await shoal(['network', 'create', ...flags, 'mesh'], env)).stdout, 'net1\n');
  t.match(agent.calls[0], {
    path: '/networks/create',
    body: {
      Name: 'mesh',
      Driver: 'overlay',
      Attachable: true,
      Labels: { a: 'b' },
      IPAM: { Config: [{ Subnet: '10.5.0.0/24', Gateway: '10.5.0.1' }] },
    },
  });
  t.match(
    (await shoal(['network', 'ls'], env)).stdout,
    /\nabcdefghijkl {3}mesh {3}overlay {3}swarm\n/,
  );
  t.match(await shoal(['network', 'create', '--gateway', '10.0.0.1', 'x'], env), { code: 2 });
});

const docker = spawnSync('docker', ['--version']).status === 0;

t.test('docker knows it as a plugin', { skip: !docker && 'there is no docker CLI' }, async (t) => {
  const agent = await manager(t);
  const config = t.testdir({});
  const installed = await shoal(['plugin', 'install', '--dir', join(config, 'cli-plugins')]);
  t.match(installed, { code: 0 });
  const call = (...args: string[]) =>
    run('docker', args, {
      env: { ...process.env, DOCKER_CONFIG: config, SHOAL_SOCKET: agent.socket },
    });
  t.match((await call('shoal', 'node', 'ls')).stdout, /n1 \* +alpha/);
  t.match((await call('--help')).stdout, /shoal\* +Overlay networks, stacks and services/);
  await shoal(['plugin', 'uninstall', '--dir', join(config, 'cli-plugins')]);
  await t.rejects(call('shoal', 'node', 'ls'));
});
