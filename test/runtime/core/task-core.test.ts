import t from 'tap';
import type { TaskObject } from '../../../src/base/service-model.js';
import type { TaskId } from '../../../src/base/swarm-model.js';
import type { KnownTask } from '../../../src/runtime/core/runtime.js';
import { ENDED_KEPT_MAX, TASKS_MAX, TaskCore } from '../../../src/runtime/core/task-core.js';
import type {
  AssignedTask,
  Outcome,
  RememberedTask,
  TaskAction,
} from '../../../src/runtime/core/task-input.js';
import { MESH, taskId, taskObject } from '../../support/tasks.js';

const CONFIG = { preparesMax: 2, prepareSlotMs: 10_000, silenceMs: 10_000 };
const ID = taskId('task');
const PREPARED: Outcome = { kind: 'prepared', containerId: 'c1', netns: '/run/netns/1' };
const STARTED: Outcome = { kind: 'started', containerId: 'c1', pid: 42, health: 'none' };
const DONE: Outcome = { kind: 'done' };
const failed = (error: string): Outcome => ({ kind: 'failed', error });

const running: KnownTask = {
  id: ID,
  containerId: 'c1',
  state: 'running',
  pid: 42,
  netns: '/run/netns/1',
  health: 'none',
  labels: {},
};

/** A core that is told what to do in short words; time stands still unless it is moved. */
class Driven {
  readonly core: TaskCore;
  atMs = 1000;
  actions: TaskAction[] = [];
  reports: string[] = [];
  forgotten: TaskId[] = [];

  constructor(
    found: readonly KnownTask[] = [],
    remembered: ReadonlyMap<TaskId, RememberedTask> = new Map(),
  ) {
    this.core = new TaskCore(CONFIG, remembered);
    this.step({ kind: 'found', runtime: 'host', tasks: found });
    this.step({ kind: 'managers', isHeard: true });
  }

  step(input: Parameters<TaskCore['step']>[0]): this {
    this.core.step(input, this.atMs);
    const ready = this.core.takeReady();
    this.actions.push(...ready.actions);
    this.forgotten.push(...ready.forgotten);
    for (const { status } of ready.reports) {
      const { state, message, error } = status;
      this.reports.push(`${state}: ${message}${error === undefined ? '' : ` (${error})`}`);
    }
    return this;
  }

  assign(...tasks: (TaskObject | AssignedTask)[]): this {
    return this.step({
      kind: 'assignments',
      isConfirmed: true,
      tasks: tasks.map((task) => ('task' in task ? task : { task, runtime: 'host' as const })),
    });
  }

  /** Answers the last action, which must be of that kind. */
  answer(kind: TaskAction['kind'], outcome: Outcome, id: TaskId = ID): this {
    const action = this.actions.findLast(
      (a) => a.id === id && 'action' in a && a.kind !== 'cancel',
    );
    if (action?.kind !== kind || !('action' in action))
      throw new Error(`last action is ${action?.kind}, not ${kind}`);
    return this.step({ kind: 'done', id, action: action.action, outcome });
  }

  /** Lets time pass, as the driver does it. */
  pass(ms: number): this {
    const endMs = this.atMs + ms;
    for (;;) {
      const deadlineMs = this.core.nextDeadlineMs();
      if (deadlineMs === undefined || deadlineMs > endMs) break;
      this.atMs = Math.max(this.atMs, deadlineMs);
      this.step({ kind: 'timeout' });
    }
    this.atMs = endMs;
    return this;
  }

  kinds(): string[] {
    return this.actions.splice(0).map(({ kind }) => kind);
  }

  told(): string[] {
    return this.reports.splice(0);
  }
}

/** A task on the network `mesh` that runs. */
function runningTask(wish: Parameters<typeof taskObject>[0] = {}): Driven {
  const driven = new Driven()
    .assign(taskObject({ networks: MESH, ...wish }))
    .answer('prepare', PREPARED)
    .answer('wire', DONE)
    .answer('start', STARTED)
    .answer('announce', DONE);
  driven.kinds();
  driven.told();
  return driven;
}

t.test('a task is prepared, wired and started, and every step is told', async (t) => {
  const driven = new Driven().assign(taskObject({ networks: MESH }));
  t.strictSame(driven.kinds(), ['prepare']);
  t.strictSame(driven.told(), ['accepted: accepted', 'preparing: preparing']);

  driven.step({ kind: 'timeout' });
  const [prepare] = new Driven().assign(taskObject({ networks: MESH })).actions;
  t.equal(prepare?.kind, 'prepare');
  driven.step({ kind: 'done', id: ID, action: 1, outcome: PREPARED });
  t.strictSame(driven.kinds(), ['wire']);
  t.strictSame(driven.told(), [], 'it is prepared when its networks are there');

  driven.step({ kind: 'done', id: ID, action: 2, outcome: DONE });
  t.strictSame(driven.kinds(), ['start']);
  t.strictSame(driven.told(), ['ready: prepared', 'starting: starting']);

  driven.step({ kind: 'done', id: ID, action: 3, outcome: STARTED });
  t.strictSame(driven.kinds(), ['announce']);
  t.strictSame(driven.told(), ['starting: starting'], 'it runs when all nodes send it work');

  driven.step({ kind: 'done', id: ID, action: 4, outcome: DONE });
  t.strictSame(driven.kinds(), []);
  t.strictSame(driven.told(), ['running: started']);
});

t.test('an announcement that hangs is not waited for, nor one that is of no use', async (t) => {
  const started = () =>
    new Driven()
      .assign(taskObject({ networks: MESH }))
      .answer('prepare', PREPARED)
      .answer('wire', DONE)
      .answer('start', STARTED);
  t.equal(started().pass(14_999).told().at(-1), 'starting: starting');
  t.equal(started().pass(15_000).told().at(-1), 'running: started');

  const unwanted = started();
  unwanted.kinds();
  unwanted.assign(taskObject({ networks: MESH, desiredState: 'shutdown' }));
  t.strictSame(unwanted.kinds(), ['drain']);
  const ill = started();
  ill.kinds();
  ill.step({ kind: 'health', id: ID, health: 'unhealthy' });
  t.strictSame(ill.kinds(), ['drain']);
  ill.step({ kind: 'done', id: ID, action: 4, outcome: DONE });
  t.notMatch(ill.told(), ['running: started'], 'a late answer changes nothing');
});

t.test('what is only to be ready waits there until it is to run', async (t) => {
  const driven = new Driven()
    .assign(taskObject({ desiredState: 'ready' }))
    .answer('prepare', PREPARED);
  t.strictSame(driven.kinds(), ['prepare']);
  t.equal(driven.told().at(-1), 'ready: prepared');
  t.equal(driven.core.nextDeadlineMs(), undefined);

  driven.assign(taskObject({ desiredState: 'running' }));
  t.strictSame(driven.kinds(), ['start']);
});

t.test('a task with a health check runs when it is healthy', async (t) => {
  const driven = new Driven()
    .assign(taskObject({ networks: MESH }))
    .answer('prepare', PREPARED)
    .answer('wire', DONE)
    .answer('start', { ...STARTED, health: 'starting' });
  t.equal(driven.told().at(-1), 'starting: starting');
  driven.kinds();

  driven.step({ kind: 'health', id: ID, health: 'healthy' });
  t.strictSame(driven.kinds(), ['announce']);
  driven.step({ kind: 'done', id: ID, action: 4, outcome: DONE });
  t.equal(driven.told().at(-1), 'running: started');
});

t.test('how it ends is told in the words of Docker', async (t) => {
  const end = (exitCode: number, error?: string) =>
    runningTask()
      .step({ kind: 'exited', id: ID, exitCode, ...(error !== undefined && { error }) })
      .told()
      .at(-1);
  t.equal(end(0), 'complete: finished');
  t.equal(end(1), 'failed: started (task: non-zero exit (1))');
  t.equal(end(137, 'out of memory'), 'failed: started (task: non-zero exit (137): out of memory)');
});

t.test('an end takes the interfaces away before it is told', async (t) => {
  const driven = runningTask().step({ kind: 'exited', id: ID, exitCode: 1 });
  t.strictSame(driven.kinds(), ['unwire']);
  t.equal(driven.core.nextDeadlineMs(), undefined, 'the managers decide what comes next');
});

t.test('an unhealthy task is drained, stopped and has failed', async (t) => {
  const driven = runningTask({ container: { stopSignal: 'SIGINT', stopGracePeriodMs: 3000 } });
  driven.step({ kind: 'health', id: ID, health: 'unhealthy' });
  t.strictSame(driven.kinds(), ['drain']);
  driven.step({ kind: 'done', id: ID, action: 5, outcome: DONE });
  t.match(driven.actions, [{ kind: 'stop', signal: 'SIGINT', graceMs: 3000 }]);
  driven.step({ kind: 'exited', id: ID, exitCode: 130 }).answer('stop', DONE);
  t.strictSame(driven.told(), ['failed: started (task: non-zero exit (130): unhealthy container)']);
});

t.test('an unhealthy task that ends with 0 has failed all the same', async (t) => {
  const driven = runningTask().step({ kind: 'health', id: ID, health: 'unhealthy' });
  driven.answer('drain', DONE).step({ kind: 'exited', id: ID, exitCode: 0 });
  t.strictSame(driven.told(), ['failed: started (unhealthy container)']);
});

t.test('a task that is to go is drained, stopped, and has shut down', async (t) => {
  const driven = runningTask().assign(taskObject({ networks: MESH, desiredState: 'shutdown' }));
  t.strictSame(driven.kinds(), ['drain']);
  driven.pass(69_999);
  t.strictSame(driven.kinds(), []);
  driven.pass(1);
  t.strictSame(driven.kinds(), ['stop'], 'a drain that hangs is not waited for');
  driven.step({ kind: 'done', id: ID, action: 6, outcome: DONE });
  t.strictSame(driven.told(), [], 'its exit code is still to come');
  driven.step({ kind: 'exited', id: ID, exitCode: 137 });
  t.strictSame(driven.told(), ['shutdown: shutdown']);
  t.strictSame(driven.kinds(), ['unwire'], 'its log stays');
});

t.test('an exit code that never comes is not waited for', async (t) => {
  const driven = runningTask().assign(taskObject({ networks: MESH, desiredState: 'shutdown' }));
  driven.answer('drain', DONE).answer('stop', DONE).pass(1000);
  t.strictSame(driven.told(), ['shutdown: shutdown']);
});

t.test('a stop that hangs is tried again without grace', async (t) => {
  const driven = runningTask().assign(taskObject({ networks: MESH, desiredState: 'shutdown' }));
  driven.answer('drain', DONE);
  driven.kinds();
  driven.pass(20_000);
  t.match(driven.actions, [{ kind: 'stop', graceMs: 0 }]);
  t.strictSame(driven.told(), []);
});

t.test('a stop that is refused is told, and tried again', async (t) => {
  const driven = runningTask().assign(taskObject({ networks: MESH, desiredState: 'shutdown' }));
  driven.answer('drain', DONE).answer('stop', failed('no answer'));
  t.strictSame(driven.told(), ['running: started (cannot be stopped: no answer)']);
  driven.kinds();
  driven.pass(1000);
  t.strictSame(driven.kinds(), ['stop']);
});

t.test(
  'what cannot be prepared or wired is rejected; what cannot be started has failed',
  async (t) => {
    const wished = taskObject({ networks: MESH });
    const bad = new Driven().assign(wished).answer('prepare', failed('No such image: nope'));
    t.equal(bad.told().at(-1), 'rejected: preparing (No such image: nope)');
    t.strictSame(bad.kinds(), ['prepare', 'remove'], 'nothing is left of it');

    const apart = new Driven().assign(wished).answer('prepare', PREPARED);
    apart.answer('wire', failed('network mesh is gone'));
    t.equal(apart.told().at(-1), 'rejected: preparing (network mesh is gone)');
    t.strictSame(apart.kinds(), ['prepare', 'wire', 'unwire', 'remove']);

    const still = new Driven().assign(wished).answer('prepare', PREPARED).answer('wire', DONE);
    still.answer('start', { kind: 'failed', error: 'no such program', exitCode: 127 });
    t.equal(still.told().at(-1), 'failed: starting (starting container failed: no such program)');
  },
);

t.test('an interface that is not raised in time is a rejection', async (t) => {
  const driven = new Driven().assign(taskObject({ networks: MESH })).answer('prepare', PREPARED);
  driven.pass(30_000);
  t.equal(driven.told().at(-1), 'rejected: preparing (its networks were not there within 30 s)');
});

t.test('a task that ends before its start is answered', async (t) => {
  const driven = new Driven().assign(taskObject()).answer('prepare', PREPARED);
  driven.step({ kind: 'exited', id: ID, exitCode: 3 });
  driven.answer('start', STARTED);
  t.equal(driven.told().at(-1), 'failed: starting (task: non-zero exit (3))');
});

t.test('a refusal is told at once, and what is lacking is waited for', async (t) => {
  const task = taskObject();
  const refused = new Driven().assign({ task, runtime: 'host', refusal: 'no engine here' });
  t.equal(refused.told().at(-1), 'rejected: accepted (no engine here)');
  t.strictSame(refused.kinds(), []);

  const waiting = new Driven().assign({ task, runtime: 'host', lacks: 'waits for secret key' });
  t.equal(waiting.told().at(-1), 'accepted: waits for secret key');
  waiting.assign(task);
  t.strictSame(waiting.kinds(), ['prepare']);
});

t.test(
  'so many are prepared at a time, and one that hangs does not hold the others up',
  async (t) => {
    const names = ['a', 'b', 'c', 'd'];
    const driven = new Driven().assign(...names.map((id) => taskObject({ id })));
    t.strictSame(
      driven.actions.map(({ id }) => id),
      [taskId('a'), taskId('b')],
    );
    driven.answer('prepare', PREPARED, taskId('b'));
    t.strictSame(
      driven.actions.filter((a) => a.kind === 'prepare').map(({ id }) => id),
      [taskId('a'), taskId('b'), taskId('c')],
    );
    driven.pass(10_000);
    t.equal(driven.actions.filter((a) => a.kind === 'prepare').length, 4);
  },
);

t.test('a preparation that hangs is given up when the task is to go', async (t) => {
  const driven = new Driven().assign(taskObject());
  driven.assign(taskObject({ desiredState: 'shutdown' }));
  t.strictSame(driven.kinds(), ['prepare', 'cancel']);
  t.equal(driven.told().at(-1), 'shutdown: shutdown');
  driven.pass(10_000);
  t.strictSame(driven.kinds(), ['remove'], 'its rest goes, answered or not');
  driven.step({ kind: 'done', id: ID, action: 2, outcome: DONE }).assign();
  t.strictSame(driven.forgotten, [], 'an answer may still come');
  driven.step({ kind: 'done', id: ID, action: 1, outcome: PREPARED });
  t.strictSame(driven.kinds(), ['remove'], 'and what it brought goes too');
  driven.step({ kind: 'done', id: ID, action: 3, outcome: DONE });
  t.strictSame(driven.forgotten, [ID]);
});

t.test('tasks that are assigned no more end and go, on the word of a manager', async (t) => {
  const driven = runningTask();
  driven.step({ kind: 'assignments', tasks: [], isConfirmed: false });
  t.strictSame(driven.kinds(), []);
  driven.assign();
  t.strictSame(driven.kinds(), ['drain']);
  driven.step({ kind: 'done', id: ID, action: 5, outcome: DONE });
  driven.step({ kind: 'exited', id: ID, exitCode: 0 });
  t.strictSame(driven.kinds(), ['stop', 'unwire', 'remove']);
  driven.step({ kind: 'done', id: ID, action: 7, outcome: failed('busy') });
  driven.pass(999);
  t.strictSame(driven.kinds(), []);
  driven.pass(1);
  t.strictSame(driven.kinds(), ['remove'], 'until it is gone');
  driven.step({ kind: 'done', id: ID, action: 8, outcome: DONE });
  t.strictSame(driven.forgotten, [ID]);
});

t.test('a wish to remove takes away the log too, and the task is told as shut down', async (t) => {
  const driven = runningTask().assign(taskObject({ networks: MESH, desiredState: 'remove' }));
  driven.answer('drain', DONE).step({ kind: 'exited', id: ID, exitCode: 0 });
  t.strictSame(driven.kinds(), ['drain', 'stop', 'unwire', 'remove']);
  t.strictSame(driven.told(), ['shutdown: shutdown']);
});

t.test('a running task is found again and goes on untouched', async (t) => {
  const container = { id: 'c1', pid: 42 };
  const remembered = new Map([[ID, { state: 'running' as const, message: 'started', container }]]);
  const driven = new Driven([running], remembered).assign(taskObject({ networks: MESH }));
  t.match(driven.actions, [{ kind: 'wire', endpoint: 'ready' }], 'only its interfaces are raised');
  driven.answer('wire', DONE);
  t.equal(driven.actions.length, 1);
  t.strictSame(driven.told(), ['running: started'], 'as before');
});

t.test('a running task that nobody remembers is told as running', async (t) => {
  const driven = new Driven([running]).assign(taskObject());
  t.equal(driven.told().at(-1), 'running: started');
  t.strictSame(driven.kinds(), []);
});

t.test(
  'a found task that cannot be wired again runs on, says so, and is tried again',
  async (t) => {
    const driven = new Driven([running]).assign(taskObject({ networks: MESH }));
    driven.answer('wire', failed('the network is not known yet'));
    t.match(driven.told().at(-1), /^starting: .*not connected to its networks: the network/);
    driven.pass(1000).answer('wire', DONE).answer('announce', DONE);
    t.equal(driven.told().at(-1), 'running: started');
  },
);

t.test('an end while no agent ran is told', async (t) => {
  const remembered = new Map([[ID, { state: 'running' as const, message: 'started' }]]);
  const ended: KnownTask = { ...running, state: 'exited', pid: 0, exitCode: 2 };
  const driven = new Driven([ended], remembered).assign(taskObject());
  t.strictSame(driven.told(), ['failed: started (task: non-zero exit (2))']);
});

t.test('a task that ran and is nowhere now has failed', async (t) => {
  const remembered = new Map([[ID, { state: 'running' as const, message: 'started' }]]);
  const driven = new Driven([], remembered).assign(taskObject());
  t.match(driven.told().at(-1), /^failed: started \(the task is gone/);
  t.strictSame(driven.kinds(), []);
});

t.test('what has ended is not run again, whoever remembers it', async (t) => {
  const remembered = new Map([[ID, { state: 'complete' as const, message: 'finished' }]]);
  t.strictSame(new Driven([], remembered).assign(taskObject()).kinds(), []);
  const known = taskObject({ status: { state: 'failed', atMs: 1, message: 'started' } });
  t.strictSame(new Driven().assign(known).kinds(), []);
});

t.test('nothing is done for a task before its runtime was asked what it has', async (t) => {
  const driven = new Driven();
  driven.assign({ task: taskObject(), runtime: 'engine' });
  t.strictSame(driven.kinds(), []);
  driven.step({ kind: 'found', runtime: 'engine', tasks: [] });
  t.strictSame(driven.kinds(), ['prepare']);
});

t.test('strangers in the runtime go when a manager was heard, and not before', async (t) => {
  const driven = new Driven([running]);
  t.strictSame(driven.kinds(), []);
  driven.step({ kind: 'assignments', tasks: [], isConfirmed: false });
  t.strictSame(driven.kinds(), []);
  driven.assign();
  t.strictSame(driven.kinds(), ['stop']);
});

t.test('with no manager heard a task is restarted in its place', async (t) => {
  const driven = runningTask().step({ kind: 'managers', isHeard: false });
  driven.pass(7000).step({ kind: 'exited', id: ID, exitCode: 1 });
  driven.kinds();
  driven.pass(4999);
  t.strictSame(driven.kinds(), [], 'by the delay of its policy');
  driven.pass(1);
  t.strictSame(driven.kinds(), ['wire']);
  driven.step({ kind: 'done', id: ID, action: 5, outcome: DONE });
  driven.step({ kind: 'done', id: ID, action: 6, outcome: STARTED });
  t.strictSame(driven.kinds(), ['start', 'announce']);
  driven.step({ kind: 'done', id: ID, action: 7, outcome: DONE });
  t.equal(driven.told().at(-1), 'running: started again, once, while no manager was heard');
});

t.test(
  'a restart waits until managers were silent for long, and for the word of none',
  async (t) => {
    const silent = runningTask().step({ kind: 'managers', isHeard: false });
    silent.step({ kind: 'exited', id: ID, exitCode: 1 });
    silent.kinds();
    silent.pass(9999);
    t.strictSame(silent.kinds(), []);
    silent.step({ kind: 'managers', isHeard: true }).pass(60_000);
    t.strictSame(silent.kinds(), [], 'a manager is back');

    const known = runningTask().step({ kind: 'managers', isHeard: false });
    known.step({ kind: 'exited', id: ID, exitCode: 1 });
    known.step({ kind: 'acknowledged', ids: [ID] }).kinds();
    known.pass(60_000);
    t.strictSame(known.kinds(), [], 'the managers know of its end, and replace it');
  },
);

t.test('restarts keep to the policy', async (t) => {
  const restarts = (spec: object, exitCode: number, jobIteration?: number) => {
    const driven = runningTask({ spec, ...(jobIteration !== undefined && { jobIteration }) });
    driven.step({ kind: 'managers', isHeard: false }).pass(60_000);
    let count = 0;
    for (; count < 5; count += 1) {
      driven.step({ kind: 'exited', id: ID, exitCode }).pass(6000);
      if (driven.actions.at(-1)?.kind !== 'wire') break;
      driven.answer('wire', DONE).answer('start', STARTED).answer('announce', DONE);
    }
    return count;
  };
  const container = { image: 'host' };
  t.equal(restarts({ container }, 0), 5);
  t.equal(restarts({ container, restart: { condition: 'none' } }, 1), 0);
  t.equal(restarts({ container, restart: { condition: 'on-failure' } }, 0), 0);
  t.equal(restarts({ container, restart: { condition: 'on-failure' } }, 1), 5);
  t.equal(restarts({ container, restart: { maxAttempts: 2 } }, 1), 2);
  t.equal(restarts({ container, restart: { maxAttempts: 2, windowMs: 1000 } }, 1), 5);
  t.equal(restarts({ container }, 0, 1), 0, 'a job that was done is done');
  t.equal(restarts({ container }, 1, 1), 5);
});

t.test('a restart of what the runtime has lost prepares it anew', async (t) => {
  const driven = runningTask().step({ kind: 'managers', isHeard: false }).pass(60_000);
  driven.step({ kind: 'exited', id: ID, exitCode: 1 }).pass(5000).answer('wire', DONE);
  driven.kinds();
  driven.step({
    kind: 'done',
    id: ID,
    action: 6,
    outcome: { kind: 'failed', error: 'no such task', isGone: true },
  });
  t.strictSame(driven.kinds(), ['prepare']);
});

t.test('what the managers know as ended is brought down', async (t) => {
  const driven = runningTask();
  const status = { state: 'orphaned' as const, atMs: 1, message: 'the node was down for long' };
  driven.assign(taskObject({ networks: MESH, status }));
  t.strictSame(driven.kinds(), ['unwire', 'stop']);
});

t.test('events that were missed are made up for by asking once more', async (t) => {
  const driven = runningTask();
  driven.step({
    kind: 'found',
    runtime: 'host',
    tasks: [{ ...running, state: 'exited', exitCode: 9 }],
  });
  t.strictSame(driven.told(), ['failed: started (task: non-zero exit (9))']);
  const lost = runningTask().step({ kind: 'found', runtime: 'host', tasks: [] });
  t.match(lost.told(), [/^failed: started \(its runtime does not know it/]);
});

t.test('ports of the node are told with the running task', async (t) => {
  const port = {
    protocol: 'tcp',
    targetPort: 80,
    publishedPort: 8081,
    publishMode: 'host',
  } as const;
  const driven = new Driven().assign(taskObject({ ports: [port] }));
  driven.answer('prepare', PREPARED);
  let ports: unknown;
  driven.core.step({ kind: 'done', id: ID, action: 2, outcome: STARTED }, driven.atMs);
  for (const { status } of driven.core.takeReady().reports) ports = status.ports;
  t.strictSame(ports, [port]);
});

t.test('the node chooses the ports that have no number, and keeps them', async (t) => {
  const wish = { protocol: 'tcp', targetPort: 80, publishedPort: 0, publishMode: 'host' } as const;
  const named = { ...wish, targetPort: 81, publishedPort: 8081 };
  const chosen = { ...wish, publishedPort: 40_000 };
  const task = taskObject({ ports: [wish, named, { ...wish, publishMode: 'ingress' }] });
  const driven = new Driven().assign(task).answer('prepare', PREPARED).answer('start', STARTED);
  t.match(driven.actions.at(-1), { kind: 'choose', ports: [wish], taken: new Set(['tcp/8081']) });
  t.notMatch(driven.told(), [/^running/], 'it is not of use before');
  driven.answer('choose', failed('no free port')).pass(1000);
  t.match(driven.told().at(-1), /^starting: .*no free port/);
  driven.answer('choose', { kind: 'chosen', ports: [chosen] });
  t.strictSame(driven.told(), ['running: started']);
  t.strictSame(driven.core.published()[0]?.ports, [chosen, named]);

  const status = { state: 'running', message: 'started', ports: [chosen, named] } as const;
  const again = new Driven([running], new Map([[ID, status]])).assign(task);
  t.strictSame(again.kinds(), [], 'another agent has nothing to choose');
  t.strictSame(again.core.published()[0]?.ports, [chosen, named]);
  const other = new Driven([running]).assign({ ...task, status: { ...status, atMs: 0 } });
  t.strictSame(other.core.published()[0]?.ports, [chosen, named], 'a manager knows it as well');

  const host = new Driven().assign(task).answer('prepare', { kind: 'prepared', containerId: 'c1' });
  host.answer('start', STARTED);
  t.strictSame(host.told().at(-1), 'running: started');
  t.strictSame(
    host.core.published()[0]?.ports,
    [{ ...wish, publishedPort: 80 }, named],
    "with the host's network its own port is the node's",
  );
});

t.test('a node takes so many tasks, and keeps so many that have ended', async (t) => {
  const driven = new Driven();
  const tasks = Array.from({ length: TASKS_MAX + 1 }, (_, i) => taskObject({ id: `t${i}x` }));
  driven.assign(...tasks);
  t.equal(
    driven.told().filter((line) => line.startsWith('rejected: accepted (this node')).length,
    1,
  );

  const many = Array.from({ length: ENDED_KEPT_MAX + 1 }, (_, i) => ({
    ...running,
    id: taskId(`t${i}x`),
    state: 'exited' as const,
    exitCode: 0,
  }));
  const full = new Driven(many).assign(...many.map(({ id }) => taskObject({ id })));
  t.match(full.actions, [{ kind: 'remove', id: taskId('t0x') }]);
  t.equal(full.actions.length, 1);
});
