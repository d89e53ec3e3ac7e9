import t from 'tap';
import { AgentClient, socketPathOf } from '../../src/cli/agent-client.js';
import { CliError } from '../../src/cli/error.js';
import { upOptionsOf } from '../../src/cli/lab/command.js';
import { detachRequestOf, targetOf } from '../../src/cli/network.js';
import { formatTable, formatValue } from '../../src/cli/output.js';
import { parseEnv, runRequestOf } from '../../src/cli/run/command.js';
import { fakeAgent, shoal } from './shoal.js';

function isUsageError(work: () => unknown): boolean {
  try {
    work();
    return false;
  } catch (error) {
    return error instanceof CliError && error.code === 'CLI_USAGE';
  }
}

const wrongLines: readonly (readonly [readonly string[], RegExp])[] = [
  [['nonsense'], /^shoal: unknown command 'nonsense': see 'shoal --help'\n$/],
  [['--nonsense'], /^shoal: unknown option '--nonsense': see 'shoal --help'\n$/],
  [['network', 'attach'], /missing required argument 'network': see 'shoal network attach --help'/],
  [['network', 'attach', 'm', '--colour'], /unknown option '--colour'/],
  [
    ['lab', 'partitio'],
    /unknown command 'partitio' \(Did you mean partition\?\): see 'shoal lab --help'/,
  ],
  [['lab', 'exec', 'node1', 'ls', '-l'], /unknown option '-l'/],
  [['network', 'ls', 'more'], /too many arguments/],
  [['agent', '--nonsense'], /unknown option '--nonsense'/],
];

t.test('a wrong command line is one sentence on stderr and exit code 2', async (t) => {
  await Promise.all(
    wrongLines.map(async ([args, want]) => {
      const { code, stdout, stderr } = await shoal(args);
      const line = args.join(' ');
      t.equal(code, 2, line);
      t.match(stderr, want, line);
      t.equal(stderr.split('\n').length, 2, `one line: ${line}`);
      t.equal(stdout, '', line);
    }),
  );
});

t.test('help names every command and shows examples', async (t) => {
  const { code, stdout } = await shoal(['--help']);
  t.equal(code, 0);
  for (const word of ['agent', 'network', 'run', 'status', 'lab', 'bench', 'version', 'Examples:'])
    t.match(stdout, word);
  const helps = [
    'agent',
    'network attach',
    'network detach',
    'network attachments',
    'run',
    'status',
    'lab up',
    'lab down',
    'lab kill',
    'snapshot save',
    'snapshot inspect',
    'snapshot restore',
    'recover',
    'history',
    'flows',
    'top services',
    'lab start',
    'lab exec',
    'lab env',
    'lab status',
    'lab partition',
    'lab heal',
  ];
  await Promise.all(
    helps.map(async (command) => {
      const help = await shoal([...command.split(' '), '--help']);
      t.equal(help.code, 0, command);
      t.match(help.stdout, /Examples:/, command);
    }),
  );
  const bare = await shoal([]);
  t.match(bare, { code: 0, stderr: '' }, 'without arguments it is the same help');
  t.equal(bare.stdout, stdout);
  t.match((await shoal(['version'])).stdout, /^shoal \d+\.\d+\.\d+ \(node /);
});

t.test('the namespace is said by exactly one flag', async (t) => {
  t.strictSame(targetOf({ netns: 'blue' }), { kind: 'netns', path: '/run/netns/blue' });
  t.strictSame(targetOf({ netns: '/proc/7/ns/net' }), { kind: 'netns', path: '/proc/7/ns/net' });
  t.strictSame(targetOf({ netns: './x' }), { kind: 'netns', path: `${process.cwd()}/x` });
  t.strictSame(targetOf({ pid: '42' }), { kind: 'pid', pid: 42 });
  t.strictSame(targetOf({ host: true }), { kind: 'host' });
  for (const flags of [
    {},
    { netns: 'a', pid: '1' },
    { host: true, pid: '1' },
    { pid: '0' },
    { pid: '-1' },
  ])
    t.ok(
      isUsageError(() => targetOf(flags)),
      JSON.stringify(flags),
    );
  t.strictSame(detachRequestOf('abc', {}), { id: 'abc' });
  t.strictSame(detachRequestOf('m', { netns: 'b' }), { network: 'm', netns: '/run/netns/b' });
  t.strictSame(detachRequestOf('m', { host: true }), { network: 'm', host: true });
});

t.test('the socket is that of the flag, SHOAL_SOCKET, DOCKER_HOST or the default', async (t) => {
  const env = { SHOAL_SOCKET: '/s', DOCKER_HOST: 'unix:///d' };
  t.equal(socketPathOf('unix:///f', env), '/f');
  t.equal(socketPathOf(undefined, env), '/s');
  t.equal(socketPathOf(undefined, { DOCKER_HOST: 'unix:///d' }), '/d');
  t.equal(socketPathOf(undefined, {}), '/run/shoal/docker.sock');
  t.throws(() => socketPathOf(undefined, { DOCKER_HOST: 'tcp://10.0.0.1:2376' }), /unix socket/);
});

t.test('what cannot be run is refused before anything is made', async (t) => {
  const bad: readonly (readonly [string, object])[] = [
    ['no network', {}],
    ['a network twice', { network: ['a', 'a'] }],
    ['an address on two networks', { network: ['a', 'b'], ip: '10.0.0.2' }],
    ['no address', { network: ['a'], ip: '10.0.0' }],
    ['no host name', { network: ['a'], hostname: 'a b' }],
    ['a host name too long', { network: ['a'], hostname: 'a'.repeat(65) }],
    ['no name', { network: ['a'], name: '-x' }],
    ['no alias', { network: ['a'], alias: ['ok', 'not ok'] }],
    ['no variable', { network: ['a'], env: ['=x'] }],
  ];
  for (const [name, flags] of bad) {
    t.ok(
      isUsageError(() => runRequestOf(['ls'], flags, {})),
      name,
    );
  }
  const fine = { network: ['a'], ip: 'fd00::2', name: 'web', alias: ['db.local'], env: ['A=b=c'] };
  t.match(runRequestOf(['ls', '-l'], fine, {}), { env: { A: 'b=c' }, command: ['ls', '-l'] });
  t.strictSame(parseEnv(['A', 'B', 'C='], { A: 'own' }), { A: 'own', C: '' }, 'as docker has it');
});

t.test('lab up refuses what this version cannot do', async (t) => {
  const flags = {
    dir: 'x',
    managers: '1',
    swarm: true,
    mtu: '1500',
    driver: 'auto',
    logLevel: 'info',
  };
  t.match(upOptionsOf({ ...flags, nodes: '5' }), { nodes: 5, mtuBytes: 1500, driver: 'auto' });
  for (const wrong of [{ managers: 'x' }, { nodes: 'many' }, { driver: 'kernel' }, { mtu: '' }])
    t.ok(
      isUsageError(() => upOptionsOf({ ...flags, ...wrong })),
      JSON.stringify(wrong),
    );
});

t.test('attach sends what was said, and prints what came of it', async (t) => {
  const made = {
    id: 'att1',
    networkId: 'n1',
    networkName: 'mesh',
    target: { kind: 'netns', path: '/run/netns/blue' },
    ifname: 'eth0',
    addresses: ['10.0.1.5/24'],
    mac: '02:42:0a:00:01:05',
    name: 'blue',
    aliases: ['b'],
    mtuBytes: 1450,
    state: 'up',
  };
  const agent = await fakeAgent(t, ({ method, path }) => ({
    status: 200,
    body: path.endsWith('detach') || method === 'GET' ? [made] : made,
  }));
  const env = { SHOAL_SOCKET: agent.socket };
  const flags = ['--netns', 'blue', '--name', 'blue', '--alias', 'b', '--ip', '10.0.1.5'];
  const attached = await shoal(['network', 'attach', 'mesh', ...flags], env);
  t.match(attached, { code: 0, stderr: '' });
  t.equal(
    attached.stdout,
    'blue is attached to mesh: eth0 10.0.1.5/24 02:42:0a:00:01:05 mtu 1450\n',
  );
  const listed = await shoal(['network', 'attachments'], env);
  t.match(listed.stdout, /^ID +NETWORK +NAME +TARGET/);
  t.match(listed.stdout, /^att1 +mesh +blue +blue +eth0 +10\.0\.1\.5\/24/m);
  t.strictSame(JSON.parse((await shoal(['network', 'attachments', '--json'], env)).stdout), [made]);
  const detached = await shoal(['network', 'detach', 'mesh', '--netns', 'blue'], env);
  t.equal(detached.stdout, 'blue is detached from mesh\n');
  t.strictSame(agent.calls[0], {
    method: 'POST',
    path: '/shoal/v1/attachments',
    body: {
      network: 'mesh',
      target: { kind: 'netns', path: '/run/netns/blue' },
      aliases: ['b'],
      ip: '10.0.1.5',
      name: 'blue',
    },
  });
  t.strictSame(agent.calls.at(-1)?.body, { network: 'mesh', netns: '/run/netns/blue' });
});

t.test('a refusal of the agent is its own sentence and exit code 1', async (t) => {
  const agent = await fakeAgent(t, ({ path }) =>
    path.endsWith('status')
      ? { status: 404, body: { message: 'page not found' } }
      : { status: 403, body: { message: 'network mesh not manually attachable', code: 'X' } },
  );
  const env = { DOCKER_HOST: `unix://${agent.socket}` };
  t.match(await shoal(['network', 'attach', 'mesh', '--host'], env), {
    code: 1,
    stdout: '',
    stderr: 'shoal: network mesh not manually attachable\n',
  });
  t.match((await shoal(['status'], env)).stderr, /is not a shoal agent/);
  const nobody = await shoal(['status', '--socket', '/nowhere.sock']);
  t.match(nobody, {
    code: 1,
    stderr: /^shoal: there is no agent socket at \/nowhere\.sock: .*\n$/,
  });
});

t.test('an agent that is silent is given up', async (t) => {
  const agent = await fakeAgent(t, () => new Promise(() => {}));
  const client = new AgentClient(agent.socket, 50);
  await t.rejects(client.call('GET', '/x'), { message: /no answer in 0\.05 s/ });
});

t.test('status prints any depth for people, and the same as JSON', async (t) => {
  const status = { node: 'a', up: true, list: [{ x: 1 }, 'y'], none: [], deep: { z: null } };
  const agent = await fakeAgent(t, () => ({ status: 200, body: status }));
  const { stdout } = await shoal(['status', '--socket', agent.socket]);
  t.equal(stdout, 'node: a\nup: true\nlist:\n  -\n    x: 1\n  - y\nnone: none\ndeep:\n  z: -\n');
  t.equal(formatValue(status), stdout.trimEnd());
  t.strictSame(
    JSON.parse((await shoal(['status', '--json', '--socket', agent.socket])).stdout),
    status,
  );
});

t.test('tables line up', async (t) => {
  t.equal(formatTable(['A', 'LONG'], [['wide', 'x']]), 'A      LONG\nwide   x');
  t.equal(formatTable(['A', 'B'], []), 'A   B');
});
