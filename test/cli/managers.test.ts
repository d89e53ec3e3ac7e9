import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import t from 'tap';
import type { RecoveryReport } from '../../src/agent/recovery-report.js';
import { formatHistory, historyPathOf } from '../../src/cli/history.js';
import { formatRecovery } from '../../src/cli/recover.js';
import { describeSnapshot, explainRestore } from '../../src/cli/snapshot.js';
import { fakeAgent, scratch, shoal } from './shoal.js';

const described = {
  clusterId: 'swarm1',
  cluster: 'default',
  version: 13,
  index: 19,
  term: 2,
  createdAt: '2026-01-02T03:04:05.678Z',
  sizeBytes: 10515,
  objects: { cluster: 1, node: 2, network: 0, secret: 1 },
  nodes: [
    { id: 'n1', hostname: 'alpha', role: 'manager', manager: '10.0.0.1:2377' },
    { id: 'n2', hostname: 'beta', role: 'worker' },
  ],
  networks: [],
  secrets: ['password'],
  configs: [],
};

const holds = {
  nodeId: 'n1',
  address: '10.0.0.1:2377',
  raftId: 1,
  role: 'candidate',
  term: 4,
  leader: 0,
  lastIndex: 30,
  commitIndex: 29,
  appliedIndex: 28,
  version: 17,
  members: [
    { raftId: 1, voter: true, nodeId: 'n1', address: '10.0.0.1:2377' },
    { raftId: 2, voter: true, nodeId: 'n2', address: '10.0.0.2:2377' },
    { raftId: 3, voter: true, nodeId: 'n3', address: '10.0.0.3:2377' },
  ],
};

const report = {
  hasLeader: false,
  quorum: { voters: 3, needed: 2, reachable: 1 },
  self: holds,
  others: [
    { nodeId: 'n2', unreachable: 'connection refused' },
    { nodeId: 'n3', unreachable: 'timeout' },
  ],
  best: 'n1',
  advice: 'bring them back',
} as unknown as RecoveryReport;

t.test('a snapshot is saved for its owner only, whole or not at all', async (t) => {
  const bytes = 'head\n'.repeat(1000);
  const agent = await fakeAgent(t, () => ({ status: 200, body: bytes }));
  const env = { SHOAL_SOCKET: agent.socket };
  const folder = scratch(t);
  const file = join(folder, 'a.snapshot');
  const saved = await shoal(['snapshot', 'save', file], env);
  t.match(saved, { code: 0, stdout: new RegExp(`^${file}: 5000 bytes; .*secret`) });
  t.equal(readFileSync(file, 'utf8'), bytes);
  t.equal(statSync(file).mode & 0o777, 0o600);
  t.strictSame(readdirSync(folder), ['a.snapshot'], 'nothing else is left');

  writeFileSync(file, 'precious');
  t.match(await shoal(['snapshot', 'save', file], env), {
    code: 2,
    stdout: '',
    stderr: `shoal: ${file} is there already: --force overwrites it\n`,
  });
  t.equal(readFileSync(file, 'utf8'), 'precious');
  t.equal((await shoal(['snapshot', 'save', file, '--force'], env)).code, 0);
  t.equal(readFileSync(file, 'utf8'), bytes);
  t.match(await shoal(['snapshot', 'save', join(folder, 'no/such/folder')], env), {
    code: 1,
    stderr: /^shoal: ENOENT.*\n$/,
  });
});

t.test('a snapshot that is cut short or refused leaves the old one', async (t) => {
  const socket = join(scratch(t), 'agent.sock');
  const server = createServer((request, response) => {
    if (request.url !== '/shoal/v1/snapshot') return response.writeHead(404).end();
    response.write('half of it');
    return setTimeout(() => response.destroy(), 20);
  });
  await new Promise<void>((done) => server.listen(socket, done));
  t.teardown(() => server.close());
  const file = join(scratch(t), 'a');
  writeFileSync(file, 'old');
  const cut = await shoal(['snapshot', 'save', file, '--force', '--socket', socket]);
  t.match(cut, { code: 1, stderr: /^shoal: the agent on .* broke off: .*\n$/ });
  t.equal(readFileSync(file, 'utf8'), 'old');
  t.notOk(existsSync(`${file}.partial`));

  const agent = await fakeAgent(t, () => ({ status: 503, body: { message: 'locked', code: 'X' } }));
  const refused = await shoal(['snapshot', 'save', file, '--force', '--socket', agent.socket]);
  t.match(refused, { code: 1, stderr: 'shoal: locked\n' });
  t.equal(readFileSync(file, 'utf8'), 'old');
});

t.test('what a snapshot holds is told, and what a restore would do', async (t) => {
  const agent = await fakeAgent(t, ({ path }) => ({
    status: 200,
    body: path.endsWith('restore') ? { nodeId: 'n9' } : described,
  }));
  const env = { SHOAL_SOCKET: agent.socket };
  const file = join(scratch(t), 'a.snapshot');
  writeFileSync(file, '');
  const shown = await shoal(['snapshot', 'inspect', file], env);
  t.match(shown, { code: 0, stdout: `${describeSnapshot(described)}\n` });
  t.match(shown.stdout, /^Objects: {2}cluster 1, node 2, secret 1$/m);
  t.match(shown.stdout, /^n1 +alpha +manager +10\.0\.0\.1:2377$/m);
  t.strictSame(
    JSON.parse((await shoal(['snapshot', 'inspect', file, '--json'], env)).stdout),
    described,
  );
  const { calls } = agent;
  t.strictSame(calls.at(-1)?.body, { path: file }, 'the path is whole');

  const before = calls.length;
  const told = await shoal(['snapshot', 'restore', file], env);
  t.match(told, { code: 2, stdout: '', stderr: /nothing was changed: --force restores it\n$/ });
  t.match(told.stderr, explainRestore(described));
  t.strictSame(
    calls.slice(before).map(({ path }) => path),
    ['/shoal/v1/snapshot/inspect'],
    'nothing else was asked',
  );
  const restored = await shoal(['snapshot', 'restore', file, '--force'], env);
  t.match(restored, { code: 0, stdout: 'restored: node n9 is the manager of swarm swarm1\n' });
  t.match(restored.stderr, /only manager of that swarm/, 'it is explained all the same');
  t.strictSame(calls.at(-1), {
    method: 'POST',
    path: '/shoal/v1/snapshot/restore',
    body: { path: file },
  });
  t.match(await shoal(['snapshot', 'inspect', '/no/such/file'], env), {
    code: 2,
    stderr: 'shoal: there is no file /no/such/file\n',
  });
});

t.test('recover shows every manager, and acts only with --force', async (t) => {
  let answer = report;
  const agent = await fakeAgent(t, ({ method }) => ({
    status: 200,
    body: method === 'GET' ? answer : { nodeId: 'n1' },
  }));
  const env = { SHOAL_SOCKET: agent.socket };
  const shown = await shoal(['recover'], env);
  t.match(shown, { code: 0, stderr: '', stdout: `${formatRecovery(report)}\n` });
  t.match(shown.stdout, /^NODE +ADDRESS +ROLE +TERM +LAST +COMMIT +APPLIED +VERSION +REACHABLE$/m);
  t.match(shown.stdout, /^n1 \* +10\.0\.0\.1:2377 +candidate +4 +30 +29 +28 +17 +yes$/m);
  t.match(shown.stdout, /^n2 +10\.0\.0\.2:2377 .* no: connection refused$/m);
  t.match(shown.stdout, /^Quorum: +2 of 3 managers are needed, 1 can be reached$/m);
  t.match(shown.stdout, /^Advice: +bring them back$/m);
  t.strictSame(JSON.parse((await shoal(['recover', '--json'], env)).stdout), report);
  t.ok(agent.calls.every(({ method }) => method === 'GET'));

  const forced = await shoal(['recover', '--force'], env);
  t.match(forced, { code: 0, stdout: /^recovered: node n1 is the only manager/ });
  t.match(forced.stderr, /^Quorum:/m, 'what is there is shown before');
  t.match(agent.calls.at(-1), { method: 'POST', path: '/shoal/v1/recover', body: { force: true } });

  answer = { ...report, hasLeader: true };
  const count = agent.calls.length;
  t.match(await shoal(['recover', '--force'], env), {
    code: 1,
    stderr: /nothing was changed: the managers have a leader\n$/,
  });
  t.equal(agent.calls.length, count + 1, 'it only looked');
});

t.test('history asks for what the flags say', async (t) => {
  t.equal(historyPathOf({ limit: '5' }), '/shoal/v1/history?limit=5');
  t.equal(historyPathOf({ limit: '100', object: 'a b' }), '/shoal/v1/history?limit=100&object=a+b');
  const item = {
    version: 9,
    atMs: Date.UTC(2026, 0, 2, 3, 4, 5, 6),
    kind: 'node_update',
    action: 'update',
    objectKind: 'node',
    id: '9o03az277g7zjqpfvdtk30mxl',
    name: 'node3',
    note: 'ready → down',
  } as const;
  const line = '2026-01-02T03:04:05.006Z   9         update   node     9o03az277g7z   node3';
  t.match(formatHistory([item]), `${line}   node_update   ready → down`);
  const agent = await fakeAgent(t, () => ({ status: 200, body: [item] }));
  const env = { SHOAL_SOCKET: agent.socket };
  t.match((await shoal(['history', '--object', 'node3'], env)).stdout, line);
  t.equal(agent.calls[0]?.path, '/shoal/v1/history?limit=100&object=node3');
  t.strictSame(JSON.parse((await shoal(['history', '--json'], env)).stdout), [item]);
  for (const limit of ['0', 'x', '-1', '100000'])
    t.match(await shoal(['history', `--limit=${limit}`], env), {
      code: 2,
      stderr: `shoal: --limit must be a number from 1 to 10000, not '${limit}'\n`,
    });
});

t.test('flows and ports of this node are shown', async (t) => {
  const flow = {
    client: '2001:db8::1',
    clientPort: 4000,
    port: 'tcp/80',
    serviceId: 's1',
    serviceName: 'web',
    ageMs: 65_000,
  };
  const taken = {
    ...flow,
    client: '192.0.2.1',
    taskId: '9o03az277g7zjqpfvdtk30mxl',
    backend: '10.0.0.5:8080',
    ageMs: 3_900_000,
    bytesUp: 999,
    bytesDown: 12_345_678,
  };
  const port = {
    serviceId: 's1',
    serviceName: 'web',
    port: 'tcp/80',
    newFlows: 9,
    openFlows: 2,
    refused: { allow_from: 2, rate: 1 },
    connects: 8,
    failedConnects: 4,
    readyTasks: 3,
    openAt: ['10.0.0.1', '::1'],
  };
  const agent = await fakeAgent(t, ({ path }) => ({
    status: 200,
    body: path === '/shoal/v1/ports' ? [port] : { total: 5, flows: [flow, taken] },
  }));
  const env = { SHOAL_SOCKET: agent.socket };
  const columns = async (...line: readonly string[]) =>
    (await shoal(line, env)).stdout.split('\n').map((row) => row.split(/ {2,}/));
  const table = await columns('flows', '--service', 'web', '--limit', '2');
  t.strictSame(table.slice(1, 4), [
    ['[2001:db8::1]:4000', 'tcp/80', 'web', '-', '-', '1m5s', '-', '-'],
    ['192.0.2.1:4000', 'tcp/80', 'web', '9o03az277g7z', '10.0.0.5:8080', '1h5m', '999B', '12.3MB'],
    ['… and 3 more'],
  ]);
  t.equal(agent.calls[0]?.path, '/shoal/v1/flows?limit=2&service=web');
  t.strictSame((await columns('top', 'services'))[1], [
    ...['web', 'tcp/80', '9', '2', '3', '8', '4', '3', '10.0.0.1,::1'],
  ]);
  t.strictSame(JSON.parse((await shoal(['top', 'services', '--json'], env)).stdout), [port]);
  t.match(JSON.parse((await shoal(['flows', '--json'], env)).stdout), { total: 5 });
  t.match(await shoal(['flows', '--limit=10001'], env), { code: 2, stderr: /from 1 to 10000/ });
});

t.test('a wrong command line of these verbs is one sentence', async (t) => {
  const wrong: readonly (readonly [readonly string[], RegExp])[] = [
    [['snapshot', 'save'], /missing required argument 'file': see 'shoal snapshot save --help'/],
    [['snapshot', 'shave'], /unknown command 'shave'/],
    [['snapshot', 'restore', 'a', 'b'], /too many arguments/],
    [['recover', 'node1'], /too many arguments/],
    [['recover', '--yes'], /unknown option '--yes'/],
    [['history', '--follow'], /unknown option '--follow'/],
  ];
  for (const [args, want] of wrong) {
    const { code, stdout, stderr } = await shoal(args);
    t.equal(code, 2, args.join(' '));
    t.equal(stdout, '');
    t.match(stderr, want);
    t.equal(stderr.split('\n').length, 2);
  }
});
