import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { ApiServer, type HostContainers } from '../../src/api/index.js';
import { spanText } from '../../src/api/wire/host-container-json.js';
import { FakeBackend } from './fake-backend.js';
import { call, silent, temporaryFolder } from './harness.js';

const ID = 'ab'.repeat(32);
const NAME = 'web.1.task1';

/** One task that runs; commands in it are answered by hand. */
class FakeHost implements HostContainers {
  state: 'running' | 'exited' = 'running';
  readonly done: string[] = [];

  async list() {
    return [
      {
        id: ID,
        taskId: 'task1',
        name: NAME,
        image: 'host',
        command: ['sleep', '9'],
        env: ['A=b'],
        tty: false,
        labels: { 'com.docker.swarm.task.id': 'task1' },
        state: this.state,
        pid: this.state === 'running' ? 77 : 0,
        ...(this.state === 'running' ? {} : { exitCode: 5 }),
        health: 'none' as const,
        createdAtMs: Date.now() - 61_000,
        startedAtMs: Date.now() - 60_500,
      },
    ];
  }

  async *logs() {
    yield { stream: 'stdout' as const, atNs: 1_000_000_001n, data: Buffer.from('one\n') };
    yield { stream: 'stderr' as const, atNs: 2_000_000_000n, data: Buffer.from('two\n') };
  }

  async stop(_id: string, how: { readonly signal?: string; readonly graceMs: number }) {
    this.done.push(`stop ${how.signal ?? ''} ${how.graceMs}`);
    this.state = 'exited';
  }

  async remove() {
    this.done.push('remove');
  }

  async exec(...[, spec, streams]: Parameters<HostContainers['exec']>) {
    const exited = (async () => {
      let input = '';
      if (streams.stdin !== undefined)
        for await (const chunk of streams.stdin) input += Buffer.from(chunk).toString();
      await streams.output('stdout', Buffer.from(`${spec.command.join(' ')} <${input}>\n`));
      await streams.output('stderr', Buffer.from('complaint\n'));
      return 42;
    })();
    return { pid: 78, resize: () => undefined, exited };
  }

  async stats() {
    return { atMs: Date.now(), cpuNs: 5n, memoryBytes: 4096, pids: 3 };
  }

  async top() {
    return [
      {
        pid: 77,
        parentPid: 1,
        uid: 0,
        startedAtMs: 0,
        cpuMs: 61_000,
        tty: '?',
        command: 'sleep 9',
      },
    ];
  }
}

async function open(t: Test) {
  const host = new FakeHost();
  const socketPath = join(temporaryFolder(t), 'api.sock');
  const containers = {
    engine: () => undefined,
    host,
    elsewhere: () => undefined,
    node: () => {
      throw new Error('no other node');
    },
  };
  const backend = FakeBackend.manager();
  const api = await ApiServer.listen({ socketPath }, { backend, log: silent, containers });
  t.teardown(() => api.close());
  const ask = (method: string, path: string, body?: unknown) =>
    call(socketPath, method, path, body);
  const docker = (args: readonly string[], input = '') =>
    new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
      const child = spawn('docker', ['-H', `unix://${socketPath}`, ...args]);
      let [stdout, stderr] = ['', ''];
      child.stdout.on('data', (chunk) => {
        stdout += chunk;
      });
      child.stderr.on('data', (chunk) => {
        stderr += chunk;
      });
      child.on('close', (code) => resolve({ code, stdout, stderr }));
      child.stdin.end(input);
    });
  return { host, ask, docker };
}

t.test('tasks of the host runtime are shown as containers', async (t) => {
  const { ask, host } = await open(t);
  t.match((await ask('GET', '/v1.45/containers/json')).body, [
    {
      Id: ID,
      Names: [`/${NAME}`],
      Image: 'host',
      Command: 'sleep 9',
      State: 'running',
      Status: 'Up About a minute',
    },
  ]);
  t.match((await ask('GET', '/info')).body, { Containers: 1, ContainersRunning: 1 });
  const filtered = (filters: object) =>
    `/containers/json?filters=${encodeURIComponent(JSON.stringify(filters))}`;
  t.strictSame((await ask('GET', filtered({ name: ['other'] }))).body, []);
  t.match((await ask('GET', filtered({ label: ['com.docker.swarm.task.id=task1'] }))).body, [
    { Id: ID },
  ]);
  for (const ref of [ID, NAME, ID.slice(0, 12)])
    t.match((await ask('GET', `/containers/${ref}/json`)).body, {
      Id: ID,
      State: { Pid: 77 },
      Config: { Env: ['A=b'] },
    });
  t.match(await ask('GET', '/containers/nobody/json'), { status: 404 });
  t.match((await ask('GET', `/containers/${NAME}/top`)).body, {
    Processes: [['0', '77', '1', '0', '00:00', '?', '00:01:01', 'sleep 9']],
  });
  t.match(await ask('DELETE', `/containers/${NAME}`), { status: 409 });
  t.match(await ask('POST', `/containers/${NAME}/stop?t=3`), { status: 204 });
  t.strictSame(host.done, ['stop  3000']);
  t.strictSame(
    (await ask('GET', '/containers/json')).body,
    [],
    'those that have ended only if asked for',
  );
  t.match((await ask('GET', '/containers/json?all=1')).body, [
    { State: 'exited', Status: 'Exited (5) About a minute ago' },
  ]);
  t.match((await ask('POST', `/containers/${NAME}/wait`)).text, /"StatusCode":5/);
  t.match(await ask('POST', `/containers/${NAME}/exec`, { Cmd: ['x'] }), { status: 409 });
  t.match(await ask('DELETE', `/containers/${NAME}`), { status: 204 });
  t.match(await ask('POST', `/containers/${NAME}/pause`), { status: 501 });
});

t.test(
  'the docker CLI works on them',
  { skip: spawnSync('docker', ['--version']).status !== 0 && 'needs the docker CLI' },
  async (t) => {
    const { docker, host } = await open(t);
    const listed = await docker(['ps', '--format', '{{.Names}} {{.Status}}']);
    t.equal(listed.stdout, `${NAME} Up About a minute\n`);
    const logs = await docker(['logs', '-t', NAME]);
    t.equal(logs.stdout, '1970-01-01T00:00:01.000000001Z one\n');
    t.equal(logs.stderr, '1970-01-01T00:00:02.000000000Z two\n');
    const plain = await docker(['exec', NAME, 'say', 'hi']);
    t.strictSame(plain, { code: 42, stdout: 'say hi <>\n', stderr: 'complaint\n' });
    const piped = await docker(['exec', '-i', ID.slice(0, 8), 'cat'], 'some input');
    t.strictSame(piped, { code: 42, stdout: 'cat <some input>\n', stderr: 'complaint\n' });
    t.match((await docker(['exec', '-d', NAME, 'later'])).code, 0);
    t.match(
      (
        await docker([
          'stats',
          '--no-stream',
          '--format',
          '{{.Name}} {{.MemUsage}} {{.PIDs}}',
          NAME,
        ])
      ).stdout,
      /^web\.1\.task1 4KiB \/ 0B 3\n/,
    );
    t.match((await docker(['top', NAME])).stdout, /sleep 9/);
    t.match((await docker(['inspect', NAME, '--format', '{{.State.Status}}'])).stdout, 'running\n');
    t.equal((await docker(['kill', NAME])).code, 0);
    t.equal((await docker(['rm', '-f', NAME])).code, 0);
    t.strictSame(host.done, ['stop SIGKILL 0', 'remove']);
  },
);

t.test('spans are said as Docker says them', async (t) => {
  const cases = [
    [500, 'Less than a second'],
    [1_000, '1 second'],
    [59_000, '59 seconds'],
    [60_000, 'About a minute'],
    [120_000, '2 minutes'],
    [3_600_000, 'About an hour'],
    [47 * 3_600_000, '47 hours'],
    [3 * 86_400_000, '3 days'],
    [21 * 86_400_000, '3 weeks'],
    [90 * 86_400_000, '3 months'],
    [800 * 86_400_000, '2 years'],
  ] as const;
  for (const [ms, text] of cases) t.equal(spanText(ms), text);
});
