import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { TaskState, TaskStatus } from '../../../src/base/service-model.js';
import { ASSIGNMENTS_NAME } from '../../../src/control/dispatch/index.js';
import { secretId, serviceId, serviceSpec, taskId } from '../store/core/commands.js';
import { networkId, networkSpec, nodeId } from '../support.js';
import { Cluster, type Log, until } from './cluster-support.js';

const a = nodeId('a');
const SECRET = Buffer.from('do not tell').toString('base64');
const status = (state: TaskState, more: Partial<TaskStatus> = {}): TaskStatus => ({
  state,
  atMs: 1,
  message: state,
  ...more,
});

function deploy(log: Log, tasks: number): void {
  const file = { name: 's', uid: '0', gid: '0', mode: 0o400 };
  const secrets = [{ secretId: secretId(1), secretName: 'sec', file }];
  log.commit({
    kind: 'secret_create',
    id: secretId(1),
    spec: { name: 'sec', labels: {} },
    data: SECRET,
  });
  log.commit({
    kind: 'service_create',
    id: serviceId(1),
    spec: serviceSpec('web', { task: { container: { image: 'nginx', secrets } } }),
    registryAuth: 'credentials',
  });
  for (let n = 1; n <= tasks; n++) run(log, n);
}

function run(log: Log, n: number): void {
  const specVersion = log.state.row('service', serviceId(1))?.specVersion ?? 0;
  const task = { id: taskId(n), serviceId: serviceId(1), slot: n, specVersion } as const;
  log.commit({
    kind: 'task_create',
    task: { ...task, desiredState: 'running', status: status('pending') },
  });
  log.commit({ kind: 'task_assign', id: taskId(n), nodeId: a, status: status('assigned') });
}

t.test('an agent gets its tasks with what they need, and its disk no secret', async (t) => {
  await Cluster.run(1, async (cluster) => {
    const { log } = cluster;
    cluster.join(a);
    const dataDir = join(t.testdirName, 'agent');
    const first = await cluster.agent(a, { dataDir });
    await until('it is there', () => first.connected);
    deploy(log, 1);
    await until('it has a task', () => first.assignments()?.tasks.size === 1);
    t.match(first.assignments()?.tasks.get(taskId(1)), { registryAuth: 'credentials' });
    t.equal(first.assignments()?.secrets.get(secretId(1))?.data, SECRET);
    t.match([...(first.assignments()?.services.values() ?? [])], [{ name: 'web' }]);
    await first.close();
    const text = await readFile(join(dataDir, ASSIGNMENTS_NAME), 'utf8');
    t.match(text, taskId(1));
    t.notMatch(text, SECRET);
    t.notMatch(text, 'credentials');

    const second = await cluster.agent(a, { dataDir });
    t.ok(second.assignments()?.tasks.has(taskId(1)), 'from the disk');
    await until('it is told', () => second.assignments()?.secrets.size === 1);
    t.equal(cluster.managers[0]?.dispatcher.stats().fullTells, 1, 'of the secrets only');
    log.commit({ kind: 'task_desired', id: taskId(1), desiredState: 'shutdown' });
    await until('it needs them no more', () => second.assignments()?.secrets.size === 0);
    log.commit({ kind: 'service_remove', id: serviceId(1) });
    log.commit({ kind: 'task_remove', id: taskId(1) });
    await until('all is gone', () => second.assignments()?.tasks.size === 0);
    t.equal(second.assignments()?.services.size, 0);
  });
  t.testdir();
});

t.test('reports are told together, in order, and once more to the next manager', async (t) => {
  await Cluster.run(2, async (cluster) => {
    const { log } = cluster;
    cluster.join(a);
    deploy(log, 3);
    const session = await cluster.agent(a);
    await until('it has its tasks', () => session.assignments()?.tasks.size === 3);
    const state = (n: number) => log.state.row('task', taskId(n))?.status.state;
    session.reportTasks([{ taskId: taskId(1), status: status('accepted') }]);
    await until('it is kept', () => state(1) === 'accepted');
    for (const what of ['preparing', 'starting', 'running'] as const)
      for (const n of [1, 2, 3]) session.reportTasks([{ taskId: taskId(n), status: status(what) }]);
    session.reportTasks([{ taskId: taskId(9), status: status('running') }]);
    await until('all are kept', () => [1, 2, 3].every((n) => state(n) === 'running'));
    const first = cluster.managerOf(session);
    t.equal(first.reports.length, 2, 'one message for all that came in the meantime');
    session.reportTasks([
      { taskId: taskId(2), status: status('failed', { error: 'e'.repeat(9_999) }) },
    ]);
    await until('it is kept', () => state(2) === 'failed');
    log.commit({ kind: 'task_remove', id: taskId(3) });
    await until('it is told', () => session.assignments()?.tasks.size === 2);
    const { port } = first.remote;
    await cluster.stop(first, 'kill');
    const isServed = () => session.remote !== undefined && session.remote.port !== port;
    await until('another serves it', isServed);
    const next = cluster.managerOf(session);
    await until('it hears', () => next.reports.length > 0);
    t.strictSame(
      next.reports.flatMap(({ reports }) => reports.map((one) => [one.taskId, one.status.state])),
      [
        [taskId(1), 'running'],
        [taskId(2), 'failed'],
      ],
    );
  });
});

t.test('what could not be kept is told again', async (t) => {
  await Cluster.run(1, async (cluster) => {
    const { log } = cluster;
    cluster.join(a);
    deploy(log, 1);
    const session = await cluster.agent(a);
    await until('it has its task', () => session.assignments()?.tasks.size === 1);
    log.quorum = false;
    session.reportTasks([{ taskId: taskId(1), status: status('running') }]);
    await until('it was tried', () => (cluster.managers[0]?.reports.length ?? 0) > 0);
    await sleep(150);
    log.quorum = true;
    await until('it is kept', () => log.state.row('task', taskId(1))?.status.state === 'running');
    t.pass('it is');
  });
});

t.test('a node hears of its own only, and all of what all need, at once', async (t) => {
  await Cluster.run(1, async (cluster) => {
    const { log } = cluster;
    const b = nodeId('b');
    for (const id of [a, b]) cluster.join(id);
    const [one, other] = [await cluster.agent(a), await cluster.agent(b)];
    await until('both are there', () => one.connected && other.connected);
    await until('they are quiet', () => one.assignments() !== undefined);
    await sleep(100);
    let told = 0;
    other.onAssignments(() => told++);
    const seen: string[] = [];
    one.onAssignments(() => {
      const all = one.assignments();
      seen.push(`${all?.networks.size} networks, ${all?.tasks.size} tasks`);
    });
    log.commit({ kind: 'network_create', id: networkId(1), spec: networkSpec('n') });
    deploy(log, 1);
    await until('it has a task', () => one.assignments()?.tasks.size === 1);
    t.strictSame(seen, ['1 networks, 1 tasks'], 'never one without the other');
    await until('the other was told', () => told === 1);
    run(log, 2);
    log.commit({
      kind: 'task_status',
      reports: [{ taskId: taskId(1), status: status('running') }],
    });
    await until('it has two', () => one.assignments()?.tasks.size === 2);
    t.equal(told, 1);
    t.equal(other.assignments()?.tasks.size, 0);
  });
});
