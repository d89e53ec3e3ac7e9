import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { Lab, type LabUpOptions } from '../../src/cli/lab/lab.js';
import { isRunning, recordProcess } from '../../src/cli/lab/process.js';
import { parseGroups, planLab, planNode, prefixOf } from '../../src/cli/lab/state.js';
import { netnsNames } from '../../src/cli/lab/tools.js';
import { cannotMakeNamespaces } from '../dataplane/sys/netns-fixture.js';
import { scratch, shoal, type Teardown, until } from './shoal.js';

const skip = cannotMakeNamespaces;

/** A lab that is taken down when the test ends. */
function makeLab(t: Teardown): { lab: Lab; prefix: string; dir: string } {
  const dir = join(scratch(t), 'lab');
  const prefix = `shl-${randomBytes(3).toString('hex')}`;
  const lab = new Lab({ dir, prefix });
  t.teardown(() => lab.down());
  return { lab, prefix, dir };
}

/** In an agent's place: answers everything on its socket, ends at SIGTERM. */
const STAND_IN = `
const { createServer } = require('node:http');
const { unlinkSync } = require('node:fs');
const socket = process.argv[process.argv.indexOf('--socket') + 1];
try { unlinkSync(socket); } catch {}
let state = 'inactive';
createServer((request, response) => {
  let body = '';
  request.on('data', (chunk) => { body += chunk; });
  request.on('end', () => {
    if (request.url === '/_ping') return response.end('OK');
    if (request.url === '/info') return response.end(JSON.stringify({ Swarm: { LocalNodeState: state, ControlAvailable: state === 'active' } }));
    if (request.method === 'POST') { state = 'active'; console.log(request.url, body); return response.end('""'); }
    if (request.url === '/swarm') return response.end(JSON.stringify({ JoinTokens: { Worker: 'token' } }));
    const nodes = ['node1', 'node2'].map((name) => ({ ID: name, Description: { Hostname: name }, Status: { State: 'ready' } }));
    response.end(JSON.stringify(nodes));
  });
}).listen(socket);
process.on('SIGTERM', () => process.exit(0));
`;

function standIn(dir: string): LabUpOptions {
  mkdirSync(dir, { recursive: true });
  const file = join(dir, '..', 'stand-in.cjs');
  writeFileSync(file, STAND_IN);
  return { command: [process.execPath, file] };
}

function reaches(lab: Lab, from: string, address: string): boolean {
  const [program = '', ...args] = lab.commandIn(from, ['ping', '-c1', '-W1', '-n', address]);
  try {
    execFileSync(program, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** A packet may be late on a busy machine; one that never comes is a fault. */
function untilReaches(lab: Lab, from: string, address: string): Promise<void> {
  return until(`${from} reaches ${address}`, () => reaches(lab, from, address));
}

t.test('every node reaches every other, and nobody outside', { skip }, async (t) => {
  const { lab, prefix } = makeLab(t);
  await lab.raise({ nodes: 3, ipv6: true });
  t.strictSame([...netnsNames(prefix)].sort(), [
    `${prefix}-node1`,
    `${prefix}-node2`,
    `${prefix}-node3`,
    `${prefix}-wire`,
  ]);
  await untilReaches(lab, 'node1', '10.213.0.13');
  await untilReaches(lab, 'node3', '10.213.0.12');
  await untilReaches(lab, 'node2', 'fd00:213::11');
  t.notOk(reaches(lab, 'node1', '192.0.2.1'), 'no default route');
  t.match(await lab.status(), { nodes: [{ name: 'node1', state: 'stopped', pid: undefined }] });
});

t.test('a partition cuts between groups, and heal joins them', { skip }, async (t) => {
  const { lab, dir } = makeLab(t);
  await lab.raise({ nodes: 4 });
  const reach = () => ({
    inside: reaches(lab, 'node1', '10.213.0.12'),
    across: reaches(lab, 'node1', '10.213.0.13'),
    others: reaches(lab, 'node3', '10.213.0.14'),
  });
  t.strictSame(await lab.partition(['node1,node2']), [
    ['node1', 'node2'],
    ['node3', 'node4'],
  ]);
  await untilReaches(lab, 'node1', '10.213.0.12');
  await untilReaches(lab, 'node3', '10.213.0.14');
  t.notOk(reach().across);
  await lab.partition(['node1', 'node2,node3']);
  t.strictSame(reach(), { inside: false, across: false, others: false });
  t.match((await new Lab({ dir }).status()).partition, [['node1'], ['node2', 'node3'], ['node4']]);

  await lab.raise({ nodes: 4 });
  t.notOk(reach().across, 'completing the lab does not heal it');
  await lab.heal();
  // The nodes ask for addresses once a second, and had asked in vain just before.
  await until('all is joined', () => Object.values(reach()).every(Boolean));
  t.strictSame((await lab.status()).partition, []);
});

t.test('what is missing is made, and nodes can be added', { skip }, async (t) => {
  const { lab, prefix } = makeLab(t);
  await lab.raise({ nodes: 2 });
  execFileSync('ip', ['netns', 'delete', `${prefix}-node2`]);
  t.match((await lab.status()).nodes[1], { state: 'gone' });
  t.throws(() => lab.commandIn('node2', ['true']), /namespace of node2 is gone/);
  await until('the kernel took the veth down', () => {
    const links = execFileSync('ip', ['-n', `${prefix}-wire`, '-o', 'link'], { encoding: 'utf8' });
    return !links.includes('p-node2');
  });
  await lab.raise({ nodes: 3 });
  await untilReaches(lab, 'node1', '10.213.0.12');
  await untilReaches(lab, 'node1', '10.213.0.13');
  await t.rejects(lab.raise({ nodes: 3, mtuBytes: 9000 }), { message: /up with other settings/ });
});

t.test('a direct wire joins two nodes, with offloads as asked', { skip }, async (t) => {
  const { lab, prefix } = makeLab(t);
  await lab.raise({ wire: 'direct', wireOffloads: 'off', mtuBytes: 9000 });
  await untilReaches(lab, 'node1', '10.213.0.12');
  const [program = '', ...args] = lab.commandIn('node2', ['ethtool', '-k', 'eth0']);
  const features = execFileSync(program, args, { encoding: 'utf8' });
  t.match(features, /^tcp-segmentation-offload: off/m);
  t.match(features, /^generic-segmentation-offload: off/m);
  t.match(execFileSync('ip', ['-n', `${prefix}-node1`, 'link'], { encoding: 'utf8' }), /mtu 9000/);
  t.strictSame([...netnsNames(prefix)].length, 2, 'no bridge in between');
  await t.rejects(lab.partition(['node1']), { message: /cannot be partitioned/ });
});

t.test('down takes everything away, twice, and without a state file too', { skip }, async (t) => {
  const { lab, prefix, dir } = makeLab(t);
  await lab.raise({ nodes: 2 });
  await lab.down();
  t.strictSame(netnsNames(prefix), []);
  t.notOk(existsSync(dir));
  await lab.down();
  await lab.raise({ nodes: 2 });
  execFileSync('rm', [join(dir, 'lab.json')]);
  await new Lab({ dir, prefix }).down();
  t.strictSame(netnsNames(prefix), []);
});

t.test('agents are started, form a swarm, and are ended', { skip }, async (t) => {
  const { lab, dir } = makeLab(t);
  const options = { ...standIn(dir), nodes: 2 };
  const status = await lab.up(options);
  t.match(status.nodes, [
    { name: 'node1', state: 'ready' },
    { name: 'node2', state: 'ready' },
  ]);
  const pids = status.nodes.map((node) => node.pid);
  const said = execFileSync('cat', [join(dir, 'node2/agent.out')], { encoding: 'utf8' });
  t.match(said, /\/swarm\/join .*"RemoteAddrs":\["10\.213\.0\.11:2377"\],"JoinToken":"token"/);
  t.strictSame(
    (await lab.up(options)).nodes.map((node) => node.pid),
    pids,
    'who runs stays',
  );

  t.equal(await lab.signalAgent('node2', 'SIGSTOP'), true, 'it runs on');
  t.equal(await lab.signalAgent('node2', 'SIGCONT'), true);
  t.equal(await lab.signalAgent('node2', 'SIGKILL'), false, 'it has ended');
  t.match((await lab.status()).nodes[1], { state: 'stopped', pid: undefined });
  await t.rejects(lab.signalAgent('node2', 'SIGTERM'), { message: /no agent of node2 runs/ });
  await lab.startAgent('node2', options);
  const { pid } = (await lab.status()).nodes[1] ?? {};
  t.not(pid, pids[1], 'another agent');
  await lab.startAgent('node2', options);
  t.equal((await lab.status()).nodes[1]?.pid, pid, 'who runs stays');

  await lab.stopAgent('node2', 'SIGKILL');
  t.match((await lab.status()).nodes[1], { state: 'stopped', pid: undefined });
  await lab.up(options);
  t.match((await lab.status()).nodes, [{ pid: pids[0] }, { state: 'ready' }]);
  const ran = await lab.status();
  await lab.signalAgent('node1', 'SIGSTOP');
  const beganMs = performance.now();
  await lab.down();
  t.ok(performance.now() - beganMs < 9_000, 'one that is stopped is ended kindly too');
  for (const { pid } of ran.nodes) t.notOk(existsSync(`/proc/${pid}`), `${pid} has ended`);
});

t.test('an agent that was never recorded is found and ended too', { skip }, async (t) => {
  const { lab, dir } = makeLab(t);
  const options = standIn(dir);
  await lab.raise({ nodes: 1 });
  const node = lab.node('node1');
  mkdirSync(node.dataDir, { recursive: true });
  const enter = (command: readonly string[]) => {
    const [program = '', ...args] = lab.commandIn('node1', command);
    return spawn(program, args, { stdio: 'ignore', detached: true });
  };
  const flags = ['agent', '--data-dir', node.dataDir, '--socket', node.socket];
  const stray = enter([...(options.command ?? []), ...flags]);
  const users = enter(['sleep', '60']);
  t.teardown(() => users.kill('SIGKILL'));
  await until('the stray answers', () => existsSync(node.socket));
  const ended = new Promise((done) => stray.once('exit', done));
  await lab.down();
  await ended;
  t.ok(existsSync(`/proc/${users.pid}`), "what the user runs there is the user's");
});

t.test('an agent that ends at once is said with its last words', { skip }, async (t) => {
  const { lab, dir } = makeLab(t);
  mkdirSync(dir, { recursive: true });
  const command = ['sh', '-c', 'echo cannot bind >&2; exit 1', 'stand-in'];
  await t.rejects(lab.up({ nodes: 1, command }), {
    message: /^node1: its agent (has ended|did not start): cannot bind \(see /,
  });
});

t.test('exec has the network, the variables and the exit code of the node', { skip }, async (t) => {
  const { lab, dir } = makeLab(t);
  await lab.raise({ nodes: 1 });
  const inNode = (...command: string[]) =>
    shoal(['lab', 'exec', 'node1', '--dir', dir, '--', ...command]);
  const { code, stdout } = await inNode('sh', '-c', 'echo $DOCKER_HOST; ip -br addr; exit 5');
  t.equal(code, 5);
  t.match(stdout, `unix://${lab.node('node1').socket}\n`);
  t.match(stdout, /10\.213\.0\.11\/16/);
  t.equal((await inNode('shl-no-such-command')).code, 127);
  const env = await shoal(['lab', 'env', 'node1', '--dir', dir]);
  t.match(env.stdout, `export SHOAL_SOCKET=${lab.node('node1').socket}\n`);
  t.match((await shoal(['lab', 'env', 'node9', '--dir', dir])).stderr, /no node node9.*node1/);
  t.match(
    (await shoal(['lab', 'status', '--dir', dir])).stdout,
    /^node1 +stopped +- +- +10\.213\.0\.11/m,
  );
  t.equal((await shoal(['lab', 'down', '--dir', dir])).code, 0);
  t.match((await shoal(['lab', 'status', '--dir', dir])).stderr, /no lab is up in/);
});

t.test('groups: unnamed nodes are one more, and mistakes are said', async (t) => {
  const names = ['node1', 'node2', 'node3', 'node4', 'node5'];
  t.strictSame(parseGroups(['node1,node2', 'node3'], names), [
    ['node1', 'node2'],
    ['node3'],
    ['node4', 'node5'],
  ]);
  t.throws(() => parseGroups(['node9'], names), /there is no node node9/);
  t.throws(() => parseGroups(['node1', 'node1'], names), /named twice/);
  t.throws(() => parseGroups([names.join(',')], names), /at least two groups/);
});

t.test('plans are the same for the same folder, and fit the limits', async (t) => {
  t.equal(prefixOf('/a'), prefixOf('/a'));
  t.not(prefixOf('/a'), prefixOf('/b'));
  const shape = { wire: 'bridge', wireOffloads: 'on', mtuBytes: 1500, ipv6: false } as const;
  const three = planLab('/d', 'p', undefined, 3, shape);
  t.strictSame(
    three.nodes.map((node) => node.address),
    ['10.213.0.11', '10.213.0.12', '10.213.0.13'],
  );
  t.equal(planLab('/d', 'p', three, 1, shape).nodes.length, 3, 'nodes are not taken away');
  t.throws(() => planLab('/d', 'p', undefined, 0, shape), /1 to 100/);
  t.throws(() => planLab('/d', 'p', undefined, 3, { ...shape, wire: 'direct' }), /exactly 2/);
  t.equal(planNode('/d', 'p', 0, false).socket, '/d/node1/docker.sock');
  const deep = planNode(`/${'x'.repeat(120)}`, 'p', 0, false);
  t.equal(deep.socket, '/run/shoal-lab/p/node1.sock', 'a socket path has little room');
});

t.test(
  'a process is known by more than its id',
  { skip: process.platform !== 'linux' },
  async (t) => {
    const record = recordProcess(process.pid);
    if (record === undefined) throw new Error('we run');
    const words = [process.argv[1] ?? ''];
    t.ok(isRunning(record, words));
    t.notOk(isRunning({ ...record, startTicks: '1' }, words), 'another start');
    t.notOk(isRunning({ ...record, bootId: 'other' }, words), 'another boot');
    t.notOk(isRunning(record, ['--data-dir', '/shl']), 'another command');
    t.equal(recordProcess(0x3fff_ffff), undefined);
  },
);

t.test('a process is running also while it becomes another program', { skip }, async (t) => {
  const words = ['--data-dir', '/shl/exec'];
  const child = spawn(
    'sh',
    ['-c', 'exec sh -c "$0" "$0" "$@"', 'exec sh -c "$0" "$0" "$@"', ...words],
    {
      stdio: 'ignore',
    },
  );
  t.teardown(() => child.kill('SIGKILL'));
  const record = recordProcess(child.pid ?? 0);
  if (record === undefined) throw new Error('it runs');
  let missed = 0;
  const endMs = performance.now() + 300;
  while (performance.now() < endMs) if (!isRunning(record, words)) missed += 1;
  t.equal(missed, 0);
  child.kill('SIGKILL');
  await until('its end is seen', () => !isRunning(record, words));
});
