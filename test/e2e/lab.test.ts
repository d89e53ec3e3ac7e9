import { existsSync } from 'node:fs';
import t from 'tap';
import { netnsNames } from '../../src/cli/lab/tools.js';
import { labFolder, scratch, shoalArgv, skipUnless } from './support/lab.js';
import {
  type Finished,
  type Running,
  run,
  start,
  type Teardown,
  until,
} from './support/process.js';

/** `shoal lab` as its user sees it: bringing labs up and taking them down, whatever happens between. */

const skip = skipUnless('pgrep');

const lab = (dir: string, ...args: readonly string[]): Promise<Finished> =>
  run([...shoalArgv, 'lab', ...withDir(dir, args)], { timeoutMs: 60_000 });

/** `--dir` goes before the `--` of `exec`. */
function withDir(dir: string, args: readonly string[]): readonly string[] {
  const end = args.indexOf('--');
  const own = end === -1 ? args : args.slice(0, end);
  return [...own, '--dir', dir, ...(end === -1 ? [] : args.slice(end))];
}

interface LabStatus {
  readonly prefix: string;
  readonly nodes: readonly {
    readonly name: string;
    readonly pid: number;
    readonly address: string;
    readonly socket: string;
    readonly state: string;
  }[];
}

function statusOf({ code, stdout, stderr }: Finished): LabStatus {
  if (code !== 0) throw new Error(stderr);
  return JSON.parse(stdout) as LabStatus;
}

/** Processes that carry the lab's folder in their command line, other than `lab` itself. */
async function agentsOf(dir: string): Promise<readonly string[]> {
  const { stdout } = await run(['pgrep', '-f', '--', `--data-dir ${dir}/`]);
  return stdout.split('\n').filter(Boolean);
}

async function nothingIsLeft(
  t: Pick<typeof import('tap').t, 'strictSame' | 'notOk'>,
  dir: string,
  prefix: string,
): Promise<void> {
  t.strictSame(netnsNames(`${prefix}-`), [], 'no namespace is left');
  t.strictSame(await agentsOf(dir), [], 'no process is left');
  t.notOk(existsSync(dir), 'no folder is left');
}

t.test('up and down, each twice; two labs side by side', { skip }, async (t) => {
  const [dirA, dirB] = [labFolder(t), labFolder(t)];
  const up = (dir: string, nodes: number) => lab(dir, 'up', '--nodes', `${nodes}`, '--json');
  const first = statusOf(await up(dirA, 2));
  t.match(first.nodes, [
    { name: 'node1', address: '10.213.0.11', socket: /^\/.+\.sock$/, state: 'ready' },
    { name: 'node2', address: '10.213.0.12', socket: /^\/.+\.sock$/, state: 'ready' },
  ]);
  for (const { pid } of first.nodes) t.ok(existsSync(`/proc/${pid}`), 'a process');
  t.strictSame(statusOf(await up(dirA, 2)), first, 'up again: the same nodes, the same agents');
  t.strictSame(statusOf(await lab(dirA, 'status', '--json')), first);

  const other = statusOf(await up(dirB, 1));
  t.not(other.prefix, first.prefix);
  const nodesOf = async (dir: string) =>
    (await lab(dir, 'exec', 'node1', '--', ...shoalArgv, 'status', '--json')).stdout;
  const sizes = [dirA, dirB].map(async (dir) => JSON.parse(await nodesOf(dir)).members.length);
  t.strictSame(await Promise.all(sizes), [2, 1], 'two swarms');

  t.equal((await lab(dirB, 'down')).code, 0);
  await nothingIsLeft(t, dirB, other.prefix);
  t.strictSame(statusOf(await lab(dirA, 'status', '--json')), first, 'the first is untouched');

  process.kill(first.nodes[1]?.pid ?? 0, 'SIGKILL');
  await until(
    'its end is seen',
    5_000,
    async () => statusOf(await lab(dirA, 'status', '--json')).nodes[1]?.state === 'stopped',
  );
  const grown = statusOf(await up(dirA, 3));
  t.equal(grown.nodes[0]?.pid, first.nodes[0]?.pid, 'what runs goes on');
  t.not(grown.nodes[1]?.pid, first.nodes[1]?.pid, 'what was missing is started');
  t.match(grown.nodes, [{ state: 'ready' }, { state: 'ready' }, { name: 'node3', state: 'ready' }]);
  t.equal((await lab(dirA, 'down')).code, 0);
  await nothingIsLeft(t, dirA, first.prefix);
  t.equal((await lab(dirA, 'down')).code, 0, 'down again');
});

t.test('exec, env, status, partition and heal', { skip }, async (t) => {
  const dir = labFolder(t);
  const status = statusOf(await lab(dir, 'up', '--nodes', '2', '--no-swarm', '--json'));
  t.match(status.nodes, [{ state: 'inactive' }, { state: 'inactive' }]);
  const exec = (...command: string[]) => lab(dir, 'exec', 'node1', '--', ...command);
  t.equal((await exec('true')).code, 0);
  t.equal((await exec('sh', '-c', 'exit 42')).code, 42);
  t.equal((await exec('sh', '-c', 'kill -TERM $$')).code, 143);
  t.equal((await exec('/she/no/such/program')).code, 127);
  t.match((await exec('ip', '-br', 'addr', 'show', 'eth0')).stdout, /10\.213\.0\.11\/16/);
  const socket = status.nodes[0]?.socket ?? '';
  const inside = (await exec('sh', '-c', 'echo $DOCKER_HOST $SHOAL_SOCKET $SHOAL_LAB_NODE')).stdout;
  t.equal(inside, `unix://${socket} ${socket} node1\n`);
  const env = (await lab(dir, 'env', 'node2')).stdout;
  const script = `${env}\nprintf '%s %s' "$DOCKER_HOST" "$SHOAL_LAB_NODE"`;
  const evaluated = (await run(['sh', '-c', script])).stdout;
  t.equal(evaluated, `unix://${status.nodes[1]?.socket} node2`, 'what env prints can be evaluated');
  t.match(
    (await lab(dir, 'status')).stdout,
    /^NODE +STATE +MANAGER +PID +ADDRESS +NAMESPACE +SOCKET$/m,
  );

  const pings = async () => (await exec('ping', '-c1', '-W0.3', '10.213.0.12')).code === 0;
  t.ok(await pings());
  t.equal((await lab(dir, 'partition', 'node1')).stdout, 'partitioned: node1 | node2\n');
  t.notOk(await pings());
  t.match((await lab(dir, 'status')).stdout, /^partitioned: node1 \| node2$/m);
  t.equal((await lab(dir, 'heal')).code, 0);
  await until('they reach each other', 5_000, pings);

  const refusals: readonly (readonly [readonly string[], number, RegExp])[] = [
    [['exec', 'node9', '--', 'true'], 2, /there is no node node9: the lab has node1, node2/],
    [['env', 'node9'], 2, /there is no node node9/],
    [['partition', 'node9'], 2, /there is no node node9/],
    [['partition', 'node1', 'node1'], 2, /node1 is named twice/],
    [['partition', 'node1,node2'], 2, /at least two groups/],
    [['partition'], 2, /missing required argument 'group'/],
    [['up', '--nodes', 'many'], 2, /--nodes must be a number, not 'many'/],
    [['up', '--nodes', '1000'], 2, /1 to 100 nodes/],
    [['up', '--mtu', '100'], 2, /MTU of the wire is 1400 to/],
    [['up', '--mtu', '9000'], 1, /is up with other settings: 'shoal lab down' it first/],
    [['up', '--driver', 'magic'], 2, /--driver must be auto, native or portable/],
    [['up', '--managers', '3'], 2, /3 managers need as many nodes, and the lab is to have 2/],
    [['up', '--managers', '8'], 2, /a lab has 1 to 7 managers, not 8/],
    [['kill', 'node9'], 2, /there is no node node9/],
    [['kill', 'node1', '--signal', 'HUH'], 2, /--signal must be one of SIGKILL, .*, not 'HUH'/],
    [['start', 'node9'], 2, /there is no node node9/],
  ];
  for (const [args, code, text] of refusals) {
    const ran = await lab(dir, ...args);
    t.equal(ran.code, code, args.join(' '));
    t.match(ran.stderr.trim().split('\n').at(-1), text);
  }
  t.equal((await lab(dir, 'down')).code, 0);
  for (const verb of ['status', 'heal']) {
    const ran = await lab(dir, verb);
    t.equal(ran.code, 1, verb);
    t.match(ran.stderr, /^shoal: no lab is up in .+: 'shoal lab up' first\n$/);
  }
});

/** Starts `lab up` and waits until it says what it is at. */
async function upUntil(t: Teardown, dir: string, said: RegExp, nodes = 1): Promise<Running> {
  const upping = start(t, [...shoalArgv, 'lab', 'up', '--nodes', `${nodes}`, '--dir', dir]);
  await until(`lab up says ${said}`, 20_000, () => said.test(upping.output()));
  return upping;
}

const prefixIn = (text: string) => /namespaces (shoal-\w+)-/.exec(text)?.[1] ?? 'none';
const MOMENTS = [/wiring/, /starting the agent of node1/, /waiting/, /forming the swarm/];

t.test('down after lab up was killed, at every moment', { skip }, async (t) => {
  for (const moment of MOMENTS) {
    const dir = labFolder(t);
    const upping = await upUntil(t, dir, moment);
    await upping.stop('SIGKILL');
    const prefix = prefixIn(upping.output());
    t.not(prefix, 'none');
    const down = await lab(dir, 'down');
    t.equal(down.code, 0, `${moment}: ${down.stderr}`);
    await nothingIsLeft(t, dir, prefix);
  }
});

t.test('lab up goes on where a killed one stopped', { skip }, async (t) => {
  const dir = labFolder(t);
  const upping = await upUntil(t, dir, /starting the agent of node2/, 2);
  await upping.stop('SIGKILL');
  const status = statusOf(await lab(dir, 'up', '--nodes', '2', '--json'));
  t.match(status.nodes, [{ state: 'ready' }, { state: 'ready' }]);
  t.equal((await agentsOf(dir)).length, 2, 'one agent for each node');
  t.equal((await lab(dir, 'down')).code, 0);
  await nothingIsLeft(t, dir, status.prefix);
});

t.test('lab up that is interrupted takes down what it made', { skip }, async (t) => {
  for (const [signal, code, moment] of [
    ['SIGINT', 130, /starting the agent of node1/],
    ['SIGTERM', 143, /waiting/],
    ['SIGINT', 130, /forming the swarm/],
  ] as const) {
    const dir = labFolder(t);
    const upping = await upUntil(t, dir, moment);
    const finished = await upping.stop(signal);
    t.equal(finished.code, code, finished.stderr);
    t.match(finished.stderr, new RegExp(`${signal}, taking down what was made`));
    await nothingIsLeft(t, dir, prefixIn(finished.stderr));
  }
});

t.test('labs need not lie in short folders', { skip }, async (t) => {
  const parent = scratch(t);
  const dir = `${parent}/${'long'.repeat(25)}`;
  t.teardown(() => lab(dir, 'down'));
  const status = statusOf(await lab(dir, 'up', '--nodes', '1', '--no-swarm', '--json'));
  t.ok((status.nodes[0]?.socket.length ?? 999) <= 100, 'a path that a socket can have');
  t.equal((await lab(dir, 'exec', 'node1', '--', ...shoalArgv, 'status', '--json')).code, 0);
  t.equal((await lab(dir, 'down')).code, 0);
  await nothingIsLeft(t, dir, status.prefix);
  t.notOk(existsSync(status.nodes[0]?.socket ?? ''));
});
