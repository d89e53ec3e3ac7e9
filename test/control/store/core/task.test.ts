import t from 'tap';
import type { TaskObject, TaskState, TaskStatus } from '../../../../src/base/service-model.js';
import type { NodeId } from '../../../../src/base/swarm-model.js';
import type { CommandBody, NewTask } from '../../../../src/control/store/core/command.js';
import { Bench, node, nodeId } from '../../support.js';
import { serviceId, serviceSpec, taskId } from './commands.js';

const status = (state: TaskState, more: Partial<TaskStatus> = {}): TaskStatus => ({
  state,
  atMs: 1,
  message: state,
  ...more,
});

/** A swarm with two nodes and the service `web`. */
function begun(): { readonly bench: Bench; readonly specVersion: number } {
  const bench = new Bench();
  for (const n of [1, 2]) bench.do({ kind: 'node_create', node: node(nodeId(n)) });
  const labels = { a: 'b' };
  bench.do({ kind: 'service_create', id: serviceId(1), spec: serviceSpec('web', { labels }) });
  return { bench, specVersion: bench.state.version };
}
const create = (n: number, specVersion: number, more: Partial<NewTask> = {}): CommandBody => ({
  kind: 'task_create',
  task: {
    id: taskId(n),
    serviceId: serviceId(1),
    slot: n,
    specVersion,
    desiredState: 'running',
    status: status('pending'),
    ...more,
  },
});
const assign = (n: number, on: number): CommandBody => ({
  kind: 'task_assign',
  id: taskId(n),
  nodeId: nodeId(on),
  status: status('assigned'),
});
const report = (n: number, what: TaskStatus, by?: NodeId): CommandBody => ({
  kind: 'task_status',
  reports: [{ taskId: taskId(n), status: what }],
  ...(by !== undefined && { nodeId: by }),
});
const row = (bench: Bench, n: number): TaskObject => {
  const task = bench.state.row('task', taskId(n));
  if (task === undefined) throw new Error('no such task');
  return task;
};

t.test('a task is made of its service, placed once, and found by both', async (t) => {
  const { bench, specVersion } = begun();
  bench.do(create(1, specVersion));
  const service = bench.state.row('service', serviceId(1));
  t.match(row(bench, 1), { serviceName: 'web', serviceLabels: { a: 'b' }, specVersion });
  t.equal(row(bench, 1).spec, service?.spec.task, 'the same object for all tasks of a version');
  t.strictSame([...bench.state.tasksOfService(serviceId(1))], [taskId(1)]);
  t.strictSame([...bench.state.tasksOnNode(nodeId(1))], []);
  bench.do(assign(1, 1));
  bench.do(assign(1, 2));
  t.match(row(bench, 1), { nodeId: nodeId(1), status: { state: 'assigned' } });
  t.strictSame([...bench.state.tasksOnNode(nodeId(1))], [taskId(1)]);
  bench.do({ kind: 'task_remove', id: taskId(1) });
  t.equal(bench.state.size('task'), 0);
  t.equal(bench.state.tasksOnNode(nodeId(1)).size, 0);
});

t.test('what is said too late is no mistake', async (t) => {
  const { bench, specVersion } = begun();
  const unchanged = (what: string, body: CommandBody) => {
    const { version } = bench.state;
    bench.do(body);
    t.equal(bench.state.version, version, what);
  };
  unchanged('another spec by now', create(1, specVersion - 1));
  unchanged('no such service', create(1, specVersion, { serviceId: serviceId(2) }));
  unchanged('no such node', create(1, specVersion, { nodeId: nodeId(9) }));
  unchanged('no such task', assign(1, 1));
  unchanged('no such task', report(1, status('running')));
  unchanged('no such task', { kind: 'task_desired', id: taskId(1), desiredState: 'shutdown' });
  unchanged('no such task', { kind: 'task_remove', id: taskId(1) });
  bench.do(create(1, specVersion));
  unchanged('there is one', create(1, specVersion));
  unchanged('no such node', assign(1, 9));
  bench.do(create(2, specVersion, { nodeId: nodeId(2), slot: 0 }));
  unchanged('meant for another node', assign(2, 1));
  bench.do(report(1, status('shutdown')));
  unchanged('it is over', assign(1, 1));
  bench.do(create(4, specVersion));
  unchanged('it is nowhere', report(4, status('preparing')));
  bench.do({ kind: 'service_remove', id: serviceId(1) });
  unchanged('a service that is being removed', create(3, specVersion));
  bench.do({ kind: 'service_purge', id: serviceId(1) });
  t.ok(bench.state.row('service', serviceId(1)), 'it has tasks');
});

t.test('what is wished of a task, and what is seen of it, only gets further', async (t) => {
  const { bench, specVersion } = begun();
  bench.do(create(1, specVersion, { nodeId: nodeId(1), desiredState: 'ready' }));
  const wish = (desiredState: TaskState) => {
    bench.do({ kind: 'task_desired', id: taskId(1), desiredState });
    return row(bench, 1).desiredState;
  };
  t.equal(wish('running'), 'running');
  t.equal(wish('ready'), 'running');
  const seen = (what: TaskStatus, by?: NodeId) => {
    bench.do(report(1, what, by));
    return row(bench, 1).status;
  };
  t.equal(seen(status('running'), nodeId(1)).state, 'pending', 'not placed there yet');
  bench.do(assign(1, 1));
  t.equal(seen(status('running'), nodeId(2)).state, 'assigned', 'it is not that node’s');
  t.equal(seen(status('running'), nodeId(1)).state, 'running');
  t.equal(seen(status('starting'), nodeId(1)).state, 'running');
  t.equal(seen(status('running', { health: 'healthy' }), nodeId(1)).health, 'healthy');
  t.equal(seen(status('failed', { error: 'x' }), nodeId(1)).state, 'failed');
  t.equal(seen(status('orphaned')).state, 'failed', 'it has ended already');
  t.equal(wish('shutdown'), 'shutdown');
  const { version } = bench.state;
  seen(status('failed', { error: 'x' }), nodeId(1));
  t.equal(bench.state.version, version, 'the same again is no news');
});

t.test('many reports are one change, and the last word about a task counts', async (t) => {
  const { bench, specVersion } = begun();
  for (const n of [1, 2]) {
    bench.do(create(n, specVersion));
    bench.do(assign(n, n));
  }
  const { version } = bench.state;
  bench.do({
    kind: 'task_status',
    nodeId: nodeId(1),
    reports: [
      { taskId: taskId(1), status: status('preparing') },
      { taskId: taskId(2), status: status('failed') },
      { taskId: taskId(1), status: status('running') },
      { taskId: taskId(7), status: status('running') },
    ],
  });
  t.equal(bench.state.version, version + 1);
  t.equal(row(bench, 1).status.state, 'running');
  t.equal(row(bench, 2).status.state, 'assigned', 'of another node');
});

t.test('when a task began and ended is the time of the command that told it first', async (t) => {
  const { bench, specVersion } = begun();
  bench.do(create(1, specVersion, { startsAtMs: 7 }));
  bench.do(assign(1, 1));
  t.equal(row(bench, 1).startsAtMs, 7);
  t.equal(row(bench, 1).runningAtMs, undefined);
  bench.do(report(1, status('running'), nodeId(1)));
  const { updatedAtMs } = row(bench, 1);
  t.equal(row(bench, 1).runningAtMs, updatedAtMs);
  bench.do(report(1, status('running', { health: 'healthy' }), nodeId(1)));
  t.equal(row(bench, 1).runningAtMs, updatedAtMs, 'and not when something else of it is told');
  t.equal(row(bench, 1).endedAtMs, undefined);
  bench.do(report(1, status('failed'), nodeId(1)));
  t.equal(row(bench, 1).endedAtMs, row(bench, 1).updatedAtMs);
});
