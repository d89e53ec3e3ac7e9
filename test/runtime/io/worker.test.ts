import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type TaskObject, taskName } from '../../../src/base/service-model.js';
import type { TaskId } from '../../../src/base/swarm-model.js';
import { chooseRuntime } from '../../../src/runtime/core/choice.js';
import { RuntimeError } from '../../../src/runtime/core/runtime-error.js';
import { type TaskReport, TaskWorker, WORKER_CONFIG } from '../../../src/runtime/io/worker.js';
import { FakeRuntime } from '../../support/fake-runtime.js';
import { MESH, taskId, taskObject } from '../../support/tasks.js';

const ID = taskId('task');
const quiet = { debug: () => undefined, info: () => undefined, warn: () => undefined };

/** An agent's worker, whose reports and network orders can be waited for. */
class Agent {
  readonly worker: TaskWorker;
  readonly network: string[] = [];
  /** Resolves with the first interfaces. */
  readonly wired: Promise<void>;
  #onWire: () => void = () => undefined;
  readonly #told: TaskReport[] = [];
  readonly #waiting = new Set<() => void>();

  constructor(folder: string, runtime: FakeRuntime, silenceMs = 10_000) {
    this.wired = new Promise((resolve) => {
      this.#onWire = resolve;
    });
    this.worker = TaskWorker.open(
      { ...WORKER_CONFIG, silenceMs, journalPath: join(folder, 'tasks.json') },
      {
        runtimes: [runtime],
        log: quiet,
        networks: {
          wire: async (task, _netns, endpoint) => {
            this.#note(`wire ${task.serviceName} ${endpoint}`);
            this.#onWire();
          },
          unwire: () => this.#note('unwire'),
          announce: async () => this.#note('announce'),
          drain: async () => this.#note('drain'),
        },
        runtimeTask: (task) => ({
          id: task.id,
          name: taskName(task),
          container: task.spec.container,
          labels: {},
          secrets: new Map(),
          configs: new Map(),
          network: 'resolver',
          hosts: [],
        }),
        report: (reports) => {
          this.#told.push(...reports);
          for (const look of this.#waiting) look();
        },
      },
    );
  }

  #note(what: string): void {
    this.network.push(what);
  }

  assign(...tasks: TaskObject[]): void {
    this.worker.assign(
      tasks.map((task) => ({ task, runtime: 'host' })),
      true,
    );
    this.worker.setManagersHeard(true);
  }

  /** Resolves with the first report, already made or still to come, that fits. */
  told(state: string, id: TaskId = ID): Promise<TaskReport['status']> {
    return new Promise((resolve) => {
      const look = () => {
        const at = this.#told.findIndex((r) => r.taskId === id && r.status.state === state);
        if (at < 0) return;
        this.#waiting.delete(look);
        const [found] = this.#told.splice(0, at + 1).slice(-1);
        if (found !== undefined) resolve(found.status);
      };
      this.#waiting.add(look);
      look();
    });
  }
}

function world(t: Test): { readonly folder: string; readonly runtime: FakeRuntime } {
  const folder = mkdtempSync(join(tmpdir(), 'worker-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return { folder, runtime: new FakeRuntime() };
}

t.test('a task runs, with its networks, and is told to the managers', async (t) => {
  const { folder, runtime } = world(t);
  const agent = new Agent(folder, runtime);
  t.teardown(() => agent.worker.close());
  agent.assign(taskObject({ networks: MESH }));
  const { container, message } = await agent.told('running');
  t.strictSame(container, { id: `c-${ID}`, pid: 101 });
  t.equal(message, 'started');
  t.strictSame(agent.network, ['wire web starting', 'announce']);
  t.strictSame(runtime.calls, ['list', `prepare ${ID}`, `start ${ID}`]);

  agent.assign(taskObject({ networks: MESH, desiredState: 'shutdown' }));
  t.match(await agent.told('shutdown'), { container: { exitCode: 143 } });
  t.strictSame(agent.network.slice(2), ['drain', 'unwire']);
  t.strictSame([...agent.worker.stats().tasks], [['shutdown', 1]]);
});

t.test('a task is the same after the agent was killed', async (t) => {
  const { folder, runtime } = world(t);
  const first = new Agent(folder, runtime);
  first.assign(taskObject({ networks: MESH }));
  await first.told('running');
  await first.worker.close();
  t.strictSame(runtime.running(), [ID]);

  const second = new Agent(folder, runtime);
  t.teardown(() => second.worker.close());
  second.assign(taskObject({ networks: MESH }));
  await second.wired;
  runtime.exit(ID, 3, true);
  const { error, container } = await second.told('failed');
  t.equal(error, 'task: non-zero exit (3): out of memory');
  t.strictSame(container, { id: `c-${ID}`, pid: 0, exitCode: 3 });
  t.equal(runtime.calls.filter((call) => call.startsWith('start')).length, 1);
  t.strictSame(second.network, ['wire web ready', 'unwire'], 'its interfaces were raised again');
});

t.test('ports without a number get free ones, which outlive the agent', async (t) => {
  const { folder, runtime } = world(t);
  const first = new Agent(folder, runtime);
  const port = (protocol: 'tcp' | 'udp') =>
    ({ protocol, targetPort: 80, publishedPort: 0, publishMode: 'host' }) as const;
  const ports = [port('tcp'), port('tcp'), port('udp')];
  const tasks = ['task', 'other'].map((id) => taskObject({ id, ports }));
  first.assign(...tasks);
  const ids = tasks.map(({ id }) => id);
  const [a, b] = await Promise.all(ids.map(async (id) => (await first.told('running', id)).ports));
  const keys = [...(a ?? []), ...(b ?? [])].map((p) => `${p.protocol}/${p.publishedPort}`);
  t.equal(new Set(keys).size, 6, keys.join());
  for (const { publishedPort } of a ?? []) t.ok(publishedPort >= 32_768 && publishedPort <= 60_999);
  await first.worker.close();
  const second = new Agent(folder, runtime);
  t.teardown(() => second.worker.close());
  second.assign(...tasks, taskObject({ id: 'third' }));
  await second.told('running', taskId('third'));
  for (const [at, ports] of [a, b].entries())
    t.match(second.worker.status(taskId(at === 0 ? 'task' : 'other')), { state: 'running', ports });
});

t.test('what ended is remembered by the next agent, without a runtime that knows', async (t) => {
  const { folder, runtime } = world(t);
  const first = new Agent(folder, runtime);
  first.assign(taskObject());
  await first.told('running');
  runtime.exit(ID, 0);
  await first.told('complete');
  await first.worker.close();
  runtime.tasks.clear();

  const second = new Agent(folder, runtime);
  t.teardown(() => second.worker.close());
  second.assign(taskObject(), taskObject({ id: 'other' }));
  await second.told('running', taskId('other'));
  t.strictSame(runtime.running(), [taskId('other')]);
  t.match(second.worker.status(ID), { state: 'complete', message: 'finished' });
});

t.test('a damaged journal costs nothing but itself', async (t) => {
  const { folder, runtime } = world(t);
  writeFileSync(join(folder, 'tasks.json'), '{"schema":1,"tasks":{"a":1}}');
  const agent = new Agent(folder, runtime);
  agent.assign(taskObject());
  await agent.told('running');
  await agent.worker.close();
  const { tasks } = JSON.parse(readFileSync(join(folder, 'tasks.json'), 'utf8'));
  t.match(tasks[ID], { state: 'running', container: { pid: 101 } });
});

t.test('a refusal of the runtime is told in its words', async (t) => {
  const { folder, runtime } = world(t);
  runtime.fail('prepare', new RuntimeError({ code: 'RUNTIME_FAILED' }, 'No such image: nope'));
  const agent = new Agent(folder, runtime);
  t.teardown(() => agent.worker.close());
  agent.assign(taskObject());
  t.match(await agent.told('rejected'), { error: 'No such image: nope', message: 'preparing' });

  runtime.fail('prepare', undefined);
  const detail = { code: 'RUNTIME_FAILED', exitCode: 127 } as const;
  runtime.fail('start', new RuntimeError(detail, 'no such program'));
  agent.assign(taskObject({ id: 'second' }));
  const failed = await agent.told('failed', taskId('second'));
  t.match(failed, { error: 'starting container failed: no such program' });
  t.equal(failed.container?.exitCode, 127);
});

t.test('a hanging preparation is given up, and the others go on', async (t) => {
  const { folder, runtime } = world(t);
  runtime.hang('prepare');
  const agent = new Agent(folder, runtime);
  t.teardown(() => agent.worker.close());
  agent.assign(taskObject());
  await agent.told('preparing');
  runtime.hang('prepare', false);
  agent.assign(taskObject(), taskObject({ id: 'other' }));
  await agent.told('running', taskId('other'));
  agent.assign(taskObject({ desiredState: 'shutdown' }), taskObject({ id: 'other' }));
  await agent.told('shutdown');
  await runtime.called(`remove ${ID}`);
});

t.test('with no manager heard a task starts again in its place', async (t) => {
  const { folder, runtime } = world(t);
  const agent = new Agent(folder, runtime, 20);
  t.teardown(() => agent.worker.close());
  const restart = { delayMs: 10 };
  agent.assign(taskObject({ spec: { restart } }));
  await agent.told('running');
  agent.worker.setManagersHeard(false);
  runtime.exit(ID, 1);
  await agent.told('failed');
  const { message, container } = await agent.told('running');
  t.equal(message, 'started again, once, while no manager was heard');
  t.equal(container?.pid, 102);
});

t.test('an end that managers have is theirs to answer', async (t) => {
  const { folder, runtime } = world(t);
  const agent = new Agent(folder, runtime, 0);
  t.teardown(() => agent.worker.close());
  agent.assign(taskObject({ spec: { restart: { delayMs: 0 } } }));
  const status = await agent.told('running');
  agent.worker.acknowledged([{ taskId: ID, status }]);
  runtime.exit(ID, 1);
  const ended = await agent.told('failed');
  agent.worker.acknowledged([{ taskId: ID, status: ended }]);
  agent.worker.setManagersHeard(false);
  const other = taskObject({ id: 'other' });
  agent.worker.assign([{ task: other, runtime: 'host' }], false);
  await agent.told('running', other.id);
  t.strictSame(runtime.running(), [other.id]);
});

t.test('logs come from whichever runtime has the task', async (t) => {
  const { folder, runtime } = world(t);
  const agent = new Agent(folder, runtime);
  t.teardown(() => agent.worker.close());
  agent.assign(taskObject());
  await agent.told('running');
  const query = { stdout: true, stderr: true, follow: false };
  const lines: string[] = [];
  for await (const { data } of agent.worker.logs(ID, query, AbortSignal.timeout(1000)))
    lines.push(Buffer.from(data).toString());
  t.strictSame(lines, [`web.1.${ID}\n`]);
  const missing = agent.worker.logs(taskId('nobody'), query, AbortSignal.timeout(1000));
  await t.rejects(missing.next(), { message: /this node has no log of task nobody/ });
});

t.test('a node that leaves takes its tasks with it', async (t) => {
  const { folder, runtime } = world(t);
  const agent = new Agent(folder, runtime);
  agent.assign(taskObject({ networks: MESH }), taskObject({ id: 'other' }));
  await agent.told('running');
  await agent.worker.leave(5000);
  t.strictSame([...runtime.tasks], []);
  t.throws(() => readFileSync(join(folder, 'tasks.json')), { code: 'ENOENT' });
});

t.test('a runtime that does not answer holds up its own tasks only, until it does', async (t) => {
  const { folder, runtime } = world(t);
  runtime.fail('list', new Error('no answer'));
  const agent = new Agent(folder, runtime);
  t.teardown(() => agent.worker.close());
  agent.assign(taskObject());
  await agent.told('accepted');
  t.strictSame(runtime.running(), []);
});

t.test('the image says who runs a task', async (t) => {
  const both = new Set(['host', 'engine'] as const);
  const hostOnly = new Set(['host'] as const);
  for (const image of ['host', 'host:1', 'host@sha256:12', 'docker.io/library/host:latest'])
    t.strictSame(chooseRuntime(image, both), { runtime: 'host' }, image);
  for (const image of ['hosts', 'me/host', 'nginx', 'hostile:1'])
    t.strictSame(chooseRuntime(image, both), { runtime: 'engine' }, image);
  t.match(chooseRuntime('nginx:1', hostOnly), {
    runtime: 'host',
    refusal: /^image nginx:1 needs a container engine, and this node has none/,
  });
});
