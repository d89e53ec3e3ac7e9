import { execFile } from 'node:child_process';
import { existsSync, readlinkSync } from 'node:fs';
import { promisify } from 'node:util';
import t from 'tap';
import { exitCodeOfSignal } from '../../src/cli/foreground.js';
import { formatHosts } from '../../src/cli/run/sandbox.js';
import { cannotMakeNamespaces } from '../dataplane/sys/netns-fixture.js';
import { fakeAgent, root, shoal, startShoal, type Teardown, until } from './shoal.js';

const skip = cannotMakeNamespaces;
const execute = promisify(execFile);

/** Attaches nothing, but says so; and remembers the namespaces that it was shown. */
async function attachingAgent(t: Teardown, refuse = false) {
  const namespaces: string[] = [];
  const pids: number[] = [];
  const agent = await fakeAgent(t, ({ path, body }) => {
    if (path.endsWith('detach')) return { status: 200, body: [] };
    const { network, name, target } = body as {
      network: string;
      name: string;
      target: { kind: string; pid: number };
    };
    if (refuse && network === 'second') return { status: 403, body: { message: 'no', code: 'NO' } };
    pids.push(target.pid);
    namespaces.push(readlinkSync(`/proc/${target.pid}/ns/net`));
    const made = { id: `id-${network}`, networkName: network, name, addresses: ['10.0.1.5/24'] };
    return { status: 201, body: made };
  });
  return { ...agent, namespaces, pids };
}

const run = (socket: string, ...args: string[]) => shoal(['run', '--socket', socket, ...args]);
const sh = (script: string) => ['--network', 'mesh', '--', 'sh', '-c', script];

t.test(
  'the command sees its own names, its own network, and this host otherwise',
  { skip },
  async (t) => {
    const agent = await attachingAgent(t);
    const script =
      'hostname=$(cat /proc/sys/kernel/hostname); echo $hostname $GREETING $(pwd); ' +
      'cat /etc/resolv.conf /etc/hosts; readlink /proc/self/ns/net; ip -br link; test ! -e /proc/self/fd/3 && echo closed';
    const flags = ['--hostname', 'box', '--env', 'GREETING=hello', '--workdir', '/usr'];
    const { code, stdout, stderr } = await run(agent.socket, ...flags, ...sh(script));
    t.match({ code, stderr }, { code: 0, stderr: '' });
    t.match(
      stdout,
      /^box hello \/usr\nnameserver 127\.0\.0\.11\noptions ndots:0\n127\.0\.0\.1\tlocalhost\n/,
    );
    t.match(stdout, /^10\.0\.1\.5\tbox$/m);
    t.match(stdout, /^lo +(UNKNOWN|UP)/m, 'loopback is up');
    t.match(stdout, agent.namespaces[0] ?? 'none', 'the agent was shown that very namespace');
    t.not(agent.namespaces[0], readlinkSync('/proc/self/ns/net'));
    t.match(stdout, /closed\n$/, 'no descriptor of ours is left open');
    t.strictSame(
      agent.calls.map((call) => call.path),
      ['/shoal/v1/attachments', '/shoal/v1/detach'],
    );
    t.match(agent.calls[0]?.body, { network: 'mesh', name: 'box', target: { kind: 'pid' } });
    t.strictSame(agent.calls[1]?.body, { id: 'id-mesh' });
  },
);

t.test('the command has the limit that shoal was started with', { skip }, async (t) => {
  const agent = await attachingAgent(t);
  const argv = ['run', '--socket', agent.socket, ...sh('ulimit -Sn; env')];
  // Node raises its own before it runs a line; `bin/shoal` is a shell's before it is Node's.
  const script = 'ulimit -Sn 700; exec bin/shoal "$@"';
  const { stdout } = await execute('sh', ['-c', script, 'sh', ...argv], { cwd: root });
  t.match(stdout, /^700\n/);
  t.notMatch(stdout, /SHOAL_STARTED/);
});

t.test('exit codes are those of docker run', { skip }, async (t) => {
  const agent = await attachingAgent(t);
  const cases: readonly (readonly [string, readonly string[], number])[] = [
    ['its own', sh('exit 7'), 7],
    ['a signal', sh('kill -TERM $$'), 143],
    ['not found', ['--network', 'mesh', '--', 'shl-no-such-command'], 127],
    ['not executable', ['--network', 'mesh', '--', '/etc/passwd'], 126],
    ['no such folder', ['--network', 'mesh', '--workdir', '/shl-none', '--', 'true'], 126],
    ['no agent', ['--socket', '/nowhere.sock', '--network', 'mesh', '--', 'true'], 125],
  ];
  for (const [name, args, want] of cases)
    t.equal((await run(agent.socket, ...args)).code, want, name);
});

t.test('a refused network is taken back whole', { skip }, async (t) => {
  const agent = await attachingAgent(t, true);
  const networks = ['--network', 'first', '--network', 'second', '--network', 'third'];
  const { code, stdout, stderr } = await run(agent.socket, ...networks, '--', 'echo', 'started');
  t.match({ code, stdout, stderr }, { code: 125, stdout: '', stderr: 'shoal: no\n' });
  t.strictSame(
    agent.calls.map(
      ({ path, body }) => `${path} ${JSON.stringify(Object.values(body as object)[0])}`,
    ),
    [
      '/shoal/v1/attachments "first"',
      '/shoal/v1/attachments "second"',
      '/shoal/v1/detach "id-first"',
    ],
  );
  t.notOk(existsSync(`/proc/${agent.pids[0]}/ns/net`), 'the sandbox is gone');
});

t.test('signals reach the command once', { skip }, async (t) => {
  const agent = await attachingAgent(t);
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGUSR1', 'SIGHUP'] as const) {
    const name = signal.slice(3);
    const script = `n=0; trap 'n=$((n+1)); echo got $n' ${name}; echo ready; while [ $n = 0 ]; do sleep 0.05; done; sleep 0.2; exit 9`;
    const { child, finished } = startShoal(['run', '--socket', agent.socket, ...sh(script)]);
    let out = '';
    child.stdout?.on('data', (text) => {
      out += text;
    });
    await until('the command runs', () => out.includes('ready'));
    child.kill(signal);
    const { code, stdout } = await finished;
    t.match({ code, stdout }, { code: 9, stdout: 'ready\ngot 1\n' }, signal);
  }
});

t.test('a command that dies by a forwarded signal says so', { skip }, async (t) => {
  const agent = await attachingAgent(t);
  const { child, finished } = startShoal([
    'run',
    '--socket',
    agent.socket,
    ...sh('echo ready; exec sleep 60'),
  ]);
  await new Promise((done) => child.stdout?.once('data', done));
  child.kill('SIGTERM');
  t.equal((await finished).code, exitCodeOfSignal('SIGTERM'));
  t.match(agent.calls.at(-1), { path: '/shoal/v1/detach' });
});

t.test('the command does not outlive a killed shoal', { skip }, async (t) => {
  const agent = await attachingAgent(t);
  const { child, finished } = startShoal([
    'run',
    '--socket',
    agent.socket,
    ...sh('echo ready; exec sleep 60'),
  ]);
  await new Promise((done) => child.stdout?.once('data', done));
  child.kill('SIGKILL');
  await finished;
  await until('it is gone', () => !existsSync(`/proc/${agent.pids[0]}/ns/net`));
  t.pass('gone');
});

t.test('a signal before the start starts nothing', { skip }, async (t) => {
  let asked = false;
  const agent = await fakeAgent(t, async () => {
    asked = true;
    await new Promise((done) => setTimeout(done, 300));
    return { status: 201, body: { id: 'x', networkName: 'mesh', name: 'n', addresses: [] } };
  });
  const { child, finished } = startShoal(['run', '--socket', agent.socket, ...sh('echo started')]);
  await until('the agent is asked', () => asked);
  child.kill('SIGTERM');
  const { code, stdout } = await finished;
  t.match({ code, stdout }, { code: 143, stdout: '' });
  t.match(agent.calls.at(-1), { path: '/shoal/v1/detach' }, 'what was attached is given back');
});

t.test('hosts hold loopback and the own name', async (t) => {
  t.equal(
    formatHosts('box', ['10.0.1.5/24', 'fd00::5/64']),
    '127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.1.5\tbox\nfd00::5\tbox\n',
  );
});
